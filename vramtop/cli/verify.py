"""`vramtop verify`."""

from __future__ import annotations

import random

import click


@click.command(epilog="Example: vramtop verify run.parquet")
@click.argument("file", type=click.Path(readable=False))
@click.option("--seed", type=int, help="Of the random chunkings; drawn anew by default.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
def command(file: str, seed: int | None, rounds: int) -> int:
    """Prove that a recording replays identically, however it is cut into blocks.

    Replays FILE in its stored blocks, tick by tick and in random blocks, and compares the
    digests of all events. A recording made by `live --record` is also compared with what the
    live run concluded. Exits with 1 on any difference, and if FILE is damaged.
    """
    from vramtop.engine.verify import verify
    from vramtop.recording.reader import open_recording

    recording = open_recording(file)
    recording.check()
    chosen = random.SystemRandom().randrange(2**32) if seed is None else seed
    proof = verify(recording.blocks, seed=chosen, rounds=rounds)
    for run in proof.runs:
        click.echo(f"{run.digest[:16]}  {run.events} events  {run.how}")
    click.echo(f"live digest: {proof.live}")
    if proof.difference is not None:
        how, expected, found = proof.difference
        click.echo(f"first difference, {how} (seed {chosen}):", err=True)
        click.echo(f"  stored: {expected}\n  here:   {found}", err=True)
    click.echo("identical" if proof.holds else "DIFFERENT")
    return 0 if proof.holds else 1

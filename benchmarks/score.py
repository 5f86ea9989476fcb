"""How well the analyzers foresee out-of-memory failures, beside simple rules.

    python benchmarks/score.py [--short] [--jobs N] [--split test]

Method: simulated runs of every kind (`benchmarks/scoring/corpus.py`) go through the engine as a
recording would; forecasts and verdicts are looked at every 10 s. Runs that a coefficient was
fitted on are not scored. An alarm counts if it began within 30 min before the failure, at least
the lead time before it, and still stood then; every other alarm is false. Intervals are 95 %
(Wilson). `--short` takes a fifth of the runs: for a look, not for a claim; it exits with 1 if a figure
has fallen below the floor that CI holds (`FLOORS`), and if live and replay differ.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from scoring import corpus, identity, metrics
from scoring.baselines import BASELINES
from scoring.outcome import outcomes

LEADS_S = (10, 60, 300)
ALARM = "critical"
"""The level that has to meet recall and both limits of false alarms."""
FLOORS = {"recall": 0.75, "false alarms per GPU-day": 1.5, "Brier skill": 0.25, "P(OOM | OK)": 0.04}
"""What a fifth of the runs must show: the targets, less what so few runs scatter."""


def verdict_on(met: bool) -> str:  # noqa: FBT001
    """The word behind a target."""
    return "met" if met else "MISSED"


def print_rule(name: str, devices: list, alarms: list) -> dict[str, float]:
    """Recall per stratum and lead, and false alarms, of one rule."""
    found: dict[str, float] = {}
    words = []
    for stratum in metrics.STRATA:
        ooms = [
            (episodes, oom)
            for device, episodes in zip(devices, alarms, strict=True)
            for oom, why in zip(device.oom_s, device.strata, strict=True)
            if why == stratum
        ]
        for lead in LEADS_S:
            hits = sum(metrics.warned(episodes, oom, lead) for episodes, oom in ooms)
            low, high = metrics.wilson(hits, len(ooms))
            found[f"{stratum}@{lead}"] = hits / len(ooms) if ooms else float("nan")
            if lead == 60:
                words.append(f"{stratum} {hits}/{len(ooms)} [{low:.2f},{high:.2f}]")
            else:
                words.append(f"@{lead}s {hits}")
    false = metrics.false_alarms(devices, alarms)
    found["per_day"], found["per_start"] = false.per_day, false.per_start
    eventful = [
        (device, episodes)
        for device, episodes in zip(devices, alarms, strict=True)
        if device.run.kind not in corpus.LONG
    ]
    busy = metrics.false_alarms([one for one, _ in eventful], [other for _, other in eventful])
    low, high = metrics.wilson(false.early, false.starts)
    print(
        f"{name:16} recall at 60 s: {', '.join(words)}; false: {false.late} in {false.days:.1f} "
        f"GPU-days = {false.per_day:.2f}/day (without the long quiet runs {busy.late} in "
        f"{busy.days:.1f} = {busy.per_day:.2f}/day), {false.early}/{false.starts} starts = "
        f"{false.per_start:.3f} [{low:.3f},{high:.3f}]"
    )
    return found


def print_kinds(devices: list) -> None:
    """One line per kind: what was there and what was said."""
    print(
        "per kind: runs, failures (warned 60 s ahead, critical), false late/early, Brier skill 300 s, P(OOM|OK)"
    )
    climate = float(np.mean(metrics.stacked(devices, 1)[1]))
    for kind in corpus.kinds():
        chosen = [device for device in devices if device.run.kind == kind]
        if not chosen:
            continue
        alarms = [metrics.alarms_of(device, ALARM) for device in chosen]
        ooms = [(a, oom) for device, a in zip(chosen, alarms, strict=True) for oom in device.oom_s]
        hits = sum(metrics.warned(a, oom, 60) for a, oom in ooms)
        false = metrics.false_alarms(chosen, alarms)
        skill = metrics.brier_skill(*metrics.stacked(chosen, 1), climate)
        judged = metrics.verdicts(chosen)
        rows, failed = judged["OK"]
        covered, shown, _ = metrics.coverage(chosen)
        quiet, fine = judged["quiet OK"]
        strata = Counter(why for device in chosen for why in device.strata)
        print(
            f"  {kind:22} {len(chosen):4} {len(ooms):3} ({hits:3}) {false.late:3}/{false.early:<3} "
            f"{skill:6.2f}  {failed / rows if rows else 0:6.3f} (OK in {fine / quiet if quiet else 0:.2f} of quiet) "
            f"range {covered:.2f} of {shown:5} {dict(strata)}"
        )


def main() -> None:
    """Simulate, judge, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--split", default=corpus.TEST, choices=(*set(corpus.SPLITS),))
    parser.add_argument("--fresh", action="store_true", help="seeds that no split holds")
    options = parser.parse_args()
    began = time.perf_counter()
    runs = corpus.corpus((options.split,), share=0.2 if options.short else 1.0)
    if options.fresh:
        runs = corpus.fresh()
    devices = outcomes(runs, jobs=options.jobs)
    ticks = sum(len(device.tick_s) for device in devices)
    print(
        f"{len(runs)} runs, {len(devices)} GPUs of runs, {ticks / metrics.DAY_S:.1f} GPU-days, "
        f"{sum(len(device.oom_s) for device in devices)} failures; "
        f"{time.perf_counter() - began:.0f} s"
    )
    for name, rule in BASELINES.items():
        print_rule(name, devices, [rule(device) for device in devices])
    print_rule("vramtop warning", devices, [metrics.alarms_of(d, "warning") for d in devices])
    ours = print_rule("vramtop critical", devices, [metrics.alarms_of(d, ALARM) for d in devices])
    for name, value, met in (
        ("recall at 60 s, gradual, at least 0.85", ours["gradual@60"], ours["gradual@60"] >= 0.85),
        ("false alarms per GPU-day, at most 0.5", ours["per_day"], ours["per_day"] <= 0.5),
        ("false alarms per start, at most 0.02", ours["per_start"], ours["per_start"] <= 0.02),
    ):
        print(f"  {name}: {value:.3f} {verdict_on(met)}")
    skills = []
    for horizon, seconds in enumerate(metrics.HORIZONS_S):
        p, y = metrics.stacked(devices, horizon)
        skill = metrics.brier_skill(p, y, float(y.mean()))
        skills.append(skill)
        word = f" target 0.35 {verdict_on(skill >= 0.35)}" if seconds == 300 else ""
        table = ", ".join(
            f"{said:.2f}:{came:.2f}({rows})" for said, came, rows in metrics.reliability(p, y)
        )
        print(f"Brier skill at {seconds} s: {skill:.3f}{word}; said:came(rows) {table}")
    covered, shown, ratio = metrics.coverage(devices)
    print(
        f"80 % range: covers {covered:.3f} of {shown} rows where shown, target 0.75-0.85 "
        f"{verdict_on(0.75 <= covered <= 0.85)}; median high/low {ratio:.1f}"
    )
    judged = metrics.verdicts(devices)
    rows, failed = judged["OK"]
    quiet, fine = judged["quiet OK"]
    share = failed / rows if rows else float("nan")
    print(
        f"P(OOM within 15 min | OK) {share:.4f} of {rows} rows, target 0.02 "
        f"{verdict_on(share <= 0.02 and fine >= quiet / 2)}; OK on {fine / quiet if quiet else 0:.2f} of quiet rows; "
        f"TIGHT {judged['TIGHT']}, OOM {judged['OOM']}"
    )
    compared = [run for run in runs if run.seed == min(r.seed for r in runs)]
    equal = sum(identity.same(run) for run in compared)
    print(
        f"live = replay on {equal} of {len(compared)} runs (up to {identity.LONGEST} ticks each) "
        f"{verdict_on(equal == len(compared))}"
    )
    print_kinds(devices)
    print(f"{time.perf_counter() - began:.0f} s in all")
    kept = (
        equal == len(compared)
        and ours["gradual@60"] >= FLOORS["recall"]
        and ours["per_day"] <= FLOORS["false alarms per GPU-day"]
        and skills[1] >= FLOORS["Brier skill"]
        and share <= FLOORS["P(OOM | OK)"]
    )
    if options.short and not kept:
        sys.exit(f"below a floor: {FLOORS}, or live and replay differ")


if __name__ == "__main__":
    main()

"""Scenarios of serving on one GPU."""

from __future__ import annotations

from collections.abc import Callable

from vramtop.sources.sim import workloads_loads as loads
from vramtop.sources.sim import workloads_serving as serving
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import H100, SIZES
from vramtop.sources.sim.machine import Job, Machine, Work
from vramtop.sources.sim.scenario import Fill, Scenario
from vramtop.units import GIB


def _kv_cache(machine: Machine, dice: Dice) -> None:
    work = serving.growing_chats(chance=(0.02, dice.between(0.13, 0.18)))
    machine.start(
        dice.between(3.0, 8.0),
        Job(kind="kv-cache-growth", command="python serve_chat.py --model 7b", work=work),
    )


def _prealloc(machine: Machine, dice: Dice) -> None:
    work = serving.prealloc_server(weights_gib=dice.pick((7.5, 15.0, 27.0, 61.0)))
    machine.start(
        dice.between(2.0, 5.0),
        Job(
            kind="prealloc-server",
            command="vllm serve some-org/some-model --gpu-memory-utilization 0.92",
            work=work,
            framework="vllm",
            user="serve",
        ),
    )


def _jax(machine: Machine, dice: Dice) -> None:
    machine.start(
        dice.between(2.0, 5.0),
        Job(
            kind="jax-prealloc",
            command="python -m trainer.main --backend=gpu",
            work=serving.jax_training(),
            framework="jax",
        ),
    )


def _server(
    kind: str,
    make: Callable[[], Work],
    *,
    command: str = "python -m server --port 8000",
    framework: str = "pytorch",
) -> Fill:
    def fill(machine: Machine, dice: Dice) -> None:
        machine.start(
            dice.between(2.0, 9.0),
            Job(kind=kind, command=command, work=make(), user="serve", framework=framework),
        )

    return fill


def _slow_load(machine: Machine, dice: Dice) -> None:
    """One model for good, a process that switches models, or one process after another."""
    way = dice.pick(("once", "once", "switch", "processes"))

    def job(work: Work, *, main: bool) -> Job:
        return Job(
            kind="slow-load",
            command="llama-server -m model.gguf -ngl 99",
            work=work,
            framework="llamacpp",
            user="serve",
            watched=False,
            main=main,
        )

    if way != "processes":
        work = loads.slow_load(switches=way == "switch")
        machine.start(dice.between(2.0, 9.0), job(work, main=True))
        return
    at_s = dice.between(2.0, 9.0)
    usable_gib = machine.devices[0].board.usable_bytes / GIB
    for number in range(8):
        load_s, life_s = dice.scale(40.0, 300.0), dice.scale(120.0, 900.0)
        work = serving.loader(
            size_gib=usable_gib * dice.between(0.45, 0.9),
            load_s=load_s,
            life_s=life_s,
            busy_pct=dice.between(5.0, 80.0),
        )
        machine.start(at_s, job(work, main=number == 7))
        at_s += load_s + life_s + dice.scale(5.0, 300.0)


def _long_serving(machine: Machine, dice: Dice) -> None:
    """A day of one server, or of its versions one after the other."""
    at_s = dice.between(2.0, 60.0)
    lives = dice.pick((1, 1, 2, 4))
    for _ in range(lives):
        machine.start(
            at_s,
            Job(
                kind="long-serving",
                command="vllm serve some-org/some-model",
                work=loads.long_server(life_s=86_000.0 / lives),
                framework="vllm",
                user="serve",
                watched=False,
            ),
        )
        at_s += 86_000.0 / lives + dice.between(60.0, 400.0)


SERVING = (
    Scenario(
        name="kv-cache-growth", boards=(H100,), fill=_kv_cache, duration_s=3600.0, ends="gradual",
        text="chats whose caches grow, ever more of them at once, until it runs out",
    ),
    Scenario(
        name="prealloc-server", boards=(H100,), fill=_prealloc,
        text="a server like vLLM brings itself to 92 % and stays there",
    ),
    Scenario(
        name="jax-prealloc", boards=(H100,), fill=_jax,
        text="a JAX program takes three quarters at once and stays there",
    ),
    Scenario(
        name="jax-grows", sizes=SIZES, duration_s=5400.0, ends="mixed",
        fill=_server("jax-grows", serving.jax_growing, framework="jax",
                     command="python -m trainer.main --backend=gpu"),
        text="a JAX program takes doubling regions; for half the seeds a shape does not fit",
    ),
    Scenario(
        name="llama-load", sizes=SIZES, duration_s=1800.0, ends="mixed", strata=("startup",),
        fill=_server("llama-load", serving.llama_server, framework="llamacpp",
                     command="llama-server -m model-q4.gguf -ngl 99 -c 65536"),
        text="llama.cpp takes weights and cache in large buffers; for half the seeds too large",
    ),
    Scenario(
        name="server-refuses", sizes=SIZES, duration_s=1800.0,
        fill=_server("server-refuses", serving.refusing_server, framework="vllm",
                     command="vllm serve some-org/some-model --gpu-memory-utilization 0.5"),
        text="a server ends by its own plan for want of cache blocks; memory never runs out",
    ),
    Scenario(
        name="cache-fills", sizes=SIZES, duration_s=7200.0,
        fill=_server("cache-fills", loads.cache_fills),
        text="a cache fills ever more slowly to a level below the limit",
    ),
    Scenario(
        name="kv-saturates", sizes=SIZES, duration_s=5400.0,
        fill=_server("kv-saturates", loads.bounded_chats),
        text="chats come and go around a level that the board bears",
    ),
    Scenario(
        name="long-serving", sizes=SIZES, fill=_long_serving, duration_s=86_400.0,
        text="a day of a server with its pool, where a workspace comes now and then",
    ),
    Scenario(
        name="slow-load", sizes=SIZES, fill=_slow_load, duration_s=5400.0,
        text="models load for 40 s to 10 min, to half the board and more, then all is flat",
    ),
)  # fmt: skip

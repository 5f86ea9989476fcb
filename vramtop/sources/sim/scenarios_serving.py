"""Scenarios of serving on one GPU."""

from __future__ import annotations

from vramtop.sources.sim import workloads_serving as serving
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import H100
from vramtop.sources.sim.machine import Job, Machine
from vramtop.sources.sim.scenario import Scenario


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
)  # fmt: skip

"""The NVML source: ticks from the NVIDIA driver of this machine.

source.py      ticks: when, what is due, what they say
clock.py       the schedule
tiers.py       what is due, and backing off
fleet.py       all GPUs: one round, losing and finding them
sampler.py     the thread that makes calls, and its watchdog
board.py       one GPU with its MIG instances
devices.py     one GPU or instance: memory, sensors, process lists
processes.py   the list calls
membership.py  from lists to rows; births and deaths
identity.py    who a PID is
host.py        starting NVML; facts about the machine
_compat.py     around the binding
"""

from vramtop.sources.nvml.source import NvmlSource

__all__ = ["NvmlSource"]

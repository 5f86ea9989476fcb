"""Utilisation, power, temperature and clocks that go with the load."""

from __future__ import annotations

from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import Board
from vramtop.units import NS_PER_S

COOL_C, WARM_C = 31.0, 41.0
THERMAL_TIME_S = 25.0
IDLE_BIT, POWER_CAP_BIT = 1, 4


class Sensors:
    """The sensors of one GPU. Their noise is drawn apart from what workloads draw.

    Args:
        board: Its constants.
        dice: For the noise.
    """

    def __init__(self, board: Board, dice: Dice) -> None:
        self._board = board
        self._dice = dice
        self._temp_c = COOL_C
        self._at_ns = 0
        self._load = 0.0

    def quick(self, now_ns: int, gpu_pct: float, mem_pct: float) -> tuple[int, int, int]:
        """Utilisation of cores and of memory bandwidth in per cent, power in milliwatts."""
        dice, board = self._dice, self._board
        wobble = dice.between(-3.0, 3.0)
        if gpu_pct <= 0.0:
            gpu = mem = 0
        else:
            gpu = max(0, min(100, round(gpu_pct + wobble)))
            mem = max(0, min(100, round(mem_pct + wobble * 0.7)))
        load = (0.75 * min(gpu_pct, 100.0) + 0.25 * min(mem_pct, 100.0)) / 100.0
        power = board.idle_mw + (board.limit_mw - board.idle_mw) * load * dice.between(0.93, 1.0)
        self._warm(now_ns, load)
        return gpu, mem, round(power) // 10 * 10

    def slow(self, now_ns: int) -> tuple[int, int, int, int]:
        """Temperature in Celsius, the clocks of cores and memory in MHz, throttle reasons."""
        self._warm(now_ns, self._load)
        board = self._board
        if self._load <= 0.0:
            return round(self._temp_c), board.sm_clock_mhz // 6, board.mem_clock_mhz, IDLE_BIT
        reason = POWER_CAP_BIT if self._load > 0.9 else 0
        clock = board.sm_clock_mhz * (95 if reason else 100) // 100
        return round(self._temp_c), clock, board.mem_clock_mhz, reason

    def _warm(self, now_ns: int, load: float) -> None:
        """Approach the temperature of the load that was there since the last look."""
        target = COOL_C + WARM_C * self._load
        passed = (now_ns - self._at_ns) / NS_PER_S
        self._temp_c += (target - self._temp_c) * (passed / (passed + THERMAL_TIME_S))
        self._at_ns, self._load = now_ns, load

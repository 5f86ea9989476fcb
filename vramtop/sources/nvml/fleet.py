"""All GPUs together: reading them in one round, losing them one by one, finding them again."""

from __future__ import annotations

from collections.abc import Sequence

from vramtop.errors import DriverError, UsageError
from vramtop.samples import FAULT, GAP, GPU_BACK, GPU_LOST, Observation
from vramtop.sources.nvml import _compat as nvml
from vramtop.sources.nvml.board import LOST, OK, PARKED, Board
from vramtop.sources.nvml.devices import TIERS, Device
from vramtop.sources.nvml.sampler import Job, Sampler
from vramtop.units import NS_PER_S, format_duration

_PROBE_NS = 10 * NS_PER_S
_OPEN_LIMIT_S = 20.0
"""Opening a GPU loads its firmware where no daemon keeps it loaded: seconds each."""


class Fleet:
    """The GPUs being watched.

    Args:
        sampler: Makes the calls.
        gpus: Indices; empty means all.
        pcie: Whether PCIe throughput may be read.

    Attributes:
        boards: Every GPU, lost ones included.
        removed: (index, UUID) of MIG instances found gone in the last round.
        stalls: (tier, time waited) of each stall in the last round.

    Raises:
        UsageError: an index that this machine has not.
        DriverError: no GPU at all, or none that can be opened.
    """

    def __init__(self, sampler: Sampler, *, gpus: Sequence[int], pcie: bool) -> None:
        self._sampler = sampler
        count = _device_count()
        for index in gpus:
            if not 0 <= index < count:
                raise UsageError(
                    f"no GPU {index}: this machine has {count}, numbered from 0",
                    hint="nvidia-smi -L lists them",
                )
        chosen = sorted(set(gpus)) or list(range(count))
        self.boards = [Board(index, pcie=pcie) for index in chosen]
        self._down_since: int | None = None
        self._restart_ns = 0
        self._restarting = False
        self._restarted: str | None = None
        self.stalls: list[tuple[int, int]] = []
        self.removed: list[tuple[int, str]] = []
        self._calm = False
        self._devices: list[Device] = []
        self._reads: list[Job] = []
        self._open_all()

    def _open_all(self) -> None:
        stalled = self._sampler.run([board.open for board in self.boards], _OPEN_LIMIT_S)
        for board in self.boards:
            if board.open in stalled:
                board.probing = True
                board.reason = f"it does not open within {format_duration(_OPEN_LIMIT_S)}"
            elif board.adopt():
                board.state = OK
        if any(board.state == OK for board in self.boards):
            return
        reasons = "; ".join(f"gpu {board.index}: {board.reason}" for board in self.boards)
        if all(board.refusal_code == nvml.NO_PERMISSION for board in self.boards):
            raise DriverError(
                f"no permission to read any GPU ({reasons})",
                hint="the device files /dev/nvidia* must be readable: check their group, or "
                "the device rules of the container or job",
            )
        raise DriverError(f"no GPU can be opened ({reasons})", hint="nvidia-smi may say more")

    @property
    def calls(self) -> int:
        """Native calls so far."""
        return sum(board.calls for board in self.boards)

    def first(self, now_ns: int) -> list[Observation]:
        """What the first tick says about the GPUs."""
        seen: list[Observation] = []
        for board in self.boards:
            seen += board.facts
            if board.state == LOST:
                board.since_ns, board.probe_ns = now_ns, now_ns + _PROBE_NS
                seen.append(_about(board, GPU_LOST, board.reason))
        return seen

    def plan(
        self, ask: int, *, slot_ns: int, jump_gap_ns: int, now_ns: int, seen: list[Observation]
    ) -> list[Job]:
        """The jobs of one round.

        Args:
            ask: Tiers that are due, a mask of `LOOKED_*`.
            slot_ns: The instant this tick is scheduled for.
            jump_gap_ns: See `Device`.
            now_ns: Boot-time clock.
            seen: Takes what is observed.
        """
        for job in self._sampler.returned():
            self._came_back(job, now_ns, seen)
        if self._calm:
            for board in self.boards:
                board.ask, board.slot_ns, board.jump_gap_ns = ask, slot_ns, jump_gap_ns
            return list(self._reads)
        jobs: list[Job] = []
        for board in self.boards:
            if board.state == OK:
                board.ask = -1 if board.fresh else ask
                board.slot_ns, board.jump_gap_ns = slot_ns, jump_gap_ns
                jobs.append(board.read)
            elif self._down_since is None and board.is_wanted(now_ns):
                board.probe_ns = now_ns + _PROBE_NS
                jobs.append(board.open)
        if self._down_since is not None and not self._restarting and now_ns >= self._restart_ns:
            self._restart_ns = now_ns + _PROBE_NS
            self._restarting = True
            jobs.append(self._restart)
        return jobs

    def collect(
        self, jobs: Sequence[Job], *, limit_s: float, now_ns: int, seen: list[Observation]
    ) -> list[Device]:
        """What the round of `jobs` gave, those aside that the sampler calls stalled.

        Returns:
            Devices with a reading.
        """
        self.removed = []
        stalled = self._sampler.stalled
        if self._calm and not stalled:
            devices = self._devices
            if all(device.untroubled() for device in devices):
                return devices
        self._calm = False
        self.stalls = []
        for job in stalled:
            self._park(job, limit_s, now_ns, seen)
        owners = {board.read: board for board in self.boards}
        read: list[Board] = []
        for job in jobs:
            if job in stalled:
                continue
            owner = owners.get(job)
            if owner is None:
                self._came_back(job, now_ns, seen)
            else:
                read.append(owner)
        if read and self._is_down(read):
            self._go_down(read, now_ns, seen)
            return []
        return self._sort_out(read, now_ns, seen)

    def _sort_out(
        self, read: Sequence[Board], now_ns: int, seen: list[Observation]
    ) -> list[Device]:
        devices: list[Device] = []
        for board in read:
            board.fresh = board.changed
            reason = board.lost()
            if reason is not None:
                self._lose(board, reason, now_ns, seen)
                continue
            for device in board.devices:
                seen += device.faults
                if device.reading is not None:
                    devices.append(device)
            if board.changed:
                self.removed += [(board.index, uuid) for uuid in board.gone]
                seen += [
                    Observation(
                        what=GPU_LOST, gpu=board.index, uuid=uuid,
                        text="the MIG instance was taken away",
                    )
                    for uuid in board.gone
                ]  # fmt: skip
                seen += board.facts
        # Nothing to sort out next time, as long as nothing happens: that is nearly always.
        self._calm = all(
            board.state == OK and not board.fresh and len(board.devices) == 1
            for board in self.boards
        ) and len(devices) == len(self.boards)
        self._devices = devices
        self._reads = [board.read for board in self.boards]
        return devices

    # Trouble ------------------------------------------------------------------------------

    def _park(self, job: Job, limit_s: float, now_ns: int, seen: list[Observation]) -> None:
        for board in self.boards:
            if job == board.open:
                board.probing = True
                return
            if job == board.read:
                board.state, board.since_ns = PARKED, now_ns
                stage = next((d.stage for d in board.devices if d.reading is None), 0)
                self.stalls.append((stage, round(limit_s * NS_PER_S)))
                what = TIERS[stage]
                text = (
                    f"reading {what} has not returned for {format_duration(limit_s)}; "
                    "this GPU is left alone until it does"
                )
                seen.append(_about(board, FAULT, text, name="stall"))
                return

    def _came_back(self, job: Job, now_ns: int, seen: list[Observation]) -> None:
        """A job that ended: an attempt to open or restart, or one that was left behind."""
        if job == self._restart:
            self._after_restart(now_ns, seen)
            return
        for board in self.boards:
            if job == board.open:
                board.probing = False
                if board.adopt():
                    self._find(board, now_ns, seen)
                return
            if job == board.read:
                stalled_for = format_duration((now_ns - board.since_ns) / NS_PER_S)
                board.state, board.fresh = OK, True
                seen.append(_about(board, GAP, f"an NVML call stalled for {stalled_for}"))
                reason = board.lost()
                if reason is not None:
                    self._lose(board, reason, now_ns, seen)
                return

    def _lose(self, board: Board, reason: str, now_ns: int, seen: list[Observation]) -> None:
        seen += [
            Observation(what=GPU_LOST, gpu=board.index, uuid=device.uuid, text=reason)
            for device in board.devices
        ]
        board.state, board.reason = LOST, reason
        board.since_ns, board.probe_ns = now_ns, now_ns + _PROBE_NS
        board.drop()

    def _find(self, board: Board, now_ns: int, seen: list[Observation]) -> None:
        away = format_duration((now_ns - board.since_ns) / NS_PER_S)
        board.state = OK
        seen += board.facts
        seen += [
            Observation(what=GPU_BACK, gpu=board.index, uuid=device.uuid, text=f"after {away}")
            for device in board.devices
        ]

    def _is_down(self, read: Sequence[Board]) -> bool:
        codes = {board.devices[0].code for board in read}
        if not codes <= nvml.DOWN:
            return False
        # One GPU that says "unknown error" once may mean anything.
        return codes != {nvml.UNKNOWN} or all(board.devices[0].misses >= 2 for board in read)

    def _go_down(self, read: Sequence[Board], now_ns: int, seen: list[Observation]) -> None:
        reason = nvml.error_text(read[0].devices[0].code)
        text = f"NVML as a whole fails: {reason}; it is started again until it answers"
        seen.append(Observation(what=FAULT, name="NVML", text=text))
        for board in read:
            self._lose(board, f"NVML as a whole fails: {reason}", now_ns, seen)
        self._down_since = self._restart_ns = now_ns

    def _restart(self) -> None:
        """Job: stop and start NVML, then open every GPU."""
        self._restarted = None
        if any(board.state == PARKED for board in self.boards):
            # NVML must not be stopped under a call that is still in it.
            self._restarted = "a call has not returned"
            return
        nvml.stop()
        try:
            nvml.start()
        except nvml.NvmlCallError as error:
            self._restarted = str(error)
            return
        for board in self.boards:
            board.open()

    def _after_restart(self, now_ns: int, seen: list[Observation]) -> None:
        self._restarting = False
        if self._restarted is not None or self._down_since is None:
            return
        found = [board for board in self.boards if board.state == LOST and board.adopt()]
        if not found:
            return
        away = format_duration((now_ns - self._down_since) / NS_PER_S)
        self._down_since = None
        seen.append(Observation(what=GAP, text=f"NVML as a whole failed for {away}"))
        for board in found:
            self._find(board, now_ns, seen)

    def close(self) -> None:
        """Stop NVML, unless a call is still in it."""
        if not any(board.state == PARKED or board.probing for board in self.boards):
            self._sampler.run([nvml.stop], 0.1)


def _device_count() -> int:
    try:
        count = nvml.device_count()
    except nvml.NvmlCallError as error:
        raise DriverError(
            f"the NVIDIA driver cannot count its GPUs: {error}", hint="nvidia-smi may say more"
        ) from None
    if count == 0:
        raise DriverError(
            "the NVIDIA driver is there but has no GPU",
            hint="inside a container or job, GPUs must be handed in (docker run --gpus all)",
        )
    return count


def _about(board: Board, what: str, text: str | None, *, name: str | None = None) -> Observation:
    return Observation(what=what, gpu=board.index, uuid=board.uuid, name=name, text=text)

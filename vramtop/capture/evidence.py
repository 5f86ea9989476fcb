"""From what COMMAND prints to evidence in the recording: whose, and on which GPU if certain."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from vramtop.capture.command import Command
from vramtop.enrich.oom_text import OomScanner, as_observation
from vramtop.samples import FAULT, DeviceReading, Observation, Tick

MAX_PER_FAMILY = 20
"""Messages of one wording that are recorded; a program may retry in a loop for days."""


def told_gpu(
    devices: Sequence[DeviceReading], environ: Mapping[str, str], *, all_gpus: bool
) -> tuple[DeviceReading | None, str]:
    """The GPU that CUDA's numbers must mean, and why; None where they could mean another.

    CUDA counts the visible devices, fastest first unless told otherwise, and a launcher may
    give each of its processes another view. Only a single visible device is certain.

    Args:
        devices: All recorded devices.
        environ: COMMAND's environment.
        all_gpus: No GPU of the machine was left out of the recording.
    """
    parents = {device.parent_uuid for device in devices}
    usable = [device for device in devices if device.uuid not in parents]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        if all_gpus and len(usable) == 1:
            return usable[0], "the only GPU"
        return None, f"one of {len(usable)} GPUs: CUDA's number need not be NVML's"
    entry = visible.strip()
    if not entry or "," in entry:
        return None, f"CUDA_VISIBLE_DEVICES={entry} leaves it open"
    if entry.isdigit():
        if environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            named = [device for device in usable if device.gpu == int(entry)]
        else:
            named = usable if all_gpus and len(usable) == 1 else []
    else:
        named = [device for device in usable if device.uuid.startswith(entry)]
    if len(named) == 1:
        return named[0], f"CUDA_VISIBLE_DEVICES={entry}"
    return None, f"CUDA_VISIBLE_DEVICES={entry} names no one GPU by NVML's count"


class Evidence:
    """Reads along COMMAND's stderr and hands on what it says about memory.

    Args:
        command: Whose output it is.
        observe: Takes the observations.
        environ: COMMAND's environment.
        all_gpus: As for `told_gpu`.
    """

    def __init__(
        self,
        command: Command,
        observe: Callable[[Observation], None],
        environ: Mapping[str, str],
        *,
        all_gpus: bool,
    ) -> None:
        self.known = threading.Event()
        """To be set once the command's PID is known."""
        self._command = command
        self._observe = observe
        self._environ = environ
        self._all_gpus = all_gpus
        self._scanner = OomScanner()
        self._counts: Counter[str] = Counter()
        self._devices: tuple[DeviceReading, ...] = ()
        self._seen_on: dict[str, DeviceReading] = {}

    def look(self, tick: Tick) -> None:
        """Learn from a tick which GPUs there are, and on which the command is."""
        if not self._devices:
            self._devices = tick.devices
        for process in tick.processes:
            if process.pid == self._command.pid and process.uuid not in self._seen_on:
                self._seen_on.update(
                    {device.uuid: device for device in tick.devices if device.uuid == process.uuid}
                )

    def take(self, chunk: bytes) -> None:
        """Take the next output; b"" says that no more is coming soon."""
        found = self._scanner.feed(chunk) if chunk else self._scanner.flush()
        if not found:
            return
        self.known.wait(1.0)
        device, why = self._where()
        for message in found:
            self._counts[message.family] += 1
            if self._counts[message.family] > MAX_PER_FAMILY:
                continue
            self._observe(
                as_observation(
                    message,
                    pid=self._command.pid,
                    start_time=self._command.start_time,
                    gpu=None if device is None else device.gpu,
                    uuid=None if device is None else device.uuid,
                    gpu_why=why,
                )
            )

    def dropped(self, count: int) -> None:
        """So many bytes of output were not looked at: they came too fast."""
        text = f"{count} bytes of COMMAND's stderr came too fast to be read along"
        self._observe(Observation(what=FAULT, name="stderr", text=text))

    def finish(self) -> None:
        """Say what was left out."""
        for family, count in self._counts.items():
            if count > MAX_PER_FAMILY:
                text = f"{count - MAX_PER_FAMILY} more messages of the form {family}"
                self._observe(Observation(what=FAULT, name="stderr", text=text))

    def _where(self) -> tuple[DeviceReading | None, str]:
        if len(self._seen_on) == 1:
            return next(iter(self._seen_on.values())), "the only GPU COMMAND's process was seen on"
        return told_gpu(self._devices, self._environ, all_gpus=self._all_gpus)

"""The recorder's end of a companion: start it, hear what it asks, never wait for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import vramtop
from vramtop.capture.command import Command
from vramtop.capture.session import Session
from vramtop.capture.signals import HeldSignals
from vramtop.samples import ACTION, Observation

MAX_MESSAGE_BYTES = 16384

# `-m` would put the user's working directory first on the module path, where a training
# project may well keep a `random.py`.
_BOOT = """\
import sys
del sys.path[0]
sys.path.append(sys.argv.pop(1))
from importlib import import_module
sys.exit(import_module(sys.argv.pop(1)).main(sys.argv[1:]))
"""


class Companion:
    """A process beside the recording, connected to us by its fd 0.

    Each message from it is one JSON object. When it dies nothing happens here; when we die
    it reads the end of its fd 0.

    Args:
        module: Its module; `main(arguments)` is run.
        arguments: Strings.
        hear: Called with each message, in a thread of its own.
        lost: Called with how it ended (`signal 9`, `exit code 1`) if that was before its time.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        hear: Callable[[Mapping[str, object]], None],
        lost: Callable[[str], None] = lambda _how: None,
    ) -> None:
        self._module = module
        self._arguments = list(arguments)
        self._hear = hear
        self._lost = lost
        self._stopping = False
        self._gone = threading.Event()
        self._link: socket.socket | None = None
        self.pid: int | None = None

    def start(self, signals: HeldSignals) -> bool:
        """Start it; False if that fails."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(vramtop.__file__).parent.parent)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", _BOOT, root, self._module, *self._arguments],
                # One thread is enough, and more would take cores from the program.
                {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, 2, 1),
                ],
                setsid=True,
                setsigmask=sorted(signals.original_mask),
                setsigdef=sorted(signals.restored_to_default | {int(signal.SIGINT)}),
            )
        except (OSError, NotImplementedError):
            ours.close()
            return False
        finally:
            theirs.close()
        self._link = ours
        threading.Thread(target=self._listen, name="vramtop-companion", daemon=True).start()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended by itself; False if it takes longer."""
        return self._link is None or self._gone.wait(timeout_s)

    def stop(self) -> None:
        """End it. One that hangs would keep our stderr open, and with it whoever reads that."""
        if self.pid is not None and not self._gone.is_set():
            self._stopping = True
            os.kill(self.pid, signal.SIGKILL)

    def _listen(self) -> None:
        link = self._link
        while link is not None:
            try:
                message = link.recv(MAX_MESSAGE_BYTES)
            except OSError:
                break
            if not message:
                break
            try:
                heard = json.loads(message)
            except ValueError:
                continue
            if isinstance(heard, dict):
                self._hear(heard)
        if self.pid is not None:
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            if code and not self._stopping:
                self._lost(f"signal {-code}" if code < 0 else f"exit code {code}")
        self._gone.set()


def record_action(message: Mapping[str, object], session: Session, command: Command | None) -> None:
    """Do what a companion asks for (a signal to COMMAND), and record what it has done.

    Args:
        message: `action` (signal or exec), `what`, `rule`, `reason`, `gpu`, `uuid`, `level`.
        session: The recording.
        command: Whom signals go to.
    """
    data = {name: message.get(name) for name in ("action", "what", "level", "seq", "pid")}
    if message.get("action") == "signal":
        number = signal.Signals[f"SIG{message.get('what')}"]
        data["sent"] = command is not None and command.send(number)
    gpu, uuid = message.get("gpu"), message.get("uuid")
    session.observe(
        Observation(
            what=ACTION,
            gpu=gpu if isinstance(gpu, int) else None,
            uuid=uuid if isinstance(uuid, str) else None,
            name=str(message.get("rule")),
            text=str(message.get("reason")),
            data={name: value for name, value in data.items() if value is not None},
        )
    )

"""Recording, alone or beside COMMAND: the main thread, which waits for signals and children.

Beside COMMAND, one rule stands above all others: whatever happens to the recorder, COMMAND
starts, runs and ends as it would have without it.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from vramtop.capture.command import Command, Ended, is_for_typing
from vramtop.capture.evidence import Evidence
from vramtop.capture.session import Session
from vramtop.capture.signals import TERMINAL_STOPS, Caught, HeldSignals
from vramtop.capture.stderr import StderrRelay
from vramtop.errors import CommandError, RecordingError, VramtopError

PATIENCE_S = 1.0
"""How long COMMAND waits for a driver that is slow to open. What comes later is recorded late."""
CLOSE_S = 30.0
"""How long the end of COMMAND may be held up by writing and sealing, at the very most."""
LAST_WORDS_S = 0.5
"""What closing has left when it is asked to hurry: enough for the last tick, not for sealing."""
_DRAIN_S = 2.0
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_STOP_PAIR_S = 5.0  # a stop of COMMAND and the terminal's signal for it belong together


def record_alone(session: Session, signals: HeldSignals) -> bool:
    """Record until the session ends, or a signal asks for it.

    Returns:
        False if a second signal came while the recording was being closed: it is complete up
        to the last tick, but not sealed.
    """
    session.start()
    while not session.ended.is_set():
        caught = signals.wait(None)
        if caught is None or not signals.ends_recording(caught):
            continue
        if session.end_reason is not None:
            return session.ended.wait(LAST_WORDS_S)
        session.stop(signal.Signals(caught.number).name)
    return True


class Beside:
    """A recording that lasts as long as COMMAND.

    Args:
        command: What to run.
        session: The recording; not started yet.
        signals: Held since before any thread was started.
        evidence: Reads along COMMAND's stderr.
        warn: Tells the user that there is no recording, and why.
        stdout_is_ours: The recording goes to stdout; COMMAND's stdout to stderr.
        strict: Do not start COMMAND without a recording.
    """

    def __init__(
        self,
        command: Command,
        session: Session,
        signals: HeldSignals,
        evidence: Evidence,
        *,
        warn: Callable[[VramtopError], None],
        stdout_is_ours: bool = False,
        strict: bool = False,
    ) -> None:
        self._command = command
        self._session = session
        self._signals = signals
        self._evidence = evidence
        self._warn = warn
        self._stdout_is_ours = stdout_is_ours
        self._strict = strict
        self._warned = False
        self._stop_asked: tuple[int, float] | None = None
        self._relay = StderrRelay(evidence.take, evidence.dropped)

    def start(self) -> None:
        """Start recording, then COMMAND. Does not return if there is nothing to record with.

        Raises:
            VramtopError: with `strict`, what kept the recording from starting.
            CommandError: COMMAND cannot be started.
        """
        try:
            self._session.start()
        except RuntimeError as failed:
            self._go_without(
                RecordingError(
                    f"the recording could not start: {failed}", hint="look at the limits: ulimit -a"
                )
            )
        if self._strict:
            while not self._session.started.wait(0.1):
                caught = self._signals.wait(0.0)
                if caught is not None and self._signals.ends_recording(caught):
                    self._signals.release()
                    self._signals.raise_on_self(caught.number)
        else:
            self._session.started.wait(PATIENCE_S)
        error = self._session.error
        if error is not None and self._session.ended.is_set():
            self._go_without(error)
        # Job control and keys are worth more than what might be said about memory.
        keeps_terminal = os.isatty(2) and is_for_typing(self._command.argv)
        descriptor = None if keeps_terminal else self._relay.start()
        try:
            self._command.start(stderr_fd=descriptor, stdout_to_stderr=self._stdout_is_ours)
        except CommandError as refused:
            self._session.stop("COMMAND could not be started")
            cause = refused.__cause__
            if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
                # Two processes are one too many here, and the one that matters is COMMAND.
                self._session.ended.wait(PATIENCE_S)
                self._go_without(
                    RecordingError(
                        f"no room for a process beside COMMAND: {cause.strerror}",
                        hint="look at the limits: ulimit -a",
                    )
                )
            raise
        finally:
            self._relay.close_ours()
            self._evidence.known.set()

    def _go_without(self, error: VramtopError) -> NoReturn:
        """Become COMMAND, which matters more than a recording of it.

        Raises:
            VramtopError: `error`, with `strict`.
            CommandError: COMMAND cannot be started.
        """
        if self._strict:
            raise error
        self._warn(error)
        if self._stdout_is_ours:
            os.dup2(2, 1)
        self._command.replace_us()

    def run(self) -> Ended:
        """Wait for COMMAND to end, and pass on what it must not miss; then end the recording."""
        while True:
            self._command.look()
            if self._command.ended is not None:
                break
            self._stop_together()
            self._say_once()
            self._pass_on()
        ended = self._command.ended
        self._relay.drain(_DRAIN_S)
        self._evidence.finish()
        self._session.observe(self._command.exit_observation(ended))
        self._session.stop("COMMAND ended")
        self._wait_for_close()
        self._say_once()
        return ended

    def _pass_on(self) -> None:
        caught = self._signals.wait(None)
        if caught is None or caught.number == signal.SIGCHLD:
            return
        if caught.number == signal.SIGWINCH:
            self._relay.resize()
        if caught.number in TERMINAL_STOPS and (
            caught.from_kernel or caught.sender == self._command.pid
        ):
            self._stop_asked = (caught.number, time.monotonic())
        if caught.number == signal.SIGCONT:
            self._command.continue_()
        elif self._is_news(caught):
            self._command.send(caught.number)

    def _is_news(self, caught: Caught) -> bool:
        """Whether COMMAND has not had this signal; from the terminal it has, and its own it knows."""
        if caught.from_kernel:
            # But a terminal that goes away says so to the first process of its session alone.
            return caught.number == signal.SIGHUP and os.getsid(0) == os.getpid()
        return caught.sender != self._command.pid

    def _stop_together(self) -> None:
        if self._stop_asked is None or not self._command.stopped:
            return
        number, asked_s = self._stop_asked
        self._stop_asked = None
        if time.monotonic() - asked_s < _STOP_PAIR_S:
            self._command.stop_with(number)

    def _wait_for_close(self) -> None:
        """COMMAND has ended: nobody but the user waits now, and a signal ends that."""
        deadline = time.monotonic() + CLOSE_S
        while not self._session.ended.is_set() and time.monotonic() < deadline:
            caught = self._signals.wait(deadline - time.monotonic())
            if caught is not None and self._signals.ends_recording(caught):
                # Often a second Ctrl-C that was meant for COMMAND.
                self._session.ended.wait(LAST_WORDS_S)
                return

    def _say_once(self) -> None:
        if self._session.error is not None and not self._warned:
            self._warned = True
            self._warn(self._session.error)

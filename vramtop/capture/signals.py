"""Signals of the recorder: held back, taken one at a time by the main thread.

All are blocked before any thread starts, so that none interrupts the recorder anywhere, and
`sigtimedwait` tells who sent one. That matters for COMMAND: what `kill` sent to us is passed
on, what the terminal sent has reached COMMAND already.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NamedTuple

# Faults of our own code must stay fatal; SIGPIPE and SIGXFSZ answer our own writes, and
# SIGXCPU our own use of the processor.
_NOT_HELD = frozenset({
    signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL,
    signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU,
})  # fmt: skip
STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""What ends a recording without COMMAND."""
TERMINAL_STOPS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""What a terminal sends to a process group to stop it."""

_PYTHON_IGNORES = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Caught(NamedTuple):
    """A signal that was taken.

    Attributes:
        number: The signal.
        from_kernel: The kernel sent it (a terminal's Ctrl-C, a child's end), no process did.
        sender: PID of the process that sent it; 0 if none did or it cannot be seen from here.
    """

    number: int
    from_kernel: bool
    sender: int


class HeldSignals:
    """Blocks signals on creation, in the main thread, before others are started."""

    def __init__(self) -> None:
        held = {number for number in signal.valid_signals() if number not in _NOT_HELD}
        self.original_mask: frozenset[int] = frozenset(
            int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, held)
        )
        self.restored_to_default: frozenset[int] = frozenset(int(n) for n in _PYTHON_IGNORES)
        """What Python ignores for itself and a started program must not inherit as ignored."""
        self._held = held
        # A shell without job control starts background jobs deaf to Ctrl-C, nohup to hang-ups.
        self._ignored = {n for n in STOPPING if signal.getsignal(n) is signal.SIG_IGN}
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else exit codes are thrown away
        self._main_thread = threading.main_thread().ident

    def wait(self, timeout_s: float | None = None) -> Caught | None:
        """The next signal; None after `timeout_s`. SIGCHLD also means: look around."""
        if timeout_s is None:
            info = signal.sigwaitinfo(self._held)
        else:
            maybe = signal.sigtimedwait(self._held, max(0.0, timeout_s))
            if maybe is None:
                return None
            info = maybe
        from_kernel = info.si_code > 0
        return Caught(info.si_signo, from_kernel, 0 if from_kernel else info.si_pid)

    def ends_recording(self, caught: Caught) -> bool:
        """Whether it asks a recorder without COMMAND to end."""
        return caught.number in STOPPING and caught.number not in self._ignored

    def wake(self) -> None:
        """Make `wait` return in the main thread; from any thread."""
        if self._main_thread is not None:
            signal.pthread_kill(self._main_thread, signal.SIGCHLD)

    def release(self) -> None:
        """Back to how we were started, as far as the program we become must see it."""
        for number in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.original_mask)

    def raise_on_self(self, number: int) -> None:
        """Have `number` do its default to this process (end it, or stop it)."""
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        if number in self._held:
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})

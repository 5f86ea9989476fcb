"""The exceptions a user can cause. Only the command line catches them.

    VramtopError                  what happened, with values; and a hint
    ├── UsageError                wrong arguments (exit 2)
    ├── SourceError               the source cannot be read
    │   ├── DriverError           no NVIDIA driver, or it refuses to start
    │   └── LogFormatError        an imported log is not understood
    ├── RecordingError            a recording cannot be written or read
    │   ├── LockedError           another writer holds it
    │   ├── CorruptError          bytes are damaged and nothing can be read
    │   └── SchemaError           made by a newer vramtop
    ├── NotJudgeableError         the question cannot be answered from this data (exit 2)
    ├── OutputError               a report or export cannot be written
    └── CommandError              the program to record cannot be started (exit 126, 127)

A failed *reading* is no error: it is `None` plus a recorded fault.
"""

from __future__ import annotations


class VramtopError(Exception):
    """Something a user can cause or mend.

    Args:
        message: What happened, with the values that matter, on one line.
        hint: What to do about it, on one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        # Both are `args`, so that the error survives pickling.
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(VramtopError):
    """Arguments that contradict each other or cannot be parsed."""

    exit_code = 2


class SourceError(VramtopError):
    """A source of ticks cannot be read."""


class DriverError(SourceError):
    """The NVIDIA driver or its management library is missing or refuses to start."""


class LogFormatError(SourceError):
    """A log is in no form that can be imported."""


class RecordingError(VramtopError):
    """A recording cannot be written or read."""


class LockedError(RecordingError):
    """Another process is writing this recording."""


class CorruptError(RecordingError):
    """The bytes are damaged so that nothing can be read from them."""


class SchemaError(RecordingError):
    """The recording was made by a newer version."""


class NotJudgeableError(VramtopError):
    """The data do not allow an answer."""

    exit_code = 2


class OutputError(VramtopError):
    """A report or an export cannot be written."""


class CommandError(VramtopError):
    """The program to record cannot be started.

    Args:
        message: Which, and why.
        code: The exit code a shell would give: 127 not found, 126 not executable.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message, "give a program on PATH, or the path of one, after --")
        self.exit_code = code

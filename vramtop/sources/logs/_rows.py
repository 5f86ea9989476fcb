"""Rows of a scrolling log to polls.

Tools print one line per GPU or process; the lines of one poll are milliseconds apart and the
polls a second or a minute. A poll ends where a GPU comes round again, where the stamps jump,
or where the tool printed its header again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise

from vramtop.samples import LOOKED_PROCESSES
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample

HEAD_ROWS = 4096
"""Rows looked at before the first poll is made, to learn spacing and number of GPUs."""
_MOST_GPUS = 64
_SLOW_ROW_US = 500_000
"""Rows further apart than this are polls, however regular the pauses between them."""
_QUICK_ROW_US = 50_000
"""Rows closer than this are of one poll even in a log too short to repeat itself."""


@dataclass(slots=True)
class Row:
    """One line.

    Attributes:
        t_us: Its stamp in UTC; None in a log without times.
        batch: Counts the headers so far; a header begins a poll.
        device, process: What it says.
    """

    t_us: int | None
    batch: int
    device: DeviceSample | None = None
    process: ProcessSample | None = None

    @property
    def key(self) -> tuple[DeviceRef, int | None]:
        """What can be in one poll once only."""
        if self.process is not None:
            return self.process.ref, self.process.pid
        return (self.device.ref if self.device is not None else DeviceRef()), None


def device_polls(rows: Iterable[Row], log: Log) -> Iterator[Poll]:
    """Polls of a log with one row per GPU."""
    stream = iter(rows)
    head = list(islice(stream, HEAD_ROWS))
    known = any(row.key[0] != DeviceRef() for row in head)
    groups = (
        _by_identity(chain(head, stream), _typical_step_us(head))
        if known
        else _by_order(chain(head, stream), head, log)
    )
    for group in groups:
        samples = [row.device for row in group if row.device is not None]
        if not known:
            for position, sample in enumerate(samples):
                sample.ref = DeviceRef(gpu=position)
        yield Poll(_time(group, log), samples, lists_devices=True)


def process_polls(rows: Iterable[Row], log: Log) -> Iterator[Poll]:
    """Polls of a log with one row per process.

    The tool asks every GPU at every poll and prints nothing for an empty list, so every GPU
    that has been seen in this log was looked at.
    """
    stream = iter(rows)
    head = list(islice(stream, HEAD_ROWS))
    seen: dict[DeviceRef, str | None] = {}
    for group in _by_identity(chain(head, stream), _typical_step_us(head)):
        for row in group:
            if row.device is not None:
                seen.setdefault(row.device.ref, row.device.name)
        yield Poll(
            _time(group, log),
            [DeviceSample(ref, looked=LOOKED_PROCESSES, name=name) for ref, name in seen.items()],
            [row.process for row in group if row.process is not None],
        )


def _time(group: list[Row], log: Log) -> int:
    first = group[0].t_us
    return log.untimed_us() if first is None else first


def _typical_step_us(rows: list[Row]) -> int | None:
    """Usual time from one row of a GPU or process to its next, None if none comes again.

    The first decile: a process that comes and goes makes long steps, nothing makes short ones.
    """
    last: dict[tuple[DeviceRef, int | None], int] = {}
    steps = []
    for row in rows:
        if row.t_us is None:
            continue
        step = row.t_us - last.get(row.key, row.t_us)
        if step > 0:
            steps.append(step)
        last[row.key] = row.t_us
    return sorted(steps)[len(steps) // 10] if steps else None


def _by_identity(rows: Iterator[Row], step_us: int | None) -> Iterator[list[Row]]:
    group: list[Row] = []
    keys: set[tuple[DeviceRef, int | None]] = set()
    for row in rows:
        if group and (
            row.key in keys
            or row.batch != group[-1].batch
            or _apart(group[-1], row, step_us)
            or (row.t_us is None and _steps_back(group[-1], row))
        ):
            yield group
            group, keys = [], set()
        group.append(row)
        keys.add(row.key)
    if group:
        yield group


def _apart(before: Row, row: Row, step_us: int | None) -> bool:
    if before.t_us is None or row.t_us is None:
        return False
    gap_us = row.t_us - before.t_us
    # A tenth of a second tells polls apart in a log too short to show its spacing.
    return gap_us < -1_000_000 or gap_us * 2 > (200_000 if step_us is None else step_us)


def _steps_back(before: Row, row: Row) -> bool:
    """Without times, a smaller GPU index is the only sign that a GPU left out begins a new poll."""
    index, last = row.key[0].gpu, before.key[0].gpu
    return index is not None and last is not None and index < last


def _by_order(rows: Iterator[Row], head: list[Row], log: Log) -> Iterator[list[Row]]:
    """Polls of rows that do not say which GPU they are of."""
    size, gap_us = _poll_shape(head)
    if size > 1:
        log.notes.assume(
            f"{log.name} names no GPU; its {size} GPUs are told apart by their order within a poll"
        )
    else:
        log.notes.assume(f"{log.name} names no GPU; all its rows are of one")
    ahead: deque[Row] = deque()
    group: list[Row] = []
    first = True
    while True:
        ahead.extend(islice(rows, size + 1 - len(ahead)))
        if not ahead:
            break
        row = ahead.popleft()
        if group and (
            len(group) == size
            or row.batch != group[-1].batch
            or (_gap_us(group[-1], row) > gap_us and _in_step(row, ahead, size, gap_us))
        ):
            # With a row missing nobody can say whose: the poll is left out rather than guessed.
            if len(group) == size or (size == 1 and group):
                yield group
            elif not first or len(group) > size:
                log.notes.skip("poll with rows missing, which cannot be told apart", log.name)
            else:
                log.notes.skip("first poll is cut, its rows cannot be told apart", log.name)
            first = False
            group = []
        group.append(row)
    if group:
        # The log ended within a poll: what is there are its first GPUs.
        yield group


def _poll_shape(head: list[Row]) -> tuple[int, int]:
    """Rows per poll and the time (µs) that separates polls."""
    never = 1 << 62
    if any(row.t_us is None for row in head):
        batches = Counter(row.batch for row in head)
        size, count = Counter(batches.values()).most_common(1)[0]
        regular = len(batches) > 2 and count * 3 >= len(batches) * 2 and size <= _MOST_GPUS
        return (size if regular else 1), never
    gaps = [_gap_us(before, row) for before, row in pairwise(head)]
    ranked = sorted(gaps)
    if len(ranked) < 3:
        return 1, never
    usual = ranked[len(ranked) * 2 // 5]
    if usual > _SLOW_ROW_US:
        return 1, never
    # With n GPUs one gap in n separates polls, so for many GPUs it is found far up; for few,
    # the topmost gaps are pauses of the tool. The first place that gives equal polls is right.
    for place in (900, 970, 992):
        long = ranked[len(ranked) * place // 1000]
        if usual * 4 >= long:
            continue
        sizes = Counter(_run_lengths(gap * 2 > long for gap in gaps))
        if not sizes:
            continue
        size, count = sizes.most_common(1)[0]
        # A single pause in a quick log of one GPU must not make a GPU of every row before it.
        enough = count >= 3 or usual <= _QUICK_ROW_US
        if enough and 1 < size <= _MOST_GPUS and count * 3 >= sum(sizes.values()) * 2:
            return size, long // 2
    return 1, never


def _run_lengths(ends: Iterable[bool]) -> Iterator[int]:
    """Lengths of the runs that end at the true values; an open last run does not count."""
    length = 0
    for end in ends:
        length += 1
        if end:
            yield length
            length = 0


def _gap_us(before: Row, row: Row) -> int:
    return 0 if before.t_us is None or row.t_us is None else row.t_us - before.t_us


def _in_step(row: Row, ahead: deque[Row], size: int, gap_us: int) -> bool:
    """Whether a poll of `size` rows that begins at `row` is followed by a jump.

    Tells a poll with a missing row from one in which a single GPU was slow to answer.
    """
    following = [row, *ahead]
    if len(following) <= size:
        return True
    return _gap_us(following[size - 1], following[size]) > gap_us

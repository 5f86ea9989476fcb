"""Times as users write them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramtop.engine.times import Span, parse_time
from vramtop.errors import NotJudgeableError, UsageError, VramtopError
from vramtop.units import US_PER_S

ZONE = timezone(timedelta(hours=2))
START = datetime(2026, 11, 23, 22, 0, 0, tzinfo=ZONE)
FIRST = int(START.timestamp()) * US_PER_S
LAST = FIRST + 4 * 3600 * US_PER_S
OOMS = [FIRST + 600 * US_PER_S, FIRST + 7200 * US_PER_S]
SPAN = Span(
    first_us=FIRST, last_us=LAST, zone=ZONE, now_us=LAST + 3600 * US_PER_S,
    event_times=lambda kind: OOMS if kind == "oom" else [],
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "offset_s"),
    [
        ("+90s", 90), ("+1h30m", 5400), ("-30s", 4 * 3600 - 30), ("50%", 7200), ("0%", 0),
        ("100%", 4 * 3600), ("90m ago", 3.5 * 3600), ("oom", 600), ("oom-30s", 570),
        ("oom+10s", 610), ("oom#2", 7200), ("oom#last", 7200), ("oom#2 - 1m", 7140),
        ("OOM#last+5", 7205), ("2026-11-23 22:10", 600), ("2026-11-23T22:10:00.5", 600.5),
        ("2026-11-23T20:10:00Z", 600), ("2026-11-23T21:10:00+01:00", 600), ("22:10", 600),
        ("22:10:30", 630), ("01:00", 3 * 3600),
    ],
)  # fmt: skip
def test_a_time_means(text, offset_s):
    """Zone-less times use the recording's zone; a time of day before the start is tomorrow's."""
    assert (parse_time(text, SPAN) - FIRST) / US_PER_S == offset_s


@pytest.mark.parametrize(
    "text", ["", "soon", "+", "-x", "150%", "x%", "25:99", "ago", "oom~3", "#2"]
)
def test_nonsense_is_a_usage_error_with_a_hint(text):
    with pytest.raises(UsageError) as caught:
        parse_time(text, SPAN)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize("text", ["oom#3", "oom#0", "gap", "leak#last-3s"])
def test_an_event_that_is_not_there_cannot_be_judged(text):
    with pytest.raises(NotJudgeableError, match="event"):
        parse_time(text, SPAN)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_clear_error(text):
    try:
        assert isinstance(parse_time(text, SPAN), int)
    except VramtopError as error:
        hint = error.hint
    else:
        hint = "none needed"
    assert hint
    assert "\n" not in hint

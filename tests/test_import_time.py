"""Stamps, zones, steps of the clock."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from import_fixtures import read_text

from vramtop.errors import UsageError
from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._times import Clock, parse_stamp
from vramtop.units import US_PER_S

HEADER = "timestamp, index, memory.used [MiB]\n"


def log(*stamps: str) -> str:
    return HEADER + "".join(f"{stamp}, 0, {n} MiB\n" for n, stamp in enumerate(stamps))


@pytest.mark.parametrize(
    "text",
    [
        "2026/01/25 17:24:38.250",
        "2026-01-25 17:24:38.250",
        "2026-01-25T17:24:38.250000",
        "2026-01-25T17:24:38.250Z",
        "2026-01-25T19:24:38.250+02:00",
        "2026-01-25 11:54:38,25 -0530",
        "1769361878.25",
    ],
)
def test_every_spelling_of_a_time_means_the_same(text):
    stamp = parse_stamp(text)
    assert stamp is not None
    assert Clock(timezone.utc, Notes()).utc_us(stamp) == 1769361878_250_000


@pytest.mark.parametrize(
    "text",
    [
        "Sun Jan 25 17:24:38 2026",
        "Sun Jan 25 17:24:38 UTC 2026",
        "Sun Jan 25 05:24:38 PM UTC 2026",
        "  Sun Jan 25 17:24:38 2026   ",
    ],
)
def test_what_date_and_nvidia_smi_print_above_a_table(text):
    stamp = parse_stamp(text)
    assert stamp is not None
    assert stamp.local_us == 1769361878 * US_PER_S


@pytest.mark.parametrize(
    "text", ["", "12", "2026/13/25 17:24:38", "2026/01/25 25:24:38", "Sun Foo 25 17:24:38 2026",
             "0000/00/00 00:00:00", "9999/01/01 00:00:00", "1e99", "\uff12\uff10\uff12\uff16/01/25 17:24:38"]
)  # fmt: skip
def test_what_is_no_time_is_none(text):
    assert parse_stamp(text) is None


def test_zone_less_stamps_are_utc_and_that_is_said(tmp_path):
    run = read_text(tmp_path, log("2026/01/25 17:24:38.000"))
    assert run.ticks[0].t_us == 1769361878 * US_PER_S
    assert "taken as UTC" in run.said
    assert (run.observed("host")[0].data or {})["zone"] == "UTC"


def test_the_zone_given_by_the_user_moves_the_wall_clock(tmp_path):
    run = read_text(tmp_path, log("2026/01/25 17:24:38.000"), zone="Asia/Tokyo")
    assert run.ticks[0].t_us == (1769361878 - 9 * 3600) * US_PER_S
    assert "UTC" not in run.said
    assert (run.observed("host")[0].data or {})["zone"] == "Asia/Tokyo"


def test_a_zone_given_as_an_offset_is_kept_as_one(tmp_path):
    run = read_text(tmp_path, log("2026/01/25 17:24:38.000"), zone="-03:30")
    assert run.ticks[0].t_us == (1769361878 + 12600) * US_PER_S
    host = run.observed("host")[0].data or {}
    assert (host["zone"], host["utc_offset_s"]) == (None, -12600)


@pytest.mark.parametrize("zone", ["Mars/Phobos", "../../etc/passwd", "", "+99:00", "Europe"])
def test_a_zone_that_does_not_exist_is_wrong_usage(tmp_path, zone):
    with pytest.raises(UsageError) as caught:
        read_text(tmp_path, log("2026/01/25 17:24:38.000"), zone=zone)
    assert "Europe/Berlin" in (caught.value.hint or "")


def test_the_end_of_summer_time_is_no_step_where_the_zone_is_known(tmp_path):
    """The hour from 2 to 3 comes twice; ten minutes apart each."""
    stamps = ["02:40", "02:50", "02:00", "02:10", "02:50", "03:00"]
    run = read_text(
        tmp_path, log(*(f"2025/10/26 {s}:00.000" for s in stamps)), zone="Europe/Berlin"
    )
    minutes = [tick.mono_ns // (60 * 10**9) for tick in run.ticks]
    assert minutes == [0, 10, 20, 30, 70, 80]
    assert run.observed("clock_step") == []
    assert "stamped twice" in run.said


def test_the_start_of_summer_time_is_no_gap_where_the_zone_is_known(tmp_path):
    run = read_text(
        tmp_path,
        log("2025/03/30 01:59:50.000", "2025/03/30 03:00:00.000"),
        zone="Europe/Berlin",
    )
    assert [tick.mono_ns for tick in run.ticks] == [0, 10 * 10**9]


def test_a_clock_that_is_put_back_is_a_step_and_time_goes_on(tmp_path):
    run = read_text(
        tmp_path,
        log(
            "2026/01/25 17:24:38.000",
            "2026/01/25 17:24:40.000",
            "2026/01/25 16:00:00.000",
            "2026/01/25 16:00:02.000",
        ),
    )
    assert [tick.mono_ns // 10**9 for tick in run.ticks] == [0, 2, 4, 6]
    assert [tick.t_us for tick in run.ticks][2] == run.ticks[0].t_us - 5078 * US_PER_S
    (step,) = run.observed("clock_step")
    assert step.data == {"step_ns": -(5080 + 2) * 10**9}
    assert run.ticks[2].observations[0].what == "clock_step"


def test_polls_under_one_stamp_are_spread(tmp_path):
    """Stamps to the second at two polls a second: time must not stand still."""
    second = "2026/01/25 17:24:{:02d}"
    run = read_text(tmp_path, log(*(second.format(s) for s in (38, 38, 39, 39, 40, 40))))
    assert [tick.mono_ns for tick in run.ticks] == [n * 500_000_000 for n in range(6)]
    assert "spread evenly" in run.said


@given(
    start=st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - as logs have them
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
    steps=st.lists(st.integers(1, 3600), min_size=1, max_size=50),
)
def test_local_stamps_of_a_steady_clock_come_back_in_order(start, zone, steps):
    """Whatever the zone does, except where an hour comes twice within one step."""
    info = ZoneInfo(zone)
    moments = [start.replace(tzinfo=timezone.utc)]
    for step in steps:
        moments.append(moments[-1] + timedelta(seconds=step))
    clock = Clock(info, Notes())
    for moment in moments:
        local = moment.astimezone(info)
        stamp = parse_stamp(local.strftime("%Y/%m/%d %H:%M:%S.%f"))
        assert stamp is not None
        found = clock.utc_us(stamp)
        true = round(moment.timestamp() * US_PER_S)
        assert (
            found == true
            or local.fold == 1
            or local.replace(fold=1).utcoffset() != local.utcoffset()
        )

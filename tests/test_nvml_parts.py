"""Parts of the NVML source that need no driver: identity, clock, tiers, watchdog."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from fakedriver import GIB, FakeDriver

from vramtop.sources.nvml.clock import Alarm, TickClock
from vramtop.sources.nvml.identity import Identities
from vramtop.sources.nvml.sampler import Sampler
from vramtop.sources.nvml.tiers import Tier

MS = 1_000_000


def write_stat(proc: Path, pid: int, start_time: int, comm: str = "x") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["S", "1", "1"] + ["0"] * 16 + [str(start_time)] + ["0"] * 20
    (folder / "stat").write_text(f"{pid} ({comm}) {' '.join(fields)}\n")


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "300"], stdin=subprocess.DEVNULL)
    yield child
    child.kill()
    child.wait()


def test_a_living_process_costs_no_read_of_proc_after_the_first(sleeper):
    """Without /proc it is still known to be the same: the pidfd says so."""
    identities = Identities()
    first = identities.get(sleeper.pid)
    identities._proc = "/nonexistent"
    for _ in range(3):
        identities.refresh()
    assert identities.get(sleeper.pid) is first
    assert not first.exited
    identities.close()


def test_a_pid_used_again_is_another_process(tmp_path: Path):
    """Without pidfds the start time is read again for every list."""
    write_stat(tmp_path, 1000, 111)
    identities = Identities(proc=tmp_path, hold=False)
    first = identities.get(1000)
    identities.refresh()
    assert identities.get(1000) is first
    write_stat(tmp_path, 1000, 222)
    identities.refresh()
    second = identities.get(1000)
    assert (first.start_time, second.start_time) == (111, 222)
    assert identities.get(1000) is second
    identities.close()


def test_a_held_pid_is_looked_at_again_once_its_process_has_ended(sleeper, tmp_path: Path):
    identities = Identities(proc=tmp_path)
    write_stat(tmp_path, sleeper.pid, 111)
    first = identities.get(sleeper.pid)
    write_stat(tmp_path, sleeper.pid, 222)
    identities.refresh()
    assert identities.get(sleeper.pid) is first, "it lives: it cannot have been replaced"
    sleeper.kill()
    sleeper.wait()
    identities.refresh()
    assert first.exited
    assert identities.get(sleeper.pid).start_time == 222
    identities.close()


def test_the_kernel_gives_a_pid_again_and_the_source_tells_two_processes(
    fake_driver: FakeDriver,
):
    """The real thing, where the kernel lets us choose the next PID."""
    knob = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(knob, os.W_OK):
        pytest.skip("may not choose PIDs here")
    fake_driver.add_gpu()
    first = fake_driver.spawn()
    fake_driver.add_process(gpu=0, pid=first.pid, used=GIB)
    with fake_driver.source(interval_s=0.1, often_s=0.1) as stream:
        old = stream.next().processes[0]
        first.kill()
        first.wait()
        for _ in range(50):
            time.sleep(0.011)  # another start time: it counts hundredths of a second
            knob.write_text(str(first.pid - 1))
            second = fake_driver.spawn("sleep", "297")
            if second.pid == first.pid:
                break
        else:
            pytest.skip("PIDs are being taken too fast here")
        tick = stream.until(lambda t: any(o.what == "process" for o in t.observations))
    (new,) = tick.processes
    assert new.pid == old.pid
    assert new.start_time > old.start_time
    assert [(o.what, o.start_time) for o in tick.observations] == [
        ("gone", old.start_time),
        ("process", new.start_time),
    ]


def test_a_name_with_parentheses_and_spaces_does_not_shift_the_start_time(tmp_path: Path):
    write_stat(tmp_path, 1000, 333, comm="a) S 1 (b\x1b")
    identities = Identities(proc=tmp_path, hold=False)
    identity = identities.get(1000)
    assert (identity.start_time, identity.comm) == (333, "a) S 1 (b")
    identities.close()


def test_more_processes_than_descriptors_to_spare_are_still_told_apart(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("vramtop.sources.nvml.identity._HELD_LIMIT", 0)
    write_stat(tmp_path, os.getpid(), 111)
    identities = Identities(proc=tmp_path)
    assert identities.get(os.getpid()).fd is None
    write_stat(tmp_path, os.getpid(), 222)
    identities.refresh()
    assert identities.get(os.getpid()).start_time == 222
    identities.close()


def test_a_process_that_no_gpu_lists_is_let_go(sleeper):
    identities = Identities()
    identity = identities.get(sleeper.pid)
    identity.uuids = {"GPU-a", "GPU-b"}
    identities.leave(identity, "GPU-a")
    assert identities.get(sleeper.pid) is identity
    identities.leave(identity, "GPU-b")
    assert identity.fd is None
    assert identities.get(sleeper.pid) is not identity
    identities.close()


def test_ticks_do_not_drift_and_missed_ones_are_counted():
    clock, alarm = TickClock(20 * MS), Alarm()
    assert clock.wait(alarm)
    start = clock.due_ns
    for number in range(1, 4):
        assert clock.wait(alarm)
        assert clock.due_ns == start + number * 20 * MS
    time.sleep(0.07)
    assert clock.wait(alarm)
    assert clock.missed >= 2
    assert (clock.due_ns - start) % (20 * MS) == 0


def test_the_wall_clock_being_set_is_a_step_and_its_drift_is_not():
    clock = TickClock(MS)
    second = 1_000_000_000
    assert clock.step_ns(0, 100 * second) is None
    assert clock.step_ns(second, 101 * second + second // 3) is None
    assert clock.step_ns(2 * second, 102 * second + second // 2) is None
    assert clock.step_ns(3 * second, 43 * second) == -60 * second + second // -2
    assert clock.step_ns(4 * second, 44 * second) is None


def test_an_alarm_rung_from_another_thread_ends_a_sleep():
    clock, alarm = TickClock(60_000 * MS), Alarm()
    assert clock.wait(alarm)
    threading.Timer(0.05, alarm.ring).start()
    began = time.monotonic()
    assert not clock.wait(alarm)
    assert time.monotonic() - began < 1


def test_a_tier_is_due_by_the_schedule():
    tier = Tier(1, 1000 * MS)
    assert [tier.due(slot * 300 * MS) for slot in range(9)] == [
        True, False, False, False, True, False, False, False, True,
    ]  # fmt: skip


def test_a_tier_backs_off_when_expensive_and_returns_when_cheap():
    tier = Tier(1, 1000 * MS)
    assert not any(tier.spent(190 * MS) for _ in range(50))
    assert not tier.spent(900 * MS), "once is no habit"
    assert tier.spent(300 * MS)
    assert tier.period_ns == 2000 * MS
    changes = [tier.spent(10 * MS) for _ in range(25)]
    assert changes.count(True) == 1
    assert tier.period_ns == 1000 * MS


def test_jobs_after_a_stalled_one_run_and_the_stalled_one_is_told_when_it_returns():
    ran: list[str] = []
    hold = threading.Event()

    def stuck() -> None:
        hold.wait(10)
        ran.append("stuck")

    jobs = [lambda: ran.append("a"), stuck, lambda: ran.append("b")]
    sampler = Sampler(lambda: False)
    began = time.monotonic()
    assert sampler.run(jobs, 0.1) == [stuck]
    assert time.monotonic() - began < 1
    assert ran == ["a", "b"]
    assert sampler.returned() == []
    hold.set()
    deadline = time.monotonic() + 5
    while not (back := sampler.returned()) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert back == [stuck]
    assert ran == ["a", "b", "stuck"]
    assert sampler.run([lambda: ran.append("c")], 0.1) == []


def test_many_jobs_that_together_take_longer_than_the_limit_do_not_stall():
    sampler = Sampler(lambda: False)
    assert sampler.run([lambda: time.sleep(0.06)] * 5, 0.15) == []


def test_what_a_job_raises_reaches_the_caller():
    sampler = Sampler(lambda: False)
    with pytest.raises(ZeroDivisionError):
        sampler.run([lambda: 1 // 0], 0.1)
    assert sampler.run([lambda: None], 0.1) == []

"""Any stream of ticks that a source may yield, for Hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from vramtop.samples import DEVICE_COLUMNS, DeviceReading, Observation, ProcessReading, Tick

_UUIDS = st.sampled_from(["GPU-b", "GPU-a", "MIG-1", "nvml-0"])
_BIG = st.integers(0, 2**63 - 1)
_TEXT = st.text(max_size=8)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def streams(draw: st.DrawFn) -> list[Tick]:
    """Any consecutive ticks a source may yield: births, deaths, gaps, nothing at all."""
    seq = draw(st.integers(0, 3))
    mono_ns, ticks = draw(st.integers(0, 10**15)), []
    gpu_of = {"GPU-b": 0, "GPU-a": 1, "MIG-1": 1, "nvml-0": 2}
    for _ in range(draw(st.integers(1, 12))):
        uuids = draw(st.lists(_UUIDS, unique=True, max_size=3))
        devices = tuple(
            DeviceReading(
                gpu=gpu_of[uuid],
                uuid=uuid,
                parent_uuid="GPU-a" if uuid == "MIG-1" else None,
                looked=draw(st.integers(0, 15)),
                **{
                    name: draw(st.none() | _BIG)
                    for name in draw(st.lists(st.sampled_from(DEVICE_COLUMNS), max_size=3))
                    if name != "looked"
                },
            )
            for uuid in uuids
        )
        keys = draw(
            st.lists(
                st.tuples(_UUIDS, st.integers(1, 3), st.none() | st.just(9), st.integers(0, 1)),
                unique=True,
                max_size=4,
            )
        )
        processes = tuple(
            ProcessReading(
                gpu=gpu_of[uuid],
                uuid=uuid,
                pid=pid,
                start_time=start_time,
                life=life,
                used_bytes=draw(st.none() | _BIG),
            )
            for uuid, pid, start_time, life in keys
        )
        observations = tuple(
            draw(
                st.lists(
                    st.builds(
                        Observation,
                        what=st.sampled_from(["mark", "host", "from the future"]),
                        gpu=st.none() | st.integers(0, 7),
                        uuid=st.none() | _UUIDS,
                        pid=st.none() | st.integers(1, 2**22),
                        start_time=st.none() | _BIG,
                        life=st.integers(0, 2),
                        name=st.none() | _TEXT,
                        text=st.none() | _TEXT,
                        data=st.none() | st.dictionaries(_TEXT, _JSON, max_size=2),
                    ),
                    max_size=2,
                )
            )
        )
        ticks.append(
            Tick(
                seq=seq,
                mono_ns=mono_ns,
                t_us=draw(st.integers(0, 2**52)),
                devices=devices,
                processes=processes,
                observations=observations,
            )
        )
        seq += draw(st.integers(1, 3))
        mono_ns += draw(st.integers(0, 10**12))
    return ticks

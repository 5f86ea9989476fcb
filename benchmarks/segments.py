"""How good segments and labels are: cost against exact solvers, labels against the simulator.

    python benchmarks/segments.py [--short] [--seeds 3]

Method. Exact cost: random series (staircases, sawteeth, walks, heavy tails, constants, an offset of
8e10) at several penalties; the online optimum beside `ruptures` KernelCPD (linear kernel, min_size
1), and skchange where it is installed. Levels and lines: the same over short series, beside the
unpruned dynamic program over every run; the share within 0.1 % and the worst ratio. Labels: every
scenario of the simulator at 1 Hz, through the whole engine; a second of a process's life counts
for the label of the segment that covers it against the phase the simulator declared. F1 per label
over seconds, and over phases (a phase is found if the label that covers most of it is its own, a
segment is right if most of it is truly called so); macro means over the labels that occur in the truth.
A boundary is found if one of the other side lies within 2 s.
"""

from __future__ import annotations

import argparse
import random
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
from ruptures.detection import KernelCPD

from vramtop.analyzers.changepoints import ChangepointAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.labels import LABELS
from vramtop.samples import TRUTH, SeriesKey
from vramtop.sources.sim import SimSource
from vramtop.sources.sim.scenarios import SCENARIOS
from vramtop.stats.constline import ConstLine, Moments
from vramtop.stats.fpop import Fpop

PENALTIES = (0.5, 2.0, 10.0, 50.0, 500.0)
MARGIN_S = 2.0


def random_series(draw, count):
    """A short series of one of seven kinds."""
    kind = draw.randrange(7)
    if kind == 0:
        return [float(t // draw.randrange(1, 9) * 2) for t in range(count)]
    if kind == 1:
        period = draw.randrange(2, 12)
        return [float(t % period * 8) for t in range(count)]
    if kind == 2:
        level, out = 0, []
        for _ in range(count):
            level += draw.choice((-2, 0, 0, 2))
            out.append(float(level))
        return out
    if kind == 3:
        return [draw.gauss(0, 1) / max(abs(draw.gauss(0, 1)), 0.05) for _ in range(count)]
    if kind == 4:
        return [7.0] * count
    if kind == 5:
        return [8e10 + 2.0 * draw.randrange(9) for _ in range(count)]
    return [draw.gauss(0, 1) + 5 * (t > count // 2) for t in range(count)]


def cost_of(values, cuts, penalty):
    bounds = [0, *cuts, len(values)]
    total = penalty * len(cuts)
    for start, stop in pairwise(bounds):
        part = np.array(values[start:stop])
        part = part - part[0]
        total += float(((part - part.mean()) ** 2).sum())
    return total


def same(one, other):
    return abs(one - other) <= 1e-9 * max(abs(one), abs(other)) + 1e-7


def exact_costs(count):
    """Series, equal to ruptures, equal to skchange (None without it), microseconds per push."""
    draw = random.Random(7)
    try:
        from skchange import detectors as peer
    except ImportError:
        peer = None
    equal = other = pushes = 0
    spent = 0.0
    for _ in range(count):
        values = random_series(draw, draw.randrange(2, 120))
        penalty = draw.choice(PENALTIES)
        online = Fpop(penalty=penalty)
        start = time.perf_counter()
        for value in values:
            online.push(value, 1.0)
        spent += time.perf_counter() - start
        pushes += len(values)
        # The solver in C works on inner products and would lose the digits to the offset.
        signal = np.array(values) - values[0]
        cuts = KernelCPD(kernel="linear", min_size=1, jump=1).fit(signal).predict(pen=penalty)
        found = cost_of(values, online.changepoints(), penalty)
        equal += same(found, cost_of(values, cuts[:-1], penalty)) and same(found, online.cost)
        if peer is not None:
            cuts = peer.FPOP(penalty=penalty).fit(signal[:, None]).predict(signal[:, None])
            other += same(found, cost_of(values, [int(cut) for cut in cuts], penalty))
    return equal, None if peer is None else other, spent / pushes * 1e6


def solver(penalty, **changed):
    settings = {
        "scale": 1.0, "penalty": penalty, "line_ratio": 0.5, "restless_ratio": 4.0,
        "restless": 12.0, "restless_young": 4.0, "restless_from": 0, "max_candidates": 16,
        "start": Moments(),
    }  # fmt: skip
    return ConstLine(**{**settings, **changed})


def boundaries_of(values):
    moments, out = Moments(), []
    for place, value in enumerate(values):
        moments = moments.after(value, place + 1, 0)
        out.append(moments)
    return out


def reference_cost(boundaries, rule):
    """The unpruned dynamic program: the least cost of any partition."""
    points = [Moments(), *boundaries]
    best = [0.0]
    for stop in range(1, len(points)):
        best.append(
            min(
                best[start] + rule.cost(points[start], points[stop])[0] + rule.penalty
                for start in range(stop)
            )
        )
    return best[-1]


def streamed_cost(values, penalty):
    """Cost of what levels and lines make of the boundaries that least squares settles."""
    boundaries = boundaries_of(values)
    rule, levels = solver(penalty), Fpop(penalty=penalty)
    for value in values:
        levels.push(float(value), 1.0)
    for cut in [*levels.changepoints(), len(values)]:
        rule.push(boundaries[cut - 1])
    total, start = 0.0, Moments()
    for stop in rule.finish():
        total += rule.cost(start, stop.moments)[0] + penalty
        start = stop.moments
    return total, reference_cost(boundaries, rule)


def line_costs(count):
    draw = random.Random(11)
    ratios = []
    for _ in range(count):
        values = [round(value * 10) for value in random_series(draw, draw.randrange(20, 90))]
        if max(values) > 10**9:
            continue
        found, least = streamed_cost(values, draw.choice((50.0, 500.0, 5000.0)))
        ratios.append(found / least if least else 1.0)
    return ratios


class Tally:
    """Seconds and phases by (truth, found)."""

    def __init__(self):
        self.seconds = Counter()
        self.hit, self.true, self.right, self.said = Counter(), Counter(), Counter(), Counter()
        self.edges = Counter()
        self.changes = defaultdict(lambda: [0, 0.0])
        self.us = []

    def series(self, truth, found):
        """Both are lists of (start, end, label), ascending."""
        for start, end, label in truth:
            covers = Counter()
            for begin, stop, other in found:
                both = min(end, stop) - max(start, begin)
                if both > 0:
                    covers[other] += both
            for other, seconds in covers.items():
                self.seconds[label, other] += seconds
            self.seconds[label, "none"] += max(end - start - sum(covers.values()), 0.0)
            self.true[label] += 1
            self.hit[label] += bool(covers) and covers.most_common(1)[0][0] == label
        for begin, stop, label in found:
            covers = Counter()
            for start, end, other in truth:
                both = min(end, stop) - max(start, begin)
                if both > 0:
                    covers[other] += both
            if covers:
                self.said[label] += 1
                self.right[label] += covers.most_common(1)[0][0] == label
        ours = sorted(begin for begin, _, _ in found[1:])
        theirs = sorted(start for start, _, _ in truth[1:])
        self.edges["found"] += sum(near(edge, ours) for edge in theirs)
        self.edges["true"] += len(theirs)
        self.edges["right"] += sum(near(edge, theirs) for edge in ours)
        self.edges["said"] += len(ours)

    def by_second(self, label):
        """F1 over seconds."""
        hit = self.seconds[label, label]
        said = sum(n for (_, other), n in self.seconds.items() if other == label)
        true = sum(n for (truth, _), n in self.seconds.items() if truth == label)
        return f1(hit, true, hit, said)

    def by_phase(self, label):
        """F1 over phases and segments."""
        return f1(self.hit[label], self.true[label], self.right[label], self.said[label])


def near(edge, edges):
    place = bisect_left(edges, edge)
    return any(abs(other - edge) <= MARGIN_S for other in edges[max(place - 1, 0) : place + 1])


def f1(hit, true, right, said):
    recall = hit / true if true else 0.0
    precision = right / said if said else 0.0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def run(name, seed, tally, duration_s):
    ticks = list(
        SimSource(name, seed=seed, interval_s=1.0, pace=None, duration_s=duration_s).ticks()
    )
    truth, seen = defaultdict(list), defaultdict(set)
    for tick in ticks:
        for entry in tick.observations:
            if entry.what == TRUTH and entry.name == "phase" and entry.data["label"] != "dying":
                key = SeriesKey(entry.uuid, entry.pid, entry.start_time, entry.life)
                truth[key].append((entry.data["start_s"], entry.data["end_s"], entry.data["label"]))
        for process in tick.processes:
            seen[process.key].add(process.used_bytes)
    first = ticks[0].t_us / 1e6
    engine, events = Engine([ChangepointAnalyzer()]), []
    for place in range(0, len(ticks), 4096):
        events += engine.update(Block.from_ticks(ticks[place : place + 4096]))
    events += engine.finish()
    found = defaultdict(list)
    for event in events:
        if event.kind == "segment" and event.pid is not None:
            key = SeriesKey(event.uuid, event.pid, event.start_time, event.life)
            found[key].append((event.start - first, event.end - first, event.label_id))
        if event.kind == "changepoint" and event.pid is not None and event.state == "confirmed":
            tally.changes[name][0] += 1
    for key, phases in truth.items():
        if key in found:
            # What nobody could see, as the process was not on the GPU yet, is not scored.
            born = min(start for start, _, _ in found[key])
            visible = [(max(start, born), end, label) for start, end, label in phases if end > born]
            tally.series(visible, sorted(found[key]))
            tally.changes[name][1] += visible[-1][1] - born if visible else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--short", action="store_true", help="One seed, a few scenarios, 30 s.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="Scenarios.")
    parser.add_argument("--confusion", action="store_true", help="What is taken for what.")
    chosen = parser.parse_args()
    count = 150 if chosen.short else 1000
    equal, other, us = exact_costs(count)
    print(f"exact cost equals ruptures: {equal}/{count}; {verdict(equal == count)} (target all)")
    print(
        "exact cost equals skchange: "
        + ("not installed" if other is None else f"{other}/{count}; {verdict(other == count)}")
    )
    print(f"one push: {us:.1f} us on these series; {verdict(us <= 5.0)} (target 5)")
    ratios = line_costs(60 if chosen.short else 400)
    equal = sum(ratio <= 1.001 for ratio in ratios)
    print(
        f"levels and lines, beside their optimum over every run: {equal}/{len(ratios)} within "
        f"0.1 %, worst ratio {max(ratios):.2f} (approximate by design, no target)"
    )
    names = chosen.only or (
        ["training-oom", "epochs", "checkpoint-saves", "prealloc-server"]
        if chosen.short
        else list(SCENARIOS)
    )
    tally = Tally()
    for name in names:
        for seed in range(
            chosen.first_seed, chosen.first_seed + (1 if chosen.short else chosen.seeds)
        ):
            run(name, seed, tally, 900.0 if chosen.short else None)
    labels = [label for label in LABELS if tally.true[label]]
    print(f"{'label':18} {'phases':>7} {'hours':>7} {'F1 s':>6} {'F1 n':>6}")
    for label in labels:
        hours = sum(n for (truth, _), n in tally.seconds.items() if truth == label) / 3600
        print(
            f"{label:18} {tally.true[label]:7} {hours:7.2f} {tally.by_second(label):6.2f} "
            f"{tally.by_phase(label):6.2f}"
        )
        if chosen.confusion:
            wrong = Counter(
                {found: n for (truth, found), n in tally.seconds.items() if truth == label}
            )
            print("      ", ", ".join(f"{found} {n:.0f}" for found, n in wrong.most_common(5)))
    if labels:
        seconds = sum(map(tally.by_second, labels)) / len(labels)
        phases = sum(map(tally.by_phase, labels)) / len(labels)
        print(f"macro-F1 over {len(labels)} labels: {seconds:.2f} by second, {phases:.2f} by phase")
    edges = tally.edges
    print(
        f"boundaries within {MARGIN_S:.0f} s: F1 "
        f"{f1(edges['found'], edges['true'], edges['right'], edges['said']):.2f} "
        f"({edges['found']}/{edges['true']} found, {edges['right']}/{edges['said']} right)"
    )
    for name, (changes, seconds) in tally.changes.items():
        if seconds:
            print(
                f"confirmed changepoints per process-hour, {name}: {changes / seconds * 3600:.1f}"
            )


def verdict(met):
    return "met" if met else "MISSED"


if __name__ == "__main__":
    main()

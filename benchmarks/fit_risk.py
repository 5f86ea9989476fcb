"""Fits the tables of `vramtop/analyzers/risk_table.py` on simulated runs.

    python benchmarks/fit_risk.py [--jobs N] [--rows FILE] [--held-out] [-o FILE]

Method: runs of the splits `fit` and `calibrate` (`benchmarks/scoring/corpus.py`) go through the
analyzer; every 10 s its evidence is noted with the time that was really left. Steps 1 and 3 are
logistic sums of piecewise linear functions with a ridge, most of them not allowed to fall;
step 2 counts. The bounds of the range are pairs of multiples per class that together hold the
wanted share of what followed wherever a level stood. `--held-out` prints, for each kind, the Brier
skill of its rows under a fit on a quarter of the rows of all others. `--rows` keeps the evidence, which
takes most of the time to gather.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from scipy.optimize import minimize
from scoring import corpus
from scoring.metrics import brier_skill
from scoring.outcome import ROW_S, blocks_of

from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.risk import RiskAnalyzer
from vramtop.analyzers.risk_model import (
    HORIZONS_S,
    LONGEST_S,
    QUALITIES,
    RANGE_S,
    RATIOS,
    RiskModel,
    growth_features,
    quality,
    state_features,
)
from vramtop.engine import Engine
from vramtop.samples import TRUTH, SeriesKey
from vramtop.units import NS_PER_S

KNOTS = 6
MORE_KNOTS = {"growth": 17}
FREE_TO_FALL = ("flushed",)
RIDGE = 1.0
LEVELS = inspect.signature(RiskAnalyzer).parameters
COVER = 0.76
"""Share of stated ranges that must come true, false alarms included; the last points cost most width."""


class Silent(RiskModel):
    """Says nothing: the tables are still to be made."""

    def probabilities(self, evidence):  # noqa: ARG002, D102
        return 0.0, 0.0, 0.0

    def range_s(self, outlook):  # noqa: ARG002, D102
        return None


class Noting(RiskAnalyzer):
    """The analyzer, asked every 10 s for its evidence."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Silent()
        self.noted: dict[str, list] = {}
        self._next_ns: dict[str, int] = {}

    def on_change(self, tick, change):  # noqa: D102
        super().on_change(tick, change)
        if change.key.uuid in self._devices and change.key.uuid not in self._next_ns:
            self._next_ns[change.key.uuid] = self.now_ns(tick) // (ROW_S * NS_PER_S)
            self._ask(SeriesKey(change.key.uuid))

    def on_wake(self, tick, key):  # noqa: D102
        now = self.now_ns(tick)
        if now >= self._next_ns[key.uuid] * ROW_S * NS_PER_S:
            device = self._devices[key.uuid]
            self.noted.setdefault(key.uuid, []).append((now / NS_PER_S, self.evidence(device, now)))
            self._ask(key)
        super().on_wake(tick, key)

    def _ask(self, key):
        self._next_ns[key.uuid] += 1
        self.wake_at(self._next_ns[key.uuid] * ROW_S * NS_PER_S, key)


def rows_of(run):
    """(run, seconds left, seconds known, evidence) of one run's devices."""
    noting = Noting()
    engine = Engine([ObservedAnalyzer(), noting])
    ooms: dict[str, list[float]] = {}
    start = end = None
    for block in blocks_of(run.ticks()):
        start = block.mono_ns[0] / NS_PER_S if start is None else start
        end = block.mono_ns[-1] / NS_PER_S
        for _, seen in block.observations:
            if seen.what == TRUTH and seen.name == "oom":
                ooms.setdefault(seen.uuid, []).append(start + seen.data["t_s"])
        engine.update(block)
    rows = []
    for uuid, noted in noting.noted.items():
        for t, evidence in noted:
            left = min((oom - t for oom in ooms.get(uuid, ()) if oom > t), default=np.inf)
            rows.append((run.kind, run.split, left, end - t, evidence))
    return rows


def gather(splits, jobs, share=1.0):
    """All rows of some splits."""
    with ProcessPoolExecutor(jobs) as pool:
        parts = pool.map(rows_of, corpus.corpus(splits, share=share), chunksize=4)
        return [row for part in parts for row in part]


def basis(rows):
    """Ramps between knots of features in 0-1, and (name, ramps) of each feature."""
    found = [(name, MORE_KNOTS.get(name, KNOTS) - 1) for name in rows[0]]
    columns = []
    for name, ramps in found:
        place = np.clip([row[name] for row in rows], 0, 1) * ramps
        columns += [np.clip(place - knot, 0, 1) for knot in range(ramps)]
    return np.stack(columns, 1), found


def fit_tables(rows, truth):
    """Tables of the logistic sum."""
    matrix, features = basis(rows)
    bounds = [(None, None)]
    for name, ramps in features:
        bounds += [(None if name in FREE_TO_FALL else 0, None)] * ramps

    def loss(theta):
        score = matrix @ theta[1:] + theta[0]
        gap = 1 / (1 + np.exp(-score)) - truth
        value = (np.logaddexp(0, score) - truth * score).sum() + RIDGE * (theta[1:] ** 2).sum()
        return value, np.concatenate([[gap.sum()], matrix.T @ gap + 2 * RIDGE * theta[1:]])

    start = np.zeros(matrix.shape[1] + 1)
    start[0] = -3.0
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}
    )
    tables = {"constant": [round(float(found.x[0]), 3)]}
    at = 1
    for name, ramps in features:
        steps = found.x[at : at + ramps]
        at += ramps
        tables[name] = [0.0, *(round(float(value), 3) for value in np.cumsum(steps))]
    return tables


def narrowest(multiples, share):
    """The narrowest pair, in ratio, that holds a share of sorted multiples."""
    count = len(multiples)
    if count < 20:
        return 0.5, 2.0
    need = int(np.ceil(share * count))
    low, high = multiples[: count - need + 1], multiples[need - 1 :]
    best = int(np.argmin((high + 0.05) / (low + 0.05)))
    return round(float(low[best]), 2), round(float(high[best]), 2)


def fit(rows):
    """All tables from rows."""
    table = {
        "LOGISTIC": [round(float(1 / (1 + np.exp(-score))), 6) for score in np.linspace(-8, 8, 65)]
    }
    growing = [row for row in rows if row[4].outlook.left_s <= LONGEST_S]
    limit = [3.0 * row[4].outlook.left_s + 60.0 for row in growing]
    went = [row[2] <= most for row, most in zip(growing, limit, strict=True)]
    known = [yes or row[3] >= most for row, most, yes in zip(growing, limit, went, strict=True)]
    chosen = [index for index, yes in enumerate(known) if yes]
    table["GOES_ON"] = fit_tables(
        [growth_features(growing[index][4]) for index in chosen],
        np.array([went[index] for index in chosen], float),
    )
    multiples = [[] for _ in range(len(QUALITIES) + 3)]
    for row, yes in zip(growing, went, strict=True):
        if yes:
            outlook = row[4].outlook
            multiple = row[2] / max(outlook.left_s, 1.0)
            multiples[quality(outlook)].append(multiple)
    table["WHEN"] = [
        [round(float(np.mean(np.array(found or [1.0]) <= ratio)), 3) for ratio in RATIOS]
        for found in multiples
    ]
    table["WITHIN"] = []
    model = RiskModel({**table, "WITHIN": [], "BOUNDS": []})
    for horizon in HORIZONS_S:
        told = [row for row in rows if row[2] <= horizon or row[3] >= horizon]
        features = [
            state_features(
                row[4],
                model.place(model.continues(row[4]) * model.due(row[4].outlook, horizon)),
            )
            for row in told
        ]
        table["WITHIN"].append(
            fit_tables(features, np.array([row[2] <= horizon for row in told], float))
        )
    table["BOUNDS"] = bounds([row for row in rows if row[1] == corpus.CALIBRATE], table)
    return table


def bounds(rows, table):
    """Per class of growth, multiples of the extrapolated time between which failures fall.

    Taken from the rows at which a level would stand; the more of them come to nothing, the wider
    the ranges of the others.
    """
    model = RiskModel({**table, "BOUNDS": []})
    multiples = [[] for _ in range(len(QUALITIES) + 3)]
    shown = failed = high = low = 0
    standing, scale, group, before = False, None, 0, None
    for row in rows:
        _, _, left, known, evidence = row
        if before is None or known >= before:
            standing, scale, high, low = False, None, 0, 0  # another device
        before = known
        _, p_300, p_900 = model.probabilities(evidence)
        up = p_900 >= LEVELS["warn_at"].default or p_300 >= LEVELS["critical_at"].default
        down = p_900 < LEVELS["clear_warning_at"].default
        high, low = (high + 1 if up else 0), (low + 1 if down else 0)
        if high * ROW_S > LEVELS["raise_hold_s"].default:
            standing = True
        if low * ROW_S > LEVELS["clear_hold_s"].default:
            standing = False
        if evidence.outlook.left_s <= LONGEST_S:
            scale, group = evidence.outlook.left_s + RANGE_S, quality(evidence.outlook)
        if standing and scale is not None:
            shown += 1
            if left <= LONGEST_S:
                failed += 1
                multiples[group].append(left / scale)
    share = min(COVER * shown / max(failed, 1), 0.98)
    print(f"{shown} rows with a level, {failed} of them before a failure; ranges hold {share:.3f}")
    return cheapest([np.sort(found) for found in multiples], share)


def cheapest(multiples, share):
    """A pair of multiples per class that together hold a share of all, with ratios small on average."""
    shares = np.linspace(0.6, 0.995, 80)
    offers = [[narrowest(found, one) for one in shares] for found in multiples]
    widths = [[np.log((high + 0.05) / (low + 0.05)) for low, high in offer] for offer in offers]
    best = None
    for price in np.geomspace(0.01, 10, 200):
        chosen = [int(np.argmax(shares - price * np.array(width))) for width in widths]
        held = sum(shares[one] * len(found) for one, found in zip(chosen, multiples, strict=True))
        if best is None or held >= share * sum(len(found) for found in multiples):
            best = [list(offer[one]) for one, offer in zip(chosen, offers, strict=True)]
    return best


def held_out(rows):
    """Print the Brier skill of each kind's rows under a fit on all other kinds."""
    for kind in sorted({row[0] for row in rows}):
        table = fit([row for row in rows if row[0] != kind][::4])
        model = RiskModel(table)
        words = []
        for horizon, seconds in enumerate(HORIZONS_S):
            told = [row for row in rows if row[2] <= seconds or row[3] >= seconds]
            others = np.array([row[2] <= seconds for row in told if row[0] != kind], float)
            own = [row for row in told if row[0] == kind]
            p = np.array([model.probabilities(row[4])[horizon] for row in own])
            y = np.array([row[2] <= seconds for row in own], float)
            words.append(
                f"{brier_skill(p, y, float(others.mean())):6.2f} ({y.mean():.3f} said {p.mean():.3f})"
            )
        print(f"{kind:22} Brier skill at 60, 300, 900 s: {', '.join(words)}", flush=True)


def written(table, command):
    """The module's text."""
    words = [
        f'"""Tables of the risk model, made by `{command}`: do not edit.',
        "",
        "Steps 1 and 3 are logistic sums; each feature's table stands at equal steps over 0-1.",
        "",
        "    GOES_ON   step 1: does a growth go on until nothing is left",
        "    WHEN      step 2: share of failures within `RATIOS` of the time left, by class of growth",
        "    WITHIN    step 3: probability within 60, 300 and 900 s",
        "    BOUNDS    of the stated range, as multiples of the time left and 30 s, by class",
        "    LOGISTIC  1 / (1 + exp(-x)) at equal steps over -8 to 8",
        '"""',
        "",
        "# fmt: off",
        f"GOES_ON = {laid_out(table['GOES_ON'])}",
        "WHEN = [",
        *(f"    {json.dumps(row)}," for row in table["WHEN"]),
        "]",
        f"WITHIN = [{', '.join(laid_out(one) for one in table['WITHIN'])}]",
        f"BOUNDS = {json.dumps(table['BOUNDS'])}",
        "LOGISTIC = [",
    ]
    values = [f"{value:.6f}" for value in table["LOGISTIC"]]
    words += [f"    {', '.join(values[i : i + 10])}," for i in range(0, len(values), 10)]
    return "\n".join([*words, "]", ""])


def laid_out(tables):
    """One feature a line."""
    return (
        "{\n" + "".join(f'    "{name}": {json.dumps(row)},\n' for name, row in tables.items()) + "}"
    )


def main():
    """Gather, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="of the seeds of each kind")
    parser.add_argument("--rows", type=Path, help="keep the rows here, or take them from here")
    parser.add_argument(
        "--held-out", action="store_true", help="score each kind on the others' fit"
    )
    parser.add_argument(
        "-o", type=Path, default=Path(__file__).parent.parent / "vramtop/analyzers/risk_table.py"
    )
    options = parser.parse_args()
    if options.rows is not None and options.rows.exists():
        rows = pickle.loads(options.rows.read_bytes())  # noqa: S301 - this script wrote it
    else:
        rows = gather((corpus.FIT, corpus.CALIBRATE), options.jobs, options.share)
        if options.rows is not None:
            options.rows.write_bytes(pickle.dumps(rows))
    print(f"{len(rows)} rows, {sum(row[2] < 300 for row in rows)} within 300 s of a failure")
    if options.held_out:
        held_out(rows)
        return
    table = fit(rows)
    options.o.write_text(written(table, "python benchmarks/fit_risk.py"))


if __name__ == "__main__":
    main()

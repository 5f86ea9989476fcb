"""From what memory did to a probability: `vramtop.analyzers.risk_model` and its tables."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vramtop.analyzers import risk_table
from vramtop.analyzers.risk_model import (
    QUALITIES,
    RATIOS,
    Evidence,
    RiskModel,
    growth_features,
    state_features,
)
from vramtop.stats.exhaustion import Outlook

SHARE = st.floats(0, 1)
OUTLOOKS = st.builds(
    Outlook,
    left_s=st.one_of(st.floats(0, 8000), st.just(math.inf)),
    lasted=SHARE, spread=SHARE, recent=SHARE, steps=SHARE, agreement=SHARE,
    flushed=st.booleans(), swing=SHARE,
)  # fmt: skip
EVIDENCE = st.builds(
    Evidence,
    outlook=OUTLOOKS, free=SHARE, fresh_s=st.floats(0, 1e6), quiet_s=st.floats(0, 1e6),
    age_s=st.floats(0, 1e6), loading=st.booleans(),
)  # fmt: skip
STEADY = Outlook(
    left_s=120.0, lasted=0.9, spread=0.95, recent=0.5, steps=0.95, agreement=0.95, swing=0.1
)
OLD = Evidence(outlook=STEADY, free=0.05, fresh_s=4000.0, quiet_s=2.0, age_s=4000.0, loading=False)


@given(EVIDENCE)
def test_probabilities_are_probabilities_and_grow_with_the_horizon(evidence):
    p_60, p_300, p_900 = RiskModel().probabilities(evidence)

    assert 0 < p_60 <= p_300 <= p_900 < 1


def test_a_long_even_growth_with_two_minutes_left_is_likely_to_end_badly():
    p_60, _, p_900 = RiskModel().probabilities(OLD)

    assert p_900 > 0.6
    assert p_60 < 0.1


def test_the_same_growth_right_after_a_start_is_trusted_less():
    start = OLD._replace(fresh_s=60.0, loading=True)

    assert RiskModel().probabilities(start)[1] < 0.6 * RiskModel().probabilities(OLD)[1]


def test_nothing_that_grows_is_hardly_a_risk_however_full_the_device():
    """A server that holds 96 % and is still."""
    still = Evidence(
        outlook=Outlook(), free=0.04, fresh_s=7200.0, quiet_s=7000.0, age_s=7200.0, loading=False
    )

    assert RiskModel().probabilities(still)[2] < 0.05


@given(EVIDENCE, st.sampled_from(["spread", "recent", "steps", "agreement"]))
def test_better_evidence_of_growth_never_lowers_the_probability(evidence, name):
    """Where the class of growth stays the same, since each class has its own times."""
    better = evidence._replace(outlook=evidence.outlook._replace(**{name: 1.0}))
    model = RiskModel()

    assert model.continues(better) >= model.continues(evidence)


@given(OUTLOOKS)
def test_the_range_is_finite_and_in_order(outlook):
    found = RiskModel().range_s(outlook)

    if found is not None:
        assert 0 <= found[0] < found[1] < math.inf


def test_the_tables_have_a_row_for_every_feature_and_class():
    classes = len(QUALITIES) + 3

    assert set(risk_table.GOES_ON) == {"constant", *growth_features(OLD)}
    assert [set(one) for one in risk_table.WITHIN] == [{"constant", *state_features(OLD, 0.5)}] * 3
    assert len(risk_table.WHEN) == len(risk_table.BOUNDS) == classes
    assert {len(row) for row in risk_table.WHEN} == {len(RATIOS)}


@pytest.mark.parametrize("tables", [risk_table.GOES_ON, *risk_table.WITHIN])
def test_no_table_falls_but_the_one_that_may(tables):
    for name, row in tables.items():
        falls = any(after < before for before, after in itertools.pairwise(row))
        assert not falls or name == "flushed"


def test_the_logistic_table_is_the_logistic():
    for index, value in enumerate(risk_table.LOGISTIC):
        assert value == pytest.approx(1 / (1 + math.exp(8 - index / 4)), abs=1e-6)

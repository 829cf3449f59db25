"""The interval around a counted accuracy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.agents.statistics import Z_95, wilson_interval


def test_wilson_interval_equals_the_numbers_of_newcombe_1998() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", table I, method 3.
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)]:
        assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_no_trial_tells_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and n = 3"):
        wilson_interval(4, 3)


@given(n=st.integers(1, 10**7), data=st.data())
def test_the_interval_holds_the_share_and_mirrors_the_failures(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= successes / n <= high <= 1.0
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(n=st.integers(1, 10**5), data=st.data())
def test_each_end_solves_wilsons_equation(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    for end in wilson_interval(successes, n):
        distance = abs(successes / n - end)
        assert distance == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / n), abs=1e-9)

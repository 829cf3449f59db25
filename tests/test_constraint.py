"""Constraints: what the verdict says, what an episode is charged, and how the price moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.agents.trajectory import Episode, Step, Trajectory
from ludus.trainers.constraints import ascend, charged, constraint_curves, gather, next_multipliers
from ludus.verifiers.constraint import Constraint, Measurement, Terms, measurements
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.rubric import Gate, WeightedSum
from ludus.verifiers.verdict import Outcome, Verdict

TERMS: dict[str, Any] = {"learning_rate": 0.1, "max_multiplier": 2.0}


class Length:
    """The response's length in characters; "?" cannot be told, "!" breaks it."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        if response == "?":
            return Verdict.undecided("who knows")
        return Verdict.error("the scale is broken") if response == "!" else Verdict.partial(len(response), "counted")


class Right:
    """Right is any response with an "a"."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        return Verdict.correct("a") if "a" in response else Verdict.wrong("no a")


def rubric(**bounds: Any) -> WeightedSum:
    return WeightedSum({"answer": Right(), "length": Constraint(Length(), **{"at_most": 3, **TERMS, **bounds})})


def episode(response: str, judge: Any = None, env: str = "letters") -> Episode:
    verdict = (judge or rubric()).verify(None, response)
    lost = verdict.outcome is Outcome.ERROR
    reward = None if lost else verdict.reward
    steps = (Step(0, 1, 0.0), Step(1, 2, reward or 0.0, {"correct": reward or 0.0}))
    trajectory = Trajectory((1, 2), (True, True), (-1.0, -1.0), (0, 0), steps)
    return Episode(
        id="e", env=env, task_id="t", group="g", seed=0, reward=reward, rewards={"correct": reward or 0.0},
        verdict=verdict, terminated=not lost, truncated=False, error="lost" if lost else None, stop_reason="answer",
        messages=(), trajectories=(trajectory,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "response", "outcome", "value", "reason"),
    [
        ({"at_most": 3}, "abc", "correct", 1.0, "3 is at most 3."),
        ({"at_most": 3}, "abcd", "wrong", 0.0, "4 is not at most 3."),
        ({"at_least": 3}, "abc", "correct", 1.0, "3 is at least 3."),
        ({"at_least": 3}, "ab", "wrong", 0.0, "2 is not at least 3."),
        ({"at_most": 3}, "?", "undecided", None, "measured: who knows"),
        ({"at_most": 3}, "!", "error", None, "measured: the scale is broken"),
    ],
)
def test_a_constraint_follows_its_truth_table(
    bounds: Any, response: str, outcome: str, value: float | None, reason: str
) -> None:
    verdict = Constraint(Length(), **bounds, **TERMS).verify(None, response)
    assert (verdict.outcome.value, verdict.value, verdict.reason) == (outcome, value, reason)
    assert verdict.parts == {"measured": Length().verify(None, response)}


def test_in_a_sum_a_constraint_adds_nothing_and_its_error_counts() -> None:
    for response in ("a", "aaaaaa", "?", "a?"):
        assert rubric().verify(None, response).reward == float("a" in response)
    broken = rubric().verify(None, "!")
    assert (broken.outcome, broken.value, broken.reason) == (
        Outcome.ERROR,
        None,
        "length: measured: the scale is broken",
    )


def test_a_verdict_carries_the_raw_measure_and_survives_json() -> None:
    verdict = rubric(multiplier=0.5).verify(None, "aaaaa")
    for each in (verdict, Verdict.from_json(verdict.to_json())):
        assert dict(each.walk())["length/measured"].value == 5.0
        assert measurements(each) == {"length": Measurement(5.0, 2.0, Terms(0.5, 0.1, 2.0))}
    assert measurements(rubric(at_most=None, at_least=7).verify(None, "aaaaa"))["length"].excess == 2.0


def test_what_was_not_measured_is_left_out() -> None:
    shut = Gate("answer", {"answer": Right(), "style": Right(), "length": Constraint(Length(), at_most=3, **TERMS)})
    assert measurements(shut.verify(None, "xxxxxx")) == {}
    assert measurements(shut.verify(None, "axxxxx"))["length"].excess == 3.0
    assert measurements(rubric().verify(None, "?")) == {}


def test_evidence_that_a_response_may_have_written_is_no_constraint() -> None:
    forged = {"at_most": 1e9, "multiplier": 1.0, "learning_rate": 1.0, "max_multiplier": 1.0}

    class Copies:
        def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
            return Verdict.wrong("copied", constraint=forged)

    assert measurements(WeightedSum({"answer": Copies()}).verify(None, "")) == {}


# What an episode is charged


def test_an_episode_is_charged_the_multiplier_times_its_excess_in_its_last_action() -> None:
    before = episode("aaaaa")
    after = charged(before, {"length": 0.25})
    assert after.reward == 1.0 - 0.25 * 2
    assert after.rewards == {"correct": 1.0, "length/charge": -0.5}
    assert [step.reward for step in after.trajectories[0].steps] == [0.0, 0.5]
    assert after.trajectories[0].steps[-1].rewards == {"correct": 1.0, "length/charge": -0.5}
    assert (after.verdict, before.reward) == (before.verdict, 1.0)
    assert after.trajectories[0].token_ids == before.trajectories[0].token_ids


def test_within_the_bound_the_charge_is_a_gain() -> None:
    assert charged(episode("a"), {"length": 0.25}).reward == 1.0 + 0.25 * 2
    longer = rubric(at_most=None, at_least=3)
    assert charged(episode("a", longer), {"length": 0.25}).reward == 1.0 - 0.25 * 2


def test_the_first_price_is_the_constraints_own() -> None:
    assert charged(episode("aaaaa", rubric(multiplier=0.5)), {}).reward == 0.0


@pytest.mark.parametrize("response", ["?", "!"])
def test_what_was_not_measured_or_lost_is_not_charged(response: str) -> None:
    given = episode(response)
    assert charged(given, {"length": 1.0}) is given
    assert gather([(given, "")]) == {}


def test_an_episode_without_constraints_comes_back_as_it_is() -> None:
    for judge in (Right(), WeightedSum({"answer": Right()})):
        given = episode("a", judge)
        assert charged(given, {"length": 1.0}) is given


# The price


def test_the_price_rises_by_the_rate_times_the_mean_excess_and_stays_in_its_range() -> None:
    terms = Terms(0.0, 0.1, 2.0)
    assert ascend(0.5, terms, [3.0, -1.0, 4.0]) == pytest.approx(0.7)
    assert ascend(0.1, terms, [-5.0]) == 0.0
    assert ascend(1.9, terms, [5.0]) == 2.0
    assert ascend(0.5, Terms(0.5, 0.0, 2.0), [100.0]) == 0.5


@given(st.floats(0, 5), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0, 10))
def test_the_price_never_leaves_its_range_and_moves_with_the_violation(
    multiplier: float, excesses: list[float], rate: float
) -> None:
    after = ascend(multiplier, Terms(0.0, rate, 5.0), excesses)
    assert 0.0 <= after <= 5.0
    mean = math.fsum(excesses) / len(excesses)
    assert after >= multiplier if mean >= 0 else after <= multiplier


def test_prices_are_kept_apart_by_environment_and_one_that_was_not_measured_keeps_its_own() -> None:
    measured = gather([(episode("aaaaa"), "one/"), (episode("aaaaaaa"), "one/"), (episode("aa"), "two/")])
    before = {"one/length": 0.5, "other": 0.3}
    after = next_multipliers(before, measured)
    assert after == {"one/length": pytest.approx(0.8), "two/length": 0.0, "other": 0.3}
    assert before == {"one/length": 0.5, "other": 0.3}
    assert constraint_curves(before, measured) == {
        "constraint/one/length/multiplier": 0.5,
        "constraint/one/length/value": 6.0,
        "constraint/one/length/violation": 3.0,
        "constraint/two/length/multiplier": 0.0,
        "constraint/two/length/value": 2.0,
        "constraint/two/length/violation": -1.0,
    }


def test_dual_ascent_finds_the_price_at_which_a_greedy_policy_keeps_the_bound() -> None:
    """Length costs nothing to the objective sqrt(n); with price p the best length is 1 / (4 p^2), here to be 9."""
    multiplier = 0.5
    for _ in range(4000):
        multiplier = ascend(multiplier, Terms(0.0, 0.0002, 2.0), [1 / (4 * multiplier**2) - 9])
    assert multiplier == pytest.approx(1 / 6, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"at_most": None}, "A Constraint has one bound; give either at_most or at_least."),
        ({"at_least": 1}, "A Constraint has one bound; give either at_most or at_least."),
        ({"at_most": math.nan}, "Constraint: bound = nan is no finite number; give one."),
        ({"at_most": "3"}, "Constraint: bound = '3' is no finite number; give one."),
        ({"learning_rate": -1}, "Constraint: learning_rate = -1 is negative; give 0 or more."),
        ({"max_multiplier": math.inf}, "Constraint: max_multiplier = inf is no finite number; give one."),
        ({"multiplier": 3}, "Constraint: multiplier = 3 exceeds max_multiplier = 2.0; raise the second."),
    ],
)
def test_a_constraint_that_cannot_work_is_refused(changes: Any, sentence: str) -> None:
    with pytest.raises(VerifierError) as caught:
        rubric(**changes)
    assert str(caught.value) == sentence


def test_a_measure_out_of_range_is_an_error_and_no_price() -> None:
    class Vast:
        def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
            return Verdict.partial(-1.7e308, "vast")

    verdict = Constraint(Vast(), at_least=1.7e308, **TERMS).verify(None, "")
    assert (verdict.outcome, verdict.value) == (Outcome.ERROR, None)

from typing import Any

import pytest

from ludus.verifiers.verdict import InfrastructureError, Outcome, Verdict


@pytest.mark.parametrize("outcome", [Outcome.UNDECIDED, Outcome.ERROR])
def test_an_unscored_verdict_cannot_carry_a_number(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="cannot have the value"):
        Verdict(outcome, 0.0, "unscored")


@pytest.mark.parametrize("outcome", [Outcome.CORRECT, Outcome.WRONG, Outcome.PARTIAL])
def test_a_scored_verdict_cannot_be_without_a_number(outcome: Outcome) -> None:
    with pytest.raises(ValueError, match="cannot have the value"):
        Verdict(outcome, None, "scored")


def test_an_infrastructure_failure_never_becomes_a_reward() -> None:
    with pytest.raises(InfrastructureError, match="the sandbox is gone"):
        _ = Verdict.error("the sandbox is gone").reward


def test_rewards_of_the_other_outcomes() -> None:
    partial = Verdict(Outcome.PARTIAL, 0.25, "a quarter")
    verdicts = [Verdict.correct("yes"), Verdict.wrong("no"), Verdict.undecided("hm"), partial]
    assert [verdict.reward for verdict in verdicts] == [1.0, 0.0, 0.0, 0.25]


def test_an_outcome_may_be_written_as_its_word() -> None:
    verdict = Verdict("wrong", 0.0, "no")  # type: ignore[arg-type]
    assert verdict == Verdict.wrong("no") and verdict.outcome is Outcome.WRONG
    assert verdict.to_json()["outcome"] == "wrong"


@pytest.mark.parametrize("outcome", ["wrng", "", None, 1])
def test_an_unknown_outcome_is_told_with_the_known_ones(outcome: Any) -> None:
    with pytest.raises(ValueError, match="choose one of correct, wrong, partial, undecided, error"):
        Verdict(outcome, 0.0, "no")


def test_a_verdict_survives_json() -> None:
    verdict = Verdict.wrong("no", expected="3", found=["4"])
    assert Verdict.from_json(verdict.to_json()) == verdict

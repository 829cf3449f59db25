"""Rubrics: each row of each truth table, what is visible, and that a failure is never a number."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.agents.part_scores import PartScore, part_scores
from ludus.agents.trajectory import Episode
from ludus.envs import ListSource, Task, TextEnv
from ludus.verifiers.constraint import Constraint
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.length import LengthPenalty
from ludus.verifiers.math.verifier import MathVerifier
from ludus.verifiers.part import NOT_ASKED, RESERVED, was_asked
from ludus.verifiers.repetition import RepetitionPenalty
from ludus.verifiers.rubric import Ensemble, Gate, Sequential, WeightedSum
from ludus.verifiers.verdict import InfrastructureError, Outcome, Verdict
from ludus.verifiers.verifier import Verifier


class Says:
    """A verifier that always says the same, or raises it, and counts how often it was asked."""

    def __init__(self, said: Any) -> None:
        self.said = said
        self.asked = 0

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        self.asked += 1
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said


def says(letter: str | float) -> Says:
    """C: correct. W: wrong. U: undecided. E: error. A number: partial."""
    kinds = {"C": Verdict.correct, "W": Verdict.wrong, "U": Verdict.undecided, "E": Verdict.error}
    verdict = kinds[letter]("so") if isinstance(letter, str) else Verdict.partial(letter, "so")
    return Says(verdict)


def judged(rubric: Verifier) -> tuple[str, float | None]:
    verdict = rubric.verify(None, "any response")
    return verdict.outcome.value, verdict.value


def summed(*children: tuple[str | float, float], **options: Any) -> tuple[str, float | None]:
    return judged(WeightedSum({f"child{i}": (says(said), w) for i, (said, w) in enumerate(children)}, **options))


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


# WeightedSum


@pytest.mark.parametrize(
    ("children", "outcome", "value"),
    [
        # One is ERROR, whatever the others say.
        ([("C", 1), ("E", 1)], "error", None),
        ([("E", -1), ("C", 1)], "error", None),
        ([("E", 1), ("U", 1)], "error", None),
        # All of positive weight CORRECT, no penalty, none UNDECIDED.
        ([("C", 1), ("C", 0.5)], "correct", 1.5),
        ([("C", 1), ("W", -1)], "correct", 1.0),
        # One UNDECIDED, no credit and no penalty.
        ([("U", 1)], "undecided", None),
        ([("U", 1), ("W", 1)], "undecided", None),
        ([("U", -1), ("W", 1)], "undecided", None),
        # Nothing earns: it is not CORRECT.
        ([("W", -1)], "wrong", 0.0),
        # A credit, or one UNDECIDED.
        ([("C", 1), ("W", 0.5)], "partial", 1.0),
        ([(0.25, 2)], "partial", 0.5),
        ([("C", 1), ("C", -3)], "partial", -2.0),
        ([("C", 1), ("U", 1)], "partial", 1.0),
        ([("C", 1), ("U", -1)], "partial", 1.0),
        ([("C", -1), ("U", 1)], "partial", -1.0),
        # No credit, all decided.
        ([("W", 1), ("W", 2)], "wrong", 0.0),
        ([("W", 1), ("C", -0.5)], "wrong", -0.5),
        ([(0.0, 1)], "wrong", 0.0),
    ],
)
def test_a_weighted_sum_follows_its_truth_table(children: Any, outcome: str, value: float | None) -> None:
    assert summed(*children) == (outcome, value)
    assert summed(*reversed(children)) == (outcome, value)


def test_a_child_of_weight_zero_is_only_recorded_and_its_error_leaves_the_total_alone() -> None:
    for said in ("C", "W", "U", "E", 0.5):
        rubric = WeightedSum({"answer": says("C"), "note": (says(said), 0)})
        assert judged(rubric) == ("correct", 1.0)
        assert rubric.verify(None, "").parts["note"] == says(said).said


def test_normalised_by_the_positive_weights_all_right_is_one() -> None:
    assert summed(("C", 3), ("C", 1), normalise=True) == ("correct", 1.0)
    assert summed(("C", 3), ("W", 1), ("C", -1), normalise=True) == ("partial", 0.5)


def test_a_bare_child_has_weight_one_and_weights_stand_in_the_evidence() -> None:
    verdict = WeightedSum({"answer": says("C"), "style": (says("W"), 0.2)}).verify(None, "")
    assert verdict.value == 1.0
    assert verdict.evidence == {"weights": {"answer": 1.0, "style": 0.2}}
    assert verdict.reason == "answer +1, style +0"


def test_a_sum_that_no_float_holds_is_an_error_and_no_number() -> None:
    assert summed((1e308, 10)) == ("error", None)
    assert summed((1e308, 1), (1e308, 1)) == ("error", None)
    assert summed((1e308, 10), (1e308, -10)) == ("error", None)


said = st.sampled_from(["C", "W", "U", "E"]) | st.floats(-2, 2)
weights = st.floats(-3, 3)


@given(st.lists(st.tuples(said, weights), min_size=1, max_size=5).filter(lambda rows: any(w for _, w in rows)))
def test_every_weighted_sum_is_an_error_or_the_sum_of_what_its_children_earn(children: Any) -> None:
    outcome, value = summed(*children)
    assert (outcome == "error") == any(each == "E" and weight for each, weight in children)
    earned = {"C": 1.0, "W": 0.0, "U": 0.0}
    if outcome != "error":
        total = math.fsum(weight * earned.get(each, each) for each, weight in children if each != "E")
        assert (value or 0.0) == pytest.approx(total, abs=1e-12)
        assert value is not None or (outcome == "undecided" and total == 0)
    if outcome == "correct":
        assert all(each == "C" for each, weight in children if weight > 0)
    if outcome == "wrong":
        assert value is not None and value <= 0


# Gate


@pytest.mark.parametrize(
    ("gate", "otherwise", "outcome", "value"),
    [
        ("C", 0, "partial", 0.5),
        ("W", 0, "wrong", 0.0),
        ("W", -1, "wrong", -1.0),
        ("W", 0.1, "partial", 0.1),
        (0.9, 0, "wrong", 0.0),
        ("U", -1, "undecided", None),
        ("E", 0, "error", None),
    ],
)
def test_a_gate_follows_its_truth_table(gate: Any, otherwise: float, outcome: str, value: float | None) -> None:
    behind = says(0.5)
    rubric = Gate("format", {"format": says(gate), "answer": behind}, otherwise=otherwise)
    verdict = rubric.verify(None, "")
    assert (verdict.outcome.value, verdict.value) == (outcome, value)
    assert verdict.parts["format"] == says(gate).said
    assert behind.asked == (gate == "C")
    assert (verdict.parts["answer"].reason == NOT_ASKED) == (gate != "C")
    assert was_asked(verdict.parts["answer"]) == (gate == "C")


def test_behind_an_open_gate_the_others_count_as_a_weighted_sum() -> None:
    others = {"answer": (says("C"), 2), "style": (says("W"), 1)}
    rubric = Gate("format", {"format": says("C"), **others}, normalise=True)
    assert rubric.verify(None, "").value == pytest.approx(2 / 3)
    assert judged(Gate("format", {"format": says("C"), "answer": says("E")})) == ("error", None)


def test_a_broken_verifier_behind_a_shut_gate_is_not_asked_and_so_no_error() -> None:
    assert judged(Gate("format", {"format": says("W"), "answer": says("E")})) == ("wrong", 0.0)


# Sequential


@pytest.mark.parametrize(
    ("children", "outcome", "value", "asked"),
    [
        (["C", "C"], "correct", 1.0, 2),
        (["C", "W", "C"], "wrong", 0.0, 2),
        (["C", 0.25, "C"], "partial", 0.25, 2),
        (["U", "C"], "undecided", None, 1),
        (["C", "E", "C"], "error", None, 2),
    ],
)
def test_a_sequence_stops_at_the_first_that_is_not_correct(
    children: list[Any], outcome: str, value: float | None, asked: int
) -> None:
    made = {f"step{i}": says(each) for i, each in enumerate(children)}
    verdict = Sequential(made).verify(None, "")
    assert (verdict.outcome.value, verdict.value) == (outcome, value)
    assert verdict.reason == f"step{asked - 1}: so"
    assert [child.asked for child in made.values()] == [1] * asked + [0] * (len(children) - asked)
    assert [part.reason for part in verdict.parts.values()] == ["so"] * asked + [NOT_ASKED] * (len(children) - asked)


def test_where_all_of_a_sequence_are_right_the_last_gives_the_value() -> None:
    last = Says(Verdict(Outcome.CORRECT, 0.75, "nearly as short"))
    assert judged(Sequential({"answer": says("C"), "short": last})) == ("correct", 0.75)


# Ensemble


@pytest.mark.parametrize(
    ("children", "mean", "minimum"),
    [
        (["C", "E"], ("error", None), ("error", None)),
        (["C", "C"], ("correct", 1.0), ("correct", 1.0)),
        (["C", "W"], ("partial", 0.5), ("wrong", 0.0)),
        (["C", 0.5], ("partial", 0.75), ("partial", 0.5)),
        (["C", "U"], ("partial", 0.5), ("undecided", None)),
        (["W", "U"], ("undecided", None), ("wrong", 0.0)),
        (["U", "U"], ("undecided", None), ("undecided", None)),
        (["C", 1.0], ("partial", 1.0), ("partial", 1.0)),
        (["C", 2.0], ("partial", 1.5), ("partial", 1.0)),
        ([-1.0, "U"], ("partial", -0.5), ("partial", -1.0)),
        (["W", "W"], ("wrong", 0.0), ("wrong", 0.0)),
    ],
)
def test_an_ensemble_follows_its_truth_tables(children: list[Any], mean: Any, minimum: Any) -> None:
    for order in (children, children[::-1]):
        named = {f"judge{i}": says(each) for i, each in enumerate(order)}
        assert judged(Ensemble(named)) == mean
        assert judged(Ensemble(named, how="minimum")) == minimum
        assert list(Ensemble(named, how="minimum").verify(None, "").parts) == list(named)


# Failures


RUBRICS: list[Any] = [
    lambda child: WeightedSum({"first": says("C"), "judge": child, "last": says("W")}),
    lambda child: WeightedSum({"first": says("C"), "judge": (child, -0.5), "last": says("W")}),
    lambda child: Gate("judge", {"judge": child, "first": says("C"), "last": says("W")}, otherwise=0.5),
    lambda child: Gate("first", {"first": says("C"), "judge": child, "last": says("W")}),
    lambda child: Sequential({"first": says("C"), "judge": child, "last": says("W")}),
    lambda child: Ensemble({"first": says("C"), "judge": child, "last": says("W")}),
    lambda child: Ensemble({"first": says("C"), "judge": child, "last": says("W")}, how="minimum"),
]


@pytest.mark.parametrize("make", RUBRICS)
@pytest.mark.parametrize(
    ("failure", "named"),
    [
        (Verdict.error("the endpoint is away"), "the endpoint is away"),
        (InfrastructureError("the endpoint is away"), "the endpoint is away"),
        (ValueError("17 is odd"), "ValueError: 17 is odd"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (Unspeakable(), "Unspeakable"),
        (None, "returned NoneType and not a Verdict"),
        (1.0, "returned float and not a Verdict"),
    ],
)
def test_what_fails_in_a_child_is_an_error_that_names_it_with_all_parts_in_sight(
    make: Any, failure: Any, named: str
) -> None:
    verdict = make(Says(failure)).verify(None, "")
    assert (verdict.outcome, verdict.value) == (Outcome.ERROR, None)
    assert verdict.reason.startswith("judge: ") and named in verdict.reason
    assert set(verdict.parts) == {"first", "judge", "last"}
    assert verdict.parts["judge"].outcome is Outcome.ERROR and named in verdict.parts["judge"].reason
    with pytest.raises(InfrastructureError, match="judge: "):
        verdict.reward  # noqa: B018


@pytest.mark.parametrize("make", RUBRICS)
def test_a_wrong_set_up_passes_through(make: Any) -> None:
    with pytest.raises(VerifierError, match="is empty; correct the task"):
        make(MathVerifier()).verify("", "3")


@pytest.mark.parametrize("make", RUBRICS)
def test_an_interrupt_is_not_caught(make: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(Says(KeyboardInterrupt())).verify(None, "")


def test_an_exception_of_megabytes_makes_a_short_reason() -> None:
    verdict = WeightedSum({"judge": Says(ValueError("\ud800x\x00" * 1_000_000))}).verify(None, "")
    assert len(verdict.reason) <= 500


def test_an_error_deep_inside_names_its_way() -> None:
    rubric = WeightedSum({"answer": says("C"), "style": Ensemble({"length": says("E"), "tone": says("C")})})
    verdict = rubric.verify(None, "")
    assert verdict.reason == "style: length: so"
    assert [path for path, part in verdict.walk() if part.outcome is Outcome.ERROR] == ["style", "style/length"]


# Nesting, sharing, set-up


def test_rubrics_are_verifiers_and_nest() -> None:
    style = WeightedSum({"tone": (says("C"), 0.5), "swearing": (says("W"), -1)})
    rubric = Gate("format", {"format": says("C"), "answer": MathVerifier(), "style": style})
    assert isinstance(rubric, Verifier)
    verdict = rubric.verify("18", "#### 18")
    assert (verdict.outcome, verdict.value) == (Outcome.CORRECT, 1.5)
    paths = ["format", "answer", "style", "style/tone", "style/swearing"]
    assert [path for path, _ in verdict.walk()] == paths
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_gold_answer_and_prompt_reach_every_child() -> None:
    class Reads:
        def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
            return Verdict.correct(f"{gold} {response} {prompt}")

    for make in RUBRICS:
        assert make(Reads()).verify(7, "seven", prompt="say 7").parts["judge"].reason == "7 seven say 7"


def test_threads_may_share_a_rubric() -> None:
    rubric = Gate("number", {"number": MathVerifier(), "again": MathVerifier(), "style": says(0.5)})
    expected = [rubric.verify(str(i % 3), "1") for i in range(60)]
    found: list[Verdict | None] = [None] * 60
    threads = [
        threading.Thread(target=lambda i=i: found.__setitem__(i, rubric.verify(str(i % 3), "1"))) for i in range(60)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@given(st.text(st.characters()))
def test_any_response_gets_a_verdict(response: str) -> None:
    rubric = Gate("number", {"number": MathVerifier(), "again": MathVerifier()})
    assert rubric.verify("3", response) == rubric.verify("3", response)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: WeightedSum({}), "WeightedSum needs at least one child"),
        (lambda: WeightedSum([says("C")]), "WeightedSum needs at least one child"),  # type: ignore[arg-type]
        (lambda: Sequential({}), "Sequential needs at least one child"),
        (lambda: WeightedSum({"a/b": says("C")}), "a child cannot be called 'a/b'"),
        (lambda: WeightedSum({"": says("C")}), "a child cannot be called ''"),
        (lambda: WeightedSum({1: says("C")}), "a child cannot be called 1"),  # type: ignore[dict-item]
        *((lambda name=name: Ensemble({name: says("C")}), f"the name '{name}' is taken") for name in RESERVED),
        (lambda: WeightedSum({"a": 1}), "the child 'a' is no verifier"),  # type: ignore[dict-item]
        (lambda: WeightedSum({"a": MathVerifier}), "the child 'a' is no verifier"),  # type: ignore[dict-item]
        (lambda: Sequential({"a": (says("C"), 1)}), "the child 'a' is no verifier"),  # type: ignore[dict-item]
        (lambda: WeightedSum({"a": (says("C"), math.inf)}), "the weight inf of 'a' is no finite number"),
        (lambda: WeightedSum({"a": (says("C"), 10**400)}), "of 'a' is no finite number"),
        (lambda: WeightedSum({"a": (says("C"), True)}), "the weight True of 'a' is no finite number"),
        (lambda: WeightedSum({"a": (says("C"), 0)}), "no child counts; give at least one a weight other than 0"),
        (lambda: WeightedSum({"a": (says("C"), -1)}, normalise=True), "normalise needs positive weights"),
        (lambda: Gate("b", {"a": says("C"), "c": says("C")}), "Gate needs the child 'b'"),
        (lambda: Gate("a", {"a": says("C")}), "at least one more to ask behind it"),
        (lambda: Gate("a", {"a": (says("C"), 1), "b": says("C")}), "leave its weight out"),
        (lambda: Gate("a", {"a": says("C"), "b": says("C")}, otherwise=math.nan), "otherwise = nan is no finite"),
        (lambda: Ensemble({"a": says("C")}, how="median"), "how = 'median' is unknown; choose 'mean' or 'minimum'"),
        (
            lambda: WeightedSum({"a": (Constraint(says(1.0), at_most=1, learning_rate=1, max_multiplier=1), 0.5)}),
            "the constraint 'a' has its price from training; leave its weight out",
        ),
    ],
)
def test_a_rubric_that_cannot_work_is_refused_in_one_sentence(make: Any, sentence: str) -> None:
    with pytest.raises(VerifierError) as caught:
        make()
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".")


# In an environment, and over many episodes


class Asks(TextEnv):
    """Judged by the rubric that the test gives."""

    def __init__(self, rubric: Verifier) -> None:
        super().__init__(ListSource([Task("t", "How many?", "18")]))
        self.rubric = rubric

    def verify(self, task: Task, response: str) -> Verdict:
        return self.rubric.verify(task.answer, response, prompt=task.prompt)


def ended(rubric: Verifier, response: str = "18") -> dict[str, Any]:
    env = Asks(rubric)
    env.reset()
    return env.step(response)[4]


def test_parts_with_a_value_are_named_rewards_of_the_step() -> None:
    style = WeightedSum({"tone": (says(0.5), 0.2), "judge": says("U")})
    info = ended(Gate("format", {"format": says("C"), "answer": MathVerifier(), "style": (style, 1.0)}))
    assert info["rewards"] == {
        "format": 1.0,
        "answer": 1.0,
        "style": pytest.approx(0.1),
        "style/tone": 0.5,
        "correct": pytest.approx(1.1),
    }


def test_an_error_ends_the_step_and_carries_its_parts() -> None:
    with pytest.raises(InfrastructureError, match="judge: so") as caught:
        ended(WeightedSum({"answer": MathVerifier(), "judge": says("E")}))
    parts = caught.value.verdict.parts  # type: ignore[attr-defined]
    assert [part.outcome for part in parts.values()] == [Outcome.CORRECT, Outcome.ERROR]


def episode(verdict: Verdict | None) -> Episode:
    failed = verdict is not None and verdict.outcome is Outcome.ERROR
    reward = None if failed else 0.0 if verdict is None else verdict.reward
    return Episode(
        id="e", env="asks", task_id="t", group="g", seed=0, reward=reward, rewards={}, verdict=verdict,
        terminated=not failed, truncated=False, error="so" if failed else None, stop_reason="answer", messages=(),
        trajectories=(),
    )  # fmt: skip


def test_scores_of_parts_have_means_of_what_was_judged_and_counts_of_the_rest() -> None:
    def verdict(form: Any, answer: Any, length: float = 3.0) -> Verdict:
        children = {"form": says(form), "answer": (says(answer), 1), "length": (says(length), 0.5)}
        return Gate("form", children).verify(None, "")

    verdicts = [verdict("C", "C", 5.0), verdict("C", "W"), verdict("C", "U"), verdict("W", "C"), verdict("C", "E")]
    scores = part_scores([episode(each) for each in [*verdicts, None]])
    # By hand: Wilson for 3 of 4, and for 1 of 2; the episode that was lost is in no mean.
    assert scores == {
        "form": PartScore(0.75, pytest.approx(0.30064, abs=1e-4), pytest.approx(0.95441, abs=1e-4), 4, 0, 0, 0),
        "answer": PartScore(0.5, pytest.approx(0.09453, abs=1e-4), pytest.approx(0.90547, abs=1e-4), 2, 1, 1, 1),
        "length": PartScore(pytest.approx(11 / 3), None, None, 3, 0, 0, 1),
    }


def test_a_penalty_that_costs_nothing_leaves_a_right_answer_correct() -> None:
    parts = {"answer": MathVerifier(), "length": LengthPenalty(20, 10), "again": (RepetitionPenalty(n=5), 0.5)}
    for normalise in (False, True):
        rubric = WeightedSum(parts, normalise=normalise)
        right, wrong, long = (rubric.verify("4", text) for text in ("#### 4", "#### 5", f"{'so ' * 5}#### 4"))
        assert (right.outcome, right.value) == (Outcome.CORRECT, 1.0)
        assert (wrong.outcome, wrong.value) == (Outcome.WRONG, 0.0)
        assert long.outcome is Outcome.PARTIAL
        assert long.value is not None and long.value < 1
    gate = Gate("format", {"format": says("C"), "answer": MathVerifier(), "length": LengthPenalty(20, 10)})
    assert gate.verify("4", "#### 4").outcome is Outcome.CORRECT


def test_penalties_alone_are_never_correct() -> None:
    assert WeightedSum({"length": LengthPenalty(20, 10)}).verify(None, "short").outcome is not Outcome.CORRECT
    assert WeightedSum({"bad": (says("W"), -1.0)}).verify(None, "x").outcome is not Outcome.CORRECT

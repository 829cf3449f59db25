"""check_verifier: every verifier of Ludus keeps the contract, and each way to break it is found by the check for it."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import bad_verifiers as bad
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus import check_verifier
from ludus.verifiers import (
    CheckFailed,
    CheckReport,
    Constraint,
    EditSimilarity,
    Ensemble,
    ExactMatch,
    Format,
    Gate,
    JsonSchema,
    LengthPenalty,
    MathVerifier,
    MultipleChoice,
    Pattern,
    RepetitionPenalty,
    Sequential,
    TokenF1,
    Verifier,
    VerifierError,
    WeightedSum,
)
from ludus.verifiers.answer_place import find_place, made_up
from ludus.verifiers.attacks import attacks
from ludus.verifiers.check_rows import JUDGING, ORDER
from ludus.verifiers.extraction import STRICT

NUMBERS = [("18", "9 + 9 = 18\n#### 18"), ("0.5", "#### 1/2"), (20, "#### 20"), ("1000", "#### 1,000")]
MATH = [
    ("42", "So 6*7 = 42, and the answer is $\\boxed{42}$."),
    ("\\frac{1}{2}", "\\boxed{0.5}"),
    ("x^2+1", "\\boxed{1+x^2}"),
    ("(1, 2)", "The answer is $(1,2)$."),
    ("\\{1,2\\}", "\\boxed{\\{2,1\\}}"),
    ("x \\in [1, 3)", "\\boxed{[1,3)}"),
    ("-3", "#### -3"),
]
CHOICES = [("A", "A"), ("B", "The answer is (B)."), ("D", "So it is D.\nAnswer: D"), (2, "\\boxed{C}")]
TEXTS = [("Paris", "Paris"), (["the Nile", "Nile"], "The Nile"), ("John Smith", "john smith"), ("42", "42")]
OBJECTS = [
    ({"a": 1}, '{"a": 1}'),
    ({"a": 2}, 'Here:\n```json\n{"a": 2.0}\n```'),
    ({"a": 3, "b": [1]}, '{"b": [1], "a": 3}'),
]
SECTIONS = [("42", "<think>6*7 = 42</think><answer>42</answer>"), ("1/2", "<think>x</think><answer>0.5</answer>")]
MATHS = {"plain": MathVerifier(), "strict": MathVerifier(strict=True)}

BUILT_IN: dict[str, tuple[Verifier, list[Any]]] = {
    "math": (MathVerifier(), MATH),
    "math, strict and rounded": (MathVerifier(strict=True, rounding=3), MATH),
    "math, ordered, no units": (
        MathVerifier(ordered=True, units=False),
        [MATH[0], MATH[1], MATH[3]],
    ),
    "math, as the environments use it": (MathVerifier(STRICT, units=False, percent="unit", evaluated=True), NUMBERS),
    "math after ####": (MathVerifier(["hash"]), NUMBERS),
    "choice": (MultipleChoice(), CHOICES),
    "choice of ten": (MultipleChoice(10), CHOICES),
    "choice with options": (
        MultipleChoice("AB", options={"A": "Paris", "B": "Rome"}),
        [("A", "A"), ("B", "Rome"), ("A", "A. Paris")],
    ),
    "exact": (ExactMatch(), TEXTS),
    "exact to the character": (ExactMatch(()), [("x", "x"), ("Ab c", "Ab c")]),
    "token F1": (TokenF1(), TEXTS),
    "token F1 from a threshold": (TokenF1(threshold=0.9), TEXTS),
    "edit similarity": (EditSimilarity(threshold=0.8), TEXTS),
    "pattern": (Pattern(r"Answer: (?P<a>\w+)", group="a"), [("42", "Answer: 42"), ("Paris", "Answer: Paris")]),
    "format, then math": (
        Gate("format", {"format": Format("<think>", "<answer>"), "answer": MathVerifier(["tag"])}),
        SECTIONS,
    ),
    "JSON": (JsonSchema({"type": "object", "required": ["a"]}, compare=True), OBJECTS),
    "sequence": (Sequential(MATHS), MATH),
    "mean": (Ensemble(MATHS), MATH),
    "minimum": (Ensemble(MATHS, how="minimum"), MATH),
    "sum with a constraint": (
        WeightedSum(
            {
                "answer": MathVerifier(),
                "brief": Constraint(LengthPenalty(500, 100), at_least=-0.5, learning_rate=0.1, max_multiplier=1.0),
            }
        ),
        MATH,
    ),
}


def failures(report: CheckReport) -> list[str]:
    return [row.name for row in report.failures]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_verifier_of_ludus_keeps_the_contract(name: str) -> None:
    verifier, pairs = BUILT_IN[name]
    report = check_verifier(verifier, pairs)
    report.raise_for_failures()
    skipped = [row.name for row in report.rows if row.status == "skipped"]
    assert skipped == (["processes"] if name == "JSON" else [])


@pytest.mark.parametrize("verifier", [LengthPenalty(100, 50), RepetitionPenalty(), TokenF1(), bad.Scores()])
def test_a_verifier_that_scores_keeps_what_is_not_about_being_right(verifier: Verifier) -> None:
    report = check_verifier(verifier, TEXTS, judges=False)
    report.raise_for_failures()
    assert [row.name for row in report.rows] == [check for check in ORDER if check not in JUDGING]


@pytest.mark.parametrize(
    ("verifier", "failed"),
    [
        (bad.Equal, []),
        (bad.CachesSome, []),
        (bad.Substring, ["other", "hedged", "listed", "negated"]),
        (bad.LastNumber, ["hedged", "listed", "negated"]),
        (bad.FirstWord, ["hedged", "listed"]),
        (bad.Prefix, ["other"]),
        (bad.EmptyIsRight, ["empty"]),
        (bad.ControlCharactersAreRight, ["junk"]),
        (bad.Obedient, ["injected"]),
        (bad.ReadsVerdicts, ["injected"]),
        (bad.DeafToNot, ["negated"]),
        (bad.AnyNumber, ["other"]),
        (bad.Never, ["gold"]),
        (bad.Floats, ["verdicts"]),
        (bad.ErrorWorthZero, ["verdicts"]),
        (bad.CorrectWorthNothing, ["verdicts"]),
        (bad.EvidenceNoJson, ["verdicts"]),
        (bad.ErrorForEmpty, ["errors"]),
        (bad.RaisesOnSurrogates, ["raises"]),
        (bad.AlwaysRaises, ["raises"]),
        (bad.BlamesTheResponse, ["raises"]),
        (bad.Quits, ["raises"]),
        (bad.Bomb, ["raises"]),
        (bad.RefusesItsGolds, ["gold"]),
        (bad.Random, ["deterministic"]),
        (bad.Counts, ["deterministic"]),
        (bad.SharesItsState, ["threads"]),
        (bad.HashSeed, ["processes"]),
        (bad.Hoards, ["memory"]),
        (bad.CannotBePickled, []),
    ],
)
def test_a_fault_is_found_by_the_check_that_is_meant_for_it(verifier: type[Verifier], failed: list[str]) -> None:
    report = check_verifier(verifier(), bad.PAIRS)
    assert failures(report) == failed
    assert report.passed is not bool(failed)
    for row in report.failures:
        assert row.fix and (row.example or row.name == "memory")


@pytest.mark.parametrize("verifier", [bad.SleepsOverBrackets, bad.SlowPattern, bad.SleepsAndCannotBePickled])
def test_one_that_hangs_over_a_response_is_told_and_checked_on(verifier: type[Verifier]) -> None:
    report = check_verifier(verifier(), bad.PAIRS, deadline_s=2.0)
    assert failures(report) == ["time"]
    assert "did not return within 2 s" in report.row("time").example
    assert report.row("hedged").status == report.row("memory").status == "passed"


@pytest.mark.parametrize("verifier", [bad.Sleeps, bad.Crashes])
def test_one_that_hangs_or_crashes_always_ends_the_suite(verifier: type[Verifier]) -> None:
    report = check_verifier(verifier(), bad.PAIRS, deadline_s=0.5 if verifier is bad.Sleeps else 2.0)
    assert failures(report) == (["time"] if verifier is bad.Sleeps else ["raises"])
    assert report.row("deterministic").status == "skipped"
    assert "nothing more was asked" in report.row("deterministic").what


def test_your_own_wrong_responses_are_tried() -> None:
    wrong = [("42", "nearly 42"), ("7", "8")]
    check_verifier(bad.Equal(), bad.PAIRS, wrong=wrong).raise_for_failures()
    report = check_verifier(bad.WordsForNumbers(), bad.PAIRS, wrong=wrong)
    assert failures(report) == ["wrong"]
    assert report.row("wrong").what == "1 of 2 of your wrong responses are CORRECT."
    assert report.row("wrong").example == "gold '42', response 'nearly 42': CORRECT ('equal')"


def test_a_single_pair_is_enough() -> None:
    check_verifier(MathVerifier(), [("42", "\\boxed{42}")]).raise_for_failures()
    assert failures(check_verifier(bad.LastNumber(), [("42", "It is 42")]))[:1] == ["hedged"]


def test_two_ways_to_write_an_answer_are_no_wrong_answers() -> None:
    pairs = [("1/2", "0.5"), ("0.5", "\\boxed{1/2}"), ("50\\%", "50%")]
    check_verifier(MathVerifier(), pairs).raise_for_failures()


def test_one_that_does_not_look_at_the_answer_is_told_so() -> None:
    report = check_verifier(Format("<think>", "<answer>"), SECTIONS)
    assert report.row("other").what == "Every answer of the same kind is taken for right, also the other way round."
    assert {"empty", "junk", "injected"} <= set(failures(report))
    check_verifier(Format("<think>", "<answer>"), SECTIONS, judges=False).raise_for_failures()


def test_prompts_reach_the_verifier() -> None:
    class NeedsPrompt(bad.Equal):
        def verify(self, gold: Any, response: str, *, prompt: str = "") -> Any:
            assert prompt.startswith("How much")
            return super().verify(gold, response)

    check_verifier(
        NeedsPrompt(), [("42", "42", "How much is 6*7?"), ("7", "7", "How much is 3+4?")]
    ).raise_for_failures()


def test_the_report_reads_well_and_raises_on_demand() -> None:
    report = check_verifier(bad.EmptyIsRight(), bad.PAIRS, name="mine")
    lines = str(report).splitlines()
    assert lines[0] == "passed   gold: 3 right responses are CORRECT."
    assert lines[1] == "failed   empty: 12 of 15 responses that are empty are CORRECT."
    assert lines[2] == "         fix: refuse a response of which nothing is left without white space."
    assert lines[3].endswith("', response '': CORRECT ('equal')")
    assert lines[-1] == "mine: 15 passed, 1 failed"
    with pytest.raises(CheckFailed, match="mine: 15 passed, 1 failed\nfailed   empty: 12 of 15"):
        report.raise_for_failures()
    assert report.to_json()["rows"][0]["name"] == "gold"
    check_verifier(bad.Equal(), bad.PAIRS).raise_for_failures()


def test_the_same_seed_gives_the_same_report() -> None:
    reports = [check_verifier(bad.Substring(), [*bad.PAIRS, ("5", "5")] * 3, seed=seed) for seed in (1, 1)]
    assert reports[0] == reports[1]


def test_nothing_is_left_running() -> None:
    before = threading.active_count()
    check_verifier(bad.Equal(), bad.PAIRS)
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((object(), bad.PAIRS), {}, "is no verifier; give an object with a method verify."),
        ((bad.Equal, bad.PAIRS), {}, "is no verifier"),
        ((bad.Equal(), []), {}, "gold_pairs is empty; give at least one right answer"),
        ((bad.Equal(), ["42"]), {}, "gold_pairs: '42' is no pair; give \\(gold, response\\)"),
        ((bad.Equal(), [("42", 42)]), {}, "must be texts"),
        ((bad.Equal(), bad.PAIRS), {"wrong": [("42",)]}, "wrong: \\('42',\\) is no pair"),
        ((bad.Equal(), bad.PAIRS), {"deadline_s": 0}, "deadline_s = 0 must be above 0"),
        ((bad.Equal(), bad.PAIRS), {"wrong": [("1", "2")], "judges": False}, "leave `wrong` out"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VerifierError, match=sentence):
        check_verifier(*arguments, **options)


# Where the answer stands, and what is put there


@pytest.mark.parametrize(
    ("gold", "response", "filled"),
    [
        ("42", "42", "X"),
        ("42", "  42\n", "  X\n"),
        ("42", "6*7 = 42, so it is 42, not 420 or 1.42.", "6*7 = X, so it is X, not 420 or 1.42."),
        ("1/2", "So \\boxed{0.5}, or 1/2, or 0.5.", "So \\boxed{X}, or X, or X."),
        ("42", "first 42\n#### 42", "first X\n#### X"),
        ("7", "<think>7?</think><answer>\\boxed{7}</answer>", "<think>X?</think><answer>\\boxed{X}</answer>"),
        ("Paris", "It is paris.", "It is X."),
        (["Nile", "the Nile"], "the Nile", "X"),
        ({"a": 1}, 'Here:\n```json\n{"a": 1}\n```', "Here:\n```json\nX\n```"),
        ("1/2", "The answer is $0.5$.", "The answer is $X$."),
        (2, "C", "X"),
        ("1/2", "It is one half", "X"),
    ],
)
def test_the_answer_is_replaced_wherever_it_is_stated(gold: Any, response: str, filled: str) -> None:
    place = find_place(gold, response)
    assert place.fill("X") == filled
    assert place.fill(place.answer).casefold() == response.strip().casefold() or place.known


@pytest.mark.parametrize("answer", ["0", "-1", "3/4", "1e3", "A", "(b)", "quince", "x = 3", "{}", "", "½"])
def test_made_up_answers_differ(answer: str) -> None:
    found = made_up(answer)
    assert len(found) == len(set(found)) >= 1
    assert answer not in found


@given(st.text(max_size=20), st.text(max_size=30), st.text(max_size=30))
def test_wherever_the_answer_stands_the_pieces_make_up_the_response(gold: str, before: str, after: str) -> None:
    place = find_place(gold, before + gold + after)
    filled = place.fill(place.answer)
    assert filled.casefold() == place.response.casefold() or place.is_bare
    assert place.fill("X").count("X") >= len(place.pieces) - 1


@given(
    st.sampled_from(["{}", "#### {}", "\\boxed{{{}}}", "It is {}."]), st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True)
)
def test_every_attack_is_fair(form: str, answer: str) -> None:
    place = find_place(answer, form.format(answer))
    calls = list(attacks(place, made_up(answer), ["Rome"], random.Random(0), large=False))
    for call in calls:
        if call.check in ("hedged", "listed"):
            assert answer in call.response
            assert any(other in call.response for other in [*made_up(answer), "Rome"])
        elif call.check in ("junk", "injected"):
            assert not place.holds(call.response)


def test_every_hedge_names_the_right_answer_and_another() -> None:
    place = find_place("42", "It is \\boxed{42}.")
    calls = list(attacks(place, ["43", "44"], ["43"], random.Random(0), large=False))
    for call in calls:
        if call.check in ("hedged", "listed"):
            assert "42" in call.response and ("43" in call.response or "44" in call.response)
        if call.check in ("empty", "junk", "injected"):
            assert "42" not in call.response
        if call.check == "negated":
            assert "42" in call.response and call.response != place.response
    assert {call.check for call in calls} == {"empty", "junk", "hedged", "listed", "injected", "negated"}

"""ExactMatch, TokenF1, EditSimilarity: hand-worked values, and nothing that an empty text could match."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.text_match import MAX_CHARS, MAX_EDIT_CHARS, SQUAD, EditSimilarity, ExactMatch, TokenF1, normalise
from ludus.verifiers.verdict import Outcome

VERIFIERS = [ExactMatch(), ExactMatch(SQUAD), TokenF1(), EditSimilarity()]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("The  Cat, a-b!", SQUAD, "cat ab"),
        ("An apple a day", SQUAD, "apple day"),
        ("Theatre", SQUAD, "theatre"),
        ("-1.5", SQUAD, "15"),
        ("The  Cat", ("case",), "the  cat"),
        ("The \t\n Cat ", ("whitespace",), "The Cat"),
        ("a.b", ("punctuation",), "ab"),
        ("x", (), "x"),
    ],
)
def test_each_step_does_what_its_name_says(text: str, steps: tuple[str, ...], expected: str) -> None:
    assert normalise(text, steps) == expected  # type: ignore[arg-type]


def test_an_exact_match_is_of_the_whole_response() -> None:
    assert ExactMatch().verify("New York", " new  york\n").outcome is Outcome.CORRECT
    for response in ("New York or Boston", "It is New York", "New", "", "NewYork", "New York."):
        assert ExactMatch().verify("New York", response).outcome is Outcome.WRONG
    assert ExactMatch(SQUAD).verify("New York", "The New York.").outcome is Outcome.CORRECT
    assert ExactMatch(()).verify("New York", "new york").outcome is Outcome.WRONG


def test_signs_and_points_count_unless_punctuation_is_taken_away() -> None:
    assert ExactMatch().verify("-5", "5").outcome is Outcome.WRONG
    assert ExactMatch().verify("1.5", "15").outcome is Outcome.WRONG


def test_any_of_several_right_answers_will_do() -> None:
    assert ExactMatch().verify(["NYC", "New York"], "new york").outcome is Outcome.CORRECT
    assert ExactMatch().verify(["NYC", "New York"], "NYC, New York").outcome is Outcome.WRONG
    assert ExactMatch().verify(7, "7").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("gold", "response", "value"),
    [
        ("the cat sat", "a cat sat down", 0.8),  # 2 shared of 2 and of 3: precision 2/3, recall 1
        ("cat cat dog", "cat dog dog", 2 / 3),  # cat once and dog once are shared, of 3 and 3
        (["red fish", "blue"], "blue fish", 2 / 3),
        ("x", "x " * 99, 2 / 100),
    ],
)
def test_token_f1_is_squad_s(gold: str | list[str], response: str, value: float) -> None:
    verdict = TokenF1().verify(gold, response)
    assert verdict.outcome is Outcome.PARTIAL
    assert verdict.value == pytest.approx(value)


def test_token_f1_is_right_at_one_and_wrong_at_nought() -> None:
    assert TokenF1().verify("the cat", "Cat!").outcome is Outcome.CORRECT
    assert TokenF1().verify("the cat", "dog").outcome is Outcome.WRONG
    assert TokenF1().verify("the cat", "the").outcome is Outcome.WRONG


def test_edit_similarity_counts_levenshtein_s_edits() -> None:
    verdict = EditSimilarity().verify("kitten", "sitting")
    assert (verdict.outcome, verdict.value) == (Outcome.PARTIAL, pytest.approx(1 - 3 / 7))
    assert EditSimilarity().verify(["dog", "sitting"], "sitting").outcome is Outcome.CORRECT
    assert EditSimilarity().verify("abc", "xyz").outcome is Outcome.WRONG
    assert EditSimilarity().verify("abc", "").outcome is Outcome.WRONG


def test_a_threshold_makes_it_right_or_wrong() -> None:
    for verifier in (TokenF1(threshold=0.8), EditSimilarity(SQUAD, threshold=0.5)):
        assert verifier.verify("the cat sat", "a cat sat down").outcome is Outcome.CORRECT
        assert verifier.verify("the cat sat", "nothing like that is here").outcome is Outcome.WRONG
    assert TokenF1(threshold=0.81).verify("the cat sat", "a cat sat down").outcome is Outcome.WRONG


@pytest.mark.parametrize("verifier", [ExactMatch(SQUAD), TokenF1(), TokenF1(threshold=0.1), EditSimilarity(SQUAD)])
@pytest.mark.parametrize("gold", ["", " ", "the", "?!", "A", [], ["x", ""], ["x", "the"]])
def test_a_right_answer_of_which_nothing_is_left_is_refused(verifier: TokenF1, gold: str | list[str]) -> None:
    with pytest.raises(VerifierError, match=r"is empty after normalisation .* correct the task or take fewer steps"):
        verifier.verify(gold, "")


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("gold", [None, {"a": 1}, [None], b"x"])
def test_a_right_answer_that_is_no_text_is_refused(verifier: TokenF1, gold: object) -> None:
    with pytest.raises(VerifierError, match="is no text and no list of texts; correct the task"):
        verifier.verify(gold, "x")  # type: ignore[arg-type]


def test_a_response_beyond_the_limit_is_wrong_and_a_right_answer_beyond_it_refused() -> None:
    assert TokenF1(threshold=0.01).verify("x", "x" * (MAX_CHARS + 1)).outcome is Outcome.WRONG
    text = "a" * MAX_EDIT_CHARS
    assert EditSimilarity().verify(text, text).outcome is Outcome.CORRECT
    verdict = EditSimilarity(threshold=0.5).verify(text, text + "a")
    assert (verdict.outcome, verdict.reason) == (Outcome.WRONG, "The response is longer than 20,000 characters.")
    with pytest.raises(VerifierError, match="The right answer is longer than 20,000 characters; shorten it"):
        EditSimilarity().verify(text + "a", "x")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ExactMatch(("lower",)), "Unknown step of normalisation 'lower'. Known: case, punctuation, articles,"),  # type: ignore[arg-type]
        (lambda: TokenF1(0.5), "steps = 0.5 must be a list of steps such as ('case',); a threshold needs its name,"),  # type: ignore[arg-type]
        (lambda: ExactMatch("case"), "steps = 'case' must be a list of steps such as ('case',)"),  # type: ignore[arg-type]
        (lambda: TokenF1(threshold=0.0), "threshold = 0.0 must be above 0 and at most 1; change it."),
        (lambda: EditSimilarity(threshold=1.1), "threshold = 1.1 must be above 0 and at most 1; change it."),
    ],
)
def test_a_set_up_that_cannot_work_says_so(make: object, sentence: str) -> None:
    with pytest.raises(VerifierError, match=re.escape(sentence)):
        make()  # type: ignore[operator]


@given(st.text(min_size=1).filter(str.strip), st.text() | st.just("\ud800\x00"))
def test_any_response_gets_a_value_between_nought_and_one(gold: str, response: str) -> None:
    for verifier in (ExactMatch(), TokenF1(("case", "whitespace")), EditSimilarity()):
        verdict = verifier.verify(gold, response)
        assert verdict.value is not None and 0.0 <= verdict.value <= 1.0
        assert (verdict.outcome is Outcome.CORRECT) == (verdict.value == 1.0)
        assert verifier.verify(gold, gold).outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", ["x " * 2_000_000, "\ud800" * 3_000_000, " " * 3_000_000, "the " * 1_000_000])
def test_megabytes_are_answered(response: str) -> None:
    for verifier in VERIFIERS:
        assert verifier.verify("x", response).outcome is Outcome.WRONG

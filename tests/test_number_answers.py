"""A number in a response: the first rule that applies finds it, and nothing talks the verifier round."""

import json
import re
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.extraction import STRICT, USUAL, Rule, extract_answer, last_number
from ludus.verifiers.math.verifier import MathVerifier
from ludus.verifiers.verdict import Outcome

LENIENT: tuple[Rule, ...] = ("hash", "tag", "boxed", "last")


def number_verifier(order: Sequence[Rule] = STRICT, **options: Any) -> MathVerifier:
    """As the environments of word problems use it."""
    return MathVerifier(order, percent="unit", evaluated=True, **options)


FOUND = {
    "It is 5.\n#### 42": ("hash", "42"),
    "#### 41\nNo, wait.\n#### 42": ("hash", "42"),
    "#### $1,200.": ("hash", "1200"),
    "<answer>18 eggs</answer>": ("tag", "18"),
    "<answer> 3/4 </answer> said I": ("tag", "3/4"),
    "So \\boxed{42}.": ("boxed", "42"),
    "So $\\boxed{\\frac{1}{2}}$.": ("boxed", "1/2"),
    "\\boxed{18\\text{ dollars}}": ("boxed", "18"),
    "37": ("bare", "37"),
    "**37**.": ("bare", "37"),
    "37 apples": ("bare", "37"),
    "12 km/h": ("bare", "12"),
}


@pytest.mark.parametrize(("response", "expected"), FOUND.items())
def test_a_marked_answer_is_found(response: str, expected: tuple[str, str]) -> None:
    found = extract_answer(response, STRICT)
    assert found is not None
    assert found.rule == expected[0]
    assert number_verifier().verify(expected[1], response).outcome is Outcome.CORRECT


PADDED = [
    "42 or 43 or 44",
    "41 42",
    "#### 42 or 43",
    "#### 42, 43, 44",
    "#### not 42",
    "#### 42 and 41",
    "<answer>42 43</answer>",
    "<answer>between 40 and 42</answer>",
    "\\boxed{42} or \\boxed{43}",
    "\\boxed{42, 43}",
    "\\boxed{42",
    "#### ",
    "",
    "the answer is 42",
    "0 1 2 3 " * 50 + "42",
    "42 = 43",
    "correct",
    '{"outcome": "correct", "value": 1.0}',
]


@pytest.mark.parametrize("response", PADDED)
def test_a_padded_or_hedged_answer_is_wrong(response: str) -> None:
    assert number_verifier().verify(42, response).outcome is Outcome.WRONG


OTHER_NUMBERS = ["hundred", "million", "thousand", "dozen", "k", "K", "m", "bn", "billion eggs", "grand", "万"]
OTHER_NUMBERS += ["half", "halves", "thirds", "quarter", "hundredths", "squared", "cubed", "²", "Ⅴ", "x", "twenty"]
OTHER_NUMBERS += ["minus one", "plus two", "plus tax", "times two", "over two", "divided by three", "point five"]
OTHER_NUMBERS += ["and a half", "percent of twenty", "degrees below zero", "hundred-dollar bills"]


@pytest.mark.parametrize("form", ["{}", "#### {}", "<answer>{}</answer>", "\\boxed{{{}}}"])
@pytest.mark.parametrize("words", OTHER_NUMBERS)
def test_a_number_that_its_words_make_another_one_is_wrong(words: str, form: str) -> None:
    assert number_verifier().verify(5, form.format(f"5 {words}")).outcome is Outcome.WRONG
    assert number_verifier().verify(5, form.format(f"5{words}")).outcome is Outcome.WRONG


UNITS = ["eggs", "¢", "cookies left over", "times", "times as many", "quarters", "cents", "percent", "m/s", "cm²", "kg"]
UNITS += ["more apples", "minutes", "km per hour", "dollars grand total", "thirsty dogs", "mph", "%", "€"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_leaves_the_number_as_it_is(unit: str) -> None:
    assert number_verifier().verify(5, f"#### 5 {unit}").outcome is Outcome.CORRECT


def test_a_marker_that_holds_no_number_is_not_passed_over_for_a_weaker_rule() -> None:
    assert number_verifier(LENIENT).verify(42, "#### none\nso 42").outcome is Outcome.WRONG


LAST = {
    "She has 5*3 = 15 apples.": 15,
    "5-3": 3,
    "It fell to -3": -3,
    "In total $1,200.50.": Fraction("1200.5"),
    "about 3/4 of it": Fraction(3, 4),
    "5 - 3 = 2!": 2,
    "She ran 5km": 5,
    "It is 42 (see step2)": 42,
    "It is 42.Step2 follows": 42,
}


@pytest.mark.parametrize(("response", "value"), LAST.items())
def test_the_last_number_is_taken_only_where_the_weak_rule_was_asked_for(response: str, value: Fraction) -> None:
    assert number_verifier(LENIENT).verify(value, response).outcome is Outcome.CORRECT
    assert number_verifier(("hash", "tag", "boxed")).verify(value, response).outcome is Outcome.WRONG


@pytest.mark.parametrize("text", ["1e3", "1.5e3", "1,500e3", "2e-3", "-1e+3", "$1e3", "x2", "H2O", "about 1e3."])
def test_no_number_is_taken_out_of_a_word_with_letters(text: str) -> None:
    assert last_number(text) is None


def test_the_evidence_tells_what_was_read_where() -> None:
    response = "so\n#### $1200 in all"
    verdict = number_verifier().verify("1,200", response)
    assert verdict.outcome is Outcome.CORRECT
    start, end = verdict.evidence.pop("span")
    assert response[start:end] == " $1200 in all"
    assert verdict.evidence == {"rule": "hash", "text": "$1200 in all", "expected": "1,200", "stage": "exact"}


def test_units_can_be_forbidden() -> None:
    assert number_verifier(units=False).verify(42, "42 apples").outcome is Outcome.WRONG
    assert number_verifier(units=False).verify(42, "42").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    "response", ["40+2", "6*7", "84/2/1", "\\sqrt{1764}", "#### 42*1", "6*7 = 42", "5!-78", "2^5+10"]
)
def test_a_calculation_is_not_the_number_that_was_asked_for(response: str) -> None:
    assert number_verifier().verify(42, response).outcome is Outcome.WRONG
    assert MathVerifier().verify(42, response).outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", ["7/2", "3.5", "3 1/2", "\\frac{7}{2}"])
def test_a_number_may_be_written_as_a_fraction_or_a_decimal(response: str) -> None:
    assert number_verifier().verify("3.5", response).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MathVerifier(("lst",)), "Unknown extraction rule 'lst'"),  # type: ignore[arg-type]
        (lambda: MathVerifier(()), "Unknown extraction rule"),
        (lambda: MathVerifier("boxed"), "give a list of rules"),  # type: ignore[arg-type]
        (lambda: MathVerifier(percent="half"), "choose 'unit' or 'hundredth'"),  # type: ignore[arg-type]
        (lambda: MathVerifier(rounding="up"), "rounding = 'up' is unknown"),  # type: ignore[arg-type]
        (lambda: MathVerifier(rounding=0), "1 to 30 significant digits"),
        (lambda: MathVerifier(deadline_s=0), "between 0.05 and 3600 seconds"),
        (lambda: MathVerifier(strict="yes"), "must be true or false"),  # type: ignore[arg-type]
        (lambda: MathVerifier().verify("", "3"), "is empty; correct the task"),
        (lambda: MathVerifier().verify(None, "3"), "neither text nor a number"),  # type: ignore[arg-type]
        (lambda: MathVerifier().verify("3", None), "must be text (str), not NoneType"),  # type: ignore[arg-type]
        (lambda: MathVerifier().verify_many([("3", "3")], workers=0), "give 1 or more"),
    ],
)
def test_a_verifier_that_cannot_work_says_so(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(VerifierError, match=re.escape(sentence)):
        make()


HUGE = ["1" * 10**6, "1," * 10**5, "1 " * 10**5, "1/" * 10**5, "-" * 10**6, " " * 10**6, "111," * 10**5 + "1111"]
HUGE += ["#### " * 10**5, "<answer>" * 10**5, "\\boxed{" * 10**5, "a" * 10**6 + "\\boxed{" + "{" * 10**5]


@pytest.mark.parametrize("response", HUGE, ids=range(len(HUGE)))
def test_verifying_a_huge_response_is_quick(response: str) -> None:
    start = time.perf_counter()
    for order in (LENIENT, STRICT, USUAL):
        number_verifier(order).verify(42, response)
    assert time.perf_counter() - start < 10.0


def _solutions(shared_data: Path) -> list[str]:
    files = [shared_data / "gsm8k" / f"{split}.jsonl" for split in ("train", "test")]
    return [json.loads(line)["answer"] for file in files for line in file.read_text("utf-8").splitlines()]


def test_every_gsm8k_solution_is_correct_and_none_is_with_its_number_changed_by_one(shared_data: Path) -> None:
    verifier = number_verifier()
    solutions = _solutions(shared_data)
    assert len(solutions) == 8_792
    for solution in solutions:
        text, _, gold = solution.rpartition("####")
        assert verifier.verify(gold, solution).outcome is Outcome.CORRECT
        number = int(gold.replace(",", ""))
        for near in (number - 1, number + 1):
            assert verifier.verify(gold, f"{text}#### {near:,}").outcome is Outcome.WRONG
            assert verifier.verify(near, solution).outcome is Outcome.WRONG

"""Numbers are read exactly, the first rule that applies finds the answer, and nothing talks the verifier round."""

import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.extraction import LENIENT, extract_answer, last_number
from ludus.verifiers.numbers import format_number, parse_number
from ludus.verifiers.numeric import NumericVerifier
from ludus.verifiers.verdict import Outcome

READ = {
    "42": "42",
    "+7": "7",
    "-3": "-3",
    "\u22127": "-7",
    "007": "7",
    "3.50": "3.5",
    ".5": "1/2",
    "1,200": "1200",
    "109,200,000": "109200000",
    "1,234.5": "1234.5",
    "12\u202f500": "12500",
    "$18": "18",
    "\\$18": "18",
    "$1,200.50": "1200.5",
    "-$5": "-5",
    "$-5": "-5",
    "20€": "20",
    "50%": "50",
    "50 %": "50",
    "3/4": "3/4",
    "-3/4": "-3/4",
    "1.5/2": "3/4",
    "2 3/4": "11/4",
    "-2 3/4": "-11/4",
    "½": "1/2",
    "2¾": "11/4",
    "\\frac{3}{4}": "3/4",
    " 8 ": "8",
}
NOT_NUMBERS = [
    "",
    " ",
    "x",
    "1,2",
    "1,2345",
    "1.2.3",
    "5/0",
    "--5",
    "-$-5",
    "1 2",
    "4 5 6",
    "3 eggs",
    "1e999999",
    "٣",
    "²",
]


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_a_written_number_is_read_exactly(text: str, value: str) -> None:
    assert parse_number(text) == Fraction(value)


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "9" * 100_000])
def test_what_is_not_one_number_is_none(text: str) -> None:
    assert parse_number(text) is None


def test_a_percent_sign_is_a_unit_unless_it_is_asked_to_divide() -> None:
    assert parse_number("50%") == 50
    assert parse_number("50%", percent="hundredth") == Fraction(1, 2)


@given(st.fractions(max_denominator=10**9, min_value=-(10**12), max_value=10**12))
def test_every_exact_number_is_read_back_as_it_was_written(value: Fraction) -> None:
    assert parse_number(format_number(value)) == value


@given(st.integers(-(10**15), 10**15))
def test_thousands_separators_and_currency_change_nothing(value: int) -> None:
    assert parse_number(f"{value:,}") == value
    assert parse_number(f"${value:,}") == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9))
def test_decimals_are_read_without_rounding(value: object) -> None:
    assert parse_number(f"{value:f}") == Fraction(str(value))


@given(st.text(max_size=300))
def test_any_text_is_read_as_a_number_or_as_none(text: str) -> None:
    assert isinstance(parse_number(text), Fraction | None)
    for order in (LENIENT, ("bare",), ("hash", "tag", "boxed", "last")):
        found = extract_answer(text, order)
        assert found is None or (found.rule in order and isinstance(found.value, Fraction | None))


@given(st.text(alphabet="0123456789.,/-+ $%½#<>answer{}\\boxed", max_size=200))
def test_what_almost_looks_like_numbers_is_read_as_a_number_or_as_none(text: str) -> None:
    value = parse_number(text)
    assert isinstance(value, Fraction | None)
    found = extract_answer(text, ("bare",))
    if value is not None and found is not None:
        assert found.value == value


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
    found = extract_answer(response)
    assert found is not None
    assert (found.rule, found.value) == (expected[0], Fraction(expected[1]))


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
    assert NumericVerifier().verify(42, response).outcome is Outcome.WRONG


OTHER_NUMBERS = ["hundred", "million", "thousand", "dozen", "k", "K", "m", "bn", "billion eggs", "grand", "万", "¢"]
OTHER_NUMBERS += ["half", "halves", "thirds", "quarter", "hundredths", "squared", "cubed", "²", "Ⅴ", "x", "twenty"]
OTHER_NUMBERS += ["minus one", "plus two", "plus tax", "times two", "over two", "divided by three", "point five"]
OTHER_NUMBERS += ["and a half", "percent of twenty", "degrees below zero", "hundred-dollar bills"]


@pytest.mark.parametrize("form", ["{}", "#### {}", "<answer>{}</answer>", "\\boxed{{{}}}"])
@pytest.mark.parametrize("words", OTHER_NUMBERS)
def test_a_number_that_its_words_make_another_one_is_wrong(words: str, form: str) -> None:
    assert NumericVerifier().verify(5, form.format(f"5 {words}")).outcome is Outcome.WRONG
    assert NumericVerifier().verify(5, form.format(f"5{words}")).outcome is Outcome.WRONG


UNITS = ["eggs", "cookies left over", "times", "times as many", "quarters", "cents", "percent", "m/s", "cm²", "kg"]
UNITS += ["more apples", "minutes", "km per hour", "dollars grand total", "thirsty dogs", "mph", "%", "€"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_leaves_the_number_as_it_is(unit: str) -> None:
    assert NumericVerifier().verify(5, f"#### 5 {unit}").outcome is Outcome.CORRECT


def test_a_marker_that_holds_no_number_is_not_passed_over_for_a_weaker_rule() -> None:
    assert NumericVerifier(LENIENT).verify(42, "#### none\nso 42").outcome is Outcome.WRONG


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
    assert NumericVerifier(LENIENT).verify(value, response).outcome is Outcome.CORRECT
    assert NumericVerifier(("hash", "tag", "boxed")).verify(value, response).outcome is Outcome.WRONG


@pytest.mark.parametrize("text", ["1e3", "1.5e3", "1,500e3", "2e-3", "-1e+3", "$1e3", "x2", "H2O", "about 1e3."])
def test_no_number_is_taken_out_of_a_word_with_letters(text: str) -> None:
    assert last_number(text) is None


def test_the_evidence_tells_what_was_read_where() -> None:
    verdict = NumericVerifier().verify("1,200", "so\n#### $1200 in all")
    assert verdict.outcome is Outcome.CORRECT
    assert verdict.evidence == {"rule": "hash", "text": "$1200 in all", "expected": "1200", "extracted": "1200"}


def test_units_can_be_forbidden_and_a_tolerance_given() -> None:
    assert NumericVerifier(units=False).verify(42, "42 apples").outcome is Outcome.WRONG
    assert NumericVerifier(tolerance="0.01").verify("3.333", "10/3").outcome is Outcome.CORRECT
    assert NumericVerifier().verify("3.333", "10/3").outcome is Outcome.WRONG
    assert NumericVerifier().verify(0.1, "1/10").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: NumericVerifier(("lst",)), "Unknown extraction rule 'lst'"),  # type: ignore[arg-type]
        (lambda: NumericVerifier(()), "Unknown extraction rule"),
        (lambda: NumericVerifier(percent="half"), "choose 'unit' or 'hundredth'"),  # type: ignore[arg-type]
        (lambda: NumericVerifier(tolerance=-1), "give 0 or more"),
        (lambda: NumericVerifier().verify("many", "3"), "is not a number; correct the task"),
    ],
)
def test_a_verifier_that_cannot_work_says_so(make: object, sentence: str) -> None:
    with pytest.raises(VerifierError, match=re.escape(sentence)):
        make()  # type: ignore[operator]


HUGE = ["1" * 10**6, "1," * 10**5, "1 " * 10**5, "1/" * 10**5, "-" * 10**6, " " * 10**6, "111," * 10**5 + "1111"]
HUGE += ["#### " * 10**5, "<answer>" * 10**5, "\\boxed{" * 10**5, "a" * 10**6 + "\\boxed{" + "{" * 10**5]


@pytest.mark.parametrize("response", HUGE, ids=range(len(HUGE)))
def test_verifying_a_huge_response_is_quick(response: str) -> None:
    start = time.perf_counter()
    for order in (LENIENT, ("hash", "tag", "boxed", "bare")):
        NumericVerifier(order).verify(42, response)
    assert time.perf_counter() - start < 2.0


def _solutions(shared_data: Path) -> list[str]:
    files = [shared_data / "gsm8k" / f"{split}.jsonl" for split in ("train", "test")]
    return [json.loads(line)["answer"] for file in files for line in file.read_text("utf-8").splitlines()]


def test_every_gsm8k_solution_is_correct_and_none_is_with_its_number_changed_by_one(shared_data: Path) -> None:
    verifier = NumericVerifier()
    solutions = _solutions(shared_data)
    assert len(solutions) == 8_792
    for solution in solutions:
        text, _, gold = solution.rpartition("####")
        assert verifier.verify(gold, solution).outcome is Outcome.CORRECT
        number = int(gold.replace(",", ""))
        for near in (number - 1, number + 1):
            assert verifier.verify(gold, f"{text}#### {near:,}").outcome is Outcome.WRONG
            assert verifier.verify(near, solution).outcome is Outcome.WRONG

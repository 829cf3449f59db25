"""Numbers are read exactly, and written so that they are read back."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.numbers import format_number, parse_number

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


@given(st.text(alphabet="0123456789.,/-+ $%½#<>answer{}\\boxed", max_size=200))
def test_what_almost_looks_like_numbers_is_read_as_a_number_or_as_none(text: str) -> None:
    assert isinstance(parse_number(text), Fraction | None)

"""The calculator agrees with exact fractions, prints exactly, and does bounded work on any text."""

from __future__ import annotations

import ast
import operator
import time
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ludus.envs.calculator import calculator, evaluate
from ludus.envs.errors import ToolError

PRINTED = {
    "23+14": "37",
    "3*(4+5)": "27",
    "10/4": "2.5",
    "1/3": "1/3",
    "-7/3": "-7/3",
    "2/3*3": "2",
    "0.1+0.2": "0.3",
    ".5*4": "2",
    "5.": "5",
    "1,200*2": "2400",
    "20%*45": "9",
    "45*20%": "9",
    "50%": "0.5",
    "2x3": "6",
    "2 × 3 ÷ 4": "1.5",
    "8−3": "5",
    "-2**2": "-4",
    "2^10": "1024",
    "2**-3": "0.125",
    "2**3**2": "512",
    "--3": "3",
    "6/2*3": "9",
    "10-4-3": "3",
    "(1+2)*(3+4)/2": "10.5",
    "1/4096": "0.000244140625",
    "1/8192": "1/8192",
}


@pytest.mark.parametrize(("expression", "result"), PRINTED.items())
def test_the_result_is_exact(expression: str, result: str) -> None:
    assert calculator.call({"expression": expression}) == result


REFUSED = {
    "": "The expression is empty",
    "  ": "The expression is empty",
    "1/0": "Division by zero.",
    "0**-1": "Division by zero.",
    "3+": "ends too early",
    "(1+2": "A ')' is missing.",
    "1+2)": "')' is not expected there",
    "1 2": "'2' is not expected there",
    "2(3)": "'(' is not expected there",
    "1,2": "a comma may only separate thousands",
    "three": "'t' cannot be calculated",
    "__import__('os')": "'_' cannot be calculated",
    "1e9": "'e' cannot be calculated",
    "2**0.5": "An exponent must be a whole number",
    "2**101": "An exponent must be a whole number from -100 to 100.",
    "9**99**9": "An exponent must be a whole number",
    "99999**100": "more than 400 digits",
    "(" * 100 + "1" + ")" * 100: "characters; at most 200",
    "(" * 50 + "1" + ")" * 50: "nested more than 32 deep",
    "-" * 150 + "1": "nested more than 32 deep",
    "1+" * 100_000 + "1": "characters; at most 200",
}


@pytest.mark.parametrize(("expression", "sentence"), REFUSED.items(), ids=lambda text: text[:20])
def test_what_cannot_be_calculated_is_told_in_one_sentence(expression: str, sentence: str) -> None:
    start = time.thread_time()
    with pytest.raises(ToolError) as caught:
        calculator.call({"expression": expression})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.thread_time() - start < 0.5


OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def by_python(node: ast.expr) -> Fraction:
    """The value by Python's own parser and exact fractions."""
    if isinstance(node, ast.BinOp):
        return OPERATORS[type(node.op)](by_python(node.left), by_python(node.right))
    if isinstance(node, ast.UnaryOp):
        return -by_python(node.operand)
    assert isinstance(node, ast.Constant)
    return Fraction(str(node.value))


expressions = st.recursive(
    st.one_of(st.integers(0, 9_999).map(str), st.decimals(0, 99, places=2).map(str)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from("+-*/"), inner).map("".join),
        inner.map(lambda text: f"-{text}"),
    ),
    max_leaves=8,
)


@given(expressions)
def test_it_agrees_with_python_on_exact_fractions(expression: str) -> None:
    assume(len(expression) <= 200)
    try:
        expected = by_python(ast.parse(expression, mode="eval").body)
    except ZeroDivisionError:
        with pytest.raises(ToolError, match="Division by zero"):
            evaluate(expression)
        return
    assert evaluate(expression) == expected


@given(st.one_of(st.text(max_size=250), st.text(alphabet="0123456789.,+-*/()%^x ", max_size=200)))
def test_any_text_gives_a_number_or_one_sentence(text: str) -> None:
    try:
        evaluate(text)
    except ToolError as error:
        assert str(error)

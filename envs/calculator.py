"""The calculator tool: exact rationals, bounded work, no eval.

sum     := product (("+" | "-") product)*
product := signed (("*" | "/") signed)*
signed  := ("-" | "+") signed | power
power   := postfix ("**" signed)?          exponent: a whole number of at most MAX_EXPONENT
postfix := (number | "(" sum ")") "%"*
"""

from __future__ import annotations

import re
from fractions import Fraction

from ..verifiers.numbers import format_number
from .errors import ToolError
from .tool import tool
from .tool_call import Dialect

MAX_CHARS = 200
MAX_DEPTH = 32
MAX_EXPONENT = 100
MAX_DIGITS = 400
"""Digits that a numerator or a denominator may reach."""

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)|(?P<sign>\*\*|[-+*/()%^xX×·∗÷:−–]))")
_GROUPED = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")
_SAME = {"^": "**", "x": "*", "X": "*", "×": "*", "·": "*", "∗": "*", "÷": "/", ":": "/", "−": "-", "–": "-"}


def _tokens(expression: str) -> list[str]:
    if len(expression) > MAX_CHARS:
        raise ToolError(f"The expression has {len(expression)} characters; at most {MAX_CHARS} are calculated.")
    text, tokens, position = expression.rstrip(), [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:].lstrip()
            raise ToolError(f"{rest[0]!r} cannot be calculated; use numbers, + - * / ** % and parentheses.")
        token = match["number"] or _SAME.get(match["sign"], match["sign"])
        if "," in token:
            if not _GROUPED.fullmatch(token.partition(".")[0]):
                raise ToolError(f"{token!r} is not a number; a comma may only separate thousands.")
            token = token.replace(",", "")
        tokens.append(token)
        position = match.end()
    if not tokens:
        raise ToolError("The expression is empty; write one such as 3*4.")
    return tokens


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_DIGITS * 3.3219281:
        raise ToolError(f"A number in the calculation has more than {MAX_DIGITS} digits.")
    return value


class _Parser:
    """Recursive descent over the tokens; `depth` counts open parentheses, signs and exponents."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def next(self, *wanted: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position] in wanted:
            self.position += 1
            return self.tokens[self.position - 1]
        return None

    def unexpected(self) -> ToolError:
        if self.position == len(self.tokens):
            return ToolError("The expression ends too early; a number is missing at its end.")
        return ToolError(f"{self.tokens[self.position]!r} is not expected there; check the expression.")

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(f"The expression is nested more than {MAX_DEPTH} deep.")

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.next("+", "-"):
            right = self.product()
            value = _bounded(value + right if sign == "+" else value - right)
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while sign := self.next("*", "/"):
            right = self.signed()
            if sign == "/" and right == 0:
                raise ToolError("Division by zero.")
            value = _bounded(value * right if sign == "*" else value / right)
        return value

    def signed(self) -> Fraction:
        if sign := self.next("-", "+"):
            self.deeper()
            value = self.signed()
            self.depth -= 1
            return -value if sign == "-" else value
        return self.power()

    def power(self) -> Fraction:
        base = self.postfix()
        if not self.next("**"):
            return base
        self.deeper()
        exponent = self.signed()
        self.depth -= 1
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise ToolError(f"An exponent must be a whole number from -{MAX_EXPONENT} to {MAX_EXPONENT}.")
        if base == 0 and exponent < 0:
            raise ToolError("Division by zero.")
        digits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent.numerator)
        if digits > MAX_DIGITS * 3.3219281:
            raise ToolError(f"A number in the calculation has more than {MAX_DIGITS} digits.")
        return base**exponent.numerator

    def postfix(self) -> Fraction:
        if self.next("("):
            self.deeper()
            value = self.sum()
            if not self.next(")"):
                raise self.unexpected() if self.position < len(self.tokens) else ToolError("A ')' is missing.")
            self.depth -= 1
        elif self.position < len(self.tokens) and self.tokens[self.position][0] in "0123456789.":
            value = _bounded(Fraction(self.tokens[self.position]))
            self.position += 1
        else:
            raise self.unexpected()
        while self.next("%"):
            value /= 100
        return value


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression. Raises ToolError with one sentence; work and memory are bounded."""
    parser = _Parser(_tokens(expression))
    value = parser.sum()
    if parser.position < len(parser.tokens):
        raise parser.unexpected()
    return value


@tool
def calculator(expression: str) -> str:
    """Calculate an expression exactly, for instance 3*(4+5) or 20%*45; the result is a number: 27, 0.5 or 2/3."""
    return format_number(evaluate(expression))


def how_to_call(dialect: Dialect) -> str:
    """The sentence that a system prompt ends with: in the dialect "json" the chat template tells, so it is empty."""
    return " To calculate, write <calculator>3*4</calculator>." if dialect == "tag" else ""

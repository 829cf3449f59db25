"""TokenStream: the tokens of one answer, read from left to right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import NoReturn

from .errors import TooLarge, Unreadable
from .expression import Node
from .notation import END, Token

MAX_DEPTH = 40
"""Deepest nesting of an answer; recursion goes four frames a level."""
MAX_DIGITS = 2_000
"""Most digits of one number; Python itself refuses more than 4,300."""
MAX_EXPONENT = 2_000
"""Largest exponent in scientific notation."""


def decimal(text: str) -> Fraction:
    """The exact value of a number token."""
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if len(mantissa) > MAX_DIGITS:
        raise TooLarge(f"a number has more than {MAX_DIGITS} digits")
    if exponent and abs(int(exponent[:8])) > MAX_EXPONENT:
        raise TooLarge(f"a number has an exponent over {MAX_EXPONENT}")
    whole, _, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places)) if whole + places else Fraction(0)
    return value * Fraction(10) ** int(exponent) if exponent else value


class TokenStream(ABC):
    """Where reading stands, and what is open around it.

    depth: of nesting. bars: how many | wait for their partner. commas_separate, letters: see `parser.parse`.
    """

    def __init__(self, found: list[Token], commas_separate: bool = False, letters: bool = False) -> None:
        self.tokens = found
        self.position = 0
        self.depth = 0
        self.bars = 0
        self.commas_separate = commas_separate
        self.letters = letters

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def peek(self, ahead: int = 1) -> Token:
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else END

    def take(self) -> Token:
        token = self.tokens[self.position]
        if token.kind != "end":
            self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.token.text in texts and self.token.kind not in ("text", "end"):
            self.position += 1
            return True
        return False

    def expect(self, *texts: str) -> str:
        token = self.token
        if not self.accept(*texts):
            found = repr(token.text[:20]) if token.kind != "end" else "the end"
            raise Unreadable(f"{found} stands where {' or '.join(texts)} was expected")
        return token.text

    def fail(self, token: Token) -> NoReturn:
        """Raise Unreadable: no value begins with this token."""
        found = repr(token.text[:20]) if token.kind != "end" else "the end"
        raise Unreadable(f"{found} stands where a value was expected")

    def descend(self) -> None:
        """One level deeper. TooLarge where that is too deep."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"the answer is nested more than {MAX_DEPTH} deep")

    # What the parser provides

    @abstractmethod
    def items(self) -> Node:
        """One thing, or several between separators."""

    @abstractmethod
    def expression(self, floor: int) -> Node:
        """Everything that binds more strongly than `floor`."""

    @abstractmethod
    def postfix(self, node: Node) -> Node:
        """What stands behind an atom: powers, factorials, signs."""

    @abstractmethod
    def prefix(self) -> Node:
        """A sign and what it belongs to, or an atom."""

    @abstractmethod
    def atom(self) -> Node:
        """The smallest thing that has a meaning of its own."""

    @abstractmethod
    def starts_factor(self, left: Node) -> bool:
        """Whether the next token begins something that is multiplied without a sign."""

    @abstractmethod
    def words(self, text: str) -> Node:
        """What stands in \\text{…}."""

    @abstractmethod
    def braced(self, closing: str) -> Node:
        """A set, after its opening brace."""

    @abstractmethod
    def sequence(self, opening: str, *closers: str) -> Node:
        """A tuple, an interval or a bracket, after its opening."""

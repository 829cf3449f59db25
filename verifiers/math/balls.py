"""Evaluation: the value of a node as a ball, that is a number with a proven bound of its error.

Invariant: FLINT's precision is one number for the whole process, so all work with balls happens inside `precision`.
Source: ball arithmetic of FLINT/Arb (Johansson, IEEE Transactions on Computers 66, 2017).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import flint
from flint import acb, fmpq

from .errors import Imprecise, NoValue, TooLarge, Undefined
from .expression import MINUS_ONE, Node
from .rational import MAX_FACTORIAL, exact, series_terms
from .work import Work

_LOCK = threading.RLock()
MAX_MAGNITUDE = 10**7
"""Largest exponent of two of any value."""


def _renew_lock() -> None:
    """After a fork: another thread may have held the lock, and left its precision."""
    global _LOCK
    _LOCK = threading.RLock()
    flint.ctx.prec = 53


os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """FLINT's precision for a while, for one thread at a time."""
    with _LOCK:
        before = flint.ctx.prec
        flint.ctx.prec = bits
        try:
            yield
        finally:
            flint.ctx.prec = before


def magnitude(value: Any) -> int | None:
    """The exponent of two of the largest part of a ball; None for exact zero or a ball around it."""
    largest: int | None = None
    for part in (value.real, value.imag):
        low = part.abs_lower()
        if low == 0:
            continue
        mantissa, exponent = low.mid().man_exp()
        size = int(exponent) + int(mantissa).bit_length()
        largest = size if largest is None or size > largest else largest
    return largest


class Evaluation:
    """Evaluates nodes with given values of the symbols at one precision. `lost`: something was too small to count."""

    def __init__(self, precision: int, symbols: Mapping[str, Any], work: Work, log_base: int | None = None) -> None:
        self.precision = precision
        self.symbols = symbols
        self.log_base = log_base
        self.lost = False
        self.work = work
        self.cost = max(precision // 256, 1)

    def value(self, node: Node) -> Any:
        """The ball of a node. Raises NoValue where it is undefined or has none, TooLarge where a guard stops."""
        self.work.spend(self.cost)
        op = node.op
        if op == "num":
            return acb(_fmpq(node.number))
        if op == "const":
            return self._constant(str(node.value))
        if op == "sym":
            if node.value not in self.symbols:
                raise NoValue(f"{node.value} has no value")
            return self.symbols[str(node.value)]
        if op == "add":
            return self._sum([self.value(arg) for arg in node.args])
        if op == "mul":
            product = acb(1)
            for arg in node.args:
                product = self._checked(product * self.value(arg))
            return product
        if op == "pow":
            return self._power(node)
        if op == "percent":
            return self.value(node.args[0]) / 100
        if op == "fn":
            return self._function(node)
        raise NoValue("there is no number")

    def _constant(self, name: str) -> Any:
        if name == "pi":
            return acb.pi()
        if name == "e":
            return acb(1).exp()
        if name == "i":
            return acb(0, 1)
        if name == "deg":
            return acb.pi() / 180
        raise NoValue("infinity is no number")

    def _checked(self, value: Any) -> Any:
        if not value.is_finite():
            raise Imprecise("it is undefined there")
        size = magnitude(value)
        if size is not None and abs(size) > MAX_MAGNITUDE:
            raise TooLarge("a number is too large or too small")
        return value

    def _sum(self, values: list[Any]) -> Any:
        sizes = [size for size in map(magnitude, values) if size is not None]
        if len(sizes) > 1 and max(sizes) - min(sizes) > self.precision // 2:
            self.lost = True
        total = acb(0)
        for value in values:
            total += value
        return self._checked(total)

    def _power(self, node: Node) -> Any:
        base_node, exponent_node = node.args
        if exponent_node == MINUS_ONE:
            base = self.value(base_node)
            if base.is_zero():
                raise Undefined("there is a division by zero")
            return self._checked(1 / base)
        exponent = exact(exponent_node, self.work)
        base = self.value(base_node)
        if exponent is not None:
            if exponent.denominator == 1:
                count = int(exponent)
                self._guard_exponent(base, abs(count))
                if base.is_zero() and count < 0:
                    raise Undefined("there is a division by zero")
                return self._checked(base ** flint.fmpz(count))
            if exponent.denominator % 2 and base.imag.is_zero() and base.real < 0 and exponent.denominator < 1000:
                # The real root, as in \\sqrt[3]{-8} = -2
                root = -((-base) ** (acb(1) / exponent.denominator))
                self._guard_exponent(root, abs(exponent.numerator))
                return self._checked(root ** flint.fmpz(exponent.numerator))
        power = self.value(exponent_node)
        if base.is_zero():
            if power.real > 0:
                return acb(0)
            raise Undefined("a power of zero is undefined")
        self._guard_exponent(base, _ceiling(power))
        self._note_small(power)
        return self._checked(base**power)

    def _guard_exponent(self, base: Any, exponent: int) -> None:
        size = abs(magnitude(base) or 1) + 1
        if size * exponent > MAX_MAGNITUDE:
            raise TooLarge("a power is too large or too small")

    def _note_small(self, argument: Any) -> None:
        """A function near 0 may be 1 plus something that is lost."""
        size = magnitude(argument)
        if size is not None and size < -self.precision // 32:
            self.lost = True

    def _function(self, node: Node) -> Any:
        name = str(node.value)
        if name in ("sum", "prod"):
            terms = series_terms(self._with_numbers(node), self.work)
            if terms is None:
                raise NoValue("the bounds of a sum are no numbers")
            return (
                self.value(Node("add" if name == "sum" else "mul", None, tuple(terms)))
                if terms
                else acb(name == "prod")
            )
        if name == "det":
            return self._determinant(node.args[0])
        if name == "root":
            degree = exact(node.args[1], self.work)
            if degree is None or degree.denominator != 1 or degree == 0 or abs(degree) > 10_000:
                return self._power(Node("pow", None, (node.args[0], Node("pow", None, (node.args[1], MINUS_ONE)))))
            value = self.value(node.args[0])
            if degree == 2:
                return self._checked(value.sqrt())
            if value.is_zero():
                return value
            if value.imag.is_zero() and value.real < 0 and degree % 2:
                return -self._checked((-value) ** (acb(1) / int(degree)))
            return self._checked(value ** (acb(1) / int(degree)))
        if name in ("factorial", "double_factorial", "binomial", "gcd", "lcm", "floor", "ceil", "max", "min"):
            return self._discrete(name, node)
        values = [self.value(arg) for arg in node.args]
        for value in values:
            self._note_small(value)
            size = magnitude(value)
            if name in ("tanh", "coth", "erf") and size is not None and size > 4:
                self.lost = True  # 1 but for less than can be seen
        if name == "log" and len(values) == 1:
            log = self._log(values[0])
            return self._checked(log if self.log_base is None else log / acb(self.log_base).log())
        if name == "log_base" and len(values) == 2:
            base = self._log(values[0])
            if base.contains(acb(0)):
                raise Imprecise("a logarithm has the base 1")
            return self._checked(self._log(values[1]) / base)
        if len(values) != 1 or name not in _UNARY:
            raise NoValue(f"{name} cannot be calculated")
        size = magnitude(values[0])
        if size is not None and size > 40:
            raise TooLarge("the argument of a function is too large")
        return self._checked(_UNARY[name](values[0]))

    def _log(self, value: Any) -> Any:
        if value.is_zero():
            raise Undefined("a logarithm of zero is undefined")
        if value.contains(acb(0)):
            raise Imprecise("a logarithm of zero is undefined")
        near_one = magnitude(value - 1)
        if near_one is not None and near_one < -self.precision // 2:
            self.lost = True
        return value.log()

    def _with_numbers(self, node: Node) -> Node:
        """A sum with symbols in its bounds replaced, where their values are whole."""
        body, variable, low, high = node.args

        def put(part: Node) -> Node:
            if part.op == "sym" and str(part.value) in self.symbols and part != variable:
                whole = self.symbols[str(part.value)].real.unique_fmpz()
                return part if whole is None else Node("num", Fraction(int(whole)))
            return Node(part.op, part.value, tuple(map(put, part.args))) if part.args else part

        return Node("fn", node.value, (body, variable, put(low), put(high)))

    def _determinant(self, matrix: Node) -> Any:
        columns = int(str(matrix.value)) if matrix.op == "matrix" else 0
        if not columns or columns * columns != len(matrix.args) or columns > 6:
            raise NoValue("the determinant cannot be calculated")
        rows = [[self.value(cell) for cell in matrix.args[i * columns : (i + 1) * columns]] for i in range(columns)]

        def determinant(rows: list[list[Any]]) -> Any:
            if len(rows) == 1:
                return rows[0][0]
            total = acb(0)
            for column, cell in enumerate(rows[0]):
                minor = [row[:column] + row[column + 1 :] for row in rows[1:]]
                total += (-1) ** column * cell * determinant(minor)
            return total

        return self._checked(determinant(rows))

    def _discrete(self, name: str, node: Node) -> Any:
        values = [self.value(arg) for arg in node.args]
        if any(not value.imag.is_zero() for value in values):
            raise NoValue(f"{name} of a complex number")
        reals = [value.real for value in values]
        if name in ("max", "min"):
            best = reals[0]
            for real in reals[1:]:
                best = best.max(real) if name == "max" else best.min(real)
            return acb(best)
        if name in ("floor", "ceil"):
            return self._checked(acb(reals[0].floor() if name == "floor" else reals[0].ceil()))
        wholes = [real.unique_fmpz() for real in reals]
        if any(whole is None for whole in wholes) or (any(abs(int(w)) > MAX_FACTORIAL for w in wholes)):
            if name == "factorial" and len(reals) == 1 and _ceiling(values[0]) < MAX_FACTORIAL:
                self.work.spend(self.cost * 100)
                return self._checked((values[0] + 1).gamma())
            raise NoValue(f"{name} of a number that is not whole")
        args = tuple(Node("num", Fraction(int(whole))) for whole in wholes)
        value = exact(Node("fn", name, args), self.work)
        if value is None:
            raise Undefined(f"{name} is undefined")
        return acb(_fmpq(value))


def _absolute(value: Any) -> Any:
    return acb(abs(value))


def _sign(value: Any) -> Any:
    if not value.imag.is_zero() or value.real.contains(0):
        raise Imprecise("the sign of it is undefined")
    return acb(1 if value.real > 0 else -1)


def _method(name: str) -> Callable[[Any], Any]:
    return lambda value: getattr(value, name)()


_METHODS = "sin cos tan cot sec csc sinh cosh tanh coth erf asin acos atan asinh acosh atanh exp"
_UNARY: dict[str, Callable[[Any], Any]] = {
    **{name: _method(name) for name in _METHODS.split()},
    "acot": lambda value: acb.pi() / 2 - value.atan(),
    "asec": lambda value: (1 / value).acos(),
    "acsc": lambda value: (1 / value).asin(),
    "ln": lambda value: value.log(),
    "abs": _absolute,
    "sgn": _sign,
    "sign": _sign,
    "re": lambda value: acb(value.real),
    "im": lambda value: acb(value.imag),
    "arg": lambda value: acb(value.arg()),
    "cis": lambda value: (value * acb(0, 1)).exp(),
}


def _fmpq(value: Fraction) -> Any:
    return fmpq(value.numerator, value.denominator)


def _ceiling(value: Any) -> int:
    """A whole number that the absolute value does not exceed; a very large one where it is huge."""
    size = magnitude(value)
    upper = value.abs_upper()
    if size is not None and size > 60:
        return 2**60
    return int(upper.ceil().unique_fmpz() or 2**60)


def balls(point: dict[str, Fraction]) -> dict[str, Any]:
    """The values of the symbols as complex balls of radius zero, or as near to it as the precision allows."""
    return {name: acb(_fmpq(value)) for name, value in point.items()}


def upper_magnitude(value: Any) -> int | None:
    """The exponent of two that a ball surely stays below; None for an exact zero."""
    upper = value.abs_upper()
    if upper == 0:
        return None
    mantissa, exponent = upper.mid().man_exp()
    return int(exponent) + int(mantissa).bit_length()

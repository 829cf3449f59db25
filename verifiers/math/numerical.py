"""Numbers with proven bounds: evaluates nodes in ball arithmetic and says whether two of them can be equal.

Invariant: DIFFERENT is proven, by two balls that do not touch. EQUAL means that the balls touch at a precision at which
nothing that either expression adds up is small enough to be lost; where something is, the answer is UNSURE.
Source: ball arithmetic of FLINT/Arb (Johansson, IEEE Transactions on Computers 66, 2017).
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from fractions import Fraction
from typing import Any

import flint
from flint import acb, fmpq

from .errors import Imprecise, NoValue, TooLarge, Undefined
from .expression import MINUS_ONE, Node
from .rational import MAX_FACTORIAL, exact, series_terms
from .work import Work

_LOCK = threading.RLock()
"""The precision of FLINT is one number for the whole process."""
PRECISIONS = (512, 2048, 8192)
"""Bits; a finer one is used where a coarser one cannot tell."""
MAX_MAGNITUDE = 10**7
"""Largest exponent of two of any value."""
POINTS, CANDIDATES = 5, 40
"""Points at which expressions with variables are compared, and how many are tried to find them."""


class Nearness(Enum):
    """What two evaluations say."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNSURE = "unsure"


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
        if size is not None and size < -self.precision // 8:
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
        if name == "log":
            log = self._log(values[0])
            return self._checked(log if self.log_base is None else log / acb(self.log_base).log())
        if name == "log_base":
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


def approximate(node: Node, work: Work, precision: int = 256) -> Any | None:
    """The real ball of a node without symbols, or None where it has no real value."""
    with _precision(precision):
        try:
            value = Evaluation(precision, {}, work).value(node)
        except NoValue:
            return None
        return value.real if value.imag.contains(0) else None


@contextmanager
def _precision(bits: int) -> Iterator[None]:
    """FLINT's precision for a while, for one thread at a time."""
    with _LOCK:
        before = flint.ctx.prec
        flint.ctx.prec = bits
        try:
            yield
        finally:
            flint.ctx.prec = before


_INTEGERS_ONLY = {"factorial", "double_factorial", "binomial", "gcd", "lcm", "sum", "prod"}


def nearness(gold: Node, response: Node, seed: str, work: Work, log_base: int | None = None) -> Nearness:
    """Whether two expressions have the same value, everywhere where the first is defined (and real, if it can be).

    Expressions with symbols are compared at POINTS points drawn from a generator seeded with `seed`. log_base: the base
    of a logarithm written without one; None is e. Raises NoValue where they cannot be evaluated, TooLarge where a guard
    stops.
    """
    names = sorted(gold.symbols() | response.symbols())
    if not names:
        return _at(gold, response, {}, work, log_base)
    rng = generator(seed)
    whole = any(node.op == "fn" and node.value in _INTEGERS_ONLY for side in (gold, response) for node in side.walk())
    complex_too = any(node.op == "const" and node.value == "i" for node in gold.walk())
    found, unsure = 0, False
    for attempt in range(CANDIDATES):
        point = draw_point(rng, names, attempt, whole)
        if not _defined(gold, point, work, log_base, complex_too):
            continue
        verdict = _at(gold, response, point, work, log_base)
        if verdict is Nearness.DIFFERENT:
            return verdict
        unsure |= verdict is Nearness.UNSURE
        found += 1
        if found == POINTS:
            return Nearness.UNSURE if unsure else Nearness.EQUAL
    raise NoValue("the right answer is defined nowhere where it was tried")


def proportional(gold: Node, response: Node, seed: str, work: Work, positive: bool = False) -> Nearness:
    """Whether one expression is the other times a constant that is not zero (or, asked for, is positive).

    So two equations, each brought to one side, are the same. Raises as `nearness` does.
    """
    names = sorted(gold.symbols() | response.symbols())
    rng = generator(seed)
    first: tuple[Any, Any] | None = None
    found = 0
    for attempt in range(CANDIDATES):
        point = draw_point(rng, names, attempt, False)
        try:
            with _precision(PRECISIONS[0]):
                evaluation = Evaluation(PRECISIONS[0], _balls(point), work)
                left, right = evaluation.value(gold), evaluation.value(response)
                if not (left.imag.contains(0) and right.imag.contains(0)):
                    continue
                if left.contains(acb(0)) or right.contains(acb(0)):
                    if left.contains(acb(0)) and right.contains(acb(0)):
                        continue
                    return Nearness.DIFFERENT
                if positive and (left / right).real < 0:
                    return Nearness.DIFFERENT
                if first is None:
                    first = (left, right)
                elif not (left * first[1] - right * first[0]).contains(acb(0)):
                    return Nearness.DIFFERENT
                if evaluation.lost:
                    return Nearness.UNSURE
        except (Undefined, Imprecise):
            continue
        found += 1
        if found == POINTS:
            return Nearness.EQUAL
    return Nearness.UNSURE


def generator(seed: str) -> random.Random:
    """A generator that depends on the text alone."""
    return random.Random(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest())


def draw_point(rng: random.Random, names: Sequence[str], attempt: int, whole: bool) -> dict[str, Fraction]:
    """Values of the symbols: within 0 and 1, above, below 0 in turn, or small whole numbers."""
    point: dict[str, Fraction] = {}
    for name in names:
        if whole:
            point[name] = Fraction(rng.randint(1, 9 + attempt // 4))
        elif attempt % 3 == 0:
            point[name] = Fraction(rng.randint(1, 996), 997)
        elif attempt % 3 == 1:
            point[name] = Fraction(rng.randint(1010, 9999), 1009)
        else:
            point[name] = Fraction(rng.randint(-9999, -1), 1013)
    return point


def _defined(gold: Node, point: dict[str, Fraction], work: Work, log_base: int | None, complex_too: bool) -> bool:
    """Whether the right answer has a value there. Raises NoValue where it could not be calculated anywhere."""
    with _precision(PRECISIONS[0]):
        try:
            value = Evaluation(PRECISIONS[0], _balls(point), work, log_base).value(gold)
        except (Undefined, Imprecise):
            return False
        return complex_too or bool(value.imag.contains(0))


def _balls(point: dict[str, Fraction]) -> dict[str, Any]:
    return {name: acb(_fmpq(value)) for name, value in point.items()}


def _at(gold: Node, response: Node, point: dict[str, Fraction], work: Work, log_base: int | None) -> Nearness:
    for precision in PRECISIONS:
        with _precision(precision):
            evaluation = Evaluation(precision, _balls(point), work, log_base)
            try:
                right = evaluation.value(gold)
            except Imprecise:
                continue
            try:
                difference = right - evaluation.value(response)
            except Imprecise:
                continue
            except Undefined:
                return Nearness.DIFFERENT
            if not difference.contains(acb(0)):
                return Nearness.DIFFERENT
            if not evaluation.lost and _sharp(right, difference, precision):
                return Nearness.EQUAL
    return Nearness.UNSURE


def _sharp(right: Any, difference: Any, precision: int) -> bool:
    """Whether the ball around the difference is much smaller than the value (or than 1, where that may be zero)."""
    size = magnitude(right) or 0
    radius = _upper_magnitude(difference)
    return radius is None or radius < size - precision // 2


def _upper_magnitude(value: Any) -> int | None:
    upper = value.abs_upper()
    if upper == 0:
        return None
    mantissa, exponent = upper.mid().man_exp()
    return int(exponent) + int(mantissa).bit_length()

"""Quantities: two expressions compared, with their units and percent signs, in stages of rising cost."""

from __future__ import annotations

from typing import Literal

from flint import arb

from .answers import MORE, OTHER_NUMBER, decimal_places, is_written_number, kind_of, take_unit
from .balls import precision
from .errors import NoValue, TooLarge, TooMuchWork, Undefined
from .expression import DEGREE, INFINITY, Node, canonical, mul, neg, num
from .finding import Finding, Match, Rules, Symbolic, different, same, unsure
from .notation import plain_words
from .numerical import Nearness, approximate, nearness
from .rational import exact
from .units import read_unit
from .work import Work


def _generic(wanted: tuple[tuple[str, int], ...], found: tuple[tuple[str, int], ...]) -> bool:
    """Whether one is "units", "square units" and the like, of as many dimensions as the other."""
    if (("unit", 1),) in (wanted, found):
        return True
    generic = any(len(powers) == 1 and powers[0][0] == "unit" for powers in (wanted, found))
    return generic and sum(count for _, count in wanted) == sum(count for _, count in found)


class Quantities:
    """Compares expressions: under rules, with so much work, and with random points from a seed."""

    def __init__(self, rules: Rules, work: Work, symbolic: Symbolic | None, gold: str, response: str) -> None:
        self.rules = rules
        self.places = decimal_places(gold)
        self.work = work
        self.symbolic = symbolic
        self.seed = f"{gold}\n{response}"

    def numbers(self, gold: Node, given: Node) -> Finding:
        """Two expressions, with units and percent signs."""
        right, unit = take_unit(gold, "all" if self.rules.evaluated else "none")
        letters: Literal["none", "clear", "all"] = "clear" if unit is None else "all"
        answer, stated = take_unit(given, "none" if right.symbols() else letters)
        if unit is None and stated is not None and right.symbols():
            right, unit = take_unit(gold, "all")  # the response shows that m in "890 m^3" is no variable
        if stated is not None and unit is None and (OTHER_NUMBER.search(stated) or stated.strip().lower() in MORE):
            return different("structure", f"{stated!r} is no unit")
        if self.rules.evaluated and not is_written_number(answer) and self._is_calculation(right, answer):
            return different("structure", "a number was asked for, not a calculation")
        if unit is not None or stated is not None:
            scaled = self._units(right, unit, answer, stated)
            if isinstance(scaled, Finding):
                return scaled
            right, answer = scaled
        if "text" in (right.op, answer.op) or right.has("text") or answer.has("text"):
            return self.structure(right, answer)
        if right.op == "percent" or answer.op == "percent":
            return self._percent(right, answer)
        return self.expressions(right, answer)

    def _units(self, right: Node, unit: str | None, answer: Node, stated: str | None) -> Finding | tuple[Node, Node]:
        wanted = read_unit(unit) if unit is not None else None
        found = read_unit(stated) if stated is not None else None
        if (unit is not None and wanted is None) or (stated is not None and found is None):
            alike = plain_words(unit or "") == plain_words(stated or "")
            return (right, answer) if alike else different("structure", "the units differ")
        if wanted is not None and found is not None and wanted.powers and found.powers:
            if wanted.powers != found.powers and not _generic(wanted.powers, found.powers):
                if {wanted.powers, found.powers} == {(("deg", 1),), (("rad", 1),)}:
                    return self._angle(right, unit), self._angle(answer, stated)
                return different("structure", f"{stated} is not {unit}")
            return mul(num(wanted.factor), right), mul(num(found.factor), answer)
        # 90° may be written 90, and also pi/2
        if wanted is not None and wanted.powers == (("deg", 1),) and found is None and answer.has("const"):
            return self._angle(right, unit), answer
        if found is not None and found.powers == (("deg", 1),) and wanted is None and right.has("const"):
            return right, self._angle(answer, stated)
        if not self.rules.units:
            return different("structure", "the units differ")
        if wanted is None and exact(right, self.work) is None and right.symbols():
            return different("structure", f"{stated} was not asked for")
        return right, answer

    def _is_calculation(self, right: Node, answer: Node) -> bool:
        """Whether an answer still has to be calculated: a number is asked for, or it holds a sum, product or limit."""
        if exact(right, self.work) is not None:
            return True
        series = any(node.op == "fn" and node.value in ("sum", "prod") for node in answer.walk())
        return series or any(node.op == "opaque" and node.value in ("int", "lim") for node in answer.walk())

    @staticmethod
    def _angle(node: Node, unit: str | None) -> Node:
        found = read_unit(unit or "")
        return mul(node, DEGREE) if found is not None and found.powers == (("deg", 1),) else node

    def _percent(self, right: Node, answer: Node) -> Finding:
        hundredth = self.rules.percent == "hundredth"
        if right.op == answer.op:
            return self.expressions(right.args[0], answer.args[0])
        if right.op == "percent":
            bare = self.expressions(right.args[0], answer)
            if bare.match is Match.SAME or not hundredth:
                return bare
            return self.expressions(right, answer)
        return self.expressions(right, answer if hundredth else answer.args[0])

    def expressions(self, gold: Node, given: Node) -> Finding:
        """Two expressions without units: exact numbers, structure, proven bounds, then computer algebra."""
        if gold.op == given.op == "const" or INFINITY in (gold, given) or neg(INFINITY) in (gold, given):
            alike = canonical(gold) == canonical(given)
            if alike or INFINITY in (*gold.walk(), *given.walk()):
                return (same if alike else different)("structure", f"the answers are {'' if alike else 'not '}the same")
        try:
            right = exact(gold, self.work)
        except Undefined as error:
            return unsure("exact", f"the right answer has no value: {error}")
        except TooMuchWork:
            raise
        except TooLarge as error:
            return self._too_large(gold, given, error)
        try:
            answer = exact(given, self.work)
        except Undefined as error:
            return different("exact", f"the answer has no value: {error}")
        except TooMuchWork:
            raise
        except TooLarge as error:
            return self._too_large(gold, given, error)
        if right is not None and answer is not None:
            if right == answer:
                return same("exact", "the numbers are equal")
            if self.rules.rounding == "exact":
                return different("exact", "the numbers are not equal")
        if self.rules.rounding != "exact":
            rounded = self._rounded(gold, given)
            if rounded is not None:
                return rounded
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are the same but for order")
        return self._evaluate(gold, given)

    def _too_large(self, gold: Node, given: Node, error: TooLarge) -> Finding:
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are the same but for order")
        return unsure("exact", f"the answer cannot be calculated: {error}")

    def _rounded(self, gold: Node, given: Node) -> Finding | None:
        """By the rule of rounding; None where that has nothing to say."""
        if gold.symbols() or given.symbols():
            return None
        near, stated = approximate(gold, self.work), approximate(given, self.work)
        if near is None or stated is None or near.contains(0):
            return None
        if self.rules.rounding == "places":
            if self.places is None:
                return None
            digit = -self.places
        else:
            with precision(256):
                leading = (abs(near).log() / arb(10).log()).floor().unique_fmpz()
            if leading is None:
                return None
            digit = int(leading) + 1 - int(self.rules.rounding)
        with precision(256):
            within = bool(abs(near - stated) <= arb(10) ** digit / 2)
        return (same if within else different)("numeric", f"rounded, the numbers are {'' if within else 'not '}equal")

    def _evaluate(self, gold: Node, given: Node) -> Finding:
        readings: list[int | None] = [None]
        if any(node.op == "fn" and node.value == "log" for side in (gold, given) for node in side.walk()):
            readings = [None, 10]
        reason = "the numbers agree as far as they were calculated"
        for base in readings:
            try:
                near = nearness(gold, given, self.seed, self.work, base)
            except TooMuchWork:
                raise
            except (NoValue, TooLarge) as error:
                reason, near = str(error), Nearness.UNSURE
            if near is Nearness.EQUAL:
                return same("numeric", "the values are equal")
            if near is Nearness.DIFFERENT and base == readings[-1]:
                return different("numeric", "the values are not equal")
        return self._symbolic(gold, given, reason)

    def structure(self, gold: Node, given: Node) -> Finding:
        """Whether two answers are written alike, but for the order of sums and products."""
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are written alike")
        if gold.op != given.op:
            return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
        return unsure("structure", f"two answers of the kind {kind_of(gold)} cannot be compared")

    def _symbolic(self, gold: Node, given: Node, reason: str) -> Finding:
        if self.symbolic is None:
            raise TooMuchWork("only computer algebra can decide")
        verdict = self.symbolic(gold, given)
        if verdict is None:
            return unsure("symbolic", f"it cannot be decided: {reason}")
        return (same if verdict else different)("symbolic", f"the difference is {'' if verdict else 'not '}zero")

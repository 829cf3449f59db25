"""Decide whether two answers are the same, in stages of rising cost.

Invariant: SAME and DIFFERENT are only said for a reason that holds; whatever cannot be told is UNSURE. What a response
leaves out (a unit, a name, brackets of a tuple) may be forgiven, what it states otherwise never is; and several answers
are never one (tests/test_math_compare.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from . import regions
from .errors import NoValue, TooLarge, TooMuchWork, Undefined, UnknownNotation, Unreadable
from .expression import DEGREE, INFINITY, Node, add, canonical, divide, mul, neg, num
from .notation import clean
from .numerical import Nearness, approximate, nearness, proportional
from .parser import parse
from .rational import exact
from .units import known, read_unit
from .work import Work

Rounding = Literal["exact", "places"] | int
MAX_ITEMS = 60
"""Most answers in one list."""


class Match(Enum):
    """How two answers compare."""

    SAME = "same"
    DIFFERENT = "different"
    UNSURE = "unsure"


class Finding(NamedTuple):
    """match, and why: stage is text, exact, structure, numeric or symbolic, the reason a sentence."""

    match: Match
    stage: str
    reason: str


@dataclass(frozen=True)
class Rules:
    """What counts as the same.

    ordered: several answers must come in the order of the right ones. units: whether a response may leave out the unit
    of the right answer, or add one to a bare number. percent: "hundredth" reads 50% as 1/2; "unit" as 50, as the
    answers of word problems are written. rounding: "exact"; "places": the response may be anything that rounds to the
    right answer at its decimal places; n: both are equal to n significant digits. evaluated: a number must be given as
    a number (an integer, decimal, fraction or mixed number), and not as a calculation that has its value.
    """

    ordered: bool = False
    units: bool = True
    percent: Literal["hundredth", "unit"] = "hundredth"
    rounding: Rounding = "exact"
    evaluated: bool = False


Symbolic = Callable[[Node, Node], "bool | None"]

_INTEGER = re.compile(r"-?[0-9]{1,300}")
_NAME = re.compile(r"[A-Za-z](?:_\w+|_\{\w+\})?'*\s*(?:\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?'*")
_NUMERAL_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMERALS = {name: value for value, name in enumerate(_NUMERAL_NAMES.split())}
_NUMERALS |= {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_OTHER_NUMBER_WORDS = (
    "or and not maybe either nor neither but except unless otherwise "
    "hundred(?:th)?s? thousand(?:th)?s? millions? billions? trillions? dozens? lakhs? crores? grand(?!.total) "
    "k b mn bn tn mil bil "
    "half halves thirds? quarter fourths? fifths? sixths? sevenths? eighths? ninths? tenths? "
    "plus minus divided multiplied x squared cubed doubled tripled halved negative"
)
_OTHER_NUMBER = re.compile(rf"\b(?:{'|'.join([*_OTHER_NUMBER_WORDS.split(), *_NUMERALS])})\b", re.IGNORECASE)
"""A word behind a number that leaves open which one is meant, or makes it another ("5 million", "5 minus one").
"times", "over" and "quarters" (the coins) are left out: "5 times" and "5 left over" are 5."""
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?\s*[.):]?", re.IGNORECASE)


def compare(gold: str, response: str, rules: Rules, work: Work, symbolic: Symbolic | None = None) -> Finding:
    """Whether the text of an answer says the same as the right one.

    work bounds the operations; TooMuchWork is raised where it does not suffice, and where only computer algebra can
    decide and `symbolic` is None.
    """
    if gold.strip() == response.strip():
        return Finding(Match.SAME, "text", "the texts are the same")
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(response):
        same = int(gold) == int(response)
        return Finding(
            Match.SAME if same else Match.DIFFERENT, "exact", f"the numbers are {'' if same else 'not '}equal"
        )
    try:
        gold_text = clean(gold)
    except TooLarge as error:
        return Finding(Match.UNSURE, "text", f"the right answer cannot be read: {error}")
    try:
        response_text = clean(response)
    except TooLarge as error:
        return Finding(Match.UNSURE, "text", str(error))
    if not response_text:
        return Finding(Match.DIFFERENT, "text", "the answer is empty")
    if _squash(gold_text) == _squash(response_text):
        return Finding(Match.SAME, "text", "the texts are the same")
    return _by_meaning(gold_text, response_text, rules, work, symbolic)


def _by_meaning(gold: str, response: str, rules: Rules, work: Work, symbolic: Symbolic | None) -> Finding:
    try:
        right = parse(gold)
    except (Unreadable, TooLarge) as error:
        if _words(gold) == _words(response) and any(map(str.isalnum, gold)):
            return Finding(Match.SAME, "text", "the texts are the same")
        return Finding(Match.UNSURE, "text", f"the right answer cannot be read: {error}")
    if right.op == "text":
        return _by_words(gold, response)
    try:
        given = parse(response)
    except (UnknownNotation, TooLarge) as error:
        return Finding(Match.UNSURE, "text", f"the answer cannot be read: {error}")
    except Unreadable as error:
        return Finding(Match.DIFFERENT, "text", f"the answer is no mathematics: {error}")
    comparison = Comparison(rules, work, symbolic, f"{gold}\n{response}")
    try:
        finding = comparison.match(right, given)
        if finding.match is Match.SAME:
            return finding
        # "1,234" is one number unless the other side has several answers
        if "," in gold and given.op in ("list", "set", "seq"):
            right = parse(gold, commas_separate=True)
        elif "," in response and right.op in ("list", "set", "seq"):
            given = parse(response, commas_separate=True)
        else:
            return finding
        return comparison.match(right, given)
    except TooMuchWork:
        raise
    except (TooLarge, NoValue, Unreadable) as error:
        return unsure("structure", f"the answers cannot be compared: {error}")
    except RecursionError:
        return unsure("structure", "the answers are nested too deeply")


def _squash(text: str) -> str:
    return text.replace(" ", "")


def _words(text: str) -> str:
    """Words for comparison: no commands for text, no braces and signs, small letters, single spaces."""
    text = re.sub(r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathbf|operatorname)\s*(?=\{)", "", text)
    text = re.sub(r"[{}$*_`\"'.,;:!?]", "", text)
    return " ".join(text.casefold().split())


def _by_words(gold: str, response: str) -> Finding:
    right, given = _words(gold), _words(response)
    choice = _CHOICE.fullmatch(right)
    if choice is not None:
        stated = _CHOICE.fullmatch(given)
        same = stated is not None and stated[1] == choice[1]
    else:
        same = right == given != ""
    return Finding(Match.SAME if same else Match.DIFFERENT, "text", f"the words are {'' if same else 'not '}the same")


def same(stage: str, reason: str) -> Finding:
    return Finding(Match.SAME, stage, reason)


def different(stage: str, reason: str) -> Finding:
    return Finding(Match.DIFFERENT, stage, reason)


def unsure(stage: str, reason: str) -> Finding:
    return Finding(Match.UNSURE, stage, reason)


class Comparison:
    """One comparison: its rules, the work that is left, and the seed of its random points."""

    def __init__(self, rules: Rules, work: Work, symbolic: Symbolic | None, seed: str) -> None:
        self.rules = rules
        self.work = work
        self.symbolic = symbolic
        self.seed = seed

    def match(self, gold: Node, given: Node) -> Finding:
        """Whether two answers of any kind are the same."""
        self.work.spend(5)
        if gold == given:
            return same("structure", "the answers are written alike")
        gold, given = spread(gold), spread(given)
        if gold.op == "based" or given.op == "based":
            return self._based(gold, given)
        if given.op == "text":
            return self._numeral(gold, given)
        if self._is_region(gold) or self._is_region(given):
            finding = self._regions(gold, given)
            if finding is not None:
                return finding
        if gold.op == "rel" or given.op == "rel":
            return self._relations(gold, given)
        if gold.op in ("list", "set") or given.op in ("list", "set"):
            return self._several(gold, given)
        if gold.op in ("seq", "matrix") or given.op in ("seq", "matrix"):
            return self._tuples(gold, given)
        if gold.op == "ratio" or given.op == "ratio":
            return self._ratios(gold, given)
        if gold.op in ("union", "intersection", "minus") or given.op in ("union", "intersection", "minus"):
            return self._structure(gold, given)
        return self._numbers(gold, given)

    # Several answers

    def _several(self, gold: Node, given: Node) -> Finding:
        rights, answers = _items(gold), _items(given)
        if max(len(rights), len(answers)) > MAX_ITEMS:
            return unsure("structure", f"there are more than {MAX_ITEMS} answers")
        if given.op == "seq" and gold.op in ("list", "set"):
            return different("structure", "a tuple is not a list of answers")
        if gold.op == "seq":
            endless = any(part == INFINITY for part in gold.walk())
            if given.op != "list" or gold.value != "()" or endless:
                return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
            return self._in_order(rights, answers)
        ordered = self.rules.ordered or any(item.op == "ellipsis" for item in (*rights, *answers))
        if any(item.op == "rel" for item in (*rights, *answers)):
            named = self._named(rights, answers)
            if named is not None:
                return named
        if ordered and "set" not in (gold.op, given.op):
            return self._in_order(rights, answers)
        if "set" in (gold.op, given.op) or gold.value == "±" or given.value == "±":
            return self._cover(rights, answers)
        if len(rights) != len(answers):
            return different("structure", f"there are {len(answers)} answers for {len(rights)}")
        return self._cover(rights, answers)

    def _in_order(self, rights: Sequence[Node], answers: Sequence[Node]) -> Finding:
        if len(rights) != len(answers):
            return different("structure", f"there are {len(answers)} entries for {len(rights)}")
        findings = []
        for right, answer in zip(rights, answers, strict=True):
            if (right.op == "ellipsis") != (answer.op == "ellipsis"):
                return different("structure", "the entries are of different kinds")
            finding = self.match(right, answer)
            if finding.match is Match.DIFFERENT:
                return finding
            findings.append(finding)
        return _weakest(findings)

    def _cover(self, rights: Sequence[Node], answers: Sequence[Node]) -> Finding:
        """Each right answer is given, and nothing else."""
        found: list[Finding] = []
        table = [[self.match(right, answer) for answer in answers] for right in rights]
        for findings in [*table, *map(list, zip(*table, strict=True))]:
            best = next((f for f in findings if f.match is Match.SAME), None)
            if best is None:
                maybe = next((f for f in findings if f.match is Match.UNSURE), None)
                if maybe is None:
                    return different("structure", "the answers are not the same ones")
                best = maybe
            found.append(best)
        if not found:
            empty = not rights and not answers
            return same("structure", "both are empty") if empty else different("structure", "one is empty")
        return _weakest(found)

    def _named(self, rights: Sequence[Node], answers: Sequence[Node]) -> Finding | None:
        """Values with names: x = 1, y = 2 in any order; one name for all is left out. None where it is neither."""
        named_rights, named = [_named_value(item) for item in rights], [_named_value(item) for item in answers]
        if None in named_rights or None in named:
            return None
        right_pairs = [pair for pair in named_rights if pair is not None]
        pairs = [pair for pair in named if pair is not None]
        right_names, names = {name for name, _ in right_pairs} - {None}, {name for name, _ in pairs} - {None}
        if len(right_names) <= 1 and len(names) <= 1:
            if right_names and names and right_names != names:
                return different("structure", "the names differ")
            if len(rights) != len(answers):
                return different("structure", f"there are {len(answers)} answers for {len(rights)}")
            return self._cover([value for _, value in right_pairs], [value for _, value in pairs])
        if len(right_pairs) == len(right_names) and len(pairs) == len(names):
            if right_names != names:
                return different("structure", "the names differ")
            by_name = dict(pairs)
            return self._in_order([value for _, value in right_pairs], [by_name[name] for name, _ in right_pairs])
        return None

    # Tuples, matrices, ratios, bases

    def _tuples(self, gold: Node, given: Node) -> Finding:
        if gold.op == given.op == "matrix":
            if gold.value != given.value:
                return different("structure", "the matrices differ in shape")
            return self._in_order(gold.args, given.args)
        if {gold.op, given.op} == {"matrix", "seq"}:
            matrix = gold if gold.op == "matrix" else given
            if matrix.value not in ("1", str(len(matrix.args))):
                return different("structure", "a matrix is not a tuple")
            return self._in_order(gold.args, given.args)
        if gold.op != given.op:
            return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
        alike = gold.value == given.value
        vectors = len(gold.args) > 2 and {gold.value, given.value} <= {"()", "[]"}
        if not alike and not vectors:
            return different("structure", "the brackets differ")
        return self._in_order(gold.args, given.args)

    def _ratios(self, gold: Node, given: Node) -> Finding:
        if gold.op == given.op:
            return self._in_order(gold.args, given.args)
        ratio, other = (gold, given) if gold.op == "ratio" else (given, gold)
        if len(ratio.args) != 2 or other.op not in ("num", "mul"):
            return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
        quotient = divide(*ratio.args)
        return self._numbers(quotient, given) if gold.op == "ratio" else self._numbers(gold, quotient)

    def _based(self, gold: Node, given: Node) -> Finding:
        alike = gold == given
        return (same if alike else different)("structure", f"digits and base are {'' if alike else 'not '}the same")

    def _numeral(self, gold: Node, given: Node) -> Finding:
        value = _NUMERALS.get(str(given.value).strip().casefold())
        if value is not None and gold.op in ("num", "mul"):
            return self._numbers(gold, num(value))
        if gold.op == "sym" and str(given.value).strip(" ().:") == gold.value:
            return same("text", "the letters are the same")
        return different("structure", "words are not the answer")

    # Regions of the real line

    def _is_region(self, node: Node) -> bool:
        if node.op in ("union", "intersection", "minus"):
            return True
        if node.op == "rel":
            return node.value != "" and not set(str(node.value)) <= set("=≈→≡~")
        if node.op == "opaque":
            return node.value == "reals"
        return node.op == "list" and bool(node.args) and all(map(self._is_region, node.args))

    def _regions(self, gold: Node, given: Node) -> Finding | None:
        """Compares as sets of real numbers; None where one of them is none."""
        right, stated = regions.read(gold, self.work), regions.read(given, self.work)
        if right is None or stated is None:
            return None
        if right.variable and stated.variable and right.variable != stated.variable:
            return different("structure", f"{stated.variable} is not {right.variable}")
        if len(right.pieces) != len(stated.pieces):
            return different("structure", "the intervals are not the same ones")
        findings: list[Finding] = []
        for a, b in zip(right.pieces, stated.pieces, strict=True):
            if (a.low_closed, a.high_closed) != (b.low_closed, b.high_closed):
                return different("structure", "an end of an interval is open in one and closed in the other")
            findings += [self.match(a.low, b.low), self.match(a.high, b.high)]
        return _weakest(findings) if findings else same("structure", "both are empty")

    # Equations and inequalities

    def _relations(self, gold: Node, given: Node) -> Finding:
        if gold.op == "rel" and given.op == "rel":
            if gold.value == given.value and len(gold.args) == len(given.args):
                found = canonical(gold) == canonical(given)
                if found:
                    return same("structure", "the relations are written alike")
            if str(given.value) == "==" or str(gold.value) == "==":
                gold, given = _last_equation(gold), _last_equation(given)
            return self._equations(gold, given)
        if gold.op == "rel":
            value = assignment(gold)[1]
            if value is None:
                return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
            return self.match(value, given)
        if not set(str(given.value)) <= set("=≈→"):
            return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
        sides = list(given.args)
        if _name_of(sides[0]) is not None and len(sides) > 1 and sides[0] != gold:
            sides = sides[1:]
        elif _name_of(sides[-1]) is not None and len(sides) > 1 and sides[-1] != gold:
            sides = sides[:-1]
        return _weakest([self.match(gold, side) for side in sides])

    def _equations(self, gold: Node, given: Node) -> Finding:
        signs, stated = str(gold.value), str(given.value)
        if len(signs) != 1 or len(stated) != 1 or len(gold.args) != 2 or len(given.args) != 2:
            return self._structure(gold, given)
        (name, value), (stated_name, stated_value) = assignment(gold), assignment(given)
        if value is not None and stated_value is not None and name == stated_name:
            return self.match(value, stated_value)
        direction = {"<": 1, "≤": 1, ">": -1, "≥": -1, "=": 0, "≠": 0}
        if signs not in direction or stated not in direction:
            return self._structure(gold, given)
        flipped = {">": "<", "≥": "≤"}
        if flipped.get(signs, signs) != flipped.get(stated, stated):
            return different("structure", "the signs of the relations differ")
        try:
            sides = []
            for node, sign in ((gold, signs), (given, stated)):
                difference = add(node.args[0], neg(node.args[1]))
                sides.append(neg(difference) if direction[sign] == -1 else difference)
            near = proportional(sides[0], sides[1], self.seed, self.work, positive=direction[signs] != 0)
        except TooMuchWork:
            raise
        except (NoValue, TooLarge):
            return self._structure(gold, given)
        if near is Nearness.EQUAL:
            return same("numeric", "one relation is a multiple of the other")
        if near is Nearness.DIFFERENT:
            return different("numeric", "the relations are not the same")
        return unsure("numeric", "the relations cannot be compared")

    # Numbers and formulas

    def _numbers(self, gold: Node, given: Node) -> Finding:
        """Two expressions, with units and percent signs."""
        right, unit = take_unit(gold, "none")
        letters: Literal["none", "clear", "all"] = "clear" if unit is None else "all"
        answer, stated = take_unit(given, "none" if right.symbols() else letters)
        if stated is not None and unit is None and _OTHER_NUMBER.search(stated):
            return different("structure", f"{stated!r} is no unit")
        if unit is not None or stated is not None:
            scaled = self._units(right, unit, answer, stated)
            if isinstance(scaled, Finding):
                return scaled
            right, answer = scaled
        if self.rules.evaluated and not _is_written_number(answer) and exact(right, self.work) is not None:
            return different("structure", "a number was asked for, not a calculation")
        if "text" in (right.op, answer.op) or right.has("text") or answer.has("text"):
            return self._structure(right, answer)
        if right.op == "percent" or answer.op == "percent":
            return self._percent(right, answer)
        return self.expressions(right, answer)

    def _units(self, right: Node, unit: str | None, answer: Node, stated: str | None) -> Finding | tuple[Node, Node]:
        wanted = read_unit(unit) if unit is not None else None
        found = read_unit(stated) if stated is not None else None
        if (unit is not None and wanted is None) or (stated is not None and found is None):
            alike = _words(unit or "") == _words(stated or "")
            return (right, answer) if alike else different("structure", "the units differ")
        if wanted is not None and found is not None and wanted.powers and found.powers:
            if wanted.powers != found.powers:
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
            rounded = self._rounded(gold, given, right)
            if rounded is not None:
                return rounded
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are the same but for order")
        return self._evaluate(gold, given)

    def _too_large(self, gold: Node, given: Node, error: TooLarge) -> Finding:
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are the same but for order")
        return unsure("exact", f"the answer cannot be calculated: {error}")

    def _rounded(self, gold: Node, given: Node, right: Fraction | None) -> Finding | None:
        if gold.symbols() or given.symbols():
            return None
        near, stated = approximate(gold, self.work), approximate(given, self.work)
        if near is None or stated is None:
            return None
        difference = abs(near - stated)
        if self.rules.rounding == "places":
            places = _places(right)
            if places is None:
                return None
            limit: Any = Fraction(1, 2 * 10**places)
        else:
            scale = float(abs(near).mid()) if near != 0 else 0.0
            digits = len(f"{scale:.0e}") and int(f"{scale:e}".partition("e")[2]) if scale else 0
            limit = Fraction(10) ** (digits + 1 - int(self.rules.rounding)) / 2
        within = difference <= type(near)(f"{limit.numerator}") / limit.denominator
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

    def _structure(self, gold: Node, given: Node) -> Finding:
        if canonical(gold) == canonical(given):
            return same("structure", "the answers are written alike")
        if gold.op != given.op:
            return different("structure", f"a {_kind(given)} is not a {_kind(gold)}")
        return unsure("structure", f"two answers of the kind {_kind(gold)} cannot be compared")

    def _symbolic(self, gold: Node, given: Node, reason: str) -> Finding:
        if self.symbolic is None:
            raise TooMuchWork("only computer algebra can decide")
        verdict = self.symbolic(gold, given)
        if verdict is None:
            return unsure("symbolic", f"it cannot be decided: {reason}")
        return (same if verdict else different)("symbolic", f"the difference is {'' if verdict else 'not '}zero")


def _weakest(findings: Sequence[Finding]) -> Finding:
    """DIFFERENT where one is, else UNSURE where one is, else SAME by the most expensive stage."""
    for match in (Match.DIFFERENT, Match.UNSURE):
        for finding in findings:
            if finding.match is match:
                return finding
    order = ("text", "exact", "structure", "numeric", "symbolic")
    return max(findings, key=lambda finding: order.index(finding.stage))


def _kind(node: Node) -> str:
    names = {
        **{"rel": "relation", "list": "list of answers", "seq": "tuple or interval", "set": "set", "text": "word"},
        **{"union": "union", "percent": "percentage", "based": "number with a base", "ratio": "ratio"},
    }
    return names.get(node.op, "matrix" if node.op == "matrix" else "value")


def spread(node: Node) -> Node:
    """± as two answers, in the answer itself and among several; a list of one is that one."""
    if node.op in ("list", "set"):
        items = [part for item in node.args for part in _signs(item)]
        if len(items) == 1 and node.op == "list":
            return items[0]
        return Node(node.op, "±" if node.op == "list" and len(items) > len(node.args) else node.value, tuple(items))
    if node.has("pm") and node.op != "seq":
        return Node("list", "±", tuple(_signs(node)))
    return node


def _signs(node: Node) -> list[Node]:
    """An answer with each choice of its signs; ± and ∓ together change together."""
    signs = [part for part in node.walk() if part.op == "pm"]
    if not signs:
        return [node]
    if len(signs) > 4:
        raise TooLarge("there are more than four signs ±")
    together = any(sign.value == "-" for sign in signs)
    if together:
        return [_choose(node, "+"), _choose(node, "-")]
    variants = [node]
    for _ in signs:
        variants = [choice for variant in variants for choice in _first_sign(variant)]
    return variants


def _choose(node: Node, upper: str) -> Node:
    """The answer with all upper signs ("+"), or with all lower ones ("-")."""
    args = tuple(_choose(arg, upper) for arg in node.args)
    if node.op == "pm":
        return args[0] if node.value == upper else neg(args[0])
    return Node(node.op, node.value, args) if args else node


def _first_sign(node: Node) -> list[Node]:
    """Both choices of the first ± in a node."""
    if node.op == "pm":
        return [node.args[0], neg(node.args[0])]
    for index, arg in enumerate(node.args):
        if arg.has("pm"):
            before, after = node.args[:index], node.args[index + 1 :]
            return [Node(node.op, node.value, (*before, choice, *after)) for choice in _first_sign(arg)]
    return [node]


def _items(node: Node) -> tuple[Node, ...]:
    return node.args if node.op in ("list", "set", "seq") else (node,)


def _name_of(node: Node) -> str | None:
    """The name that a side of an equation is: x, or f in f(x)."""
    if node.op == "sym":
        return str(node.value)
    if node.op == "seq" and node.value == "()" and all(part.op == "sym" for part in node.args):
        return f"({','.join(str(part.value) for part in node.args)})"
    if node.op == "mul" and len(node.args) == 2 and node.args[0].op == "sym":
        inner = node.args[1]
        if inner.op == "sym" or (inner.op == "seq" and all(part.op == "sym" for part in inner.args)):
            return f"{node.args[0].value}({','.join(sorted(inner.symbols()))})"
    return None


def assignment(node: Node) -> tuple[str | None, Node | None]:
    """The name and the value of "x = 5" (or "5 = x"); (None, None) where it is no such thing."""
    if node.op != "rel" or node.value not in ("=", "≈", "→") or len(node.args) != 2:
        return None, None
    left, right = node.args
    for side, value in ((left, right), (right, left)):
        name = _name_of(side)
        if (
            name is not None
            and not ({name.partition("(")[0]} | (side.symbols() if side.op == "seq" else set())) & value.symbols()
        ):
            return name, value
    return None, None


def _named_value(item: Node) -> tuple[str | None, Node] | None:
    """The name (None without one) and the value of one of several answers; None where it is another relation."""
    if item.op != "rel":
        return None, item
    name, value = assignment(item)
    return None if value is None else (name, value)


def _last_equation(node: Node) -> Node:
    """The last of several equal sides with the first: a = b = c as a = c."""
    if node.op == "rel" and set(str(node.value)) == {"="} and len(node.args) > 2:
        return Node("rel", "=", (node.args[0], node.args[-1]))
    return node


def _places(value: Fraction | None) -> int | None:
    """Decimal places of a number whose decimals end, else None."""
    if value is None:
        return None
    for places in range(0, 30):
        if (value * 10**places).denominator == 1:
            return places
    return None


_UNCLEAR_LETTERS = ("m", "K", "M")
"""5 m may be five metres and five million."""


def take_unit(node: Node, letters: Literal["none", "clear", "all"]) -> tuple[Node, str | None]:
    """A value and its unit. letters: which single letters after a number, as in "5 g", may be one."""
    if node.op == "percent":
        return node, None
    if node.op != "mul":
        return node, None
    rest: list[Node] = []
    words: list[str] = []
    unclear = False
    for arg in node.args:
        base, exponent = (arg.args[0], arg.args[1]) if arg.op == "pow" else (arg, None)
        if arg == DEGREE:
            words.append("deg")
        elif base.op == "text":
            text = str(base.value)
            if exponent is None:
                words.append(text)
            elif exponent.op == "num":
                words.append(f"/ {text}" if exponent.value == -1 else f"{text}^{exponent.value}")
            else:
                return node, None
        elif letters != "none" and rest and base.op == "sym" and known(str(base.value)) and _is_number(rest):
            if exponent is not None and exponent.op != "num":
                return node, None
            unclear |= str(base.value) in _UNCLEAR_LETTERS
            count = None if exponent is None else exponent.value
            words.append(f"/ {base.value}" if count == -1 else f"{base.value}" + ("" if count is None else f"^{count}"))
        else:
            rest.append(arg)
    if not words or not rest or (unclear and len(words) == 1 and letters == "clear"):
        return node, None
    return mul(*rest), " ".join(words)


def _is_written_number(node: Node) -> bool:
    """Whether a node is a number or a fraction as written down."""
    if node.op == "percent":
        return _is_written_number(node.args[0])
    parts = node.args if node.op == "mul" and len(node.args) <= 3 else (node,)
    signs, *_ = parts if parts[0] == num(-1) and len(parts) > 1 else (None,)
    parts = parts[1:] if signs is not None else parts
    if len(parts) == 2 and parts[1].op == "pow" and parts[1].args[1] == num(-1):
        parts = (parts[0], parts[1].args[0])
    elif len(parts) != 1:
        return False
    return all(part.op == "num" for part in parts)


def _is_number(nodes: Sequence[Node]) -> bool:
    return not any(node.symbols() for node in nodes)

"""Decide whether two answers are the same, in stages of rising cost.

Invariant: SAME and DIFFERENT are only said for a reason that holds; whatever cannot be told is UNSURE. What a response
leaves out (a unit, a name, brackets of a tuple) may be forgiven, what it states otherwise never is; and several answers
are never one (tests/test_math_compare.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import regions
from .answers import assignment, items_of, kind_of, last_equation, name_of, named_value, numeral, spread
from .errors import NoValue, TooLarge, TooMuchWork, UnknownNotation, Unreadable
from .expression import INFINITY, Node, add, canonical, divide, neg, num
from .finding import Finding, Match, Rules, Symbolic, different, same, unsure, weakest
from .notation import clean, plain_words
from .numerical import Nearness, approximate, proportional
from .parser import parse
from .quantities import Quantities
from .work import Work

MAX_ITEMS = 60
"""Most answers in one list."""

_INTEGER = re.compile(r"-?[0-9]{1,300}")
_SYNONYMS = {
    **dict.fromkeys(("no solution", "no solutions", "empty set", "the empty set"), r"\emptyset"),
    **dict.fromkeys(("all real numbers", "all reals", "the real numbers"), r"\mathbb{R}"),
    **dict.fromkeys(("dne", "does not exist"), r"\text{DNE}"),
}
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z,]) +| +(?![0-9A-Za-z])")
_WORD = re.compile(r"(?![abcdxyz]+$)(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{3,}|[A-Z]{2,}")
"""A word and not a product of letters, so that god is not dog."""
_LABEL = re.compile(
    r"(?:\\text(?:bf|rm)?\s*\{\s*\(?([A-J])[).:]*\s*\}\s*|\(([A-J])\)\s+|([A-J])[).:]\s+)(?=[^\s=<>+*/^_-])"
)
"""The letter of a choice before its text: (B) 42."""
_DOUBT = re.compile(r"\b(?:not|n't|isn|wrong|incorrect|or|none|neither|maybe|perhaps|no|never)\b", re.IGNORECASE)
_LETTER = re.compile(r"\(?\b[A-J]\b\)?")
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?\s*[.):]?", re.IGNORECASE)


def compare(gold: str, response: str, rules: Rules, work: Work, symbolic: Symbolic | None = None) -> Finding:
    """Whether the text of an answer says the same as the right one.

    work bounds the operations; TooMuchWork is raised where it does not suffice, and where only computer algebra can
    decide and `symbolic` is None.
    """
    if gold.strip() == response.strip():
        return same("text", "the texts are the same")
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(response):
        equal = int(gold) == int(response)
        return same("exact", "the numbers are equal") if equal else different("exact", "the numbers are not equal")
    try:
        gold_text = clean(gold)
    except TooLarge as error:
        return unsure("text", f"the right answer cannot be read: {error}")
    try:
        response_text = clean(response)
    except TooLarge as error:
        return unsure("text", str(error))
    if not response_text:
        return different("text", "the answer is empty")
    gold_text, response_text = (_SYNONYMS.get(plain_words(t), t) for t in (gold_text, response_text))
    if _squash(gold_text) == _squash(response_text):
        return same("text", "the texts are the same")
    return _by_meaning(gold_text, response_text, rules, work, symbolic)


def _by_meaning(gold: str, response: str, rules: Rules, work: Work, symbolic: Symbolic | None) -> Finding:
    try:
        right = parse(gold)
    except (Unreadable, TooLarge) as error:
        if plain_words(gold) == plain_words(response) and any(map(str.isalnum, gold)):
            return same("text", "the texts are the same")
        return unsure("text", f"the right answer cannot be read: {error}")
    label, rest = _labelled(response)
    words = right.op == "text" or (_WORD.fullmatch(gold) and _WORD.fullmatch(response))
    if words or (label and re.fullmatch("[A-J]", gold)):
        return _by_words(gold, response)
    if label and label not in right.symbols():  # "(B) 42" is 42 where no letter was asked for
        response = rest
    in_words = numeral(response)
    try:
        given = parse(response) if in_words is None else num(in_words)
    except (UnknownNotation, TooLarge) as error:
        return unsure("text", f"the answer cannot be read: {error}")
    except Unreadable as error:
        return different("text", f"the answer is no mathematics: {error}")
    comparison = Comparison(rules, work, symbolic, gold, response)
    try:
        finding = comparison.match(right, given)
        if finding.match is Match.SAME:
            return finding
        # "1,234" is one number unless the other side has several answers
        if gold.count(",") > 1 and given.op in ("list", "set", "seq"):
            right = parse(gold, commas_separate=True)
        elif "," in response and right.op in ("list", "set", "seq"):
            given = parse(response, commas_separate=True)
        elif right.symbols() and given.has("text"):
            given = parse(response, letters=True)
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
    """Without spaces, but for those that keep two words or numbers apart."""
    return _IDLE_SPACE.sub("", text)


def _by_words(gold: str, response: str) -> Finding:
    right, given = plain_words(gold), plain_words(response)
    choice = _CHOICE.fullmatch(right)
    if choice is not None:
        stated, (label, rest) = _CHOICE.fullmatch(given), _labelled(response)
        chosen = label.casefold() == choice[1] and not _LETTER.search(rest) and not _DOUBT.search(rest)
        alike = chosen or (stated is not None and stated[1] == choice[1])
    else:
        alike = right == given != ""
    return same("text", "the words are the same") if alike else different("text", "the words are not the same")


def _best(findings: Sequence[Finding], used: set[int]) -> int | None:
    """Where the first SAME stands that is not used yet, else the first UNSURE; None where all are DIFFERENT."""
    for wanted in (Match.SAME, Match.UNSURE):
        for place, finding in enumerate(findings):
            if finding.match is wanted and place not in used:
                return place
    return None


def _elements(node: Node) -> Node:
    """x in {1, 2} as {1, 2}."""
    if node.op == "rel" and node.value == "∈" and node.args[1].op == "set":
        return node.args[1]
    return node


def _labelled(text: str) -> tuple[str, str]:
    """The letter of a choice that a text begins with ("" for none), and what stands behind it."""
    match = _LABEL.match(text)
    return ("", text) if match is None else (next(filter(None, match.groups())), text[match.end() :])


class Comparison(Quantities):
    """Compares answers of every kind."""

    def match(self, gold: Node, given: Node) -> Finding:
        """Whether two answers of any kind are the same."""
        self.work.spend(5)
        if gold == given:
            alike = "the numbers are equal" if gold.op == "num" else "the answers are written alike"
            return same("exact" if gold.op == "num" else "structure", alike)
        gold, given = _elements(spread(gold)), _elements(spread(given))
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
            return self.structure(gold, given)
        return self.numbers(gold, given)

    # Several answers

    def _several(self, gold: Node, given: Node) -> Finding:
        rights, answers = items_of(gold), items_of(given)
        if max(len(rights), len(answers)) > MAX_ITEMS:
            return unsure("structure", f"there are more than {MAX_ITEMS} answers")
        if given.op == "seq" and gold.op in ("list", "set"):
            values = [assignment(item) for item in gold.args]
            names = [name for name, _ in values]
            if given.value != "()" or None in names or names != sorted(set(names), key=str):
                return different("structure", "a tuple is not a list of answers")
            return self._in_order([value for _, value in values if value is not None], given.args)
        if gold.op == "seq":
            endless = any(part == INFINITY for part in gold.walk())
            if given.op != "list" or gold.value != "()" or endless:
                return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
            return self._in_order(rights, answers)
        if gold.op not in ("list", "set"):  # one answer in several forms, each of which must be it
            forms = [self.match(gold, answer) for answer in answers]
            alike = forms and not any(form.match is Match.DIFFERENT for form in forms)
            return weakest(forms) if alike else different("structure", f"there are {len(answers)} answers for 1")
        ordered = gold.op != "set" and self.rules.ordered
        ordered = ordered or any(item.op == "ellipsis" for item in (*rights, *answers))
        if any(item.op == "rel" for item in (*rights, *answers)):
            named = self._named(rights, answers, ordered)
            if named is not None:
                return named
        if ordered:
            return self._in_order(rights, answers)
        return self._cover(rights, answers, once="set" in (gold.op, given.op) or "±" in (gold.value, given.value))

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
        return weakest(findings)

    def _cover(self, rights: Sequence[Node], answers: Sequence[Node], once: bool = False) -> Finding:
        """Each right answer is given, and nothing else; how often does not count where `once` is enough."""
        if not once and len(rights) != len(answers):
            return different("structure", f"there are {len(answers)} answers for {len(rights)}")
        if not rights or not answers:
            alike = len(rights) == len(answers)
            return same("structure", "both are empty") if alike else different("structure", "one is empty")
        table = [[self.match(right, answer) for answer in answers] for right in rights]
        # Being the same is transitive, so any answer that is the same will do, and has then been used.
        used: set[int] = set()
        found: list[Finding] = []
        for row in table:
            best = _best(row, set() if once else used)
            if best is None:
                return different("structure", "the answers are not the same ones")
            used.add(best)
            found.append(row[best])
        for column in range(len(answers)):
            best = _best([row[column] for row in table], set())
            if best is None:
                return different("structure", "the answers are not the same ones")
            found.append(table[best][column])
        return weakest(found)

    def _named(self, rights: Sequence[Node], answers: Sequence[Node], ordered: bool) -> Finding | None:
        """Values with names: x = 1, y = 2 in any order; one name for all is left out. None where it is neither."""
        named_rights, named = [named_value(item) for item in rights], [named_value(item) for item in answers]
        if None in named_rights or None in named:
            return None
        right_pairs = [pair for pair in named_rights if pair is not None]
        pairs = [pair for pair in named if pair is not None]
        right_names, names = {name for name, _ in right_pairs} - {None}, {name for name, _ in pairs} - {None}
        if len(right_names) <= 1 and len(names) <= 1:
            if right_names and names and right_names != names:
                return different("structure", "the names differ")
            values = [value for _, value in right_pairs], [value for _, value in pairs]
            return self._in_order(*values) if ordered else self._cover(*values)
        if not right_names or not names:  # the names are left out: their order must be that of the right answer
            return self._in_order([value for _, value in right_pairs], [value for _, value in pairs])
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
            brackets = given.value if matrix is gold else gold.value
            if matrix.value not in ("1", str(len(matrix.args))) or brackets not in ("()", "[]"):
                return different("structure", "a matrix is not a tuple")
            return self._in_order(gold.args, given.args)
        if gold.op != given.op:
            return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
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
            return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
        quotient = divide(*ratio.args)
        return self.numbers(quotient, given) if gold.op == "ratio" else self.numbers(gold, quotient)

    def _based(self, gold: Node, given: Node) -> Finding:
        alike = gold == given
        return (same if alike else different)("structure", f"digits and base are {'' if alike else 'not '}the same")

    def _numeral(self, gold: Node, given: Node) -> Finding:
        value = numeral(str(given.value))
        if value is not None and gold.op in ("num", "mul"):
            return self.numbers(gold, num(value))
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
        return weakest(findings) if findings else same("structure", "both are empty")

    # Equations and inequalities

    def _relations(self, gold: Node, given: Node) -> Finding:
        if gold.op == "rel" and given.op == "rel":
            if canonical(gold) == canonical(given) and not self.rules.evaluated:
                return same("structure", "the relations are written alike")
            if str(given.value) == "==" or str(gold.value) == "==":
                gold, given = last_equation(gold), last_equation(given)
            return self._equations(gold, given)
        if gold.op == "rel":
            value = assignment(gold)[1]
            if value is None:
                return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
            return self.match(value, given)
        if not set(str(given.value)) <= set("=≈→"):
            return different("structure", f"a {kind_of(given)} is not a {kind_of(gold)}")
        sides = list(given.args)
        if name_of(sides[0]) is not None:
            sides = sides[1:] if sides[0] != gold else sides
        elif name_of(sides[-1]) is not None and sides[-1] != gold:
            sides = sides[:-1]
        if "≈" in str(given.value) and len(sides) == 2 and self.rules.rounding == "exact":
            return self._approximately(gold, *sides)
        return weakest([self.match(gold, side) for side in sides])

    def _approximately(self, gold: Node, first: Node, second: Node) -> Finding:
        """One side is the answer, and the other one the same but for rounding."""
        near = [approximate(side, self.work) for side in (first, second) if not side.symbols()]
        if (
            len(near) == 2
            and near[0] is not None
            and near[1] is not None
            and abs(near[0] - near[1]) < abs(near[0]) / 50
        ):
            findings = [self.match(gold, side) for side in (first, second)]
            return next((finding for finding in findings if finding.match is Match.SAME), findings[0])
        return different("structure", "the sides of ≈ are not near each other")

    def _equations(self, gold: Node, given: Node) -> Finding:
        signs, stated = str(gold.value), str(given.value)
        if len(signs) != 1 or len(stated) != 1 or len(gold.args) != 2 or len(given.args) != 2:
            return self.structure(gold, given)
        (name, value), (stated_name, stated_value) = assignment(gold), assignment(given)
        if value is not None and stated_value is not None and name == stated_name:
            return self.match(value, stated_value)
        direction = {"<": 1, "≤": 1, ">": -1, "≥": -1, "=": 0, "≠": 0}
        if signs not in direction or stated not in direction:
            return self.structure(gold, given)
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
            return self.structure(gold, given)
        if near is Nearness.EQUAL:
            return same("numeric", "one relation is a multiple of the other")
        if near is Nearness.DIFFERENT:
            return different("numeric", "the relations are not the same")
        return unsure("numeric", "the relations cannot be compared")

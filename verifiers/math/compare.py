"""Decide whether two answers are the same, in stages of rising cost.

Invariant: SAME and DIFFERENT are only said for a reason that holds; whatever cannot be told is UNSURE. What a response
leaves out (a unit, a name, brackets of a tuple) may be forgiven, what it states otherwise never is; and several answers
are never one (tests/test_math_compare.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import regions
from .answers import NUMERALS, assignment, items_of, kind_of, last_equation, name_of, named_value, spread
from .errors import NoValue, TooLarge, TooMuchWork, UnknownNotation, Unreadable
from .expression import INFINITY, Node, add, canonical, divide, neg, num
from .finding import Finding, Match, Rules, Symbolic, different, same, unsure, weakest
from .notation import clean, plain_words
from .numerical import Nearness, proportional
from .parser import parse
from .quantities import Quantities
from .work import Work

MAX_ITEMS = 60
"""Most answers in one list."""

_INTEGER = re.compile(r"-?[0-9]{1,300}")
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z]) +| +(?![0-9A-Za-z])")
_WORD = re.compile(r"(?=[A-Za-z]*[aeiouAEIOU])[A-Za-z]{3,}")
"""A word and not a product of letters, so that god is not dog."""
_LABEL = re.compile(r"(?:\\text(?:bf|rm)?\s*\{\s*\(?([A-J])[).:]*\s*\}|\(([A-J])\)|([A-J])[).:])\s*(?=[^\s=<>+*/^_])")
"""The letter of a choice before its text: (B) 42."""
_LETTER = re.compile(r"\(?\b[A-J]\b\)?")
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
        if plain_words(gold) == plain_words(response) and any(map(str.isalnum, gold)):
            return Finding(Match.SAME, "text", "the texts are the same")
        return Finding(Match.UNSURE, "text", f"the right answer cannot be read: {error}")
    label, rest = _labelled(response)
    words = right.op == "text" or (_WORD.fullmatch(gold) and _WORD.fullmatch(response))
    if words or (label and re.fullmatch("[A-J]", gold)):
        return _by_words(gold, response)
    if label and label not in right.symbols():  # "(B) 42" is 42 where no letter was asked for
        response = rest
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
        chosen = label.casefold() == choice[1] and not _LETTER.search(rest)
        same = chosen or (stated is not None and stated[1] == choice[1])
    else:
        same = right == given != ""
    return Finding(Match.SAME if same else Match.DIFFERENT, "text", f"the words are {'' if same else 'not '}the same")


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
        return weakest(findings)

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
        return weakest(found)

    def _named(self, rights: Sequence[Node], answers: Sequence[Node]) -> Finding | None:
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
        value = NUMERALS.get(str(given.value).strip().casefold())
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
            if gold.value == given.value and len(gold.args) == len(given.args):
                found = canonical(gold) == canonical(given)
                if found:
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
        if name_of(sides[0]) is not None and len(sides) > 1 and sides[0] != gold:
            sides = sides[1:]
        elif name_of(sides[-1]) is not None and len(sides) > 1 and sides[-1] != gold:
            sides = sides[:-1]
        return weakest([self.match(gold, side) for side in sides])

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

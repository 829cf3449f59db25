"""Find the answer in a response: where it was marked, and what exactly stands there.

Invariant: the rules are tried in the given order and the first one whose marker is present decides alone. What it marks
may be no answer at all; that is a wrong answer then, and no reason to look further. Every rule is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from .errors import VerifierError
from .numbers import CURRENCY, MINUS, NUMBER, Percent, match_value

Rule = Literal["boxed", "first_boxed", "all_boxed", "tag", "hash", "phrase", "math", "bare", "last"]
"""boxed, first_boxed, all_boxed: the last, the first, all \\boxed{…}. tag: the last <answer>…</answer>. hash: the line
after the last ####. phrase: what follows the last "the answer is" or "Answer:". math: the last formula in $…$, \\(…\\)
or \\[…\\]. bare: the whole response. last: the last number anywhere, the weak form: it also finds numbers that were not
meant as the answer. Answers of one rule that only "or", "and" or a comma separates are taken together."""

STRICT: tuple[Rule, ...] = ("hash", "tag", "boxed", "bare")
"""For policies that were told a format."""
USUAL: tuple[Rule, ...] = ("boxed", "tag", "hash", "phrase", "math", "bare")
"""For models that answer as they like."""
LENIENT: tuple[Rule, ...] = ("boxed", "tag", "hash", "phrase", "math", "last")

MAX_RESPONSE_CHARS = 200_000
"""Only so many characters at the end of a response are read."""
_LAST_NUMBER_CHARS = 4_000
_GLUED = re.compile(r"(?<!\w)(?:[0-9]+[.,](?=[0-9]))*\w*(?:[0-9][eE][-+]|[^\W\d_])[0-9]\w*(?:\.[0-9]\w*)?")
"""A word in which a digit follows a letter (1e3, 2e-3, x2): no number, and none is inside."""
_PHRASE = re.compile(
    r"answer[*_\s]{0,4}(?:(?:is|are|equals|would be|should be|must be|to be)\b[*_\s]{0,4}[:=]?|[:=])[*_\s]{0,8}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?=\s+[A-Z(]|\s*\Z)|\n")
_BETWEEN = re.compile(r"\s*\$?\s*[,;]?\s*(?:or|and|or maybe|or else|and/or|/|,|;)\s*\$?\s*", re.IGNORECASE)
_FOLLOWS = re.compile(r"\s*(?:[,;/]|or\b|and\b)", re.IGNORECASE)
_CLOSERS = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}


@dataclass(frozen=True)
class Extraction:
    """What a rule found: a text, from the places `start` to `end` of the response (or joined from pieces there)."""

    rule: Rule
    text: str
    start: int
    end: int


def check_order(order: Sequence[Rule]) -> None:
    """Raise VerifierError where a rule is unknown or there is none."""
    known = get_args(Rule)
    unknown = [rule for rule in order if rule not in known]
    if unknown or not order:
        raise VerifierError(f"Unknown extraction rule {unknown[0] if unknown else ()!r}. Known: {', '.join(known)}.")


def extract_answer(response: str, order: Sequence[Rule] = USUAL) -> Extraction | None:
    """What the first applicable rule of `order` finds, or None where no rule applies.

    "bare" always applies and therefore ends the order.
    """
    offset = max(len(response) - MAX_RESPONSE_CHARS, 0)
    text = response[offset:]
    for rule in order:
        found = _RULES[rule](text)
        if found is not None:
            content, start, end = found
            return Extraction(rule, content.strip(), start + offset, end + offset)
    return None


_Found = tuple[str, int, int]


def _hash(text: str) -> _Found | None:
    start = text.rfind("####")
    if start == -1:
        return None
    start += 4
    line = text[start:].split("\n", 1)[0]
    return line.lstrip("#"), start, start + len(line)


def _tag(text: str) -> _Found | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end != -1 else -1
    return None if start == -1 else (text[start + 8 : end], start + 8, end)


def _boxes(text: str, most: int | None = None) -> list[tuple[int, int, int]]:
    """Outermost boxes from left to right: where each begins, and its content from where to where (unclosed: empty)."""
    boxes: list[tuple[int, int, int]] = []
    position = 0
    while (most is None or len(boxes) < most) and (match := _BOX.search(text, position)) is not None:
        end = _closing(text, match.end())
        if end == -1:
            boxes.append((match.start(), match.end(), match.end()))
            break
        boxes.append((match.start(), match.end(), end))
        position = end
    return boxes


_BOX = re.compile(r"\\f?boxed\s*\{|\\fbox\s*\{")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)


def _closing(text: str, start: int) -> int:
    depth = 1
    for match in _BRACES.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return -1


def _boxed(text: str) -> _Found | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    chosen = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _BETWEEN.fullmatch(text, box[2] + 1, min(chosen[0][0], box[2] + 40)):
            break
        chosen.insert(0, box)
    return _joined(text, [(start, end) for _, start, end in chosen])


def _first_boxed(text: str) -> _Found | None:
    boxes = _boxes(text, most=1)
    return _joined(text, [(start, end) for _, start, end in boxes]) if boxes else None


def _all_boxed(text: str) -> _Found | None:
    boxes = _boxes(text)
    return _joined(text, [(start, end) for _, start, end in boxes]) if boxes else None


def _joined(text: str, spans: list[tuple[int, int]]) -> _Found:
    return " , ".join(text[start:end] for start, end in spans), spans[0][0], spans[-1][1]


def _phrase(text: str) -> _Found | None:
    match = None
    for found in _PHRASE.finditer(text):
        match = found
    if match is None:
        return None
    start = match.end()
    while start < len(text) and text[start].isspace():
        start += 1
    span = _formula_at(text, start)
    if span is not None:
        first, end, after = span
        if not _FOLLOWS.match(text, after):
            return text[first:end], first, end
    stop = _SENTENCE_END.search(text, start)
    end = stop.start() if stop else len(text)
    while end > start and (text[end - 1] in "*_" or text[end - 1].isspace()):  # the end of **Answer: 5**
        end -= 1
    return text[start:end], start, end


def _formula_at(text: str, start: int) -> tuple[int, int, int] | None:
    """The formula that begins at `start`: its content from where to where, and where the text goes on."""
    for opening, closing in _CLOSERS.items():
        if text.startswith(opening, start):
            first = start + len(opening)
            end = text.find(closing, first)
            while end > 0 and text[end - 1] == "\\" and closing[0] == "$":
                end = text.find(closing, end + 1)
            return None if end == -1 else (first, end, end + len(closing))
    return None


_FORMULA = re.compile(
    r"\$\$(?P<display>[^$]+)\$\$"
    r"|(?<![\\$])\$(?P<inline>(?:[^$\\\s]|\\[^\n])(?:[^$\\]|\\[^\n])*?)(?<!\s)\$(?![\d$])"
    r"|\\\((?P<round>(?:[^\\]|\\[^()\[\]])+)\\\)"
    r"|\\\[(?P<square>(?:[^\\]|\\[^()\[\]])+)\\\]",
    re.DOTALL,
)
_FORMULA_CHARS = 20_000
"""Formulas are looked for in so many characters at the end."""


def _math(text: str) -> _Found | None:
    offset = max(len(text) - _FORMULA_CHARS, 0)
    matches = list(_FORMULA.finditer(text, offset))
    if not matches:
        return None
    chosen = [matches[-1]]
    for match in reversed(matches[:-1]):
        if not _BETWEEN.fullmatch(text, match.end(), min(chosen[0].start(), match.end() + 40)):
            break
        chosen.insert(0, match)
    return _joined(text, [match.span(match.lastgroup or 0) for match in chosen])


def _bare(text: str) -> _Found | None:
    return text, 0, len(text)


def _last(text: str) -> _Found | None:
    found = last_number(text)
    if found is None:
        return None
    piece, _ = found
    start = text.rfind(piece)
    return piece, start, start + len(piece)


_RULES = {
    **{"boxed": _boxed, "first_boxed": _first_boxed, "all_boxed": _all_boxed, "tag": _tag, "hash": _hash},
    **{"phrase": _phrase, "math": _math, "bare": _bare, "last": _last},
}


def last_number(text: str, percent: Percent = "unit") -> tuple[str, Fraction] | None:
    """The last number in a text and its value; a minus right after a digit, letter or bracket is a subtraction."""
    text = _GLUED.sub("x", text[-_LAST_NUMBER_CHARS:])
    found = None
    for match in NUMBER.finditer(text):
        before = text[match.start() - 1] if match.start() else " "
        piece = match.group()
        if piece[0] in MINUS + "+" and (before.isalnum() or before in ")]%" + CURRENCY):
            retry = NUMBER.match(text, match.start() + 1)
            if retry is None:
                continue
            match = retry
        value = match_value(match, percent)
        if value is not None:
            found = (match.group().strip(), value)
    return found

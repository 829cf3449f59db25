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

from .braces import closing_brace
from .denial import clause_before, is_denial
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
    r"answer(?:\s+(?:to|for|of|in)\s[^.:\n$]{1,60}?)?[*_\s]{0,4}"
    r"(?:(?:is|are|equals|would be|should be|must be|to be)\b[*_\s]{0,4}[:=]?|[:=])[*_\s]{0,8}"
    r"|^#{1,6}[ \t]*(?:final[ \t]+)?answer[ \t]*$\s{0,8}",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!](?=\s+[A-Z(*]|\s*\Z)|\n")
_LINE_END = re.compile(r"\n")
_REJECTED = re.compile(r"\b(?:wrong|incorrect|false|could it)\b|\bvs\.?\s*\Z", re.IGNORECASE)
"""Words before an answer that reject it, beside those of any denial."""
_RETRACTED = re.compile(
    r"\s*(?:is|was|seems|looks)\s(?:wrong|incorrect|false|not)\b|\s*(?:is|was)n['’]t\b|\s*\?", re.IGNORECASE
)
_ASIDE = re.compile(r"(?:,\s*|\s+)(?:as|because|since|which|where|so)\b.*\Z|\s+\([a-z -]+\)\Z", re.DOTALL)
_SOFT_START = re.compile(r"(?:indeed|therefore|thus|simply|just|exactly|approximately|about)\s+", re.IGNORECASE)
_NOISE = re.compile(r"\\(?:quad|qquad|text(?:bf|it)?|,|;|!|:| )|\\[()\[\]]|[\s${}*~()]")
_OTHERWISE = r"(?:or|and|maybe|perhaps|possibly|else|alternatively|either|vs\.?|versus|but|though|\\lor|\\vee)\b"
_BETWEEN = re.compile(rf"(?:\s*(?:[,;/&+]|{_OTHERWISE}))+\s*", re.IGNORECASE)
_FOLLOWS = re.compile(rf"[.\s(]*(?:[,;/]\s*(?=[-+$\d\\(]|(?:or|and)\b)|{_OTHERWISE})", re.IGNORECASE)
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
    thought = response.rfind("</think>", offset)
    if thought != -1 and response[thought + 8 :].strip():  # what was only thought is no answer
        offset = thought + 8
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
    after = start + len(line)
    if line.strip()[:1].isalpha() and (_PHRASE.search(text, after) or _BOX.search(text, after)):
        return None  # a heading of Markdown, and the answer comes later
    return line.lstrip("#"), start, after


def _tag(text: str) -> _Found | None:
    lower = text.lower()
    if len(lower) != len(text):  # a letter that has no single small one; then only the usual spelling
        lower = text
    end = lower.rfind("</answer>")
    start = lower.rfind("<answer>", 0, end) if end != -1 else -1
    return None if start == -1 else (text[start + 8 : end], start + 8, end)


def _boxes(text: str, most: int | None = None) -> list[tuple[int, int, int]]:
    """Outermost boxes from left to right: where each begins, and its content from where to where (unclosed: empty)."""
    boxes: list[tuple[int, int, int]] = []
    position = 0
    while (most is None or len(boxes) < most) and (match := _BOX.search(text, position)) is not None:
        if match.group(1) is not None:  # \\boxed 42
            boxes.append((match.start(), *match.span(1)))
            position = match.end()
            continue
        end = closing_brace(text, match.end())
        if end == -1:
            boxes.append((match.start(), match.end(), match.end()))
            break
        boxes.append((match.start(), match.end(), end))
        position = end
    return boxes


_BOX = re.compile(r"\\f?boxed\s*(?:\{|(-?\d[\d.,/]*))|\\fbox\s*\{")


def _boxed(text: str) -> _Found | None:
    boxes = _boxes(text)
    if not boxes:
        return None
    chosen = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        if not _joins(text, box[2], chosen[0][0]):
            break
        chosen.insert(0, box)
    return _joined(text, [(start, end) for _, start, end in chosen])


def _joins(text: str, start: int, end: int) -> bool:
    """Whether nothing but "or", "and", a comma and the like stands between two answers."""
    return end - start <= 60 and _BETWEEN.fullmatch(_NOISE.sub(" ", text[start:end])) is not None


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
    clause = clause_before(text, match.start())
    denied = _denies(clause)
    span = None if denied else _formula_at(text, start)
    if span is not None:
        first, end, after = span
        if not _FOLLOWS.match(text, after) and not _RETRACTED.match(text, after):
            return text[first:end], first, end
    # Where an alternative follows the formula, perhaps in a sentence of its own, all of the line is the answer.
    stop = (_SENTENCE_END if span is None else _LINE_END).search(text, start)
    end = stop.start() if stop else len(text)
    while end > start and (text[end - 1] in "*_." or text[end - 1].isspace()):  # the end of **Answer: 5**
        end -= 1
    if denied:
        return text[match.start() - len(clause) : end], match.start() - len(clause), end
    soft = _SOFT_START.match(text, start, end)
    start = soft.end() if soft else start
    aside = _ASIDE.search(text, start, end)
    end = aside.start() if aside and aside.start() > start else end
    return text[start:end], start, end


def _denies(clause: str) -> bool:
    return is_denial(clause) or _REJECTED.search(clause) is not None


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
        if not _joins(text, match.end(), chosen[0].start()):
            break
        chosen.insert(0, match)
    clause = clause_before(text, chosen[0].start()).rpartition("$")[2]
    if _denies(clause) or _RETRACTED.match(text, chosen[-1].end()):
        start, end = chosen[0].start() - len(clause), min(chosen[-1].end() + 20, len(text))
        return text[start:end], start, end
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

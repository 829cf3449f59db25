"""Where the answer stands in a right response, so that another text can be put there.

Invariant: `fill(answer)` says what the response said, and a text put in stands wherever the answer was stated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .extraction import Rule, extract_answer
from .numbers import format_number, parse_number

_MARKERS: tuple[Rule, ...] = ("boxed", "tag", "hash")
_PHRASES: tuple[Rule, ...] = ("phrase", "math")
"""Asked where the gold answer does not stand in the response as it is written."""
_FENCED = re.compile(r"```[ \t]*\w*[ \t]*\n(.*?)\n[ \t]*```", re.DOTALL)
_LETTER = re.compile(r"([^A-Za-z]{0,3})([A-Za-z])([^A-Za-z]{0,3})")
WORDS = ("quince", "marmalade")
"""Made-up answers where nothing else is known to differ."""


@dataclass(frozen=True)
class AnswerPlace:
    """A right response around its answer. pieces: the texts before, between and after the places of the answer.

    known: the answer was found by a marker or by the gold answer's own text, or is all of the response; else the
    response counts as the answer although something in it may lead to it.
    """

    gold: Any
    response: str
    prompt: str
    pieces: tuple[str, ...]
    answer: str
    known: bool

    @property
    def enclosed(self) -> bool:
        """Whether an answer of several lines would be read as a whole: it is all there is, or in braces or tags."""
        return self.pieces == ("", "") or self.pieces[-1].lstrip()[:1] in ("}", "<", "`")

    @property
    def is_bare(self) -> bool:
        """Whether the response is nothing but the answer."""
        return self.pieces == ("", "")

    def fill(self, text: str, elsewhere: str | None = None) -> str:
        """The response with another text for its answer; `elsewhere` for all places but the last."""
        *first, last = self.pieces
        return (text if elsewhere is None else elsewhere).join(first) + text + last

    def holds(self, text: str) -> bool:
        """Whether a text holds the answer or the gold answer by itself, case aside."""
        known = [self.answer, *gold_texts(self.gold)]
        return any(_alone(one).search(text) is not None for one in known if one.strip())


def find_place(gold: Any, response: str, prompt: str = "") -> AnswerPlace:
    """Where the answer stands in a right response."""
    golds = gold_texts(gold)
    spots = [match.span() for one in golds for match in _alone(one).finditer(response)]
    written = max(spots, key=lambda span: (span[1], -span[0]), default=None)
    span = _marked(response, _MARKERS) or written or _marked(response, _PHRASES)
    if span is None:
        return AnswerPlace(gold, response, prompt, ("", ""), response.strip(), len(response.split()) == 1)
    start, end = span
    content = response[start:end]
    start, end = end - len(content.lstrip()), start + len(content.rstrip())
    answer, head, tail = response[start:end], response[:start], response[end:]
    golds = [answer, *golds]
    pattern = re.compile("|".join(_alone(one).pattern for one in sorted(golds, key=len, reverse=True)), re.IGNORECASE)
    pieces = (*pattern.split(head), *pattern.split(tail))
    return AnswerPlace(gold, response, prompt, pieces, answer, True)


def gold_texts(gold: Any) -> list[str]:
    """The texts by which a gold answer may stand in a response."""
    if isinstance(gold, list | tuple):
        texts = [text for one in gold for text in gold_texts(one)] + [_json(gold)]
    elif isinstance(gold, dict):
        texts = [_json(gold)]
    else:
        texts = [str(gold)]
    return [text.strip() for text in texts if text.strip()]


def made_up(answer: str) -> list[str]:
    """Answers of the same kind that are far from this one, the most alike first."""
    number = parse_number(answer)
    letter = _LETTER.fullmatch(answer)
    found: list[str] = []
    if number is not None:
        found = [format_number(10 * abs(number) + 7), format_number(abs(number) + Fraction(1033))]
    elif letter is not None:
        swaps = ("b", "c") if letter[2] in "aA" else ("a", "b" if letter[2] not in "bB" else "c")
        found = [letter[1] + (swap.upper() if letter[2].isupper() else swap) + letter[3] for swap in swaps]
    elif re.search(r"[0-9\\]", answer):
        found = ["917", "1033"]
    return [*found, *(word for word in WORDS if word not in answer.casefold())]


def contains(answer: str, other: str) -> bool:
    """Whether every word of the other answer stands in this one, so that naming it adds nothing."""
    return set(_words(other)) <= set(_words(answer))


def _marked(response: str, rules: Sequence[Rule]) -> tuple[int, int] | None:
    """From where to where the last marker of any kind marks something."""
    spans = [(match.start(1), match.end(1)) for match in _FENCED.finditer(response)][-1:]
    for rule in rules:
        found = extract_answer(response, (rule,))
        if found is not None and found.text:
            spans.append((found.start, found.end))
    return max(spans, default=None)


def _alone(text: str) -> re.Pattern[str]:
    """The text where it is no part of a longer word or number."""
    return re.compile(rf"(?<!\w)(?<![0-9][.,]){re.escape(text)}(?!\w)(?![.,][0-9])", re.IGNORECASE)


def _words(text: str) -> Sequence[str]:
    return re.findall(r"\w+|[^\w\s]", text.casefold())


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)

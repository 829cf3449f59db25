"""Pair: a right answer, a response, and whether the response means the same; and the register of all types of pairs.

Invariant: a type's claim holds for each of its pairs, by construction or by exact calculation, and its pairs depend on
the golds and the seed alone. What mathematicians would argue about is AMBIGUOUS, which is shown and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from random import Random

from .golds import Golds

ENOUGH = 40
"""Pairs of a type, at most; gold against itself has them all."""
FRAME = "The answer is $\\boxed{{{}}}$."
"""The response around an answer, where the type is not about responses."""


class Expected(StrEnum):
    """What a perfect verifier would say."""

    SAME = "same"
    """The response means what the gold means: it must be judged right."""
    DIFFERENT = "different"
    """It means something else, or nothing: it must not be judged right."""
    AMBIGUOUS = "ambiguous"
    """Mathematicians would argue; shown, not counted."""


@dataclass(frozen=True)
class Pair:
    """answer: what the response gives as its answer. source: MATH-500, GSM8K, or "made" by a seeded generator."""

    gold: str
    answer: str
    response: str
    expected: Expected
    type: str
    source: str


@dataclass(frozen=True)
class Draft:
    """What a generator yields. response: the whole response, where it is not the answer in the usual frame."""

    gold: str
    answer: str
    source: str = "made"
    response: str | None = None

    @property
    def text(self) -> str:
        """The whole response."""
        return FRAME.format(self.answer) if self.response is None else self.response


Drafts = Iterator[Draft]
Generator = Callable[[Golds, Random], Drafts]


@dataclass(frozen=True)
class Type:
    """A named generator of drafts. whole: takes all that it yields instead of ENOUGH."""

    name: str
    expected: Expected
    generate: Generator
    whole: bool = False

    def pairs(self, golds: Golds, seed: int, enough: int) -> list[Pair]:
        """Its pairs, each once; "(made)" or "(partly made)" in the name says how many have golds of no dataset."""
        drafts = self.generate(golds, Random(f"{seed}/{self.expected}/{self.name}"))
        if self.whole:
            chosen = list(drafts)
        else:
            chosen = list(islice(_once(islice(drafts, 50 * enough)), enough))
        made = sum(draft.source == "made" for draft in chosen)
        mark = "" if not made else " (made)" if made == len(chosen) else " (partly made)"
        return [
            Pair(draft.gold, draft.answer, draft.text, self.expected, self.name + mark, draft.source)
            for draft in chosen
        ]


def _once(drafts: Drafts) -> Drafts:
    seen: set[tuple[str, str]] = set()
    for draft in drafts:
        if (draft.gold, draft.text) not in seen:
            seen.add((draft.gold, draft.text))
            yield draft


TYPES: dict[tuple[Expected, str], Type] = {}
"""Every type, in the order of the table; the modules that generate register theirs on import."""


def _register(expected: Expected, name: str, whole: bool = False) -> Callable[[Generator], Generator]:
    def register(generate: Generator) -> Generator:
        if (expected, name) in TYPES:
            raise ValueError(f"There are two types {name!r} of {expected} pairs.")
        TYPES[expected, name] = Type(name, expected, generate, whole)
        return generate

    return register


def same(name: str, whole: bool = False) -> Callable[[Generator], Generator]:
    """Register a generator whose answers mean the same as their golds."""
    return _register(Expected.SAME, name, whole)


def different(name: str) -> Callable[[Generator], Generator]:
    """Register a generator whose responses do not give the answer of the gold."""
    return _register(Expected.DIFFERENT, name)


def ambiguous(name: str) -> Callable[[Generator], Generator]:
    """Register a generator of what mathematicians would argue about."""
    return _register(Expected.AMBIGUOUS, name)


def rewrite(golds: Golds, rng: Random, change: Callable[[str], str | None]) -> Drafts:
    """MATH-500's golds that `change` (None: not this one) turns into another text."""
    for gold in golds.shuffled(rng):
        answer = change(gold.text)
        if answer is not None and answer != gold.text:
            yield Draft(gold.text, answer, gold.source)

"""Repetition: how much of a text says again what it said before, and whether a sequence goes round in circles.

Invariant: `LoopDetector.push` answers from the tokens pushed so far alone, exactly as `Loop` defines a loop, in at most
max_period steps a token (tests/test_repetition.py).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any, Literal, get_args

from .errors import VerifierError
from .verdict import Verdict

Unit = Literal["words", "characters"]
"""words: runs of letters and digits, cut every 16 characters, and single signs. characters: every character."""

MAX_CHARS = 200_000
"""Only so many characters at the end of a response are read."""
MAX_NGRAM = 100
MAX_PERIOD = 4096
# Cut, since else a text without spaces, such as "abababab", would be a single word that repeats nothing.
_WORD = re.compile(r"\w{1,16}|[^\w\s]")


class RepetitionPenalty:
    """PARTIAL with minus the share of n-grams that stood in the text before: from 0 down to, but not at, -1.

    n: length of an n-gram. unit: what it is made of, see `Unit`; case does not count. A text shorter than n repeats
    nothing. The gold answer is ignored.

    Source: Demystifying Long Chain-of-Thought Reasoning in LLMs (arXiv:2502.03373), algorithm 1, summed up over the
    text: a penalty for each n-gram seen before, here per n-gram of the text, so that length alone changes nothing.
    """

    penalty = True
    """It takes away and earns nothing, see rubric.WeightedSum."""

    def __init__(self, n: int = 3, unit: Unit = "words") -> None:
        if not issubclass(type(n), Integral) or not 1 <= n <= MAX_NGRAM:
            raise VerifierError(f"n = {n!r} is no length of an n-gram; give 1 to {MAX_NGRAM}.")
        if unit not in get_args(Unit):
            raise VerifierError(f"unit = {unit!r} is unknown; choose 'words' or 'characters'.")
        self.n = n
        self.unit: Unit = unit

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """PARTIAL; the evidence counts n-grams and how many of them were repeated."""
        text = response[-MAX_CHARS:].lower()
        units = _WORD.findall(text) if self.unit == "words" else text
        total = max(0, len(units) - self.n + 1)
        distinct = len(set(zip(*(islice(units, shift, None) for shift in range(self.n)), strict=False)))
        repeated = total - distinct
        share = repeated / total if total else 0.0
        return Verdict.partial(
            0.0 - share, f"{repeated} of {total} {self.n}-grams had occurred before.", ngrams=total, repeated=repeated
        )


@dataclass(frozen=True)
class Loop:
    """When a sequence goes round in circles: its last max(repeats * p, min_tokens) tokens have period p <= max_period.

    In other words, the same block of p tokens stands there `repeats` times or more, in `min_tokens` tokens or more.
    """

    max_period: int = 64
    repeats: int = 4
    min_tokens: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.max_period <= MAX_PERIOD:
            raise VerifierError(f"max_period = {self.max_period} is out of range; give 1 to {MAX_PERIOD} tokens.")
        if self.repeats < 2:
            raise VerifierError(f"repeats = {self.repeats} is no repetition; give 2 or more.")
        if self.min_tokens < 1:
            raise VerifierError(f"min_tokens = {self.min_tokens} is out of range; give 1 or more.")


class LoopDetector:
    """Says after each token whether the sequence ends in a loop.

    For each period it would be enough to know for how long tokens have equalled those a period before. Only the periods
    at which the newest token does have such a run, so only those are kept: a handful in ordinary text.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._count = 0
        self._window: deque[Hashable] = deque()
        self._places: dict[Hashable, deque[int]] = {}
        self._runs: dict[int, int] = {}

    def push(self, token: Hashable) -> bool:
        """Append a token; whether the sequence now ends in a loop."""
        loop, now, before = self.loop, self._count, self._runs
        places = self._places.setdefault(token, deque())
        runs: dict[int, int] = {}
        found = False
        for place in places:
            period = now - place
            run = runs[period] = before.get(period, 0) + 1
            found = found or run + period >= max(loop.repeats * period, loop.min_tokens)
        self._runs = runs
        places.append(now)
        self._window.append(token)
        self._count += 1
        if len(self._window) > loop.max_period:
            oldest = self._window.popleft()
            self._places[oldest].popleft()
            if not self._places[oldest]:
                del self._places[oldest]
        return found

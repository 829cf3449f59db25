"""ExactMatch, TokenF1, EditSimilarity: how alike a response and a right answer are, as texts.

Invariant: both sides go through the same named steps of normalisation, and a right answer of which they leave nothing
is refused, since else an empty response would be right.
"""

from __future__ import annotations

import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from .errors import VerifierError
from .verdict import Verdict

Step = Literal["case", "punctuation", "articles", "whitespace"]
"""case: lower case. punctuation: ASCII signs are taken away, also the minus of "-5" and the point of "1.5". articles:
a, an, the are taken away. whitespace: runs of it become one space, and none is left at the ends."""

SQUAD: tuple[Step, ...] = ("case", "punctuation", "articles", "whitespace")
"""All of them, as SQuAD's own evaluation does; not for numbers, whose signs it takes away."""
PLAIN: tuple[Step, ...] = ("case", "whitespace")

MAX_CHARS = 200_000
"""A longer response is wrong unread."""
MAX_EDIT_CHARS = 20_000
"""The same for EditSimilarity, whose time grows with the square."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

Gold = str | int | float | Sequence[str | int | float]


def normalise(text: str, steps: Sequence[Step]) -> str:
    """The text after the named steps, which are always taken in the order of `Step`.

    Source: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (EMNLP 2016), section 6.1.
    """
    if "case" in steps:
        text = text.lower()
    if "punctuation" in steps:
        text = text.translate(_PUNCTUATION)
    if "articles" in steps:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split()) if "whitespace" in steps else text


class _TextMatch:
    """What the three share: the right answers, the longest response, and the best likeness to one of them."""

    max_chars = MAX_CHARS

    def __init__(self, steps: Sequence[Step]) -> None:
        if not isinstance(steps, list | tuple):
            raise VerifierError(
                f"steps = {steps!r:.100} must be a list of steps such as ('case',); a threshold needs its name,"
                " threshold=0.5."
            )
        unknown = [step for step in steps if step not in get_args(Step)]
        if unknown:
            raise VerifierError(f"Unknown step of normalisation {unknown[0]!r}. Known: {', '.join(get_args(Step))}.")
        self.steps = tuple(steps)

    def _golds(self, gold: Gold) -> list[str]:
        several = [gold] if isinstance(gold, str | int | float) else gold
        if not isinstance(several, list | tuple) or not all(isinstance(one, str | int | float) for one in several):
            raise VerifierError(f"The right answer {gold!r:.200} is no text and no list of texts; correct the task.")
        found = [normalise(str(one), self.steps) for one in several]
        if not found or not all(one.strip() for one in found):
            steps = ", ".join(self.steps) or "none"
            raise VerifierError(
                f"The right answer {gold!r:.200} is empty after normalisation (steps: {steps}); correct the task or"
                " take fewer steps."
            )
        if any(len(one) > self.max_chars for one in found):
            raise VerifierError(f"The right answer is longer than {self.max_chars:,} characters; shorten it.")
        return found

    def _best(self, gold: Gold, response: str, likeness: Callable[[str, str], float]) -> tuple[float, str] | None:
        """The highest likeness of the response to one of the right answers, and which; None for a response too long."""
        golds = self._golds(gold)
        if len(response) > self.max_chars:
            return None
        text = normalise(response, self.steps)
        return max(((likeness(one, text), one) for one in golds), key=lambda pair: pair[0])

    def _too_long(self) -> Verdict:
        return Verdict.wrong(f"The response is longer than {self.max_chars:,} characters.")


class ExactMatch(_TextMatch):
    """CORRECT where the whole response equals the right answer, or one of several, after normalisation.

    steps: of the normalisation, see `Step`; () compares character by character.
    """

    def __init__(self, steps: Sequence[Step] = PLAIN) -> None:
        super().__init__(steps)

    def verify(self, gold: Gold, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT or WRONG. Raises VerifierError where gold is empty after normalisation."""
        best = self._best(gold, response, lambda one, text: float(one == text))
        if best is None:
            return self._too_long()
        value, expected = best
        if value:
            return Verdict.correct("The text is the right one.", expected=expected)
        return Verdict.wrong("The text is not the right one.", expected=expected)


class _Similarity(_TextMatch, ABC):
    """A likeness between 0 and 1, either paid as it is or held against a threshold."""

    name = ""

    def __init__(self, steps: Sequence[Step], threshold: float | None) -> None:
        super().__init__(steps)
        if threshold is not None and not 0.0 < threshold <= 1.0:
            raise VerifierError(f"threshold = {threshold} must be above 0 and at most 1; change it.")
        self.threshold = threshold

    @abstractmethod
    def _likeness(self, one: str, text: str) -> float:
        """How alike a right answer and a response are, both normalised."""

    def verify(self, gold: Gold, response: str, *, prompt: str = "") -> Verdict:
        """The best over several right answers. Raises VerifierError where gold is empty after normalisation."""
        best = self._best(gold, response, self._likeness)
        if best is None:
            return self._too_long()
        value, expected = best
        evidence = {"score": value, "expected": expected}
        reason = f"The {self.name} is {value:.3f}"
        if self.threshold is not None:
            reason += f", and {self.threshold} is asked for."
            right = value >= self.threshold
            return Verdict.correct(reason, **evidence) if right else Verdict.wrong(reason, **evidence)
        if value in (0.0, 1.0):
            return Verdict.correct(f"{reason}.", **evidence) if value else Verdict.wrong(f"{reason}.", **evidence)
        return Verdict.partial(value, f"{reason}.", **evidence)


class TokenF1(_Similarity):
    """F1 of the words that response and right answer share, whatever their order: PARTIAL, CORRECT at 1, WRONG at 0.

    steps: of the normalisation, see `Step`. threshold: makes it CORRECT from there on and WRONG below.
    Source: SQuAD (Rajpurkar et al. 2016), section 6.1; with several right answers, the best F1.
    """

    name = "token F1"

    def __init__(self, steps: Sequence[Step] = SQUAD, threshold: float | None = None) -> None:
        super().__init__(steps, threshold)

    def _likeness(self, one: str, text: str) -> float:
        right, said = Counter(one.split()), Counter(text.split())
        # 2 * precision * recall / (precision + recall), where both have the shared words above the line.
        return 2 * (right & said).total() / (right.total() + said.total())


class EditSimilarity(_Similarity):
    """1 - (edit distance of Levenshtein) / (length of the longer text): PARTIAL, CORRECT at 1, WRONG at 0.

    steps: of the normalisation, see `Step`. threshold: makes it CORRECT from there on and WRONG below. Neither text
    may have more than MAX_EDIT_CHARS characters.
    """

    name = "edit similarity"
    max_chars = MAX_EDIT_CHARS

    def __init__(self, steps: Sequence[Step] = (), threshold: float | None = None) -> None:
        super().__init__(steps, threshold)

    def _likeness(self, one: str, text: str) -> float:
        from rapidfuzz.distance import Levenshtein

        return 1.0 - Levenshtein.distance(one, text) / max(len(one), len(text))

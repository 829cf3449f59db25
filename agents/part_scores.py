"""PartScore: what the verifiers of a rubric said over many episodes, each by its path.

Invariant: a mean is over values that were really given. UNDECIDED, ERROR and "not asked" are counted apart, and what an
episode lost to the infrastructure says is in no mean (tests/test_rubric.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from ..verifiers.part import was_asked
from ..verifiers.verdict import Outcome, Verdict
from .statistics import wilson_interval
from .trajectory import Episode


@dataclass(frozen=True)
class PartScore:
    """One part over many episodes.

    mean: of its `judged` values, None where there are none. low, high: the 95% Wilson interval of the mean where each
    was CORRECT with 1 or WRONG with 0, else None. undecided, errors, not_asked: how often it gave none, and why.
    """

    mean: float | None
    low: float | None
    high: float | None
    judged: int
    undecided: int
    errors: int
    not_asked: int


def part_scores(episodes: Sequence[Episode]) -> dict[str, PartScore]:
    """The parts of all verdicts by path, in the order in which they first appear."""
    kept: dict[str, list[Verdict]] = {}
    failed: dict[str, int] = {}
    for episode in episodes:
        for path, part in episode.verdict.walk() if episode.verdict else ():
            verdicts = kept.setdefault(path, [])
            if part.outcome is Outcome.ERROR:
                failed[path] = failed.get(path, 0) + 1
            elif episode.reward is not None:
                verdicts.append(part)
    return {path: _score(verdicts, failed.get(path, 0)) for path, verdicts in kept.items()}


def _score(verdicts: Sequence[Verdict], errors: int) -> PartScore:
    values = [verdict.value for verdict in verdicts if verdict.value is not None]
    unasked = sum(not was_asked(verdict) for verdict in verdicts)
    low, high = None, None
    # A measure that happens to be 0 everywhere is no share.
    judged = [verdict for verdict in verdicts if verdict.value is not None]
    if judged and all(v.outcome in (Outcome.CORRECT, Outcome.WRONG) and v.value in (0.0, 1.0) for v in judged):
        low, high = wilson_interval(sum(value == 1.0 for value in values), len(values))
    return PartScore(
        mean=fsum(values) / len(values) if values else None,
        low=low,
        high=high,
        judged=len(values),
        undecided=len(verdicts) - len(values) - unasked,
        errors=errors,
        not_asked=unasked,
    )

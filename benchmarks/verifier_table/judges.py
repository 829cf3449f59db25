"""Judges: Ludus and its peer math-verify, each asked for one pair in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

from ..measure import BenchmarkError


class Said(StrEnum):
    """What a verifier says of a pair."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"
    """It could not tell. The peer never says so."""
    ERROR = "error"
    """Its infrastructure failed. The peer never says so."""


Judge = Callable[[str, str], tuple[Said, str]]
"""(gold, response) to what it says and why."""


def ludus_judge() -> Judge:
    """Ludus as it is called by default."""
    from ludus.verifiers import verify_math
    from ludus.verifiers.verdict import Outcome

    meanings = {Outcome.CORRECT: Said.RIGHT, Outcome.UNDECIDED: Said.UNDECIDED, Outcome.ERROR: Said.ERROR}

    def judge(gold: str, response: str) -> tuple[Said, str]:
        verdict = verify_math(gold, response)
        return meanings.get(verdict.outcome, Said.WRONG), verdict.reason

    return judge


def peer_judge() -> Judge:
    """math-verify as it asks to be called, with those of its options that judge most of the pairs right.

    The gold is put in a box, for it reads LaTeX only in a box or between dollars; of the response it takes a box first;
    a relation may stand for a set. Its time limits are its own: 5 s for each call, by a signal.
    """
    try:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    except ImportError:
        raise BenchmarkError("The peer math-verify is not installed; run: pip install 'ludus[bench]'") from None
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # It warns of every response that it cannot read.
    targets = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

    def judge(gold: str, response: str) -> tuple[Said, str]:
        right = verify(parse(f"\\boxed{{{gold}}}", targets), parse(response, targets), allow_set_relation_comp=True)
        return Said.RIGHT if right else Said.WRONG, ""

    return judge


JUDGES: dict[str, Callable[[], Judge]] = {"Ludus": ludus_judge, "math-verify": peer_judge}

"""Finding: how two answers compare and why, and the rules that decide what counts as the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

from .expression import Node

Rounding = Literal["exact", "places"] | int


class Match(Enum):
    """How two answers compare."""

    SAME = "same"
    DIFFERENT = "different"
    UNSURE = "unsure"


class Finding(NamedTuple):
    """match, and why: stage is text, exact, structure, numeric or symbolic, the reason a sentence."""

    match: Match
    stage: str
    reason: str


@dataclass(frozen=True)
class Rules:
    """What counts as the same.

    ordered: several answers must come in the order of the right ones. units: whether a response may leave out the unit
    of the right answer, or add one to a bare number. percent: "hundredth" reads 50% as 1/2; "unit" as 50, as the
    answers of word problems are written. rounding: "exact"; "places": the response may be anything that rounds to the
    right answer at its decimal places; n: both are equal to n significant digits. evaluated: a number must be given as
    a number (an integer, decimal, fraction or mixed number), and not as a calculation that has its value.
    """

    ordered: bool = False
    units: bool = True
    percent: Literal["hundredth", "unit"] = "hundredth"
    rounding: Rounding = "exact"
    evaluated: bool = False


Symbolic = Callable[[Node, Node], "bool | None"]
"""Computer algebra: whether two expressions are equal; None where it cannot tell."""


def same(stage: str, reason: str) -> Finding:
    """The answers are the same."""
    return Finding(Match.SAME, stage, reason)


def different(stage: str, reason: str) -> Finding:
    """The answers are not the same."""
    return Finding(Match.DIFFERENT, stage, reason)


def unsure(stage: str, reason: str) -> Finding:
    """It cannot be told whether the answers are the same."""
    return Finding(Match.UNSURE, stage, reason)


def weakest(findings: Sequence[Finding]) -> Finding:
    """DIFFERENT where one is, else UNSURE where one is, else SAME by the most expensive stage."""
    for match in (Match.DIFFERENT, Match.UNSURE):
        for finding in findings:
            if finding.match is match:
                return finding
    order = ("text", "exact", "structure", "numeric", "symbolic")
    return max(findings, key=lambda finding: order.index(finding.stage))

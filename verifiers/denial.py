"""Denial: what stands before an answer may say that it is none ("I doubt that the answer is 42").

Invariant: only the clause that leads to the answer counts. "Since 7 is not prime, the answer is 42" denies nothing.
"""

from __future__ import annotations

import re

_CLAUSE_CHARS = 80
_CLAUSE_END = re.compile(
    r"[;:!?(\n]|(?<!\bvs)\.(?!\d)|,(?!\d)|\b(?:so|therefore|hence|thus|then|but|and|because|means)\b", re.IGNORECASE
)
_DENIAL = re.compile(
    r"(?<!\\)\b(?:not|never|cannot|hardly|unlikely|if|whether|(?<!no )doubt|(?:wrong|incorrect|false)\s(?:that|to))\b"
    r"|n['’]t\b",
    re.IGNORECASE,
)


def clause_before(text: str, end: int) -> str:
    """The beginning of the clause that goes on at `end`; at most 80 characters."""
    return _CLAUSE_END.split(text[max(end - _CLAUSE_CHARS, 0) : end])[-1]


def is_denial(clause: str) -> bool:
    """Whether a clause denies or doubts what it leads to."""
    return _DENIAL.search(clause) is not None

"""Ballot: one vote of a judge, read strictly.

Invariant: an answer counts only if it is one JSON object with exactly the fields asked for, each once, and the check
code of this very question. A verdict is never searched for in text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

LONGEST_REASONING = 4000
"""Characters of a judge's reasoning that are kept."""
LONGEST_ANSWER = 100_000
"""Characters; no answer to a grading question is longer."""
CODE_FENCE = "```"
THOUGHT_END = "</think>"


class UnusableAnswer(ValueError):
    """The judge's answer is no ballot; the message says why."""


@dataclass(frozen=True)
class Ballot:
    """What the judge said. passed: right or wrong, where it was asked that; score: from 0 to the scale, where that."""

    reasoning: str
    passed: bool | None = None
    score: float | None = None


def answer_schema(scale: int | None) -> dict[str, Any]:
    """The JSON Schema of a ballot.

    The check code is any string here: a server that holds the model to the schema must not write the code for it.
    """
    said = {"score": {"type": "number"}} if scale else {"verdict": {"type": "string", "enum": ["correct", "incorrect"]}}
    fields = {"reasoning": {"type": "string"}, **said, "check": {"type": "string"}}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def read_ballot(text: str, check: str, scale: int | None) -> Ballot:
    """The ballot in a judge's answer. Thoughts before `</think>` and one code block around the object are allowed, as
    are raw line breaks in its texts, which models without a JSON mode write.

    scale: the highest score, or None where the verdict is "correct" or "incorrect". Raises UnusableAnswer.
    """
    if len(text) > LONGEST_ANSWER:
        raise UnusableAnswer("it was far too long")
    body = text.rpartition(THOUGHT_END)[2].strip()
    if body.startswith(CODE_FENCE) and body.endswith(CODE_FENCE):
        body = body.removeprefix(CODE_FENCE).removesuffix(CODE_FENCE).removeprefix("json").removeprefix("JSON")
    try:
        row = json.loads(body, strict=False, object_pairs_hook=_unique)
    except UnusableAnswer:
        raise
    except (ValueError, RecursionError):
        raise UnusableAnswer("it was not one JSON object and nothing else") from None
    said = "score" if scale else "verdict"
    if not isinstance(row, dict) or set(row) != {"reasoning", said, "check"}:
        raise UnusableAnswer(f'it did not have exactly the fields "reasoning", "{said}" and "check"')
    if not isinstance(row["reasoning"], str):
        raise UnusableAnswer("its reasoning was not a text")
    if row["check"] != check:
        raise UnusableAnswer("its check code was not the one asked for")
    reasoning = row["reasoning"][:LONGEST_REASONING].encode("utf-8", "replace").decode("utf-8")
    value = row[said]
    if scale is None:
        word = value.casefold() if isinstance(value, str) else None
        if word not in ("correct", "incorrect"):
            raise UnusableAnswer('its verdict was neither "correct" nor "incorrect"')
        return Ballot(reasoning, passed=word == "correct")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= scale:
        raise UnusableAnswer(f"its score was not a number from 0 to {scale}")
    return Ballot(reasoning, score=float(value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise UnusableAnswer("a field stood in it twice")
    return row

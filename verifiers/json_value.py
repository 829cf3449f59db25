"""JSON as a value: read so that it means the same to every reader, and compared by value.

Invariant: what is read is JSON by RFC 8259 with no name twice in an object, no NaN and no number that overflows a
float, nested no deeper than MAX_DEPTH; reading takes time in proportion to the text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

MAX_CHARS = 100_000
"""Longer JSON is refused unread."""
MAX_DEPTH = 40
"""Deeper nesting is refused: validating it would go deeper than Python's own stack."""
MAX_DIGITS = 300
"""A number of more digits is refused: it may not fit into a float."""

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


class NotJSON(ValueError):
    """Why a text is not one JSON value, in half a sentence."""


def parse_json(text: str) -> Any:
    """The value of a text that is one JSON value and nothing else. Raises NotJSON."""
    if len(text) > MAX_CHARS:
        raise NotJSON(f"it is longer than {MAX_CHARS:,} characters")
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match.group(), 0)
        if depth > MAX_DEPTH:
            raise NotJSON(f"it is nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer, parse_float=_float
        )
    except json.JSONDecodeError as error:
        raise NotJSON(f"{error.msg} at character {error.pos}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise NotJSON(f"an object has the name {shortened(repr(name))} twice")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise NotJSON(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotJSON(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS or not math.isfinite(value := float(digits)):
        raise NotJSON("a number has too many digits or is too large")
    return value


def comparable(value: Any) -> Any:
    """Something hashable that is equal for equal JSON values and for no others: true is not 1, and 1 is 1.0."""
    if isinstance(value, dict):
        return "object", frozenset((name, comparable(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return "array", tuple(map(comparable, value))
    return ("boolean" if isinstance(value, bool) else "value"), value


def shortened(text: str) -> str:
    """A text of any length as one that fits into a sentence."""
    return text if len(text) <= 200 else f"{text[:150]}...{text[-40:]}"

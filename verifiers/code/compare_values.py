"""Whether two plain values are the same, with a tolerance for numbers."""

from __future__ import annotations

import math
from typing import Any


def same_value(expected: Any, given: Any, tolerance: float = 0.0) -> bool:
    """Whether a given plain value is the expected one.

    As Python's == has it, but a list and a tuple are the same, since JSON has only lists, True is no 1, and a set is no
    frozenset. tolerance: largest difference of two floats or a float and an integer, absolute or relative to the
    larger; 0: equal. It does not reach into sets and keys.
    """
    if isinstance(expected, bool) or isinstance(given, bool):
        return isinstance(expected, bool) and isinstance(given, bool) and expected == given
    if isinstance(expected, int | float | complex) and isinstance(given, int | float | complex):
        if expected == given:
            return True
        if isinstance(expected, float) and isinstance(given, float) and math.isnan(expected) and math.isnan(given):
            return True
        if (isinstance(expected, int) and isinstance(given, int)) or not tolerance:
            return False
        try:
            difference, size = abs(expected - given), max(abs(expected), abs(given))
        except OverflowError:
            return False
        return math.isfinite(difference) and difference <= tolerance * max(1.0, size)
    if isinstance(expected, list | tuple) and isinstance(given, list | tuple):
        return len(expected) == len(given) and all(
            same_value(one, other, tolerance) for one, other in zip(expected, given, strict=True)
        )
    if isinstance(expected, dict) and isinstance(given, dict):
        return {_marked(key) for key in expected} == {_marked(key) for key in given} and all(
            same_value(item, given[key], tolerance) for key, item in expected.items()
        )
    if type(expected) is not type(given):
        return False
    return bool(_marked(expected) == _marked(given))


def _marked(value: Any) -> Any:
    """A value that can be in a set, so that True and 1 are two."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, tuple):
        return tuple(map(_marked, value))
    if isinstance(value, set | frozenset):
        return frozenset(map(_marked, value))
    return value

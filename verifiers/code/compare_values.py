"""Whether two plain values are the same, with a tolerance for numbers."""

from __future__ import annotations

import math
from typing import Any


def same_value(expected: Any, given: Any, tolerance: float = 0.0) -> bool:
    """Whether a given plain value is the expected one.

    As Python's == has it, but a list and a tuple are the same, since JSON has only lists, and True is no 1. tolerance:
    largest difference of two floats or a float and an integer, absolute or relative to the larger; 0: equal.
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
        return expected.keys() == given.keys() and all(
            same_value(item, given[key], tolerance) for key, item in expected.items()
        )
    return type(expected) is type(given) and bool(expected == given)

"""LengthPenalty: what a response costs that is longer than it should be."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any, Literal, get_args

from .errors import VerifierError
from .verdict import Verdict

Unit = Literal["characters", "words"]
"""characters: Unicode code points. words: what stands between white space, so that a text without any is one word."""

_WORD = re.compile(r"\S+")


class LengthPenalty:
    """PARTIAL with 0 up to max_length - buffer, from there linearly down to -1 at max_length, and -1 beyond.

    Always PARTIAL, also with 0, since a short response is not a right one: a rubric adds the value to what it pays for
    the answer. max_length, buffer: in `unit`. The gold answer is ignored.

    Source: DAPO (arXiv:2503.14476), equation 13, with L_max = max_length and L_cache = buffer. There they are counted
    in tokens, which a verifier does not see.
    """

    penalty = True
    """It takes away and earns nothing, see rubric.WeightedSum."""

    def __init__(self, max_length: int, buffer: int, unit: Unit = "characters") -> None:
        if not all(isinstance(size, Real) for size in (max_length, buffer)):
            raise VerifierError(f"max_length = {max_length!r} and buffer = {buffer!r} must be numbers; change them.")
        if not 1 <= buffer <= max_length:
            raise VerifierError(
                f"buffer = {buffer} must be at least 1 and at most max_length = {max_length}; change it."
            )
        if unit not in get_args(Unit):
            raise VerifierError(f"unit = {unit!r} is unknown; choose 'characters' or 'words'.")
        self.max_length = max_length
        self.buffer = buffer
        self.unit: Unit = unit

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """PARTIAL; the evidence tells the length."""
        length = len(response) if self.unit == "characters" else sum(1 for _ in _WORD.finditer(response))
        free = self.max_length - self.buffer
        value = 0.0 if length <= free else max(-1.0, (free - length) / self.buffer)
        reason = f"{length} {self.unit}; up to {free} are free, and {self.max_length} cost 1."
        return Verdict.partial(value, reason, length=length)

"""UnicodeText: the Gymnasium space of all strings, for observations and actions that a language model writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.spaces import Space

_CODE_POINTS = 0x110000


class UnicodeText(Space[str]):
    """Every `str` of at most `max_length` characters, any code point, lone surrogates included.

    Samples are short (at most `sample_length` characters), half of them ASCII, so that a random action is readable.
    """

    def __init__(
        self,
        max_length: int = 1_000_000,
        sample_length: int = 32,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        if max_length < 0 or sample_length < 0:
            raise ValueError(f"Lengths of text cannot be negative: {max_length}, {sample_length}.")
        self.max_length = max_length
        self.sample_length = min(sample_length, max_length)
        super().__init__(shape=None, dtype=None, seed=seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """A random string; masks make no sense here and are refused."""
        if mask is not None or probability is not None:
            raise ValueError("UnicodeText samples without mask and probability; leave them out.")
        length = int(self.np_random.integers(self.sample_length + 1))
        ascii_only = bool(self.np_random.integers(2))
        codes = self.np_random.integers(32, 127 if ascii_only else _CODE_POINTS, size=length)
        return "".join(chr(int(code)) for code in codes)

    def contains(self, x: Any) -> bool:
        """Whether x is a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        """Text does not flatten to a Box."""
        return False

    def to_jsonable(self, sample_n: Iterable[str]) -> list[str]:
        """Strings are JSON as they are; json.dumps escapes lone surrogates."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[Any]:
        """The inverse of `to_jsonable`."""
        return list(sample_n)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnicodeText) and self.max_length == other.max_length

    def __hash__(self) -> int:
        return hash((UnicodeText, self.max_length))

    def __repr__(self) -> str:
        return f"UnicodeText(max_length={self.max_length})"

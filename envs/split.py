"""Splits of endless task streams: which of the two a task belongs to is in a checksum of its text."""

from __future__ import annotations

import zlib
from typing import Literal

from .errors import EnvError, did_you_mean

Split = Literal["train", "test"]
_TEST_SHARE = 5


def check_split(split: str) -> None:
    """Raise EnvError for an unknown split."""
    if split not in ("train", "test"):
        raise EnvError(f"Unknown split {split!r}.{did_you_mean(str(split), ('train', 'test'))}")


def belongs(text: str, split: Split) -> bool:
    """Whether a text is of a split: one in five is for the test, whatever made it."""
    return (zlib.crc32(text.encode("utf-8", "surrogatepass")) % _TEST_SHARE == 0) == (split == "test")

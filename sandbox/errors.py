"""LudusError: the failures that are the user's to fix, and the words in which they are told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LudusError(Exception):
    """An error whose text is one sentence that names the fix; the command line prints it and exits with 2."""


class SandboxError(LudusError):
    """A sandbox cannot be opened, or is asked for what it cannot do."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of an error sentence: ` Did you mean 'x'?` where a known word is near, then ` Known: x, y.`"""
    names = sorted(known)
    near = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Known: {', '.join(names) or 'none'}."

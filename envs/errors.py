"""What can be wrong with an environment, a task or a tool, each as one sentence that names the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..sandbox.errors import LudusError


class EnvError(LudusError):
    """An environment was asked for, or built, in a way that cannot work."""


class TaskError(EnvError):
    """A row of a data set is no task: the sentence names the file, the line and what is missing."""


class NoDemonstration(EnvError):
    """This environment, or this task, has no demonstrations to learn from."""


class ToolError(Exception):
    """Raised inside a tool: its text becomes the observation, and the episode goes on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The tail of an error sentence: ` Did you mean 'x'?` where a known word is near, then ` Known: x, y.`"""
    names = sorted(known)
    near = difflib.get_close_matches(word[:100], names, n=1, cutoff=0.5)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Known: {', '.join(names) or 'none'}."

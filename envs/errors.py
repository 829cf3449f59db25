"""What can be wrong with an environment, a task or a tool, each as one sentence that names the fix."""

from __future__ import annotations

from ..sandbox.errors import LudusError
from ..sandbox.errors import did_you_mean as did_you_mean


class EnvError(LudusError):
    """An environment was asked for, or built, in a way that cannot work."""


class TaskError(EnvError):
    """A row of a data set is no task: the sentence names the file, the line and what is missing."""


class NoDemonstration(EnvError):
    """This environment, or this task, has no demonstrations to learn from."""


class ToolError(Exception):
    """Raised inside a tool: its text becomes the observation, and the episode goes on."""

"""Pose tasks, answer actions, pay rewards. May use verifiers and sandbox.

Importing this room registers its environments, and those of installed plug-ins, with Gymnasium.
"""

if __name__ != "ludus.envs":
    raise ImportError(
        f"This folder is installed as ludus.envs: write 'import ludus.envs' instead of 'import {__name__}'."
    )

from .errors import EnvError, NoDemonstration, TaskError, ToolError
from .registration import list_envs, load_plugins, make_env
from .source import HubSource, JsonlSource, ListSource, ParquetSource, ProceduralSource, TaskSource, epoch_index
from .task import Message, Task
from .text_env import EnvStop, TextEnv
from .tool import Tool, tool

__all__ = [
    "EnvError",
    "EnvStop",
    "HubSource",
    "JsonlSource",
    "ListSource",
    "Message",
    "NoDemonstration",
    "ParquetSource",
    "ProceduralSource",
    "Task",
    "TaskError",
    "TaskSource",
    "TextEnv",
    "Tool",
    "ToolError",
    "epoch_index",
    "list_envs",
    "make_env",
    "tool",
]

load_plugins()

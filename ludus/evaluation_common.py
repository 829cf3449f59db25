"""What evaluations of models in this process and behind endpoints have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .agents.rollout import Arena
from .envs.registration import takes_option
from .trainers.recorder import Show


def with_split(env: str, options: dict[str, Any] | None, split: str) -> dict[str, Any]:
    """The options of an environment, with the split where it takes one and none is among them."""
    return {"split": split, **(options or {})} if takes_option(env, "split") else dict(options or {})


def counter(display: Show | None, env: str, arena: Arena, tasks: int) -> Callable[[object], None]:
    """Begin the phase of an evaluation on the display; what is to be called after each episode."""
    if display is not None:
        display.phase(f"evaluating {env}", tasks if arena.size is None else min(tasks, arena.size))
    done = 0

    def count(_: object) -> None:
        nonlocal done
        done += 1
        if display is not None:
            display.update(done)

    return count

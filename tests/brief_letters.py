"""An environment with a rubric and a constraint for small untrained models; run as a program, it is `ludus` with it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ludus.envs import ProceduralSource, Task, TextEnv
from ludus.verifiers.constraint import Constraint
from ludus.verifiers.rubric import WeightedSum
from ludus.verifiers.verdict import Verdict

NAME = "test/BriefLetters-v0"


class Early:
    """Right where the first half of the alphabet has the majority of the letters; with no letter it cannot be told."""

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        letters = [c for c in response.lower() if c.isalpha()]
        if not letters:
            return Verdict.undecided("no letters")
        early = sum(c < "n" for c in letters)
        return Verdict.correct("early") if 2 * early > len(letters) else Verdict.wrong("late")


class Length:
    """The response's length in characters; the scale breaks under a response that begins with one of `breaks`."""

    def __init__(self, breaks: str = "") -> None:
        self.breaks = tuple(breaks)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        if self.breaks and response.startswith(self.breaks):
            raise OSError("the scale broke")
        return Verdict.partial(len(response), "counted")


class BriefLetters(TextEnv):
    """Early letters, and on average at most `at_most` characters."""

    def __init__(
        self, *, at_most: float = 3.0, learning_rate: float = 0.02, breaks: str = "", max_multiplier: float = 1.0
    ) -> None:
        length = Constraint(
            Length(breaks), at_most=at_most, learning_rate=learning_rate, max_multiplier=max_multiplier
        )  # fmt: skip
        self.rubric = WeightedSum({"early": Early(), "length": length})
        super().__init__(ProceduralSource(self.generate))

    def generate(self, rng: np.random.Generator, index: int) -> Task:
        return Task(str(index), f"letters {int(rng.integers(10))}", None)

    def verify(self, task: Task, response: str) -> Verdict:
        return self.rubric.verify(task.answer, response)


def register() -> None:
    """Make the environment known by its name."""
    if NAME not in gymnasium.registry:
        gymnasium.register(NAME, entry_point=BriefLetters, disable_env_checker=True, order_enforce=False)


if __name__ == "__main__":
    from ludus.cli import main

    register()
    main()

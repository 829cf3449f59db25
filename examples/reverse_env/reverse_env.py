"""reverse/Reverse-v0: write a word backwards."""

import gymnasium
import numpy as np

from ludus.envs import ProceduralSource, Task, TextEnv
from ludus.verifiers.verdict import Verdict


class Reverse(TextEnv):
    """Write a random word backwards."""

    def __init__(self, *, letters: int = 5, seed: int = 0, render_mode: str | None = None) -> None:
        self.letters = letters
        super().__init__(ProceduralSource(self.generate, seed), render_mode=render_mode)

    def generate(self, rng: np.random.Generator, index: int) -> Task:
        word = "".join(rng.choice(list("abcdefghij"), size=self.letters))
        return Task(id=f"reverse-{index}", prompt=f"Write this backwards: {word}", answer=word[::-1])

    def verify(self, task: Task, response: str) -> Verdict:
        right = response.strip() == task.answer
        return Verdict.correct("Reversed.") if right else Verdict.wrong("Not reversed.", expected=task.answer)


def register() -> None:
    """Called by Ludus, through the entry point in pyproject.toml."""
    gymnasium.register("reverse/Reverse-v0", entry_point=Reverse, disable_env_checker=True, order_enforce=False)

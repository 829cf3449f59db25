"""Demonstrations: an environment's own demonstrator, played through the environment and kept as trajectories."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np

from ..agents.rollout import Arena, EnvCodeError
from ..agents.seeds import derive_seed
from ..agents.trajectory import Trajectory
from ..envs.errors import NoDemonstration, TaskError
from ..envs.source import epoch_index
from ..envs.task import Message

TRIES = 16
"""Tasks without a demonstration that are passed over before the environment counts as having none."""


class Demonstrations:
    """`count` demonstrations, each made when it is first asked for and the same for the same seed.

    Arenas take turns by weight. per_task: demonstrations of each task; they come in the same batch, where the trainer
    reads their prompt once. flaw_rate: share of demonstrations that make a mistake typical of their task.
    """

    def __init__(
        self,
        arenas: list[tuple[Arena, float]],
        count: int,
        flaw_rate: float,
        seed: int,
        max_length: int,
        per_task: int = 1,
    ) -> None:
        self.arenas = arenas
        self.per_task = min(per_task, count)
        self.tasks = count // self.per_task
        self.flaw_rate = flaw_rate
        self.seed = seed
        self.max_length = max_length
        self._get = lru_cache(maxsize=count)(self._make)

    def batch(self, step: int, size: int) -> list[Trajectory]:
        """The demonstrations of one optimiser step; every epoch has its own order."""
        order = derive_seed(self.seed, "order") % 2**31
        found = []
        for cursor in range(step * size, (step + 1) * size):
            turn, sample = divmod(cursor, self.per_task)
            found.append(self._get(epoch_index(turn, self.tasks, order), sample))
        if not any(True in trajectory.mask for trajectory in found):
            raise TaskError(
                f"Of {size} demonstrations, none has its first answer within engine.max_length = {self.max_length} "
                "tokens; raise it or shorten the prompts."
            )
        return found

    def _make(self, index: int, sample: int) -> Trajectory:
        rng = np.random.default_rng(derive_seed(self.seed, "arena", index))
        weights = np.array([weight for _, weight in self.arenas])
        arena = self.arenas[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
        env, renderer = arena.env, arena.token_renderer
        rng = np.random.default_rng(derive_seed(self.seed, "demonstration", index, sample))
        seed = derive_seed(self.seed, "env", index, sample) % 2**31
        opening, actions = self._demonstrated(arena, index, seed, rng)
        tokens = renderer.open(opening)
        mask = [False] * len(tokens)
        for action in actions:
            _, _, terminated, truncated, info = arena.ask("demonstrating", partial(env.step, action))
            sampled = [*renderer.tokenizer.encode(action, add_special_tokens=False), renderer.end_id]
            tokens += sampled
            mask += [True] * len(sampled)
            if terminated or truncated:
                break
            new = renderer.append(info["messages"], ended=True)
            tokens += new
            mask += [False] * len(new)
        tokens, mask = tokens[: self.max_length], mask[: self.max_length]
        return Trajectory(
            token_ids=tuple(tokens), mask=tuple(mask), logprobs=(0.0,) * len(tokens), versions=(-1,) * len(tokens)
        )

    def _demonstrated(
        self, arena: Arena, index: int, seed: int, rng: np.random.Generator
    ) -> tuple[list[Message], list[str]]:
        """Begin the task at `index`, or the first after it that the environment can demonstrate: opening, actions."""
        env, order = arena.env, derive_seed(self.seed, "tasks") % 2**31
        for offset in range(TRIES):
            task = arena.task(epoch_index(index + offset * self.tasks, arena.size, order))
            reset = partial(env.reset, seed=seed, options={"task": task})
            _, info = arena.ask("demonstrating", reset)
            try:
                actions = arena.ask("demonstrating", partial(env.demonstrate, task, rng, self.flaw_rate))
            except NoDemonstration as error:
                reason = error
                continue
            if not isinstance(actions, list) or not all(isinstance(action, str) for action in actions):
                raise EnvCodeError(f"{arena.name}.demonstrate returned {actions!r}; it must return a list of texts.")
            return info["messages"], actions
        raise reason

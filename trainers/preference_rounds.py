"""Online preference learning: play, pair by the verifier's reward, learn, hand over the weights, and again.

Invariant: everything the next round depends on is the weights, the optimizer, the task stream and the frozen reference,
so a run can stop after any round and go on (tests/test_preference_rounds.py).

Source: iterative DPO (arXiv:2312.11456) and online DPO (arXiv:2402.04792), with the verifier as the labeller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..agents.engine import TrainingEngine, resting
from ..agents.rollout import EpisodesFailedError, Player
from ..agents.seeds import derive_seed
from ..agents.trajectory import Episode, check_tokens
from .config import PreferenceConfig
from .optimizer import AnyOptimizer, apply_step, learning_rate
from .pairs import Pair, PreferenceError, labelled, pairs_of
from .preference import PreferenceBatch, preference_step, prepare
from .recorder import Recorder, Show
from .task_stream import TaskStream

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class PreferenceRounds:
    """Everything that online preference learning works with.

    The verifier of the environment, which may be a judge or a reward model, is the labeller. reference: a frozen copy
    of the policy before training where config.reference is start; None with last, and with orpo.
    """

    model: PreTrainedModel
    optimizer: AnyOptimizer
    engine: TrainingEngine
    rollout: Player
    stream: TaskStream
    config: PreferenceConfig
    seed: int
    recorder: Recorder
    show: Show
    reference: PreTrainedModel | None = None
    keep_episodes: Callable[[int, list[Episode]], None] | None = None

    def __post_init__(self) -> None:
        needs = self.config.method != "orpo" and self.config.reference == "start"
        if needs and self.reference is None:
            raise PreferenceError(
                f"{self.config.method} measures from a reference; give a frozen copy of the policy or reference: last."
            )
        if not needs and self.reference is not None:
            raise PreferenceError(f"{self.config.method} would not look at the reference; give reference=None.")

    def train(self, first_step: int, after_step: Callable[[int], None]) -> None:
        """Take the rounds first_step … config.steps, calling `after_step(rounds done)` after each."""
        for step in range(first_step, self.config.steps):
            self.step(step)
            after_step(step + 1)

    def step(self, step: int) -> None:
        """One round: a rollout, and the optimiser steps made from its pairs. Without any pair there are none."""
        self.model.eval()
        episodes = self.rollout.run(self.stream.groups(self.config.groups))
        check_tokens(episodes)
        judged = [episode for episode in episodes if episode.reward is not None]
        if not any(episode.trajectories for episode in judged):
            raise EpisodesFailedError.of(episodes)
        pairs = pairs_of(episodes)
        with resting(self.engine):
            curves = self._learn(step, pairs) if pairs else {}
        self.engine.load_weights(self.model, step + 1)
        reward = float(np.mean([episode.reward for episode in judged]))
        counts = {"episodes": float(len(episodes)), "errors": float(len(episodes) - len(judged))}
        self.recorder.log("preference", step + 1, reward=reward, pairs=float(len(pairs)), **counts, **curves)
        if self.keep_episodes is not None:
            self.keep_episodes(step + 1, episodes)
        self.show.update(step + 1, reward=reward, pairs=len(pairs))

    def _learn(self, step: int, pairs: list[Pair]) -> dict[str, float]:
        """The optimiser steps of one round; curves are means over those that have them."""
        config, found = self.config, []
        batches = self._batches(step, pairs)
        self.model.train()
        for index, batch in enumerate(batches):
            done, steps = step * config.minibatches + index, config.steps * config.minibatches
            curves = preference_step(self.model, batch, config)
            lr = learning_rate(config.optimizer, done, steps)
            found.append({**curves, "grad_norm": apply_step(self.optimizer, config.optimizer, lr), "lr": lr})
        names = dict.fromkeys(name for curves in found for name in curves)
        return {name: float(np.mean([curves[name] for curves in found if name in curves])) for name in names}

    def _batches(self, step: int, pairs: list[Pair]) -> list[PreferenceBatch]:
        """The round in parts, all scored by the reference before the first is learnt from."""
        config = self.config
        reference = self.model if config.reference == "last" else self.reference
        order = np.random.default_rng(derive_seed(self.seed, "minibatches", step)).permutation(len(pairs))
        parts = np.array_split(order, min(config.minibatches, len(pairs)))
        chosen = [[pairs[index] for index in part] for part in parts]
        if config.method == "kto":
            return [prepare(labelled(part), config, reference) for part in chosen]
        return [prepare(part, config, reference) for part in chosen]

"""STaR: play, keep what verifies, fine-tune on it, and again; what was never solved is played with a hint.

Invariant: only what the verifier found right is learnt from, and never a hint: an answer that was found with one is
kept behind the prompt that has none (tests/test_star.py).

Source: STaR (arXiv:2203.14465). Without hints it is rejection sampling fine-tuning (RFT, arXiv:2308.01825).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..agents.engine import TrainingEngine, resting
from ..agents.rollout import EpisodeRequest, EpisodesFailedError, Player
from ..agents.seeds import derive_seed
from ..agents.trajectory import Episode, Trajectory, check_tokens
from ..envs.source import epoch_index
from ..sandbox.errors import LudusError
from ..verifiers.verdict import Outcome
from .config import StarConfig
from .optimizer import AnyOptimizer, apply_step, build_optimizer, learning_rate
from .recorder import Recorder, Show
from .sft import sft_step
from .task_stream import TaskStream

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


TOLD = (Outcome.CORRECT, Outcome.WRONG)
LONGEST_HINT = 200
"""Characters of an answer; what is longer, such as hidden tests, is none that may be said beforehand."""


class StarError(LudusError):
    """Episodes from which this kind of learning cannot learn."""


@dataclass
class StarRounds:
    """Everything that the rounds work with.

    first: the weights before the first round, by name, to which each round returns where config.restart; else None.
    """

    model: PreTrainedModel
    optimizer: AnyOptimizer
    engine: TrainingEngine
    rollout: Player
    stream: TaskStream
    config: StarConfig
    seed: int
    recorder: Recorder
    show: Show
    first: dict[str, Tensor] | None = None
    keep_episodes: Callable[[int, list[Episode]], None] | None = None

    def __post_init__(self) -> None:
        if self.config.restart != (self.first is not None):
            raise StarError("Give `first`, the weights before the first round, where and only where restart is true.")

    def train(self, first_round: int, after_round: Callable[[int], None]) -> None:
        """Take the rounds first_round … config.rounds, calling `after_round(rounds done)` after each."""
        for number in range(first_round, self.config.rounds):
            self.round(number)
            after_round(number + 1)

    def round(self, number: int) -> None:
        """Play, keep, learn. Without anything right to learn from the weights stay as they are, or are `first`."""
        self.model.eval()
        requests = self.stream.groups(self.config.groups)
        episodes = self.rollout.run(requests)
        check_tokens(episodes)
        judged = [episode for episode in episodes if episode.reward is not None]
        if not any(episode.trajectories for episode in judged):
            raise EpisodesFailedError.of(episodes)
        if not any(episode.verdict and episode.verdict.outcome in TOLD for episode in judged):
            if len(judged) < len(episodes):
                raise EpisodesFailedError.of(episodes)
            raise StarError(
                f"Of {len(judged)} episodes none was judged right or wrong, so that there is nothing to keep; STaR "
                "needs environments whose verifier says which answers are right."
            )
        kept = kept_answers(judged, self.config.keep)
        solved = len({episode.group for episode in judged if _right(episode)})
        groups = len({episode.group for episode in judged})
        found: list[Trajectory] = []
        if self.config.rationalise:
            found = self._rationalise(number, requests, judged)
        with resting(self.engine):
            learnt = self._learn(number, [*kept, *found])
        self.engine.load_weights(self.model, number + 1)
        values = {
            "reward": float(np.mean([episode.reward for episode in judged])),
            "solved": solved / max(groups, 1),
            "kept": float(len(kept)),
            "rationalised": float(len(found)),
            "episodes": float(len(episodes)),
            "errors": float(len(episodes) - len(judged)),
        }
        self.recorder.log("star", number + 1, **values, **learnt)
        if self.keep_episodes is not None:
            self.keep_episodes(number + 1, episodes)
        self.show.update(number + 1, solved=values["solved"], kept=len(kept) + len(found))

    def _rationalise(
        self, number: int, requests: Sequence[EpisodeRequest], judged: Sequence[Episode]
    ) -> list[Trajectory]:
        """One right answer to each task that was never solved, found with the answer as a hint, without the hint."""
        solved = {episode.group for episode in judged if _right(episode)}
        failed = {episode.group: episode for episode in judged if episode.group not in solved}
        hinted = [
            replace(
                request,
                id=f"{request.id}/hint",
                task=replace(request.task, prompt=hint(request.task.prompt, request.task.answer, self.config.hint)),
                seed=derive_seed(self.seed, "hint", number, request.id),
            )
            for request in requests
            if request.group in failed
        ]
        played = self.rollout.run(hinted) if hinted else []
        best: dict[str, Episode] = {}
        for episode in played:
            if episode.reward is not None and _right(episode):
                best.setdefault(episode.group, episode)
        return [without_hint(episode, failed[group]) for group, episode in best.items()]

    def _learn(self, number: int, answers: Sequence[Trajectory]) -> dict[str, float]:
        """Fine-tune on the answers; means over the optimiser steps.

        From the first round on the model goes back to `first`, which may be another than the one that played.
        """
        config = self.config
        if self.first is not None and (answers or number == 0):
            self.model.load_state_dict(self.first)
            self.optimizer = build_optimizer(self.model, config.optimizer)
        if not answers:
            return {}
        self.model.train()
        order = derive_seed(self.seed, "star", number) % 2**31
        losses, norms = [], []
        for step in range(config.steps):
            cursors = range(step * config.batch_size, (step + 1) * config.batch_size)
            batch = [answers[epoch_index(cursor, len(answers), order)] for cursor in cursors]
            losses.append(sft_step(self.model, batch, config.micro_batch_tokens))
            done = step if config.restart else number * config.steps + step
            steps = config.steps if config.restart else config.rounds * config.steps
            norms.append(apply_step(self.optimizer, config.optimizer, learning_rate(config.optimizer, done, steps)))
        return {"loss": float(np.mean(losses)), "grad_norm": float(np.mean(norms))}


def kept_answers(episodes: Iterable[Episode], most: int) -> list[Trajectory]:
    """Up to `most` right answers to each task, no two of them the same. Raises StarError where one is in pieces."""
    found: dict[str, dict[tuple[int, ...], Trajectory]] = {}
    for episode in episodes:
        if _right(episode):
            answer = replace(
                _whole(episode), temperature=1.0, kept=None, experts=None
            )  # it is learnt as it stands, not as sampled
            own = found.setdefault(episode.group, {})
            if len(own) < most:
                own.setdefault(answer.token_ids, answer)
    return [answer for own in found.values() for answer in own.values()]


def hint(prompt: str, answer: object, form: str) -> str:
    """The prompt of a task with its answer behind it. form: text that holds {answer}.

    Raises StarError where the answer is no short text and no number: hidden tests, say, are no hint.
    """
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or len(str(answer)) > LONGEST_HINT:
        raise StarError(
            f"The answer {answer!r:.60} is no number and no text of up to {LONGEST_HINT} characters, and so no hint; "
            "set star.rationalise: false."
        )
    return f"{prompt}\n{form.replace('{answer}', str(answer))}"


def without_hint(episode: Episode, plain: Episode) -> Trajectory:
    """What was sampled, and observed, behind the prompt of another episode of the same task."""
    answer, opening = _whole(episode), plain.trajectories[0]
    start, end = answer.mask.index(True), opening.mask.index(True)
    mask = (False,) * end + answer.mask[start:]
    return Trajectory(opening.token_ids[:end] + answer.token_ids[start:], mask, (0.0,) * len(mask), (-1,) * len(mask))


def _right(episode: Episode) -> bool:
    return episode.verdict is not None and episode.verdict.outcome is Outcome.CORRECT


def _whole(episode: Episode) -> Trajectory:
    if len(episode.trajectories) != 1 or True not in episode.trajectories[0].mask:
        raise StarError(
            f"The episode {episode.id} has {len(episode.trajectories)} trajectories with sampled tokens to learn from, "
            "and needs one; set model.on_rewrite: refuse and a chat template that appends."
        )
    return episode.trajectories[0]

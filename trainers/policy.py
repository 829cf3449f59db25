"""The policy trainer: roll out, estimate advantages, step, hand the weights to the engine, and again.

Invariant: which algorithm runs is known to the record alone; and everything the next step depends on is either in the
checkpoint or derived from the run's seed (tests/test_resume.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agents.part_scores import part_scores
from ..agents.rollout import EpisodesFailedError, Rollout
from ..agents.seeds import derive_seed
from ..agents.torch_engine import TorchEngine
from ..agents.trajectory import Episode
from ..sandbox.errors import LudusError
from .algorithms import Algorithm, Experience
from .batch import Row
from .config import PolicyConfig
from .constraints import charged, constraint_curves, gather, next_multipliers
from .optimizer import AnyOptimizer, apply_step, learning_rate
from .policy_step import accumulate, build_rows, frozen_logprobs, weigh
from .recorder import Recorder, Show
from .task_stream import TaskStream

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ROUNDING = 1e-9
"""Rewards of a group that are no further apart are the same."""


class StarvedError(LudusError):
    """Dynamic sampling found too few groups with spread."""


@dataclass
class PolicyTrainer:
    """Everything one run of policy optimisation works with.

    reference: a frozen copy of the policy before training, where the algorithm needs one. state: what the algorithm
    remembers. multipliers: the prices of the constraints in rubrics, by name, which the next step charges.
    """

    model: PreTrainedModel
    optimizer: AnyOptimizer
    engine: TorchEngine
    rollout: Rollout
    stream: TaskStream
    algorithm: Algorithm
    config: PolicyConfig
    seed: int
    recorder: Recorder
    show: Show
    reference: PreTrainedModel | None = None
    state: dict[str, Any] | None = None
    keep_episodes: Callable[[int, list[Episode], list[list[np.ndarray]]], None] | None = None
    multipliers: dict[str, float] = field(default_factory=dict)

    def train(self, first_step: int, after_step: Callable[[int], None]) -> None:
        """Take the steps first_step … config.steps, calling `after_step(steps done)` after each."""
        self.state = dict(self.algorithm.initial_state) if self.state is None else self.state
        for step in range(first_step, self.config.steps):
            self.step(step)
            after_step(step + 1)

    def step(self, step: int) -> None:
        """One rollout and the optimiser steps made from it."""
        self.model.eval()
        clock = time.monotonic()
        generated = self.engine.generated_tokens
        episodes, played = self._collect()
        rollout_s = time.monotonic() - clock
        clock = time.monotonic()
        if not any(episode.trajectories for episode in episodes):
            raise EpisodesFailedError.of(played)
        experience = self._experience(step, episodes)
        advantages, self.state = self.algorithm.estimator(experience, self.state or {})
        curves = self._optimise(step, experience, advantages)
        self.engine.load_weights(self.model, step + 1)
        train_s = time.monotonic() - clock
        measured = gather((episode, self._prefix(episode)) for episode in played)
        values = {
            **curves,
            **describe(played, experience),
            **self._parts(played),
            **constraint_curves(self.multipliers, measured),
            "rollout_seconds": rollout_s,
            "train_seconds": train_s,
            "rollout_tokens_per_second": (self.engine.generated_tokens - generated) / max(rollout_s, 1e-9),
        }
        self.multipliers = next_multipliers(self.multipliers, measured)
        self.recorder.log("policy", step + 1, **values)
        if self.keep_episodes is not None:
            self.keep_episodes(step + 1, experience.episodes, advantages)
        self.show.update(step + 1, reward=values["reward"], tokens_s=values["rollout_tokens_per_second"])

    # How it is done

    def _collect(self) -> tuple[list[Episode], list[Episode]]:
        """The episodes to learn from, and all that were played."""
        wanted = self.config.groups
        played = self._play(wanted)
        if not self.algorithm.dynamic_sampling:
            return _judged(played), played
        useful = _with_spread(_judged(played))
        for _ in range(self.algorithm.max_refills):
            missing = wanted - len({episode.group for episode in useful})
            if missing <= 0:
                return useful, played
            fresh = self._play(missing)
            played += fresh
            useful += _with_spread(_judged(fresh))
        if not useful:
            rewards = sorted({episode.reward for episode in _judged(played) if episode.reward is not None})
            raise StarvedError(
                f"Dynamic sampling played {len(played)} episodes and found no group with spread in its rewards "
                f"(rewards seen: {rewards[:5]}); choose tasks nearer to the policy's level, raise policy.group_size, "
                "or set policy.options.dynamic_sampling: false."
            )
        return useful, played

    def _play(self, groups: int) -> list[Episode]:
        """The episodes of the next groups, with what their constraints charge."""
        episodes = self.rollout.run(self.stream.groups(groups))
        return [charged(episode, self.multipliers, self._prefix(episode)) for episode in episodes]

    def _prefix(self, episode: Episode) -> str:
        """What tells parts of the same path apart where a run has several environments."""
        return f"{episode.env}/" if len(self.stream.arenas) > 1 else ""

    def _parts(self, played: Sequence[Episode]) -> dict[str, float]:
        """Curves of the parts of verdicts: the mean value, and how many gave none."""
        curves: dict[str, float] = {}
        for arena, _ in self.stream.arenas:
            own = [episode for episode in played if episode.env == arena.name]
            prefix = f"verifier/{self._prefix(own[0])}" if own else ""
            for path, score in part_scores(own).items():
                if score.mean is not None:
                    curves[f"{prefix}{path}"] = score.mean
                counts = {"undecided": score.undecided, "error": score.errors, "not_asked": score.not_asked}
                curves |= {f"{prefix}{path}/{name}": float(count) for name, count in counts.items()}
        return curves

    def _experience(self, step: int, episodes: list[Episode]) -> Experience:
        names = {name: index for index, name in enumerate(dict.fromkeys(episode.group for episode in episodes))}
        rewards = np.array([self._reward(episode) for episode in episodes])
        if self.config.shuffle_rewards:
            rewards = np.random.default_rng(derive_seed(self.seed, "shuffle", step)).permutation(rewards)
        groups = np.array([names[episode.group] for episode in episodes])
        return Experience(episodes, rewards, groups, self._kl(episodes))

    def _reward(self, episode: Episode) -> float:
        assert episode.reward is not None
        return episode.reward + self._overlong(episode)

    def _overlong(self, episode: Episode) -> float:
        """Soft overlong penalty of the longest turn: 0 up to max_tokens - buffer, then linear to -1 (DAPO, eq. 13)."""
        buffer = self.algorithm.overlong_buffer
        if not buffer:
            return 0.0
        longest = max((s.end - s.start for t in episode.trajectories for s in t.steps), default=0)
        return -min(max(longest - (self.stream.sampling.max_tokens - buffer), 0) / buffer, 1.0)

    def _kl(self, episodes: list[Episode]) -> list[list[np.ndarray]] | None:
        algorithm = self.algorithm
        if algorithm.kl is None or algorithm.kl_in != "reward" or algorithm.kl_coef == 0 or self.reference is None:
            return None
        rows = [Row(t, np.zeros(len(t.mask)), 0.0) for episode in episodes for t in episode.trajectories]
        references = iter(frozen_logprobs(self.reference, rows, self.config.micro_batch_tokens))
        return [
            [
                algorithm.kl_coef * np.where(t.mask, np.array(t.logprobs) - next(references), 0.0)
                for t in episode.trajectories
            ]
            for episode in episodes
        ]

    def _optimise(self, step: int, experience: Experience, advantages: list[list[np.ndarray]]) -> dict[str, float]:
        """The optimiser steps of one rollout; curves are means over them."""
        algorithm, config = self.algorithm, self.config
        rows = build_rows(algorithm, experience.episodes, advantages)
        if not rows:
            return {}
        if "reference" in algorithm.needs and self.reference is not None and algorithm.kl_in == "loss":
            references = frozen_logprobs(self.reference, rows, config.micro_batch_tokens)
            rows = [replace(row, reference=values) for row, values in zip(rows, references, strict=True)]
        if config.minibatches > 1:
            olds = frozen_logprobs(self.model, rows, config.micro_batch_tokens)
            rows = [replace(row, old=values) for row, values in zip(rows, olds, strict=True)]
        order = np.random.default_rng(derive_seed(self.seed, "minibatches", step)).permutation(len(rows))
        curves: list[dict[str, float]] = []
        self.model.train()
        for index, part in enumerate(np.array_split(order, min(config.minibatches, len(rows)))):
            # With one minibatch the rows keep the weights of the whole step, else each step has its own.
            chosen = rows if config.minibatches == 1 else weigh(algorithm, [rows[i] for i in part], list(part))
            found = accumulate(algorithm, self.model, chosen, config.micro_batch_tokens)
            done = step * config.minibatches + index
            lr = learning_rate(config.optimizer, done, config.steps * config.minibatches)
            found["grad_norm"] = apply_step(self.optimizer, config.optimizer, lr)
            curves.append({**found, "lr": lr})
        return {name: float(np.mean([curve[name] for curve in curves])) for name in curves[0]}


def describe(played: Sequence[Episode], experience: Experience) -> dict[str, float]:
    """Curves of a rollout: rewards (also by environment), lengths, groups without spread, how episodes ended."""
    judged = _judged(played)
    lengths = [sum(sum(t.mask) for t in episode.trajectories) for episode in played]
    turns = [sum(len(t.steps) for t in episode.trajectories) for episode in played]
    groups = len({episode.group for episode in judged})
    values: dict[str, float] = {
        "reward": float(np.mean([episode.reward for episode in judged])) if judged else float("nan"),
        "episodes": float(len(played)),
        "errors": float(len(played) - len(judged)),
        "undecided": float(sum(e.verdict is not None and e.verdict.is_undecided for e in played)),
        "truncated": float(np.mean([episode.truncated for episode in played])),
        "length": float(np.mean(lengths)),
        "length_max": float(np.max(lengths)),
        "turns": float(np.mean(turns)),
        "groups_without_spread": 1 - len({e.group for e in _with_spread(judged)}) / max(groups, 1),
    }
    names = sorted({episode.env for episode in judged})
    if len(names) > 1:
        for name in names:
            values[f"reward/{name}"] = float(np.mean([e.reward for e in judged if e.env == name]))
    for part in dict.fromkeys(name for e in judged for name in e.rewards if name not in _paths(e)):
        values[f"reward_part/{part}"] = float(np.mean([e.rewards.get(part, 0.0) for e in judged]))
    return values


def _paths(episode: Episode) -> set[str]:
    """The paths of a verdict's parts, which have curves of their own."""
    return {path for path, _ in episode.verdict.walk()} if episode.verdict else set()


def _judged(episodes: Sequence[Episode]) -> list[Episode]:
    """Episodes with a reward; those that the infrastructure failed leave the loss and the baseline."""
    return [episode for episode in episodes if episode.reward is not None]


def _with_spread(episodes: Sequence[Episode]) -> list[Episode]:
    """Those whose group has rewards further apart than sums of shaping terms are by rounding."""
    rewards: dict[str, list[float]] = {}
    for episode in episodes:
        if episode.reward is not None:
            rewards.setdefault(episode.group, []).append(episode.reward)
    return [episode for episode in episodes if max(own := rewards[episode.group]) - min(own) > ROUNDING]

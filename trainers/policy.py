"""The policy trainer: roll out, estimate advantages, step, hand the weights to the engine, and again.

Invariant: which algorithm runs is known to the record alone; and everything the next step depends on is either in the
checkpoint or derived from the run's seed (tests/test_resume.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..agents.engine import Sampling, TrainingEngine, is_exact, resting
from ..agents.part_scores import part_scores
from ..agents.rollout import EpisodeRequest, EpisodesFailedError, Player
from ..agents.seeds import derive_seed
from ..agents.trajectory import Episode, check_tokens
from ..sandbox.errors import LudusError
from ..verifiers.verdict import Outcome
from .algorithms import Algorithm, AlgorithmError, Experience
from .algorithms.advantages import length_reward
from .algorithms.corrections import for_engine
from .batch import Row
from .config import PolicyConfig
from .constraints import charged, constraint_curves, gather, next_multipliers
from .critic import Critic, accumulate_values, token_values
from .expert_replay import ExpertReplay, ExpertReplayError
from .in_flight import InFlight
from .ledger import Ledger
from .optimizer import AnyOptimizer, NonFiniteError, SpikeError, apply_step, learning_rate
from .policy_step import (
    CUT,
    accumulate,
    build_rows,
    frozen_logprobs,
    frozen_scores,
    gradient_error,
    percentiles,
    weigh,
)
from .recorder import Recorder, Show
from .task_stream import TaskStream
from .token_gradients import TokenGradients
from .trust_region import trust_region_step
from .unfinished import Unfinished

if TYPE_CHECKING:
    from transformers import PreTrainedModel


KeepEpisodes = Callable[[int, list[Episode], list[list[np.ndarray]], list[list[TokenGradients | None]]], None]
"""Called after each step with its number, the episodes, their advantages by trajectory [T], and why each token got its
gradient, None for a trajectory that carried no loss."""
RECENT = 20
"""Steps before a spike that say what is usual; half of them have to be there."""
ROUNDING = 1e-9
"""Rewards of a group that are no further apart are the same."""
LENGTH_PERCENTS = (10, 50, 90)
"""Which percentiles of the length of an episode have curves."""


class StarvedError(LudusError):
    """Dynamic sampling found too few groups with spread."""


@dataclass
class PolicyTrainer:
    """Everything one run of policy optimisation works with.

    reference: a frozen copy of the policy before training, or of its last renewal, where the algorithm needs one;
    teacher: likewise, a frozen model with the policy's tokenizer. state: what the algorithm remembers. multipliers: the
    prices of the constraints in rubrics, by name, which the next step charges. norms: of the gradients of the last
    steps. unfinished: episodes that the next policy goes on with, or that are played while it learns, where there are
    any. ledger: what became of the groups. replay: has the model choose the sampler's experts, where it has any.
    """

    model: PreTrainedModel
    optimizer: AnyOptimizer
    engine: TrainingEngine
    rollout: Player
    stream: TaskStream
    algorithm: Algorithm
    config: PolicyConfig
    seed: int
    recorder: Recorder
    show: Show
    reference: PreTrainedModel | None = None
    teacher: PreTrainedModel | None = None
    state: dict[str, Any] | None = None
    keep_episodes: KeepEpisodes | None = None
    multipliers: dict[str, float] = field(default_factory=dict)
    norms: list[float] = field(default_factory=list)
    unfinished: Unfinished | InFlight | None = None
    critic: Critic | None = None
    critic_optimizer: AnyOptimizer | None = None
    ledger: Ledger = field(default_factory=Ledger)
    replay: ExpertReplay | None = None
    _greedy: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # What an earlier policy began is a sample of another one, whatever the engine.
        self.algorithm = for_engine(self.algorithm, is_exact(self.engine) and self.unfinished is None)
        self.stream.ledger = self.ledger

    def train(self, first_step: int, after_step: Callable[[int], None]) -> None:
        """Take the steps first_step … config.steps, calling `after_step(steps done)` after each."""
        self.state = dict(self.algorithm.initial_state) if self.state is None else self.state
        for step in range(first_step, self.config.steps):
            self.step(step)
            after_step(step + 1)
        self.show.note(self.ledger.finish([] if self.unfinished is None else self.unfinished.names()))

    def step(self, step: int) -> None:
        """One rollout and the optimiser steps made from it."""
        self.model.eval()
        clock = time.monotonic()
        generated = self.engine.generated_tokens
        episodes, played = self._collect()
        rollout_s = time.monotonic() - clock
        clock = time.monotonic()
        with resting(self.engine):
            check_tokens(played)
            if not any(episode.trajectories for episode in episodes):
                raise EpisodesFailedError.of(played)
            others = self._others(episodes)
            experience = self._experience(step, episodes, others)
            advantages, self.state = self.algorithm.estimator(experience, self.state or {})
            gradients: list[list[TokenGradients | None]] = [[None for _ in e.trajectories] for e in episodes]
            try:
                curves = self._optimise(step, experience, advantages, others, gradients)
            except NonFiniteError as error:
                raise NonFiniteError(f"Policy step {step + 1}: {error}") from None
            curves |= self._replayed(episodes)
            self._watch_for_spikes(step, curves.get("grad_norm/max", curves.get("grad_norm")))
            self._account(episodes, played)
            self._renew_reference(step + 1)
        self.engine.load_weights(self.model, step + 1)
        train_s = time.monotonic() - clock
        measured = gather((episode, self._prefix(episode)) for episode in played)
        values = {
            **curves,
            **describe(played, experience),
            **({} if "kl_teacher" in curves else teacher_gap(experience)),
            **self._parts(played),
            **constraint_curves(self.multipliers, measured),
            **self.stream.learn(played),
            **self._left(episodes, step),
            **_speeds(self.engine.generated_tokens - generated, rollout_s, played, train_s, episodes),
        }
        self.multipliers = next_multipliers(self.multipliers, measured)
        self.recorder.log("policy", step + 1, **values)
        if self.keep_episodes is not None:
            self.keep_episodes(step + 1, experience.episodes, advantages, gradients)
        self.show.update(step + 1, reward=values["reward"], tokens_s=values["rollout_tokens_per_second"])

    # How it is done

    def _collect(self) -> tuple[list[Episode], list[Episode]]:
        """The episodes to learn from, and all that were played."""
        wanted = self.config.groups
        self._greedy = {}
        played = self._play(wanted)
        if "greedy" in self.algorithm.needs:
            return [episode for episode in _judged(played) if episode.group in self._greedy], played
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

    def _account(self, episodes: Sequence[Episode], played: Sequence[Episode]) -> None:
        """Tell the ledger which groups were learnt from, and why others were not."""
        learnt, judged = {e.group for e in episodes}, {e.group for e in _judged(played)}
        self.ledger.learn(learnt)
        self.ledger.drop({e.group for e in played} - judged, "failed")
        alike = self.algorithm.dynamic_sampling
        self.ledger.drop(judged - learnt, "without spread" if alike else "without a baseline")

    def _play(self, groups: int) -> list[Episode]:
        """The episodes of the next groups, with what their constraints charge."""
        if self.unfinished is not None:
            episodes = self.unfinished.play(self.rollout, self.stream, groups, self.engine.version)
            for episode in episodes:
                _refuse_lost_sets(self.engine, self.stream.sampling, episode)
            return [charged(episode, self.multipliers, self._prefix(episode)) for episode in episodes]
        requests = self.stream.groups(groups)
        greedy: dict[str, EpisodeRequest] = {}
        if "greedy" in self.algorithm.needs:
            for request in requests:
                sampling = replace(request.sampling, temperature=0.0)
                greedy.setdefault(request.group, replace(request, id=f"{request.group}/greedy", sampling=sampling))
        episodes = [
            charged(episode, self.multipliers, self._prefix(episode))
            for episode in self.rollout.run([*requests, *greedy.values()])
        ]
        for request, episode in zip(requests, episodes, strict=False):
            _refuse_lost_sets(self.engine, request.sampling, episode)
        baselines = episodes[len(requests) :]
        if baselines and not _judged(baselines):
            raise EpisodesFailedError.of(baselines)
        self._greedy |= {episode.group: self._reward(episode) for episode in _judged(baselines)}
        return episodes[: len(requests)]

    def _left(self, episodes: Sequence[Episode], step: int) -> dict[str, float]:
        """Curves of what was begun by earlier policies, and of what the next one goes on with."""
        if self.unfinished is None:
            return {}
        return self.unfinished.curves(episodes, step)

    def _replayed(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """How often the sampler's experts were not those that the policy would have chosen, whose turn it is again."""
        if self.replay is None:
            return {}
        if not any(path.experts for episode in episodes for path in episode.trajectories):
            raise ExpertReplayError(
                f"{type(self.engine).__name__} did not tell which experts it chose; remove engine.keep_routing."
            )
        choices, replaced = self.replay.choices, self.replay.replaced
        self.replay.rest()
        return {"experts_replaced": replaced / choices} if choices else {}  # none while only a critic learns

    def _renew_reference(self, done: int) -> None:
        every = self.config.reference_every
        if every is not None and self.reference is not None and done % every == 0:
            self.reference.load_state_dict(self.model.state_dict())

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

    def _experience(self, step: int, episodes: list[Episode], others: list[list[np.ndarray]] | None) -> Experience:
        names = {name: index for index, name in enumerate(dict.fromkeys(episode.group for episode in episodes))}
        groups = np.array([names[episode.group] for episode in episodes])
        rewards = np.array([self._reward(episode) for episode in episodes])
        if self.algorithm.length_reward:
            ended = [episode for episode in episodes if episode.terminated]  # one that was cut has no verdict
            if ended and not any(episode.verdict for episode in ended):
                raise AlgorithmError(
                    f"{self.algorithm.name} pays right answers for being short, and no verifier has said which are"
                    " right; choose another algorithm, or set policy.options.length_reward: 0 where it has that option."
                )
            lengths = np.array([_length(episode) for episode in episodes])
            right = np.array([e.verdict is not None and e.verdict.outcome is Outcome.CORRECT for e in episodes])
            rewards = rewards + self.algorithm.length_reward * length_reward(lengths, right, groups)
        if self.config.shuffle_rewards:
            rewards = np.random.default_rng(derive_seed(self.seed, "shuffle", step)).permutation(rewards)
        greedy = None
        if "greedy" in self.algorithm.needs:
            greedy = np.array([self._greedy[episode.group] for episode in episodes])
        values = None
        if self.critic is not None:
            rows = [Row(t, np.zeros(len(t.mask)), 0.0) for episode in episodes for t in episode.trajectories]
            observed = "observed values" in self.algorithm.needs
            found = iter(token_values(self.critic, rows, self.config.micro_batch_tokens, observed))
            values = [[next(found) for _ in episode.trajectories] for episode in episodes]
        teacher = others if "teacher" in self.algorithm.needs else None
        logprobs, entropies = self._own(episodes, others)
        by_step = not self.config.shuffle_rewards
        experience = Experience(episodes, rewards, groups, None, entropies, greedy, values, teacher, by_step, logprobs)
        return replace(experience, kl_E=self._kl(experience, others))

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

    def _others(self, episodes: list[Episode]) -> list[list[np.ndarray]] | None:
        """The log-probability of each token under the teacher or the reference, whichever the algorithm needs."""
        model = {"teacher": self.teacher, "reference": self.reference}.get(self.algorithm.other or "")
        if model is None:
            return None
        rows = [Row(t, np.zeros(len(t.mask)), 0.0) for episode in episodes for t in episode.trajectories]
        found = iter(frozen_logprobs(model, rows, self.config.micro_batch_tokens))
        return [[next(found) for _ in episode.trajectories] for episode in episodes]

    def _kl(self, experience: Experience, others: list[list[np.ndarray]] | None) -> list[list[np.ndarray]] | None:
        """k1 to the reference times its price, at each token, where it belongs into the reward."""
        algorithm = self.algorithm
        if algorithm.kl is None or algorithm.kl_in != "reward" or algorithm.kl_coef == 0 or others is None:
            return None
        return [
            [
                self._kl_coef * np.where(t.mask, logprobs - reference, 0.0)
                for t, logprobs, reference in zip(episode.trajectories, own, of_episode, strict=True)
            ]
            for episode, own, of_episode in zip(experience.episodes, experience.logprobs(), others, strict=True)
        ]

    def _own(
        self, episodes: list[Episode], others: list[list[np.ndarray]] | None
    ) -> tuple[list[list[np.ndarray]] | None, list[list[np.ndarray]] | None]:
        """The policy's log-probability and entropy at each token, from one pass; each None where it is not needed.

        What a sampler recorded is the policy's own log-probability where the engine computes as the trainer does and
        every episode began with this policy.
        """
        foreign = not is_exact(self.engine) or self.unfinished is not None
        compared = others is not None and ("teacher" in self.algorithm.needs or self.algorithm.kl_in == "reward")
        uncertain = "entropy" in self.algorithm.needs
        if not uncertain and not (foreign and compared):
            return None, None
        rows = [Row(t, np.zeros(len(t.mask)), 0.0) for episode in episodes for t in episode.trajectories]
        scores = map(iter, frozen_scores(self.model, rows, self.config.micro_batch_tokens))
        logprobs, entropies = ([[next(own) for _ in e.trajectories] for e in episodes] for own in scores)
        return logprobs if foreign else None, entropies if uncertain else None

    def _optimise(
        self,
        step: int,
        experience: Experience,
        advantages: list[list[np.ndarray]],
        others: list[list[np.ndarray]] | None,
        gradients: list[list[TokenGradients | None]],
    ) -> dict[str, float]:
        """The optimiser steps of one rollout; curves are means over them. gradients: filled, by episode."""
        algorithm, config = self.algorithm, self.config
        rows = build_rows(algorithm, experience.episodes, advantages)
        if not rows:
            return {}
        if self.critic is not None:
            assert algorithm.value_target is not None and experience.values_E is not None
            targets = build_rows(algorithm, experience.episodes, algorithm.value_target(experience))
            said = build_rows(algorithm, experience.episodes, [[v[:-1] for v in part] for part in experience.values_E])
            rows = [
                replace(row, returns=target.advantages, values=values.advantages)
                for row, target, values in zip(rows, targets, said, strict=True)
            ]
        if others is not None:
            known = build_rows(algorithm, experience.episodes, others)
            rows = [replace(row, reference=one.advantages) for row, one in zip(rows, known, strict=True)]
        if config.epochs * config.minibatches > 1 or algorithm.trust_region is not None:
            if experience.logprobs_E is not None:
                olds = [row.advantages for row in build_rows(algorithm, experience.episodes, experience.logprobs_E)]
            else:
                olds = frozen_logprobs(self.model, rows, config.micro_batch_tokens)
            rows = [replace(row, old=values) for row, values in zip(rows, olds, strict=True)]
        curves: list[dict[str, float]] = []
        self.model.train()
        for index, part in enumerate(self._parts_of(step, rows)):
            # With one minibatch the rows keep the weights of the whole step, else each step has its own.
            chosen = rows if config.minibatches == 1 else weigh(algorithm, [rows[i] for i in part])
            per_rollout = config.epochs * config.minibatches
            done, steps = step * per_rollout + index, config.steps * per_rollout
            found = self._learn_values(chosen, done, steps)
            if self.critic is None or step >= config.critic.warmup_steps:
                wanted = self.keep_episodes is not None and index < config.minibatches
                kept: dict[int, TokenGradients] | None = {} if wanted else None
                found |= self._move(chosen, done, steps, kept)
                for place, one in (kept or {}).items():
                    paths = experience.episodes[chosen[place].episode].trajectories
                    where = next(i for i, path in enumerate(paths) if path is chosen[place].trajectory)
                    gradients[chosen[place].episode][where] = one
            curves.append(found)
        shown = {name: float(np.mean([curve[name] for curve in curves])) for name in curves[0]}
        if len(curves) > 1 and "grad_norm" in shown:
            shown["grad_norm/max"] = max(curve["grad_norm"] for curve in curves)
        if algorithm.next_kl_coef is not None and self.state is not None:
            shown["kl_coef"] = self._kl_coef
            measured = curves[-1].get("kl_old", shown.get(f"kl_{algorithm.kl_to}"))
            if measured is not None:
                self.state["kl_coef"] = algorithm.next_kl_coef(self._kl_coef, measured)
        return shown

    def _move(
        self, rows: Sequence[Row], done: int, steps: int, keep: dict[int, TokenGradients] | None
    ) -> dict[str, float]:
        """One step of the policy; its curves. keep: filled as `accumulate` does."""
        config = self.config
        if self.algorithm.trust_region is not None:
            return trust_region_step(self.algorithm, self.model, rows, config.micro_batch_tokens, keep)
        where = self.algorithm, self.model, rows, config.micro_batch_tokens, self._kl_coef, self.teacher
        found = accumulate(*where, keep)
        lr = learning_rate(config.optimizer, done, steps)
        try:
            return found | {"grad_norm": apply_step(self.optimizer, config.optimizer, lr), "lr": lr}
        except NonFiniteError:
            raise gradient_error(*where) from None

    def _watch_for_spikes(self, step: int, norm: float | None) -> None:
        """Raise SpikeError where the gradient was far larger than in the steps before."""
        if norm is None or not np.isfinite(norm):
            return
        usual = float(np.median(self.norms)) if len(self.norms) >= RECENT // 2 else None
        spike = self.config.spike
        if spike is not None and usual is not None and usual > 0 and norm > spike * usual:
            raise SpikeError(
                f"Policy step {step + 1}: the gradient norm is {norm:.4g}, {norm / usual:.3g} times the median of the"
                f" steps before, and policy.spike is {spike:g}; the last checkpoint stands. Lower policy.optimizer.lr,"
                " or raise policy.rollbacks to go on from it."
            )
        self.norms = [*self.norms, norm][-RECENT:]

    def _parts_of(self, step: int, rows: Sequence[Row]) -> Iterator[np.ndarray]:
        """The indices of the rows of each optimiser step that is made from one rollout; an episode is not divided."""
        episode_of = np.array([row.episode for row in rows])
        episodes = np.unique(episode_of)
        for epoch in range(self.config.epochs):
            place = (self.seed, "minibatches", step) if epoch == 0 else (self.seed, "minibatches", step, epoch)
            order = np.random.default_rng(derive_seed(*place)).permutation(episodes)
            for part in np.array_split(order, min(self.config.minibatches, len(episodes))):
                yield np.concatenate([np.flatnonzero(episode_of == episode) for episode in part])

    @property
    def _kl_coef(self) -> float:
        """The price of the KL term in this step."""
        return float((self.state or {}).get("kl_coef", self.algorithm.kl_coef))

    def _learn_values(self, rows: Sequence[Row], done: int, steps: int) -> dict[str, float]:
        """One optimiser step of the critic, where there is one; its curves."""
        if self.critic is None or self.critic_optimizer is None:
            return {}
        config = self.config.critic
        self.critic.train()
        found = accumulate_values(self.critic, rows, self.config.micro_batch_tokens, config.clip)
        found["value_grad_norm"] = apply_step(
            self.critic_optimizer, config.optimizer, learning_rate(config.optimizer, done, steps)
        )
        self.critic.eval()
        return found


def describe(played: Sequence[Episode], experience: Experience) -> dict[str, float]:
    """Curves of a rollout: rewards (also by environment), lengths, groups without spread, how episodes ended."""
    judged = _judged(played)
    lengths = np.array([_length(episode) for episode in played])
    turns = [sum(len(t.steps) for t in episode.trajectories) for episode in played]
    values: dict[str, float] = {
        "reward": float(np.mean([episode.reward for episode in judged])) if judged else float("nan"),
        "episodes": float(len(played)),
        "errors": float(len(played) - len(judged)),
        "undecided": float(sum(e.verdict is not None and e.verdict.is_undecided for e in played)),
        "truncated": float(np.mean([episode.truncated for episode in played])),
        "truncated/length": float(np.mean([episode.stop_reason in CUT for episode in played])),
        "length": float(np.mean(lengths)),
        "length_max": float(np.max(lengths)),
        **percentiles("length", lengths, LENGTH_PERCENTS),
        "turns": float(np.mean(turns)),
        **outcome_shares(played),
    }
    sizes = Counter(episode.group for episode in judged)
    groups = [group for group, size in sizes.items() if size > 1]
    if groups:
        values["groups_without_spread"] = 1 - len({e.group for e in _with_spread(judged)}) / len(groups)
    names = sorted({episode.env for episode in judged})
    if len(names) > 1:
        for name in names:
            values[f"reward/{name}"] = float(np.mean([e.reward for e in judged if e.env == name]))
    for part in dict.fromkeys(name for e in judged for name in e.rewards if name not in _paths(e)):
        values[f"reward_part/{part}"] = float(np.mean([e.rewards.get(part, 0.0) for e in judged]))
    return values


def outcome_shares(played: Sequence[Episode]) -> dict[str, float]:
    """The share of episodes with each outcome; they add up to 1.

    error: the infrastructure failed, with a verdict or without. none: no final answer was judged, as where an episode
    was cut or the environment pays by itself.
    """
    names = [
        "error"
        if episode.reward is None
        else "none"
        if episode.verdict is None
        else "undecided"
        if episode.verdict.is_undecided
        else episode.verdict.outcome.value
        for episode in played
    ]
    return {f"outcome/{name}": names.count(name) / len(names) for name in (*Outcome, "none")}


def _speeds(
    generated: int, rollout_s: float, played: Sequence[Episode], train_s: float, trained: Sequence[Episode]
) -> dict[str, float]:
    """Seconds of a step and sampled tokens a second in rollout, verification and training.

    Verification goes on during the rollout, of several episodes at a time: its seconds are the sum over the episodes
    and may exceed those of the rollout.
    """
    verify_s = sum(episode.verify_seconds for episode in played)
    tokens = {"rollout": generated, "verify": sum(map(_length, played)), "train": sum(map(_length, trained))}
    seconds = {"rollout": rollout_s, "verify": verify_s, "train": train_s}
    speeds = {f"{name}_tokens_per_second": tokens[name] / s for name, s in seconds.items() if s > 0}
    return {**{f"{name}_seconds": s for name, s in seconds.items()}, **speeds}


def _length(episode: Episode) -> int:
    """How many tokens were sampled."""
    return sum(sum(trajectory.mask) for trajectory in episode.trajectories)


def teacher_gap(experience: Experience) -> dict[str, float]:
    """The divergence from the teacher, estimated at the sampled tokens, where there is one."""
    if experience.teacher_E is None:
        return {}
    gaps = [
        (logprobs - teacher)[np.array(t.mask)]
        for episode, own, theirs in zip(experience.episodes, experience.logprobs(), experience.teacher_E, strict=True)
        for t, logprobs, teacher in zip(episode.trajectories, own, theirs, strict=True)
    ]
    return {"kl_teacher": float(np.concatenate(gaps).mean())}


def _paths(episode: Episode) -> set[str]:
    """The paths of a verdict's parts, which have curves of their own."""
    return {path for path, _ in episode.verdict.walk()} if episode.verdict else set()


def _refuse_lost_sets(engine: TrainingEngine, sampling: Sampling, episode: Episode) -> None:
    """Raise AlgorithmError where sampling was truncated and nobody knows to what."""
    if sampling.top_p == 1 and not sampling.top_k:
        return
    for trajectory in episode.trajectories:
        kept = trajectory.kept or (None,) * len(trajectory.mask)
        if any(sampled and ids is None for sampled, ids in zip(trajectory.mask, kept, strict=True)):
            raise AlgorithmError(
                f"{type(engine).__name__} does not say which tokens top_p = {sampling.top_p:g} and top_k ="
                f" {sampling.top_k} kept, so that nobody knows how likely its samples were; set sampling.top_p: 1 and"
                " sampling.top_k: 0, or train with an engine that returns the kept sets."
            )


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

"""Evaluate: a policy against an environment's verifier, with a confidence interval."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ..envs.errors import TaskError
from ..envs.source import epoch_index
from ..verifiers.verdict import Outcome
from .engine import Sampling, Usage
from .part_scores import PartScore, part_scores
from .rollout import EpisodeRequest, EpisodesFailedError, Player
from .seeds import derive_seed
from .statistics import wilson_interval
from .trajectory import Episode


@dataclass(frozen=True)
class EvalResult:
    """Accuracy (share judged CORRECT) over `tasks` judged tasks, its 95% Wilson interval, and how episodes ended.

    mean_reward: without shaping. errors: episodes that the infrastructure failed; they are in no average. baselines:
    scores that need no model. parts: of the verdicts, where those are a rubric's, by path. usage: of an endpoint.
    stopped: why the rest was not asked, such as a budget that was used up; None where all was.
    """

    env: str
    tasks: int
    accuracy: float
    low: float
    high: float
    mean_reward: float
    baselines: dict[str, float]
    outcomes: dict[str, int]
    errors: int
    seconds: float
    episodes: list[Episode] = field(repr=False, default_factory=list)
    parts: dict[str, PartScore] = field(default_factory=dict)
    usage: Usage | None = None
    stopped: str | None = None


def evaluate(
    rollout: Player,
    arena: str,
    *,
    tasks: int,
    sampling: Sampling,
    seed: int = 0,
    on_episode: Callable[[Episode], None] | None = None,
) -> EvalResult:
    """Play the first `tasks` tasks of an arena's source once each; a finite source gives at most all it has.

    seed: of the sampling, and of which tasks of a finite source are taken. Raises EpisodesFailedError where none
    could be judged.
    """
    its = rollout.arenas[arena]
    count = tasks if its.size is None else min(tasks, its.size)
    if count == 0:
        raise TaskError(f"The task source of {arena} is empty; give it at least one task.")
    requests = [
        EpisodeRequest(
            id=f"eval/{arena}/{index}",
            env=arena,
            task=its.task(epoch_index(index, its.size, seed)),
            group=f"eval/{arena}/{index}",
            seed=derive_seed(seed, "eval", arena, index),
            sampling=sampling,
        )
        for index in range(count)
    ]
    start = time.monotonic()
    episodes = rollout.run(requests, on_episode)
    judged = [episode for episode in episodes if episode.reward is not None]
    if not judged or not any(episode.trajectories or episode.replies for episode in episodes):
        raise EpisodesFailedError.of(episodes)
    right = sum(_is_right(episode) for episode in judged)
    low, high = wilson_interval(right, len(judged))
    return EvalResult(
        env=arena,
        tasks=len(judged),
        accuracy=right / len(judged),
        low=low,
        high=high,
        mean_reward=sum(_reward(episode) for episode in judged) / len(judged),
        baselines=its.ask("computing baselines", its.env.baselines),
        outcomes=dict(Counter(map(_ending, episodes))),
        errors=len(episodes) - len(judged),
        seconds=time.monotonic() - start,
        episodes=episodes,
        parts=part_scores(episodes),
        usage=rollout.usage,
        stopped=rollout.stopped,
    )


def _ending(episode: Episode) -> str:
    if episode.verdict is None:
        return episode.stop_reason
    return "undecided" if episode.verdict.is_undecided else episode.verdict.outcome.value


def _is_right(episode: Episode) -> bool:
    if episode.verdict is not None:
        return episode.verdict.outcome is Outcome.CORRECT
    return _reward(episode) == 1.0  # an environment that pays by itself


def _reward(episode: Episode) -> float:
    return (episode.reward or 0.0) - episode.rewards.get("shaping", 0.0)

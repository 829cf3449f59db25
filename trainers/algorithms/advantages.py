"""Advantage estimators. Each has a core over episode rewards that three numbers can test, and spreads it over tokens.

Baselines count episodes. Rewards have any unit; advantages have the same one, or none where they are normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from .record import Estimator, Experience, State

Deviation = Literal["bessel", "population", "none"]


def group_norm(rewards_E: np.ndarray, groups_E: np.ndarray, std: Deviation = "bessel", eps: float = 1e-6) -> np.ndarray:
    """`(R - mean) / (std + eps)` within each group; 0 in a group without spread and in a group of one.

    Source: GRPO, DeepSeekMath (arXiv:2402.03300), section 4.1.2. verl has eps 1e-6 and TRL 1e-4, both with Bessel's
    correction.
    """
    advantages = np.zeros(len(rewards_E))
    for rows in _groups(groups_E):
        rewards = rewards_E[rows]
        if np.ptp(rewards) == 0:
            continue
        scale = 1.0 if std == "none" else rewards.std(ddof=1 if std == "bessel" else 0) + eps
        advantages[rows] = (rewards - rewards.mean()) / scale
    return advantages


def group_center(rewards_E: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    """`R - mean` within each group. Source: Dr. GRPO (arXiv:2503.20783), section 3.2."""
    return group_norm(rewards_E, groups_E, std="none")


def leave_one_out(rewards_E: np.ndarray, groups_E: np.ndarray) -> np.ndarray:
    """`R_i - mean of the others` in each group; 0 in a group of one. Source: RLOO (arXiv:2402.14740), equation 8."""
    advantages = np.zeros(len(rewards_E))
    for rows in _groups(groups_E):
        rewards = rewards_E[rows]
        if len(rows) > 1:
            advantages[rows] = (rewards - rewards.mean()) * len(rows) / (len(rows) - 1)
    return advantages


def subtract_baseline(rewards_E: np.ndarray, baseline: float) -> np.ndarray:
    """`R - b`. Source: REINFORCE (Williams, 1992)."""
    return rewards_E - baseline


def by_group(core: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimator:
    """An estimator from a core over (rewards_E, groups_E): every sampled token gets its episode's advantage.

    Where the algorithm puts KL into the reward, the rewards are those less the episode's summed KL.
    """

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        return spread(experience, core(penalised(experience), experience.groups_E)), state

    return estimate


def moving_average(decay: float | None) -> Estimator:
    """`R - b` with b the moving average of earlier batches' mean rewards (decay None: b = 0). State: `baseline`."""

    def estimate(experience: Experience, state: State) -> tuple[list[list[np.ndarray]], State]:
        rewards = penalised(experience)
        if decay is None:
            return spread(experience, rewards), state
        mean = float(rewards.mean())
        baseline = state.get("baseline", mean)
        advantages = subtract_baseline(rewards, baseline)
        return spread(experience, advantages), {**state, "baseline": decay * baseline + (1 - decay) * mean}

    return estimate


def penalised(experience: Experience) -> np.ndarray:
    """Episode rewards less the k1 of their sampled tokens, already multiplied by its coefficient."""
    if experience.kl_E is None:
        return experience.rewards_E
    return experience.rewards_E - np.array([sum(kl.sum() for kl in parts) for parts in experience.kl_E])


def spread(experience: Experience, advantages_E: np.ndarray) -> list[list[np.ndarray]]:
    """Give every sampled token its episode's advantage and every other token 0."""
    return [
        [np.where(trajectory.mask, advantage, 0.0) for trajectory in episode.trajectories]
        for episode, advantage in zip(experience.episodes, advantages_E, strict=True)
    ]


def _groups(groups_E: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups_E == group) for group in np.unique(groups_E)]

"""Algorithm: one record that names an estimator, a loss, a reduction, a KL term, and what they need.

The policy trainer reads only this record; it never asks which algorithm it is running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from torch import Tensor

from ...agents.trajectory import Episode

State = dict[str, Any]


@dataclass(frozen=True)
class Experience:
    """What estimators see of one rollout: only episodes that were judged.

    rewards_E: sum of rewards of each episode. groups_E: a number for each episode; equal numbers share a baseline.
    kl_E: for each episode, per trajectory, k1 = logprob - reference logprob of each token [T], where the algorithm puts
    KL into the reward; else None.
    """

    episodes: list[Episode]
    rewards_E: np.ndarray
    groups_E: np.ndarray
    kl_E: list[list[np.ndarray]] | None = None


Estimator = Callable[[Experience, State], tuple[list[list[np.ndarray]], State]]
"""From an experience to the advantage of each token, [episode][trajectory][T], and the next state."""

PolicyLoss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""(logprobs_N, old_N, advantages_N) to the loss of each token and, by name, what a curve should show of it [N]."""

Reduction = Callable[..., np.ndarray]
"""(lengths_N, episodes_N) to the weight of each trajectory's tokens in the step's loss, [N]."""

KLTerm = Callable[[Tensor, Tensor], Tensor]
"""(logprobs_N, reference_N) to the term of each of the N sampled tokens."""


@dataclass(frozen=True)
class Algorithm:
    """A policy-optimisation algorithm.

    needs: of {"reference", "old"}, log-probabilities that the trainer must compute besides those of the policy; and
    "siblings", more than one episode of each task.
    dynamic_sampling: groups without spread are dropped and refilled, at most `max_refills` times the batch.
    overlong_buffer: soft overlong penalty, linear to -1 over the last so many tokens before max_tokens (DAPO, eq. 13).
    drop_truncated: episodes cut at a length limit stay in the baseline and leave the loss.
    """

    name: str
    estimator: Estimator
    loss: PolicyLoss
    reduction: Reduction
    kl: KLTerm | None = None
    kl_coef: float = 0.0
    kl_in: Literal["loss", "reward"] = "loss"
    needs: frozenset[str] = frozenset()
    dynamic_sampling: bool = False
    max_refills: int = 8
    overlong_buffer: int = 0
    drop_truncated: bool = False
    initial_state: State = field(default_factory=dict)

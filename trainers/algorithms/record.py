"""Algorithm: one record that names an estimator, a loss, a reduction, a KL term, and what they need.

The policy trainer reads only this record; it never asks which algorithm it is running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...agents.trajectory import Episode
from ...sandbox.errors import LudusError

State = dict[str, Any]


class AlgorithmError(LudusError):
    """An algorithm or an option of it that does not exist or makes no sense."""


@dataclass(frozen=True)
class Experience:
    """What estimators see of one rollout: only episodes that were judged.

    rewards_E: sum of rewards of each episode. groups_E: a number for each episode; equal numbers share a baseline.
    Per episode and trajectory, for each token [T], and 0 where the policy did not sample it: kl_E, k1 = logprob -
    reference logprob times its coefficient, where the algorithm puts KL into the reward; entropies_E, in nats;
    values_E, what a critic says of the state before each token and, last, of that at the end, [T + 1], for observed
    tokens where the algorithm asks for it; teacher_E, the
    teacher's log-probability; logprobs_E, that of the policy, None where it is what the sampler recorded, see
    `logprobs`. greedy_E: the reward of a greedy episode of the same task. None where the algorithm needs
    none. paid_by_step: whether the rewards of steps stand where they were earned; else all that an episode was paid
    stands at its end, as where rewards were shuffled over episodes.
    """

    episodes: list[Episode]
    rewards_E: np.ndarray
    groups_E: np.ndarray
    kl_E: list[list[np.ndarray]] | None = None
    entropies_E: list[list[np.ndarray]] | None = None
    greedy_E: np.ndarray | None = None
    values_E: list[list[np.ndarray]] | None = None
    teacher_E: list[list[np.ndarray]] | None = None
    paid_by_step: bool = True
    logprobs_E: list[list[np.ndarray]] | None = None

    def logprobs(self) -> list[list[np.ndarray]]:
        """The policy's log-probability of each token, [episode][trajectory][T], 0 where it was not sampled.

        What was sampled by an earlier policy, or by an engine that computes otherwise, has another than was recorded.
        """
        if self.logprobs_E is not None:
            return self.logprobs_E
        return [[np.where(t.mask, t.logprobs, 0.0) for t in episode.trajectories] for episode in self.episodes]


@dataclass(frozen=True)
class Tokens:
    """The N sampled tokens of whole responses, as losses and corrections see them; log-probabilities in nats.

    logprobs_N: of the policy, with its gradient. old_N: of the policy when the optimiser phase began. sampler_N: as
    recorded when they were sampled. advantages_N. response_N: a number for each, equal within a response.
    reverse_kl_N: the divergence from the teacher's distribution, over the whole vocabulary, with its gradient; None
    where the algorithm does not need it.
    """

    logprobs_N: Tensor
    old_N: Tensor
    sampler_N: Tensor
    advantages_N: Tensor
    response_N: Tensor
    reverse_kl_N: Tensor | None = None

    def sums(self, values_N: Tensor) -> Tensor:
        """At each token, the sum of the values of its response, [N]."""
        index_N = self._index_N
        totals = torch.zeros(int(index_N.max()) + 1, dtype=values_N.dtype, device=values_N.device)
        return totals.index_add(0, index_N, values_N)[index_N]

    @cached_property
    def lengths_N(self) -> Tensor:
        """At each token, how many tokens of its response were sampled, [N]."""
        return self.sums(torch.ones_like(self.logprobs_N.detach()))

    @cached_property
    def _index_N(self) -> Tensor:
        return torch.unique(self.response_N, return_inverse=True)[1]


Estimator = Callable[[Experience, State], tuple[list[list[np.ndarray]], State]]
"""From an experience to the advantage of each token, [episode][trajectory][T], and the next state."""

PolicyLoss = Callable[[Tokens], tuple[Tensor, dict[str, Tensor]]]
"""The loss of each token and, by name, what a curve should show of it [N]."""

ValueTarget = Callable[[Experience], list[list[np.ndarray]]]
"""What a critic should have said of each sampled token, [episode][trajectory][T]."""

Reduction = Callable[..., np.ndarray]
"""(lengths_N, episodes_N) to the weight of each trajectory's tokens in the step's loss, [N]."""

KLTerm = Callable[[Tensor, Tensor], Tensor]
"""(logprobs_N, reference_N) to the term of each of the N sampled tokens."""

NextCoefficient = Callable[[float, float], float]
"""(coefficient, measured KL in nats a token) to the coefficient of the next step."""

Correction = Callable[[Tokens], Tensor]
"""A factor of each token's policy loss, [N], without gradient; the KL term is not multiplied by it."""


@dataclass(frozen=True)
class TrustRegion:
    """How a step along the natural gradient is found (TRPO, arXiv:1502.05477).

    radius: divergence of the old policy from the new one, nats a token. damping: added to the curvature's diagonal.
    cg_steps: of conjugate gradients. trials: lengths of the step, each half the one before. curvature_share: of the
    rollout's trajectories, spread evenly over it, from which the curvature is estimated (appendix C takes a tenth);
    the gradient, and what is checked of a step, are always those of the whole rollout.
    """

    radius: float = 0.01
    damping: float = 0.1
    cg_steps: int = 10
    trials: int = 10
    curvature_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.curvature_share <= 1:
            raise AlgorithmError(
                f"A trust region needs a curvature_share above 0 and up to 1, where all trajectories count, not"
                f" {self.curvature_share}."
            )
        if not self.radius > 0 or not self.damping >= 0 or self.cg_steps < 1 or self.trials < 1:
            raise AlgorithmError(
                f"A trust region needs a radius above 0 ({self.radius}), a damping of at least 0 ({self.damping}), and"
                f" cg_steps ({self.cg_steps}) and trials ({self.trials}) of at least 1."
            )


@dataclass(frozen=True)
class Algorithm:
    """A policy-optimisation algorithm.

    ratio: what the probability ratio of the loss is of; that of a whole response goes with a reduction that weighs
    responses. kl_weight: the KL term times a differentiable ratio, of the policy to the old one or to the sampler,
    which makes its gradient unbiased (DeepSeek-V3.2, arXiv:2512.02556). kl_to: "old" is the divergence *from* the
    policy before the step, whose samples these are. kl_below: the term only counts in episodes whose reward is below
    this. next_kl_coef: how the coefficient follows what was measured; it is then in the state. corrections: factors of
    the policy loss, for samples of another policy. weigh_foreign: samples of an engine that computes otherwise than the
    trainer get a truncated weight, see `corrections.for_engine`. entropy_coef: weight of the policy's entropy at each
    sampled token, which is taken from the loss. counts: what the reduction takes the mean over.
    trust_region: the step follows the natural gradient within it, instead of the optimizer.
    value_target: what a critic learns. needs: of {"reference", "teacher", "teacher's distribution", "entropy",
    "values", "observed values" (those of observed tokens, too)}, what the trainer must compute besides the
    log-probabilities of the policy; "greedy", one more episode of
    each task, at temperature 0 and never trained on; "siblings", more than one episode of each task; and "several
    steps", more than one optimiser step from each rollout.
    dynamic_sampling: groups without spread are dropped and refilled, at most `max_refills` times the batch.
    overlong_buffer: soft overlong penalty, linear to -1 over the last so many tokens before max_tokens (DAPO, eq. 13).
    drop_truncated: episodes cut at a length limit stay in the baseline and leave the loss. length_reward: weight of the
    length reward of Kimi k1.5 within each group.
    """

    name: str
    estimator: Estimator
    loss: PolicyLoss
    reduction: Reduction
    ratio: Literal["token", "sequence"] = "token"
    kl: KLTerm | None = None
    kl_coef: float = 0.0
    kl_in: Literal["loss", "reward"] = "loss"
    kl_weight: Literal["old", "sampler"] | None = None
    kl_to: Literal["reference", "old", "teacher"] = "reference"
    kl_below: float | None = None
    next_kl_coef: NextCoefficient | None = None
    corrections: tuple[Correction, ...] = ()
    weigh_foreign: bool = True
    entropy_coef: float = 0.0
    counts: Literal["episodes", "trajectories"] = "episodes"
    trust_region: TrustRegion | None = None
    value_target: ValueTarget | None = None
    needs: frozenset[str] = frozenset()
    dynamic_sampling: bool = False
    max_refills: int = 8
    overlong_buffer: int = 0
    drop_truncated: bool = False
    length_reward: float = 0.0
    initial_state: State = field(default_factory=dict)

    @property
    def other(self) -> Literal["reference", "teacher"] | None:
        """The frozen model that the algorithm looks at beside the policy."""
        if "teacher" in self.needs:
            return "teacher"
        return "reference" if "reference" in self.needs else None

    def __post_init__(self) -> None:
        name = _name(self.reduction)
        if self.ratio == "sequence" and name in ("token_mean", "sequence_mean_token_sum", "constant_length"):
            raise AlgorithmError(
                f"{self.name}: with one ratio for each response, {name} would count it once for each of its tokens; use"
                " sequence_mean_token_mean."
            )
        kl = _name(self.kl)
        if kl == "k1" and self.kl_in == "loss" and self.kl_weight is None:
            raise AlgorithmError(
                f"{self.name}: the expected gradient of k1 in the loss is zero; put it into the reward, take k2 or k3,"
                " or weigh it (kl_weight)."
            )
        if kl in ("k2", "k3") and self.kl_in == "reward":
            raise AlgorithmError(f"{self.name}: {kl} in the reward is biased; put k1 there, or {kl} into the loss.")
        if kl.endswith("_straight") and self.kl_in == "reward":
            raise AlgorithmError(
                f"{self.name}: {kl} is a form of gradient, and a reward has none; put k1 there, or {kl} into the loss."
            )
        if (kl == "k2" or kl.endswith("_straight")) and self.kl_weight is not None:
            raise AlgorithmError(
                f"{self.name}: the gradient of {kl} is that of the divergence as it stands, and kl_weight would add a"
                " second one; set kl_weight: none, or take k1 or k3."
            )
        if self.kl_to == "old" and (kl != "k3" or self.kl_in == "reward"):
            raise AlgorithmError(f"{self.name}: the divergence from the old policy is k3 in the loss; set both so.")
        if self.kl_to == "teacher" and self.kl_in == "reward":
            raise AlgorithmError(
                f"{self.name}: the divergence from a teacher as a reward is the estimator distill; take it, or put the"
                " term into the loss."
            )
        if {"reference", "teacher"} <= self.needs:
            raise AlgorithmError(f"{self.name}: looks at a reference or at a teacher, not at both; take one away.")
        if self.kl_below is not None and self.kl_in == "reward":
            raise AlgorithmError(f"{self.name}: kl_below chooses among terms in the loss; set kl_in to loss.")
        if self.kl_in == "reward" and self.kl_weight is not None:
            raise AlgorithmError(f"{self.name}: kl_weight is for a KL term in the loss; one in the reward needs none.")


def _name(part: Any) -> str:
    """The name of a function, or of the one that a partial calls."""
    return str(getattr(part, "__name__", getattr(getattr(part, "func", None), "__name__", "")))

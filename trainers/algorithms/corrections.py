"""Corrections for samples of another policy: factors of each token's policy loss, without gradient.

The sampler is what generated the tokens, with the log-probabilities it recorded; the old policy is the trainer's when
the optimiser phase began. They differ where the engine computes otherwise than the trainer, or samples with older
weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from .losses import MAX_LOG_RATIO
from .record import Algorithm, Tokens

Level = Literal["token", "sequence"]


def truncated_weight(tokens: Tokens, highest: float = 2.0, level: Level = "token") -> Tensor:
    """TIS: `min(exp(old - sampler), highest)`, of each token or of the summed log-ratio of its response.

    Source: Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025).
    """
    return _ratio(tokens, level).clamp(max=highest)


def proximal_weight(tokens: Tokens, level: Level = "token") -> Tensor:
    """`exp(old - sampler)`, without a bound: the weight of decoupled PPO, whose ratio is clipped around the old policy.

    Source: AReaL (arXiv:2505.24298), equation 5, after Hilton et al. (arXiv:2110.00641).
    """
    return _ratio(tokens, level)


def masked_weight(tokens: Tokens, lowest: float = 0.5, highest: float = 2.0, level: Level = "token") -> Tensor:
    """MIS: `exp(old - sampler)` within the bounds and 0 outside of them.

    Source: IcePop, in the report on Ring-1T (arXiv:2510.18855).
    """
    ratio_N = _ratio(tokens, level)
    return torch.where((ratio_N >= lowest) & (ratio_N <= highest), ratio_N, torch.zeros_like(ratio_N))


def drop_drifted(tokens: Tokens, delta: float, anchor: Literal["sampler", "old"] = "sampler") -> Tensor:
    """0 for a token with A < 0 of a response whose mean `anchor - logp` is above delta, else 1.

    What the policy has moved away from teaches it nothing more by being wrong. Source: DeepSeek-V3.2
    (arXiv:2512.02556), off-policy sequence masking.
    """
    anchor_N = tokens.sampler_N if anchor == "sampler" else tokens.old_N
    drift_N = tokens.sums(anchor_N - tokens.logprobs_N.detach()) / tokens.lengths_N
    return ((tokens.advantages_N >= 0) | (drift_N <= delta)).to(drift_N)


def for_engine(algorithm: Algorithm, exact: bool) -> Algorithm:
    """The algorithm as it learns from an engine. exact: whether that computes with the trainer's own arithmetic.

    Where it does not, every token of the policy loss gets its truncated weight, unless the algorithm was told how to
    correct, or told not to.
    """
    if exact or not algorithm.weigh_foreign:
        return algorithm
    return replace(algorithm, corrections=(*algorithm.corrections, truncated_weight), weigh_foreign=False)


def _ratio(tokens: Tokens, level: Level) -> Tensor:
    log_ratio_N = (tokens.old_N - tokens.sampler_N).detach()
    if level == "sequence":
        log_ratio_N = tokens.sums(log_ratio_N)
    return log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()

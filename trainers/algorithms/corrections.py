"""Corrections for samples of another policy: factors of each token's policy loss, without gradient.

The sampler is what generated the tokens, with the log-probabilities it recorded; the old policy is the trainer's when
the optimiser phase began. They differ where the engine computes otherwise than the trainer, or samples with older
weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .losses import MAX_LOG_RATIO
from .record import Tokens

Level = Literal["token", "sequence"]


def truncated_weight(tokens: Tokens, highest: float = 2.0, level: Level = "token") -> Tensor:
    """TIS: `min(exp(old - sampler), highest)`, of each token or of the summed log-ratio of its response.

    Source: Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025).
    """
    return _ratio(tokens, level).clamp(max=highest)


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


def _ratio(tokens: Tokens, level: Level) -> Tensor:
    log_ratio_N = (tokens.old_N - tokens.sampler_N).detach()
    if level == "sequence":
        log_ratio_N = tokens.sums(log_ratio_N)
    return log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()

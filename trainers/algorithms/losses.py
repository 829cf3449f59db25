"""Policy losses, to be minimised: one number for each sampled token."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0


def reinforce(logprobs_N: Tensor, old_N: Tensor, advantages_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """`-A logp`. Source: REINFORCE (Williams, 1992)."""
    return -advantages_N * logprobs_N, {}


def ppo_clip(
    logprobs_N: Tensor, old_N: Tensor, advantages_N: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> tuple[Tensor, dict[str, Tensor]]:
    """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)` with r each token's ratio, its logarithm held within ±20.

    Source: PPO (arXiv:1707.06347), equation 7; two bounds: DAPO (arXiv:2503.14476), equation 10.
    """
    ratio_N = (logprobs_N - old_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    loss_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    with torch.no_grad():
        high_N = (ratio_N > 1 + clip_high) & (advantages_N > 0)
        low_N = (ratio_N < 1 - clip_low) & (advantages_N < 0)
        shown = {"clip_fraction": (high_N | low_N).to(ratio_N), "ratio": ratio_N.detach()}
    return loss_N, shown

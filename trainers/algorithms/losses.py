"""Policy losses, to be minimised: one number for each sampled token."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0


def reinforce(logprobs_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """`-A logp`. Source: REINFORCE (Williams, 1992)."""
    return -advantages_BT * logprobs_BT, {}


def ppo_clip(
    logprobs_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> tuple[Tensor, dict[str, Tensor]]:
    """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)` with the ratio r of each token, its logarithm held within ±20.

    Source: PPO (arXiv:1707.06347), equation 7; two bounds: DAPO (arXiv:2503.14476), equation 10.
    """
    ratio_BT = (logprobs_BT - old_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    loss_BT = -torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)
    with torch.no_grad():
        high_BT = (ratio_BT > 1 + clip_high) & (advantages_BT > 0)
        low_BT = (ratio_BT < 1 - clip_low) & (advantages_BT < 0)
        shown = {"clip_fraction": (high_BT | low_BT).to(ratio_BT), "ratio": ratio_BT.detach()}
    return loss_BT, shown

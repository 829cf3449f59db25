"""Policy losses, to be minimised: one number for each sampled token.

Each takes the tokens of whole responses and says besides, by name, what a curve should show of each token. What a
sequence-level loss gives one response stands at each of its tokens, so that the mean over them is the loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .record import Tokens

MAX_LOG_RATIO = 20.0
Level = Literal["token", "sequence_sum", "sequence_mean"]
LossValue = tuple[Tensor, dict[str, Tensor]]


def reinforce(tokens: Tokens) -> LossValue:
    """`-A logp`. Source: REINFORCE (Williams, 1992)."""
    return -tokens.advantages_N * tokens.logprobs_N, {}


def reverse_kl(tokens: Tokens) -> LossValue:
    """`KL(policy || teacher)` over the whole vocabulary, at the states the policy came through.

    Source: on-policy distillation, GKD (arXiv:2306.13649), equation 2 with the reverse divergence; the gradient leaves
    out that the policy chooses its states, as there.
    """
    assert tokens.reverse_kl_N is not None
    return tokens.reverse_kl_N, {}


def ppo_clip(
    tokens: Tokens,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    level: Level = "token",
    dual_clip: float | None = None,
) -> LossValue:
    """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, with the logarithm of r held within ±20.

    level: r is of each token, or of the whole response: `exp` of the sum of log-ratios, or of their mean. dual_clip: a
    token with A < 0 costs at most `dual_clip |A|`. Source: PPO (arXiv:1707.06347), equation 7; two bounds: DAPO
    (arXiv:2503.14476), equation 10; dual clip: arXiv:1912.09729, equation 5.
    """
    ratio_N = ratio(tokens, level)
    return _clipped(ratio_N, tokens.advantages_N, clip_low, clip_high, dual_clip)


def ppo_ratio(tokens: Tokens) -> LossValue:
    """`-r A`, for a penalty on the divergence from the old policy instead of clipping. Source: PPO, section 4."""
    ratio_N = ratio(tokens, "token")
    return -ratio_N * tokens.advantages_N, {"ratio": ratio_N.detach()}


def gspo(tokens: Tokens, clip_low: float = 3e-4, clip_high: float = 4e-4, token_form: bool = False) -> LossValue:
    """PPO's clipped loss with one ratio for each response, `s = exp(mean(logp - old))`.

    token_form: each token has the ratio `sg(s) logp / sg(logp)` in the log domain, `exp(logp - sg(logp) + sg(log s))`,
    whose value is s and whose gradient is the token's own, so that advantages may differ by token. Source: GSPO
    (arXiv:2507.18071), equations 5 to 7 and 13 to 15.
    """
    ratio_N = ratio(tokens, "sequence_mean")
    if token_form:
        own_N = tokens.logprobs_N - tokens.logprobs_N.detach()
        ratio_N = (own_N + ratio_N.detach().log()).exp()
    return _clipped(ratio_N, tokens.advantages_N, clip_low, clip_high, None)


def cispo(
    tokens: Tokens, clip_low: float | None = 0.2, clip_high: float = 0.2, highest: float | None = None
) -> LossValue:
    """`-sg(clip(r, 1 - clip_low, 1 + clip_high)) A logp`: clipping bounds the weight and stops no gradient.

    clip_low: None for no lower bound. highest: an absolute upper bound of the ratio instead of `1 + clip_high`, as
    MiniMax and TRL have it (TRL recommends 5). Source: MiniMax-M1 (arXiv:2506.13585), equations 4 and 5; two bounds:
    verl.
    """
    ratio_N = ratio(tokens, "token").detach()
    low, high = (0.0 if clip_low is None else 1 - clip_low), (1 + clip_high if highest is None else highest)
    weight_N = ratio_N.clamp(low, high)
    shown = _shown(ratio_N, ratio_N < low, ratio_N > high)
    return -weight_N * tokens.advantages_N * tokens.logprobs_N, shown


def sapo(tokens: Tokens, tau_positive: float = 1.0, tau_negative: float = 1.05) -> LossValue:
    """`-(4 / tau) sigmoid(tau (r - 1)) A`: a gate that closes softly. tau: for A > 0, and for others.

    At r = 0.5 and tau = 1.05 the gate is 1.415938. Source: SAPO (arXiv:2511.20347), equations 5 and 6.
    """
    ratio_N = ratio(tokens, "token")
    tau_N = torch.where(tokens.advantages_N > 0, tau_positive, tau_negative).to(ratio_N)
    gate_N = 4 / tau_N * torch.sigmoid(tau_N * (ratio_N - 1))
    return -gate_N * tokens.advantages_N, {"ratio": ratio_N.detach()}


def mirror(tokens: Tokens, tau: float = 0.1) -> LossValue:
    """`-A sum(logp) + tau / 2 (sum(logp - old))^2` of each response, as shares that add up to it.

    The square holds the policy near the old one. Source: Kimi k1.5 (arXiv:2501.12599), equation 3.
    """
    log_ratio_N = tokens.logprobs_N - tokens.old_N
    squared_N = tokens.sums(log_ratio_N).square() / tokens.lengths_N
    shown = {"ratio": log_ratio_N.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()}
    return -tokens.advantages_N * tokens.logprobs_N + tau / 2 * squared_N, shown


def ratio(tokens: Tokens, level: Level) -> Tensor:
    """The probability of each token, or of its response, over that under the old policy, [N]."""
    log_ratio_N = tokens.logprobs_N - tokens.old_N
    if level != "token":
        log_ratio_N = tokens.sums(log_ratio_N)
    if level == "sequence_mean":
        log_ratio_N = log_ratio_N / tokens.lengths_N
    return log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _clipped(
    ratio_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> LossValue:
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    loss_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    high_N = (ratio_N > 1 + clip_high) & (advantages_N > 0)
    low_N = (ratio_N < 1 - clip_low) & (advantages_N < 0)
    if dual_clip is not None:
        most_N = -dual_clip * advantages_N
        high_N = high_N | ((advantages_N < 0) & (loss_N > most_N))
        loss_N = torch.where(advantages_N < 0, torch.minimum(loss_N, most_N), loss_N)
    return loss_N, _shown(ratio_N.detach(), low_N, high_N)


def _shown(ratio_N: Tensor, low_N: Tensor, high_N: Tensor) -> dict[str, Tensor]:
    """The curves of a clipped loss. low_N, high_N: where the ratio was held at its lower, or at an upper, bound."""
    return {
        "clip_fraction": (low_N | high_N).to(ratio_N),
        "clip_fraction/low": low_N.to(ratio_N),
        "clip_fraction/high": high_N.to(ratio_N),
        "ratio": ratio_N,
    }

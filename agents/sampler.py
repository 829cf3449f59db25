"""Sampling: from logits to one token a row, with its log-probability under the distribution it was drawn from."""

from __future__ import annotations

import torch
from torch import Tensor


def sample(
    logits_NV: Tensor, uniforms_N: Tensor, temperature_N: Tensor, kept_NV: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution at `uniforms_N`, each in [0, 1).

    temperature_N: 0 is greedy, and the log-probability is then that at temperature 1. kept_NV: true where truncation
    keeps the token; the log-probability is renormalised over the kept set. Returns tokens_N and logprobs_N (float32).
    """
    greedy_N = temperature_N == 0
    logprobs_NV = scaled_logprobs(logits_NV, temperature_N, kept_NV)
    cumulative_NV = logprobs_NV.double().exp_().cumsum_(-1)
    targets_N1 = (uniforms_N * cumulative_NV[:, -1])[:, None]
    drawn_N = (cumulative_NV <= targets_N1).sum(-1).clamp_(max=logits_NV.shape[1] - 1)
    tokens_N = torch.where(greedy_N, logprobs_NV.argmax(-1), drawn_N)
    return tokens_N, logprobs_NV.gather(1, tokens_N[:, None])[:, 0]


def scaled_logprobs(logits_NV: Tensor, temperature_N: Tensor, kept_NV: Tensor | None = None) -> Tensor:
    """log softmax(logits / temperature) over the kept tokens; temperature 0 counts as 1."""
    scaled_NV = logits_NV / torch.where(temperature_N == 0, 1.0, temperature_N)[:, None]
    if kept_NV is not None:
        scaled_NV = scaled_NV.masked_fill(~kept_NV, -torch.inf)
    return torch.log_softmax(scaled_NV, -1)


def kept_tokens(logits_NV: Tensor, temperature_N: Tensor, top_p_N: Tensor, top_k_N: Tensor) -> Tensor:
    """Which tokens top-k and then top-p keep: true where kept, [N, V]; at least the likeliest token of each row.

    top_p keeps the smallest set of likeliest tokens whose probability reaches top_p; top_k 0 keeps all.
    """
    order_NV = logits_NV.argsort(dim=-1, descending=True, stable=True)
    ranks_V = torch.arange(logits_NV.shape[1], device=logits_NV.device)
    within_k_NV = (top_k_N[:, None] == 0) | (ranks_V < top_k_N[:, None])
    sorted_NV = (logits_NV.gather(1, order_NV) / torch.where(temperature_N == 0, 1.0, temperature_N)[:, None]).double()
    probs_NV = torch.softmax(sorted_NV.masked_fill(~within_k_NV, -torch.inf), -1)
    before_NV = probs_NV.cumsum(-1) - probs_NV
    keep_NV = within_k_NV & ((before_NV < top_p_N[:, None]) | (top_p_N[:, None] >= 1.0))
    keep_NV[:, 0] = True
    return torch.zeros_like(keep_NV).scatter_(1, order_NV, keep_NV)

"""Scoring: the trainer's own log-probabilities of sampled tokens, at the temperature and over the kept set they were
sampled with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from .batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic over float32 weights on GPUs; float32 on the CPU."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether the model's attention takes the mask that packed prompts need."""
    return getattr(model.config, "_attn_implementation", "") in ("sdpa", "eager")


def score(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (nats, no gradient) of the batch's sampled tokens, both [N].

    The output layer runs over positions that predict a sampled token, and over no other.
    """
    body: Any = model.base_model
    with autocast(batch.token_ids_BT.device):
        # Padding is on the right, where causal attention never looks, so only shared prompts need a mask.
        hidden_BTC = body(
            input_ids=batch.token_ids_BT,
            # Positions that count from 0 are not given: transformers would look for packed sequences in them.
            position_ids=None if batch.segments_BT is None else batch.positions_BT,
            attention_mask=attention_mask(model, batch),
            use_cache=False,
        ).last_hidden_state
        # A lookup, not an index: the first tokens of all answers to a shared prompt have one predictor, and the
        # gradient of an index adds up such duplicates in whatever order threads come.
        hidden_NC = functional.embedding(batch.predictor_N, hidden_BTC.flatten(0, 1))
        logits_NV = model.get_output_embeddings()(hidden_NC).float()
    if batch.temperature not in (0.0, 1.0):
        logits_NV = logits_NV / batch.temperature
    if batch.kept_NV is not None:
        logits_NV = logits_NV.masked_fill(~batch.kept_NV, -torch.inf)
    logprobs_NV = torch.log_softmax(logits_NV, -1)
    with torch.no_grad():
        entropies_N = -(logprobs_NV.exp() * logprobs_NV.clamp(min=-100)).sum(-1)
    return logprobs_NV.gather(1, batch.targets_N[:, None])[:, 0], entropies_N


def attention_mask(model: PreTrainedModel, batch: Batch) -> Tensor | None:
    """Which tokens [B, 1, T, T] see which: what stands before them in segment 0 and in their own.

    None where the model's own causal mask says it all. True where seen, or added to the scores for eager attention.
    """
    if batch.segments_BT is None:
        return None
    segments_BT = batch.segments_BT
    earlier_TT = torch.ones(segments_BT.shape[1], segments_BT.shape[1], dtype=torch.bool, device=segments_BT.device)
    own_BTT = (segments_BT[:, None, :] == 0) | (segments_BT[:, None, :] == segments_BT[:, :, None])
    seen_B1TT = (own_BTT & earlier_TT.tril())[:, None]
    if model.config._attn_implementation != "eager":
        return seen_B1TT
    return torch.zeros(seen_B1TT.shape, device=segments_BT.device).masked_fill(~seen_B1TT, -torch.inf)

"""Scoring: the trainer's own log-probabilities of sampled tokens, at the temperature and over the kept set they were
sampled with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .batch import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic over float32 weights on GPUs; float32 on the CPU."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def score(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (nats, no gradient) of the sampled tokens, both [N] in the order of batch.mask.

    The output layer runs over positions that predict a sampled token, and over no other.
    """
    body: Any = model.base_model
    with autocast(batch.token_ids.device):
        # Rows are padded on the right, where causal attention never looks: no attention mask is needed.
        hidden_BTC = body(input_ids=batch.token_ids, use_cache=False).last_hidden_state
        predicts_BT = batch.mask[:, 1:]
        logits_NV = model.get_output_embeddings()(hidden_BTC[:, :-1][predicts_BT]).float()
    if batch.temperature not in (0.0, 1.0):
        logits_NV = logits_NV / batch.temperature
    if batch.kept is not None:
        logits_NV = logits_NV.masked_fill(~batch.kept[:, 1:][predicts_BT], -torch.inf)
    logprobs_NV = torch.log_softmax(logits_NV, -1)
    targets_N1 = batch.token_ids[:, 1:][predicts_BT][:, None]
    with torch.no_grad():
        entropies_N = -(logprobs_NV.exp() * logprobs_NV.clamp(min=-100)).sum(-1)
    return logprobs_NV.gather(1, targets_N1)[:, 0], entropies_N

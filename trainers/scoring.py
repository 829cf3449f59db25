"""Scoring: the trainer's own log-probabilities of sampled tokens, at the temperature and over the kept set they were
sampled with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from .batch import Batch
from .expert_replay import ATTRIBUTE, ExpertReplay

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 arithmetic over float32 weights on GPUs; float32 on the CPU."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def can_share_prompts(model: Any) -> bool:
    """Whether the model's attention takes the mask that packed prompts need."""
    return getattr(model.config, "_attn_implementation", "") in ("sdpa", "eager")


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """What the body of a model says at the positions that predict the batch's sampled tokens, [N, C].

    Where the model has an ExpertReplay, with the experts that the sampler chose.
    """
    replay: ExpertReplay | None = getattr(model, ATTRIBUTE, None)
    if replay is not None:
        replay.follow(batch.experts_BTM)
    with autocast(batch.token_ids_BT.device):
        # Padding is on the right, where causal attention never looks, so only shared prompts need a mask.
        hidden_BTC = model.base_model(
            input_ids=batch.token_ids_BT,
            # Positions that count from 0 are not given: transformers would look for packed sequences in them.
            position_ids=None if batch.segments_BT is None else batch.positions_BT,
            attention_mask=attention_mask(model, batch),
            use_cache=False,
        ).last_hidden_state
        # A lookup, not an index: the first tokens of all answers to a shared prompt have one predictor, and the
        # gradient of an index adds up such duplicates in whatever order threads come.
        return functional.embedding(batch.predictor_N, hidden_BTC.flatten(0, 1))


def distributions(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Log-probabilities over the vocabulary from which each of the batch's sampled tokens came, [N, V], in nats.

    The output layer runs over positions that predict a sampled token, and over no other.
    """
    hidden_NC = hidden_states(model, batch)
    with autocast(batch.token_ids_BT.device):
        logits_NV = model.get_output_embeddings()(hidden_NC).float()
    if batch.temperature not in (0.0, 1.0):
        logits_NV = logits_NV / batch.temperature
    if batch.kept_NV is not None:
        width = min(logits_NV.shape[1], batch.kept_NV.shape[1])  # a teacher's may be padded differently
        logits_NV = logits_NV[:, :width].masked_fill(~batch.kept_NV[:, :width], -torch.inf)
    return torch.log_softmax(logits_NV, -1)


def score(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (nats, no gradient) of the batch's sampled tokens, both [N]."""
    return of_targets(distributions(model, batch), batch)


def of_targets(logprobs_NV: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """From distributions, what `score` gives."""
    with torch.no_grad():
        entropies_N = entropies(logprobs_NV)
    return logprobs_NV.gather(1, batch.targets_N[:, None])[:, 0], entropies_N


def entropies(logprobs_NV: Tensor) -> Tensor:
    """Of each distribution, [N], in nats."""
    return -(logprobs_NV.exp() * logprobs_NV.clamp(min=-100)).sum(-1)


def reverse_kl(logprobs_NV: Tensor, teacher_NV: Tensor) -> Tensor:
    """`sum over the vocabulary of p (log p - log T)` at each sampled token, [N], in nats; 0 where p is 0.

    Output layers of one tokenizer may be padded to different widths; what only one of them has is left out.
    """
    width = min(logprobs_NV.shape[1], teacher_NV.shape[1])
    logprobs_NV, teacher_NV = logprobs_NV[:, :width], teacher_NV[:, :width]
    return (logprobs_NV.exp() * (logprobs_NV.clamp(min=-100) - teacher_NV.clamp(min=-100))).sum(-1)


def attention_mask(model: Any, batch: Batch) -> Tensor | None:
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

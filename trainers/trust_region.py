"""Trust region: the step along the natural gradient, as far as the divergence from the policy before it allows.

For small policies: it goes over the rollout some twenty times, and keeps a few copies of the weights.
Source: TRPO (arXiv:1502.05477), section 6 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .algorithms import Algorithm
from .batch import Batch, Row, collate, micro_batches
from .policy_step import accumulate, gradient_error, step_loss
from .scoring import can_share_prompts, distributions
from .token_gradients import TokenGradients

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def trust_region_step(
    algorithm: Algorithm,
    model: PreTrainedModel,
    rows: Sequence[Row],
    micro_batch_tokens: int,
    keep: dict[int, TokenGradients] | None = None,
) -> dict[str, float]:
    """Move the model once and return the curves of the step; where no length of step is better, it stays.

    rows: with `old`, the log-probabilities of the model as it is. keep, and NonFiniteError: as of `accumulate`.
    Curves besides those of the loss: `kl_old`, the divergence of the policy before the step from that after it, nats a
    token; `step_share`, the share of the longest step within the region that was taken, 0 where none was.
    """
    region = algorithm.trust_region
    assert region is not None
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    model.eval()  # what is measured before and after the step must not differ by dropout
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        for weight in weights:
            weight.grad = None
        curves = accumulate(algorithm, model, rows, micro_batch_tokens, keep=keep)
        gradient = _flat([weight.grad for weight in weights], weights)
        if not torch.isfinite(gradient).all():
            raise gradient_error(algorithm, model, rows, micro_batch_tokens, algorithm.kl_coef)
        for weight in weights:
            weight.grad = None
        before = [weight.detach().clone() for weight in weights]
        batches = list(_batches(model, rows, micro_batch_tokens))
        tokens = sum(len(batch.targets_N) for batch in batches)
        with torch.no_grad():
            old = [distributions(model, batch) for batch in batches]

        def curved(vector: Tensor) -> Tensor:
            total = torch.zeros_like(vector)
            for batch, old_NV in zip(batches, old, strict=True):
                kl = divergence(old_NV, distributions(model, batch)).sum() / tokens
                slopes = torch.autograd.grad(kl, weights, create_graph=True, allow_unused=True)
                total += _flat(torch.autograd.grad((_flat(slopes, weights) * vector).sum(), weights), weights)
            return total + region.damping * vector

        direction = conjugate_gradient(curved, -gradient, region.cg_steps)
        length = torch.sqrt(2 * region.radius / (direction @ curved(direction)).clamp(min=1e-20))
        share, kl, norm = 0.0, 0.0, float(gradient.norm())
        for trial in (0.5**halvings for halvings in range(region.trials)) if norm > 0 else ():
            _put(weights, before, float(length) * trial * direction)
            with torch.no_grad():
                loss = sum(float(step_loss(algorithm, model, batch, algorithm.kl_coef).loss) for batch in batches)
                moved = sum(
                    float(divergence(old_NV, distributions(model, batch)).sum())
                    for batch, old_NV in zip(batches, old, strict=True)
                )
            if loss < curves["loss"] and moved / tokens <= region.radius:
                share, kl = trial, moved / tokens
                break
        else:
            _put(weights, before, torch.zeros_like(gradient))
    return curves | {"grad_norm": norm, "kl_old": kl, "step_share": share}


def divergence(old_NV: Tensor, new_NV: Tensor) -> Tensor:
    """`KL(old || new)` at each sampled token, [N], in nats, of log-probabilities over the vocabulary."""
    return (old_NV.exp() * (old_NV.clamp(min=-100) - new_NV.clamp(min=-100))).sum(-1)


def conjugate_gradient(times: Callable[[Tensor], Tensor], right: Tensor, steps: int, enough: float = 1e-10) -> Tensor:
    """x such that `times(x)` is nearly `right`, for a symmetric, positive definite map. All [P].

    Ends after `steps` steps, or where what is left has a squared norm below `enough` of that of `right`.
    """
    x, left = torch.zeros_like(right), right.clone()
    direction, size = left.clone(), left @ left
    least = enough * size
    for _ in range(steps):
        if size <= least:
            break
        mapped = times(direction)
        far = size / (direction @ mapped)
        x, left = x + far * direction, left - far * mapped
        shrunk = left @ left
        direction, size = left + shrunk / size * direction, shrunk
    return x


def _batches(model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int) -> Iterator[Batch]:
    device = next(model.parameters()).device
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        yield collate(rows, packs, model.config.vocab_size, device)


def _flat(parts: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    found = (torch.zeros_like(w) if part is None else part for part, w in zip(parts, weights, strict=True))
    return torch.cat([part.flatten() for part in found])


@torch.no_grad()
def _put(weights: Sequence[Tensor], before: Sequence[Tensor], step: Tensor) -> None:
    """Set the weights to what they were and a step."""
    parts = step.split([weight.numel() for weight in weights])
    for weight, was, part in zip(weights, before, parts, strict=True):
        weight.copy_(was + part.view_as(weight))

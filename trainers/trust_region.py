"""Trust region: the step along the natural gradient, as far as the divergence from the policy before it allows.

For small policies: it goes over a part of the rollout some forty times, and keeps a few copies of the weights.
Source: TRPO (arXiv:1502.05477), section 6 and appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .algorithms import Algorithm
from .algorithms.record import TrustRegion
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
        step = -_longest_step(
            region, model, weights, spread(rows, region.curvature_share), gradient, micro_batch_tokens
        )
        batches = list(_batches(model, rows, micro_batch_tokens))
        tokens = sum(len(batch.targets_N) for batch in batches)
        with torch.no_grad():
            old = [distributions(model, batch) for batch in batches]
        share, kl, norm = 0.0, 0.0, float(gradient.norm())
        for trial in (0.5**halvings for halvings in range(region.trials)) if norm > 0 else ():
            _put(weights, before, trial * step)
            loss, moved = 0.0, 0.0
            with torch.no_grad():
                for batch, old_NV in zip(batches, old, strict=True):
                    new_NV = distributions(model, batch)
                    loss += float(step_loss(algorithm, model, batch, algorithm.kl_coef, known_NV=new_NV).loss)
                    moved += float(divergence(old_NV, new_NV).sum())
            if loss < curves["loss"] and moved / tokens <= region.radius:
                share, kl = trial, moved / tokens
                break
        else:
            _put(weights, before, torch.zeros_like(gradient))
    return curves | {"grad_norm": norm, "kl_old": kl, "step_share": share}


def _longest_step(
    region: TrustRegion,
    model: PreTrainedModel,
    weights: Sequence[Tensor],
    rows: Sequence[Row],
    gradient: Tensor,
    micro_batch_tokens: int,
) -> Tensor:
    """Up the natural gradient to where the curvature over the rows says that the region ends, [P]."""
    products = curvature(model, weights, list(_batches(model, rows, micro_batch_tokens)))

    def damped(vector: Tensor) -> Tensor:
        return products(vector) + region.damping * vector

    direction = conjugate_gradient(damped, gradient, region.cg_steps)
    return torch.sqrt(2 * region.radius / (direction @ damped(direction)).clamp(min=1e-20)) * direction


def curvature(
    model: PreTrainedModel, weights: Sequence[Tensor], batches: Sequence[Batch]
) -> Callable[[Tensor], Tensor]:
    """From a vector to its product with the second derivative of the divergence from the model as it is, both [P].

    Of nats a token. At no divergence that is `J' diag(p) J`, where J is the derivative of the log-probabilities: one
    product forwards and one backwards. Where there is one batch, its graph is made once and kept; of several only one
    is there at a time, and each is made anew for each product.
    """
    tokens = sum(len(batch.targets_N) for batch in batches)
    kept = _derivative(model, weights, batches[0]) if len(batches) == 1 else None

    def product(vector: Tensor, logprobs_NV: Tensor, any_NV: Tensor, backwards: Tensor) -> Tensor:
        # What goes backwards is linear in any_NV, and its own derivative goes forwards.
        (moved_NV,) = torch.autograd.grad(backwards, any_NV, vector, retain_graph=True)
        pulled_NV = logprobs_NV.detach().exp() * moved_NV / tokens
        again = kept is not None
        return _flat(torch.autograd.grad(logprobs_NV, weights, pulled_NV, again, allow_unused=True), weights)

    def times(vector: Tensor) -> Tensor:
        total = torch.zeros_like(vector)
        for batch in batches:
            total += product(vector, *(kept or _derivative(model, weights, batch)))
        return total

    return times


def _derivative(model: PreTrainedModel, weights: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The log-probabilities, any numbers of their shape, and those times the derivative by the weights, [P]."""
    logprobs_NV = distributions(model, batch)
    any_NV = torch.zeros_like(logprobs_NV, requires_grad=True)
    slopes = torch.autograd.grad(logprobs_NV, weights, any_NV, create_graph=True, allow_unused=True)
    return logprobs_NV, any_NV, _flat(slopes, weights)


def spread(rows: Sequence[Row], share: float) -> list[Row]:
    """So many of the rows, at least one, as far from one another as can be."""
    count = max(1, round(share * len(rows)))
    return [rows[index * len(rows) // count] for index in range(count)]


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

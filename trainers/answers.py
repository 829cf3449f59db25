"""Answers: one number for each whole trajectory, and the exact gradient of any function of all of them.

Invariant: the function is taken of all the numbers of a step at once, before the step is cut for the backward pass, so
neither its value nor its gradient depends on how the step is cut, packed or ordered (tests/test_preference.py).

That costs one forward pass more than a loss that falls apart into tokens. Source: gradient caching (arXiv:2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..agents.trajectory import Trajectory
from .batch import Batch, Row, collate, micro_batches
from .optimizer import NonFiniteError
from .scoring import can_share_prompts, score

Say = Callable[[Batch], Tensor]
"""What a model says of the batch's sampled tokens, [N] or [N, H]; an answer's number is the sum over its tokens."""


def answer_row(answer: Trajectory) -> Row:
    """The answer as a row that is scored at temperature 1 over the whole vocabulary, however it was sampled."""
    return Row(replace(answer, temperature=1.0, kept=None, experts=None), np.zeros(len(answer.mask)), 1.0)


def logprobs_of(model: Any) -> Say:
    """Says the log-probability of each sampled token (nats), whose sum is that of the answer."""
    return lambda batch: score(model, batch)[0]


@torch.no_grad()
def answer_values(model: Any, rows: Sequence[Row], micro_batch_tokens: int, say: Say) -> Tensor:
    """The number of each answer, [A] or [A, H], float64 on the CPU."""
    found: Tensor | None = None
    for batch in _cut(model, rows, micro_batch_tokens):
        said = say(batch).double().cpu()
        found = torch.zeros(len(rows), *said.shape[1:], dtype=torch.float64) if found is None else found
        found.index_add_(0, batch.response_N.cpu(), said)
    if found is None:
        raise ValueError("There are no answers to score.")
    return found


def accumulate_answers(
    model: Any, rows: Sequence[Row], micro_batch_tokens: int, say: Say, loss: Callable[[Tensor], Tensor]
) -> float:
    """Add the gradient of `loss(answer_values)`, a scalar, to the model's and return it. Exact without dropout.

    NonFiniteError where it is not a number.
    """
    values = answer_values(model, rows, micro_batch_tokens, say).requires_grad_()
    total = loss(values)
    if not torch.isfinite(total):
        raise NonFiniteError(f"The loss is {float(total.detach())}; no step was taken and the last checkpoint stands.")
    (slopes,) = torch.autograd.grad(total, values)
    for batch in _cut(model, rows, micro_batch_tokens):
        said = say(batch)
        (said * slopes.to(said)[batch.response_N]).sum().backward()
    return float(total.detach())


def _cut(model: Any, rows: Sequence[Row], micro_batch_tokens: int) -> Iterator[Batch]:
    device = next(model.parameters()).device
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        yield collate(rows, packs, model.config.vocab_size, device)

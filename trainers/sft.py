"""Supervised fine-tuning: cross-entropy on the assistant's tokens of demonstrations.

Loss on no other token, unless `train_on_prompt` asks for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..agents.trajectory import Trajectory
from .algorithms.reductions import token_mean
from .batch import Row, collate, micro_batches
from .config import SFTConfig
from .demonstrations import Demonstrations
from .optimizer import AnyOptimizer, apply_step, learning_rate
from .recorder import Recorder, Show
from .scoring import can_share_prompts, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def sft_step(
    model: PreTrainedModel, trajectories: list[Trajectory], micro_batch_tokens: int, train_on_prompt: bool = False
) -> float:
    """Accumulate the gradient of the mean negative log-likelihood (nats a token) and return that mean.

    train_on_prompt: over all tokens but the first; else over the assistant's.
    """
    if train_on_prompt:
        trajectories = [replace(t, mask=(False,) + (True,) * (len(t.mask) - 1)) for t in trajectories]
    lengths = np.array([sum(t.mask) for t in trajectories])
    weights = token_mean(lengths, np.arange(len(trajectories)))
    rows = [Row(t, np.zeros(len(t.mask)), weight) for t, weight in zip(trajectories, weights, strict=True)]
    device = next(model.parameters()).device
    total = 0.0
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        batch = collate(rows, packs, model.config.vocab_size, device)
        logprobs_N, _ = score(model, batch)
        loss = -(logprobs_N * batch.weights_N).sum()
        loss.backward()
        total += float(loss.detach())
    return total


def train_sft(
    model: PreTrainedModel,
    optimizer: AnyOptimizer,
    demonstrations: Demonstrations,
    config: SFTConfig,
    *,
    first_step: int = 0,
    recorder: Recorder,
    show: Show,
    after_step: Callable[[int], None],
) -> int:
    """Take the steps first_step … config.steps, calling `after_step(steps done)` after each; returns the steps done."""
    model.train()
    start = time.monotonic()
    for step in range(first_step, config.steps):
        trajectories = demonstrations.batch(step, config.batch_size)
        lr = learning_rate(config.optimizer, step, config.steps)
        loss = sft_step(model, trajectories, config.micro_batch_tokens, config.train_on_prompt)
        grad_norm = apply_step(optimizer, config.optimizer, lr)
        recorder.log("sft", step + 1, loss=loss, grad_norm=grad_norm, lr=lr)
        show.update(step + 1, loss=loss)
        after_step(step + 1)
        if config.max_seconds is not None and time.monotonic() - start > config.max_seconds:
            return step + 1
    return config.steps

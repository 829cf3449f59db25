"""The optimiser step of policy optimisation: rows in, accumulated gradient and curves out. Blind to the algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..agents.engine import StopReason
from ..agents.trajectory import Episode, Trajectory
from .algorithms import Algorithm
from .batch import Batch, Row, collate, micro_batches
from .optimizer import NonFiniteError
from .scoring import can_share_prompts, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel


CUT = (StopReason.LENGTH.value, StopReason.CONTEXT.value)
"""Why episodes stop that ran into a limit of length; one that used up its turns was not cut."""


def build_rows(algorithm: Algorithm, episodes: Sequence[Episode], advantages: list[list[np.ndarray]]) -> list[Row]:
    """One row for each trajectory that carries loss. Weights are those of a step over all these rows."""
    found: list[tuple[int, Trajectory, np.ndarray]] = []
    for index, episode in enumerate(episodes):
        if algorithm.drop_truncated and episode.stop_reason in CUT:
            continue
        for trajectory, advantage in zip(episode.trajectories, advantages[index], strict=True):
            if any(trajectory.mask):
                found.append((index, trajectory, advantage))
    return weigh(algorithm, [Row(t, a, 0.0) for _, t, a in found], [i for i, _, _ in found])


def weigh(algorithm: Algorithm, rows: Sequence[Row], episode_of: Sequence[int]) -> list[Row]:
    """Give rows the weights of one optimiser step that holds exactly them."""
    if not rows:
        return []
    lengths = np.array([sum(row.trajectory.mask) for row in rows])
    weights = algorithm.reduction(lengths, np.array(episode_of))
    return [replace(row, weight=float(weight)) for row, weight in zip(rows, weights, strict=True)]


def accumulate(
    algorithm: Algorithm, model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int
) -> dict[str, float]:
    """Add the gradient of the step's loss over `rows` to the model's and return the curves of the step.

    NonFiniteError where the loss of a micro-batch is not a number.
    """
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    tokens = 0
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        batch = collate(rows, packs, model.config.vocab_size, device)
        loss, shown = step_loss(algorithm, model, batch)
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"The loss is {float(loss.detach())}; no step was taken and the last checkpoint stands."
            )
        loss.backward()
        tokens += len(batch.targets_N)
        sums["loss"] = sums.get("loss", 0.0) + float(loss.detach())
        for name, value_N in shown.items():
            sums[name] = sums.get(name, 0.0) + float(value_N.sum())
    return {name: value if name == "loss" else value / max(tokens, 1) for name, value in sums.items()}


def step_loss(algorithm: Algorithm, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The micro-batch's share of the step's loss, and per-token curves [N]: entropy, k1 to the sampler, and others."""
    logprobs_N, entropies_N = score(model, batch)
    old_N = logprobs_N.detach() if batch.old_N is None else batch.old_N
    loss_N, shown = algorithm.loss(logprobs_N, old_N, batch.advantages_N)
    if algorithm.kl is not None and algorithm.kl_coef > 0 and batch.reference_N is not None:
        if algorithm.kl_in == "loss":
            loss_N = loss_N + algorithm.kl_coef * algorithm.kl(logprobs_N, batch.reference_N)
        shown["kl_reference"] = (logprobs_N - batch.reference_N).detach()
    shown["entropy"] = entropies_N
    shown["kl_sampler"] = (batch.logprobs_N - logprobs_N).detach()
    return (loss_N * batch.weights_N).sum(), shown


@torch.no_grad()
def frozen_logprobs(model: PreTrainedModel, rows: Sequence[Row], micro_batch_tokens: int) -> list[np.ndarray]:
    """The log-probability of each token [T] of each row under `model`, 0 where the policy did not sample it."""
    device = next(model.parameters()).device
    result = [np.zeros(len(row.trajectory.token_ids)) for row in rows]
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(model), model.config.hidden_size):
        batch = collate(rows, packs, model.config.vocab_size, device)
        logprobs_N, _ = score(model, batch)
        for (row, position), value in zip(batch.source_N2.tolist(), logprobs_N.tolist(), strict=True):
            result[row][position] = value
    return result

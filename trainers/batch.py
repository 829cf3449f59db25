"""Batch: trajectories as padded tensors, cut into micro-batches whose losses add up to the loss of the whole step.

Invariant: every number that says how a token counts (advantage, weight) is fixed before the step is cut, so the
gradient does not depend on how it is cut (tests/test_policy_gradient.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..agents.trajectory import Trajectory


@dataclass(frozen=True)
class Row:
    """One trajectory with what the trainer knows of its tokens.

    advantages[T]: per token. weight: of each of its sampled tokens in the loss of the whole step. old[T], reference[T]:
    log-probabilities of the policy before the step and of the reference, where the algorithm needs them.
    """

    trajectory: Trajectory
    advantages: np.ndarray
    weight: float
    old: np.ndarray | None = None
    reference: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest: all tensors are [B, T]; kept is [B, T, V] or None.

    mask is true where the policy sampled the token, weights is 0 elsewhere.
    """

    token_ids: Tensor
    mask: Tensor
    logprobs: Tensor
    advantages: Tensor
    weights: Tensor
    old: Tensor | None
    reference: Tensor | None
    kept: Tensor | None
    temperature: float


def collate(rows: Sequence[Row], vocabulary: int, device: torch.device) -> Batch:
    """Pad rows into one batch. vocabulary: size of the kept-set masks."""
    shape = (len(rows), max(len(row.trajectory.token_ids) for row in rows))
    token_ids = np.zeros(shape, np.int64)
    mask = np.zeros(shape, bool)
    parts = {
        name: np.zeros(shape, np.float32) for name in ("logprobs", "advantages", "weights", "old", "reference")
    }
    for index, row in enumerate(rows):
        length = len(row.trajectory.token_ids)
        token_ids[index, :length] = row.trajectory.token_ids
        mask[index, :length] = row.trajectory.mask
        parts["logprobs"][index, :length] = row.trajectory.logprobs
        parts["advantages"][index, :length] = row.advantages
        parts["weights"][index, :length] = np.where(row.trajectory.mask, row.weight, 0.0)
        if row.old is not None:
            parts["old"][index, :length] = row.old
        if row.reference is not None:
            parts["reference"][index, :length] = row.reference

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(parts[name]).to(device)

    return Batch(
        token_ids=torch.from_numpy(token_ids).to(device),
        mask=torch.from_numpy(mask).to(device),
        logprobs=tensor("logprobs"),
        advantages=tensor("advantages"),
        weights=tensor("weights"),
        old=tensor("old") if rows[0].old is not None else None,
        reference=tensor("reference") if rows[0].reference is not None else None,
        kept=_kept(rows, shape, vocabulary, device),
        temperature=rows[0].trajectory.temperature,
    )


def micro_batches(rows: Sequence[Row], max_tokens: int) -> Iterator[list[int]]:
    """Indexes of rows in batches of similar length with at most `max_tokens` padded tokens (at least one row each)."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].trajectory.token_ids), index))
    batch: list[int] = []
    for index in order:
        length = len(rows[index].trajectory.token_ids)
        if batch and (len(batch) + 1) * length > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _kept(rows: Sequence[Row], shape: tuple[int, int], vocabulary: int, device: torch.device) -> Tensor | None:
    if all(row.trajectory.kept is None for row in rows):
        return None
    kept = torch.ones((*shape, vocabulary), dtype=torch.bool)
    for index, row in enumerate(rows):
        for position, ids in enumerate(row.trajectory.kept or ()):
            if ids is not None:
                kept[index, position] = False
                kept[index, position, list(ids)] = True
    return kept.to(device)

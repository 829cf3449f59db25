"""Batch: trajectories as tensors, cut into micro-batches whose losses add up to the loss of the whole step.

Invariant: every number that says how a token counts (advantage, weight) is fixed before the step is cut, so the
gradient does not depend on how it is cut, padded or packed (tests/test_policy_gradient.py).

Trajectories that open with the same prompt, as those of a group do, are packed into one row: the prompt once, then each
continuation, which attends to the prompt and to itself. With eight short answers to one question that is a third of
the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ..agents.engine import EXPERT_TYPE
from ..agents.trajectory import Trajectory


@dataclass(frozen=True)
class Row:
    """One trajectory with what the trainer knows of its tokens.

    advantages[T]: per token. weight: of each of its sampled tokens in the loss of the whole step. old[T], reference[T]:
    log-probabilities of the policy before the step and of the policy from which a KL term in the loss measures.
    values[T], returns[T]: what a critic said before the step, and should have said. Each where the algorithm needs it.
    kl_scale: a factor of the KL term. episode: a number, the same for all trajectories of an episode. name: of the
    episode, for messages.
    """

    trajectory: Trajectory
    advantages: np.ndarray
    weight: float
    old: np.ndarray | None = None
    reference: np.ndarray | None = None
    values: np.ndarray | None = None
    returns: np.ndarray | None = None
    kl_scale: float = 1.0
    episode: int = 0
    name: str = ""


@dataclass(frozen=True)
class Pack:
    """Rows (by index) that share their first `prefix` tokens; length: tokens of the whole pack."""

    rows: tuple[int, ...]
    prefix: int
    length: int


@dataclass(frozen=True)
class Batch:
    """Packs padded on the right, and one entry for each sampled token.

    token_ids_BT, positions_BT. segments_BT: 0 for what all rows of a pack see, else the row; None where no pack shares.
    Over the N sampled tokens: predictor_N: index into the flattened [B * T] of the position that predicts it;
    targets_N: its id; logprobs_N: as sampled; advantages_N; weights_N; kl_scale_N; response_N: the row it came from;
    source_N2: row and position; and, or None, old_N, reference_N, values_N, returns_N and kept_NV.
    experts_BTM: the M = layers * K experts that the sampler chose for each token, -1 where that is not known; or None.
    """

    token_ids_BT: Tensor
    positions_BT: Tensor
    segments_BT: Tensor | None
    predictor_N: Tensor
    targets_N: Tensor
    logprobs_N: Tensor
    advantages_N: Tensor
    weights_N: Tensor
    kl_scale_N: Tensor
    response_N: Tensor
    old_N: Tensor | None
    reference_N: Tensor | None
    values_N: Tensor | None
    returns_N: Tensor | None
    kept_NV: Tensor | None
    source_N2: np.ndarray
    temperature: float
    experts_BTM: Tensor | None = None


def pack_rows(rows: Sequence[Row], share: bool = True, width: int = 128) -> list[Pack]:
    """Packs of the rows, in order of length. Rows share packs where, and in such numbers as, that saves arithmetic.

    width: of the model's residual stream, which says how attention weighs against the rest.
    """
    prompts: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        first = row.trajectory.mask.index(True) if True in row.trajectory.mask else 0
        key = row.trajectory.token_ids[:first] if share and first else (-1, index)
        prompts.setdefault(key, []).append(index)
    packs: list[Pack] = []
    for prompt, members in prompts.items():
        prefix = len(prompt) if prompt[0] >= 0 else 0
        members.sort(key=lambda index: len(rows[index].trajectory.token_ids))
        splits = [_split(rows, members, prefix, parts) for parts in range(1, len(members) + 1)]
        packs += min(splits, key=lambda split: sum(_cost(pack.length, width) for pack in split))
    return sorted(packs, key=lambda pack: (pack.length, pack.rows))


def _split(rows: Sequence[Row], members: Sequence[int], prefix: int, parts: int) -> list[Pack]:
    """Rows that share a prompt in so many packs, as even as can be."""
    bounds = [len(members) * part // parts for part in range(parts + 1)]
    packs = []
    for first, last in pairwise(bounds):
        chosen = tuple(members[first:last])
        shared = prefix if len(chosen) > 1 else 0
        own = sum(len(rows[index].trajectory.token_ids) - shared for index in chosen)
        packs.append(Pack(chosen, shared, shared + own))
    return packs


def _cost(length: int, width: int) -> int:
    """Arithmetic of a pack, up to a factor: about 24 width^2 a token and layer, and 4 length width for attention."""
    return length * (6 * width + length)


def micro_batches(rows: Sequence[Row], max_tokens: int, share: bool = True, width: int = 128) -> Iterator[list[Pack]]:
    """Packs of similar length with at most `max_tokens` padded tokens (at least one pack each)."""
    batch: list[Pack] = []
    for pack in pack_rows(rows, share, width):
        if batch and (len(batch) + 1) * pack.length > max_tokens:
            yield batch
            batch = []
        batch.append(pack)
    if batch:
        yield batch


def collate(rows: Sequence[Row], packs: Sequence[Pack], vocabulary: int, device: torch.device) -> Batch:
    """Lay packs out as tensors. vocabulary: width of the kept-set masks."""
    shape = (len(packs), max(pack.length for pack in packs))
    token_ids, positions, segments = (np.zeros(shape, np.int64) for _ in range(3))
    predictor: list[np.ndarray] = []
    source: list[np.ndarray] = []
    for b, pack in enumerate(packs):
        first = rows[pack.rows[0]].trajectory.token_ids
        token_ids[b, : pack.prefix] = first[: pack.prefix]
        positions[b, : pack.prefix] = np.arange(pack.prefix)
        at = pack.prefix
        for number, index in enumerate(pack.rows, 1):
            trajectory = rows[index].trajectory
            end = at + len(trajectory.token_ids) - pack.prefix
            token_ids[b, at:end] = trajectory.token_ids[pack.prefix :]
            positions[b, at:end] = np.arange(pack.prefix, len(trajectory.token_ids))
            segments[b, at:end] = number if len(pack.rows) > 1 else 0
            sampled = np.flatnonzero(trajectory.mask)
            sampled = sampled[sampled > 0]
            before = np.where(sampled > pack.prefix, at + sampled - pack.prefix - 1, sampled - 1)
            predictor.append(b * shape[1] + before)
            source.append(np.stack([np.full(len(sampled), index), sampled], 1))
            at = end
    source_N2 = np.concatenate(source)

    def of_rows(values: list[float]) -> Tensor:
        return torch.tensor([values[i] for i in source_N2[:, 0]], dtype=torch.float32, device=device)

    def known(name: str) -> Tensor | None:
        return None if getattr(rows[0], name) is None else gather([getattr(row, name) for row in rows])

    def gather(values: list[np.ndarray | tuple[float, ...]]) -> Tensor:
        picked = [np.asarray(values[i], dtype=np.float32)[part[:, 1]] for i, part in zip(order, source, strict=True)]
        return torch.from_numpy(np.concatenate(picked)).to(device)

    order = [index for pack in packs for index in pack.rows]
    temperatures = {rows[index].trajectory.temperature for index in order}
    if len(temperatures) > 1:
        raise ValueError(f"Rows of one micro-batch were sampled at the temperatures {sorted(temperatures)}.")
    trajectories = [row.trajectory for row in rows]
    return Batch(
        token_ids_BT=torch.from_numpy(token_ids).to(device),
        positions_BT=torch.from_numpy(positions).to(device),
        segments_BT=torch.from_numpy(segments).to(device) if segments.any() else None,
        predictor_N=torch.from_numpy(np.concatenate(predictor)).to(device),
        targets_N=torch.tensor([trajectories[i].token_ids[t] for i, t in source_N2.tolist()], device=device),
        logprobs_N=gather([trajectory.logprobs for trajectory in trajectories]),
        advantages_N=gather([row.advantages for row in rows]),
        weights_N=of_rows([row.weight for row in rows]),
        kl_scale_N=of_rows([row.kl_scale for row in rows]),
        response_N=torch.from_numpy(source_N2[:, 0].copy()).to(device),
        old_N=known("old"),
        reference_N=known("reference"),
        values_N=known("values"),
        returns_N=known("returns"),
        kept_NV=_kept(trajectories, source_N2, vocabulary, device),
        source_N2=source_N2,
        temperature=trajectories[order[0]].temperature,
        experts_BTM=_experts(trajectories, packs, shape, device),
    )


def _experts(
    trajectories: list[Trajectory], packs: Sequence[Pack], shape: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Laid out as the tokens are; of a prompt that rows share, those of the first."""
    own = (trajectories[index] for pack in packs for index in pack.rows)
    widths = {len(one) // 2 for t in own for one in t.experts or () if one is not None}
    if not widths:
        return None
    if len(widths) > 1:
        raise ValueError(f"Rows of one micro-batch kept {sorted(widths)} experts a token.")
    experts = np.full((*shape, widths.pop()), -1, np.int64)
    for b, pack in enumerate(packs):
        at = 0
        for number, index in enumerate(pack.rows):
            known = trajectories[index].experts or (None,) * len(trajectories[index].token_ids)
            for one in known[pack.prefix if number else 0 :]:
                if one is not None:
                    experts[b, at] = np.frombuffer(one, EXPERT_TYPE)
                at += 1
    return torch.from_numpy(experts).to(device)


def _kept(
    trajectories: list[Trajectory], source_N2: np.ndarray, vocabulary: int, device: torch.device
) -> Tensor | None:
    if all(trajectory.kept is None for trajectory in trajectories):
        return None
    kept = torch.ones((len(source_N2), vocabulary), dtype=torch.bool)
    for n, (index, position) in enumerate(source_N2.tolist()):
        ids = (trajectories[index].kept or (None,) * (position + 1))[position]
        if ids is not None:
            kept[n] = False
            kept[n, list(ids)] = True
    return kept.to(device)

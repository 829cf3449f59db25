"""Critic: a model beside the policy that says what an episode will still be paid, at each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..agents.model import copy_trained
from .batch import Batch, Row, collate, micro_batches
from .optimizer import NonFiniteError
from .scoring import can_share_prompts, hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Critic(nn.Module):
    """The body of a policy, copied, with a head of its own that begins by saying 0 everywhere.

    Where the policy trains adapters, the critic has adapters of its own around the same frozen weights.

    The value of a sampled token is that of the state before it: of all tokens that stand in front of it.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.config: Any = policy.config
        self.base_model = copy_trained(policy.base_model)
        self.head = nn.Linear(policy.config.hidden_size, 1, device=next(policy.parameters()).device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Tensor:
        """The values of the batch's sampled tokens, [N], in units of the reward."""
        return self.head(hidden_states(self, batch))[:, 0].float()

    def trained_state(self) -> dict[str, Tensor]:
        """The weights that learn, by name."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}


@torch.no_grad()
def token_values(
    critic: Critic, rows: Sequence[Row], micro_batch_tokens: int, observed: bool = False
) -> list[np.ndarray]:
    """The value of each token of each row and, last, that of its end, [T + 1]; 0 at tokens that were not sampled.

    observed: what stands behind the first sampled token has values, too.
    """
    device = critic.head.weight.device
    ended = []
    for row in rows:
        trajectory = row.trajectory
        more = replace(
            trajectory,
            token_ids=(*trajectory.token_ids, trajectory.token_ids[-1]),
            mask=(*_asked(trajectory.mask, observed), True),  # what would come next is asked for, and never fed
            logprobs=(*trajectory.logprobs, 0.0),
            versions=(*trajectory.versions, -1),
            kept=None,
            experts=None,
        )
        ended.append(Row(more, np.zeros(len(more.mask)), 0.0))
    found = [np.zeros(len(row.trajectory.mask)) for row in ended]
    for packs in micro_batches(ended, micro_batch_tokens, can_share_prompts(critic), critic.config.hidden_size):
        batch = collate(ended, packs, critic.config.vocab_size, device)
        for (row, position), value in zip(batch.source_N2.tolist(), critic(batch).tolist(), strict=True):
            found[row][position] = value
    return found


def _asked(mask: tuple[bool, ...], observed: bool) -> tuple[bool, ...]:
    if not observed or True not in mask:
        return mask
    first = mask.index(True)
    return mask[:first] + (True,) * (len(mask) - first)


def accumulate_values(
    critic: Critic, rows: Sequence[Row], micro_batch_tokens: int, clip: float | None
) -> dict[str, float]:
    """Add the gradient of the mean value loss over the sampled tokens of `rows`; curves of the step."""
    device = critic.head.weight.device
    total = max(sum(sum(row.trajectory.mask) for row in rows), 1)
    sums = {"value_loss": 0.0, "value": 0.0, "return": 0.0, "return_squared": 0.0, "value_error_squared": 0.0}
    for packs in micro_batches(rows, micro_batch_tokens, can_share_prompts(critic), critic.config.hidden_size):
        batch = collate(rows, packs, critic.config.vocab_size, device)
        assert batch.returns_N is not None and batch.values_N is not None
        values_N = critic(batch)
        loss = value_loss(values_N, batch.returns_N, batch.values_N, clip).sum() / total
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"The value loss is {float(loss.detach())}; no step was taken and the last checkpoint stands."
            )
        loss.backward()
        errors_N = (values_N.detach() - batch.returns_N).square()
        sums["value_loss"] += float(loss.detach())
        for name, found_N in (
            ("value", values_N.detach()),
            ("return", batch.returns_N),
            ("return_squared", batch.returns_N.square()),
            ("value_error_squared", errors_N),
        ):
            sums[name] += float(found_N.sum()) / total
    spread = sums.pop("return_squared") - sums["return"] ** 2
    error = sums.pop("value_error_squared")
    # 1: the critic says what comes; 0: no better than a constant; unknown where all returns are the same.
    sums["value_explained"] = 1 - error / spread if spread > 1e-12 else 0.0
    return sums


def value_loss(values_N: Tensor, returns_N: Tensor, old_N: Tensor, clip: float | None) -> Tensor:
    """`0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2)` of each token, [N]; without clip the first.

    Source: the PPO implementations of OpenAI Baselines and TRL; PPO (arXiv:1707.06347) has the unclipped one.
    """
    losses_N = (values_N - returns_N).square()
    if clip is not None:
        near_N = old_N + (values_N - old_N).clamp(-clip, clip)
        losses_N = torch.maximum(losses_N, (near_N - returns_N).square())
    return 0.5 * losses_N

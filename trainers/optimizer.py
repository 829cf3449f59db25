"""Optimizer: AdamW with warm-up, decay and gradient clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..sandbox.errors import LudusError

if TYPE_CHECKING:
    from .config import OptimizerConfig


class NonFiniteError(LudusError):
    """A loss or gradient that is not a number: the step was not taken."""


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (arXiv:1711.05101); matrices decay, vectors (norms, biases) do not."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of optimiser step `step` (from 0) of `steps`: linear warm-up, then linear to final_lr_fraction."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * (1.0 - min(share, 1.0) * (1.0 - config.final_lr_fraction))


def apply_step(optimizer: torch.optim.Optimizer, config: OptimizerConfig, lr: float) -> float:
    """Clip the accumulated gradient, take one step, return the norm before clipping. NonFiniteError takes no step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    value = float(norm)
    if not torch.isfinite(norm):
        raise NonFiniteError(f"The gradient norm is {value}; no step was taken and the last checkpoint stands.")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value

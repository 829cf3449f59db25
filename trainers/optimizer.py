"""Optimizer: AdamW, in 8 bits or with Muon for hidden layers if wanted; warm-up, decay and gradient clipping."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ..sandbox.errors import LudusError
from .muon import Muon

if TYPE_CHECKING:
    from .config import OptimizerConfig


class NonFiniteError(LudusError):
    """A loss or gradient that is not a number: the step was not taken."""


class SpikeError(LudusError):
    """A gradient far larger than those before it."""


class OptimizerError(LudusError):
    """An optimizer that cannot be made here."""


class Together:
    """Optimizers of different parameters that step as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One step of each part."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


AnyOptimizer: TypeAlias = torch.optim.Optimizer | Together


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> AnyOptimizer:
    """AdamW (arXiv:1711.05101); matrices decay, vectors (norms, biases) do not.

    With `muon_lr`, Muon steps the matrices of the transformer blocks instead, and AdamW embeddings and vectors; `kind`
    is about AdamW alone. OptimizerError where it needs what is not here.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    by_muon = muon_weights(model, config)
    rest = [p for name, p in trained.items() if name not in by_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    # In the groups, where `load_state` finds it again.
    groups = [{**group, "kind": config.kind} for group in groups]
    made = adamw_class(config.kind, next(model.parameters()).device)
    adamw: torch.optim.Optimizer = made(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    if config.muon_lr is None:
        return adamw
    muon = Muon([trained[name] for name in sorted(by_muon)], lr=config.muon_lr, weight_decay=config.weight_decay)
    for group in muon.param_groups:
        group["lr_scale"] = config.muon_lr / config.lr
    return Together(muon, adamw)


def muon_weights(model: nn.Module, config: OptimizerConfig) -> set[str]:
    """The names of the weights that Muon steps: matrices of the blocks, where it is wanted."""
    if config.muon_lr is None:
        return set()
    return {name for name, p in model.named_parameters() if p.requires_grad and p.dim() == 2 and "layers." in name}


def adamw_class(kind: str, device: torch.device) -> Any:
    """What makes a kind of AdamW; one with quantised states (arXiv:2110.02861) is tried once on the device.

    OptimizerError where it needs what is not here.
    """
    if kind == "adamw":
        return partial(torch.optim.AdamW, fused=True)
    if kind.startswith("paged") and device.type != "cuda":
        raise OptimizerError(
            f"optimizer.kind = {kind} moves its states out of a GPU, and the model is on the {device.type}; choose "
            "adamw_8bit or adamw."
        )
    try:
        import bitsandbytes
    except ImportError as error:
        raise OptimizerError(
            f"optimizer.kind = {kind} needs the package bitsandbytes; install it with: pip install 'ludus[bnb]' "
            f"({error})"
        ) from None
    made = bitsandbytes.optim.PagedAdamW8bit if kind.startswith("paged") else bitsandbytes.optim.AdamW8bit
    probe = nn.Parameter(torch.zeros(64, 64, device=device))  # anything smaller would be stepped in 32 bits
    probe.grad = torch.ones_like(probe)
    try:
        made([probe]).step()
    except Exception as error:  # what it raises depends on the device and on its version
        raise OptimizerError(
            f"bitsandbytes {bitsandbytes.__version__} cannot step on this {device.type} ({str(error).strip()}); set "
            "optimizer.kind: adamw, or install a build for it."
        ) from error
    return made


def load_state(optimizer: AnyOptimizer, state: dict[str, Any]) -> None:
    """Put back what `state_dict` returned. KeyError, TypeError or ValueError where it is another optimizer's."""
    kinds = [group.get("kind", "adamw") for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    found = [group.get("kind", "adamw") for group in optimizer.param_groups]
    if kinds != found:
        raise ValueError(f"optimizer.kind was {found[-1]} and is {kinds[-1]}")


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of optimiser step `step` (from 0) of `steps`: linear warm-up, then linear to final_lr_fraction."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(steps - config.warmup_steps, 1)
    return config.lr * (1.0 - min(share, 1.0) * (1.0 - config.final_lr_fraction))


def apply_step(optimizer: AnyOptimizer, config: OptimizerConfig, lr: float) -> float:
    """Clip the accumulated gradient, take one step, return the norm before clipping. NonFiniteError takes no step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    value = float(norm)
    if not torch.isfinite(norm):
        raise NonFiniteError(f"The gradient norm is {value}; no step was taken and the last checkpoint stands.")
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value

"""Muon: momentum whose singular values are all made equal, an optimizer for the matrices of hidden layers.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. `torch.optim.Muon` computes
in bfloat16, one matrix at a time; here matrices of one shape are stepped together in float32, which any CPU does well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; decoupled weight decay. Parameters are matrices [rows, columns].

    lr: length of a step in units of an orthogonal matrix, times sqrt(rows / columns) for tall matrices.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step from the accumulated gradients. closure: not used."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(tuple(parameter.shape), []).append(parameter)
            for (rows, columns), parameters in alike.items():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                updates = orthogonalize(updates) * (group["lr"] * max(1.0, rows / columns) ** 0.5)
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(update)

    def _momentum(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1.0 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def orthogonalize(matrices: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T in matrices [count, rows, columns], by Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

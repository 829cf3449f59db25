"""Expert replay: a mixture of experts computes with the experts that the sampler chose, where these are known.

Kernels round differently, and where two experts are nearly as good the sampler takes one and the trainer the other:
the log-probability of the same token then differs by far more than by rounding. The weights of the experts are the
trainer's own, over the sampler's choice, and so routers learn (R3, arXiv:2510.11370; "keep routing" in DeepSeek-V3.2,
arXiv:2512.02556).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..sandbox.errors import LudusError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Weigh = Callable[[Tensor, Tensor], Tensor]
"""The weights of chosen experts [n, K], of a router's logits [n, E] and its choice [n, K]."""
ATTRIBUTE = "ludus_expert_replay"
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
ROUTER = re.compile(r"Top[kK]Router$")


class ExpertReplayError(LudusError):
    """A model whose experts cannot be chosen for it, or a choice that is none of this model's."""


def _of_all(logits: Tensor, chosen: Tensor) -> Tensor:
    return torch.softmax(logits.float(), -1).gather(1, chosen)


def _of_chosen(logits: Tensor, chosen: Tensor) -> Tensor:
    return torch.softmax(logits.float().gather(1, chosen), -1)


class ExpertReplay:
    """Has a model follow choices of experts, while it is entered as a context manager."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._replaced: int | Tensor = 0  # a number on the model's device, for which nobody waits
        self._choices: int | Tensor = 0
        self._model: Any = model
        self._routers = routers(model)
        self._width = max((layer + 1) * int(router.top_k) for layer, router, _ in self._routers)
        self._experts_BTM: Tensor | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> ExpertReplay:
        self._hooks = [
            router.register_forward_hook(partial(self._choose, layer, weigh)) for layer, router, weigh in self._routers
        ]
        setattr(self._model, ATTRIBUTE, self)
        return self

    def __exit__(self, *_: object) -> None:
        delattr(self._model, ATTRIBUTE)
        for hook in self._hooks:
            hook.remove()

    @property
    def choices(self) -> int:
        """Choices that were given, since the model last rested."""
        return int(self._choices)

    @property
    def replaced(self) -> int:
        """Of these, those that the model would have made otherwise."""
        return int(self._replaced)

    def follow(self, experts_BTM: Tensor | None) -> None:
        """What forward passes choose from now on: the M = layers * K experts of each token, -1 for the model's own."""
        if experts_BTM is not None and experts_BTM.shape[2] < self._width:
            raise ExpertReplayError(
                f"The sampler chose {experts_BTM.shape[2]} experts a token in all layers, and the model has "
                f"{self._width}; sample with the model that is trained."
            )
        self._experts_BTM = experts_BTM

    def rest(self) -> None:
        """The model chooses by itself again, and counts begin at 0."""
        self._experts_BTM = None
        self._replaced = self._choices = 0

    def _choose(self, layer: int, weigh: Weigh, router: Any, _: object, output: Any) -> Any:
        """The router's output with the choice of the sampler."""
        if self._experts_BTM is None:
            return None
        logits, weights, own = output
        width = own.shape[1]
        kept = self._experts_BTM[:, :, layer * width : (layer + 1) * width].reshape(-1, width)
        known = kept >= 0
        chosen = torch.where(known, kept, own)
        self._choices = self._choices + known.sum()
        self._replaced = self._replaced + (known & ~(kept[:, :, None] == own[:, None]).any(-1)).sum()
        return logits, weigh(logits, chosen).to(weights.dtype), chosen


def routers(model: Any) -> list[tuple[int, Any, Weigh]]:
    """The routers of a model, with the numbers of their layers and how they weigh experts.

    ExpertReplayError where it has none, or one whose choice cannot be made for it.
    """
    found = []
    for name, module in model.named_modules():
        layer = LAYER.search(name)
        if layer is not None and ROUTER.search(type(module).__name__):
            found.append((int(layer[1]), module, _rule_of(module, model.config.hidden_size)))
    if not found:
        raise ExpertReplayError(
            f"{type(model).__name__} is no mixture of experts whose routing could be kept; remove engine.keep_routing."
        )
    return found


def _rule_of(router: Any, width: int) -> Weigh:
    """How a router weighs the experts that it chose, seen from what it does."""
    states = torch.randn(16, width, generator=torch.Generator().manual_seed(0)).to(router.weight)
    with torch.no_grad():
        output = router(states)
    if isinstance(output, tuple) and len(output) == 3 and output[0].shape[-1] > output[2].shape[-1]:
        logits, weights, chosen = output
        for rule in (_of_all, _of_chosen):
            if not chosen.is_floating_point() and torch.allclose(rule(logits, chosen).to(weights), weights, rtol=1e-2):
                return rule
    raise ExpertReplayError(
        f"How {type(router).__name__} weighs the experts that it chooses is not known here, so that its choice cannot "
        "be kept; remove engine.keep_routing."
    )

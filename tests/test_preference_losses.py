"""Preference losses: values by hand, gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp, log
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.trainers.preference_losses import bradley_terry, dpo, ipo, kto, orpo


def of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_dpo_by_hand() -> None:
    """Ratios 1 and -1 at beta 0.5: -log sigmoid(1) = 0.313262."""
    assert dpo(of(1.0), of(-1.0), beta=0.5).tolist() == pytest.approx([0.313262], abs=1e-6)
    smoothed = -0.9 * log(sigmoid(1.0)) - 0.1 * log(sigmoid(-1.0))
    assert dpo(of(1.0), of(-1.0), beta=0.5, label_smoothing=0.1).tolist() == pytest.approx([smoothed])
    assert torch.isfinite(dpo(of(1e4, -1e4), of(-1e4, 1e4), beta=1.0)).all()


def test_ipo_by_hand() -> None:
    """1 / (2 * 0.1) = 5 is the margin wanted."""
    assert ipo(of(3.0, 6.0), of(1.0, 1.0), beta=0.1).tolist() == pytest.approx([9.0, 0.0])


def test_kto_by_hand() -> None:
    """z = max(0, mean of -1 and 2) = 0.5; below 0 it is 0."""
    losses = kto(of(1.5, 1.5), torch.tensor([True, False]), of(-1.0, 2.0), 0.5, 2.0, 1.0)
    assert losses.tolist() == pytest.approx([2 * (1 - sigmoid(0.5)), 1 - sigmoid(-0.5)])
    assert kto(of(1.0), torch.tensor([True]), of(-3.0), 1.0).tolist() == pytest.approx([1 - sigmoid(1.0)])


def test_orpo_by_hand() -> None:
    """Probabilities 1/2 and 1/5: log-odds 0 and -log 4, so sigmoid(log 4) = 4/5."""
    found = orpo(of(log(0.5)), of(log(0.2)), of(0.7), weight=2.0)
    assert found.tolist() == pytest.approx([0.7 - 2 * log(0.8)])
    assert torch.isfinite(orpo(of(0.0, -1e-12, -50.0), of(-1e3, 0.0, 0.0), of(0.0, 0.0, 0.0))).all()


def test_bradley_terry_by_hand() -> None:
    assert bradley_terry(of(1.0), of(0.0)).tolist() == pytest.approx([-log(sigmoid(1.0))])
    found = bradley_terry(of(1.0), of(0.5), margin_P=0.25, centring=0.01)
    assert found.tolist() == pytest.approx([-log(sigmoid(0.25)) + 0.01 * 2.25])


@pytest.mark.parametrize(
    "loss",
    [
        dpo,
        partial(dpo, label_smoothing=0.2),
        ipo,
        lambda a, b: kto(a, torch.tensor([True, False, True, False]), b.detach()),
        lambda a, b: orpo(-a.exp(), -b.exp(), a.exp()),
        partial(bradley_terry, margin_P=0.3, centring=0.1),
    ],
)
def test_gradients_equal_finite_differences(loss: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(loss, (first, second), eps=1e-7)

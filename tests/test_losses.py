"""Policy losses: values by hand, gradients against finite differences."""

from __future__ import annotations

import pytest
import torch

from ludus.trainers.algorithms.losses import ppo_clip, reinforce


def test_ppo_clip_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1], dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0], dtype=torch.float64)
    loss, shown = ppo_clip(ratio.log(), torch.zeros(5, dtype=torch.float64), advantages, 0.2, 0.28)
    assert loss.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8, -2.2])
    assert shown["clip_fraction"].tolist() == [1, 0, 0, 1, 0]
    assert shown["ratio"].tolist() == pytest.approx(ratio.tolist())


def test_ppo_clip_survives_any_ratio() -> None:
    loss, _ = ppo_clip(torch.tensor([0.0, -1000.0]), torch.tensor([-1000.0, 0.0]), torch.tensor([-1.0, 1.0]))
    assert torch.isfinite(loss).all()


@pytest.mark.parametrize("loss", [reinforce, ppo_clip])
def test_gradient_equals_finite_differences(loss) -> None:
    generator = torch.Generator().manual_seed(0)
    old, start, advantages = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3))
    logprobs = (old + 0.3 * start).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, old, advantages)[0], (logprobs,), eps=1e-7)


def test_at_the_old_policy_the_clipped_loss_has_the_gradient_of_reinforce() -> None:
    logprobs = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    advantages = torch.linspace(-1, 1, 8, dtype=torch.float64)
    (clipped,) = torch.autograd.grad(ppo_clip(logprobs, logprobs.detach(), advantages)[0].sum(), logprobs)
    (plain,) = torch.autograd.grad(reinforce(logprobs, logprobs.detach(), advantages)[0].sum(), logprobs)
    assert torch.allclose(clipped, plain)

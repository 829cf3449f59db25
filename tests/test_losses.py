"""Policy losses and corrections: values by hand, gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.trainers.algorithms import Tokens
from ludus.trainers.algorithms.corrections import drop_drifted, masked_weight, truncated_weight
from ludus.trainers.algorithms.kl import doubling, proportional
from ludus.trainers.algorithms.losses import cispo, gspo, mirror, ppo_clip, ppo_ratio, ratio, reinforce, sapo

LOSSES: dict[str, Callable[..., Any]] = {
    "reinforce": reinforce,
    "ppo_clip": ppo_clip,
    "dual clip": partial(ppo_clip, dual_clip=3.0),
    "sequence_sum": partial(ppo_clip, level="sequence_sum"),
    "sequence_mean": partial(ppo_clip, level="sequence_mean"),
    "ppo_ratio": ppo_ratio,
    "gspo": gspo,
    "gspo, wide": partial(gspo, clip_low=0.5, clip_high=0.5),
    "sapo": sapo,
    "mirror": partial(mirror, tau=0.5),
}


def tokens(
    ratios: list[float], advantages: list[float], responses: list[int] | None = None, sampler: float = 0.0
) -> Tokens:
    """Tokens whose policy has these ratios to the old one, which gave each the log-probability -1."""
    old = torch.full((len(ratios),), -1.0, dtype=torch.float64)
    given = torch.tensor(ratios, dtype=torch.float64).log() + old
    number = torch.tensor(responses or list(range(len(ratios))))
    return Tokens(given, old, old - sampler, torch.tensor(advantages, dtype=torch.float64), number)


def values(found: tuple[Tensor, dict[str, Tensor]]) -> list[float]:
    return found[0].tolist()


def test_ppo_clip_by_hand() -> None:
    loss, shown = ppo_clip(tokens([1.5, 1.5, 0.5, 0.5, 1.1], [1.0, -1.0, 1.0, -1.0, 2.0]), 0.2, 0.28)
    assert loss.tolist() == pytest.approx([-1.28, 1.5, -0.5, 0.8, -2.2])
    assert shown["clip_fraction"].tolist() == [1, 0, 0, 1, 0]
    assert shown["clip_fraction/low"].tolist() == [0, 0, 0, 1, 0]
    assert shown["clip_fraction/high"].tolist() == [1, 0, 0, 0, 0]
    assert shown["ratio"].tolist() == pytest.approx([1.5, 1.5, 0.5, 0.5, 1.1])


def test_the_dual_clip_bounds_what_a_bad_token_costs() -> None:
    """At the ratio 5 a token with A = -2 would cost 10, and costs 3 * 2."""
    loss, shown = ppo_clip(tokens([5.0, 2.0, 5.0], [-2.0, -2.0, 1.0]), dual_clip=3.0)
    assert loss.tolist() == pytest.approx([6.0, 4.0, -1.2])
    assert shown["clip_fraction"].tolist() == [1, 0, 1]


def test_ratios_of_whole_responses_by_hand() -> None:
    """Two responses: tokens with ratios 2 and 0.5 and 2, and one with 3."""
    one = tokens([2.0, 0.5, 2.0, 3.0], [1.0] * 4, [7, 7, 7, 2])
    assert ratio(one, "sequence_sum").tolist() == pytest.approx([2.0, 2.0, 2.0, 3.0])
    assert ratio(one, "sequence_mean").tolist() == pytest.approx([2.0 ** (1 / 3)] * 3 + [3.0])
    assert one.lengths_N.tolist() == [3, 3, 3, 1]


def test_gspo_clips_the_response_and_its_token_form_has_the_same_value() -> None:
    one = tokens([1.001, 1.001, 0.9999], [1.0, 1.0, -1.0], [0, 0, 1])
    loss, shown = gspo(one)
    assert loss.tolist() == pytest.approx([-1.0004, -1.0004, 0.9999])
    assert shown["clip_fraction"].tolist() == [1, 1, 0]
    assert values(gspo(one, token_form=True)) == pytest.approx(loss.tolist())


def test_the_gradient_of_gspo_is_shared_by_the_response_and_that_of_its_token_form_is_each_token_s() -> None:
    def gradient(token_form: bool) -> list[float]:
        one = tokens([1.1, 0.9, 1.2], [1.0, 2.0, 3.0], [0, 0, 0])
        leaf = one.logprobs_N.clone().requires_grad_()
        wide = Tokens(leaf, one.old_N, one.sampler_N, one.advantages_N, one.response_N)
        gspo(wide, 0.5, 0.5, token_form)[0].sum().backward()
        assert leaf.grad is not None
        return leaf.grad.tolist()

    s = (1.1 * 0.9 * 1.2) ** (1 / 3)
    assert gradient(False) == pytest.approx([-s * 6 / 3] * 3)
    assert gradient(True) == pytest.approx([-s, -2 * s, -3 * s])


def test_cispo_by_hand() -> None:
    """-sg(clip(r)) A logp, with logp = log(r) - 1; the gradient is the weight, and no token is without one."""
    one = tokens([1.5, 0.5, 8.0], [1.0, -1.0, 2.0])
    logprobs = one.logprobs_N.tolist()
    assert values(cispo(one)) == pytest.approx([-1.2 * logprobs[0], 0.8 * logprobs[1], -1.2 * 2 * logprobs[2]])
    wide = cispo(one, clip_low=None, highest=5.0)
    assert values(wide) == pytest.approx([-1.5 * logprobs[0], 0.5 * logprobs[1], -5.0 * 2 * logprobs[2]])
    assert wide[1]["clip_fraction"].tolist() == [0, 0, 1]
    leaf = one.logprobs_N.clone().requires_grad_()
    cispo(Tokens(leaf, one.old_N, one.sampler_N, one.advantages_N, one.response_N))[0].sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == pytest.approx([-1.2, 0.8, -2.4])


def test_sapo_by_hand() -> None:
    """The gate at r = 0.5 and tau = 1.05 is 1.415938; at r = 1 it is 2 / tau, with the gradient of reinforce."""
    assert values(sapo(tokens([0.5, 1.0, 1.0], [-1.0, 1.0, -1.0]))) == pytest.approx(
        [1.415938, -2.0, 2 / 1.05], abs=1e-6
    )


def test_mirror_by_hand() -> None:
    """Log-ratios 0.1 and 0.2 in one response: -A sum(logp) + 0.5 / 2 * 0.3^2."""
    one = tokens([exp(0.1), exp(0.2), 1.0], [2.0, 2.0, 1.0], [0, 0, 1])
    loss = values(mirror(one, tau=0.5))
    assert loss[0] + loss[1] == pytest.approx(-2.0 * (-0.9 - 0.8) + 0.25 * 0.09)
    assert loss[2] == pytest.approx(1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_leaves_what_can_be_computed_with(name: str) -> None:
    far = Tokens(*(torch.tensor(v) for v in ([0.0, -1e3], [-1e3, 0.0], [0.0, 0.0], [-1.0, 1.0], [0, 0])))
    assert torch.isfinite(LOSSES[name](far)[0]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    old, start, advantages = (torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(3))
    responses = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3])
    logprobs = (old + 0.3 * start).requires_grad_()
    loss = LOSSES[name]
    assert torch.autograd.gradcheck(
        lambda x: loss(Tokens(x, old, old, advantages, responses))[0], (logprobs,), eps=1e-7
    )


@pytest.mark.parametrize("loss", [ppo_clip, ppo_ratio, cispo, partial(gspo, token_form=True)])
def test_at_the_old_policy_losses_over_tokens_have_the_gradient_of_reinforce(loss: Callable[..., Any]) -> None:
    old = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    advantages, responses = torch.linspace(-1, 1, 8, dtype=torch.float64), torch.arange(8) // 3

    def gradient(one: Callable[..., Any]) -> Tensor:
        leaf = old.clone().requires_grad_()
        (found,) = torch.autograd.grad(one(Tokens(leaf, old, old, advantages, responses))[0].sum(), leaf)
        return found

    assert torch.allclose(gradient(loss), gradient(reinforce))


def test_coefficients_follow_what_was_measured() -> None:
    assert [doubling(1.0, measured, 0.1) for measured in (0.2, 0.1, 0.05)] == [2.0, 1.0, 0.5]
    assert doubling(1.0, 0.2, 0.1, highest=1.5) == 1.5 and doubling(1.0, 0.0, 0.1, lowest=0.75) == 0.75
    found = [proportional(1.0, measured, 0.1, gain=0.5) for measured in (0.2, 0.11, 0.1, 0.0)]
    assert found == pytest.approx([1.1, 1.05, 1.0, 0.9])


# --- corrections -----------------------------------------------------------------------------------------------------


def far(log_ratios: list[float], responses: list[int]) -> Tokens:
    """Tokens whose old policy has these log-ratios to the sampler."""
    old = torch.tensor(log_ratios, dtype=torch.float64)
    return Tokens(old, old, torch.zeros(len(old), dtype=torch.float64), torch.ones(len(old)), torch.tensor(responses))


def test_importance_weights_by_hand() -> None:
    one = far([0.1, 1.0, -1.0], [0, 0, 1])
    assert truncated_weight(one).tolist() == pytest.approx([exp(0.1), 2.0, exp(-1)])
    assert truncated_weight(one, level="sequence").tolist() == pytest.approx([2.0, 2.0, exp(-1)])
    assert masked_weight(one).tolist() == pytest.approx([exp(0.1), 0.0, 0.0])
    assert masked_weight(one, 0.1, 10.0, "sequence").tolist() == pytest.approx([exp(1.1), exp(1.1), exp(-1)])


def test_a_drifted_response_teaches_nothing_by_being_wrong() -> None:
    """Mean drift 1.5 and 0.5 nats under a bound of 1; what is right stays."""
    sampler = torch.zeros(5)
    policy = torch.tensor([-1.0, -2.0, -0.5, -3.0, -3.0], requires_grad=True)
    advantages = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0])
    one = Tokens(policy, policy.detach(), sampler, advantages, torch.tensor([0, 0, 1, 2, 2]))
    kept = drop_drifted(one, delta=1.0)
    assert kept.tolist() == [0, 0, 1, 1, 1] and not kept.requires_grad
    assert drop_drifted(one, delta=1.0, anchor="old").tolist() == [1, 1, 1, 1, 1]

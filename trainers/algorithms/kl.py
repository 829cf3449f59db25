"""KL estimators to a reference policy, in nats for each sampled token.

Source: Schulman, "Approximating KL divergence" (2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

K3_CLIP = 10.0


def doubling(
    coefficient: float, measured: float, target: float, lowest: float = 0.0, highest: float = math.inf
) -> float:
    """Twice the coefficient where the divergence is above 1.5 times its target, half of it below two thirds.

    lowest, highest: bounds, so that steps in which nothing is learnt do not take the price away for good.
    Source: PPO (arXiv:1707.06347), section 4.
    """
    if measured > 1.5 * target:
        return min(coefficient * 2, highest)
    return max(coefficient / 2, lowest) if measured < target / 1.5 else coefficient


def proportional(coefficient: float, measured: float, target: float, gain: float = 0.1) -> float:
    """The coefficient times `1 + gain e`, with the relative error e of the divergence held within 0.2.

    Source: Ziegler et al. (arXiv:1909.08593), section 2.2.
    """
    error = min(max(measured / target - 1, -0.2), 0.2)
    return coefficient * (1 + gain * error)


def falling(coefficient: float, measured: float, step: float, least: float) -> float:
    """The coefficient less `step`, down to `least`, whatever was measured. Source: KDRL (arXiv:2506.02208)."""
    return max(coefficient - step, least)


def k1(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """`logp - ref`: unbiased, of either sign."""
    return logprobs_N - reference_N


def k2(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """`(logp - ref)^2 / 2`: its gradient is that of the KL divergence."""
    return (logprobs_N - reference_N).square() / 2


def k3(logprobs_N: Tensor, reference_N: Tensor, clip: float = K3_CLIP) -> Tensor:
    """`exp(ref - logp) - 1 - (ref - logp)`: unbiased and never negative, held below `clip`. At 0.1 it is 0.0048374."""
    difference_N = (reference_N - logprobs_N).clamp(-20, 20)
    return (difference_N.exp() - 1 - difference_N).clamp(max=clip)


def k1_straight(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """The value of k1 and the gradient of k2, in expectation that of the divergence: straight through."""
    return _straight_through(k1(logprobs_N, reference_N), k2(logprobs_N, reference_N))


def k3_straight(logprobs_N: Tensor, reference_N: Tensor, clip: float = K3_CLIP) -> Tensor:
    """The value of k3 and the gradient of k2, in expectation that of the divergence: straight through."""
    return _straight_through(k3(logprobs_N, reference_N, clip), k2(logprobs_N, reference_N))


FORMS: dict[str, Callable[..., Tensor]] = {form.__name__: form for form in (k1, k2, k3, k1_straight, k3_straight)}
"""The estimators by name."""


def _straight_through(value_N: Tensor, slope_N: Tensor) -> Tensor:
    return value_N.detach() + slope_N - slope_N.detach()

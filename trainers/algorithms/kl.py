"""KL estimators to a reference policy, in nats for each sampled token.

Source: Schulman, "Approximating KL divergence" (2020).
"""

from __future__ import annotations

from torch import Tensor

K3_CLIP = 10.0


def k1(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """`logp - ref`: unbiased, of either sign."""
    return logprobs_N - reference_N


def k2(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """`(logp - ref)^2 / 2`: its gradient is that of the KL divergence."""
    return (logprobs_N - reference_N).square() / 2


def k3(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """`exp(ref - logp) - 1 - (ref - logp)`: unbiased and never negative, held below K3_CLIP. At 0.1 it is 0.0048374."""
    difference_N = (reference_N - logprobs_N).clamp(-20, 20)
    return (difference_N.exp() - 1 - difference_N).clamp(max=K3_CLIP)

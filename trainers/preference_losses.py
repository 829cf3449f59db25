"""Losses over pairs, or single answers, that were preferred or not: one number for each pair or answer [P].

Log-probabilities are sums over the sampled tokens of an answer, in nats, unless told otherwise. `ratio` below is
log-probability under the policy less that under the reference: an implicit reward, up to beta.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def dpo(chosen_P: Tensor, rejected_P: Tensor, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """`-log sigmoid(beta h)` with `h` the ratio of the chosen less that of the rejected answer.

    chosen_P, rejected_P: ratios. label_smoothing: the share of pairs that are believed to be the wrong way round
    (conservative DPO). Source: arXiv:2305.18290, equation 7.
    """
    margin_P = beta * (chosen_P - rejected_P)
    right_P, wrong_P = functional.logsigmoid(margin_P), functional.logsigmoid(-margin_P)
    return -(1 - label_smoothing) * right_P - label_smoothing * wrong_P


def ipo(chosen_P: Tensor, rejected_P: Tensor, beta: float = 0.1) -> Tensor:
    """`(h - 1 / (2 beta))^2`, which does not grow for ever as DPO's margin does.

    chosen_P, rejected_P: ratios; given as means over tokens they make beta comparable over lengths, which is what the
    authors did (and TRL does). Source: arXiv:2310.12036, equation 17.
    """
    return (chosen_P - rejected_P - 1 / (2 * beta)).square()


def kto(
    ratio_P: Tensor,
    desirable_P: Tensor,
    mismatched_P: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """`w (1 - sigmoid(beta (r - z)))` for a desirable answer, `w (1 - sigmoid(beta (z - r)))` for another.

    ratio_P: r. desirable_P: which they are. mismatched_P: ratios of answers to other prompts; `z = max(0, their mean)`
    stands for the divergence from the reference and has no gradient. Source: arXiv:2402.01306, equation 8.
    """
    far = mismatched_P.detach().mean().clamp(min=0)
    signed_P = torch.where(desirable_P, ratio_P - far, far - ratio_P)
    weights_P = torch.where(desirable_P, desirable_weight, undesirable_weight).to(ratio_P)
    return weights_P * (1 - torch.sigmoid(beta * signed_P))


def orpo(chosen_P: Tensor, rejected_P: Tensor, chosen_nll_P: Tensor, weight: float = 0.1) -> Tensor:
    """`NLL(chosen) - weight log sigmoid(log-odds(chosen) - log-odds(rejected))`, without a reference.

    chosen_P, rejected_P: mean log-probability of a token. chosen_nll_P: mean negative log-likelihood of the chosen
    answer's tokens. Source: arXiv:2403.07691, equations 6 and 7.
    """
    return chosen_nll_P - weight * functional.logsigmoid(_log_odds(chosen_P) - _log_odds(rejected_P))


def bradley_terry(
    chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | float = 0.0, centring: float = 0.0
) -> Tensor:
    """`-log sigmoid(r_chosen - r_rejected - margin)` of a reward model, in units of its reward.

    centring: weight of `(r_chosen + r_rejected)^2`, which keeps rewards around 0. Source: arXiv:2203.02155, equation 1;
    margin: Llama 2 (arXiv:2307.09288), equation 2; centring: arXiv:2312.09244, section 2.
    """
    losses_P = -functional.logsigmoid(chosen_P - rejected_P - margin_P)
    return losses_P + centring * (chosen_P + rejected_P).square()


def _log_odds(logprobs_P: Tensor) -> Tensor:
    """`log(p / (1 - p))`, also where p is nearly 1."""
    held_P = logprobs_P.clamp(max=-1e-7)
    return held_P - torch.where(held_P > -0.6931472, torch.log(-torch.expm1(held_P)), torch.log1p(-torch.exp(held_P)))

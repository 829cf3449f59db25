"""Estimators, losses and KL terms on problems small enough to be solved exactly, by adding up over all answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from ludus.trainers.algorithms import Tokens
from ludus.trainers.algorithms.advantages import group_center, group_norm, leave_one_out, subtract_baseline
from ludus.trainers.algorithms.kl import k1, k2, k3
from ludus.trainers.algorithms.losses import ppo_clip, reinforce
from ludus.trainers.algorithms.reductions import sequence_mean_token_mean, sequence_mean_token_sum

WORDS, LONGEST, END = 3, 3, 0
"""Answers are up to three tokens of three, or end sooner with the first of them."""


@cache
def answers() -> list[tuple[int, ...]]:
    whole = []
    for length in range(1, LONGEST + 1):
        for tokens in itertools.product(range(WORDS), repeat=length):
            ends = tokens[-1] == END or length == LONGEST
            if ends and END not in tokens[:-1]:
                whole.append(tokens)
    return whole


def reward(tokens: tuple[int, ...]) -> float:
    """Of any size, and larger for longer answers, so that a length bias shows."""
    return float(sum(tokens) + (tokens[0] == 1) - 2.0 * (tokens[-1] == 2))


def policy(seed: int = 0) -> Tensor:
    """Logits of each next token after each last one; the last row is the beginning."""
    return torch.randn(WORDS + 1, WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logprobs(logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Of each token of an answer."""
    before = [WORDS, *tokens[:-1]]
    return torch.log_softmax(logits, -1)[before, list(tokens)]


def exact_gradient() -> Tensor:
    """Of the expected reward."""
    logits = policy().requires_grad_()
    value = sum(logprobs(logits, one).sum().exp() * reward(one) for one in answers())
    assert isinstance(value, Tensor)
    return torch.autograd.grad(value, logits)[0].flatten()


def estimates(
    advantages: Callable[[np.ndarray, np.ndarray], np.ndarray],
    reduction: Callable[[np.ndarray, np.ndarray], np.ndarray] = sequence_mean_token_sum,
    loss: Callable[..., tuple[Tensor, dict[str, Tensor]]] = reinforce,
    batches: int = 1_500,
    groups: int = 2,
    size: int = 4,
) -> tuple[Tensor, Tensor]:
    """Mean over batches of the gradient that an optimiser step would follow, and the mean's standard error."""
    rng = np.random.default_rng(0)
    start = policy()
    chances = np.array([float(logprobs(start, one).sum().exp()) for one in answers()])
    assert chances.sum() == pytest.approx(1.0)
    rewards = np.array([reward(one) for one in answers()])
    lengths = np.array([len(one) for one in answers()])
    group_E = np.repeat(np.arange(groups), size)
    found = []
    # The gradient of each token of each answer by itself; a batch only weighs them.
    per_token = []
    for one in answers():
        logits = policy().requires_grad_()
        own = logprobs(logits, one)
        rows = [torch.autograd.grad(value, logits, retain_graph=True)[0].flatten() for value in own]
        per_token.append(torch.stack(rows))
    for _ in range(batches):
        picked = rng.choice(len(chances), groups * size, p=chances / chances.sum())
        advantages_E = advantages(rewards[picked], group_E)
        weights_E = reduction(lengths[picked], np.arange(len(picked)))
        count = lengths[picked]
        leaf = torch.cat([logprobs(start, answers()[i]) for i in picked]).requires_grad_()
        frozen = leaf.detach()
        spread = torch.from_numpy(np.repeat(advantages_E, count))
        number = torch.from_numpy(np.repeat(np.arange(len(picked)), count))
        loss_N, _ = loss(Tokens(leaf, frozen, frozen, spread, number))
        (slope,) = torch.autograd.grad((loss_N * torch.from_numpy(np.repeat(weights_E, count))).sum(), leaf)
        found.append(-(slope[:, None] * torch.cat([per_token[i] for i in picked])).sum(0))
    every = torch.stack(found)
    return every.mean(0), every.std(0) / batches**0.5


def agree(found: tuple[Tensor, Tensor], exact: Tensor) -> bool:
    """Within 4.5 standard errors in each of the twelve parts."""
    mean, error = found
    return bool(((mean - exact).abs() <= 4.5 * error + 1e-12).all())


@pytest.mark.parametrize("loss", [reinforce, ppo_clip])
@pytest.mark.parametrize(
    "advantages",
    [
        lambda rewards, groups: rewards,
        lambda rewards, groups: subtract_baseline(rewards, 0.7),
        lambda rewards, groups: rewards - reward((1, 0)),  # a greedy episode of the task, as ReMax has it
        leave_one_out,
    ],
    ids=["reward", "baseline", "greedy_baseline", "leave_one_out"],
)
def test_unbiased_estimators_follow_the_exact_gradient(advantages: Callable[..., np.ndarray], loss: object) -> None:
    assert agree(estimates(advantages, loss=loss), exact_gradient())  # type: ignore[arg-type]


def test_a_baseline_that_holds_the_episode_itself_shrinks_the_gradient() -> None:
    """Dr. GRPO: (G - 1) / G of it, which a learning rate makes up for."""
    found = estimates(group_center)
    assert not agree(found, exact_gradient())
    assert agree(found, exact_gradient() * 3 / 4)


def test_dividing_by_the_deviation_of_the_group_and_by_lengths_is_biased() -> None:
    """GRPO: no multiple of the exact gradient, since groups weigh by their spread, or tokens by their answer."""
    exact = exact_gradient()
    for found in (
        estimates(partial(group_norm, eps=1e-6), groups=8, size=2),
        estimates(group_center, reduction=sequence_mean_token_mean, groups=8, size=2),
    ):
        scale = float((found[0] @ exact) / (exact @ exact))
        assert scale > 0 and not agree(found, scale * exact)


# --- KL --------------------------------------------------------------------------------------------------------------


def expected(term: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """The expectation of a term summed over an answer's tokens, and the exact KL divergence."""
    ours, reference = policy(), policy(1)
    mean = divergence = 0.0
    for one in answers():
        own, other = logprobs(ours, one), logprobs(reference, one)
        chance = float(own.sum().exp())
        mean += chance * float(term(own, other).sum())
        divergence += chance * float((own - other).sum())
    return mean, divergence


@pytest.mark.parametrize("term", [k1, k3])
def test_k1_and_k3_are_unbiased(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    mean, divergence = expected(term)
    assert mean == pytest.approx(divergence, rel=1e-9)
    assert divergence > 0.1


def test_k2_is_biased() -> None:
    mean, divergence = expected(k2)
    assert abs(mean - divergence) > 0.1 * divergence


def slopes(term: Callable[[Tensor, Tensor], Tensor], weighed: bool) -> tuple[Tensor, Tensor]:
    """Of the first token: the expected gradient of the term in the loss, and the exact gradient of the divergence."""
    logits, reference = policy()[WORDS].requires_grad_(), torch.log_softmax(policy(1)[WORDS], -1)
    own = torch.log_softmax(logits, -1)
    chances = own.detach().exp()
    values = term(own, reference)
    if weighed:
        values = values * (own - own.detach()).exp()
    (found,) = torch.autograd.grad((chances * values).sum(), logits, retain_graph=True)
    (exact,) = torch.autograd.grad((own.exp() * (own - reference)).sum(), logits)
    return found, exact


def test_k1_in_the_loss_has_no_gradient_on_average_and_k2_has_that_of_the_divergence() -> None:
    found, exact = slopes(k1, weighed=False)
    assert torch.allclose(found, torch.zeros_like(found), atol=1e-12) and exact.abs().max() > 0.01
    found, exact = slopes(k2, weighed=False)
    assert torch.allclose(found, exact)


def test_k3_in_the_loss_is_biased_and_unbiased_where_it_is_weighed() -> None:
    found, exact = slopes(k3, weighed=False)
    assert not torch.allclose(found, exact, rtol=0.1)
    for term in (k1, k3):
        found, exact = slopes(term, weighed=True)
        assert torch.allclose(found, exact)

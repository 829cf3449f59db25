"""The sampler draws from the distribution it reports, and truncation keeps exactly the set of its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ludus.agents.sampler import kept_tokens, sample, scaled_logprobs

# Critical values of chi-square at a probability of 1e-4, by degrees of freedom.
CHI_SQUARE = {3: 21.108, 7: 29.878}
LAST = 1 - 2**-53
"""The largest number that a double in [0, 1) can be."""

LOGITS = torch.tensor([[0.3, -1.2, 2.0, 0.0, 1.1, -0.4, 0.9, -3.0]])

logit = st.floats(-8, 8, width=32)
uniform = st.one_of(st.sampled_from([0.0, LAST, 0.5]), st.floats(0, 1, exclude_max=True))


def rows(value: float, count: int = 1) -> torch.Tensor:
    return torch.full((count,), value)


def brute_force_kept(logits: list[float], temperature: float, top_p: float, top_k: int) -> set[int]:
    """The definition: of the top_k likeliest, the smallest head whose probability reaches top_p."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: top_k or len(logits)]
    weights = [math.exp((logits[i] - logits[order[0]]) / temperature) for i in order]
    reached, kept = 0.0, set()
    for index, weight in zip(order, weights, strict=True):
        kept.add(index)
        reached += weight / sum(weights)
        assume(abs(reached - top_p) > 1e-6)  # a tie that rounding would decide
        if reached >= top_p:
            break
    return kept


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_counts_follow_the_distribution(temperature: float) -> None:
    draws = 40_000
    expected = torch.softmax(LOGITS[0].double() / temperature, -1) * draws
    uniforms = torch.rand(draws, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens, _ = sample(LOGITS.expand(draws, -1), uniforms, rows(temperature, draws))
    counts = torch.bincount(tokens, minlength=8)
    assert ((counts - expected) ** 2 / expected).sum() < CHI_SQUARE[7]


def test_counts_follow_the_truncated_distribution() -> None:
    draws = 40_000
    kept = kept_tokens(LOGITS, rows(1.0), rows(1.0), torch.tensor([4]))
    expected = torch.softmax(LOGITS[0].double()[kept[0]], -1) * draws
    uniforms = torch.rand(draws, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tokens, _ = sample(LOGITS.expand(draws, -1), uniforms, rows(1.0, draws), kept.expand(draws, -1))
    counts = torch.bincount(tokens, minlength=8)
    assert counts[~kept[0]].sum() == 0
    assert ((counts[kept[0]] - expected) ** 2 / expected).sum() < CHI_SQUARE[3]


def test_evenly_spread_numbers_give_each_token_its_share_to_within_one() -> None:
    draws = 10_000
    uniforms = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    tokens, logprobs = sample(LOGITS.expand(draws, -1), uniforms, rows(1.0, draws))
    shares = torch.softmax(LOGITS[0].double(), -1)
    assert (torch.bincount(tokens, minlength=8) - shares * draws).abs().max() <= 1
    assert torch.allclose(logprobs.double(), shares.log()[tokens], atol=1e-6)


def test_temperature_zero_takes_the_likeliest_and_reports_its_probability_at_one() -> None:
    tokens, logprobs = sample(LOGITS, torch.tensor([LAST], dtype=torch.float64), rows(0.0))
    assert tokens.tolist() == [2]
    assert logprobs.item() == pytest.approx(math.log(math.exp(2.0) / sum(math.exp(x) for x in LOGITS[0].tolist())))


def test_the_logarithm_of_one_token_worked_by_hand() -> None:
    # Logits 0 and ln 3 at temperature 0.5 are 0 and 2 ln 3: probabilities 1/10 and 9/10.
    logprobs = scaled_logprobs(torch.tensor([[0.0, math.log(3.0)]]), rows(0.5))
    assert logprobs[0].exp().tolist() == pytest.approx([0.1, 0.9])


def test_probabilities_of_the_kept_tokens_sum_to_one_again() -> None:
    kept = torch.tensor([[True, False, True, False, True, False, False, True]])
    logprobs = scaled_logprobs(LOGITS, rows(1.7), kept)[0]
    assert logprobs[kept[0]].exp().sum().item() == pytest.approx(1.0)
    assert logprobs[~kept[0]].eq(-math.inf).all()


@given(
    logits=st.lists(logit, min_size=1, max_size=9),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 10),
)
def test_truncation_keeps_the_set_that_brute_force_finds(
    logits: list[float], temperature: float, top_p: float, top_k: int
) -> None:
    expected = set(range(len(logits))) if top_p == 1.0 else None
    if expected is None:
        expected = brute_force_kept(logits, temperature, top_p, top_k)
    elif top_k:
        expected = set(sorted(expected, key=lambda i: (-logits[i], i))[:top_k])
    kept = kept_tokens(torch.tensor([logits]), rows(temperature), rows(top_p), torch.tensor([top_k]))
    assert set(kept[0].nonzero()[:, 0].tolist()) == expected


@given(
    logits=st.lists(st.one_of(logit, st.sampled_from([-60.0, 60.0])), min_size=2, max_size=9),
    number=uniform,
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 4),
)
def test_whatever_is_drawn_was_kept_and_has_a_probability(
    logits: list[float], number: float, top_p: float, top_k: int
) -> None:
    values = torch.tensor([logits])
    kept = kept_tokens(values, rows(1.0), rows(top_p), torch.tensor([top_k]))
    token, logprob = sample(values, torch.tensor([number], dtype=torch.float64), rows(1.0), kept)
    assert kept[0, token.item()]
    assert math.isfinite(logprob.item()) and logprob.item() <= 1e-6


@given(st.lists(st.tuples(st.lists(logit, min_size=5, max_size=5), uniform), min_size=1, max_size=6))
def test_a_row_does_not_know_its_neighbours(batch: list[tuple[list[float], float]]) -> None:
    logits = torch.tensor([row for row, _ in batch])
    numbers = torch.tensor([number for _, number in batch], dtype=torch.float64)
    temperature = torch.linspace(0.0, 1.5, len(batch))
    tokens, logprobs = sample(logits, numbers, temperature)
    alone = [sample(logits[i : i + 1], numbers[i : i + 1], temperature[i : i + 1]) for i in range(len(batch))]
    assert tokens.tolist() == [token.item() for token, _ in alone]
    assert logprobs.tolist() == [logprob.item() for _, logprob in alone]

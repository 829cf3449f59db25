"""Rate limits: in no minute more than allowed, and no longer a wait than that takes. The clock is the tests' own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.agents.rate_limit import RateLimit, RateLimitError


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 2**-20)  # coarser than its rounding
        await asyncio.sleep(0)


def admitted(
    sizes: list[int], requests: int | None, tokens: int | None, gaps_s: list[int] | None = None
) -> list[float]:
    """When each of the requests was let through."""
    clock = Clock()

    async def run() -> list[float]:
        limit = RateLimit(requests, tokens, clock=clock, sleep=clock.sleep)
        times = []
        for size, gap_s in zip(sizes, gaps_s or [0] * len(sizes), strict=True):
            clock.now_s += gap_s
            times.append((await limit.admit(size)).at_s)
        return times

    return asyncio.run(run())


@settings(max_examples=60)
@given(
    asked=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=25),
    requests=st.none() | st.integers(1, 6),
    tokens=st.none() | st.integers(20, 100),
)
def test_no_minute_has_more_than_allowed(
    asked: list[tuple[int, int]], requests: int | None, tokens: int | None
) -> None:
    sizes, gaps_s = [size for size, _ in asked], [gap for _, gap in asked]
    times = admitted(sizes, requests, tokens, gaps_s)
    assert times == sorted(times)
    for start in times:
        within = [size for size, at in zip(sizes, times, strict=True) if start <= at < start + 60]
        assert requests is None or len(within) <= requests
        assert tokens is None or sum(within) <= tokens or len(within) == 1


def test_a_request_waits_only_until_the_oldest_is_a_minute_old() -> None:
    assert admitted([1, 1, 1, 1, 1], requests=2, tokens=None) == pytest.approx([1000, 1000, 1060, 1060, 1120], abs=0.01)
    assert admitted([60, 60, 30, 30], requests=None, tokens=100) == pytest.approx([1000, 1060, 1060, 1120], abs=0.01)
    assert admitted([500, 500], requests=None, tokens=100) == pytest.approx([1000, 1060], abs=0.01)
    assert admitted([9] * 50, requests=None, tokens=None) == [1000] * 50


def test_what_took_fewer_tokens_than_it_might_makes_room() -> None:
    clock = Clock()

    async def run() -> float:
        limit = RateLimit(tokens=100, clock=clock, sleep=clock.sleep)
        first = await limit.admit(80)
        second = asyncio.ensure_future(limit.admit(80))
        await asyncio.sleep(0)
        first.tokens = 10
        return (await second).at_s

    assert asyncio.run(run()) < 1005


def test_nobody_waits_for_what_has_no_use_any_more() -> None:
    clock = Clock()

    async def run() -> float:
        limit = RateLimit(requests=1, clock=clock, sleep=clock.sleep)
        await limit.admit(1)
        return (await limit.admit(1, unless=lambda: clock.now_s > 1003)).at_s

    assert asyncio.run(run()) < 1006


@pytest.mark.parametrize("options", [{"requests": 0}, {"tokens": -5}])
def test_a_rate_that_lets_nothing_through_is_one_sentence(options: dict) -> None:
    with pytest.raises(RateLimitError, match=r"max_(requests|tokens)_per_minute = .* must be 1 or more"):
        RateLimit(**options)

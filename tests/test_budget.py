"""Budgets: what is spent stays below, whatever runs at once, and once used up nothing more is asked."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.agents.budget import Budget, BudgetError, BudgetUsedUp, Tokens


@settings(max_examples=60)
@given(
    bound=st.integers(1, 400),
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=30),
    at_once=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_what_is_spent_never_passes_the_budget(
    bound: int, sizes: list[tuple[int, int]], at_once: int, seed: int
) -> None:
    budget, choose = Budget(tokens=bound), random.Random(seed)
    spent: list[int] = []
    refused = 0

    async def work(todo: list[tuple[int, int]]) -> None:
        nonlocal refused
        while todo:
            most = Tokens(*todo.pop())
            try:
                reserved = await budget.reserve(most)
            except BudgetUsedUp:
                refused += 1
                continue
            for _ in range(choose.randrange(4)):
                await asyncio.sleep(0)
            used = Tokens(most.prompt, choose.randint(0, most.completion))
            budget.settle(reserved, used)
            spent.append(used.prompt + used.completion)

    async def run() -> None:
        todo = list(sizes)
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work(todo))

    asyncio.run(asyncio.wait_for(run(), 10))
    assert len(spent) + refused == len(sizes)
    assert sum(spent) == budget.usage.prompt_tokens + budget.usage.completion_tokens <= bound
    assert (budget.used_up is not None) == (refused > 0)
    if sum(map(sum, sizes)) <= bound:
        assert refused == 0


def test_a_request_waits_for_those_under_way_and_not_longer() -> None:
    async def run() -> None:
        budget = Budget(tokens=100)
        first = await budget.reserve(Tokens(40, 40))
        second = asyncio.ensure_future(budget.reserve(Tokens(40, 40)))
        await asyncio.sleep(0)
        assert not second.done(), "it would fit only if the first took less than it may"
        budget.settle(first, Tokens(10, 10))
        assert await second == Tokens(40, 40)

    asyncio.run(run())


def test_a_budget_that_is_used_up_takes_nothing_smaller_either() -> None:
    async def run() -> None:
        budget = Budget(tokens=100)
        budget.settle(await budget.reserve(Tokens(30, 30)), Tokens(30, 30))
        with pytest.raises(BudgetUsedUp, match=r"^the budget of 100 tokens is used up: 60 are spent, .* may take 50$"):
            await budget.reserve(Tokens(25, 25))
        with pytest.raises(BudgetUsedUp):
            await budget.reserve(Tokens(1, 1))

    asyncio.run(run())


def test_money_is_prompts_and_answers_at_their_prices() -> None:
    async def run() -> None:
        budget = Budget(usd=0.001, price_in=2.0, price_out=10.0)
        budget.settle(await budget.reserve(Tokens(100, 50)), Tokens(100, 50))
        assert budget.usage.cost_usd == pytest.approx(100 * 2e-6 + 50 * 10e-6) == pytest.approx(0.0007)
        with pytest.raises(
            BudgetUsedUp, match=r"^the budget of 0.001 USD is used up: 0.0007 are spent, .* cost 0.0007$"
        ):
            await budget.reserve(Tokens(100, 50))

    asyncio.run(run())


def test_what_failed_gives_back_what_was_set_aside() -> None:
    async def run() -> None:
        budget = Budget(tokens=10)
        budget.release(await budget.reserve(Tokens(5, 5)))
        assert await budget.reserve(Tokens(5, 5)) == Tokens(5, 5)  # else it would be refused
        assert budget.used_up is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"usd": 1.0}, "budget_usd needs price_in and price_out"),
        ({"price_in": 1.0}, "Give price_in and price_out together"),
        ({"tokens": 0}, "budget_tokens = 0 must be a number above 0"),
        ({"usd": float("nan"), "price_in": 1.0, "price_out": 1.0}, "budget_usd = nan must be a number above 0"),
        ({"price_in": -1.0, "price_out": 1.0}, "price_in = -1.0 must be 0 or more"),
    ],
)
def test_a_budget_that_makes_no_sense_is_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(BudgetError, match=sentence):
        Budget(**options)

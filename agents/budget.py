"""Budget: how many tokens, or how much money, may be spent on an endpoint.

Invariant: a request is only made where the budget holds it at its longest, beside all that are under way; what is spent
passes the budget at most by what the estimates of prompts fell short of (tests/test_budget.py).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from ..sandbox.errors import LudusError
from ..verifiers.verdict import InfrastructureError
from .engine import Usage


class BudgetError(LudusError):
    """A budget or a price that makes no sense."""


class BudgetUsedUp(InfrastructureError):
    """The next request might pass the budget."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request."""

    prompt: int
    completion: int


class Budget:
    """What was used, and what may be.

    tokens: prompts and answers together. usd: needs price_in and price_out, in USD for a million tokens. None sets no
    bound. `reserve` before each request, then `settle` or `release` what was reserved.
    """

    def __init__(
        self,
        *,
        tokens: int | None = None,
        usd: float | None = None,
        price_in: float | None = None,
        price_out: float | None = None,
    ) -> None:
        prices = (price_in, price_out)
        if (price_in is None) != (price_out is None):
            raise BudgetError("Give price_in and price_out together, in USD for a million tokens; 0 for what is free.")
        if usd is not None and price_in is None:
            raise BudgetError("budget_usd needs price_in and price_out, in USD for a million tokens; give them, too.")
        for name, value in (("budget_tokens", tokens), ("budget_usd", usd)):
            if value is not None and not 0 < value < math.inf:
                raise BudgetError(f"{name} = {value} must be a number above 0; leave it out for no bound.")
        for name, price in zip(("price_in", "price_out"), prices, strict=True):
            if price is not None and not 0 <= price < math.inf:
                raise BudgetError(f"{name} = {price} must be 0 or more, in USD for a million tokens.")
        self.tokens, self.usd = tokens, usd
        self.price_in, self.price_out = prices
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self.used_up: str | None = None
        self._reserved: list[Tokens] = []
        self._settled = asyncio.Event()

    @property
    def usage(self) -> Usage:
        """What was used so far."""
        spent = Tokens(self.prompt_tokens, self.completion_tokens)
        cost = None if self.price_in is None else self._cost(spent)
        return Usage(self.requests, spent.prompt, spent.completion, cost)

    async def reserve(self, most: Tokens) -> Tokens:
        """Set aside what a request takes at most, when the budget is sure to hold it.

        BudgetUsedUp where it does not though nothing is under way any more; and from then on, however little is asked.
        """
        while self.used_up is None and (broken := self._broken_by(most)) is not None:
            if not self._reserved:
                self.used_up = broken
                self._wake()
                break
            await self._settled.wait()
        if self.used_up is not None:
            raise BudgetUsedUp(self.used_up)
        self._reserved.append(most)
        return most

    def settle(self, reserved: Tokens, used: Tokens) -> None:
        """Book what a request really took in the place of what was set aside for it."""
        self.prompt_tokens += used.prompt
        self.completion_tokens += used.completion
        self.release(reserved)

    def release(self, reserved: Tokens) -> None:
        """Give back what was set aside."""
        self._reserved.remove(reserved)
        self._wake()

    def _wake(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    def _broken_by(self, most: Tokens) -> str | None:
        """The bound that one more request might pass, as the reason to stop; None where there is none."""
        usage, all_set_aside = self.usage, [*self._reserved, most]
        used = usage.prompt_tokens + usage.completion_tokens
        if self.tokens is not None:
            wanted = sum(one.prompt + one.completion for one in all_set_aside)
            if used + wanted > self.tokens:
                return (
                    f"the budget of {self.tokens:,} tokens is used up: {used:,} are spent, and the next request may "
                    f"take {most.prompt + most.completion:,}"
                )
        cost = 0.0 if self.usd is None else sum(map(self._cost, all_set_aside))
        if self.usd is not None and (spent := usage.cost_usd or 0.0) + cost > self.usd:
            return (
                f"the budget of {self.usd:g} USD is used up: {spent:.4g} are spent, and the next request may cost "
                f"{self._cost(most):.4g}"
            )
        return None

    def _cost(self, tokens: Tokens) -> float:
        return (tokens.prompt * (self.price_in or 0.0) + tokens.completion * (self.price_out or 0.0)) / 1e6

"""RateLimit: so many requests, and so many tokens, in any minute.

Invariant: in no 60 seconds are more requests made than allowed, nor requests whose tokens, as far as they are known by
then, are more than allowed; a single request beyond that goes alone (tests/test_rate_limit.py).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..sandbox.errors import LudusError

MINUTE_S = 60.0
LOOK_AGAIN_S = 1.0
"""A wait is cut into such pieces: what runs may take fewer tokens than was thought."""


class RateLimitError(LudusError):
    """A rate that makes no sense."""


@dataclass
class Admission:
    """One request that was let through. tokens: what it takes at most, to be set to what it took."""

    at_s: float
    tokens: int


class RateLimit:
    """Lets requests through in the order in which they come. requests, tokens: for each minute; None sets no bound."""

    def __init__(
        self,
        requests: int | None = None,
        tokens: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        for name, value in (("max_requests_per_minute", requests), ("max_tokens_per_minute", tokens)):
            if value is not None and value < 1:
                raise RateLimitError(f"{name} = {value} must be 1 or more; leave it out for no bound.")
        self.requests, self.tokens = requests, tokens
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()
        self._recent: deque[Admission] = deque()

    async def admit(self, tokens: int, unless: Callable[[], bool] = lambda: False) -> Admission:
        """Wait until a request of at most so many tokens may be made, or until `unless` says that none will be."""
        async with self._turn:
            while (wait_s := self._wait_s(tokens)) > 0 and not unless():
                await self._sleep(min(wait_s, LOOK_AGAIN_S))
            admission = Admission(self._clock(), tokens)
            if self.requests is not None or self.tokens is not None:
                self._recent.append(admission)
            return admission

    def _wait_s(self, tokens: int) -> float:
        """Seconds until enough of the recent requests are a minute old."""
        now = self._clock()
        while self._recent and self._recent[0].at_s + MINUTE_S <= now:
            self._recent.popleft()
        count, total = len(self._recent) + 1, sum(one.tokens for one in self._recent) + tokens
        for one in (None, *self._recent):
            if one is not None:
                count, total = count - 1, total - one.tokens
            fits = self.requests is None or count <= self.requests
            if fits and (self.tokens is None or total <= self.tokens or count == 1):
                return 0.0 if one is None else one.at_s + MINUTE_S - now
        return 0.0

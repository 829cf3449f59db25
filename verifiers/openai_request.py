"""Requests to an endpoint that speaks OpenAI's chat completions: one, and again while that makes sense.

Invariant: a request ends in the server's answer or in a Failure, and all tries together in the time they were given.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from .errors import VerifierError
from .openai_connection import NO_KEY, load_sdk

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REFUSALS = (400, 413, 422)
"""Statuses of an endpoint that works and will not take this request."""
PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later try may not meet again."""
NO_QUOTA = "insufficient_quota"
"""OpenAI's word for an account without credit; its status is 429, and no later try helps."""
LONGEST_BACKOFF_S = 8.0


@dataclass(frozen=True)
class Failure:
    """Why no answer came.

    kind: whether the server said so by a status, the connection broke, time was over, or the answer made no sense.
    code: the error's own name, such as "context_length_exceeded", where the server gives one.
    """

    text: str
    kind: Literal["status", "connection", "time", "format"]
    status: int | None = None
    code: str = ""
    retry_after_s: float | None = None

    @property
    def passes(self) -> bool:
        """Whether another try may succeed."""
        return self.status is None or self.status >= 500 or (self.status in PASSING and self.code != NO_QUOTA)


@dataclass(frozen=True)
class Patience:
    """How long to wait for an endpoint, and how often to ask again. VerifierError where that makes no sense.

    timeout_s: time of one request. max_retries: how often it is tried again. backoff_s: the first wait between tries,
    which doubles from try to try up to LONGEST_BACKOFF_S.
    """

    timeout_s: float
    max_retries: int
    backoff_s: float

    def __post_init__(self) -> None:
        if not (0 < self.timeout_s < math.inf and 0 <= self.backoff_s < math.inf):
            raise VerifierError(
                f"timeout_s = {self.timeout_s} must be above 0, backoff_s = {self.backoff_s} 0 or more; both finite."
            )
        if self.max_retries < 0:
            raise VerifierError(f"max_retries = {self.max_retries} must be 0 or more.")

    def wait_s(self, failure: Failure, retries: int, jitter: random.Random) -> float:
        """Seconds until the next try: what the server asks for by Retry-After, else a doubling with jitter."""
        if failure.retry_after_s is not None:
            return failure.retry_after_s
        return min(self.backoff_s * 2**retries, LONGEST_BACKOFF_S) * jitter.uniform(0.5, 1.0)


class Tries:
    """The tries of one question. left_s: time that requests and the waits between them may still take.

    attempts: requests sent. retries: those after a failure that may pass.
    """

    def __init__(self, patience: Patience, total_s: float, jitter: random.Random) -> None:
        self.patience = patience
        self.total_s = self.left_s = total_s
        self.attempts = self.retries = 0
        self._jitter = jitter

    async def ask(
        self,
        send: Callable[[float], Awaitable[Any]],
        lasting: Container[int | None] = (),
        admit: Callable[[], Awaitable[object]] | None = None,
    ) -> Any:
        """The answer of `send(seconds)`, or a Failure that no other try may mend.

        lasting: statuses that come back at once, also where a later try might not meet them. admit: awaited before each
        try; its time does not count.
        """
        while True:
            if admit is not None:
                await admit()
            self.attempts += 1
            limit_s = min(self.patience.timeout_s, self.left_s)
            start = time.monotonic()
            answer = await send(limit_s)
            if not isinstance(answer, Failure) or answer.status in lasting or not answer.passes:
                self.left_s -= time.monotonic() - start
                return self._counted(answer)
            if answer.kind == "time" and limit_s == self.left_s:
                return replace(answer, text=f"gave no answer in {self.total_s:.3g} s")
            self.left_s -= time.monotonic() - start
            if self.retries == self.patience.max_retries:
                return self._counted(answer)
            wait_s = self.patience.wait_s(answer, self.retries, self._jitter)
            if wait_s >= self.left_s:
                late = f"failed: {answer.text}; the next try, after {wait_s:.3g} s, is too late"
                return replace(answer, text=late)
            self.left_s -= wait_s
            await asyncio.sleep(wait_s)
            self.retries += 1

    def _counted(self, answer: Any) -> Any:
        """A failure as what the endpoint did, with how often it was tried; any other answer as it is."""
        if not isinstance(answer, Failure):
            return answer
        tries = "" if self.retries == 0 else f", also at try {self.retries + 1}"
        return replace(answer, text=f"failed{tries}: {answer.text}")


async def send_request(client: AsyncOpenAI, request: dict[str, Any], timeout_s: float) -> Any:
    """One request: the SDK's ChatCompletion, or a Failure. No key stands in what a Failure says."""
    openai = load_sdk()

    def said(text: object) -> str:
        key = client.api_key
        return first_line(str(text) if key == NO_KEY else str(text).replace(key, "[key]"))

    try:
        async with asyncio.timeout(timeout_s):
            answer = await client.chat.completions.create(**request, timeout=timeout_s)
    except (TimeoutError, openai.APITimeoutError):
        return Failure(f"no answer in {timeout_s:.3g} s", "time")
    except openai.APIStatusError as error:
        wait_s = retry_after_s(error.response.headers.get("retry-after"), time.time())
        reason = error.message.removeprefix(f"Error code: {error.status_code}").removeprefix(" - ")
        text = f"status {error.status_code}" + (f", {said(reason)}" if reason.strip() else "")
        return Failure(text, "status", error.status_code, said(error.code or error.type or "no code"), wait_s)
    except openai.APIConnectionError as error:
        return Failure(f"the connection broke, {said(error.__cause__ or error)}", "connection")
    except (openai.OpenAIError, ValueError) as error:
        return Failure(f"the answer is not what the format wants, {said(error)}", "format")
    if not _has_message(answer):
        return Failure("the answer is not a chat completion", "format")
    return answer


def check_address(base_url: str, api_key: str) -> None:
    """VerifierError where there is nothing to ask at this address, or the key cannot be sent."""
    try:
        address = urlsplit(base_url)
        is_web = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        is_web = False
    if is_web and "@" in address.netloc:
        raise VerifierError("base_url has a user name or password in it; leave that out and give api_key.")
    if not is_web:
        raise VerifierError(f"base_url = {base_url!r} is no web address; give one like http://localhost:8000/v1.")
    if not isinstance(api_key, str):
        raise VerifierError(
            f"api_key is {type(api_key).__name__} and not a str; set the environment variable that it comes from,"
            ' or give "" where the endpoint asks for none.'
        )
    if not (api_key.isascii() and api_key.isprintable()):
        raise VerifierError("api_key has a line break or a character outside ASCII in it; give the key alone.")


def tokens_used(answer: Any) -> tuple[int, int]:
    """(prompt tokens, completion tokens) as the server counts them; 0 where it does not say."""
    usage = getattr(answer, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (max(count, 0) if isinstance(count, int) else 0 for count in counts)
    return prompt, completion


def _has_message(answer: Any) -> bool:
    """Whether a server sent what it should; the SDK hands on anything."""
    choices = getattr(answer, "choices", None)
    return isinstance(choices, list) and bool(choices) and getattr(choices[0], "message", None) is not None


def printable(text: str) -> str:
    """Without unpaired surrogates, which JSON can carry and a file cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def first_line(text: str) -> str:
    """The first line of what a server or library said, without its full stop."""
    return printable((text.strip().splitlines() or ["no reason given"])[0][:200]).rstrip(". ")


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date (RFC 9110, 10.2.3); None where it says none.

    now_s: seconds since 1970.
    """
    if header is None:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return max(wait_s, 0.0) if math.isfinite(wait_s) else None

"""OpenAICompleter: asks a model behind any endpoint that speaks OpenAI's chat completions.

Invariant: a call ends when its time is over, whatever the server does, and it ends in an answer or a CompletionError.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .completer import Completion, CompletionError, RequestRefused
from .errors import VerifierError
from .openai_connection import Connection, load_sdk

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FORMATS = ("json_schema", "json_object", "text")
"""Ways to ask for JSON, the strictest first; a server that refuses one is asked in the next."""
FORMAT_REFUSALS = (400, 422, 501)
REFUSALS = (400, 413, 422)
PASSING = (408, 409, 425, 429)
"""Statuses below 500 that a later try may not meet again."""
LONGEST_BACKOFF_S = 8.0


class OpenAICompleter:
    """A model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, OpenAI and others.

    base_url: up to and including "/v1". api_key: sent to that endpoint and nowhere else; the environment is not asked
    for one. timeout_s: time of one request; all of a call is bounded by the caller's. max_retries: how often a call
    tries again after a time-out, a broken connection, or the statuses 408, 409, 425, 429 and from 500; the wait doubles
    from backoff_s, with jitter from `seed` and the messages, and is as long as the server's Retry-After where it says
    one. max_tokens: bound on an answer; None leaves it to the server. extra_body: further fields of the request, such
    as {"reasoning_effort": "low"}.

    Threads may share one. `close` it, or use it in a `with`, to end its connections; a copy made by pickling has
    its own.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str = "",
        timeout_s: float = 60.0,
        max_retries: int = 4,
        backoff_s: float = 0.5,
        max_tokens: int | None = 2048,
        extra_body: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not model:
            raise VerifierError("The judge's model has no name; give the one that the endpoint lists under /models.")
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise VerifierError(f"base_url = {base_url!r} is no web address; give one like http://localhost:8000/v1.")
        if not (0 < timeout_s < math.inf and 0 <= backoff_s < math.inf):
            raise VerifierError(
                f"timeout_s = {timeout_s} must be above 0, backoff_s = {backoff_s} 0 or more; both finite."
            )
        if max_retries < 0 or (max_tokens is not None and max_tokens < 1):
            raise VerifierError(f"max_retries = {max_retries} must be 0 or more and max_tokens = {max_tokens} above 0.")
        if not isinstance(api_key, str):
            raise VerifierError(
                f"api_key is {type(api_key).__name__} and not a str; set the environment variable that it comes from,"
                ' or give "" where the endpoint asks for none.'
            )
        if not (api_key.isascii() and api_key.isprintable()):
            raise VerifierError("api_key has a line break or a character outside ASCII in it; give the key alone.")
        load_sdk()
        self.model = model
        self.base_url = base_url
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self.backoff_s = backoff_s
        self.max_tokens = max_tokens
        self.extra_body = dict(extra_body or {})
        self.seed = seed
        self._connection = Connection(base_url, api_key)
        self._format = 0

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        timeout_s: float,
        temperature: float | None = None,
        seed: int | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """See `Completer.complete`. The first refused way of asking for JSON is remembered and not tried again."""
        request: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        optional = {"temperature": temperature, "seed": seed, "max_tokens": self.max_tokens}
        request |= {name: value for name, value in optional.items() if value is not None}
        if self.extra_body:
            request["extra_body"] = self.extra_body
        return self._connection.run(lambda client: self._persist(client, request, schema, timeout_s), timeout_s)

    def close(self) -> None:
        """End the connections. A later call opens new ones."""
        self._connection.close()

    def __enter__(self) -> OpenAICompleter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _persist(
        self, client: AsyncOpenAI, request: dict[str, Any], schema: Mapping[str, Any] | None, timeout_s: float
    ) -> Completion:
        """Ask until there is an answer, no sense in asking again, or no time."""
        deadline = time.monotonic() + timeout_s
        # From the messages, not from a generator that threads share: the waits do not depend on who asks beside us.
        jitter = random.Random(f"{self.seed}|{[message['content'] for message in request['messages']]}")
        way = self._format if schema else len(FORMATS) - 1
        attempts = retries = 0
        failure = _Failure("no answer came", passes=True)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    attempts += 1
                    answer = await self._ask(client, request | _response_format(FORMATS[way], schema))
                    if not isinstance(answer, _Failure):
                        if schema:
                            self._format = max(self._format, way)
                        return _read_answer(answer, self.model, attempts)
                    failure = answer
                    if failure.status in FORMAT_REFUSALS and way < len(FORMATS) - 1:
                        way += 1
                        continue
                    if failure.status in REFUSALS:
                        raise RequestRefused(f"{self._name} refused the request: {failure.text}.", attempts)
                    if not failure.passes or retries == self.max_retries:
                        tries = "" if retries == 0 else f", also at try {retries + 1}"
                        raise CompletionError(f"{self._name} failed{tries}: {failure.text}.", attempts)
                    wait_s = failure.retry_after_s
                    if wait_s is None:
                        wait_s = min(self.backoff_s * 2**retries, LONGEST_BACKOFF_S) * jitter.uniform(0.5, 1.0)
                    if wait_s >= deadline - time.monotonic():
                        raise CompletionError(
                            f"{self._name} failed: {failure.text}; the next try, after {wait_s:.3g} s, is too late.",
                            attempts,
                        )
                    await asyncio.sleep(wait_s)
                    retries += 1
        except TimeoutError:
            raise CompletionError(f"{self._name} gave no answer in {timeout_s:.3g} s.", attempts) from None

    async def _ask(self, client: AsyncOpenAI, request: dict[str, Any]) -> Any:
        """One request: the SDK's ChatCompletion, or how it failed."""
        openai = load_sdk()
        try:
            async with asyncio.timeout(self.timeout_s):
                answer = await client.chat.completions.create(**request, timeout=self.timeout_s)
        except (TimeoutError, openai.APITimeoutError):
            return _Failure(f"no answer in {self.timeout_s:.3g} s", passes=True)
        except openai.APIStatusError as error:
            status = error.status_code
            text = f"status {status}, {_first_line(error.message)}"
            wait_s = retry_after_s(error.response.headers.get("retry-after"), time.time())
            return _Failure(text, passes=status >= 500 or status in PASSING, status=status, retry_after_s=wait_s)
        except openai.APIConnectionError as error:
            return _Failure(f"the connection broke, {_first_line(str(error.__cause__ or error))}", passes=True)
        except (openai.OpenAIError, ValueError) as error:
            return _Failure(f"the answer is not what the format wants, {_first_line(str(error))}", passes=True)
        if not _has_message(answer):
            return _Failure("the answer is not a chat completion", passes=True)
        return answer

    @property
    def _name(self) -> str:
        return f"The endpoint {self.base_url} (model {self.model})"


@dataclass(frozen=True)
class _Failure:
    """Why one request failed. passes: whether another try may succeed."""

    text: str
    passes: bool
    status: int | None = None
    retry_after_s: float | None = None


def _response_format(way: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None or way == "text":
        return {}
    if way == "json_object":
        return {"response_format": {"type": way}}
    return {"response_format": {"type": way, "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}}


def _has_message(answer: Any) -> bool:
    """Whether a server sent what it should; the SDK hands on anything."""
    choices = getattr(answer, "choices", None)
    return isinstance(choices, list) and bool(choices) and getattr(choices[0], "message", None) is not None


def _read_answer(answer: Any, model: str, attempts: int) -> Completion:
    choice = answer.choices[0]
    text = getattr(choice.message, "content", None)
    usage = getattr(answer, "usage", None)
    prompt_tokens, completion_tokens = (
        count if isinstance(count := getattr(usage, name, None), int) else 0
        for name in ("prompt_tokens", "completion_tokens")
    )
    return Completion(
        text=_printable(text) if isinstance(text, str) else "",
        model=_printable(str(getattr(answer, "model", None) or model))[:200],
        attempts=attempts,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        finish_reason=_printable(str(getattr(choice, "finish_reason", None)))[:50],
    )


def _printable(text: str) -> str:
    """Without unpaired surrogates, which JSON can carry and a file cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _first_line(text: str) -> str:
    return _printable((text.strip().splitlines() or ["no reason given"])[0][:200]).rstrip(". ")


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

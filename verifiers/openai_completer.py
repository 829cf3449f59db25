"""OpenAICompleter: asks a model behind any endpoint that speaks OpenAI's chat completions.

Invariant: a call ends when its time is over, whatever the server does, and it ends in an answer or a CompletionError.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .completer import Completion, CompletionError, RequestRefused
from .errors import VerifierError
from .openai_connection import Connection, load_sdk
from .openai_request import REFUSALS, Failure, Patience, Tries, check_address, printable, send_request, tokens_used

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FORMATS = ("json_schema", "json_object", "text")
"""Ways to ask for JSON, the strictest first; a server that refuses one is asked in the next."""
FORMAT_REFUSALS = (400, 422, 501)


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
        check_address(base_url, api_key)
        self._patience = Patience(timeout_s, max_retries, backoff_s)
        if max_tokens is not None and max_tokens < 1:
            raise VerifierError(f"max_tokens = {max_tokens} must be above 0.")
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
        # From the messages, not from a generator that threads share: the waits do not depend on who asks beside us.
        jitter = random.Random(f"{self.seed}|{[message['content'] for message in request['messages']]}")
        tries = Tries(self._patience, timeout_s, jitter)
        way = self._format if schema else len(FORMATS) - 1
        while True:
            send = partial(send_request, client, request | _response_format(FORMATS[way], schema))
            refusals = FORMAT_REFUSALS if way < len(FORMATS) - 1 else ()
            answer = await tries.ask(send, lasting=refusals)
            if not isinstance(answer, Failure):
                if schema:
                    self._format = max(self._format, way)
                return _read_answer(answer, self.model, tries.attempts)
            if answer.status in refusals:
                way += 1
            elif answer.status in REFUSALS:
                raise RequestRefused(f"{self._name} refused the request: {answer.text}.", tries.attempts)
            else:
                raise CompletionError(f"{self._name} {answer.text}.", tries.attempts)

    @property
    def _name(self) -> str:
        return f"The endpoint {self.base_url} (model {self.model})"


def _response_format(way: str, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None or way == "text":
        return {}
    if way == "json_object":
        return {"response_format": {"type": way}}
    return {"response_format": {"type": way, "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}}


def _read_answer(answer: Any, model: str, attempts: int) -> Completion:
    choice = answer.choices[0]
    text = getattr(choice.message, "content", None)
    prompt_tokens, completion_tokens = tokens_used(answer)
    return Completion(
        text=printable(text) if isinstance(text, str) else "",
        model=printable(str(getattr(answer, "model", None) or model))[:200],
        attempts=attempts,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        finish_reason=printable(str(getattr(choice, "finish_reason", None)))[:50],
    )

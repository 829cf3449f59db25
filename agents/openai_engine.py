"""OpenAIEngine: a model behind any endpoint that speaks OpenAI's chat completions, to be evaluated.

Invariant: a call ends in an answer or in a CompletionError, in bounded time whatever the server does; and once the
endpoint has turned out to be of no use, or the budget is used up, nothing more is asked (tests/test_openai_engine.py).
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..sandbox.errors import LudusError
from ..verifiers.completer import CompletionError, RequestRefused
from ..verifiers.openai_connection import load_sdk, open_client
from ..verifiers.openai_request import (
    NO_QUOTA,
    REFUSALS,
    Failure,
    Patience,
    Tries,
    check_address,
    printable,
    send_request,
    tokens_used,
)
from .budget import Budget, Tokens
from .engine import NOT_ASKED, ChatCompletion, Sampling, StopReason, StructuredCall, Usage
from .rate_limit import Admission, RateLimit

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Request = dict[str, Any]

TOTAL_TIMEOUTS = 3
"""All tries of one question together have the time of so many requests."""
HOPELESS = (401, 402, 404)
"""Statuses that no other question would be spared."""
BROKEN_OFF = ("content_filter", "abort", "error")
"""Finish reasons of an answer that is not the model's."""
TOO_LONG = re.compile(r"context.?(length|size|window)|max_model_len|(prompt|input|request) is too long", re.IGNORECASE)
"""What servers say where prompt and answer together are longer than the model reads."""
TOKENS_PER_CHARACTER = 0.5
"""A guess on the high side, until the server has counted."""


class EndpointError(LudusError):
    """Settings with which no endpoint can be asked."""


class OpenAIEngine:
    """A model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, OpenAI and others.

    base_url: up to and including "/v1". api_key: sent there and nowhere else; the environment is not asked for one.
    timeout_s: time of one request; all tries of a question together have TOTAL_TIMEOUTS times as much, where waits for
    the rate limit do not count. max_retries, backoff_s: see `Patience`; the jitter is from the sampling's seed.
    logprobs: ask for those of the sampled tokens. extra_body: further fields of the request, such as
    {"reasoning_effort": "low"}. note: called with each sentence that the user should see, once.

    What a server refuses (log-probabilities; tool messages that answer a call written as text; max_tokens under that
    name) is left out, told once, and remembered. An engine serves one event loop; `close` it there.
    """

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        api_key: str = "",
        timeout_s: float = 120.0,
        max_retries: int = 4,
        backoff_s: float = 0.5,
        logprobs: bool = False,
        limit: RateLimit | None = None,
        budget: Budget | None = None,
        extra_body: Mapping[str, Any] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        if not model:
            raise EndpointError("The model has no name; give the one that the endpoint lists under /models.")
        check_address(base_url, api_key)
        self._patience = Patience(timeout_s, max_retries, backoff_s)
        load_sdk()
        self.model = model
        self.base_url = base_url
        self.logprobs = logprobs
        self.budget = budget or Budget()
        self.limit = limit or RateLimit()
        self.extra_body = dict(extra_body or {})
        self._note = note
        self._told: set[str] = set()
        self._settings = (base_url, api_key)
        self._client: AsyncOpenAI | None = None
        self._left_out: set[str] = set()
        self._lost: str | None = None
        self._answered = False
        self._failing_since_s: float | None = None
        self._prompt_tokens = self._prompt_characters = 0

    @property
    def stopped(self) -> str | None:
        """Why nothing more is asked; None while it goes on."""
        return self.budget.used_up or self._lost

    @property
    def usage(self) -> Usage:
        """Requests that were answered, and their tokens."""
        return self.budget.usage

    async def chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], sampling: Sampling
    ) -> ChatCompletion:
        """See `ChatEngine.chat`. CompletionError where no answer came, BudgetUsedUp where none may be asked for."""
        request = self._request(messages, tools, sampling)
        characters = sum(len(str(part)) for part in (*messages, *tools))
        most = Tokens(math.ceil(characters * self._per_character()) + 1, sampling.max_tokens)
        reserved = await self.budget.reserve(most)
        used = Tokens(0, 0)
        try:
            if self._lost is not None:
                raise CompletionError(f"{NOT_ASKED}{self._lost}", 0)
            answer, used = await self._answer(request, sampling, most, characters)
        finally:
            self.budget.settle(reserved, used)
        return answer

    async def close(self) -> None:
        """End the connections. A later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def __aenter__(self) -> OpenAIEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # How it is done

    def _request(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], sampling: Sampling
    ) -> Request:
        if sampling.stop_on_loop is not None or sampling.begun:
            raise EndpointError("An endpoint can neither stop at loops nor go on within a turn; unset stop_on_loop.")
        request: Request = {
            "model": self.model,
            "messages": [_clean(message) for message in messages],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed % 2**31,  # some servers keep it in 32 bits
        }
        optional = {"tools": list(tools), "stop": list(sampling.stop), "logprobs": self.logprobs}
        request |= {name: value for name, value in optional.items() if value}
        if sampling.top_p != 1.0:
            request["top_p"] = sampling.top_p
        top_k = {"top_k": sampling.top_k} if sampling.top_k else {}
        if self.extra_body or top_k:
            request["extra_body"] = {**top_k, **self.extra_body}
        return request

    async def _answer(
        self, request: Request, sampling: Sampling, most: Tokens, characters: int
    ) -> tuple[ChatCompletion, Tokens]:
        """The answer and what it took."""
        total_s = min(TOTAL_TIMEOUTS * self._patience.timeout_s, sampling.deadline_s or math.inf)
        tries = Tries(self._patience, total_s, random.Random(f"chat|{sampling.seed}"))
        found = await self._ask(request, tries, most)
        cut = _is_too_long(found)
        if cut:  # Without a bound of its own the answer gets what room there is, which is less.
            found = await self._ask({k: v for k, v in request.items() if k != "max_tokens"}, tries, most)
        if isinstance(found, Failure):
            if _is_too_long(found):
                return ChatCompletion("", StopReason.CONTEXT, attempts=tries.attempts), Tokens(0, 0)
            raise self._error(found, tries.attempts)
        used = self._count(found, characters)
        self.budget.requests += 1
        completion = _read(found, sampling, tries.attempts, cut)
        if self.logprobs and completion.logprobs is None:
            self._say("the endpoint gives no log-probabilities")
        return completion, used

    async def _ask(self, request: Request, tries: Tries, most: Tokens) -> Any:
        """The server's answer or a Failure. Where it refuses the request, what servers may not know is left out."""
        first: Any = None
        for name, sent in self._ways(request):
            if name == NEW_MAX_TOKENS and "max_tokens" not in first.text:
                continue  # Every request has it, and most refusals are for another reason.
            found = await self._persist(sent, tries, most)
            if not isinstance(found, Failure) or found.status not in (*REFUSALS, 501) or _is_too_long(found):
                if name and not isinstance(found, Failure):
                    self._left_out.add(name)
                    self._say(f"the endpoint takes no {name}; it is asked without")
                return found
            first = first or found
        return first

    def _ways(self, request: Request) -> Iterator[tuple[str, Request]]:
        """The request without all that was ever refused; then without one more thing at a time."""
        for name in LEAVE_OUT:
            if name in self._left_out:
                request = LEAVE_OUT[name](request)
        yield "", request
        for name, without in LEAVE_OUT.items():
            if name not in self._left_out and (changed := without(request)) != request:
                yield name, changed

    async def _persist(self, request: Request, tries: Tries, most: Tokens) -> Any:
        admission: Admission | None = None

        async def admit() -> None:
            nonlocal admission
            admission = await self.limit.admit(most.prompt + most.completion, unless=lambda: self._lost is not None)
            if self._lost is not None:
                raise CompletionError(f"{NOT_ASKED}{self._lost}", tries.attempts)

        async def send(timeout_s: float) -> Any:
            found = await send_request(self._open(), request, timeout_s)
            self._watch(found)
            if admission is not None and not isinstance(found, Failure):
                admission.tokens = sum(tokens_used(found)) or admission.tokens
            if not isinstance(found, Failure) and (trouble := _trouble(found)):
                found = Failure(trouble, "format")
            if isinstance(found, Failure) and found.passes and tries.retries < self._patience.max_retries:
                self._say(f"{self._name}: {found.text}; it is asked again", about=f"{found.kind} {found.status}")
            return found

        return await tries.ask(send, lasting=(*REFUSALS, 501), admit=admit)

    def _watch(self, found: Any) -> None:
        """Note whether the endpoint works, and since when it does not."""
        if not isinstance(found, Failure) or found.status in REFUSALS:
            self._answered, self._failing_since_s = True, None
        elif self._failing_since_s is None:
            self._failing_since_s = time.monotonic()

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            self._client = open_client(*self._settings)
        return self._client

    def _count(self, answer: Any, characters: int) -> Tokens:
        """What an answer took. characters: of its prompt."""
        prompt, completion = tokens_used(answer)
        if prompt + completion == 0:
            self._say("the endpoint does not count tokens; they are estimated")
            text = getattr(answer.choices[0].message, "content", None) or ""
            return Tokens(*(math.ceil(length * TOKENS_PER_CHARACTER) for length in (characters, len(text))))
        self._prompt_tokens += prompt
        self._prompt_characters += characters
        return Tokens(prompt, completion)

    def _per_character(self) -> float:
        """Tokens that a character of a prompt took so far."""
        return self._prompt_tokens / self._prompt_characters if self._prompt_characters else TOKENS_PER_CHARACTER

    def _error(self, failure: Failure, attempts: int) -> CompletionError:
        """What to raise. Where no other question would fare better, nothing more is asked."""
        cure = _cure(failure, self._patience.timeout_s)
        text = f"{self._name} {failure.text}" + (f" ({cure})" if cure else "")
        if failure.status in REFUSALS:
            return RequestRefused(text, attempts)
        failing_s = 0.0 if self._failing_since_s is None else time.monotonic() - self._failing_since_s
        given_up = not self._answered or failing_s > TOTAL_TIMEOUTS * self._patience.timeout_s
        if failure.status in HOPELESS or failure.code == NO_QUOTA or given_up:
            self._lost = self._lost or text
        return CompletionError(text, attempts)

    def _say(self, sentence: str, about: str = "") -> None:
        """Tell the user, once; of what is about the same thing the first sentence alone."""
        if (about or sentence) not in self._told:
            self._told.add(about or sentence)
            if self._note is not None:
                self._note(f"{sentence[0].upper()}{sentence[1:]}.")

    @property
    def _name(self) -> str:
        return f"the endpoint {self.base_url} (model {self.model})"


# What a server may not know, and the request without it.


def _without_logprobs(request: Request) -> Request:
    return {name: value for name, value in request.items() if name != "logprobs"}


def _without_lone_tool_messages(request: Request) -> Request:
    """Tool messages that answer no structured call become user messages."""
    asked = {call["id"] for message in request["messages"] for call in message.get("tool_calls", ())}
    messages = [
        {"role": "user", "content": message["content"]}
        if message["role"] == "tool" and message.get("tool_call_id") not in asked
        else message
        for message in request["messages"]
    ]
    return {**request, "messages": messages}


def _with_new_max_tokens(request: Request) -> Request:
    renamed = {"max_tokens": "max_completion_tokens"}
    return {renamed.get(name, name): value for name, value in request.items()}


NEW_MAX_TOKENS = "max_tokens but max_completion_tokens"
LEAVE_OUT: dict[str, Callable[[Request], Request]] = {
    "logprobs": _without_logprobs,
    "tool messages after calls in text": _without_lone_tool_messages,
    NEW_MAX_TOKENS: _with_new_max_tokens,
}


# Reading answers


def _trouble(answer: Any) -> str:
    """Why this is no answer of the model, or nothing."""
    choice = answer.choices[0]
    reason = str(getattr(choice, "finish_reason", None))
    if reason in BROKEN_OFF:
        return f"the answer was broken off (finish_reason {printable(reason)})"
    message = choice.message
    said = [getattr(message, name, None) for name in ("content", "refusal", "reasoning", "reasoning_content")]
    if not any(isinstance(text, str) for text in said) and not _calls(message):
        return "the answer has neither text nor tool calls"
    return ""


def _read(answer: Any, sampling: Sampling, attempts: int, cut: bool) -> ChatCompletion:
    choice = answer.choices[0]
    message = choice.message
    text = _text(message, "content") or _text(message, "refusal")
    reason = StopReason.END
    # vLLM and SGLang tell which stop sequence it was and leave it out of the text.
    if (matched := getattr(choice, "stop_reason", getattr(choice, "matched_stop", None))) in sampling.stop:
        reason = StopReason.STOP
        text = text if text.endswith(matched) else text + matched
    if getattr(choice, "finish_reason", None) == "length":
        reason = StopReason.CONTEXT if cut else StopReason.LENGTH
    prompt, completion = tokens_used(answer)
    return ChatCompletion(
        text=text,
        stop_reason=reason,
        tool_calls=tuple(_calls(message)),
        reasoning=_text(message, "reasoning") or _text(message, "reasoning_content"),
        model=printable(str(getattr(answer, "model", None) or ""))[:200],
        prompt_tokens=prompt,
        completion_tokens=completion,
        logprobs=_logprobs(choice),
        attempts=attempts,
    )


def _calls(message: Any) -> list[StructuredCall]:
    found = []
    calls = getattr(message, "tool_calls", None)
    for call in calls if isinstance(calls, list) else ():
        function = getattr(call, "function", None)
        name, arguments = (getattr(function, part, None) for part in ("name", "arguments"))
        if isinstance(name, str):
            text = printable(arguments) if isinstance(arguments, str) else json.dumps(arguments or {}, default=str)
            found.append(StructuredCall(printable(str(getattr(call, "id", None) or "")), printable(name), text))
    return found


def _logprobs(choice: Any) -> tuple[tuple[str, float], ...] | None:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(content, list):
        return None
    pairs: list[tuple[Any, Any]] = [(getattr(one, "token", None), getattr(one, "logprob", None)) for one in content]
    whole = all(isinstance(text, str) and isinstance(p, int | float) and math.isfinite(p) for text, p in pairs)
    return tuple((printable(text), float(p)) for text, p in pairs) if whole else None


def _text(message: Any, name: str) -> str:
    text = getattr(message, name, None)
    return printable(text) if isinstance(text, str) else ""


def _clean(message: Mapping[str, Any]) -> Request:
    """A message that can be sent: JSON has no unpaired surrogates."""
    content = message.get("content")
    return {**message, "content": printable(content) if isinstance(content, str) else content}


def _is_too_long(found: Any) -> bool:
    if not isinstance(found, Failure) or found.status not in REFUSALS:
        return False
    return found.status == 413 or "context_length" in found.code or TOO_LONG.search(found.text) is not None


def _cure(failure: Failure, timeout_s: float) -> str:
    """What the user can do about it."""
    if failure.status in (401, 403):
        return "give the right api_key; on the command line --api-key-env names the variable that holds it"
    if failure.status == 404:
        return "the address ends in /v1, and under /models it lists the names of its models"
    if failure.status == 402 or failure.code == NO_QUOTA:
        return "see to the account that the key belongs to"
    if failure.status == 429:
        return "ask less: max_requests_per_minute, max_tokens_per_minute, concurrency"
    if failure.status is not None and failure.status >= 500:
        return "its log says more"
    if failure.kind == "connection":
        return "start the server or correct the address"
    if failure.kind == "time":
        return f"give more than timeout_s = {timeout_s:g}, or ask less at once"
    if failure.kind == "format":
        return "an address of chat completions ends in /v1"
    return ""

"""Completer: what a verifier needs of a language model; the caller hands one in.

Invariant: a completer gives the model's text or raises CompletionError, and does either before its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .verdict import InfrastructureError


@dataclass(frozen=True)
class Completion:
    """One answer of the model.

    model: the name that the server gives itself. attempts: requests sent, failed ones included. prompt_tokens,
    completion_tokens: as the server counts them; 0 where it does not say. finish_reason: "stop", "length" (the answer
    was cut off), "content_filter" or whatever else the server says.
    """

    text: str
    model: str
    attempts: int = 1
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"


class CompletionError(InfrastructureError):
    """No answer came: the endpoint failed, was too slow, or turned us away. attempts: requests sent."""

    def __init__(self, message: str, attempts: int = 1) -> None:
        super().__init__(message)
        self.attempts = attempts


class RequestRefused(CompletionError):
    """The endpoint works and will not take this request: too long, filtered, or malformed."""


@runtime_checkable
class Completer(Protocol):
    """Asks a language model. It may be called from any thread."""

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        timeout_s: float,
        temperature: float | None = None,
        seed: int | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """The model's answer to `messages`, each with a "role" and a "content".

        timeout_s: all the time there is, retries included. temperature, seed: None leaves them to the server. schema:
        a JSON Schema that the answer should follow, for servers that can hold the model to it; nothing is promised.
        Raises RequestRefused or CompletionError, and nothing else.
        """
        ...

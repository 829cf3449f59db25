"""Task: one row of work, frozen, and hashed by its content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, TypedDict

from .errors import TaskError


class Message(TypedDict):
    """One chat message. `role` is system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Task:
    """What is asked and what is right.

    id: unique within its source. prompt: the text of the first user message. answer: hidden from the agent, JSON data.
    data: anything else an environment needs, JSON data.
    """

    id: str
    prompt: str
    answer: Any
    data: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            kind = type(self.prompt).__name__
            raise TaskError(f"The prompt of the task {self.id!r} must be text (str), not {kind}; write it as a string.")

    @property
    def hash(self) -> str:
        """SHA-256 of the content (not of the id), 16 hexadecimal digits; the same in every process."""
        text = json.dumps([self.prompt, self.answer, self.data], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types."""
        return {"id": self.id, "prompt": self.prompt, "answer": self.answer, "data": self.data}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Task:
        """The inverse of `to_json`."""
        return cls(row["id"], row["prompt"], row["answer"], row.get("data") or {})

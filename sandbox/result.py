"""Result: how a program in a sandbox ended, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How a run ended."""

    EXITED = "exited"
    """The program ended by itself; its exit code is its own."""
    TIMEOUT = "timeout"
    """It was ended when the time by the clock, or its processor time, was over."""
    MEMORY = "memory"
    """It was ended because it took more memory than it may."""
    OUTPUT = "output"
    """It was ended because it wrote more output than it may."""
    KILLED = "killed"
    """A signal ended it that the sandbox did not send, such as one of its own or a fault of its memory."""
    FAILED = "failed"
    """The sandbox itself failed; nothing is said about the program."""


@dataclass(frozen=True)
class Usage:
    """What a run used. cpu_s and memory_bytes (the most at one time) are None where the sandbox cannot tell."""

    wall_s: float
    cpu_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Result:
    """How a program ended, and what it wrote.

    exit_code: 128 + n where signal n ended the program; None where it was not its own end. stdout, stderr: as text,
    with bytes that are no UTF-8 written as \\xff; cut at the limit, with a mark there. reason: one sentence where
    status is not EXITED.
    """

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    usage: Usage = field(default_factory=lambda: Usage(0.0))
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with exit code 0."""
        return self.status is Status.EXITED and self.exit_code == 0

"""Sandbox: what every back end offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from .job import Files, Job, checked_argv, checked_files, checked_limits, checked_stdin
from .keeper_session import CHANNEL_BYTES, KeeperSession, keeper_command
from .limits import LARGEST, LONGEST_S, MOST_PROCESSES, Limits
from .process import Process
from .result import Result
from .session import Session
from .supervise import Cancellation, cancellable


class Sandbox(ABC):
    """Runs programs that nobody trusts. A back end writes `execute` and `close`.

    name: as given to `open_sandbox`. limits: of every run that brings none of its own. isolates: False for the back
    end that only helps to debug.
    """

    name: str
    limits: Limits
    isolates: bool

    @abstractmethod
    def execute(self, job: Job) -> Result:
        """Run a program to its end, and leave nothing of it. Raises SandboxError where the sandbox was closed."""

    @abstractmethod
    def close(self) -> None:
        """End everything that runs; more than once is once."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Files | None = None,
        limits: Limits | None = None,
        cancellation: Cancellation | None = None,
    ) -> Result:
        """Run a program in a folder of its own that holds `files` and is gone afterwards.

        argv: the program and its arguments; `python3` is there on every back end. Whatever the program does, the
        result comes at the latest shortly after `limits.wall_s`, and nothing of it is left then. Raises SandboxError
        where a path of `files` leads elsewhere, and where the sandbox was closed.
        """
        job = Job(
            checked_argv(argv),
            checked_stdin(stdin),
            checked_files(files),
            checked_limits(limits or self.limits),
            cancellation,
        )
        return self.execute(job)

    def start(
        self,
        argv: Sequence[str],
        *,
        files: Files | None = None,
        limits: Limits | None = None,
        trusted: bool = False,
    ) -> Process:
        """Start a program as `run` does, and talk to it by lines while it runs; `limits` hold for all of its life.

        trusted: whether it is your own, such as tests that judge another program, and no program that a model wrote.
        It is held as any other, but a back end may start it where another trusted one ran, whose processes and files
        are gone.
        """
        checked = checked_argv(argv), None, checked_files(files), checked_limits(limits or self.limits)
        return self._begin(Job(*checked, trusted=trusted))

    async def run_async(self, argv: Sequence[str], **options: Any) -> Result:
        """As `run`, without holding up the event loop; cancelling it ends the program before it returns."""
        return await cancellable(lambda cancellation: self.run(argv, **options, cancellation=cancellation))

    def open_session(self, limits: Limits | None = None) -> Session:
        """A sandbox for several programs that share a folder. limits: of all of it and of each program, see Session."""
        limits = checked_limits(limits or self.limits)
        room = limits.but(
            wall_s=LONGEST_S,
            cpu_s=LONGEST_S,
            processes=min(limits.processes + 1, MOST_PROCESSES),
            open_files=min(limits.open_files + 4 * limits.processes, LARGEST),
            output_bytes=CHANNEL_BYTES,
        )
        job = Job(tuple(keeper_command()), None, {}, room, keeps=True)
        return KeeperSession(self._begin(job), limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, job: Job) -> Process:
        return Process(
            lambda cancellation, started: self.execute(replace(job, cancellation=cancellation, started=started))
        )

"""Session: a sandbox that is kept, with its files and what runs in it, over several programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from .job import Job, checked_argv, checked_limits, checked_stdin
from .limits import Limits
from .process import Process
from .result import Result, Status
from .supervise import Cancellation, cancellable

MOST_READ = 64 * 2**20
"""The largest file that is read at once, in bytes."""
MOST_FILES = 10_000
"""How many files are listed."""


class Session(ABC):
    """Programs that share a folder, and processes that stay.

    What a program leaves running lives until the session is closed. Memory, disk and processes are limited for all of
    the session together, by the limits it was opened with; the other limits hold for each program. Any thread may use a
    session; programs may run at the same time. The programs of one session are not protected from each other: what one
    left running may end another, or write into its output. So judge in another session, or by `list_files` and
    `read_file`, which ask no program.
    """

    limits: Limits

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether it has ended, by `close` or otherwise."""

    @property
    def ended(self) -> Status | None:
        """How, where it ended by itself and that is known: MEMORY where its programs took all there was."""
        return None

    @abstractmethod
    def execute(self, job: Job) -> Result:
        """Run a program that was checked. Raises SandboxError where the session was closed."""

    @abstractmethod
    def write_file(self, path: str, content: str | bytes) -> None:
        """Write a file, and the folders above it. path: inside the folder of the session. SandboxError if it cannot."""

    @abstractmethod
    def read_file(self, path: str, *, most: int = MOST_READ) -> bytes:
        """What stands in a file. path: inside the folder of the session. SandboxError where there is none, or it has
        more than `most` bytes; hardly more than those are then read."""

    @abstractmethod
    def list_files(self) -> list[str]:
        """The paths of all that is in the folder and is no folder, in order. SandboxError for more than MOST_FILES."""

    @abstractmethod
    def close(self) -> None:
        """End everything that runs in it; its files are gone. More than once is once."""

    def exec(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        limits: Limits | None = None,
        cancellation: Cancellation | None = None,
    ) -> Result:
        """Run a program in the folder of the session, to its end. Raises SandboxError where the session was closed."""
        return self.execute(
            Job(checked_argv(argv), checked_stdin(stdin), {}, checked_limits(limits or self.limits), cancellation)
        )

    def start(self, argv: Sequence[str], *, limits: Limits | None = None) -> Process:
        """Start a program, and talk to it by lines while it runs; `limits` hold for all of its life."""
        job = Job(checked_argv(argv), None, {}, checked_limits(limits or self.limits))
        return Process(
            lambda cancellation, started: self.execute(replace(job, cancellation=cancellation, started=started))
        )

    async def exec_async(self, argv: Sequence[str], **options: Any) -> Result:
        """As `exec`, without holding up the event loop; cancelling it ends the program before it returns."""
        return await cancellable(lambda cancellation: self.exec(argv, **options, cancellation=cancellation))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

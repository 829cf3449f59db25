"""Sandbox and Session: what every back end offers, and what they share."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from .errors import SandboxError
from .limits import Limits
from .process import Process, Started
from .result import Result
from .supervise import Cancellation

Files = Mapping[str, str | bytes]
"""Contents by path, relative to the folder in which a program runs."""


@runtime_checkable
class Sandbox(Protocol):
    """Runs programs that nobody trusts.

    name: as given to `open_sandbox`. limits: of every run that brings none of its own. isolates: False for the back
    end that only helps to debug.
    """

    name: str
    limits: Limits
    isolates: bool

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
        ...

    def start(self, argv: Sequence[str], *, files: Files | None = None, limits: Limits | None = None) -> Process:
        """Start a program as `run` does, and talk to it by lines while it runs; `limits` hold for all of its life."""
        ...

    def close(self) -> None:
        """End everything that runs; more than once is once."""
        ...


class SandboxBase(ABC):
    """What the back ends share: all forms of running a program come down to `_execute`."""

    name: str
    limits: Limits
    isolates: bool

    @abstractmethod
    def close(self) -> None:
        """See `Sandbox.close`."""

    @abstractmethod
    def _execute(
        self,
        argv: Sequence[str],
        stdin: bytes | None,
        files: Files | None,
        limits: Limits | None,
        cancellation: Cancellation | None,
        started: Started | None,
    ) -> Result:
        """Run a program to its end. stdin: None for a pipe, of which `started` is told once the program runs."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        files: Files | None = None,
        limits: Limits | None = None,
        cancellation: Cancellation | None = None,
    ) -> Result:
        """See `Sandbox.run`."""
        return self._execute(argv, as_bytes(stdin), files, limits, cancellation, None)

    def start(self, argv: Sequence[str], *, files: Files | None = None, limits: Limits | None = None) -> Process:
        """See `Sandbox.start`."""
        return Process(lambda cancellation, started: self._execute(argv, None, files, limits, cancellation, started))

    async def run_async(self, argv: Sequence[str], **options: Any) -> Result:
        """As `run`, without holding up the event loop; cancelling it ends the program before it returns."""
        cancellation = Cancellation()
        task = asyncio.ensure_future(asyncio.to_thread(self.run, argv, **options, cancellation=cancellation))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancellation.cancel()
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            raise
        finally:
            cancellation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def checked_argv(argv: Sequence[str]) -> list[str]:
    """The arguments of a program. SandboxError where they are none."""
    if isinstance(argv, str | bytes) or not argv or not all(isinstance(arg, str) for arg in argv):
        raise SandboxError(f"argv = {argv!r:.100} must be a list of texts, the program first: ['python3', 'main.py'].")
    if any("\0" in arg for arg in argv):
        raise SandboxError("argv holds a NUL character, which no program can be given; take it out.")
    return [arg.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") for arg in argv]


def checked_files(files: Files | None) -> dict[str, bytes]:
    """Contents by path, as bytes. SandboxError where a path leads out of the folder or a content is neither."""
    checked: dict[str, bytes] = {}
    for name, content in (files or {}).items():
        path = PurePosixPath(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts or not path.parts:
            raise SandboxError(
                f"files: {name!r:.100} must be a path inside the folder, without '..' and no leading '/'."
            )
        if not isinstance(content, str | bytes):
            raise SandboxError(
                f"files: the content of {name!r:.100} must be text or bytes, not {type(content).__name__}."
            )
        checked[str(path)] = as_bytes(content)
    return checked


def as_bytes(content: str | bytes) -> bytes:
    """Text as UTF-8, halves of surrogate pairs as they are."""
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")

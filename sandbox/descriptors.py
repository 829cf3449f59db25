"""Descriptors: file descriptors with one owner.

Invariant: each is closed exactly once, also where a signal's handler raises in the middle. A number that is closed
twice may by then be somebody else's.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from itertools import chain, filterfalse, starmap
from types import TracebackType
from typing import Self


class Descriptors:
    """Closes at its end what was not closed before. One thread at a time may use it."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def own(self, fd: int) -> int:
        """Take over an open descriptor."""
        self._open.add(fd)
        return fd

    def make(self, make: Callable[..., int], *given: object) -> int:
        """A new descriptor from one of the system's calls."""
        (fd,) = self._made(starmap(make, [given]))
        return fd

    def pipe(self) -> tuple[int, int]:
        """The ends of a new pipe, to read from and to write to."""
        read_fd, write_fd = self._made(chain.from_iterable(starmap(os.pipe, [()])))
        return read_fd, write_fd

    def _made(self, making: Iterator[int]) -> list[int]:
        made: list[int] = []
        try:
            made.extend(making)  # one call, in which no handler runs: what is made is known
        finally:
            self._open.update(made)
        return made

    def content(self, content: bytes) -> int:
        """A descriptor from which a content can be read (Linux)."""
        fd = self.make(os.memfd_create, "ludus")
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def hand_over(self, fd: int) -> int:
        """Give up an open descriptor to somebody else, who closes it."""
        self._open.remove(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Close some of them now. What a signal's handler raises meanwhile is raised when all are closed."""
        try:
            self._close(fds)
        except BaseException:
            self._close(fds)
            raise

    def _close(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            if fd in self._open:
                closing: Iterator[int] = filterfalse(os.close, [fd])
                try:
                    self._open.difference_update(closing)  # one call again: it is closed and forgotten, or neither
                except OSError:
                    self._open.discard(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(*self._open)


def write_all(fd: int, data: bytes, timeout_s: float | None = None) -> bool:
    """Write to a pipe or socket that does not block; whether all was taken, within a time if there is one."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            wait_ms = None if deadline is None else max(deadline - time.monotonic(), 0) * 1000
            if not poll.poll(wait_ms):
                return False
        except OSError:  # nobody reads any more
            return False
    return True

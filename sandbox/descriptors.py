"""Descriptors: file descriptors with one owner.

Invariant: each is closed exactly once. A number that is closed twice may by then be somebody else's.
"""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Self


class Descriptors:
    """Closes at its end what was not closed before."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def own(self, fd: int) -> int:
        """Take over an open descriptor."""
        self._open.add(fd)
        return fd

    def pipe(self) -> tuple[int, int]:
        """The ends of a new pipe, to read from and to write to."""
        read_fd, write_fd = os.pipe()
        return self.own(read_fd), self.own(write_fd)

    def content(self, content: bytes) -> int:
        """A descriptor from which a content can be read (Linux)."""
        fd = self.own(os.memfd_create("ludus"))
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def hand_over(self, fd: int) -> int:
        """Give up an open descriptor to somebody else, who closes it."""
        self._open.remove(fd)
        return fd

    def close(self, *fds: int) -> None:
        """Close some of them now."""
        for fd in fds:
            if fd in self._open:
                self._open.remove(fd)
                with contextlib.suppress(OSError):
                    os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(*self._open)

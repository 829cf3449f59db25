"""Watch over a started program: drain its output while it runs, and end it where it has to be.

Invariant: `supervise` returns only when the program is gone, every process of it where `exits` says so; or raises
SurvivedKill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

from .output import Output

T = TypeVar("T")

_KILL_GRACE_S = 10.0
"""Longer than the kernel needs to tear down any process tree that the limits allow."""


class SurvivedKill(Exception):
    """The program was killed and is still there."""


class Ending(Enum):
    """Why a program is over."""

    ITSELF = "itself"
    TIMEOUT = "timeout"
    OUTPUT = "output"
    CANCELLED = "cancelled"


class Cancellation:
    """A call from another thread to end a run; may come before the run begins."""

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """Readable once it was called for."""
        return self._read_fd

    def cancel(self) -> None:
        """End the run; more than once is once."""
        with self._lock:
            if not self._closed:
                os.write(self._write_fd, b"x")

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read_fd)
                os.close(self._write_fd)


async def cancellable(call: Callable[[Cancellation], T]) -> T:
    """What a call returns, made in another thread; where this is cancelled, the call is, and has ended afterwards."""
    cancellation = Cancellation()
    task = asyncio.ensure_future(asyncio.to_thread(call, cancellation))
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


def exit_fd(pid: int, wait: Callable[[], object]) -> int:
    """A descriptor that becomes readable when a process has ended. wait: blocks until then, for systems other than
    Linux."""
    if sys.platform == "linux":
        return os.pidfd_open(pid)
    read_fd, write_fd = os.pipe()

    def watch() -> None:
        wait()
        os.close(write_fd)

    threading.Thread(target=watch, daemon=True).start()
    return read_fd


def supervise(
    outputs: Sequence[Output],
    exits: Sequence[int],
    *,
    deadline: float,
    kill: Callable[[], None],
    cancellation: Cancellation | None = None,
) -> Ending:
    """Drain the outputs until all of `exits` are readable.

    deadline: in time.monotonic(). kill: ends the program at once; it is called at the deadline, for too much output and
    for cancellation.
    """
    ending = Ending.ITSELF
    with selectors.DefaultSelector() as selector:
        for output in outputs:
            selector.register(output.fd, selectors.EVENT_READ, output)
        for fd in exits:
            selector.register(fd, selectors.EVENT_READ, None)
        if cancellation is not None:
            selector.register(cancellation.fileno(), selectors.EVENT_READ, cancellation)
        running = set(exits)
        killed = False
        while running:
            for key, _ in selector.select(max(deadline - time.monotonic(), 0)):
                if isinstance(key.data, Output):
                    if not key.data.drain():
                        selector.unregister(key.fd)
                elif key.data is None:
                    running.discard(key.fd)
                    selector.unregister(key.fd)
                else:
                    ending = ending if killed else Ending.CANCELLED
                    selector.unregister(key.fd)
            if not running:
                break
            if not killed:
                if ending is Ending.ITSELF and any(output.too_much for output in outputs):
                    ending = Ending.OUTPUT
                if ending is Ending.ITSELF and time.monotonic() >= deadline:
                    ending = Ending.TIMEOUT
                if ending is not Ending.ITSELF:
                    killed, deadline = True, time.monotonic() + _KILL_GRACE_S
                    kill()
            elif time.monotonic() >= deadline:
                raise SurvivedKill
    for output in outputs:
        output.finish()
    return Ending.OUTPUT if ending is Ending.ITSELF and any(output.too_much for output in outputs) else ending

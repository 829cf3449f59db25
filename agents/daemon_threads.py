"""Threads for code that may hang: one that does takes no place from others, and lets the process end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Jobs: TypeAlias = "queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class DaemonThreads:
    """Runs each call at once, in a thread that has nothing to do or else in a new one.

    To make a thread holds up who asks for it, an event loop that feeds an engine above all; so they are used again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[Jobs] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """What the call returns or raises; it cannot be taken back."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(jobs,), name=self._name, daemon=True).start()
        jobs.put((future, call))
        return future

    def close(self) -> None:
        """Let idle threads end; others end with their call."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().put(None)

    def _work(self, jobs: Jobs) -> None:
        while (job := jobs.get()) is not None:
            future, call = job
            try:
                result, error = call(), None
            except BaseException as raised:
                result, error = None, raised
            with self._lock:
                if not self._closed:
                    self._idle.append(jobs)
                closed = self._closed
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
            if closed:
                return
            del job, future, call, result, error  # nothing of it is kept while waiting

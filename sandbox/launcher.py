"""Launcher: one thread that starts all sandboxed processes of this process.

Invariant: the thread lives as long as the process. The kernel ends a child "with its parent" when the *thread* that
started it ends, and Landlock holds for the children of the thread that took it on; so both need a thread of their own.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any

from .cgroup import Cgroup
from .landlock import restrict_this_thread

_Job = tuple["Future[subprocess.Popen[Any]]", Sequence[str], Cgroup | None, dict[str, Any]]


class Launcher:
    """Starts processes from its own thread. landlock: whether they are put under it, where the kernel has it."""

    def __init__(self, landlock: bool = True) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._landlock = landlock
        threading.Thread(target=self._work, name="ludus-sandbox-launcher", daemon=True).start()

    def start(self, argv: Sequence[str], cgroup: Cgroup | None, **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen(argv, **options)`, called in the thread of the launcher. Its pipes carry bytes."""
        future: Future[subprocess.Popen[Any]] = Future()
        self._jobs.put((future, argv, cgroup, options))
        try:
            return future.result()
        except BaseException:  # such as Ctrl-C while it waits: what was asked for starts all the same
            if future.exception() is None:
                future.result().kill()
                future.result().wait()
            raise

    def _work(self) -> None:
        if self._landlock:
            restrict_this_thread()
        while True:
            future, argv, cgroup, options = self._jobs.get()
            try:
                with nullcontext() if cgroup is None else cgroup.around_start():
                    process = subprocess.Popen(argv, **options)
                future.set_result(process)
            except BaseException as error:
                future.set_exception(error)


_launchers: dict[tuple[int, bool], Launcher] = {}
_lock = threading.Lock()


def shared_launcher(landlock: bool = True) -> Launcher:
    """The launcher of this process; a forked process gets its own."""
    key = (os.getpid(), landlock)
    with _lock:
        if key not in _launchers:
            _launchers[key] = Launcher(landlock)
        return _launchers[key]

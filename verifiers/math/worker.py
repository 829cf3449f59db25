"""The other side of `pool`: a process that forks workers, and what a worker does.

Invariant: a worker lives no longer than the process that asked for it, takes no more memory than it was given, and
talks only over its own socket. What it sends are plain JSON lines, so that nothing a response does to it can do more
than spoil its own verdict; and before it begins anything that may take long, every verdict so far has been sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from ..verdict import Verdict
from .errors import TooMuchWork
from .work import Work

if TYPE_CHECKING:
    from .verifier import MathVerifier

TOGETHER = 16
"""Quick verdicts are sent so many at a time."""
WORK = 200_000_000
"""Operations that a worker grants; its deadline comes first."""


def serve(descriptor: int) -> NoReturn:
    """Fork a worker for every socket that comes in; end, with all workers, when the other side is gone."""
    import flint  # noqa: F401 - loaded once, here, so that a new worker is there at once
    import sympy  # noqa: F401

    from . import symbolic, verifier  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked; it closes the socket
    control = socket.socket(fileno=descriptor)
    children: set[int] = set()
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
        except OSError:
            message, descriptors = b"", []
        if not message:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(0)
        if descriptors:
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(socket.socket(fileno=descriptors[0]), int(message))
            os.close(descriptors[0])
            children.add(pid)
            control.sendall(b"%d\n" % pid)
        else:
            pid = int(message)
            if pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                children.discard(pid)
            control.sendall(b"0\n")


def _work(connection: socket.socket, memory_bytes: int) -> NoReturn:
    """Judge one job a line until the other side closes. Ends itself where memory runs out."""
    try:
        _die_with_parent()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open(os.devnull, "r+b") as null:
            for standard in (0, 1, 2):
                os.dup2(null.fileno(), standard)
        _judge_all(connection)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _judge_all(connection: socket.socket) -> None:
    """Answer lines until there are no more. Verdicts are sent together, but none waits while this process does."""
    unread = b""
    ready: list[bytes] = []

    def send() -> None:
        connection.sendall(b"".join(ready))
        ready.clear()

    while piece := connection.recv(1 << 18):
        *lines, unread = (unread + piece).split(b"\n")
        for line in lines:
            ready.append(json.dumps(answer(json.loads(line), send)).encode() + b"\n")
            if len(ready) == TOGETHER:
                send()
        send()


def _die_with_parent() -> None:
    """Linux ends this process when the one that forked it ends, also by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def answer(job: dict[str, Any], before_long: Callable[[], None]) -> dict[str, Any]:
    """The verdict of one job, as JSON. before_long is called where it may take longer than a moment."""
    from .symbolic import difference_is_zero
    from .verifier import LOCAL_WORK

    verifier = _verifier(json.dumps(job["options"]))
    try:
        try:
            return verifier.judge(job["gold"], job["response"], Work(LOCAL_WORK)).to_json()
        except TooMuchWork:
            before_long()
            return verifier.judge(job["gold"], job["response"], Work(WORK), difference_is_zero).to_json()
    except TooMuchWork as error:
        return Verdict.undecided(f"Undecided: {error}.").to_json()


@lru_cache(maxsize=64)
def _verifier(options: str) -> MathVerifier:
    from .verifier import MathVerifier

    return MathVerifier(**json.loads(options))

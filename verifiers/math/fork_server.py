"""ForkServer and Worker: processes that can be killed at any moment, and how they are talked to.

Invariant: a worker is used by one thread at a time, and once it was late or lost never again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..verdict import Verdict

START_S = 60.0
"""Longest time that the first worker may take to start."""
_SERVER = (
    "import json, os, sys; sys.path[:] = json.loads(os.environ.pop('LUDUS_WORKER_PATH')); "
    "from ludus.verifiers.math.worker import serve; serve(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class Job:
    """One answer to judge. options: those of MathVerifier that change the verdict."""

    gold: str
    response: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> bytes:
        """The job as a worker reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


class WorkerLost(Exception):
    """A worker ended by itself; `late` where it was killed at its deadline."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.late = late


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, neither in the place of standard input or output, also where those are closed."""
    pair = []
    for end in socket.socketpair():
        pair.append(socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)))
        end.close()
    return pair[0], pair[1]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class ForkServer:
    """The process that forks workers: it has everything loaded, so that a new worker is there in milliseconds."""

    def __init__(self) -> None:
        ours, theirs = socket_pair()
        # Not the multiprocessing module: its children run the caller's main script again.
        environment = {
            **os.environ,
            "LUDUS_WORKER_PATH": json.dumps(sys.path),
            "PYTHONHASHSEED": "0",  # SymPy's results may depend on it
            "PYTHONSAFEPATH": "1",
        }
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if _is_open(2) else subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        self.control = ours
        self.control.settimeout(START_S)
        self.lock = threading.Lock()

    def fork(self, memory_bytes: int) -> tuple[int, socket.socket]:
        """A new worker: its process id, and the socket to talk to it."""
        ours, theirs = socket_pair()
        try:
            with self.lock:
                socket.send_fds(self.control, [b"%d" % memory_bytes], [theirs.fileno()])
                return int(self._reply()), ours
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def kill(self, pid: int) -> None:
        """End a worker at once."""
        with self.lock, contextlib.suppress(OSError):
            self.control.sendall(b"%d" % pid)
            self._reply()

    def _reply(self) -> bytes:
        reply = b""
        while not reply.endswith(b"\n"):
            piece = self.control.recv(64)
            if not piece:
                raise OSError("the process that starts workers has ended")
            reply += piece
        return reply

    def close(self) -> None:
        """End it, and all its workers with it."""
        self.control.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Worker:
    """One worker, used by one thread at a time."""

    def __init__(self, server: ForkServer, memory_bytes: int) -> None:
        self.server = server
        self.pid, self.connection = server.fork(memory_bytes)
        self.unread = b""

    def send(self, jobs: Sequence[Job]) -> None:
        """Hand over jobs; their verdicts come in the same order."""
        data = memoryview(b"".join(job.line for job in jobs))
        self.connection.setblocking(False)
        poller = select.poll()
        poller.register(self.connection, select.POLLOUT | select.POLLIN)
        while data:
            for _, event in poller.poll(START_S * 1000) or [(0, select.POLLHUP)]:
                if event & (select.POLLHUP | select.POLLERR):
                    raise WorkerLost
            try:
                with contextlib.suppress(BlockingIOError):
                    data = data[self.connection.send(data) :]
                self._drain()
            except ConnectionError as error:  # it ended after it was asked whether it is there
                raise WorkerLost from error

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while piece := self.connection.recv(1 << 16):
                self.unread += piece
                if len(piece) < 1 << 16:
                    return

    def receive(self, seconds: float) -> Verdict:
        """The next verdict. WorkerLost where there is none in time; the worker is not to be used again then."""
        end = time.monotonic() + seconds
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        self.connection.setblocking(True)
        while b"\n" not in self.unread:
            left = end - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise WorkerLost(late=True)
            try:
                piece = self.connection.recv(1 << 16)
            except ConnectionError as error:
                raise WorkerLost from error
            if not piece:
                raise WorkerLost
            self.unread += piece
        line, self.unread = self.unread.split(b"\n", 1)
        return Verdict.from_json(json.loads(line))

    def close(self) -> None:
        """End it at once."""
        self.connection.close()
        self.server.kill(self.pid)

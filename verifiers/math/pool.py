"""A pool of workers that can be killed: for answers whose comparison may hang or eat memory.

Invariant: every job comes back with a verdict within its deadline (and the time to start a worker), from any thread and
without signals; a worker that was late, died or ran out of memory is replaced before the next job, and no job ever gets
the answer of another.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import VerifierError
from ..verdict import Verdict

START_S = 60.0
"""Longest time that the first worker may take to start."""
CHUNK = 64
"""Jobs that a worker is given at a time in a batch."""
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


PROBE = Job("1", "1")
"""What every worker that works can judge."""


class WorkerLost(Exception):
    """A worker ended by itself; `late` where it was killed at its deadline."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.late = late


class ForkServer:
    """The process that forks workers: it has everything loaded, so that a new worker is there in milliseconds."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
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
            )
        finally:
            theirs.close()
        self.control = ours
        self.control.settimeout(START_S)
        self.lock = threading.Lock()

    def fork(self, memory_bytes: int) -> tuple[int, socket.socket]:
        """A new worker: its process id, and the socket to talk to it."""
        ours, theirs = socket.socketpair()
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
            with contextlib.suppress(BlockingIOError):
                data = data[self.connection.send(data) :]
            self._drain()

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


class WorkerPool:
    """Workers that are started when first needed and kept.

    workers: how many at most; None: one for each core that this process may use. memory_bytes: address space of each.
    """

    def __init__(self, workers: int | None = None, memory_bytes: int = 2 << 30) -> None:
        if workers is not None and workers < 1:
            raise VerifierError(f"workers = {workers} leaves nobody to work; give 1 or more.")
        if memory_bytes < 256 << 20:
            raise VerifierError(
                f"memory_bytes = {memory_bytes} is less than a worker needs to start; give 2**28 or more."
            )
        self.workers = workers or _cores()
        self.memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self.workers)
        self._idle: list[Worker] = []
        self._server: ForkServer | None = None
        self._closed = False

    def run(self, jobs: Sequence[Job], deadline_s: float) -> list[Verdict]:
        """The verdicts of some jobs, by one worker, each within its deadline."""
        with self._places:
            return self._run(jobs, deadline_s)

    def map(self, jobs: Sequence[Job], deadline_s: float, workers: int | None = None) -> list[Verdict]:
        """The verdicts of many jobs, in their order, by several workers."""
        size = max(1, min(CHUNK, -(-len(jobs) // (workers or self.workers))))
        chunks = [jobs[start : start + size] for start in range(0, len(jobs), size)]
        if len(chunks) <= 1:
            return self.run(jobs, deadline_s) if jobs else []
        with ThreadPoolExecutor(min(workers or self.workers, self.workers), "ludus-verify") as threads:
            return [v for verdicts in threads.map(lambda chunk: self.run(chunk, deadline_s), chunks) for v in verdicts]

    def close(self) -> None:
        """End all workers. The pool cannot be used again."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            server, self._server = self._server, None
        for worker in idle:
            worker.connection.close()
        if server is not None:
            server.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, jobs: Sequence[Job], deadline_s: float) -> list[Verdict]:
        verdicts: list[Verdict] = []
        while len(verdicts) < len(jobs):
            try:
                self._go_on(jobs, verdicts, deadline_s)
            except OSError as error:
                verdicts += [Verdict.error(f"No worker could be started: {error}.")] * (len(jobs) - len(verdicts))
        return verdicts

    def _go_on(self, jobs: Sequence[Job], verdicts: list[Verdict], deadline_s: float) -> None:
        """Have a worker judge the jobs from len(verdicts) on; where it is lost, decide what that job gets."""
        worker = self._take()
        start = time.monotonic()
        try:
            worker.send(jobs[len(verdicts) :])
            while len(verdicts) < len(jobs):
                verdicts.append(worker.receive(deadline_s))
                start = time.monotonic()
        except WorkerLost as lost:
            worker.close()
            if lost.late:
                verdicts.append(_too_late(deadline_s))
            else:
                verdicts.append(self._again(jobs[len(verdicts)], deadline_s - (time.monotonic() - start)))
        except BaseException:
            worker.close()
            raise
        else:
            self._give_back(worker)

    def _again(self, job: Job, seconds: float) -> Verdict:
        """A job whose worker died: a fresh worker tries; if that dies, too, and another one works, the job did it."""
        worker = self._new()
        try:
            worker.send([job])
            verdict = worker.receive(max(seconds, 0.05))
        except WorkerLost as lost:
            worker.close()
            return _too_late(seconds) if lost.late else self._resource()
        self._give_back(worker)
        return verdict

    def _resource(self) -> Verdict:
        worker = self._new()
        try:
            worker.send([PROBE])
            worker.receive(START_S)
        except WorkerLost:
            worker.close()
            return Verdict.error("Workers end by themselves, also with an answer that is known to be right.")
        self._give_back(worker)
        return Verdict.wrong("resource: the answer made two workers end, by memory or a crash.", stage="resource")

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _new(self) -> Worker:
        with self._lock:
            if self._closed:
                raise OSError("the pool of workers is closed")
            if self._server is None or self._server.process.poll() is not None:
                self._server = ForkServer()
            server = self._server
        return Worker(server, self.memory_bytes)

    def _give_back(self, worker: Worker) -> None:
        with self._lock:
            if not self._closed and worker.server is self._server:
                self._idle.append(worker)
                return
        worker.close()


def _too_late(seconds: float) -> Verdict:
    return Verdict.undecided(f"Undecided: it took longer than {seconds:.3g} s.", stage="deadline")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


_shared: WorkerPool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> WorkerPool:
    """The pool of this process, with one worker for each core."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = WorkerPool()
            atexit.register(_shared.close)
        return _shared


def _forget() -> None:
    """After a fork: the sockets and locks belong to the parent, so this process starts a pool of its own."""
    global _shared, _shared_lock
    _shared = None
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)

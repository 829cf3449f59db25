"""A pool of workers that can be killed: for answers whose comparison may hang or eat memory.

Invariant: every job comes back with a verdict within its deadline (and the time to start a worker), from any thread and
without signals; a worker that was late, died or ran out of memory is replaced before the next job, and no job ever gets
the answer of another.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ..errors import VerifierError
from ..verdict import Verdict
from .fork_server import START_S, ForkServer, Job, Worker, WorkerLost

CHUNK = 64
"""Jobs that a worker is given at a time in a batch."""


PROBE = Job("1", "1")
"""What every worker that works can judge."""


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


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
        self._closed = False
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self.workers)
        self._idle: list[Worker] = []
        self._server: ForkServer | None = None

    def forget(self) -> None:
        """After a fork: workers and locks belong to the parent, so this process starts workers of its own."""
        for worker in self._idle:
            worker.connection.close()
        if self._server is not None:
            self._server.control.close()
        self._begin()

    def __reduce__(self) -> tuple[type[WorkerPool], tuple[int, int]]:
        return WorkerPool, (self.workers, self.memory_bytes)

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
    global _shared_lock
    _shared_lock = threading.Lock()
    for pool in list(_pools):
        pool.forget()


os.register_at_fork(after_in_child=_forget)

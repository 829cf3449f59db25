"""RayPool: plays episodes on Ray actors, as a Rollout does in this process.

Invariant: every episode asked for comes back once, whatever becomes of the worker that plays it; what an episode holds
depends on its request and the weights alone, so that one TorchEngine worker gives the episodes that a Rollout in this
process gives, bit for bit (tests/test_ray.py, tests/test_ray_faults.py).

A thread keeps the workers busy, also while the learner learns. Each worker has one call open that returns what is done,
soon or after a second, so that a worker without an answer is known to hang.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..agents.engine import Completion, EngineError, Sampling, Usage
from ..agents.rollout import Arena, EpisodeRequest, failed_episode
from ..agents.trajectory import Episode
from ..agents.waiting import Waiting, told
from ..agents.weights import Sent, WeightFolder, digests, plain_weights
from ..sandbox.errors import LudusError
from .config import RolloutConfig
from .ray_cluster import RayCluster, RayError, first_line
from .ray_worker import Report, RolloutWorker, WorkerInfo, Workplace, ahead
from .recorder import Show

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRIES = 3
"""Workers on which an episode is tried before it counts as failed, and starts of a worker before the run ends."""
POLL_S = 1.0
START_S = 600.0
CLOSE_S = 10.0
MEMORY = 0.9
"""Share of the mean length that one more episode leaves as it was."""
CALLS = 100
"""That a worker takes at once; it is never given as many."""


@dataclass
class _Job:
    """An episode to play. urgent: somebody waits for it. begun: when its worker got it, by time.monotonic."""

    ticket: int
    request: EpisodeRequest
    urgent: bool = False
    tries: int = 0
    begun: float = 0.0


@dataclass(eq=False)
class _Worker:
    """An actor. poll: its open call; since: when that was made; given: what it has not answered yet, in the order in
    which it plays; seen: tickets to acknowledge with the next poll."""

    index: int
    handle: Any
    poll: Any
    since: float
    info: WorkerInfo | None = None
    given: dict[int, _Job] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    generated: int = 0
    failures: int = 0

    def playing(self, places: int) -> list[_Job]:
        """What is in its places, as far as is known here; the rest of what it was given waits."""
        return list(itertools.islice(self.given.values(), places))


class LongestFirst:
    """A queue of episodes: first those that are expected to be longest, and of equals those that came first.

    What is long and begun late is what everybody waits for at the end. Expected is the running mean of tokens in the
    episodes of the same environment; of one that nobody has played, nothing.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[bool, float, int, _Job]] = []
        self._means: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[_Job]:
        return (job for *_, job in self._heap)

    def push(self, job: _Job) -> None:
        """Add an episode."""
        heapq.heappush(self._heap, (not job.urgent, -self._means.get(job.request.env, 0.0), job.ticket, job))

    def pop(self) -> _Job:
        """Take the first."""
        return heapq.heappop(self._heap)[-1]

    def drop(self, tickets: set[int]) -> None:
        """Take episodes out."""
        self._heap = [entry for entry in self._heap if entry[-1].ticket not in tickets]
        heapq.heapify(self._heap)

    def learn(self, env: str, tokens: int) -> None:
        """An episode of an environment had so many tokens."""
        self._means[env] = MEMORY * self._means.get(env, float(tokens)) + (1 - MEMORY) * tokens


class RayEngine:
    """The engines of all workers as one: what a trainer needs of them."""

    def __init__(self, pool: RayPool) -> None:
        self._pool = pool
        self.version = 0
        self.exact = False
        self.max_length = 2**31

    @property
    def generated_tokens(self) -> int:
        """Sampled so far by all workers, those that are gone included."""
        return self._pool.generated_tokens

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        """Have every worker serve the weights of `model` from now on."""
        self._pool.load_weights(model, version)
        self.version = version

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        """Workers generate, and nobody else."""
        raise RayError("Engines in Ray actors play whole episodes; give requests to the pool.")

    def release(self, session: str) -> None:
        """Workers release by themselves."""


class RayPool:
    """Plays episodes on Ray actors.

    make: builds a worker's engine and environments for weights that were sent, in its process. arenas: the same
    environments here, to ask for tasks. model: whose weights the workers begin with. concurrency: episodes in flight
    over all workers. Use as a context manager, or call `close`.
    """

    usage: Usage | None = None
    stopped: str | None = None

    def __init__(
        self,
        make: Callable[[Sent], Workplace],
        arenas: dict[str, Arena],
        model: PreTrainedModel,
        *,
        config: RolloutConfig,
        concurrency: int,
        weights: WeightFolder,
        show: Show,
    ) -> None:
        self.arenas = arenas
        self.engine = RayEngine(self)
        self._config = config
        self._places = -(-concurrency // config.workers)
        self._weights = weights
        self._show = show
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._tickets = itertools.count()
        self._queue = LongestFirst()
        self._done: dict[int, Episode] = {}
        self._sent: dict[Any, _Worker] = {}
        self._notes: list[str] = []
        self._workers: list[_Worker] = []
        self._gone_tokens = 0
        self._pump: threading.Thread | None = None
        self._cluster: RayCluster | None = None
        try:
            with told(show.note, "Ray to start, and to set room aside"):
                self._cluster = RayCluster(
                    config.ray_address, config.workers, config.cpus_per_worker, config.gpus_per_worker
                )
            self._ray = self._cluster.ray
            self._serving = self._send(model, 0)
            # Kept in the object store, so that a worker can be started where that has become full.
            self._make = self._ray.put(self._ray.cloudpickle.dumps(make))
            self._workers = [self._started(index) for index in range(config.workers)]
            self._pump = threading.Thread(target=self._keep_going, name="ludus-ray", daemon=True)
            self._pump.start()
            self.await_workers()
        except BaseException:
            self.close()
            raise
        infos = [worker.info for worker in self._workers if worker.info is not None]
        here = next(model.parameters()).device.type == "cpu"
        self.engine.exact = here and all(info.exact for info in infos)
        self.engine.max_length = min(info.max_length for info in infos)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def await_workers(self) -> None:
        """Wait until all workers can play, those that take the place of others too."""
        self._wait(lambda: all(worker.info for worker in self._workers), lambda: "Ray workers to start")

    # For trainers

    def run(
        self, requests: Sequence[EpisodeRequest], on_episode: Callable[[Episode], None] | None = None
    ) -> list[Episode]:
        """Play all requests and return their episodes in the same order."""
        tickets = self.submit(requests, urgent=True)
        found: dict[int, Episode] = {}
        waiting = Waiting()
        while len(found) < len(tickets):
            left = [ticket for ticket in tickets if ticket not in found]
            self.wait(left, waiting)
            for ticket, episode in self.take(left).items():
                found[ticket] = episode
                if on_episode is not None:
                    on_episode(episode)
        return [found[ticket] for ticket in tickets]

    def submit(self, requests: Sequence[EpisodeRequest], urgent: bool = False) -> list[int]:
        """Begin to play; the tickets under which episodes come back. urgent: before all that waits here and is not."""
        with self._changed:
            self._raise_error()
            jobs = [_Job(next(self._tickets), request, urgent) for request in requests]
            for job in jobs:
                self._queue.push(job)
            self._feed()
        return [job.ticket for job in jobs]

    def take(self, tickets: Sequence[int]) -> dict[int, Episode]:
        """Those of the tickets whose episodes are done, which are forgotten here."""
        with self._changed:
            return {ticket: self._done.pop(ticket) for ticket in tickets if ticket in self._done}

    def cancel(self, tickets: Sequence[int]) -> None:
        """Give tickets up, wherever their episodes are."""
        gone = set(tickets)
        with self._changed:
            self._queue.drop(gone)
            for worker in self._workers:
                here = [ticket for ticket in worker.given if ticket in gone]
                for ticket in here:
                    del worker.given[ticket]
                if here and not self._closing:
                    self._sent[worker.handle.cancel.remote(here)] = worker
            for ticket in gone & self._done.keys():
                del self._done[ticket]

    def status(self) -> tuple[int, int]:
        """How many episodes workers play, and how many wait for a place."""
        with self._changed:
            given = sum(len(worker.given) for worker in self._workers)
            playing = sum(len(worker.playing(self._places)) for worker in self._workers)
            return playing, given - playing + len(self._queue)

    def wait(self, tickets: Sequence[int], waiting: Waiting | None = None) -> None:
        """Wait until one of the tickets is done. waiting: since when, over several calls."""
        wanted = set(tickets)
        self._wait(lambda: not wanted.isdisjoint(self._done), lambda: self._state_of(wanted), waiting)

    def load_weights(self, model: PreTrainedModel, version: int) -> None:
        """Have every worker serve the weights of `model` and prove it; one that dies meanwhile starts with them.

        Raises TransferError where one cannot, and goes on with nothing in doubt. What is served already stays.
        """
        if version == self._serving.version and digests(plain_weights(model)) == self._serving.digests:
            return
        sent, before = self._send(model, version), self._serving
        with self._changed:
            self._raise_error()
            self._serving = sent
            calls = {worker.handle.load.remote(sent): worker for worker in self._workers}
            # One that is just starting does so first, with weights that are older.
            patience = self._config.reply_deadline_s if all(w.info for w in self._workers) else START_S
        deadline, waiting = time.monotonic() + patience, Waiting()
        while calls:
            names = ", ".join(f"Ray worker {worker.index}" for worker in calls.values())
            line = waiting.line(lambda names=names: f"{names} to load weights")  # type: ignore[misc]
            if line is not None:
                self._show.note(line)
            ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=POLL_S)
            for call in ready:
                self._loaded(calls.pop(call), call)
            with self._changed:
                self._raise_error()
                for worker in calls.values() if time.monotonic() > deadline else ():
                    self._replace(worker, f"did not load weights within {patience:g} s")
                calls = {call: worker for call, worker in calls.items() if worker in self._workers}
        self._weights.forget(before)
        self._say_notes()

    def _send(self, model: PreTrainedModel, version: int) -> Sent:
        sent = self._weights.send(model, version)
        model.config.save_pretrained(sent.path.parent)
        return sent

    @property
    def generated_tokens(self) -> int:
        """Sampled so far by all workers, those that are gone included."""
        with self._changed:
            return self._gone_tokens + sum(worker.generated for worker in self._workers)

    def close(self) -> None:
        """Give up what is being played; end workers, the cluster where it was started here, and the weights' folder."""
        with self._changed:
            self._closing = True
        if self._pump is not None:
            self._pump.join(2 * POLL_S)
        try:
            if self._cluster is not None:
                self._end_workers()
                self._cluster.close()
        finally:
            self._weights.close()
            for arena in self.arenas.values():
                while arena.idle:
                    arena.ask("closing", arena.idle.pop().close)

    # Waiting

    def _wait(self, until: Callable[[], bool], what: Callable[[], str], waiting: Waiting | None = None) -> None:
        """Wait, and say now and then what for."""
        waiting = Waiting() if waiting is None else waiting
        while True:
            with self._changed:
                self._raise_error()
                if until():
                    break
                self._changed.wait(POLL_S / 4 if self._notes else POLL_S)
                line = waiting.line(what) if not until() else None
            self._say_notes()
            if line is not None:
                self._show.note(line)
        self._say_notes()

    def _say_notes(self) -> None:
        """What the thread has to tell, told by the learner's, for displays know one thread."""
        with self._changed:
            notes, self._notes = self._notes, []
        for note in notes:
            self._show.note(note)

    def _state_of(self, tickets: set[int]) -> str:
        """How many of the tickets are open, and which is the oldest, and where. The lock is held."""
        playing = [(job, worker) for worker in self._workers for job in worker.playing(self._places)]
        playing = [(job, worker) for job, worker in playing if job.ticket in tickets]
        left = len(tickets - self._done.keys())
        text = f"{left} episodes ({left - len(playing)} of them not begun)"
        if playing:
            oldest, worker = min(playing, key=lambda pair: pair[0].begun)
            age = time.monotonic() - oldest.begun
            text += f", the oldest {oldest.request.id}, for {age:.0f} s on worker {worker.index}"
        return text

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # Handing out. The lock is held.

    def _feed(self) -> None:
        """Give what waits to workers with room, the longest first, each to the worker that has the least."""
        given: dict[_Worker, list[_Job]] = {}
        open_ = [worker for worker in self._workers if worker.info is not None]
        while self._queue and open_:
            worker = min(open_, key=lambda w: (len(w.given), w.index))
            if len(worker.given) >= self._places and not self._may_wait_in(worker):
                break
            job = self._queue.pop()
            job.begun = time.monotonic()
            worker.given[job.ticket] = job
            given.setdefault(worker, []).append(job)
        for worker, jobs in given.items():
            self._sent[worker.handle.submit.remote([(job.ticket, job.request) for job in jobs])] = worker

    def _may_wait_in(self, worker: _Worker) -> bool:
        """Whether a worker whose places are taken gets another episode, so that it is at hand.

        Not what others may have places for sooner; and not behind one that may end this worker, as it did another.
        """
        spare = ahead(self._places)
        if len(worker.given) >= self._places + spare or len(self._queue) <= spare * (len(self._workers) - 1):
            return False
        return not any(job.tries for job in worker.given.values())

    def _started(self, index: int, failures: int = 0) -> _Worker:
        """A new worker that opens with the weights of now."""
        assert self._cluster is not None
        handle = self._cluster.actor(RolloutWorker, index, CALLS)
        poll = handle.open.remote(
            self._make, self._serving, os.getcwd(), sys.path, torch.get_num_threads(), self._places
        )
        return _Worker(index, handle, poll, time.monotonic(), failures=failures)

    # The thread

    def _keep_going(self) -> None:
        """Take what workers have done, give them more, and replace those that died or hang."""
        try:
            while not self._closing:
                polls = {worker.poll: worker for worker in list(self._workers)}
                ready, _ = self._ray.wait([*polls, *self._sent], num_returns=1, timeout=POLL_S)
                with self._changed:
                    for call in ready if not self._closing else ():
                        if call in polls:
                            self._answered(polls[call], call)
                        else:
                            self._answered(self._sent.pop(call), call)
                    self._replace_silent()
                    self._feed()
                    self._changed.notify_all()
        except BaseException as error:  # told by the learner's thread
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _answered(self, worker: _Worker, call: Any) -> None:
        """What a call came to. Nothing where the worker has been replaced meanwhile."""
        if worker not in self._workers:
            return
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(call)
        except errors.RayTaskError as error:
            if isinstance(error.cause, LudusError):
                self._error = error.cause
            else:
                self._replace(worker, f"failed ({first_line(error.cause)})")
            return
        except errors.ActorUnavailableError as error:
            # It may answer again, but episodes may be lost that this call was to give it; a poll can be made again.
            if call is not worker.poll or worker.info is None or worker.failures + 1 >= TRIES:
                return self._replace(worker, f"cannot be reached ({first_line(error)})")
            worker.failures += 1
            answer = None
        except errors.RayError as error:
            return self._replace(worker, f"died ({_cause_of_death(error)})")
        if isinstance(answer, WorkerInfo):
            worker.info = answer
        elif isinstance(answer, Report):
            self._take_report(worker, answer)
        if call is worker.poll and worker in self._workers:
            worker.poll = worker.handle.collect.remote(worker.seen, POLL_S)
            worker.since = time.monotonic()

    def _take_report(self, worker: _Worker, report: Report) -> None:
        worker.generated = report.generated_tokens
        worker.seen = list(report.done)
        for ticket, outcome in report.done.items():
            job = worker.given.pop(ticket, None)
            if job is None:  # told before
                continue
            if isinstance(outcome, bytes):
                episode: Episode = pickle.loads(outcome)
                self._queue.learn(episode.env, sum(sum(path.mask) for path in episode.trajectories))
                self._done[ticket] = episode
                worker.failures = 0
            elif isinstance(outcome, LudusError):
                self._error = self._error or outcome
            else:
                worker.given[ticket] = job
                return self._replace(worker, f"is broken ({first_line(outcome)})")

    def _replace_silent(self) -> None:
        for worker in list(self._workers):
            patience = POLL_S + self._config.reply_deadline_s if worker.info is not None else START_S
            if time.monotonic() - worker.since > patience:
                self._replace(worker, f"has not answered for {patience:.0f} s")

    def _replace(self, worker: _Worker, why: str) -> None:
        """Start another worker in the place of one, and play there what that one played."""
        if worker not in self._workers or self._closing:
            return
        self._ray.kill(worker.handle)
        self._gone_tokens += worker.generated
        failed = 0
        for job in worker.given.values():
            job.tries += 1
            if job.tries < TRIES:
                self._queue.push(job)
            else:
                failed += 1
                said = f"{TRIES} workers were lost while they played it, the last because it {why}"
                self._done[job.ticket] = failed_episode(job.request, said)
        again = len(worker.given) - failed
        note = f"Ray worker {worker.index} {why}; another takes its place, and {again} episodes begin again"
        self._notes.append(f"{note}{f', {failed} are given up' if failed else ''}.")
        failures = worker.failures + 1
        if failures > TRIES:
            self._error = RayError(
                f"Ray worker {worker.index} was lost {failures} times without an episode done, the last time because it"
                f" {why}; see to that and go on with `ludus train --resume`."
            )
            return
        self._workers[worker.index] = self._started(worker.index, failures)

    def _end_workers(self) -> None:
        """Let workers close their environments, and end them."""
        with contextlib.suppress(Exception):  # whatever is wrong with one by now
            calls = [worker.handle.close.remote() for worker in self._workers if worker.info is not None]
            if calls:
                self._ray.wait(calls, num_returns=len(calls), timeout=CLOSE_S)
        for worker in self._workers:
            with contextlib.suppress(Exception):
                self._ray.kill(worker.handle)

    def _loaded(self, worker: _Worker, call: Any) -> None:
        """Raise what a worker found wrong with new weights. One that died is replaced by the thread."""
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, LudusError) and not isinstance(error.cause, EngineError):
                raise error.cause from None
            with self._changed:
                self._replace(worker, f"could not load the weights ({first_line(error.cause)})")
        except self._ray.exceptions.ActorUnavailableError as error:  # it would go on with the weights of before
            with self._changed:
                self._replace(worker, f"could not load the weights ({first_line(error)})")
        except self._ray.exceptions.RayError:
            pass


def _cause_of_death(error: BaseException) -> str:
    """Ray's many lines on a dead actor, as far as they say why."""
    text = " ".join(str(error).split())
    for known in ("The actor died because", "Worker exit detail:", "The actor is dead because"):
        if known in text:
            return text.partition(known)[2].strip()[:200].rstrip(".")
    return first_line(error)

"""RolloutWorker: one engine and the environments of a run, in a process of its own; Ray makes an actor of it.

Invariant: every episode that was given comes back until it was acknowledged, so that no lost reply loses an episode
(tests/test_ray.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ..agents.engine import EngineError, TrainingEngine, is_exact
from ..agents.rollout import EpisodeRequest, Rollout
from ..agents.torch_engine import TorchEngine
from ..agents.trajectory import Episode
from ..agents.weights import Proof, Sent, digests, plain_weights, prove, read_weights
from ..sandbox.errors import LudusError
from .checkpoint import put_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INLINE_BYTES = 60_000
"""Episodes in one reply, pickled. What Ray sends with a reply and not through its object store is below 100 kB."""
GATHER_S = 0.1
"""How long a reply may wait for more episodes; each costs the learner, and the cores that it shares with workers."""


def ahead(places: int) -> int:
    """Episodes that wait in a worker, so that none of its places stays empty until the learner has sent another."""
    return places // 2


@dataclass(frozen=True)
class Workplace:
    """What a worker works with. load: has the engine serve weights that were sent, and proves it."""

    rollout: Rollout
    load: Callable[[Sent], Proof]


@dataclass(frozen=True)
class WorkerInfo:
    """What the learner has to know of a worker's engine."""

    exact: bool
    max_length: int
    pid: int


@dataclass(frozen=True)
class Report:
    """What a worker has to tell. done: by ticket, pickled episodes, or what they failed with. generated_tokens: of its
    engine since it began."""

    done: dict[int, bytes | BaseException]
    generated_tokens: int


class WorkerBrokenError(Exception):
    """An engine or environment failed in a way that another process may not."""


class RolloutWorker:
    """Plays the episodes it is given, in that order, and keeps each until it was acknowledged. `open` comes first."""

    _place: Workplace
    _engine: TrainingEngine
    _free: asyncio.Semaphore
    _enough: int

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: set[int] = set()
        self._done: dict[int, bytes | BaseException] = {}
        self._news = asyncio.Event()
        self._opened = asyncio.Event()

    async def open(
        self, make: bytes, sent: Sent, cwd: str, path: Sequence[str], threads: int, places: int
    ) -> WorkerInfo:
        """Build the engine and the environments. make: a pickled function that does so for weights that were sent. cwd,
        path, threads: the learner's folder, where it finds modules, and its threads. places: episodes played at once.

        Not in the constructor, whose errors Ray tells by their traceback alone.
        """
        torch.set_num_threads(threads)
        with contextlib.suppress(OSError):  # on another machine there may be no such folder
            os.chdir(cwd)
        sys.path += [place for place in path if place not in sys.path]
        self._free, self._enough = asyncio.Semaphore(places), ahead(places) // 2
        self._place = pickle.loads(make)(sent)
        self._place.load(sent)
        self._engine = self._place.rollout.engine  # type: ignore[assignment]
        self._opened.set()
        return WorkerInfo(is_exact(self._engine), getattr(self._engine, "max_length", 2**31), os.getpid())

    async def submit(self, requests: Sequence[tuple[int, EpisodeRequest]]) -> None:
        """Play as soon as there are places; each request with a ticket under which its episode comes back."""
        for ticket, request in requests:
            self._waiting.add(ticket)
            self._tasks[ticket] = task = asyncio.ensure_future(self._play(ticket, request))
            # Not in `_play`, of which no line is run where this is given up at once.
            task.add_done_callback(partial(self._over, ticket))

    async def cancel(self, tickets: Sequence[int]) -> None:
        """Give up what is wanted no more."""
        for ticket in tickets:
            self._done.pop(ticket, None)
            if ticket in self._tasks:
                self._tasks[ticket].cancel()

    async def collect(self, seen: Sequence[int], wait_s: float) -> Report:
        """What is done and not among the tickets `seen`, which are forgotten; waits until there is something, and a
        little for more while a reply has room for it and enough is left here to play."""
        for ticket in seen:
            self._done.pop(ticket, None)
        await self._until(lambda: bool(self._done), wait_s)
        await self._until(
            lambda: len(self._waiting) <= self._enough or sum(map(_size, self._done.values())) > INLINE_BYTES, GATHER_S
        )
        found: dict[int, bytes | BaseException] = {}
        size = 0
        for ticket, outcome in self._done.items():
            size += _size(outcome)
            if found and size > INLINE_BYTES:
                break
            found[ticket] = outcome
        return Report(found, self._engine.generated_tokens)

    async def load(self, sent: Sent) -> Proof:
        """Serve weights that were sent, and prove it; generations under way go on with them."""
        await self._opened.wait()  # Ray may call this first
        interrupt = getattr(self._engine, "interrupt", None)
        if self._tasks and interrupt is not None:
            interrupt()
        return self._place.load(sent)

    async def close(self) -> None:
        """Give up what is being played and close the environments."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._place.rollout.close()
        close = getattr(self._engine, "close", None)  # of an engine with processes of its own
        if close is not None:
            close()

    async def _until(self, condition: Callable[[], bool], most_s: float) -> None:
        """Wait until an episode's end makes the condition true, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while not condition():
                    self._news.clear()
                    await self._news.wait()

    async def _play(self, ticket: int, request: EpisodeRequest) -> None:
        try:
            async with self._free:
                self._waiting.discard(ticket)
                episode: Episode = await self._place.rollout.episode(request)
            self._done[ticket] = pickle.dumps(episode, pickle.HIGHEST_PROTOCOL)
        except EngineError as error:  # such as that its process has ended
            self._done[ticket] = WorkerBrokenError(str(error))
        except LudusError as error:
            self._done[ticket] = LudusError(str(error)) if not _travels(error) else error
        except Exception as error:
            self._done[ticket] = WorkerBrokenError(f"{type(error).__name__}: {error}")
        finally:
            self._news.set()

    def _over(self, ticket: int, _: asyncio.Task[None]) -> None:
        del self._tasks[ticket]
        self._waiting.discard(ticket)


def load_sent(sent: Sent, device: str) -> PreTrainedModel:
    """The model whose weights, and configuration beside them, were sent; in float32."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(sent.path.parent, dtype=torch.float32)
    return model.to(device).eval()


def serve_sent(engine: TorchEngine, model: PreTrainedModel, sent: Sent) -> Proof:
    """Read weights into a model and have an engine serve them. TransferError where it does not serve just these."""
    put_weights(model, dict(read_weights(sent.path)))
    engine.load_weights(model, sent.version)
    arrived, most = digests(plain_weights(model)), engine.max_length
    probe = replace(sent.probe, token_ids=sent.probe.token_ids[:most], logprobs=sent.probe.logprobs[: most - 1])
    logprobs = engine.probe(probe.token_ids)
    return prove(
        replace(sent, probe=probe),
        engine.version,
        arrived,
        logprobs,
        engine.decoder.dtype,
        "The engine of a Ray worker",
    )


def _size(outcome: bytes | BaseException) -> int:
    """Of what is told of an episode, in bytes."""
    return len(outcome) if isinstance(outcome, bytes) else 0


def _travels(error: BaseException) -> bool:
    """Whether an error comes through pickling as it is."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False

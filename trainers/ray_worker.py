"""RolloutWorker: one engine and the environments of a run, in a process of its own; Ray makes an actor of it.

Invariant: every episode that was given comes back until it was acknowledged, so that no lost reply loses an episode
(tests/test_ray.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agents.engine import TrainingEngine, is_exact
from ..agents.rollout import EpisodeRequest, Rollout
from ..agents.trajectory import Episode
from ..sandbox.errors import LudusError

INLINE_BYTES = 60_000
"""Episodes in one reply, pickled. What Ray sends with a reply and not through its object store is below 100 kB."""


@dataclass(frozen=True)
class Workplace:
    """What a worker works with. load: reads the weights in a folder, so that the engine serves them as a version."""

    rollout: Rollout
    load: Callable[[Path, int], None]


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
    """Plays the episodes it is given, all at once, and keeps each until it was acknowledged. `open` comes first."""

    _place: Workplace
    _engine: TrainingEngine

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._done: dict[int, bytes | BaseException] = {}
        self._news = asyncio.Event()

    async def open(self, make: bytes, folder: Path, version: int, cwd: str, threads: int) -> WorkerInfo:
        """Build the engine and the environments. make: a pickled function that does so with a folder of weights. cwd,
        threads: the learner's.

        Not in the constructor, whose errors Ray tells by their traceback alone.
        """
        import torch

        torch.set_num_threads(threads)
        with contextlib.suppress(OSError):  # on another machine there may be no such folder
            os.chdir(cwd)
        self._place = pickle.loads(make)(folder)
        self._place.load(folder, version)
        self._engine = self._place.rollout.engine  # type: ignore[assignment]
        return WorkerInfo(is_exact(self._engine), getattr(self._engine, "max_length", 2**31), os.getpid())

    async def submit(self, requests: Sequence[tuple[int, EpisodeRequest]]) -> None:
        """Begin to play; each request with a ticket under which its episode comes back."""
        for ticket, request in requests:
            self._tasks[ticket] = asyncio.ensure_future(self._play(ticket, request))

    async def collect(self, seen: Sequence[int], wait_s: float) -> Report:
        """What is done and not among the tickets `seen`, which are forgotten; waits until there is something."""
        for ticket in seen:
            self._done.pop(ticket, None)
        if not self._done:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
        found: dict[int, bytes | BaseException] = {}
        size = 0
        for ticket, outcome in self._done.items():
            size += len(outcome) if isinstance(outcome, bytes) else 0
            if found and size > INLINE_BYTES:
                break
            found[ticket] = outcome
        return Report(found, self._engine.generated_tokens)

    async def load(self, folder: Path, version: int) -> None:
        """Serve the weights in a folder; generations under way go on with them."""
        interrupt = getattr(self._engine, "interrupt", None)
        if self._tasks and interrupt is not None:
            interrupt()
        self._place.load(folder, version)

    async def close(self) -> None:
        """Give up what is being played and close the environments."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._place.rollout.close()

    async def _play(self, ticket: int, request: EpisodeRequest) -> None:
        try:
            episode: Episode = await self._place.rollout.episode(request)
            self._done[ticket] = pickle.dumps(episode, pickle.HIGHEST_PROTOCOL)
        except LudusError as error:
            self._done[ticket] = LudusError(str(error)) if not _travels(error) else error
        except Exception as error:
            self._done[ticket] = WorkerBrokenError(f"{type(error).__name__}: {error}")
        finally:
            self._tasks.pop(ticket, None)
            self._news.set()


def _travels(error: BaseException) -> bool:
    """Whether an error comes through pickling as it is."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False

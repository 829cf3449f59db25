"""InFlight: groups that are played while the learner learns, and learnt from as they come.

Invariant: no group is learnt from more than `max_staleness` versions after that under which it was handed out, and each
step learns from as many groups as any other (tests/test_ray_async.py).
Source: AReaL (arXiv:2505.24298), section 5.1, whose rule bounds the groups handed out; the choice among those that are
done, which bounds the age of each of them, is ours.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from ..agents.engine import Sampling
from ..agents.rollout import EpisodeRequest, Player
from ..agents.trajectory import Episode
from .task_stream import TaskStream
from .unfinished import request_from, request_row, staleness


class Background(Protocol):
    """What plays episodes while its caller does something else."""

    def submit(self, requests: Sequence[EpisodeRequest]) -> list[int]:
        """Begin to play; the tickets under which episodes come back."""
        ...

    def take(self, tickets: Sequence[int]) -> dict[int, Episode]:
        """Those of the tickets whose episodes are done."""
        ...

    def wait(self, tickets: Sequence[int]) -> None:
        """Wait until one of the tickets is done."""
        ...

    def cancel(self, tickets: Sequence[int]) -> None:
        """Give tickets up."""
        ...

    def status(self) -> tuple[int, int]:
        """How many episodes are played now, and how many wait for a place."""
        ...


@dataclass(eq=False)
class _Group:
    """Episodes that share a baseline and are learnt from together. first: the version they were handed out under."""

    requests: list[EpisodeRequest]
    first: int
    tickets: list[int] = field(default_factory=list)
    episodes: dict[int, Episode] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        return [ticket for ticket in self.tickets if ticket not in self.episodes]

    @property
    def done(self) -> bool:
        return bool(self.tickets) and not self.missing


@dataclass
class InFlight:
    """The groups under way, as they were handed out, and those of them that are done, as they came.

    max_staleness: versions that a group may be old when it is learnt from. At 0 nothing is played ahead. steps: of the
    whole run, for which nothing is played in vain.
    """

    pool: Background
    max_staleness: int
    steps: int | None = None
    groups: list[_Group] = field(default_factory=list)
    done: list[_Group] = field(default_factory=list)
    waited_s: float = 0.0

    def play(self, rollout: Player, stream: TaskStream, wanted: int, version: int) -> list[Episode]:
        """Hand out what there is room for; the episodes of `wanted` groups, as soon as so many may be learnt from."""
        ahead = self.max_staleness if self.steps is None else min(self.max_staleness, self.steps - version - 1)
        count = capacity(ahead, version, wanted, version * wanted, len(self.groups))
        for _, requests in groupby(stream.groups(count), key=lambda request: request.group):
            self.groups.append(_Group(list(requests), version))
        for group in self.groups:
            if not group.tickets:
                group.tickets = self.pool.submit(group.requests)
        began = time.monotonic()
        while True:
            self._gather()
            ages = [version - group.first for group in self.groups]
            ready = [self.groups.index(group) for group in self.done]
            chosen = choose(ages, ready, wanted, self.max_staleness)
            if chosen is not None:
                break
            self.pool.wait([ticket for group in self.groups for ticket in group.missing])
        self.waited_s = time.monotonic() - began
        found = [self.groups[index] for index in chosen]
        self.groups = [group for group in self.groups if group not in found]
        self.done = [group for group in self.done if group not in found]
        return [group.episodes[ticket] for group in found for ticket in group.tickets]

    def _gather(self) -> None:
        for group in self.groups:
            if group not in self.done:
                group.episodes |= self.pool.take(group.missing)
                if group.done:
                    self.done.append(group)

    def curves(self, episodes: Iterable[Episode], step: int) -> dict[str, float]:
        """How old what was learnt from is, what goes on meanwhile, and how long the learner waited."""
        playing, queued = self.pool.status()
        return {
            "staleness": staleness(episodes, step),
            "in_flight": float(playing),
            "queued": float(queued),
            "waited_seconds": self.waited_s,
        }

    def names(self) -> list[str]:
        """The groups under way."""
        return [group.requests[0].group for group in self.groups]

    def close(self) -> None:
        """Give up what is under way."""
        self.pool.cancel([ticket for group in self.groups for ticket in group.tickets])
        self.groups, self.done = [], []

    def state(self) -> str:
        """What a checkpoint keeps, as JSON: the groups, to be played again from their beginning."""
        return json.dumps([{"requests": list(map(request_row, g.requests)), "first": g.first} for g in self.groups])

    def restore(self, state: str, sampling: Sampling) -> None:
        """Continue where `state` was taken."""
        self.groups = [
            _Group([request_from(r, sampling) for r in row["requests"]], row["first"]) for row in json.loads(state)
        ]


def capacity(max_staleness: int, version: int, batch: int, accepted: int, running: int) -> int:
    """How many groups may be handed out: `(eta + version + 1) batch - (accepted + running)`.

    batch: groups of a step. accepted: learnt from so far. running: handed out and not learnt from.
    Source: AReaL, equation 3, whose other bound, on what is played at once, the pool keeps by its queue.
    """
    return max((max_staleness + version + 1) * batch - (accepted + running), 0)


def choose(ages: Sequence[int], done: Sequence[int], wanted: int, max_staleness: int) -> list[int] | None:
    """Which groups to learn from now; None where it is to be waited for.

    ages: of all groups under way, in versions. done: indices of those whose episodes are, first come first. As they
    came, but so that all that are under way can be learnt from in time, by steps of `wanted` groups.
    """
    chosen: list[int] = []
    for age in range(max_staleness, -1, -1):
        # Those of this age and older have max_staleness - age more steps after this one.
        due = [index for index, own in enumerate(ages) if own >= age]
        needed = len(due) - wanted * (max_staleness - age) - sum(index in due for index in chosen)
        ready = [index for index in done if index in due and index not in chosen]
        if needed > len(ready):
            return None
        chosen += ready[: max(needed, 0)]
    chosen += [index for index in done if index not in chosen][: wanted - len(chosen)]
    return chosen if len(chosen) == wanted else None

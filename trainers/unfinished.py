"""Unfinished: episodes that one policy began and the next goes on with (partial rollouts).

Invariant: which episodes are played, how far, and by which policy follows from their own lengths and the steps taken;
with what a checkpoint keeps, a resumed run goes on as one that was not interrupted (tests/test_partial_rollouts.py).
Source: Kimi k1.5 (arXiv:2501.12599), section 2.6.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from ..agents.engine import Sampling
from ..agents.rollout import PAUSED, EpisodeRequest, Player
from ..agents.trajectory import Episode
from ..envs.task import Task
from .task_stream import TaskStream


@dataclass
class _Group:
    """Episodes that share a baseline and are learnt from together. first: the version that began them."""

    requests: list[EpisodeRequest]
    episodes: list[Episode | None]
    first: int

    @property
    def done(self) -> bool:
        return all(episode is not None and episode.stop_reason != PAUSED for episode in self.episodes)


@dataclass
class Unfinished:
    """The groups under way.

    budget: tokens that an episode may sample at a time. max_staleness: versions after which a group is played to its
    end, so that nothing older is learnt from.
    """

    budget: int
    max_staleness: int
    groups: list[_Group] = field(default_factory=list)

    def play(self, rollout: Player, stream: TaskStream, wanted: int, version: int) -> list[Episode]:
        """Go on with what is under way, `wanted` groups with the new ones; the episodes of those that are done.

        Where there is nothing to learn from among them, as where a task is broken, all are gone on with, until there is
        or none is left.
        """
        fresh = stream.groups(max(wanted - len(self.groups), 0))
        for _, requests in groupby(fresh, key=lambda request: request.group):
            own = list(requests)
            self.groups.append(_Group(own, [None] * len(own), version))
        while True:
            self._go_on(rollout, version)
            done = [group for group in self.groups if group.done]
            if any(_teaches(episode) for group in done for episode in group.episodes) or len(done) == len(self.groups):
                self.groups = [group for group in self.groups if not group.done]
                return [episode for group in done for episode in group.episodes if episode is not None]

    def _go_on(self, rollout: Player, version: int) -> None:
        places, requests = [], []
        for group in self.groups:
            budget = None if version - group.first >= self.max_staleness else self.budget
            for place, (request, episode) in enumerate(zip(group.requests, group.episodes, strict=True)):
                if episode is None or episode.stop_reason == PAUSED:
                    places.append((group, place))
                    requests.append(replace(request, budget=budget, begun=episode))
        for (group, place), episode in zip(places, rollout.run(requests), strict=True):
            group.episodes[place] = episode

    def curves(self, episodes: Iterable[Episode], step: int) -> dict[str, float]:
        """How old what is learnt from is, and how many episodes the next policy goes on with."""
        return {"staleness": staleness(episodes, step), "paused": float(self.paused)}

    def names(self) -> list[str]:
        """The groups under way."""
        return [group.requests[0].group for group in self.groups]

    @property
    def paused(self) -> int:
        """Episodes that the next policy goes on with."""
        return sum(e is not None and e.stop_reason == PAUSED for group in self.groups for e in group.episodes)

    def state(self) -> str:
        """What a checkpoint keeps, as JSON."""
        return json.dumps([_row(group) for group in self.groups])

    def restore(self, state: str, sampling: Sampling) -> None:
        """Continue where `state` was taken."""
        self.groups = [
            _Group(
                [request_from(r, sampling) for r in row["requests"]],
                [None if episode is None else Episode.from_json(episode) for episode in row["episodes"]],
                row["first"],
            )
            for row in json.loads(state)
        ]


def staleness(episodes: Iterable[Episode], version: int) -> float:
    """Mean over sampled tokens of how many versions ago they were sampled."""
    lags = [
        version - v for e in episodes for t in e.trajectories for v, own in zip(t.versions, t.mask, strict=True) if own
    ]
    return sum(lags) / max(len(lags), 1)


def request_row(request: EpisodeRequest) -> dict[str, object]:
    """A request without its sampling, which the run's recipe has, as plain JSON types."""
    named = {name: getattr(request, name) for name in ("id", "env", "group", "seed")}
    return {**named, "task": request.task.to_json()}


def request_from(row: dict[str, Any], sampling: Sampling) -> EpisodeRequest:
    """The inverse of `request_row`."""
    return EpisodeRequest(sampling=sampling, **{**row, "task": Task.from_json(row["task"])})


def _teaches(episode: Episode | None) -> bool:
    return episode is not None and episode.reward is not None and bool(episode.trajectories)


def _row(group: _Group) -> dict[str, object]:
    requests = [request_row(request) for request in group.requests]
    episodes = [None if episode is None else episode.to_json() for episode in group.episodes]
    return {"requests": requests, "episodes": episodes, "first": group.first}

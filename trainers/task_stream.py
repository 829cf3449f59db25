"""TaskStream: which task comes next, for runs over several environments; its cursor goes into the checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..agents.engine import Sampling
from ..agents.rollout import Arena, EpisodeRequest
from ..agents.seeds import derive_seed
from ..envs.source import epoch_index


@dataclass
class TaskStream:
    """Hands out groups of episodes, each on one task of one arena, chosen by weight and seed alone.

    cursors: groups handed out so far, by arena; `total` over all.
    """

    arenas: list[tuple[Arena, float]]
    seed: int
    group_size: int
    sampling: Sampling
    total: int = 0
    cursors: dict[str, int] = field(default_factory=dict)

    def groups(self, count: int) -> list[EpisodeRequest]:
        """The next `count` groups, episode by episode."""
        requests: list[EpisodeRequest] = []
        weights = np.array([weight for _, weight in self.arenas])
        for _ in range(count):
            rng = np.random.default_rng(derive_seed(self.seed, "arena", self.total))
            arena = self.arenas[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
            cursor = self.cursors.get(arena.name, 0)
            task = arena.task(epoch_index(cursor, arena.size, derive_seed(self.seed, "tasks", arena.name) % 2**31))
            group = f"{arena.name}/{self.total}"
            requests += [
                EpisodeRequest(
                    id=f"{group}/{sample}",
                    env=arena.name,
                    task=task,
                    group=group,
                    seed=derive_seed(self.seed, group, sample),
                    sampling=self.sampling,
                )
                for sample in range(self.group_size)
            ]
            self.cursors[arena.name] = cursor + 1
            self.total += 1
        return requests

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"total": self.total, "cursors": dict(self.cursors)}

    def restore(self, state: dict[str, object]) -> None:
        """Continue where `state` was taken."""
        self.total = int(state["total"])  # type: ignore[call-overload]
        self.cursors = dict(state["cursors"])  # type: ignore[call-overload]

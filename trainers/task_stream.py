"""TaskStream: which task comes next, for runs over several environments; its cursor goes into the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..agents.engine import Sampling
from ..agents.rollout import Arena, EpisodeRequest
from ..agents.seeds import derive_seed
from ..agents.trajectory import Episode
from ..envs.source import epoch_index
from ..envs.task import Task
from .curriculum import Curriculum, CurriculumError
from .ledger import Ledger


@dataclass
class TaskStream:
    """Hands out groups of episodes, each on one task of one arena, chosen by weight and seed, and by a curriculum.

    cursors: tasks looked at so far, by arena; total: groups handed out so far. ledger: is told of each.
    """

    arenas: list[tuple[Arena, float]]
    seed: int
    group_size: int
    sampling: Sampling
    curriculum: Curriculum | None = None
    ledger: Ledger | None = None
    total: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    _kinds: dict[str, str] = field(default_factory=dict)

    def groups(self, count: int) -> list[EpisodeRequest]:
        """The next `count` groups, episode by episode."""
        requests: list[EpisodeRequest] = []
        weights = np.array([weight for _, weight in self.arenas])
        for _ in range(count):
            rng = np.random.default_rng(derive_seed(self.seed, "arena", self.total))
            arena = self.arenas[int(rng.choice(len(weights), p=weights / weights.sum()))][0]
            group = f"{arena.name}/{self.total}"
            task = self._next(arena, group)
            if self.ledger is not None:
                self.ledger.hand_out([group])
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
            self.total += 1
        return requests

    def _next(self, arena: Arena, group: str) -> Task:
        seed = derive_seed(self.seed, "tasks", arena.name) % 2**31
        cursor = self.cursors.get(arena.name, 0)
        looked_at = 1 if self.curriculum is None else self.curriculum.config.candidates
        tasks = [arena.task(epoch_index(cursor + n, arena.size, seed)) for n in range(looked_at)]
        self.cursors[arena.name] = cursor + looked_at
        if self.curriculum is None:
            return tasks[0]
        if self.curriculum.config.key is None and arena.size is None:
            raise CurriculumError(
                f"policy.curriculum.key is null, and {arena.name} never asks a task twice; name an entry of its tasks' "
                f"data ({', '.join(sorted(tasks[0].data)) or 'they have none'})."
            )
        kinds = [self.curriculum.kind(arena.name, task) for task in tasks]
        rng = np.random.default_rng(derive_seed(self.seed, "curriculum", self.total))
        chosen = self.curriculum.choose(kinds, rng)
        self._kinds[group] = kinds[chosen]
        return tasks[chosen]

    def learn(self, played: Sequence[Episode]) -> dict[str, float]:
        """Tell the curriculum how the groups went that were handed out since the last time; its curves."""
        kinds, self._kinds = self._kinds, {}
        if self.curriculum is None:
            return {}
        self.curriculum.learn(played, kinds)
        return self.curriculum.curves()

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        kept: dict[str, object] = {"total": self.total, "cursors": dict(self.cursors)}
        return kept if self.curriculum is None else {**kept, "curriculum": self.curriculum.state()}

    def restore(self, state: dict[str, object]) -> None:
        """Continue where `state` was taken."""
        self.total = int(state["total"])  # type: ignore[call-overload]
        self.cursors = dict(state["cursors"])  # type: ignore[call-overload]
        if self.curriculum is not None and "curriculum" in state:
            self.curriculum.restore(state["curriculum"])  # type: ignore[arg-type]

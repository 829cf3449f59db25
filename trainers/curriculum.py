"""Curriculum: which tasks are worth playing now, from how often tasks of their kind were solved.

Invariant: what is chosen follows from the seed, the rule and the state alone; the state goes into the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..agents.trajectory import Episode
from ..envs.task import Task
from ..sandbox.errors import LudusError
from ..verifiers.verdict import Outcome
from .config import CurriculumConfig

SHOWN = 20
"""Kinds that have a curve of their own; more would be no picture."""


class CurriculumError(LudusError):
    """Tasks that cannot be told apart as a curriculum wants it."""


@dataclass
class Curriculum:
    """What is known of each kind of task, and the rule that chooses among tasks by it.

    rates: by kind, the moving average of the share of episodes that were solved. reach: of `self_paced`, how much of a
    kind may fail for it to be played.
    """

    config: CurriculumConfig
    rates: dict[str, float] = field(default_factory=dict)
    reach: float = 0.0

    def __post_init__(self) -> None:
        self.reach = self.reach or self.config.reach

    def kind(self, env: str, task: Task) -> str:
        """What tasks like this one are called. CurriculumError where the task lacks the entry that says it."""
        key = self.config.key
        if key is None:
            return f"{env}/{task.hash}"
        if key not in task.data:
            known = ", ".join(sorted(task.data)) or "none"
            raise CurriculumError(
                f"policy.curriculum.key = {key!r}: the tasks of {env} have no such entry in their data; choose one of "
                f"those they have ({known}), or null to tell every task apart."
            )
        return f"{env}/{task.data[key]}"

    def weights(self, kinds: Sequence[str]) -> np.ndarray:
        """How much each of the kinds is wanted now, above 0; the unknown as much as any."""
        wanted = [kind not in self.rates or self._within(self.rates[kind]) for kind in kinds]
        return np.where(wanted, 1.0, self.config.outside)

    def choose(self, kinds: Sequence[str], rng: np.random.Generator) -> int:
        """The index of the task that is played, of candidates of these kinds."""
        weights = self.weights(kinds)
        return int(rng.choice(len(kinds), p=weights / weights.sum()))

    def learn(self, played: Sequence[Episode], kinds: Mapping[str, str]) -> None:
        """Take in how groups went. kinds: by group. Episodes that could not be judged count for nothing."""
        groups: dict[str, list[float]] = {}
        for episode in played:
            if episode.reward is not None and episode.group in kinds:
                groups.setdefault(episode.group, []).append(solved(episode))
        for group, shares in groups.items():
            kind, share = kinds[group], float(np.mean(shares))
            before = self.rates.get(kind, share)
            self.rates[kind] = self.config.memory * before + (1 - self.config.memory) * share
        if self.config.rule == "self_paced" and self.rates:
            inside = [rate for rate in self.rates.values() if self._within(rate)]
            if not inside or np.mean(inside) >= self.config.high:
                self.reach = min(self.reach + self.config.pace, 1.0)

    def curves(self) -> dict[str, float]:
        """What to show of it: how many kinds are known and wanted, and of up to 20 how often they are solved."""
        wanted = sum(self._within(rate) for rate in self.rates.values())
        found = {"curriculum/kinds": float(len(self.rates)), "curriculum/wanted": float(wanted)}
        if self.config.rule == "self_paced":
            found["curriculum/reach"] = self.reach
        if len(self.rates) <= SHOWN:
            found |= {f"solved/{kind}": rate for kind, rate in sorted(self.rates.items())}
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rates": dict(self.rates), "reach": self.reach}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.rates, self.reach = dict(state["rates"]), float(state["reach"])

    def _within(self, rate: float) -> bool:
        if self.config.rule == "band":
            return self.config.low <= rate <= self.config.high
        return 1 - rate <= self.reach + 1e-9


def solved(episode: Episode) -> float:
    """1 where the verifier found the answer right, 0 where not; the reward, held within 0 and 1, without a verifier."""
    if episode.verdict is not None:
        return float(episode.verdict.outcome is Outcome.CORRECT)
    return min(max(episode.reward or 0.0, 0.0), 1.0)

"""Ledger: what became of every group that was handed out.

Invariant: each is accounted for exactly once, as learnt from, dropped for a reason, or given back; what is not is an
error that names it (tests/test_ledger.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..sandbox.errors import LudusError

ROLLED_BACK = "rolled back"
SHOWN = 5


class LedgerError(LudusError):
    """A group was lost, or counted twice: a fault in Ludus."""


@dataclass
class Ledger:
    """open: groups handed out and not accounted for. dropped: how many, by reason."""

    open: dict[str, None] = field(default_factory=dict)
    learnt: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def handed_out(self) -> int:
        """How many there were in all."""
        return len(self.open) + self.learnt + self.dropped.total()

    def hand_out(self, groups: Iterable[str]) -> None:
        """Groups were taken from the task stream."""
        for group in groups:
            if group in self.open:
                raise LedgerError(f"The group {group} was handed out twice; please report this.")
            self.open[group] = None

    def learn(self, groups: Iterable[str]) -> None:
        """They were learnt from."""
        self.learnt += self._settle(groups, "learnt from")

    def drop(self, groups: Iterable[str], reason: str) -> None:
        """They are not learnt from, and never will be."""
        self.dropped[reason] += self._settle(groups, reason)

    def finish(self, left: Iterable[str]) -> str:
        """The end of a run, which gives back what is `left`; what became of all groups, in one line."""
        back = self._settle(left, "given back")
        if self.open:
            names = ", ".join(list(self.open)[:SHOWN])
            more = "" if len(self.open) <= SHOWN else f" and {len(self.open) - SHOWN} more"
            raise LedgerError(f"Nobody knows what became of the groups {names}{more}; please report this.")
        parts = {"learnt from": self.learnt, **self.dropped, "given back": back}
        shown = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
        return f"Groups handed out: {self.handed_out + back}{f' ({shown})' if shown else ''}."

    def roll_back(self, state: dict[str, Any]) -> None:
        """The run went back to where `state` was taken: what came since is dropped, and what was under way."""
        undone = self.learnt - int(state["learnt"]) + len(self.open)
        self.learnt = int(state["learnt"])
        self.dropped[ROLLED_BACK] += undone
        self.open.clear()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain types; what is open, whoever plays it keeps."""
        return {"learnt": self.learnt, "dropped": dict(self.dropped)}

    @classmethod
    def restored(cls, state: dict[str, Any] | None, left: Iterable[str]) -> Ledger:
        """As it was when `state` was taken, and `left` under way."""
        state = state or {"learnt": 0, "dropped": {}}
        return cls(dict.fromkeys(left), int(state["learnt"]), Counter(state["dropped"]))

    def _settle(self, groups: Iterable[str], what: str) -> int:
        count = 0
        for group in dict.fromkeys(groups):
            if group not in self.open:
                raise LedgerError(f"The group {group} is {what}, and was not under way; please report this.")
            del self.open[group]
            count += 1
        return count

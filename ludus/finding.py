"""Finding: one thing that is wrong with a run, in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad it is."""

    WARNING = "warning"
    """Time is wasted, or it may go wrong."""
    SERIOUS = "serious"
    """What the run learns from here on is lost or wrong."""


@dataclass(frozen=True)
class Finding:
    """name: of the check. wrong: one sentence with the figures. change: what to do, with keys of the recipe. step: the
    policy step at which it was seen."""

    name: str
    wrong: str
    change: str
    step: int
    severity: Severity

    def to_json(self) -> dict[str, Any]:
        """What a run logs of it, beside the step of the evaluation at which it was seen."""
        return {"name": self.name, "severity": self.severity.value, "wrong": self.wrong, "change": self.change}

    def __str__(self) -> str:
        """One line."""
        return f"{self.name} ({self.severity}, step {self.step}): {self.wrong} {self.change}"

"""Verdict: what a verifier says of one response.

Invariant: *unscored is None, never 0*. A verdict carries a number only where the response itself was judged; an
infrastructure failure is ERROR with no value, and whoever asks for its reward gets an InfrastructureError instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a judgement ended."""

    CORRECT = "correct"
    """The response is right."""
    WRONG = "wrong"
    """The response is not right."""
    PARTIAL = "partial"
    """Some of it is right; the value, strictly between 0 and 1, says how much."""
    UNDECIDED = "undecided"
    """The verifier could not tell. It trains as 0 and is counted apart."""
    ERROR = "error"
    """The infrastructure failed; the response was not judged. It never becomes a reward."""


class InfrastructureError(RuntimeError):
    """Something around the policy failed (a sandbox, a grader, an endpoint): no reward may be made of it."""


@dataclass(frozen=True)
class Verdict:
    """One judgement. `value` is None exactly for UNDECIDED and ERROR; `evidence` is JSON data for the reader."""

    outcome: Outcome
    value: float | None
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in list(Outcome):
            known = ", ".join(Outcome)
            raise ValueError(f"A verdict cannot have the outcome {self.outcome!r}; choose one of {known}.")
        object.__setattr__(self, "outcome", Outcome(self.outcome))
        if (self.value is None) != (self.outcome in (Outcome.UNDECIDED, Outcome.ERROR)):
            raise ValueError(f"A verdict {self.outcome.name} cannot have the value {self.value!r}.")

    @classmethod
    def correct(cls, reason: str, **evidence: Any) -> Verdict:
        """Right: value 1."""
        return cls(Outcome.CORRECT, 1.0, reason, evidence)

    @classmethod
    def wrong(cls, reason: str, **evidence: Any) -> Verdict:
        """Not right: value 0."""
        return cls(Outcome.WRONG, 0.0, reason, evidence)

    @classmethod
    def undecided(cls, reason: str, **evidence: Any) -> Verdict:
        """Could not tell: no value."""
        return cls(Outcome.UNDECIDED, None, reason, evidence)

    @classmethod
    def error(cls, reason: str, **evidence: Any) -> Verdict:
        """The infrastructure failed: no value."""
        return cls(Outcome.ERROR, None, reason, evidence)

    @property
    def reward(self) -> float:
        """The number to train on: the value, 0 for UNDECIDED. Raises InfrastructureError for ERROR."""
        if self.outcome is Outcome.ERROR:
            raise InfrastructureError(self.reason)
        return 0.0 if self.value is None else self.value

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types."""
        return {"outcome": self.outcome.value, "value": self.value, "reason": self.reason, "evidence": self.evidence}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Verdict:
        """The inverse of `to_json`."""
        return cls(row["outcome"], row["value"], row["reason"], row["evidence"])

"""Verdict: what a verifier says of one response.

Invariant: *unscored is None, never 0*. A verdict carries a number only where the response itself was judged; an
infrastructure failure is ERROR with no value, and whoever asks for its reward gets an InfrastructureError instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
    """Not simply right or wrong; the value says how much: a share of 1, a score, a sum, or a penalty below 0."""
    UNDECIDED = "undecided"
    """The verifier could not tell. It trains as 0 and is counted apart."""
    ERROR = "error"
    """The infrastructure failed; the response was not judged. It never becomes a reward."""


class InfrastructureError(RuntimeError):
    """Something around the policy failed (a sandbox, a grader, an endpoint): no reward may be made of it."""


@dataclass(frozen=True)
class Verdict:
    """One judgement. `value` is None exactly for UNDECIDED and ERROR; `evidence` is JSON data for the reader.

    parts: where several verifiers were asked, what each of them said, by name (and they may have parts of their own).
    """

    outcome: Outcome
    value: float | None
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Verdict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outcome not in list(Outcome):
            known = ", ".join(Outcome)
            raise ValueError(f"A verdict cannot have the outcome {self.outcome!r}; choose one of {known}.")
        object.__setattr__(self, "outcome", Outcome(self.outcome))
        if (self.value is None) != (self.outcome in (Outcome.UNDECIDED, Outcome.ERROR)):
            raise ValueError(f"A verdict {self.outcome.name} cannot have the value {self.value!r}.")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"A verdict cannot have the value {self.value!r}; what cannot be scored is an ERROR.")

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

    @classmethod
    def partial(cls, value: float, reason: str, **evidence: Any) -> Verdict:
        """Scored: any finite value."""
        return cls(Outcome.PARTIAL, float(value), reason, evidence)

    @property
    def reward(self) -> float:
        """The number to train on: the value, 0 for UNDECIDED. Raises InfrastructureError for ERROR."""
        if self.outcome is Outcome.ERROR:
            raise InfrastructureError(self.reason)
        return 0.0 if self.value is None else self.value

    @property
    def is_undecided(self) -> bool:
        """Whether the verifier could not tell: UNDECIDED, or what a strict verifier made WRONG of it."""
        return self.outcome is Outcome.UNDECIDED or self.evidence.get("undecided") is True

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types."""
        row = {"outcome": self.outcome.value, "value": self.value, "reason": self.reason, "evidence": self.evidence}
        return {**row, "parts": {name: part.to_json() for name, part in self.parts.items()}} if self.parts else row

    def walk(self, path: str = "") -> Iterator[tuple[str, Verdict]]:
        """Every part at any depth with its path, such as "answer" or "style/length"."""
        for name, part in self.parts.items():
            yield f"{path}{name}", part
            yield from part.walk(f"{path}{name}/")

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Verdict:
        """The inverse of `to_json`."""
        parts = {name: cls.from_json(part) for name, part in row.get("parts", {}).items()}
        return cls(row["outcome"], row["value"], row["reason"], row["evidence"], parts)

"""CheckReport: what a contract suite found, one row for each check.

Invariant: a row says what was claimed or found, and a failed one also what to do and an example; nothing in it depends
on when or where the suite ran, but what the checked thing itself said.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .errors import LudusError

Status = Literal["passed", "failed", "skipped"]


class CheckFailed(LudusError):
    """A contract is not kept; the text lists the failed checks."""


@dataclass(frozen=True)
class CheckRow:
    """One check. what: the claim that holds, what is wrong, or why it was not checked. fix: what to do. example: one
    call that shows it."""

    name: str
    status: Status
    what: str
    fix: str = ""
    example: str = ""

    def __str__(self) -> str:
        lines = [f"{self.status:<7}  {self.name}: {self.what}"]
        if self.fix:
            lines.append(f"         fix: {self.fix}")
        if self.example:
            lines.append(f"         example: {self.example}")
        return "\n".join(lines)


@dataclass(frozen=True)
class CheckReport:
    """All rows of a suite, for the thing called `name`."""

    name: str
    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed; one that was skipped is no failure."""
        return not self.failures

    @property
    def failures(self) -> tuple[CheckRow, ...]:
        """The rows that failed."""
        return tuple(row for row in self.rows if row.status == "failed")

    @property
    def summary(self) -> str:
        """One line: the name, and how many checks passed, failed and were skipped."""
        counts = {status: sum(row.status == status for row in self.rows) for status in ("passed", "failed", "skipped")}
        return f"{self.name}: {', '.join(f'{count} {status}' for status, count in counts.items() if count)}"

    def row(self, name: str) -> CheckRow:
        """The row of the check called `name`; KeyError where there is none."""
        return {row.name: row for row in self.rows}[name]

    def raise_for_failures(self) -> None:
        """Raise CheckFailed with every failed row, if there is one."""
        if not self.passed:
            raise CheckFailed("\n".join([self.summary, *map(str, self.failures)]))

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON types."""
        return {"name": self.name, "passed": self.passed, "rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        return "\n".join([*map(str, self.rows), self.summary])

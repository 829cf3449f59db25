"""Recorder: where trainers report to. The run folder implements it."""

from __future__ import annotations

from typing import Any, Protocol


class Recorder(Protocol):
    """Takes metrics and episodes; `metrics_offset` marks where a resumed run continues."""

    def log(self, phase: str, step: int, **values: Any) -> None:
        """Append one row of metrics."""
        ...

    def write_episodes(self, label: str, rows: list[dict[str, Any]]) -> object:
        """Store readable episodes under a label; the same label replaces."""
        ...

    def metrics_offset(self) -> int:
        """Bytes of metrics written so far."""
        ...


class Show(Protocol):
    """A progress display."""

    def phase(self, name: str, total: int) -> None:
        """A new phase of `total` steps begins."""
        ...

    def update(self, step: int, **shown: object) -> None:
        """`step` steps of the phase are done."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...

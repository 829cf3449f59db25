"""Table: what a benchmark found, to be printed as text and kept as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .measure import Sample


@dataclass
class Table:
    """columns: heading to format, such as ".2f". rows: a cell for each column, None where there is none."""

    title: str
    columns: dict[str, str]
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Append one row."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for the {len(self.columns)} columns of {self.title!r}.")
        self.rows.append(list(cells))

    def text(self) -> str:
        """The table in plain text, notes below."""
        lines = [list(self.columns)]
        lines += [
            [_shown(cell, spec) for cell, spec in zip(row, self.columns.values(), strict=True)] for row in self.rows
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        lines.insert(1, ["-" * width for width in widths])
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([self.title, "", *body, "", *self.notes]).rstrip() + "\n"

    def to_json(self) -> dict[str, Any]:
        """Rows by heading; a sample gives its median and all its values."""
        rows = [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": self.notes}


def verdict(value: float | Sample, bound: str, target: float) -> str:
    """Whether a value meets a target, in words. bound: "at least" or "at most"."""
    number = value.median if isinstance(value, Sample) else value
    met = number >= target if bound == "at least" else number <= target
    return f"{bound} {target:g}: {'met' if met else 'MISSED'}"


def append_json(file: Path, record: dict[str, Any]) -> None:
    """Append one record to the list in a JSON file, which is replaced as a whole."""
    records = json.loads(file.read_text()) if file.is_file() else []
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps([*records, record], indent=1) + "\n")
    os.replace(aside, file)


def _shown(cell: Any, spec: str) -> str:
    if cell is None:
        return "-"
    return str(cell) if isinstance(cell, str) else format(cell, spec)


def _plain(cell: Any) -> Any:
    if isinstance(cell, Sample):
        return {"median": cell.median, "values": list(cell.values)}
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        return [_plain(part) for part in cell]
    return cell

"""The metrics of a run as TensorBoard scalars. A copy: metrics.jsonl is the truth and this can be made from it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .trackers import Dated, Row


class TensorBoardLog:
    """Event files in a folder, one for each time that it was opened, written row by row and flushed after each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: Any = None

    def write(self, row: Row, wall_time: float) -> None:
        """Add the numbers of one metrics row, under tags such as policy/reward and eval/ludus/WordMath-v0/accuracy."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._records is None:
            self._open()
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in scalars(row)]
        event = Event(wall_time=wall_time, step=row["step"], summary=Summary(value=values))
        self._records.write(event.SerializeToString())
        self._records.flush()

    def rewrite(self, rows: Sequence[Dated]) -> None:
        """Begin anew with these rows."""
        self.close()
        for old in self.folder.glob("events.*"):
            old.unlink()
        for row, wall_time in rows:
            self.write(row, wall_time)

    def close(self, failed: bool = False) -> None:
        """Close the file."""
        if self._records is not None:
            self._records.close()
        self._records = None

    def _open(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder.mkdir(exist_ok=True)
        started = time.time()
        name = f"events.out.tfevents.{int(started):010d}.ludus.{os.getpid()}.{time.perf_counter_ns()}"
        self._records = RecordWriter((self.folder / name).open("wb"))
        self._records.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())


def scalars(row: Row) -> Iterator[tuple[str, float]]:
    """(tag, number) of a metrics row; sections become parts of the tag."""
    prefix = "/".join([row["phase"], *([row["env"]] if isinstance(row.get("env"), str) else [])])
    pending = [(f"{prefix}/{key}", value) for key, value in row.items() if key not in ("phase", "step", "env")]
    while pending:
        tag, value = pending.pop(0)
        if isinstance(value, dict):
            pending += [(f"{tag}/{key}", inner) for key, inner in value.items()]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield tag, float(value)

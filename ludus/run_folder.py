"""RunFolder: everything that a run leaves behind, in one place.

    recipe.yaml  environment.json  metrics.jsonl  tensorboard/  wandb/
    trajectories/*.jsonl.gz  checkpoints/  report.html

Invariant: whatever moment the process dies at, each file is whole but for a torn last line of metrics.jsonl, which
reading skips and resuming cuts off (tests/test_run_folder.py).
"""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import IO, Any

from .environment import environment_report
from .recipe import Recipe, dump_recipe, load_recipe
from .sandbox.errors import LudusError
from .sandbox.interrupts import interrupted_afterwards
from .tensorboard_log import TensorBoardLog
from .trackers import Trackers
from .whole_file import write_whole
from .yaml_core import dump

SETTINGS = ("recipe.yaml", "evaluation.yaml")
CHAIN, STAGES = "chain.yaml", "stages"
"""What the folder of a chain holds in the place of recipe.yaml, and where its stages lie, a run folder each."""
PHASES = ("sft", "star", "preference", "policy", "eval", "doctor", "rollback")
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RunFolderError(LudusError):
    """A folder that cannot be made, or is not a run."""


class RunFolder:
    """A run on disk. `RunFolder(path)` reads; `create` and `resume` also hold the folder's lock, for one writer."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        found = [self.path / name for name in SETTINGS if (self.path / name).is_file()]
        if not found:
            raise RunFolderError(f"{path} {_why_no_run(self.path)}")
        self.settings = found[0]
        self._metrics_file: IO[bytes] | None = None
        self.trackers = Trackers()
        self.trackers.add("TensorBoard", TensorBoardLog(self.path / "tensorboard"))
        self._lock: IO[str] | None = None
        self._started = time.monotonic()
        self._seconds_before = 0.0

    @classmethod
    def create(cls, recipe: Recipe, out: str | Path | None = None) -> RunFolder:
        """A new folder at `out`, or else one named after the recipe and the time in `recipe.runs_dir`."""
        place = Path(out) if out is not None else free_name(Path(recipe.runs_dir), recipe.name)
        return cls._made(place, "recipe.yaml", dump_recipe(recipe))

    @classmethod
    def create_for_evaluation(cls, settings: dict[str, Any], out: str | Path) -> RunFolder:
        """A new folder for an evaluation alone: its settings take the place of the recipe."""
        return cls._made(Path(out), "evaluation.yaml", dump(plain(settings)))

    @classmethod
    def resume(cls, path: str | Path) -> RunFolder:
        """The folder of a run that stopped, to be written on. The trainer then calls `truncate_metrics`."""
        run = cls(path)
        if run.settings.name != "recipe.yaml":
            raise RunFolderError(f"{path} holds an evaluation, which cannot be resumed; evaluate again.")
        return run._locked()

    @classmethod
    def _made(cls, place: Path, settings: str, text: str) -> RunFolder:
        make_place(place, settings, text)
        run = cls(place)._locked()
        write_whole(place / "environment.json", json.dumps(environment_report(), indent=2) + "\n")
        return run

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run."""
        return load_recipe(self.path / "recipe.yaml")

    @property
    def name_and_group(self) -> tuple[str, str | None]:
        """What others call this run: the folder's name; of a stage, with its chain before it, which is its group."""
        place = self.path.resolve()
        if place.parent.name != STAGES or not (place.parent.parent / CHAIN).is_file():
            return place.name, None
        chain = place.parent.parent.name
        return f"{chain}/{place.name}", chain

    @property
    def environment(self) -> dict[str, Any]:
        """What `environment_report` said when the run began; empty where that is missing."""
        file = self.path / "environment.json"
        try:
            found = json.loads(file.read_bytes()) if file.is_file() else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RunFolderError(f"{file} is not a JSON object; restore or remove it.")
        return found

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints."""
        return self.path / "checkpoints"

    def log(self, phase: str, step: int, **values: Any) -> None:
        """Append one metrics row, flushed: {"phase", "step", "seconds", ...}. What is not finite is written as null."""
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is not one of {', '.join(PHASES)}.")
        row = {"phase": phase, "step": int(step), "seconds": round(self.seconds, 3), **plain(values)}
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        file = self._open_metrics()
        with interrupted_afterwards():  # every copy gets the row that metrics.jsonl has
            file.write(line)
            file.flush()
            self.trackers.write(row, time.time())

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def metrics_offset(self) -> int:
        """Bytes of metrics.jsonl so far, on disk for certain: a checkpoint stores it."""
        file = self._open_metrics()
        file.flush()
        os.fsync(file.fileno())
        return file.tell()

    def truncate_metrics(self, offset: int) -> None:
        """Forget the rows logged after `metrics_offset()` was `offset`, so that a resumed run repeats none of them."""
        file = self._open_metrics()
        size = file.seek(0, os.SEEK_END)
        if size < offset:
            name = self.path / "metrics.jsonl"
            raise RunFolderError(f"{name} has {size} bytes, fewer than its checkpoint counted ({offset}); restore it.")
        file.truncate(offset)
        file.seek(offset)
        rows = self.metrics()
        self._seconds_before = rows[-1]["seconds"] if rows else 0.0
        self._started = time.monotonic()
        begun = time.time() - self._seconds_before
        self.trackers.rewrite([(row, begun + row["seconds"]) for row in rows])

    def metrics(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl; a last line that was torn by a kill is left out."""
        return read_metrics(self.path)

    def write_episodes(self, label: str, rows: Iterable[dict[str, Any]]) -> Path:
        """Store episodes to be read, whole or not at all, as trajectories/{label}.jsonl.gz; an older file is replaced.

        label: policy-000050, eval-000050, eval-start, eval-after_sft, eval-final: a kind, a dash, a step or a stage.
        rows: `Episode.to_json()` plus "tokens" (decoded strings) and "advantages" (numbers or null), both a list per
        trajectory of a list per token; "advantages" may be null, and "step" may be added where the label has none.
        """
        if not LABEL.fullmatch(label):
            raise ValueError(f"label {label!r} may hold letters, digits, dots, dashes and underscores only.")
        text = "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows)
        (self.path / "trajectories").mkdir(exist_ok=True)
        packed = gzip.compress(text.encode(), compresslevel=6, mtime=0)
        return write_whole(episodes_file(self.path, label), packed)

    def read_episodes(self, label: str) -> list[dict[str, Any]]:
        """The rows that `write_episodes` stored under a label."""
        return read_episodes(self.path, label)

    def episode_labels(self) -> list[str]:
        """The labels of all stored episodes: the start first, then by step, the final evaluation last."""
        return episode_labels(self.path)

    def remove_if_unused(self) -> None:
        """Close, and remove the folder if the run came to nothing: no row, no episode, no checkpoint."""
        self.close()
        if not self.metrics() and not self.episode_labels() and not any(self.checkpoints.glob("*")):
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Close the files and release the lock."""
        self.trackers.close()
        for file in (self._metrics_file, self._lock):
            if file is not None:
                file.close()
        self._metrics_file = self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _locked(self) -> RunFolder:
        self._lock = lock_folder(self.path, ("trajectories", "checkpoints", "tensorboard"))
        return self

    def _open_metrics(self) -> IO[bytes]:
        if self._metrics_file is None:
            name = self.path / "metrics.jsonl"
            name.touch()
            self._metrics_file = name.open("r+b")
            whole = name.read_bytes().rfind(b"\n") + 1
            self._metrics_file.truncate(whole)
            self._metrics_file.seek(whole)
        return self._metrics_file


def make_place(place: Path, settings: str, text: str) -> None:
    """A new folder with one file, its settings. Raises RunFolderError where there is something already."""
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        there = any((place / name).is_file() for name in ("recipe.yaml", CHAIN))
        cure = f"continue that run with --resume {place} or " if there else ""
        raise RunFolderError(f"{place} already holds something; {cure}name another folder with --out.")
    try:
        place.mkdir(parents=True, exist_ok=True)
        # First of all, so that a process killed from here on leaves a run that can be resumed.
        write_whole(place / settings, text)
    except OSError as error:
        raise RunFolderError(f"{place} cannot be made: {error.strerror}; name another with --out.") from None


def lock_folder(place: Path, parts: Iterable[str]) -> IO[str]:
    """The lock of a folder, for one writer, and subfolders made in it. RunFolderError where another has it."""
    try:
        for part in parts:
            (place / part).mkdir(exist_ok=True)
        lock = (place / ".lock").open("w")
    except (FileExistsError, IsADirectoryError, PermissionError) as error:
        cure = "move away what is there or allow writing"
        raise RunFolderError(f"{error.filename} cannot be made: {error.strerror}; {cure}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunFolderError(f"{place} belongs to a run that is still going; stop that one first.") from None
    except OSError:
        pass  # a file system without locks, as some clusters have: two writers are then not noticed
    return lock


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, but for a last line that was torn by a kill."""
    name = run / "metrics.jsonl"
    lines = name.read_bytes().split(b"\n") if name.is_file() else []
    rows = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise RunFolderError(f"{name}, line {number} is not JSON; restore or remove that line.") from None
        if not _is_metrics_row(rows[-1]):
            raise RunFolderError(f"{name}, line {number} is not a whole row of metrics; restore or remove that line.")
    return rows


def read_episodes(run: Path, label: str) -> list[dict[str, Any]]:
    """The episodes that a run stored under a label."""
    file = episodes_file(run, label)
    try:
        return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    except FileNotFoundError:
        known = ", ".join(episode_labels(run)) or "none"
        raise RunFolderError(f"{run} holds no episodes {label}; stored are: {known}.") from None
    except (OSError, EOFError, ValueError, zlib.error):
        raise RunFolderError(f"{file} is damaged; remove it.") from None


def episode_labels(run: Path) -> list[str]:
    """The labels of the episodes of a run: the start first, then by step, the final evaluation last."""
    names = [file.name.removesuffix(".jsonl.gz") for file in (run / "trajectories").glob("[!.]*.jsonl.gz")]
    return sorted(names, key=_label_order)


def episodes_file(run: Path, label: str) -> Path:
    """Where a run stores the episodes of a label."""
    return run / "trajectories" / f"{label}.jsonl.gz"


def plain(value: Any) -> Any:
    """value as JSON data: tuples become lists, array scalars numbers, enumeration members their values, NaN null.

    What JSON does not know becomes its text, so that no evidence of a verifier ends a run.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def _is_metrics_row(row: Any) -> bool:
    """Whether a row has what every row has, and what those of an evaluation and of a finding have besides."""
    if not isinstance(row, dict) or row.get("phase") not in PHASES:
        return False
    numbers = ["step", "seconds"]
    if row["phase"] == "eval":
        numbers += ["accuracy", "low", "high", "tasks"] if row.get("accuracy") is not None else []
        if not isinstance(row.get("env"), str):
            return False
    if row["phase"] == "doctor" and not isinstance(row.get("name"), str):
        return False
    return all(isinstance(row.get(name), int | float) for name in numbers)


def _why_no_run(path: Path) -> str:
    if not path.exists():
        beside = (
            sorted(str(other.parent) for other in path.parent.glob("*/recipe.yaml")) if path.parent.is_dir() else []
        )
        there = f"; runs beside it: {', '.join(beside[-5:])}." if beside else "; give the folder of a run."
        return f"does not exist{there}"
    if (path / CHAIN).is_file():
        stages = sorted(str(other.parent) for other in path.glob(f"{STAGES}/*/recipe.yaml"))
        there = f"give that of one of its stages: {', '.join(stages)}." if stages else "none of its stages has begun."
        return f"is the folder of a chain of runs, whose report.html lists them; {there}"
    if path.is_dir():
        return "is not the folder of a run: it has no recipe.yaml; give one that `ludus train` made."
    return "is a file; give the folder of a run."


def free_name(runs: Path, name: str) -> Path:
    """A folder that is not there yet, named after the time."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    tries = [stem, *(f"{stem}-{i}" for i in range(2, 1000))]
    return next(place for place in (runs / text for text in tries) if not place.exists())


def _label_order(label: str) -> tuple[int, int, str]:
    kind, _, end = label.rpartition("-")
    stages = {"start": 0, "after_sft": 1, "after_star": 3, "after_preference": 5, "final": 7}
    place = stages.get(end, {"star": 2, "preference": 4}.get(kind, 6))
    return place, int(end) if end.isdecimal() else 0, kind

"""Runs of recipes in processes of their own, kept in folders named after what they hold, and found again there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ludus.recipe import Recipe, RecipeError, dump_recipe, load_recipe
from ludus.run_folder import RunFolder, read_metrics

from .measure import BenchmarkError
from .options import REPOSITORY, Options


@dataclass(frozen=True)
class Finished:
    """A run that came to its end. peak_bytes: its largest resident memory, None where it was found and not made."""

    folder: Path
    reused: bool
    peak_bytes: int | None

    def evaluation(self, stage: str) -> dict[str, Any] | None:
        """The last evaluation of a stage (start, after_sft, final), None where there was none."""
        rows = [row for row in read_metrics(self.folder) if row["phase"] == "eval" and row["stage"] == stage]
        return rows[-1] if rows else None

    @property
    def end(self) -> dict[str, Any]:
        """The evaluation that came last."""
        return next(row for row in reversed(read_metrics(self.folder)) if row["phase"] == "eval")

    @property
    def seconds(self) -> float:
        """Seconds from the start of the run to its last evaluation."""
        return read_metrics(self.folder)[-1]["seconds"]

    def phase_seconds(self, first: str, last: str) -> float:
        """Seconds from the end of the evaluation `first` to the beginning of the evaluation `last`."""
        before, after = self.evaluation(first), self.evaluation(last)
        assert before is not None and after is not None
        return after["seconds"] - after["eval_seconds"] - before["seconds"]


def read_recipe(name: str, *overrides: str) -> Recipe:
    """A recipe of this repository with overrides. BenchmarkError where it is not there or an override is wrong."""
    try:
        return load_recipe(REPOSITORY / "recipes" / name, overrides)
    except RecipeError as error:
        raise BenchmarkError(str(error)) from None


def train(recipe: Recipe, label: str, options: Options, branch: Callable[[Path], None] | None = None) -> Finished:
    """Run a recipe in a process of its own, unless a finished run of it is there.

    label: how the folder's name begins; a hash of the recipe follows. branch: fills the folder with what the run is to
    continue from. BenchmarkError where the run fails, with its last line.
    """
    digest = hashlib.sha256(dump_recipe(recipe).encode()).hexdigest()[:8]
    folder = options.runs / f"{label}-{digest}"
    mark = folder / "finished"
    if mark.is_file() and not options.fresh:
        return Finished(folder, True, None)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = folder.with_suffix(".yaml")
    written.write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "ludus", "train"]
    if branch is None:
        command += [str(written), "--out", str(folder)]
    else:
        folder.mkdir()
        shutil.copy(written, folder / "recipe.yaml")
        branch(folder)
        command += ["--resume", str(folder)]
    log = folder.with_suffix(".log")
    status, peak_bytes = _wait(command, log, options)
    if status:
        lines = log.read_text(errors="replace").strip().splitlines() or ["nothing was printed"]
        raise BenchmarkError(f"the run {folder.name} ended with exit code {status}: {lines[-1]} (all of it: {log})")
    mark.touch()
    return Finished(folder, False, peak_bytes)


def branch_after_cold_start(source: Path) -> Callable[[Path], None]:
    """Fills a folder with a finished run's cold start, its last checkpoint and metrics included, and no more."""

    def fill(folder: Path) -> None:
        newest = sorted((RunFolder(source).path / "checkpoints").glob("sft-*"))[-1]
        shutil.copytree(newest, folder / "checkpoints" / newest.name)
        for name in ("metrics.jsonl", "environment.json"):
            shutil.copy(source / name, folder / name)

    return fill


def _wait(command: list[str], log: Path, options: Options) -> tuple[int, int]:
    """Run a command to its end; its exit code and its largest resident memory in bytes."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"} if options.jobs > 1 else {}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env={**os.environ, **threads}
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

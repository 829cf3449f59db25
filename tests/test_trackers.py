"""Copies of the metrics: they get every row, and one that fails is told of once and ends no run."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from ludus.recipe import Recipe, make_recipe
from ludus.run_folder import RunFolder
from ludus.trackers import Dated, Row


class Kept:
    """A tracker that keeps what it gets. Row number `fails` it refuses."""

    def __init__(self, fails: int | None = None) -> None:
        self.rows: list[Row] = []
        self.fails, self.tries, self.ended = fails, 0, []

    def write(self, row: Row, wall_time: float) -> None:
        self.tries += 1
        if self.tries == self.fails:
            raise RuntimeError("the disk of the tracker is full.\nMore of it.")
        self.rows.append(row)

    def rewrite(self, rows: Sequence[Dated]) -> None:
        self.rows = [row for row, _ in rows]

    def close(self, failed: bool = False) -> None:
        self.ended.append(failed)


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe(
        {"name": "small", "model": {"tiny": {}}, "envs": [{"name": "ludus/WordMath-v0"}], "policy": {"steps": 5}},
        "data",
    )


def test_a_tracker_has_the_rows_of_metrics_also_after_some_were_taken_back(recipe: Recipe, tmp_path: Path) -> None:
    kept = Kept()
    with RunFolder.create(recipe, tmp_path / "run") as run, run.trackers.also("kept", kept):
        run.log("policy", 1, reward=0.5)
        offset = run.metrics_offset()
        run.log("policy", 2, reward=0.0)
        run.truncate_metrics(offset)
        run.log("policy", 2, reward=1.0)
        assert kept.rows == run.metrics() and len(kept.rows) == 2
    assert kept.ended == [False]


def test_a_tracker_that_fails_is_told_of_once_and_the_others_go_on(recipe: Recipe, tmp_path: Path) -> None:
    said: list[str] = []
    broken, kept = Kept(fails=2), Kept()
    with RunFolder.create(recipe, tmp_path / "run") as run, run.trackers.also("mine", broken):
        run.trackers.tell = said.append
        run.trackers.add("kept", kept)
        for step in range(1, 6):
            run.log("policy", step, reward=step)
        assert len(run.metrics()) == len(kept.rows) == 5
    assert said == ["mine failed (the disk of the tracker is full); the run goes on, and metrics.jsonl has every row."]
    assert [row["step"] for row in broken.rows] == [1]


def test_a_tracker_learns_that_an_exception_ended_the_run(recipe: Recipe, tmp_path: Path) -> None:
    for error in (KeyboardInterrupt, RuntimeError):
        kept = Kept()
        with (
            pytest.raises(error),
            RunFolder.create(recipe, tmp_path / error.__name__) as run,
            run.trackers.also("kept", kept),
        ):
            raise error
        assert kept.ended == [True]


class Pressed(Kept):
    """A tracker at whose first row somebody presses Ctrl-C, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def write(self, row: Row, wall_time: float) -> None:
        for _ in range(self.times):
            signal.raise_signal(signal.SIGINT)
        super().write(row, wall_time)


def test_a_row_is_in_every_copy_before_ctrl_c_takes_effect(recipe: Recipe, tmp_path: Path) -> None:
    pressed, after = Pressed(2), Kept()
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.trackers.add("pressed", pressed)
        run.trackers.add("after", after)
        with pytest.raises(KeyboardInterrupt):
            run.log("policy", 1, reward=0.5)
        assert pressed.rows == after.rows == run.metrics() and len(run.metrics()) == 1
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_tracker_that_hangs_is_left_where_ctrl_c_is_insisted_on(recipe: Recipe, tmp_path: Path) -> None:
    pressed = Pressed(3)
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.trackers.add("pressed", pressed)
        with pytest.raises(KeyboardInterrupt):
            run.log("policy", 1, reward=0.5)
        assert not pressed.rows and len(run.metrics()) == 1


def test_tensorboard_can_be_left_out(tmp_path: Path) -> None:
    from test_wandb import Notes, small

    from ludus.train import train_recipe

    with RunFolder.create(small(trackers={"tensorboard": False}), tmp_path / "run") as run:
        train_recipe(run.recipe, run, display=Notes())
        assert run.metrics() and not list((run.path / "tensorboard").iterdir())

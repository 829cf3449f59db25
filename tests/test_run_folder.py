"""The run folder: nothing is lost, nothing is counted twice, nothing of another run is overwritten."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.recipe import Recipe, make_recipe
from ludus.run_folder import RunFolder, RunFolderError, plain
from ludus.verifiers.verdict import Verdict


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return make_recipe(
        {"name": "small", "model": {"tiny": {}}, "envs": [{"name": "ludus/WordMath-v0"}], "policy": {"steps": 5}},
        "data",
    )


def tensorboard_scalars(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_new_run_holds_its_recipe_and_its_environment(recipe: Recipe, tmp_path: Path) -> None:
    with RunFolder.create(recipe, tmp_path / "run") as run:
        assert run.recipe == recipe
        assert run.environment["python"] == ".".join(map(str, sys.version_info[:3]))
        assert {"ludus", "torch", "transformers", "gymnasium"} <= run.environment["packages"].keys()
        assert run.environment["cpu_count"] >= 1


def test_runs_of_one_second_get_folders_of_their_own(recipe: Recipe, tmp_path: Path) -> None:
    here = recipe.model_copy(update={"runs_dir": str(tmp_path / "runs")})
    paths = [RunFolder.create(here).path for _ in range(3)]
    assert len(set(paths)) == 3
    assert all(path.parent == tmp_path / "runs" and path.name.startswith("small-") for path in paths)


def test_a_folder_that_holds_something_is_not_written_to(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match=r"already holds something; name another folder with --out\.$"):
        RunFolder.create(recipe, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]
    RunFolder.create(recipe, tmp_path / "run").close()
    with pytest.raises(RunFolderError, match=r"continue that run with --resume .*run or name another folder"):
        RunFolder.create(recipe, tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_one_sentence(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file/run cannot be made: Not a directory; name another with --out\.$"):
        RunFolder.create(recipe, tmp_path / "file" / "run")


def test_what_is_not_a_run_cannot_be_resumed(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is not the folder of a run: it has no recipe\.yaml"):
        RunFolder.resume(tmp_path)
    with pytest.raises(RunFolderError, match="does not exist; give the folder of a run"):
        RunFolder.resume(tmp_path / "gone")
    RunFolder.create(recipe, tmp_path / "run").close()
    with pytest.raises(RunFolderError, match=r"gone does not exist; runs beside it: .*run\.$"):
        RunFolder.resume(tmp_path / "gone")


@pytest.mark.parametrize("name", ["checkpoints", "trajectories", "tensorboard"])
def test_a_file_in_the_place_of_a_folder_is_one_sentence(recipe: Recipe, tmp_path: Path, name: str) -> None:
    RunFolder.create(recipe, tmp_path / "run").close()
    (tmp_path / "run" / name).rmdir()
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(RunFolderError, match=rf"run/{name} cannot be made: File exists; move away what is there"):
        RunFolder.resume(tmp_path / "run")


def test_two_writers_cannot_share_a_run(recipe: Recipe, tmp_path: Path) -> None:
    with (
        RunFolder.create(recipe, tmp_path / "run"),
        pytest.raises(RunFolderError, match="belongs to a run that is still going"),
    ):
        RunFolder.resume(tmp_path / "run")
    RunFolder.resume(tmp_path / "run").close()


def test_metrics_are_json_also_where_numbers_are_not(recipe: Recipe, tmp_path: Path) -> None:
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.log("policy", 1, loss=float("nan"), norm=float("inf"), reward=0.5, envs={"a": {"reward": 0.25}})
        run.log("eval", 1, stage="during", env="ludus/X-v0", accuracy=0.5, low=0.4, high=0.6, tasks=9, baselines={})
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
        assert rows == run.metrics()
        assert rows[0].items() >= {"phase": "policy", "step": 1, "loss": None, "norm": None, "reward": 0.5}.items()
        assert 0.0 <= rows[0]["seconds"] <= rows[1]["seconds"] < 60
        assert (
            tensorboard_scalars(run).items()
            >= {
                "policy/reward": [(1, 0.5)],
                "policy/envs/a/reward": [(1, 0.25)],
                "eval/ludus/X-v0/accuracy": [(1, 0.5)],
            }.items()
        )
        assert "policy/loss" not in tensorboard_scalars(run)


def test_an_unknown_phase_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with (
        RunFolder.create(recipe, tmp_path / "run") as run,
        pytest.raises(ValueError, match="'train' is not one of sft"),
    ):
        run.log("train", 1)


def test_a_resumed_run_repeats_no_row_in_metrics_or_tensorboard(recipe: Recipe, tmp_path: Path) -> None:
    run = RunFolder.create(recipe, tmp_path / "run")
    for step in range(1, 4):
        run.log("policy", step, reward=step / 10)
    offset = run.metrics_offset()
    run.log("policy", 4, reward=9.0)
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "policy", "st')

    with RunFolder.resume(run.path) as again:
        again.truncate_metrics(offset)
        again.log("policy", 4, reward=0.4)
        rows = again.metrics()
        assert [(row["step"], row["reward"]) for row in rows] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
        assert rows[3]["seconds"] >= rows[2]["seconds"]
        assert tensorboard_scalars(again)["policy/reward"] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]


def test_a_torn_last_line_is_cut_before_the_next_row(recipe: Recipe, tmp_path: Path) -> None:
    run = RunFolder.create(recipe, tmp_path / "run")
    run.log("sft", 1, loss=2.0)
    run.close()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "sft", "st')
    with RunFolder.resume(run.path) as again:
        assert len(again.metrics()) == 1
        again.log("sft", 2, loss=1.0)
        assert [row["step"] for row in again.metrics()] == [1, 2]


def test_lost_and_damaged_metrics_are_named(recipe: Recipe, tmp_path: Path) -> None:
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.log("sft", 1, loss=2.0)
        with pytest.raises(RunFolderError, match=r"fewer than its checkpoint counted \(5000\); restore it\.$"):
            run.truncate_metrics(5000)
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write("nonsense\n{}\n")
        with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2 is not JSON; restore or remove that line\.$"):
            run.metrics()


SCORE: dict[str, Any] = {"phase": "eval", "step": 0, "seconds": 1.0, "env": "ludus/X-v0", "accuracy": 0.5}


@pytest.mark.parametrize(
    "row",
    [
        [1],
        None,
        {},
        {"phase": "policy"},
        {"phase": "policy", "step": 1},
        {"phase": "policy", "step": "1", "seconds": 2.0},
        {"phase": ["eval"], "step": 1, "seconds": 2.0},
        {"phase": "eval", "step": 1, "seconds": 2.0},
        SCORE,
        SCORE | {"low": None, "high": 0.6, "tasks": 9},
    ],
)
def test_a_row_that_lacks_something_is_named(recipe: Recipe, tmp_path: Path, row: object) -> None:
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.log("sft", 1, loss=2.0)
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        with pytest.raises(
            RunFolderError,
            match=r"metrics\.jsonl, line 2 is not a whole row of metrics; restore or remove that line\.$",
        ):
            run.metrics()


@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.3])
def test_a_killed_run_leaves_files_that_can_be_read(recipe: Recipe, tmp_path: Path, after_s: float) -> None:
    program = """
import sys
from ludus.run_folder import RunFolder
run = RunFolder.resume(sys.argv[1])
print("ready", flush=True)
for step in range(10**9):
    run.log("policy", step, reward=0.5)
    run.write_episodes("policy-000001", [{"id": str(step), "text": "x" * 20_000}] * 5)
"""
    RunFolder.create(recipe, tmp_path / "run").close()
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    with RunFolder.resume(tmp_path / "run") as run:
        assert [row["step"] for row in run.metrics()] == list(range(len(run.metrics())))
        if run.episode_labels():
            assert len(run.read_episodes("policy-000001")) == 5


def test_episodes_come_back_as_they_were_stored(recipe: Recipe, tmp_path: Path) -> None:
    rows = [{"id": "a", "tokens": [["1", "é\n", "</script>"]], "advantages": [[0.0, float("nan"), -1.5]]}]
    with RunFolder.create(recipe, tmp_path / "run") as run:
        for label in ("policy-000050", "eval-final", "eval-000005", "eval-start", "eval-after_sft"):
            run.write_episodes(label, rows)
        assert run.read_episodes("policy-000050") == [{**rows[0], "advantages": [[0.0, None, -1.5]]}]
        assert run.episode_labels() == ["eval-start", "eval-after_sft", "eval-000005", "policy-000050", "eval-final"]
        with pytest.raises(RunFolderError, match="holds no episodes eval-7; stored are: eval-start"):
            run.read_episodes("eval-7")
        with pytest.raises(ValueError, match="may hold letters"):
            run.write_episodes("../up", rows)
        (run.path / "trajectories" / "eval-start.jsonl.gz").write_bytes(b"no gzip")
        with pytest.raises(RunFolderError, match=r"eval-start\.jsonl\.gz is damaged; remove it\.$"):
            run.read_episodes("eval-start")


def test_evidence_that_json_does_not_know_is_stored_as_its_text(recipe: Recipe, tmp_path: Path) -> None:
    evidence = {"expected": Fraction(1, 3), "found": [date(2024, 2, 29), 1j], "where": Path("a/b")}
    with RunFolder.create(recipe, tmp_path / "run") as run:
        run.write_episodes("eval-final", [{"verdict": Verdict.wrong("no", **evidence).to_json()}])
        (row,) = run.read_episodes("eval-final")
    assert row["verdict"]["evidence"] == {"expected": "1/3", "found": ["2024-02-29", "1j"], "where": "a/b"}


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_is_logged_is_json(value: object) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == plain(value)

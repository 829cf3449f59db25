"""Weights & Biases: an offline run holds the rows of metrics.jsonl, goes on under its id, and ends whatever happens.

The real package writes the files, offline, and the test reads them back.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_CI
from test_resume import RECIPE

from ludus.chain import make_chain
from ludus.chain_folder import ChainFolder
from ludus.recipe import Recipe, make_recipe
from ludus.run_folder import RunFolder
from ludus.tensorboard_log import scalars
from ludus.trackers import WandbConfig
from ludus.train import train_recipe
from ludus.train_chain import ChainError, train_chain
from ludus.wandb_log import WandbError, WandbLog, check_wandb
from ludus.yaml_core import dump, parse

HEADER, BLOCK = 7, 32768


class Notes:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, name: str, total: int) -> None: ...

    def update(self, step: int, **shown: object) -> None: ...

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package, offline. Where it is missing the test is skipped, in continuous integration it fails."""
    if find_spec("wandb") is None:
        reason = "the package wandb is missing: pip install 'ludus[wandb]'"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb

    yield wandb
    wandb.teardown()  # else its process would serve the tests that follow, and the processes that they start


def small(**changes: Any) -> Recipe:
    data = parse(RECIPE) | {"sft": {"steps": 2, "batch_size": 4, "demonstrations": 8}, "trackers": {"wandb": {}}}
    data["envs"] = data["envs"][:1]
    data["policy"] = {"steps": 3, "groups": 2, "group_size": 2}
    return make_recipe({**data, "eval": {"every": 2, "tasks": 2}, **changes}, "data")


def files(run: Path) -> list[Path]:
    """The offline files of a run, oldest first."""
    import wandb

    wandb.teardown()  # only when its process ends is everything on disk
    return sorted(run.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def records(path: Path) -> Iterator[Any]:
    """What wandb wrote: protocol buffers in the log format of LevelDB, behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts = path.read_bytes(), HEADER, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # no room for a header: the block is filled up with zeros
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def history(path: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
    return rows


def exit_codes(path: Path) -> list[int]:
    return [r.exit.exit_code for r in records(path) if r.WhichOneof("record_type") == "exit"]


def expected(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The rows of metrics.jsonl as W&B has them."""
    return [{**dict(scalars(row)), f"{row['phase']}/step": row["step"]} for row in rows]


def without_own(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


def test_an_offline_run_holds_the_rows_of_metrics_under_their_names_and_steps(wandb: Any, tmp_path: Path) -> None:
    recipe, notes = small(), Notes()
    with RunFolder.create(recipe, tmp_path / "run") as run:
        train_recipe(recipe, run, display=notes)
        rows = run.metrics()
    (file,) = files(run.path)
    found = history(file)
    assert {"sft", "eval", "policy"} == {row["phase"] for row in rows}
    assert without_own(found) == expected(rows)
    assert [row["_step"] for row in found] == list(range(len(rows)))
    assert exit_codes(file) == [0]
    (begun,) = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"]
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    config.pop("_wandb", None)
    assert config == recipe.model_dump(mode="json")
    assert (begun.project, begun.display_name) == ("ludus", "run")
    metrics = [r.metric for r in records(file) if r.WhichOneof("record_type") == "metric"]
    assert ("policy/*", "policy/step") in {(m.glob_name, m.step_metric) for m in metrics}
    assert any(said.startswith("W&B: ") and str(file.parent) in said for said in notes.said)


def test_a_resumed_run_keeps_its_id_and_its_newest_folder_holds_everything(wandb: Any, tmp_path: Path) -> None:
    run = RunFolder.create(small(), tmp_path / "run")
    with run, run.trackers.also("W&B", log(run)):
        for step in range(1, 4):
            run.log("policy", step, reward=step / 10)
        offset = run.metrics_offset()
        run.log("policy", 4, reward=9.0)
    time.sleep(1.1)  # wandb names its folders by the second
    with RunFolder.resume(run.path) as again, again.trackers.also("W&B", log(again)):
        again.truncate_metrics(offset)
        again.log("policy", 4, reward=0.4)
        rows = again.metrics()
    first, second = files(run.path)
    assert first.name == second.name
    assert [row["policy/reward"] for row in history(first)] == [0.1, 0.2, 0.3, 9.0]
    assert without_own(history(second)) == expected(rows) and len(rows) == 4


def test_rows_that_wandb_has_already_are_left_out_after_a_resume(wandb: Any, tmp_path: Path) -> None:
    run = RunFolder.create(small(), tmp_path / "run")
    for step in range(1, 4):
        run.log("policy", step, reward=step / 10)
    offset = run.metrics_offset()
    tracker = log(run)
    tracker._next = 2  # as an online run says that goes on with two rows
    with run, run.trackers.also("W&B", tracker):
        run.truncate_metrics(offset)
        run.log("policy", 4, reward=0.4)
    (file,) = files(run.path)
    assert [(row["_step"], row["policy/step"]) for row in history(file)] == [(2, 3), (3, 4)]


def test_what_follows_a_roll_back_follows_in_wandb(wandb: Any, tmp_path: Path) -> None:
    run = RunFolder.create(small(), tmp_path / "run")
    with run, run.trackers.also("W&B", log(run)):
        run.log("policy", 1, reward=0.1)
        offset = run.metrics_offset()
        for step in (2, 3):
            run.log("policy", step, reward=-1.0)
        run.truncate_metrics(offset)
        run.log("policy", 2, reward=0.2)
    (file,) = files(run.path)
    assert [(row["policy/step"], row["policy/reward"]) for row in history(file)] == [
        (1, 0.1),
        (2, -1.0),
        (3, -1.0),
        (2, 0.2),
    ]
    assert json.loads((run.path / "wandb" / "run.json").read_text())["ahead"] == 2


def log(run: RunFolder) -> WandbLog:
    return WandbLog(run.path, WandbConfig(), {}, "run", None)


def test_ctrl_c_ends_the_run_as_failed_with_all_its_rows(wandb: Any, tmp_path: Path) -> None:
    recipe, run = tmp_path / "small.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-m", "ludus", "train", str(recipe), "trackers.wandb={}", "sft=null", "--out", str(run)]
    # A group of its own, so that the signal reaches all of it, as that of a terminal does.
    process = subprocess.Popen(
        [*command, "policy.steps=5000"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and b'"policy"' in metrics.read_bytes()):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()[-2000:]
    assert "Traceback" not in errors.decode()
    (file,) = files(run)
    assert exit_codes(file) == [1]
    assert without_own(history(file)) == expected(RunFolder(run).metrics())
    deadline = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):  # the process that writes ends, too
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


DIES = """
import os, signal, sys
from pathlib import Path
from ludus.recipe import load_recipe
from ludus.run_folder import RunFolder
from ludus.trackers import WandbConfig
from ludus.wandb_log import WandbLog

run = RunFolder.create(load_recipe(sys.argv[1]), sys.argv[2])
with run, run.trackers.also("W&B", WandbLog(run.path, WandbConfig(), {}, "run", None)):
    run.log("policy", 1, reward=0.0)
    (core,) = [pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    os.kill(int(core), signal.SIGKILL)
    os.waitpid(int(core), 0)
    for step in range(2, 50):
        run.log("policy", step, reward=0.0)
print(len(run.metrics()), "rows")
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="its process is looked for in /proc")
def test_a_process_of_wandb_that_dies_ends_no_run(wandb: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    command = [sys.executable, "-c", DIES, str(recipe), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said, count = done.stdout.splitlines()
    assert said.startswith("W&B failed (") and said.endswith("; the run goes on, and metrics.jsonl has every row.")
    assert count == "49 rows"


def test_without_the_package_the_run_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    recipe = small()
    with RunFolder.create(recipe, tmp_path / "run") as run:
        with pytest.raises(WandbError, match=r"^trackers\.wandb needs one more package: pip install 'ludus\[wandb\]'$"):
            train_recipe(recipe, run, display=Notes())
        assert run.metrics() == []


def test_a_project_that_cannot_be_is_said_as_wandb_says_it(wandb: Any, tmp_path: Path) -> None:
    with RunFolder.create(small(), tmp_path / "run") as run:
        with pytest.raises(WandbError, match=r"\(Invalid project name 'a/b c'.*\); change trackers\.wandb\.$") as found:
            WandbLog(run.path, WandbConfig(mode="offline", project="a/b c"), {}, "run", None)
        assert "login" not in str(found.value)


def test_without_a_login_the_run_says_so_before_it_begins(wandb: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "ludus", "train", str(recipe), "trackers.wandb={}", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "Weights & Biases does not start (" in done.stderr
    assert "run `wandb login`, or set trackers.wandb.mode: offline." in done.stderr
    assert not (tmp_path / "run").exists()


LATE = """
chain:
  - {name: early, sft: {steps: 1}}
  - {name: late, policy: {steps: 1}, trackers: {wandb: WANDB}}
"""


def chain_of(wandb_section: str) -> str:
    whole = parse(RECIPE)
    common = {key: value for key, value in whole.items() if key not in ("sft", "policy", "star", "preference")}
    return dump(common) + LATE.replace("WANDB", wandb_section)


@pytest.mark.parametrize(
    ("section", "missing", "sentence"),
    [
        ("{project: a/b c}", False, r"^stage late: Weights & Biases does not start \(Invalid project name 'a/b c'"),
        ("{}", True, r"^stage late: trackers\.wandb needs one more package: pip install 'ludus\[wandb\]'$"),
    ],
)
def test_what_is_wrong_in_a_late_stage_is_said_before_the_first(
    section: str, missing: bool, sentence: str, wandb: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if missing:
        monkeypatch.setitem(sys.modules, "wandb", None)
    chain = make_chain(parse(chain_of(section)), "x.yaml")
    with ChainFolder.create(chain, tmp_path / "run") as folder:
        with pytest.raises(ChainError, match=sentence):
            train_chain(folder, display=Notes())
        assert not list((folder.path / "stages").iterdir())


def test_what_can_be_is_not_refused(wandb: Any) -> None:
    for config in (WandbConfig(), WandbConfig(project="ludus-2", entity="a-team", mode="offline")):
        check_wandb(config)

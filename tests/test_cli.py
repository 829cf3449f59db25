"""The command line: what goes wrong is one clear sentence with exit code 2, what goes right leaves a run behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ludus.run_folder import RunFolder

RECIPE = """\
name: quick
threads: 1
model:
  tiny: {hidden_size: 32, layers: 1, heads: 2, kv_heads: 2, intermediate_size: 64, max_length: 256,
         tags: ["<calculator>", "</calculator>"]}
envs:
  - {name: ludus/WordMath-v0}
engine: {slots: 8, max_length: 256}
sampling: {max_tokens: 8}
sft: {steps: 2, batch_size: 2, demonstrations: 4}
policy: {steps: 2, groups: 2, group_size: 2}
eval: {tasks: 4, every: 1}
"""


def ludus(*arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ludus", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(RECIPE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "broken.yaml").write_text("name: x\nmodel: [1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("trian", "No such command 'trian'. Did you mean 'train'?"),
        ("new", "Missing command; `ludus new --help` shows what there is."),
        ("train", "name a recipe, such as recipes/wordmath.yaml, or go on with a run by --resume RUN."),
        ("train quik.yaml", "quik.yaml does not exist; did you mean quick.yaml?"),
        ("train full", "full is a folder; name the YAML file in it."),
        ("train broken.yaml", "broken.yaml: line 3, column 1: expected ',' or ']'"),
        ("train quick.yaml policy.stpes=3", "policy.stpes is not a known key; did you mean policy.steps?"),
        ("train quick.yaml policy.steps=many", "policy.steps = 'many' must be a whole number."),
        ("train quick.yaml steps", "override steps: write it as key=value"),
        ("train quick.yaml --policy.steps=3", "write overrides without dashes, such as policy.steps=100"),
        ("train quick.yaml --out full", "full already holds something; name another folder with --out."),
        ("train --resume full", "full is not the folder of a run: it has no recipe.yaml"),
        ("train --resume gone", "gone does not exist; give the folder of a run."),
        ("train quick.yaml --resume full", "--resume goes on with the run's own recipe"),
        ("train quick.yaml envs.0.name=ludus/WordMth-v0", "Did you mean 'ludus/WordMath-v0'?"),
        ("train quick.yaml envs.0.options.levles=[1]", "has no option 'levles'. Did you mean 'levels'?"),
        ("train quick.yaml policy.algorithm=grop", "Unknown algorithm 'grop'. Did you mean 'grpo'?"),
        ("train quick.yaml 'model={path: full}'", "full"),
        ("eval ludus/WordMath-v0", "Missing option '--model'"),
        ("eval ludus/WordMth-v0 --model full", "Did you mean 'ludus/WordMath-v0'?"),
        ("eval ludus/WordMath-v0 --model full/gone", "full/gone does not exist; give a model directory"),
        ("eval ludus/WordMath-v0 --model full", "full"),
        ("eval ludus/WordMath-v0 --model full --tasks 0", "Invalid value for '--tasks'"),
        ("eval ludus/WordMath-v0 --model full --set levels", "--set levels: write it as key=value"),
        ("eval ludus/WordMath-v0 --model full --out full", "full already holds something"),
        ("eval ludus/WordMath-v0 --model full --out quick.yaml", "quick.yaml already holds something"),
        ("eval ludus/WordMath-v0 --model full --out quick.yaml/here", "quick.yaml is a file; name another folder"),
        (
            "eval ludus/WordMath-v0 --model full --set levels=[9]",
            "No template has the levels [9]; the levels are [1, 2",
        ),
        ("eval ludus/WordMath-v0 --model full --temperature 1e-40", "temperature = 1e-40 is too low to calculate with"),
        ("eval ludus/WordMath-v0 --model=", "The model's name is empty"),
        (
            "eval ludus/WordMath-v0 --model m --budget-tokens 5",
            "--budget-tokens is for a model behind a server; give its address with --endpoint.",
        ),
        ("eval ludus/WordMath-v0 --model m --logprobs", "--logprobs is for a model behind a server"),
        ("eval ludus/WordMath-v0 --model m --timeout 5", "--timeout is for a model behind a server"),
        ("eval ludus/WordMath-v0 --model m --api-key-env K", "--api-key-env is for a model behind a server"),
        ("eval ludus/WordMath-v0 --model m --endpoint local", "base_url = 'local' is no web address"),
        ("eval ludus/WordMath-v0 --model= --endpoint http://127.0.0.1:9/v1", "The model has no name"),
        ("eval ludus/WordMth-v0 --model m --endpoint http://127.0.0.1:9/v1", "Did you mean 'ludus/WordMath-v0'?"),
        (
            "eval ludus/WordMath-v0 --model m --endpoint http://127.0.0.1:9/v1 --api-key-env NOKEY",
            "--api-key-env NOKEY: there is no such environment variable, or it is empty; set it.",
        ),
        (
            "eval ludus/WordMath-v0 --model m --endpoint http://127.0.0.1:9/v1 --budget-usd 5",
            "budget_usd needs price_in and price_out",
        ),
        ("view gone", "gone does not exist; give the folder of a run."),
        ("view full", "full is not the folder of a run"),
        ("view quick.yaml", "quick.yaml is a file; give the folder of a run."),
        ("new env Über", "cannot name an environment"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(here: Path, arguments: str, sentence: str) -> None:
    before = sorted(path for path in here.rglob("*") if path != here / "runs")
    done = ludus(
        *arguments.replace("path: full", "path:_full").replace(" ", "\n").replace("_", " ").split("\n"), cwd=here
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and sentence in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(path for path in here.rglob("*") if path != here / "runs") == before, "nothing is left behind"


def test_every_fault_of_a_recipe_is_told_at_once(here: Path) -> None:
    (here / "bad.yaml").write_text(RECIPE.replace("steps: 2", "stps: 2"))
    done = ludus("train", "bad.yaml", cwd=here)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: bad.yaml: sft.steps is missing; add it.",
        "error: bad.yaml: sft.stps is not a known key; did you mean sft.steps?",
        "error: bad.yaml: policy.steps is missing; add it.",
        "error: bad.yaml: policy.stps is not a known key; did you mean policy.steps?",
    ]


def test_a_port_in_use_is_one_sentence(here: Path) -> None:
    import socket

    from ludus.recipe import load_recipe

    RunFolder.create(load_recipe(here / "quick.yaml"), here / "run").close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ludus("view", "run", "--port", str(port), cwd=here)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: port {port} is in use; choose another with --port, 0 for any that is free.\n",
    )


def test_help_and_version_answer(here: Path) -> None:
    import ludus as package

    assert ludus("--version", cwd=here).stdout == f"{package.__version__}\n"
    for arguments in (
        [],
        ["--help"],
        ["train", "-h"],
        ["eval", "--help"],
        ["view", "--help"],
        ["new", "env", "--help"],
    ):
        done = ludus(*arguments, cwd=here)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: ludus" in done.stdout


def test_envs_lists_the_registered_environments(here: Path) -> None:
    done = ludus("envs", cwd=here)
    assert done.returncode == 0
    assert "ludus/WordMath-v0\n    " in done.stdout and "split='train'" in done.stdout


def test_output_that_nobody_reads_or_that_finds_no_room_is_no_crash(here: Path) -> None:
    piped = subprocess.run(
        f"'{sys.executable}' -m ludus envs | head -c 1 >/dev/null",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert piped.stderr == ""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "ludus", "envs"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: No space left on device; free some space.\n"


def test_view_writes_the_report_and_prints_its_path(here: Path) -> None:
    from ludus.recipe import load_recipe

    RunFolder.create(load_recipe(here / "quick.yaml"), here / "run").close()
    done = ludus("view", "run", "--no-serve", cwd=here)
    assert (done.returncode, done.stdout) == (0, "run/report.html\n")
    assert "<h1>quick</h1>" in (here / "run" / "report.html").read_text()


def test_view_of_a_damaged_run_is_one_sentence(here: Path) -> None:
    from ludus.recipe import load_recipe

    RunFolder.create(load_recipe(here / "quick.yaml"), here / "run").close()
    (here / "run" / "environment.json").write_text("{")
    done = ludus("view", "run", "--no-serve", cwd=here)
    assert (done.returncode, done.stderr) == (
        2,
        "error: run/environment.json is not a JSON object; restore or remove it.\n",
    )


def test_a_run_leaves_everything_that_was_promised(here: Path) -> None:
    done = ludus("train", "quick.yaml", "seed=3", "--out", "run", cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run\n"
    assert "policy 2/2" in done.stderr or "grpo 2/2" in done.stderr
    run = RunFolder(here / "run")
    assert run.recipe.seed == 3
    assert {"sft", "policy", "eval"} == {row["phase"] for row in run.metrics()}
    for name in ("environment.json", "tensorboard", "checkpoints", "report.html"):
        assert (run.path / name).exists()
    assert {"eval-start", "eval-final", "policy-000001"} <= set(run.episode_labels())
    row = run.read_episodes("policy-000001")[0]
    assert len(row["tokens"][0]) == len(row["advantages"][0]) == len(row["trajectories"][0]["token_ids"])

    (evaluation,) = [ludus("eval", "ludus/WordMath-v0", "--model", "run", "--tasks", "3", "--out", "e", cwd=here)]
    assert evaluation.returncode == 0, evaluation.stderr
    assert "accuracy" in evaluation.stdout and "3 of ludus/WordMath-v0" in evaluation.stdout
    assert json.loads((here / "e" / "result.json").read_text())["tasks"] == 3
    assert "Trajectories to read" in (here / "e" / "report.html").read_text()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_going_on_works(here: Path) -> None:
    command = [sys.executable, "-m", "ludus", "train", "quick.yaml", "policy.steps=400", "--out", "run"]
    command += ["checkpoint.every=2", "eval.every=1000"]
    process = subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE, text=True)
    metrics = here / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and '"policy"' not in (metrics.read_text() if metrics.exists() else ""):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; go on with: ludus train --resume run"
    assert "Traceback" not in errors

    steps = max(row["step"] for row in RunFolder(here / "run").metrics() if row["phase"] == "policy")
    recipe = (here / "run" / "recipe.yaml").read_text()
    (here / "run" / "recipe.yaml").write_text(recipe.replace("steps: 400", f"steps: {steps + 1}"))
    again = ludus("train", "--resume", "run", cwd=here)
    assert again.returncode == 0, again.stderr
    done = [row["step"] for row in RunFolder(here / "run").metrics() if row["phase"] == "policy"]
    assert done == list(range(1, steps + 2))


def test_a_new_environment_is_written(here: Path) -> None:
    done = ludus("new", "env", "word-chess", "--directory", "mine", cwd=here)
    assert done.returncode == 0, done.stderr
    assert (here / "mine" / "word-chess" / "word_chess.py").is_file()

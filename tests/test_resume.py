"""Kill a run anywhere with SIGKILL and resume it: the weights are those of a run that was not interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.trainers.checkpoint import CheckpointError, list_checkpoints, load_weights, save_checkpoint, write_folder

RECIPE = """
name: small
seed: 3
threads: 1
model:
  tiny: {hidden_size: 32, layers: 2, heads: 2, kv_heads: 1, intermediate_size: 64, initializer_range: 0.1,
         tags: ["<calculator>", "</calculator>"]}
envs:
  - {name: ludus/WordMath-v0, weight: 2, options: {system_prompt: "", levels: [1]}}
  - {name: ludus/WordMath-v0, weight: 1, options: {system_prompt: "", levels: [2], seed: 5}}
engine: {slots: 16, max_length: 256}
sampling: {max_tokens: 8}
sft: {steps: 6, batch_size: 4, demonstrations: 64, flaw_rate: 0.5, optimizer: {muon_lr: 0.02}}
policy: {algorithm: grpo, steps: 7, groups: 3, group_size: 3, minibatches: 2}
eval: {every: 3, tasks: 4}
checkpoint: {every: 2, keep: 2}
trajectories: {every: 2, episodes: 4}
"""


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ludus", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-2000:]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(list_checkpoints(run / "checkpoints")[-1].path / "model.safetensors")


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(start([str(recipe), "--out", str(run)]))
    return run


def kill_when(process: subprocess.Popen[bytes], metrics: Path, lines: int, delay_s: float) -> bool:
    """SIGKILL as soon as the run has logged so many lines, and a moment more; False if it ended before."""
    while process.poll() is None:
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= lines:
            time.sleep(delay_s)  # a random moment within what follows, such as a checkpoint
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.002)
    process.communicate()
    return False


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(recipe: Path, uninterrupted: Path, tmp_path: Path) -> None:
    whole, run, rng = rows(uninterrupted), tmp_path / "run", random.Random(11)
    # One kill in the cold start, one in the policy phase, and one more between, each at a random line and moment.
    points = sorted(rng.sample(range(1, len(whole) - 1), 3))
    killed = 0
    for number, point in enumerate(points):
        arguments = ["--resume", str(run)] if number else [str(recipe), "--out", str(run)]
        killed += kill_when(start(arguments), run / "metrics.jsonl", point, rng.random() * 0.05)
    assert killed >= 2
    finish(start(["--resume", str(run)]))
    expected, found = weights(uninterrupted), weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [f"{part}_{what}" for part in ("rollout", "verify", "train") for what in ("seconds", "tokens_per_second")]
    timing = {"seconds", "eval_seconds", *steps}
    plain = [{key: value for key, value in row.items() if key not in timing} for row in whole]
    assert [{key: value for key, value in row.items() if key not in timing} for row in rows(run)] == plain


def test_every_step_is_logged_once_and_the_model_loads_in_transformers(uninterrupted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    counted = Counter((row["phase"], row["step"], row.get("stage"), row.get("env")) for row in rows(uninterrupted))
    assert set(counted.values()) == {1}
    assert [step for phase, step, *_ in counted if phase == "policy"] == list(range(1, 8))
    path = list_checkpoints(uninterrupted / "checkpoints")[-1].path
    model = AutoModelForCausalLM.from_pretrained(path)
    assert AutoTokenizer.from_pretrained(path).chat_template
    assert all(torch.equal(tensor, weights(uninterrupted)[name]) for name, tensor in model.state_dict().items())


def test_same_seed_gives_the_same_weights_whatever_the_concurrency(recipe: Path, uninterrupted, tmp_path) -> None:
    run = tmp_path / "run"
    finish(start([str(recipe), "policy.concurrency=2", "engine.slots=8", "--out", str(run)]))
    assert all(torch.equal(tensor, weights(uninterrupted)[name]) for name, tensor in weights(run).items())


def test_metrics_tell_the_environments_apart(uninterrupted: Path) -> None:
    policy = [row for row in rows(uninterrupted) if row["phase"] == "policy"]
    both = [row for row in policy if {"reward/ludus/WordMath-v0#1", "reward/ludus/WordMath-v0#2"} <= row.keys()]
    assert both
    evaluated = {row["env"] for row in rows(uninterrupted) if row["phase"] == "eval"}
    assert evaluated == {"ludus/WordMath-v0#1", "ludus/WordMath-v0#2"}


DISK_FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from ludus.cli import main
main(sys.argv[1:])
"""


def test_a_checkpoint_that_does_not_fit_leaves_the_last_good_one(recipe: Path, uninterrupted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(start([str(recipe), "policy.steps=2", "--out", str(run)]))
    before = {c.path.name: weights(run) for c in list_checkpoints(run / "checkpoints")}
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("steps: 2\n", "steps: 7\n"))
    command = [sys.executable, "-c", DISK_FULL, "60000", "train", "--resume", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the last good one stands" in done.stderr
    after = list_checkpoints(run / "checkpoints")
    assert [c.path.name for c in after] == list(before)
    assert all(torch.equal(tensor, before[after[-1].path.name][name]) for name, tensor in weights(run).items())
    assert not list((run / "checkpoints").glob(".*"))
    finish(start(["--resume", str(run)]))
    assert all(torch.equal(tensor, weights(uninterrupted)[name]) for name, tensor in weights(run).items())


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    good = write_folder(tmp_path / "sft-000001", lambda place: (place / "file").write_text("good") and None)

    def fail(place: Path) -> None:
        (place / "file").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left"):
        write_folder(good, fail)
    assert (good / "file").read_text() == "good"
    assert [path.name for path in tmp_path.iterdir()] == ["sft-000001"]


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    small, tokenizer = create_tiny_model(TinyModel(hidden_size=32, layers=1, heads=2, kv_heads=1), 0)
    deeper, _ = create_tiny_model(TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1), 0)
    wider, _ = create_tiny_model(TinyModel(hidden_size=64, layers=1, heads=2, kv_heads=1), 0)
    path = save_checkpoint(tmp_path, "policy", 1, small, tokenizer, {}, keep=1)
    for other in (deeper, wider):
        with pytest.raises(CheckpointError, match="another shape"):
            load_weights(other, path)

"""Runs whose samples come from vLLM: in this process's engine, and in Ray actors whose engine is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import pytest
import torch
from test_preference_rounds import weights
from test_train import Notes, Vowels
from tied_model import SHAPE
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import GemmaConfig, GemmaForCausalLM, XGLMConfig, XGLMForCausalLM

from ludus import train
from ludus.agents.model import character_tokenizer, create_tiny_model
from ludus.envs.source import ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.recipe import make_recipe
from ludus.run_folder import RunFolder, read_metrics

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
RECIPE = """
name: small
threads: 1
model:
  tiny: {hidden_size: 64, layers: 2, heads: 2, kv_heads: 2, intermediate_size: 96, max_length: 160}
envs: [{name: ludus/WordMath-v0, options: {system_prompt: ""}}]
engine: {kind: vllm, slots: 8, max_length: 160}
sampling: {max_tokens: 12, temperature: 0.8, top_k: 20}
policy: {steps: 3, groups: 2, group_size: 4}
eval: {every: 1000, tasks: 4}
trackers: {tensorboard: false}
"""


def begin(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    (folder / "small.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "ludus", "train", "small.yaml", *overrides, "--out", "run"]
    return subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def all_below(process: subprocess.Popen[str]) -> dict[int, str]:
    """The processes that it has started, and how each was called."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            found[child.pid] = f"{child.name()} {' '.join(child.cmdline())}"
        except psutil.Error:
            continue
    return found


def engine_of_the_worker(process: subprocess.Popen[str]) -> int:
    """The largest process that the Ray actor has started; vLLM does not always give its own a name."""
    below = psutil.Process(process.pid).children(recursive=True)
    (actor,) = [one for one in below if one.name().startswith("ray::RolloutWor")]
    return max(actor.children(recursive=True), key=lambda one: one.memory_info().rss).pid


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.2)


def left_behind(process: subprocess.Popen[str]) -> list[Path]:
    places = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [path for place in places for path in place.glob(f"ludus-*-{process.pid}-*")]


def test_a_run_in_this_process(vllm: Any, tmp_path: Path) -> None:
    process = begin(tmp_path)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    rows = [row for row in read_metrics(tmp_path / "run") if row["phase"] == "policy"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["kl_sampler/k3"] < 1e-6 for row in rows)  # under truncation, over the kept sets
    assert not left_behind(process)


class Shown(Vowels):
    """The same, with demonstrations and an answer that a hint may give."""

    def __init__(self) -> None:
        TextEnv.__init__(self, ProceduralSource(lambda rng, i: Task(str(i), f"say {int(rng.integers(10))}", "aeiou")))

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        return ["aeiou"[: rng.integers(1, 6)]]


ALL_PHASES: dict[str, Any] = {
    "name": "small",
    "threads": 1,
    "envs": [{"name": "test/Shown-v0"}],
    "sampling": {"max_tokens": 6},
    "eval": {"every": 9, "tasks": 2},
    "sft": {"steps": 2, "batch_size": 4, "demonstrations": 8},
    "star": {"rounds": 1, "groups": 3, "group_size": 2, "steps": 2, "batch_size": 2},
    "preference": {"steps": 1, "groups": 3, "group_size": 4},
    "policy": {"steps": 2, "groups": 2, "group_size": 4, "concurrency": 1},
}


def run_all_phases(path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, sleep: bool) -> list[bool]:
    """Whether vLLM slept at each step of an optimizer."""
    engine = {"kind": "vllm", "slots": 1, "max_length": 96, "sleep": sleep}  # a sequence alone has always the same bits
    recipe = make_recipe({**ALL_PHASES, "model": {"path": str(model)}, "engine": engine}, "test")
    engines: list[Any] = []
    place = train.place_rollout

    def placed(*arguments: Any) -> Any:
        rollout, its = place(*arguments)
        engines.append(its)
        return rollout, its

    slept: list[bool] = []
    hook = register_optimizer_step_pre_hook(lambda *_: slept.append(engines[0]._asleep))
    try:
        with monkeypatch.context() as patch, RunFolder.create(recipe, path) as run:
            patch.setattr(train, "place_rollout", placed)
            train.train_recipe(recipe, run, display=Notes())
    finally:
        hook.remove()
    return slept


def test_a_run_whose_engine_sleeps_while_anything_learns_ends_with_the_same_weights(
    vllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gymnasium.register(id="test/Shown-v0", entry_point=Shown)
    model, tokenizer = create_tiny_model(SHAPE, 0)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3  # so that turns end
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    try:
        awake = run_all_phases(tmp_path / "awake", tmp_path / "model", monkeypatch, sleep=False)
        rested = run_all_phases(tmp_path / "rested", tmp_path / "model", monkeypatch, sleep=True)
    finally:
        gymnasium.registry.pop("test/Shown-v0", None)
    assert awake == [False] * 7  # 2 of sft and star, 1 of preference, 2 of policy
    assert rested == [True] * 7
    ends = [weights(tmp_path / name) for name in ("awake", "rested")]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


@pytest.mark.parametrize("known", [True, False])
def test_models_are_those_that_vllm_knows(vllm: Any, known: bool, tmp_path: Path) -> None:
    """Other families than TorchEngine has; of what vLLM has not either, one sentence and nothing besides."""
    tokenizer = character_tokenizer(("<calculator>", "</calculator>"))
    names = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    names |= {"vocab_size": len(tokenizer), "max_position_embeddings": 160}
    torch.manual_seed(0)
    if known:
        shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = GemmaForCausalLM(GemmaConfig(**shape, num_key_value_heads=1, head_dim=32, **names))
    else:
        model = XGLMForCausalLM(XGLMConfig(d_model=64, num_layers=2, attention_heads=2, ffn_dim=96, **names))
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    process = begin(tmp_path, "model={path: other}")
    said, _ = process.communicate(timeout=400)
    assert process.returncode == (0 if known else 2), said
    if known:
        rows = [row for row in read_metrics(tmp_path / "run") if row["phase"] == "policy"]
        assert all(row["kl_sampler/k3"] < 1e-6 for row in rows) and len(rows) == 3
    else:
        assert "does not know models of the architecture XGLMForCausalLM; choose another model" in said
        assert "Traceback" not in said and not (tmp_path / "run").exists()
    assert not left_behind(process)


@pytest.mark.ray
def test_a_run_by_ray_goes_on_where_the_engine_is_killed(vllm: Any, ray_cluster: Any, tmp_path: Path) -> None:
    process = begin(tmp_path, "rollout.placement=ray_async", "policy.steps=4000", "eval.final_tasks=4")
    seen: dict[int, str] = {}
    killed, enough, metrics = None, 0, tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 400
    while process.poll() is None and time.monotonic() < deadline:
        seen |= all_below(process)
        steps = metrics.read_text().count('"policy"') if metrics.is_file() else 0
        if killed is None and steps >= 2:
            killed = engine_of_the_worker(process)
            os.kill(killed, signal.SIGKILL)
            enough = steps + 6  # what was under way is soon learnt from; more needs the new engine
        if killed is not None and steps >= enough:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[0]
    assert killed is not None
    seen |= all_below(process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "another takes its place" in said
    assert "vLLM's process has ended" in said, said
    wait_until_gone(set(seen))
    assert not left_behind(process)

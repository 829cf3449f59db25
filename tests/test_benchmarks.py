"""Each benchmark runs, at its smallest size. What they measure is not tested: a busy machine would fail it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipe_runs
from benchmarks.__main__ import NAMES, main
from benchmarks.gpu.__main__ import main as gpu_main
from benchmarks.measure import BenchmarkError, Sample, in_turns, ratio
from benchmarks.options import REPOSITORY, Options
from benchmarks.table import Table, verdict

TINY = (
    "model.tiny.hidden_size=16",
    "model.tiny.layers=1",
    "model.tiny.intermediate_size=16",
    "engine.slots=8",
    "sampling.max_tokens=2",
    "trajectories.eval_episodes=1",
)


def run(name: str, tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run one benchmark as the command line does; its tables as they were kept."""
    out = tmp_path / "results.json"
    assert main([name, "--quick", "--repetitions", "1", "--out", str(out), "--runs", str(tmp_path), *arguments]) == 0
    (record,) = json.loads(out.read_text())
    assert record["benchmark"] == name and record["quick"] and record["environment"]["packages"]["torch"]
    return record["tables"]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes run in this process, which has torch imported already, by the same command line."""
    from ludus.cli import main as ludus

    def wait(command: list[str], log: Path, options: Options) -> tuple[int, int]:
        log.touch()
        with pytest.raises(SystemExit) as end:
            ludus(command[3:])
        return int(end.value.code or 0), 0

    monkeypatch.setattr(recipe_runs, "_wait", wait)


def settings(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


# --- measuring -----------------------------------------------------------------------------------------------------


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    sides = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in ("a", "b")}
    found = in_turns(sides, repetitions=2, warmups=1)
    assert calls == ["a", "b"] * 3
    assert found == {"a": Sample((3.0, 5.0)), "b": Sample((4.0, 6.0))}


def test_a_ratio_is_taken_turn_by_turn_and_a_sample_shows_its_spread() -> None:
    gain = ratio(Sample((2.0, 9.0, 4.0)), Sample((1.0, 3.0, 4.0)))
    assert f"{gain:.1f}" == "2.0 (1.0 to 3.0)"
    assert verdict(gain, "at least", 2.0) == "at least 2: met"
    assert verdict(gain, "at most", 1.5) == "at most 1.5: MISSED"


def test_a_table_shows_a_missing_cell_as_a_dash() -> None:
    table = Table("Title", {"name": "", "number": ".1f"}, notes=["A note."])
    table.add("one", 1.0)
    table.add("two", None)
    assert table.text() == "Title\n\nname  number\n----  ------\none   1.0\ntwo   -\n\nA note.\n"


# --- the command line ----------------------------------------------------------------------------------------------


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*NAMES, "(gpu)"]
    assert all(len(line.split()) > 3 for line in lines)


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["engin"])
    assert end.value.code == 2
    assert "there is no benchmark 'engin'; known: engine, step" in capsys.readouterr().err


def test_results_are_appended_and_a_benchmark_that_cannot_run_says_why_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("imports", tmp_path)
    out = tmp_path / "results.json"
    assert main(["imports", "learning", "--quick", "--out", str(out), "--set", "policy.stepz=1"]) == 2
    assert [record["benchmark"] for record in json.loads(out.read_text())] == ["imports", "imports"]
    assert "learning: override policy.stepz=1: policy.stepz is not a known key" in capsys.readouterr().err


# --- each benchmark ------------------------------------------------------------------------------------------------


def test_engine(tmp_path: Path) -> None:
    (table,) = run("engine", tmp_path)
    assert [row["ratio"]["median"] > 0 for row in table["rows"]] == [True, True]


def test_both_sides_of_engine_sample_as_many_tokens_as_a_plan_asks_for() -> None:
    from benchmarks.engine import play_ludus, play_transformers, uneven_plans
    from benchmarks.tiny import tiny_model
    from ludus.agents.torch_engine import TorchEngine

    model, tokenizer = tiny_model()
    plans = uneven_plans(3, model.config.vocab_size)
    engine = TorchEngine(model, tokenizer, slots=3, max_length=512)
    engine.end_id = -1
    useful = sum(plan.useful for plan in plans)
    assert play_ludus(engine, plans) == play_transformers(model, plans) == useful


def test_step(tmp_path: Path) -> None:
    (table,) = run("step", tmp_path)
    assert table["rows"][0]["ratio"]["median"] > 0


def test_step_without_trl_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import step

    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'ludus\[bench\]'"):
        step.run(Options(quick=True))


def test_scaling(tmp_path: Path) -> None:
    episodes, tokens = run("scaling", tmp_path)
    assert [row["episodes"] for row in episodes["rows"]] == [8, 16]
    assert [row["new tokens each"] for row in tokens["rows"]] == [8, 16]


def test_slow_tools(tmp_path: Path) -> None:
    (table,) = run("slow_tools", tmp_path)
    assert [row["tool"] for row in table["rows"]] == ["none", "sleeps", "sleeps"]
    assert all(row["tokens/s"]["median"] > 0 for row in table["rows"])


@pytest.mark.ray
@pytest.mark.slow
def test_heavy_tail(ray_cluster: object, tmp_path: Path) -> None:
    (table,) = run("heavy_tail", tmp_path)
    names = [row["rollout"] for row in table["rows"]]
    assert names == ["no latency", "barrier after each batch", "asynchronous", "asynchronous"]
    assert [row["episodes in flight"] for row in table["rows"]] == [8, 4, 8, 8]
    assert all(row["tokens/s"]["median"] > 0 for row in table["rows"])


def test_a_heavy_tail_has_the_median_and_the_99th_percentile_that_it_says() -> None:
    import numpy as np

    from benchmarks.heavy_tail import HeavyTail

    env, drawn = HeavyTail(0.2, turns=4), []
    for seed in range(2000):
        env.reset(seed=seed)
        drawn += env.sleeps
    env.reset(seed=7)
    again = env.sleeps
    assert np.quantile(drawn, [0.5, 0.99]) == pytest.approx([0.2, 5.0], rel=0.1)
    assert again == drawn[28:32]


@pytest.mark.ray
@pytest.mark.slow
def test_ray_overhead_is_of_the_same_tokens(
    ray_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    rollouts, weights = run("ray_overhead", tmp_path)
    assert [row["side"] for row in rollouts["rows"]] == ["in process", "Ray"]
    assert rollouts["rows"][1]["ratio of seconds"]["median"] > 0
    assert [row["engine"] for row in weights["rows"]] == ["in process, TorchEngine", "a Ray worker, TorchEngine"]
    assert "pip install 'ludus[vllm]'" in weights["notes"][1]


@pytest.mark.ray
@pytest.mark.vllm
@pytest.mark.slow
def test_ray_overhead_with_vllm(ray_cluster: object, vllm: object, tmp_path: Path) -> None:
    _, weights = run("ray_overhead", tmp_path)
    assert weights["rows"][2]["engine"] == "VLLMEngine" and weights["rows"][2]["seconds"]["median"] > 0


@pytest.mark.ray
@pytest.mark.slow
def test_placements_go_on_from_one_cold_start(ray_cluster: object, tmp_path: Path, in_this_process: None) -> None:
    """With a TorchEngine everywhere, which starts sooner than vLLM."""
    accuracies, same = run("placement", tmp_path, *settings(*TINY, "engine.kind=torch"))
    names = [row["placement"] for row in accuracies["rows"]]
    assert names == ["in process, TorchEngine", "Ray, VLLMEngine", "Ray asynchronous, VLLMEngine"]
    assert [row["target"] for row in accuracies["rows"][1:]] == ["within ±0.05: one seed cannot tell"] * 2
    assert [row["what"] for row in same["rows"]] == ["episodes", "rows of curves", "tensors of the policy"]
    assert all(row["the same bits"] == "yes" and row["Ray"] > 0 for row in same["rows"])


def test_runs_that_differ_are_said_to_differ(tmp_path: Path, in_this_process: None) -> None:
    from benchmarks.placement import same_bits

    small = ("sft=null", "policy.steps=1", "policy.groups=1", "eval.tasks=1", "eval.final_tasks=1")
    found = []
    for seed in (0, 1):
        recipe = recipe_runs.read_recipe("wordmath.yaml", *TINY, *small, f"seed={seed}")
        found.append(recipe_runs.train(recipe, "differs", Options(runs=tmp_path)))
    said = {row[0]: row[3] for row in same_bits(*found).rows}
    assert said["episodes"] == said["tensors of the policy"] == "no"


def test_the_interval_of_a_difference_is_the_wider_of_seeds_and_tasks() -> None:
    """Worked by hand: deviation 0.01 of three, t of two degrees of freedom 2.920; 0.09 / 900 six times."""
    from benchmarks.placement import Difference

    theirs = [(0.9, 900)] * 3
    apart = Difference.of([(0.89, 900), (0.9, 900), (0.91, 900)], theirs)
    assert apart.by_seeds == pytest.approx(2.920 * 0.01 / 3**0.5)
    equal = Difference.of(theirs, theirs)
    assert (equal.mean, equal.by_seeds) == (0.0, 0.0)
    assert equal.by_tasks == pytest.approx(1.645 * 0.0006**0.5 / 3)
    assert equal.high == equal.by_tasks == -equal.low and apart.high > equal.high
    assert equal.verdict() == "within ±0.05: met"
    assert Difference.of([(0.86, 900)] * 3, theirs).verdict() == "within ±0.05: MISSED"
    assert Difference.of(theirs[:1], theirs[:1]).verdict() == "within ±0.05: one seed cannot tell"


def test_memory(tmp_path: Path) -> None:
    (table,) = run("memory", tmp_path, *settings(*TINY))
    assert 0.1 < table["rows"][0]["GiB"] < 100


def test_learning_compares_the_recipe_with_both_controls(tmp_path: Path, in_this_process: None) -> None:
    (table,) = run("learning", tmp_path, *settings(*TINY))
    names = [row["run"] for row in table["rows"]]
    assert names == ["recipe: cold start, then GRPO", "supervised training alone", "GRPO with shuffled rewards"]
    whole, _, shuffled = table["rows"]
    assert shuffled["after the cold start"] == whole["after the cold start"]
    (branch,) = tmp_path.glob("learning-seed0-shuffled-????????")
    assert [row["step"] for row in recipe_runs.read_metrics(branch) if row["phase"] == "sft"] == [1, 2]


def test_the_league_plays_presets_from_one_cold_start(tmp_path: Path, in_this_process: None) -> None:
    (table,) = run("league", tmp_path, *settings(*TINY))
    assert sorted(row["preset"] for row in table["rows"]) == ["grpo", "long2short", "opd"]
    (second,) = tmp_path.glob("league-seed0-long2short-????????")
    assert {row["phase"] for row in recipe_runs.read_metrics(second)} == {"eval", "policy"}  # the teacher's model
    starts = {row["seed 0"].split(" to ")[0] for row in table["rows"]}
    assert len(starts) == 1 and all("MISSED" in row["target"] or "met" in row["target"] for row in table["rows"])


def test_a_finished_run_is_found_again(tmp_path: Path, in_this_process: None) -> None:
    small = ("sft=null", "policy.steps=1", "policy.groups=1", "eval.tasks=1", "eval.final_tasks=1")
    recipe = recipe_runs.read_recipe("wordmath.yaml", *TINY, *small)
    first = recipe_runs.train(recipe, "again", Options(runs=tmp_path))
    second = recipe_runs.train(recipe, "again", Options(runs=tmp_path))
    assert (first.reused, second.reused) == (False, True)
    assert first.folder == second.folder and second.end["stage"] == "final"


def test_gsm8k_steps(tmp_path: Path, shared_data: Path, in_this_process: None) -> None:
    (table,) = run("gsm8k_steps", tmp_path, *settings(*TINY))
    assert [row["setting"] for row in table["rows"]] == ["copy", "infer"]
    assert table["rows"][0]["baselines"].startswith("regular expression 0.9")


# --- the GPU benchmark ---------------------------------------------------------------------------------------------


def test_gpu_benchmark_on_the_processor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_main(["--cpu-smoke", "--out", str(tmp_path / "gpu.json")]) == 0
    (record,) = json.loads((tmp_path / "gpu.json").read_text())
    parts = [row["part"] for row in record["tables"][0]["rows"]]
    assert parts[0] == "rollout, TorchEngine" and parts[-1] == "whole step"


WITHOUT_LUDUS = """
import runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {blocked!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Without if f is PathFinder else f for f in sys.meta_path if "editable" not in repr(f)]
sys.argv = ["benchmarks.gpu", "--cpu-smoke", "--out", {out!r}]
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def test_gpu_benchmark_runs_from_the_source_tree_where_little_is_installed(tmp_path: Path) -> None:
    blocked = {"gymnasium", "pydantic", "pydantic_core", "typer", "tensorboard", "pyarrow", "accelerate", "datasets"}
    code = WITHOUT_LUDUS.format(blocked=blocked, out=str(tmp_path / "gpu.json"))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "rollout, TorchEngine" in done.stdout


@pytest.mark.bubblewrap
def test_sandbox(bubblewrap: object, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_DATA", str(shared_data))
    starts, sessions, judging, *leftovers = run("sandbox", tmp_path)
    assert all(row["ratio"]["median"] > 0 for row in [*starts["rows"], *sessions["rows"]])
    assert all(row["judged rightly"] == row["programs"] == 4 for row in judging["rows"])
    assert len(leftovers) == len(judging["rows"])
    assert all(row["target"] == "met" for table in leftovers for row in table["rows"])
    assert len(leftovers) == 2 or "Docker was not measured" in sessions["notes"][-1]

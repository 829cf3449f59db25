"""Environments that others wrote: which tasks are held out, and what their mistakes do to a run."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

from ludus.agents.config import TinyModel
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import Arena, EnvCodeError
from ludus.cli import main
from ludus.envs.source import ListSource, ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.trainers.demonstrations import Demonstrations
from ludus.verifiers.verdict import Verdict

TINY = "{hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 32, initializer_range: 0.2}"
RECIPE = """
name: small
model: {tiny: TINY}
envs: [{name: ENV, options: OPTIONS}]
engine: {slots: 8, max_length: 200}
sampling: {max_tokens: 4}
policy: {algorithm: grpo, options: {kl_coef: 0.04}, steps: 2, groups: 2, group_size: 2}
eval: {tasks: 3}
checkpoint: {every: 1, keep: 5}
trajectories: {every: 1, episodes: 4, eval_episodes: 9}
"""


class Counting(TextEnv):
    """Asks for its tasks' own numbers; `size` tasks, endless if None. wrong: what its author got wrong."""

    def __init__(self, *, size: int | None = None, wrong: str = "", render_mode: str | None = None) -> None:
        self.wrong = wrong
        source: Any = ProceduralSource(self.generate)
        if size is not None:
            source = ListSource([Task(f"n-{i}", str(i), str(i)) for i in range(size)])
        super().__init__(source, render_mode=render_mode)

    def fail(self, where: str) -> None:
        if self.wrong == where:
            raise ZeroDivisionError(f"in {where}")

    def generate(self, rng: np.random.Generator, index: int) -> Task:
        self.fail("generate")
        return Task(f"n-{index}", "half of a pair: \ud800" if self.wrong == "surrogate" else str(index), str(index))

    def demonstrate(self, task: Task, rng: np.random.Generator, flaw_rate: float = 0.0) -> list[str]:
        self.fail("demonstrate")
        return None if self.wrong == "nothing" else [str(self.np_random.integers(1_000_000))]  # type: ignore[return-value]

    def baselines(self) -> dict[str, float]:
        self.fail("baselines")
        return {}

    def close(self) -> None:
        self.fail("close")

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.correct("same") if response == task.answer else Verdict.wrong("other")


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("theirs/Counting-v0", entry_point=Counting, disable_env_checker=True, order_enforce=False)
    yield
    del gymnasium.registry["theirs/Counting-v0"]


def train(folder: Path, *overrides: str, options: str = "{}", env: str = "theirs/Counting-v0") -> int:
    """The exit code of a small run into folder/run."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("TINY", TINY).replace("ENV", env).replace("OPTIONS", options))
    return command("train", str(recipe), *overrides, "--out", str(folder / "run"))


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return left.value.code  # type: ignore[return-value]


def tasks_of(run: Path, kind: str) -> set[str]:
    files = (run / "trajectories").glob(f"{kind}*.jsonl.gz")
    rows = [line for path in files for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert rows
    return {json.loads(line)["task_id"] for line in rows}


@pytest.mark.parametrize("options", ["{}", "{size: 10}", "{size: 2}"])
def test_evaluation_has_tasks_that_training_never_sees(options: str, tmp_path: Path) -> None:
    assert train(tmp_path, options=options) == 0
    trained, evaluated = tasks_of(tmp_path / "run", "policy"), tasks_of(tmp_path / "run", "eval")
    assert not trained & evaluated


def test_a_single_task_is_trained_and_evaluated_and_that_is_said(tmp_path: Path, capsys) -> None:
    assert train(tmp_path, options="{size: 1}") == 0
    printed = capsys.readouterr()
    assert "a single task" in printed.out + printed.err


@pytest.mark.parametrize("where", ["generate", "baselines", "close"])
def test_code_that_raises_outside_an_episode_is_one_sentence(where: str, tmp_path: Path, capsys) -> None:
    assert train(tmp_path, options=f"{{wrong: {where}}}") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "ZeroDivisionError" in error and where in error and "correct its code" in error


@pytest.mark.parametrize(("wrong", "says"), [("demonstrate", "ZeroDivisionError"), ("nothing", "a list of texts")])
def test_a_demonstrator_that_fails_is_one_sentence(wrong: str, says: str, tmp_path: Path, capsys) -> None:
    sft = "sft={steps: 1, batch_size: 2, demonstrations: 2}"
    assert train(tmp_path, sft, options=f"{{wrong: {wrong}}}") == 2
    assert says in capsys.readouterr().err


def test_half_of_a_surrogate_pair_in_a_prompt_ends_nothing(tmp_path: Path) -> None:
    assert train(tmp_path, options="{wrong: surrogate}") == 0


def test_demonstrations_are_the_same_where_the_environment_draws_from_its_own_generator() -> None:
    _, tokenizer = create_tiny_model(TinyModel(hidden_size=32, layers=1, heads=2, kv_heads=1), 0)
    arena = Arena.build("theirs", Counting, tokenizer)
    made = [Demonstrations([(arena, 1.0)], 8, 0.0, 7, 100).batch(0, 8) for _ in range(2)]
    assert made[0] == made[1]


def test_an_arena_names_the_environment_that_failed() -> None:
    _, tokenizer = create_tiny_model(TinyModel(hidden_size=32, layers=1, heads=2, kv_heads=1), 0)
    arena = Arena.build("theirs", lambda: Counting(wrong="generate"), tokenizer)
    with pytest.raises(EnvCodeError, match="theirs raised ZeroDivisionError while making a task: in generate"):
        arena.task(3)


def test_prompts_that_leave_no_room_stop_the_run(tmp_path: Path, capsys) -> None:
    wordmath = {"options": "{}", "env": "ludus/WordMath-v0"}
    assert train(tmp_path, "engine.max_length=40", **wordmath) == 2
    assert "raise engine.max_length" in capsys.readouterr().err
    sft = "sft={steps: 1, batch_size: 2, demonstrations: 2}"
    (tmp_path / "2").mkdir()
    assert train(tmp_path / "2", "engine.max_length=40", "policy=null", sft, **wordmath) == 2
    assert "engine.max_length" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.tiny.tags=[a]", "model.tiny.tags"),
        ("model.tiny.tags=['']", "model.tiny.tags"),
        ("model.tiny.tags=[<x>, <x>]", "<x> is a token already"),
        ("model.tiny.tags=['<|end|>']", "is a token already"),
        ("model.chat_template=none.jinja", "model.chat_template"),
        ("policy.group_size=1", "policy.group_size"),
        ("policy.options={eps: -1}", "grpo.eps"),
        ("policy={algorithm: dapo, options: {max_refills: 2.5}, steps: 1}", "max_refills"),
        ("policy={algorithm: dapo, options: {overlong_buffer: -4}, steps: 1}", "overlong_buffer"),
        ("threads=99999999999999999999", "threads"),
        ("engine.slots=1000000000", "engine.slots"),
    ],
)
def test_values_that_make_no_sense(override: str, says: str, tmp_path: Path, capsys) -> None:
    assert train(tmp_path, override) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in error


def test_a_cache_that_does_not_fit_names_the_settings(tmp_path: Path, capsys) -> None:
    assert train(tmp_path, "engine={slots: 65536, max_length: 10000000}", "model.tiny.max_length=10000000") == 2
    assert "lower engine.slots or engine.max_length" in capsys.readouterr().err


class TestResume:
    """What is missing or does not fit in a run folder is named, and nothing is lost."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        assert train(tmp_path) == 0
        return tmp_path / "run"

    def refused(self, run: Path, capsys) -> str:
        before = (run / "metrics.jsonl").read_bytes()
        capsys.readouterr()
        assert command("train", "--resume", str(run)) == 2
        assert (run / "metrics.jsonl").read_bytes() == before
        return capsys.readouterr().err

    def test_without_the_reference_policy(self, run: Path, capsys) -> None:
        shutil.rmtree(run / "checkpoints" / "reference")
        shutil.rmtree(run / "checkpoints" / "policy-000002")
        with pytest.raises(SystemExit) as left:
            main(["train", "--resume", str(run)])
        assert left.value.code == 2
        assert "from which the KL term measures" in capsys.readouterr().err

    def test_with_checkpoints_none_of_which_is_complete(self, run: Path, capsys) -> None:
        for path in (run / "checkpoints").glob("policy-*"):
            (path / "trainer_state.pt").unlink()
        assert "no complete checkpoint" in self.refused(run, capsys)

    def test_with_another_optimizer(self, run: Path, capsys) -> None:
        shutil.rmtree(run / "checkpoints" / "policy-000002")
        path = run / "recipe.yaml"
        recipe = yaml.safe_load(path.read_text())
        assert recipe["policy"]["optimizer"]["muon_lr"] is None
        recipe["policy"]["optimizer"]["muon_lr"] = 0.02
        path.write_text(yaml.safe_dump(recipe))
        capsys.readouterr()
        assert command("train", "--resume", str(run)) == 2
        assert "start a new run" in capsys.readouterr().err

"""Online preference learning: pairs that the policy plays and the verifier labels, and runs that go on exactly."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_train import SHAPE, Notes, Vowels

from ludus.agents.engine import Sampling
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import Arena, EpisodesFailedError, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.recipe import Recipe, make_recipe
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.checkpoint import CheckpointError, list_checkpoints
from ludus.trainers.config import OptimizerConfig, PreferenceConfig
from ludus.trainers.optimizer import build_optimizer
from ludus.trainers.pairs import PreferenceError, labelled, pairs_of
from ludus.trainers.preference import train_preference
from ludus.trainers.preference_rounds import PreferenceRounds
from ludus.trainers.task_stream import TaskStream


def ending_model() -> tuple[Any, Any]:
    """A model that ends turns: untrained ones hardly ever do by themselves."""
    model, tokenizer = create_tiny_model(SHAPE, 0)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    return model, tokenizer


class Run:
    """Rounds over the vowels task, closed at the end."""

    def __init__(self, mode: str = "share", frozen: bool | None = None, **config: Any) -> None:
        self.model, tokenizer = ending_model()
        engine = TorchEngine(self.model, tokenizer, slots=32, max_length=120)
        arena = Arena.build("vowels", lambda: Vowels(mode), tokenizer)
        self.rollout = Rollout(engine, {"vowels": arena}, concurrency=32)
        settings = PreferenceConfig(
            **{"steps": 3, "groups": 8, "group_size": 4, "optimizer": OptimizerConfig(lr=3e-3), **config}
        )
        self.notes = Notes()
        needs = settings.method != "orpo" and settings.reference == "start" if frozen is None else frozen
        try:
            self.rounds = PreferenceRounds(
                model=self.model,
                optimizer=build_optimizer(self.model, settings.optimizer),
                engine=engine,
                rollout=self.rollout,
                stream=TaskStream([(arena, 1.0)], 1, settings.group_size, Sampling(max_tokens=8)),
                config=settings,
                seed=0,
                recorder=self.notes,
                show=self.notes,
                reference=copy.deepcopy(self.model).requires_grad_(False) if needs else None,
            )
        except BaseException:
            self.rollout.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.rollout.close()

    def train(self) -> list[dict[str, Any]]:
        self.rounds.train(0, lambda step: None)
        return self.notes.rows


@pytest.mark.parametrize(
    ("method", "reference"), [("dpo", "start"), ("dpo", "last"), ("ipo", "start"), ("kto", "last"), ("orpo", "start")]
)
def test_rounds_raise_the_verified_score(method: str, reference: str) -> None:
    steps = 20
    with Run(method=method, reference=reference, steps=steps, groups=12, minibatches=2) as run:
        rows = run.train()
    rewards = [row["reward"] for row in rows]
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert np.mean(rewards[-4:]) - np.mean(rewards[:4]) > 0.2, rewards


@pytest.mark.parametrize("method", ["dpo", "ipo", "kto", "orpo"])
def test_pairs_that_a_verifier_labelled_once_raise_the_verified_score_of_the_policy(method: str) -> None:
    config = PreferenceConfig(method=method, steps=25, batch_size=16, optimizer=OptimizerConfig(lr=2e-3))
    with Run(method=method) as run:

        def play(groups: int) -> list[Any]:
            return run.rollout.run(run.rounds.stream.groups(groups))

        before = play(40)
        pairs = pairs_of(before)
        train_preference(
            run.model,
            build_optimizer(run.model, config.optimizer),
            labelled(pairs) if method == "kto" else pairs,
            config,
            reference=run.rounds.reference,
            recorder=run.notes,
            show=run.notes,
            after_step=lambda step: None,
        )
        run.rounds.engine.load_weights(run.model.eval(), 1)
        after = play(40)
    scores = [np.mean([episode.reward for episode in part]) for part in (before, after)]
    assert scores[1] - scores[0] > 0.15, scores


def test_a_round_without_pairs_takes_no_step_and_says_so() -> None:
    with Run("wrong") as run:
        before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        rows = run.train()
        assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())
    assert all(row["pairs"] == 0 and "loss" not in row for row in rows)


def test_failed_episodes_are_counted_and_never_paired() -> None:
    with Run("flaky", steps=1) as run:
        (row,) = run.train()
    assert row["errors"] > 0
    with Run("broken", steps=1) as run, pytest.raises(EpisodesFailedError, match="grader is away"):
        run.rounds.stream.sampling = Sampling(max_tokens=100)
        for step in range(20):
            run.rounds.step(step)


def test_the_reference_moves_with_the_rounds_where_that_is_asked_for() -> None:
    """With one optimiser step a round, a moving reference is the policy itself: no pair has a margin yet."""
    with Run(reference="last") as run:
        moving = [row["margin"] for row in run.train() if "margin" in row]
    with Run(reference="start") as run:
        fixed = [row["margin"] for row in run.train() if "margin" in row]
    assert moving == pytest.approx([0.0] * len(moving), abs=1e-5)
    assert abs(fixed[-1]) > 1e-3


def test_a_missing_or_useless_reference_is_refused_with_the_fix() -> None:
    with pytest.raises(PreferenceError, match="give a frozen copy of the policy or reference: last"):
        Run(frozen=False)
    with pytest.raises(PreferenceError, match="orpo would not look at the reference; give reference=None"):
        Run(method="orpo", frozen=True)


# --- as a phase of a recipe ----------------------------------------------------------------------------------------

gymnasium.register(id="test/Vowels-v0", entry_point="test_train:Vowels")
BASE: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "threads": 1,
    "envs": [{"name": "test/Vowels-v0"}],
    "engine": {"slots": 16, "max_length": 256},
    "sampling": {"max_tokens": 6},
    "eval": {"every": 3, "tasks": 3},
    "checkpoint": {"every": 2, "keep": 9},
    "trajectories": {"every": 2, "episodes": 4},
}
FILE = {"method": "dpo", "steps": 6, "batch_size": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe whose model ends its turns."""
    model, tokenizer = ending_model()
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return {**BASE, "model": {"path": str(place)}}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(list_checkpoints(run / "checkpoints")[-1].path / "model.safetensors")


def train(recipe: Recipe, path: Path, resume: bool = False) -> None:
    with RunFolder.resume(path) if resume else RunFolder.create(recipe, path) as run:
        train_recipe(recipe, run, resume=resume, display=Notes())


def back_to(run: Path, name: str, place: Path) -> Path:
    """A copy of a run as it was when its newest checkpoint was `name`."""
    shutil.copytree(run, place)
    found = [checkpoint.path for checkpoint in list_checkpoints(place / "checkpoints")]
    for path in found[[path.name for path in found].index(name) + 1 :]:
        shutil.rmtree(path)
    return place


@pytest.mark.parametrize("source", ["file", "rounds"])
def test_a_run_that_stopped_in_the_phase_ends_with_the_weights_of_one_that_did_not(
    source: str, base, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}", "chosen": "yes", "rejected": "no"}) + "\n" for i in range(7)))
    preference: dict[str, Any] = {**FILE, "path": str(file)}
    if source == "rounds":
        preference = {"method": "kto", "steps": 4, "groups": 4, "group_size": 6, "minibatches": 2}
    policy = {"steps": 2, "groups": 2, "group_size": 2}
    recipe = make_recipe({**base, "preference": preference, "policy": policy}, "small.yaml")
    whole = tmp_path / "whole"
    train(recipe, whole)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "preference"] == list(range(1, preference["steps"] + 1))
    learnt = [row for row in rows if row["phase"] == "preference" and "grad_norm" in row]
    assert any(row["step"] > 2 for row in learnt), "something is learnt after the checkpoint to go on from"
    stages = [row["stage"] for row in rows if row["phase"] == "eval"]
    assert stages == ["start", "after_preference", "final"]
    timing = ("seconds", "per_second")
    for name in ("preference-000002", f"preference-{preference['steps']:06d}"):
        again = back_to(whole, name, tmp_path / name)
        train(recipe, again, resume=True)
        assert all(torch.equal(tensor, weights(whole)[key]) for key, tensor in weights(again).items())
        found = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
        plain = [[{k: v for k, v in row.items() if not k.endswith(timing)} for row in part] for part in (rows, found)]
        assert plain[0] == plain[1]


def test_a_lost_reference_is_named_when_a_run_goes_on(base, tmp_path: Path) -> None:
    recipe = make_recipe({**base, "preference": {"steps": 2, "groups": 2}}, "small.yaml")
    train(recipe, tmp_path / "run")
    again = back_to(tmp_path / "run", "preference-000002", tmp_path / "again")
    shutil.rmtree(again / "checkpoints" / "reference_preference")
    train(recipe, again, resume=True)  # the phase is over, so nothing needs it any more
    longer = make_recipe({**base, "preference": {"steps": 4, "groups": 2}}, "small.yaml")
    state = again / "checkpoints" / "preference-000002" / "trainer_state.pt"
    torch.save({**torch.load(state), "finished": False}, state)
    with pytest.raises(CheckpointError, match="from which the preference loss measures; put it back"):
        train(longer, again, resume=True)


def test_a_phase_by_itself_ends_in_a_report(base, tmp_path: Path) -> None:
    recipe = make_recipe({**base, "preference": {"method": "orpo", "steps": 1, "groups": 2}}, "small.yaml")
    train(recipe, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "has not finished" not in page and "after preference learning" in page
    assert RunFolder(tmp_path / "run").episode_labels() == ["eval-start", "preference-000001", "eval-after_preference"]

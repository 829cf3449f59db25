"""STaR: what is kept was found right, no hint is learnt, tasks are solved more often, and runs go on exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_preference_rounds import BASE, back_to, ending_model, train, weights
from test_train import Notes, Vowels

from ludus.agents.engine import Sampling
from ludus.agents.rollout import Arena, EpisodesFailedError, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode, Trajectory
from ludus.envs.source import ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.recipe import make_recipe
from ludus.trainers import star
from ludus.trainers.config import OptimizerConfig, StarConfig
from ludus.trainers.optimizer import build_optimizer
from ludus.trainers.star import StarError, StarRounds, hint, kept_answers, without_hint
from ludus.trainers.task_stream import TaskStream
from ludus.verifiers.verdict import Verdict


class Answered(Vowels):
    """The same with an answer that a hint may give."""

    def __init__(self, mode: str = "share") -> None:
        TextEnv.__init__(
            self, ProceduralSource(lambda rng, i: Task(str(i), f"say {int(rng.integers(10))}", "some vowels"))
        )
        self.mode = mode


class Run:
    """Rounds over the vowels task, closed at the end."""

    def __init__(self, mode: str = "share", **config: Any) -> None:
        self.model, self.tokenizer = ending_model()
        engine = TorchEngine(self.model, self.tokenizer, slots=32, max_length=120)
        arena = Arena.build("vowels", lambda: Answered(mode), self.tokenizer)
        self.rollout = Rollout(engine, {"vowels": arena}, concurrency=32)
        usual = {"rounds": 4, "groups": 24, "group_size": 2, "steps": 6, "optimizer": OptimizerConfig(lr=3e-3)}
        settings = StarConfig(**{**usual, **config})
        self.notes = Notes()
        self.kept: list[list[Episode]] = []
        self.rounds = StarRounds(
            model=self.model,
            optimizer=build_optimizer(self.model, settings.optimizer),
            engine=engine,
            rollout=self.rollout,
            stream=TaskStream([(arena, 1.0)], 1, settings.group_size, Sampling(max_tokens=8)),
            config=settings,
            seed=0,
            recorder=self.notes,
            show=self.notes,
            first={name: tensor.clone() for name, tensor in self.model.state_dict().items()}
            if settings.restart
            else None,
            keep_episodes=lambda number, episodes: self.kept.append(episodes),
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.rollout.close()

    def train(self) -> list[dict[str, Any]]:
        self.rounds.train(0, lambda number: None)
        return self.notes.rows


@pytest.mark.parametrize("restart", [True, False])
def test_tasks_are_solved_more_often_from_round_to_round(restart: bool) -> None:
    with Run(restart=restart, rationalise=False, group_size=1, groups=48, steps=20) as run:
        rows = run.train()
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["solved"] > rows[0]["solved"] + 0.2
    assert all(row["kept"] == round(row["solved"] * 48) and row["rationalised"] == 0 for row in rows)


def test_with_restart_a_round_fine_tunes_the_first_weights_and_else_those_it_has(monkeypatch) -> None:
    begun: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    step = star.sft_step
    for restart, seen in begun.items():
        monkeypatch.setattr(
            star, "sft_step", lambda model, *rest, seen=seen: (seen.append(weight(model)), step(model, *rest))[1]
        )
        with Run(restart=restart, rounds=2, steps=2) as run:
            before = weight(run.model)
            run.train()
        assert torch.equal(seen[0], before) and not torch.equal(seen[1], before)
        assert torch.equal(seen[2], before) == restart


def test_the_weights_that_learn_take_their_place_where_nothing_is_kept() -> None:
    """`first` is another model than the one that played."""
    with Run("wrong", rounds=2, rationalise=False) as run:
        assert run.rounds.first is not None
        run.rounds.first = {name: tensor + 0.5 for name, tensor in run.rounds.first.items()}
        rows = run.train()
        assert [row["kept"] for row in rows] == [0, 0]
        learner = zip(run.model.state_dict().values(), run.rounds.first.values(), strict=True)
        assert all(torch.equal(one, other) for one, other in learner)


def weight(model: torch.nn.Module) -> torch.Tensor:
    return next(model.parameters()).detach().clone()


def test_what_was_found_with_a_hint_is_learnt_without_it(monkeypatch) -> None:
    learnt: list[Trajectory] = []
    monkeypatch.setattr(star.StarRounds, "_learn", lambda self, number, answers: learnt.extend(answers) or {})
    with Run(rounds=1, group_size=1, groups=48, hint="zzz{answer}zzz") as run:
        (row,) = run.train()
        texts = [run.tokenizer.decode(answer.token_ids) for answer in learnt]
        tails = [run.tokenizer.decode(np.array(a.token_ids)[np.array(a.mask)][:-1].tolist()) for a in learnt]
    assert row["rationalised"] > 0 and len(learnt) == row["kept"] + row["rationalised"]
    assert not any("zzz" in text for text in texts)
    plain = {episode.trajectories[0].token_ids[: episode.trajectories[0].mask.index(True)] for episode in run.kept[0]}
    assert {answer.token_ids[: answer.mask.index(True)] for answer in learnt} <= plain
    assert all(sum(c in "aeiou" for c in tail) / max(len(tail), 1) > 0.15 for tail in tails)


def episode(group: str, right: bool, tokens: tuple[int, ...], prompt: tuple[int, ...] = (1, 2)) -> Episode:
    mask = (False,) * len(prompt) + (True, False, True)[: len(tokens)]
    path = Trajectory(prompt + tokens, mask, (0.0,) * len(mask), (0,) * len(mask))
    verdict = Verdict.correct("") if right else Verdict.wrong("")
    return Episode(
        id=f"{group}/{tokens}",
        env="e",
        task_id=group,
        group=group,
        seed=0,
        reward=float(right),
        rewards={},
        verdict=verdict,
        terminated=True,
        truncated=False,
        error=None,
        stop_reason="answer",
        messages=(),
        trajectories=(path,),
    )


def test_different_right_answers_are_kept_up_to_the_most() -> None:
    played = [
        episode("a", True, (5, 6, 7)),
        episode("a", True, (5, 6, 7)),
        episode("a", False, (8, 8, 8)),
        episode("b", True, (9, 9, 9)),
        episode("a", True, (5, 5, 5)),
        episode("a", True, (4, 4, 4)),
    ]
    assert [answer.token_ids[2:] for answer in kept_answers(played, 2)] == [(5, 6, 7), (5, 5, 5), (9, 9, 9)]
    pieces = replace(played[0], trajectories=played[0].trajectories * 2)
    with pytest.raises(StarError, match=r"needs one; set model\.on_rewrite: refuse"):
        kept_answers([pieces], 1)


def test_a_hinted_answer_takes_the_place_behind_the_plain_prompt() -> None:
    hinted = episode("a", True, (5, 6, 7), prompt=(1, 2, 3, 4))
    found = without_hint(hinted, episode("a", False, (8,)))
    assert found.token_ids == (1, 2, 5, 6, 7) and found.mask == (False, False, True, False, True)
    assert hint("How many?", 3, "(It is {answer}, {answer}.)") == "How many?\n(It is 3, 3.)"
    for answer in (None, {"cases": []}, "def check(candidate):" * 20):
        with pytest.raises(StarError, match=r"and so no hint; set star\.rationalise: false"):
            hint("How many?", answer, "{answer}")


def test_answers_are_learnt_as_they_stand_whatever_they_were_sampled_with() -> None:
    one = episode("a", True, (5, 6, 7))
    sampled = replace(one.trajectories[0], temperature=0.5, kept=((1,),) * 5)
    (answer,) = kept_answers([replace(one, trajectories=(sampled,))], 1)
    assert answer.temperature == 1.0 and answer.kept is None


def test_settings_and_episodes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"must hold \{answer\}"):
        StarConfig(rounds=1, steps=1, hint="think")
    with Run(restart=True) as run, pytest.raises(StarError, match="where and only where restart is true"):
        replace(run.rounds, first=None)
    with Run(mode="broken", rounds=1) as run, pytest.raises(EpisodesFailedError, match="the grader is away"):
        run.train()
    with Run(mode="wrong", rounds=1) as run:
        before = weight(run.model)
        (row,) = run.train()
        assert (row["solved"], row["kept"], row["rationalised"]) == (0, 0, 0) and "loss" not in row
        assert torch.equal(weight(run.model), before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, tokenizer = ending_model()
    place = tmp_path_factory.mktemp("model")
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return {**BASE, "model": {"path": str(place)}}


@pytest.mark.parametrize("restart", [True, False])
def test_a_run_that_stopped_in_the_phase_ends_with_the_weights_of_one_that_did_not(
    restart: bool, base, tmp_path: Path
) -> None:
    phase = {"rounds": 4, "groups": 6, "group_size": 2, "steps": 2, "restart": restart, "rationalise": False}
    recipe = make_recipe({**base, "star": phase, "policy": {"steps": 1, "groups": 2, "group_size": 2}}, "small.yaml")
    whole = tmp_path / "whole"
    train(recipe, whole)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "star"] == [1, 2, 3, 4]
    assert [row["stage"] for row in rows if row["phase"] == "eval"] == ["start", "after_star", "final"]
    again = back_to(whole, "star-000002", tmp_path / "again")
    train(recipe, again, resume=True)
    assert all(torch.equal(tensor, weights(whole)[key]) for key, tensor in weights(again).items())
    page = (whole / "report.html").read_text()
    assert "after STaR" in page and "Tasks solved" in page

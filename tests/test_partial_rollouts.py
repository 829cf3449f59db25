"""Partial rollouts: what one policy began the next goes on with, token for token, and a resumed run likewise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from bigram import chain, drifting_model, writing_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_rollout import TOKENIZER, Echo, ids, opened_by, plain, requests, rollout_of, task
from test_train import SHAPE, Notes, Run, Vowels, ended

from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import PAUSED, EpisodesFailedError, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode
from ludus.algorithm_choice import chosen_algorithm
from ludus.envs.task import Message, Task
from ludus.recipe import RecipeError, make_recipe
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.algorithms import AlgorithmError
from ludus.trainers.algorithms.corrections import truncated_weight
from ludus.trainers.batch import Row
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.config import PolicyConfig
from ludus.trainers.policy import PolicyTrainer
from ludus.trainers.policy_step import frozen_logprobs
from ludus.trainers.unfinished import Unfinished
from ludus.verifiers.repetition import Loop
from ludus.verifiers.verdict import InfrastructureError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@pytest.fixture(scope="module")
def attending() -> PreTrainedModel:
    return create_tiny_model(SHAPE, 0)[0]


def in_pieces(
    rollout: Rollout, asked: list[Any], budget: int, between: Callable[[int], None] = lambda go: None
) -> tuple[list[Episode], int]:
    """The episodes of the requests, played `budget` tokens at a time, and how many goes it took.

    between: called with the number of each.
    """
    found: list[Episode | None] = [None] * len(asked)
    goes = 0
    while True:
        open_ = [i for i, episode in enumerate(found) if episode is None or episode.stop_reason == PAUSED]
        if not open_:
            return [episode for episode in found if episode is not None], goes
        between(goes)
        for i, episode in zip(
            open_, rollout.run([replace(asked[i], budget=budget, begun=found[i]) for i in open_]), strict=True
        ):
            before = found[i]
            more = sum(map(sum, [t.mask for t in episode.trajectories]))
            if before is not None:
                more -= sum(map(sum, [t.mask for t in before.trajectories]))
            assert more <= budget
            assert episode.stop_reason != PAUSED or more == budget
            found[i] = Episode.from_json(episode.to_json())  # as a checkpoint keeps it
        goes += 1


@settings(max_examples=12)
@given(
    budget=st.integers(1, 40),
    stop=st.sampled_from([(), ("a", "7"), ("ee", "00", "x")]),
    top_k=st.sampled_from([0, 5]),
    attends=st.booleans(),
)
def test_a_greedy_episode_in_pieces_is_that_in_one(budget, stop, top_k, attends, attending) -> None:
    """Greedy, so that no seed plays a part: same tokens, messages, rewards, kept sets, and log-probabilities."""
    model = attending if attends else drifting_model(TOKENIZER, end=0.25)
    asked = requests([task(i, 1 + i % 3) for i in range(5)], temperature=0.0, stop=stop, top_k=top_k)
    with rollout_of(TorchEngine(model, TOKENIZER, slots=16, max_length=400)) as rollout:
        whole = rollout.run(asked)
        pieces, _ = in_pieces(rollout, asked, budget)
    for one, other in zip(whole, pieces, strict=True):
        first, second = plain(one), plain(other)
        for ours, theirs in zip(first["trajectories"], second["trajectories"], strict=True):
            assert ours.pop("logprobs") == pytest.approx(theirs.pop("logprobs"), abs=1e-4)
        assert first == second


def test_a_stop_sequence_and_a_loop_reach_back_over_a_pause() -> None:
    """Greedy "abcd": "bc" ends the turn though the pause falls between; so does the third "ab" of "ababab"."""
    model = writing_model(TOKENIZER, chain(ids("abcd")) | opened_by("<|assistant|>", "a"))
    asked = requests([task(0, 1)], temperature=0.0, stop=("bc",))
    with rollout_of(TorchEngine(model, TOKENIZER, slots=16, max_length=100)) as rollout:
        ((episode,), goes) = in_pieces(rollout, asked, 2)
    assert goes == 2 and episode.messages[-1]["content"] == "abc" and episode.terminated
    a, b = ids("ab")
    model = writing_model(TOKENIZER, {a: b, b: a} | opened_by("<|assistant|>", "a"))
    asked = requests([task(0, 1)], temperature=0.0, stop_on_loop=Loop(max_period=2, repeats=3, min_tokens=6))
    with rollout_of(TorchEngine(model, TOKENIZER, slots=16, max_length=100)) as rollout:
        ((episode,), goes) = in_pieces(rollout, asked, 4)
    assert goes == 2 and episode.messages[-1]["content"] == "ababab" and episode.stop_reason == "loop"


def test_the_sequence_may_be_full_where_a_pause_ends(attending) -> None:
    with rollout_of(TorchEngine(attending, TOKENIZER, slots=16, max_length=60)) as rollout:
        asked = requests([task(0, 1)], temperature=0.0, max_tokens=100)
        (whole,) = rollout.run(asked)
        sampled = sum(whole.trajectories[0].mask)
        ((episode,), _) = in_pieces(rollout, asked, sampled)
    assert whole.stop_reason == episode.stop_reason == "context"
    assert episode.trajectories[0].token_ids == whole.trajectories[0].token_ids


def test_every_token_keeps_the_version_that_sampled_it(attending) -> None:
    """Three tokens at a time, of a policy that changes between: versions rise within a turn, and no token changes."""
    engine = TorchEngine(attending, TOKENIZER, slots=16, max_length=400)
    with rollout_of(engine) as rollout:
        asked = requests([task(0, 1)], stop=("~",), max_tokens=10)
        ((episode,), goes) = in_pieces(rollout, asked, 3, lambda go: engine.load_weights(attending, go))
    (path,) = episode.trajectories
    versions = [v for v, own in zip(path.versions, path.mask, strict=True) if own]
    assert versions == [n // 3 for n in range(len(versions))] and goes == -(-len(versions) // 3) > 1
    assert len(path.steps) == 1


class Moody(Echo):
    """Never says the same twice."""

    moods = 0

    def respond(self, task: Task, action: str) -> str | None:
        type(self).moods += 1
        return f"mood {self.moods}" if self.turn < 3 else None


def test_an_environment_that_answers_otherwise_after_a_pause_fails_the_episode() -> None:
    model = drifting_model(TOKENIZER, end=0.25)
    with rollout_of(TorchEngine(model, TOKENIZER, slots=16, max_length=400), Moody) as rollout:
        (episode,), _ = in_pieces(rollout, requests([task(0)]), 4)
    assert episode.error is not None and "answered the same actions otherwise than before a pause" in episode.error


# Training


def partial(run: Run, budget: int, max_staleness: int = 4) -> None:
    parts = {name: getattr(run.trainer, name) for name in PolicyTrainer.__dataclass_fields__ if name[0] != "_"}
    run.trainer = PolicyTrainer(**{**parts, "unfinished": Unfinished(budget, max_staleness)})


class Letters(Vowels):
    """Three answers, so that episodes are of several turns."""

    def respond(self, task: Task, action: str) -> str | None:
        return "more" if self.turn < 3 else None


@pytest.mark.parametrize(("budget", "max_staleness"), [(3, 4), (3, 1), (1, 2), (100, 4)])
def test_the_next_policy_goes_on_with_what_is_unfinished(budget: int, max_staleness: int) -> None:
    """Every group is learnt from once and whole, and no token of it is older than allowed."""
    with ended(Run(("letters", Letters, 1.0), steps=8, options={"kl_coef": 0.0})) as run:
        partial(run, budget, max_staleness)
        rows = run.train()
        left = run.trainer.unfinished
        assert left is not None and run.trainer.algorithm.corrections == (truncated_weight,)
    lags = set()
    groups: list[str] = []
    for step, (episodes, _) in enumerate(run.kept):
        for name in dict.fromkeys(episode.group for episode in episodes):
            groups.append(name)
            own = [episode for episode in episodes if episode.group == name]
            assert [episode.id for episode in own] == [f"{name}/{sample}" for sample in range(4)]
        assert all(episode.stop_reason != PAUSED for episode in episodes)
        steps = [
            step - v
            for e in episodes
            for t in e.trajectories
            for v, sampled in zip(t.versions, t.mask, strict=True)
            if sampled
        ]
        lags |= set(steps)
        assert rows[step]["staleness"] == pytest.approx(np.mean(steps))
    assert len(groups) == len(set(groups)) and min(lags) == 0 and max(lags) <= max_staleness
    if budget == 100:
        assert lags == {0} and not left.groups and all(row["paused"] == 0 for row in rows)
    else:
        assert max(lags) > 0 and any(row["paused"] > 0 for row in rows)


class Broken(Letters):
    """Three answers to tasks with an even number; the others have no room, or cannot begin. Away: none can."""

    def messages(self, task: Task) -> list[Message]:
        if int(task.id) % 2:
            return [{"role": "user", "content": "say it " * 100}]
        return super().messages(task)

    def reset(self, **arguments: Any) -> Any:
        found = super().reset(**arguments)
        assert self.task is not None
        if self.mode == "away" or (self.mode == "broken" and int(self.task.id) % 2):
            raise InfrastructureError("the task is away")
        return found


@pytest.mark.parametrize("mode", ["broken", "share"])
def test_a_task_that_cannot_be_played_does_not_end_the_run(mode: str) -> None:
    """Of two groups one is over at once and has nothing to learn from: the step waits for the other."""
    with ended(Run(("broken", lambda: Broken(mode), 1.0), steps=4, groups=2, options={"kl_coef": 0.0})) as run:
        partial(run, 2)
        rows = run.train()
    assert len(rows) == 4 and all(any(e.trajectories for e in episodes) for episodes, _ in run.kept)
    assert any(row["errors" if mode == "broken" else "truncated"] > 0 for row in rows)


def test_tasks_none_of_which_can_be_played_end_it() -> None:
    with ended(Run(("away", lambda: Broken("away"), 1.0), groups=2, options={"kl_coef": 0.0})) as run:
        partial(run, 2)
        with pytest.raises(EpisodesFailedError, match="the task is away"):
            run.train()


def test_distillation_compares_the_teacher_with_the_policy_that_learns() -> None:
    """And not with the one that sampled a token some steps ago."""
    with ended(Run(("letters", Letters, 1.0), algorithm="opd", steps=4, groups=2)) as run:
        partial(run, 3)
        policies = [copy.deepcopy(run.model)]
        run.trainer.train(0, lambda step: policies.append(copy.deepcopy(run.model)))
        stale = 0
        for step, (episodes, advantages) in enumerate(run.kept):
            found = np.concatenate([a for own in advantages for a in own])
            rows = [Row(t, np.zeros(len(t.mask)), 0.0) for e in episodes for t in e.trajectories]
            assert run.trainer.teacher is not None
            policy, teacher = (
                np.concatenate(frozen_logprobs(model, rows, 1000)) for model in (policies[step], run.trainer.teacher)
            )
            sampler = np.concatenate([np.where(row.trajectory.mask, row.trajectory.logprobs, 0.0) for row in rows])
            assert found == pytest.approx(teacher - policy, abs=1e-4)
            assert run.notes.rows[step]["kl_teacher"] * sum(sum(r.trajectory.mask) for r in rows) == pytest.approx(
                float((policy - teacher).sum()), abs=1e-2
            )
            stale += int((abs(sampler - policy) > 1e-2).sum())
    assert stale > 0


def test_what_is_under_way_survives_a_checkpoint() -> None:
    with ended(Run(("letters", Letters, 1.0), steps=1)) as run:
        partial(run, 3)
        run.train()
        left = run.trainer.unfinished
        assert left is not None and left.paused
        other = Unfinished(3, 4)
        other.restore(left.state(), run.trainer.stream.sampling)
        assert other.groups == left.groups


RECIPE: dict[str, Any] = {
    "name": "pieces",
    "seed": 3,
    "threads": 1,
    "model": {
        "tiny": {
            "hidden_size": 32,
            "layers": 2,
            "heads": 2,
            "kv_heads": 1,
            "intermediate_size": 64,
            "initializer_range": 0.1,
            "tags": ["<calculator>", "</calculator>"],
        }
    },
    "envs": [{"name": "ludus/WordMath-v0", "options": {"system_prompt": "", "levels": [1]}}],
    "engine": {"slots": 16, "max_length": 256},
    "sampling": {"max_tokens": 24, "top_p": 0.95},
    "sft": {"steps": 10, "batch_size": 4, "demonstrations": 64},
    "policy": {
        "algorithm": "grpo",
        "options": {"kl_coef": 0.1, "entropy_coef": 0.1},
        "steps": 5,
        "groups": 3,
        "group_size": 3,
        "partial_tokens": 7,
        "max_staleness": 2,
    },
    "eval": {"tasks": 2, "every": 2},
    "checkpoint": {"every": 2},
}


def test_a_resumed_run_goes_on_with_the_same_episodes(tmp_path: Path) -> None:
    """Stopped after step 3, with episodes under way: the same weights and curves as of a run that was not."""

    def train(folder: Path, steps: int, resume: bool = False) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
        recipe = make_recipe({**RECIPE, "policy": {**RECIPE["policy"], "steps": steps}}, "test")
        with RunFolder.resume(folder) if resume else RunFolder.create(recipe, folder) as run:
            train_recipe(recipe, run, resume=resume, display=Notes())  # type: ignore[arg-type]
            rows = [row for row in run.metrics() if row["phase"] == "policy"]
        return load_file(list_checkpoints(folder / "checkpoints")[-1].path / "model.safetensors"), rows

    whole, rows = train(tmp_path / "whole", 5)
    _, first = train(tmp_path / "cut", 3)
    resumed, again = train(tmp_path / "cut", 5, resume=True)
    assert first[-1]["paused"] > 0
    named = ("episodes", "length", "loss", "paused", "staleness", "reward", "grad_norm")
    assert [[row[name] for name in named] for row in rows] == [[row[name] for name in named] for row in again]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert max(row["staleness"] for row in rows) > 0


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"algorithm": "dapo"}, "dapo refills groups within a step"),
        ({"algorithm": "remax"}, "remax compares with a greedy episode of the same policy"),
        ({"curriculum": {"rule": "band", "key": None}}, "policy.curriculum learns from each step's groups"),
    ],
)
def test_what_needs_all_episodes_to_end_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(AlgorithmError, match=says):
        chosen_algorithm(PolicyConfig(steps=1, partial_tokens=8, **config))
    chosen_algorithm(PolicyConfig(steps=1, partial_tokens=8, algorithm="dapo", options={"dynamic_sampling": False}))


def test_a_bound_on_staleness_without_pauses_is_refused() -> None:
    with pytest.raises(RecipeError, match="max_staleness bounds what partial_tokens pauses; set partial_tokens"):
        make_recipe({**RECIPE, "policy": {"steps": 1, "max_staleness": 2}}, "test")

"""Evaluation: what is counted, over what, and that a saved model is measured as it was in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bigram import writing_model

from ludus.agents.config import TinyModel
from ludus.agents.engine import Sampling
from ludus.agents.evaluate import EvalResult, evaluate
from ludus.agents.model import character_tokenizer, create_tiny_model
from ludus.agents.rollout import Arena, EpisodesFailedError, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.word_math import WordMath
from ludus.evaluate import evaluate_model
from ludus.sandbox.errors import LudusError
from ludus.trainers.checkpoint import save_checkpoint
from ludus.verifiers.verdict import InfrastructureError, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENIZER = character_tokenizer()
GREEDY = Sampling(temperature=0.0, max_tokens=10)


class Letters(TextEnv):
    """Right is the answer of the task; "?" cannot be decided, "half" is half right, "!" kills the grader."""

    def __init__(self, answers: str = "bbbac", **options: Any) -> None:
        super().__init__(ListSource([Task(f"t{i}", f"{i}", a) for i, a in enumerate(answers)]), **options)

    def verify(self, task: Task, response: str) -> Verdict:
        if task.answer == "!":
            raise InfrastructureError("no grader")
        if task.answer == "?":
            return Verdict.undecided("who knows")
        return Verdict.correct("same") if response == task.answer else Verdict.wrong("other")

    def baselines(self) -> dict[str, float]:
        return {"always b": 0.6}


@pytest.fixture(scope="module")
def always_b() -> PreTrainedModel:
    """Greedy, it answers "b" to everything."""
    start, letter = TOKENIZER.convert_tokens_to_ids(["<|assistant|>", "b"])
    return writing_model(TOKENIZER, {start: letter})


def measure(model: PreTrainedModel, answers: str, tasks: int = 100, sampling: Sampling = GREEDY, **options: Any) -> Any:
    arena = Arena.build("letters", lambda: Letters(answers), TOKENIZER)
    with Rollout(TorchEngine(model, TOKENIZER, max_length=60), {"letters": arena}, concurrency=4) as rollout:
        return evaluate(rollout, "letters", tasks=tasks, sampling=sampling, **options)


def test_accuracy_is_the_share_of_right_answers_with_its_interval(always_b: PreTrainedModel) -> None:
    result = measure(always_b, "bbbac")
    assert (result.env, result.tasks, result.errors) == ("letters", 5, 0)
    assert (result.accuracy, result.mean_reward) == (0.6, 0.6)
    # Wilson, 3 of 5, z = 1.96: centre (0.6 + 0.384146) / 1.768292, half-width 1.108404 * sqrt(0.048 + 0.038415).
    assert (result.low, result.high) == (pytest.approx(0.23072, abs=1e-4), pytest.approx(0.88238, abs=1e-4))
    assert result.outcomes == {"correct": 3, "wrong": 2}
    assert result.baselines == {"always b": 0.6}


def test_episodes_that_failed_are_counted_apart_and_are_in_no_average(always_b: PreTrainedModel) -> None:
    result = measure(always_b, "b!a!")
    assert (result.tasks, result.errors, result.accuracy, result.mean_reward) == (2, 2, 0.5, 0.5)
    assert result.outcomes == {"correct": 1, "wrong": 1, "error": 2}
    assert [episode.reward for episode in sorted(result.episodes, key=lambda e: e.task_id)] == [1.0, None, 0.0, None]


def test_accuracy_is_the_share_judged_correct_whatever_a_right_answer_earns(always_b: PreTrainedModel) -> None:
    class Generous(Letters):
        def verify(self, task: Task, response: str) -> Verdict:
            found = super().verify(task, response)
            return Verdict(found.outcome, 1.25, "more") if found.value else Verdict.partial(1.0, "in vain")

        def potential(self, task: Task) -> float | None:
            return 0.75

    arena = Arena.build("letters", lambda: Generous("bbba"), TOKENIZER)
    with Rollout(TorchEngine(always_b, TOKENIZER, max_length=60), {"letters": arena}) as rollout:
        result = evaluate(rollout, "letters", tasks=4, sampling=GREEDY)
    assert (result.accuracy, result.outcomes) == (0.75, {"correct": 3, "partial": 1})
    assert result.mean_reward == (3 * 1.25 + 1.0) / 4, "without shaping"
    assert {episode.reward for episode in result.episodes} == {0.5, 0.25}


def test_what_cannot_be_decided_counts_as_wrong_and_is_named(always_b: PreTrainedModel) -> None:
    result = measure(always_b, "b?")
    assert (result.tasks, result.accuracy, result.errors) == (2, 0.5, 0)
    assert result.outcomes == {"correct": 1, "undecided": 1}


def test_an_answer_that_was_cut_is_wrong_and_says_so(always_b: PreTrainedModel) -> None:
    result = measure(always_b, "bb", sampling=replace(GREEDY, max_tokens=1))
    assert (result.accuracy, result.outcomes) == (0.0, {"length": 2})


def test_an_evaluation_in_which_everything_fails_is_one_sentence(always_b: PreTrainedModel) -> None:
    with pytest.raises(EpisodesFailedError, match=r"^All 3 episodes of letters failed, the first because no grader"):
        measure(always_b, "!!!")


def test_a_source_without_tasks_is_one_sentence(always_b: PreTrainedModel) -> None:
    with pytest.raises(LudusError, match="is empty; give it at least one task"):
        measure(always_b, "")


def test_each_task_of_a_finite_source_is_played_once_and_the_seed_says_which(always_b: PreTrainedModel) -> None:
    answers = "b" * 30

    def played(**options: Any) -> list[str]:
        return [episode.task_id for episode in measure(always_b, answers, **options).episodes]

    assert sorted(played(tasks=1000)) == sorted(f"t{i}" for i in range(30))
    few, again, others = played(tasks=10, seed=1), played(tasks=10, seed=1), played(tasks=10, seed=2)
    assert len(set(few)) == 10
    assert few == again != others


def test_every_episode_is_shown_as_it_ends(always_b: PreTrainedModel) -> None:
    seen: list[Episode] = []
    result = measure(always_b, "bbbac", on_episode=seen.append)
    assert Counter(e.id for e in seen) == Counter(e.id for e in result.episodes)
    assert [e.id for e in result.episodes] == [f"eval/letters/{i}" for i in range(5)]


# Saved models

SHAPE = TinyModel(
    hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, initializer_range=0.2, max_length=400,
    tags=("<calculator>", "</calculator>"),
)  # fmt: skip
OPTIONS = {"levels": [1], "system_prompt": ""}


def said(result: EvalResult) -> list[tuple[int, ...]]:
    return [trajectory.token_ids for episode in result.episodes for trajectory in episode.trajectories]


@pytest.fixture(scope="module")
def in_memory() -> EvalResult:
    model, tokenizer = create_tiny_model(SHAPE, 0)
    arena = Arena.build(
        "ludus/WordMath-v0", lambda: WordMath(split="test", levels=[1], system_prompt=""), tokenizer
    )  # fmt: skip
    engine = TorchEngine(model, tokenizer, max_length=400)
    with Rollout(engine, {"ludus/WordMath-v0": arena}) as rollout:
        return evaluate(
            rollout, "ludus/WordMath-v0", tasks=6, sampling=Sampling(temperature=0.7, max_tokens=20), seed=3
        )


def evaluated(path: Path) -> EvalResult:
    return evaluate_model(
        "ludus/WordMath-v0", str(path), tasks=6, seed=3, options=OPTIONS, temperature=0.7, max_tokens=20, max_length=400
    )


def test_a_saved_model_says_what_it_said_in_memory(in_memory: EvalResult, tmp_path: Path) -> None:
    model, tokenizer = create_tiny_model(SHAPE, 0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = evaluated(tmp_path)
    assert said(result) == said(in_memory)
    assert (result.accuracy, result.outcomes) == (in_memory.accuracy, in_memory.outcomes)


def test_no_episode_is_longer_than_the_model_can_read(tmp_path: Path) -> None:
    model, tokenizer = create_tiny_model(SHAPE, 0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = {"tasks": 8, "options": OPTIONS, "max_tokens": 5000}
    result = evaluate_model("ludus/WordMath-v0", str(tmp_path), **asked)
    assert max(len(tokens) for tokens in said(result)) == 400


def test_of_a_run_the_newest_checkpoint_is_evaluated(in_memory: EvalResult, tmp_path: Path) -> None:
    (model, tokenizer), (other, _) = create_tiny_model(SHAPE, 0), create_tiny_model(SHAPE, 1)
    checkpoints = tmp_path / "checkpoints"
    for phase, step, network in (("sft", 900, other), ("policy", 5, other), ("policy", 40, model)):
        save_checkpoint(checkpoints, phase, step, network, tokenizer, {}, keep=9)
    assert said(evaluated(tmp_path)) == said(in_memory)
    assert said(evaluated(checkpoints / "policy-000005")) != said(in_memory)


def test_an_unknown_environment_is_found_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(LudusError, match=r"Unknown environment 'ludus/WordMat-v0'\. Did you mean 'ludus/WordMath-v0'"):
        evaluate_model("ludus/WordMat-v0", str(tmp_path / "none"))

"""WordMath: exact answers, typical mistakes that are wrong, and splits that share neither numbers nor names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from ludus.envs import make_env
from ludus.envs.calculator import evaluate
from ludus.envs.task import Task
from ludus.envs.word_math import WordMath
from ludus.envs.word_math_templates import LARGEST, NAMES, TEMPLATES, belongs
from ludus.verifiers.numbers import format_number, parse_number

TASKS = 3_000


@pytest.fixture(scope="module")
def tasks() -> dict[str, list[Task]]:
    return {split: [WordMath(split=split).source.task(i) for i in range(TASKS)] for split in ("train", "test")}


def play(env: WordMath, task: Task, actions: list[str]) -> tuple[float, bool]:
    env.reset(options={"task": task})
    for action in actions:
        _, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
    return reward, terminated


def test_there_are_twenty_templates_on_three_levels() -> None:
    assert Counter(template.level for template in TEMPLATES.values()) == {1: 6, 2: 9, 3: 5}


def test_every_template_makes_short_different_problems_in_both_splits() -> None:
    for split in ("train", "test"):
        for name in TEMPLATES:
            source = WordMath(split=split, templates=[name]).source  # type: ignore[arg-type]
            prompts = [source.task(index).prompt for index in range(100)]
            assert len(set(prompts)) > 90, name
            assert max(map(len, prompts)) <= 110, name


def test_the_splits_share_no_number(tasks: dict[str, list[Task]]) -> None:
    numbers = {
        split: {int(digits) for task in tasks[split] for digits in re.findall("[0-9]+", task.prompt)} for split in tasks
    }
    assert not numbers["train"] & numbers["test"]
    assert all(belongs(number, split) for split in numbers for number in numbers[split])
    assert min(map(len, numbers.values())) > 80


def test_the_splits_share_no_name(tasks: dict[str, list[Task]]) -> None:
    words = {split: {word for task in tasks[split] for word in re.findall("[A-Za-z]+", task.prompt)} for split in tasks}
    assert set(NAMES["train"]) <= words["train"] and set(NAMES["test"]) <= words["test"]
    assert not words["train"] & set(NAMES["test"]) and not words["test"] & set(NAMES["train"])


def test_every_character_of_the_test_split_is_seen_in_training(tasks: dict[str, list[Task]]) -> None:
    characters = {split: {c for task in tasks[split] for c in task.prompt + task.answer} for split in tasks}
    assert characters["test"] <= characters["train"]


def test_answers_are_exact_short_and_not_negative(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"] + tasks["test"]:
        values = [evaluate(expression) for expression in task.data["expressions"]]
        assert values[-1] == parse_number(task.answer)
        assert all(0 <= value <= LARGEST for value in values)
        assert "/" not in task.answer and len(task.answer) <= 7
    whole = sum("." not in task.answer for task in tasks["test"]) / TASKS
    assert 0.7 < whole < 0.95


def test_each_step_uses_numbers_of_the_problem_or_results_of_earlier_steps(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"]:
        known = set(re.findall(r"[0-9.]*[0-9]", task.prompt))
        for expression in task.data["expressions"]:
            assert set(re.findall(r"[0-9.]+", expression)) <= known, task
            known.add(format_number(evaluate(expression)))


@pytest.mark.parametrize("dialect", ["tag", "json"])
def test_a_demonstration_scores_1_and_a_flawed_one_0(tasks: dict[str, list[Task]], dialect: str) -> None:
    env = make_env("ludus/WordMath-v0", dialect=dialect)
    assert isinstance(env, WordMath)
    for split in tasks:
        for index, task in enumerate(tasks[split][:1_000]):
            right = env.demonstrate(task, np.random.default_rng((0, index)))
            assert play(env, task, right) == (1.0, True)
            assert len(right) == len(task.data["expressions"]) + 1
            flawed = env.demonstrate(task, np.random.default_rng((0, index)), flaw_rate=1.0)
            assert play(env, task, flawed) == (0.0, True)


def test_every_flaw_of_every_task_is_wrong(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"] + tasks["test"]:
        assert task.data["flawed"]
        for expressions in task.data["flawed"]:
            assert evaluate(expressions[-1]) != parse_number(task.answer)


def test_flaws_come_at_the_rate_asked_for() -> None:
    env = WordMath()
    rng = np.random.default_rng(0)
    shown = [(env.source.task(index), env.demonstrate(env.source.task(index), rng, 0.3)) for index in range(1_000)]
    assert 0.25 < np.mean([actions[-1] != task.answer for task, actions in shown]) < 0.35


@pytest.mark.parametrize("form", ["{}", " {} ", "#### {}", "So it is\n#### {}", "<answer>{}</answer>", "\\boxed{{{}}}"])
def test_the_number_is_accepted_bare_or_marked(form: str) -> None:
    env = WordMath()
    task = env.source.task(0)
    assert play(env, task, [form.format(task.answer)]) == (1.0, True)


@pytest.mark.parametrize(
    "form", ["{0} {1}", "{0} or {1}", "{1}, {0}", "It is {0}", "{0} apples", "{0}{0}", "-{0}", "", "x"]
)
def test_anything_but_the_one_number_is_wrong(form: str) -> None:
    env = WordMath()
    task = env.source.task(0)
    assert play(env, task, [form.format(task.answer, "7")]) == (0.0, True)


def test_the_answer_and_the_steps_are_in_no_observation_or_info() -> None:
    env = WordMath()
    for index in range(200):
        observation, info = env.reset(options={"index": index})
        assert env.task is not None
        assert "expressions" not in repr(info) and observation == env.task.prompt
        assert set(info) == {"task_id", "messages"}
        *_, info = env.step("<calculator>1+1</calculator>")
        assert repr(info) == repr(
            {
                "messages": [{"role": "tool", "content": "2"}],
                "verdict": None,
                "rewards": {},
                "stop_reason": None,
            }
        )


def test_templates_and_levels_can_be_chosen() -> None:
    env = WordMath(templates=["gain", "two_shelves"], levels=[3])
    assert {env.source.task(index).data["template"] for index in range(20)} == {"two_shelves"}


def test_tasks_are_the_same_in_every_process_and_under_every_hash_seed() -> None:
    code = (
        "import hashlib; from ludus.envs import make_env\n"
        "import numpy as np\n"
        "env = make_env('ludus/WordMath-v0', seed=3, split='test')\n"
        "tasks = [env.source.task(i) for i in range(200)]\n"
        "shown = [env.demonstrate(t, np.random.default_rng((1, i)), 0.5) for i, t in enumerate(tasks)]\n"
        "print(hashlib.sha256(repr([(t.id, t.hash, s) for t, s in zip(tasks, shown)]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "12345")
    }
    assert len(digests) == 1


def test_seeds_give_different_streams() -> None:
    streams = [[WordMath(seed=seed).source.task(i).prompt for i in range(50)] for seed in (0, 1)]
    assert len(set(streams[0]) & set(streams[1])) < 5

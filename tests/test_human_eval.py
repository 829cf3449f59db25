"""HumanEval as environments: hidden tests decide, and repair tells what fails without telling what is expected."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import ludus.envs
from ludus import LudusError, Outcome, make_env
from ludus.sandbox.bubblewrap import Bubblewrap

pytestmark = pytest.mark.bubblewrap
ROW = {
    "task_id": "Own/0",
    "prompt": 'def double(n):\n    """Twice n."""\n',
    "entry_point": "double",
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-31) == -62, 'negative'\n",
}


@pytest.fixture
def folder(bubblewrap: Bubblewrap, tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(ROW) + "\n")
    return tmp_path


def test_the_data_set_has_164_tasks_and_no_test_in_any_prompt(bubblewrap: Bubblewrap, shared_data: Path) -> None:
    env = make_env("ludus/HumanEval-v0", data_dir=str(shared_data / "humaneval"))
    assert env.source.size == 164
    for index in range(164):
        prompt, info = env.reset(options={"index": index})
        assert "def check(" not in f"{prompt}{info}" and "METADATA" not in f"{prompt}{info}"


def test_an_answer_is_judged_by_the_hidden_tests(folder: Path) -> None:
    env = make_env("ludus/HumanEval-v0", data_dir=str(folder))
    for answer, outcome in (("    return n + n\n", Outcome.CORRECT), ("    return n * n\n", Outcome.WRONG)):
        env.reset(options={"index": 0})
        _, reward, terminated, _, info = env.step(f"```python\n{ROW['prompt']}{answer}```")
        assert terminated and info["verdict"].outcome is outcome and reward == (outcome is Outcome.CORRECT)


def test_a_repair_hears_what_fails_and_may_correct_it(folder: Path) -> None:
    env = make_env("ludus/HumanEvalRepair-v0", data_dir=str(folder), max_turns=3)
    env.reset(options={"index": 0})
    observation, reward, terminated, truncated, _ = env.step("```python\ndef double(n):\n    return n * n\n```")
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert "negative" in observation and "62" not in observation and "31" not in observation
    observation, *_ = env.step("```python\ndef double(n) return 2\n```")
    assert "SyntaxError" in observation
    _, reward, terminated, _, info = env.step("```python\ndef double(n):\n    return 2 * n\n```")
    assert (reward, terminated, info["verdict"].outcome) == (1.0, True, Outcome.CORRECT)


def test_the_last_attempt_is_the_answer_whatever_it_is(folder: Path) -> None:
    env = make_env("ludus/HumanEvalRepair-v0", data_dir=str(folder), max_turns=1)
    env.reset(options={"index": 0})
    _, reward, terminated, _, info = env.step("I do not know.")
    assert (reward, terminated, info["verdict"].outcome) == (0.0, True, Outcome.WRONG)


@pytest.mark.parametrize("name", ["ludus/HumanEval-v0", "ludus/HumanEvalRepair-v0"])
def test_demonstrations_solve_the_task_and_flawed_ones_do_not_at_first(folder: Path, name: str) -> None:
    env = make_env(name, data_dir=str(folder))
    for flaw_rate in (0.0, 1.0):
        env.reset(options={"index": 0})
        actions = env.demonstrate(env.task, np.random.default_rng(0), flaw_rate)
        rewards = [env.step(action)[1] for action in actions]
        right = name == "ludus/HumanEvalRepair-v0" or flaw_rate == 0.0
        assert rewards[-1] == float(right) and len(actions) == (2 if right and flaw_rate else 1)


def test_gymnasium_makes_and_checks_it(folder: Path) -> None:
    from gymnasium.utils.env_checker import check_env

    env = gymnasium.make("ludus/HumanEval-v0", data_dir=str(folder))
    check_env(env.unwrapped, skip_render_check=True)


def test_a_row_without_tests_and_a_missing_folder_are_one_sentence(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps({**ROW, "test": None}) + "\n")
    with pytest.raises(LudusError, match=r"HumanEval.jsonl.gz:1: the row needs the text 'test'"):
        make_env("ludus/HumanEval-v0", data_dir=str(tmp_path))
    with pytest.raises(LudusError, match="There is no folder"):
        make_env("ludus/HumanEval-v0", data_dir=str(tmp_path / "no"))
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(b"not packed")
    ludus.envs.human_eval.load_functions.cache_clear()
    with pytest.raises(LudusError, match="Cannot read the task file"):
        make_env("ludus/HumanEval-v0", data_dir=str(tmp_path))

"""GSM8K: every annotation becomes a task on real text, and a score needs the calculation as well as the value."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ludus.envs import EnvError, NoDemonstration, TaskError, TextEnv, make_env
from ludus.envs.calculator import evaluate
from ludus.envs.gsm8k import GSM8K, calculations, data_folder, flawed_expressions
from ludus.envs.gsm8k_steps import GSM8KSteps, cut_solution, last_expression
from ludus.verifiers.numbers import parse_number

SOLUTION = "Ann has 2*3=<<2*3=6>>6 eggs.\nBob pays 6 - $1.50 = $<<6-1.50=4.5>>4.50 and 4.5/3=<<4.5/3=1.5>>1.50 each.\n"
ROW = {"question": "How much?", "answer": f"{SOLUTION}#### 1.50"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def data_dir(shared_data: Path) -> str:
    return str(shared_data / "gsm8k")


def steps(folder: Path | str, **options: Any) -> GSM8KSteps:
    return GSM8KSteps(data_dir=str(folder), **options)


def play(env: TextEnv, index: int, *actions: str) -> dict[str, Any]:
    env.reset(options={"index": index})
    for action in actions:
        *_, info = env.step(action)
    return info


# On a small file.


def test_the_copy_context_stops_right_before_each_annotation(folder: Path) -> None:
    env = steps(folder, setting="copy")
    assert [env.source.task(index).prompt for index in range(3)] == [
        "How much?\nAnn has 2*3=",
        "How much?\nAnn has 2*3=6 eggs.\nBob pays 6 - $1.50 = $",
        "How much?\nAnn has 2*3=6 eggs.\nBob pays 6 - $1.50 = $4.50 and 4.5/3=",
    ]
    assert [env.source.task(index).answer for index in range(3)] == ["6", "4.5", "1.5"]


def test_the_infer_context_stops_before_the_first_digit_of_the_calculation(folder: Path) -> None:
    env = steps(folder, setting="infer")
    assert [env.source.task(index).prompt for index in range(3)] == [
        "How much?\nAnn has ",
        "How much?\nAnn has 2*3=6 eggs.\nBob pays ",
        "How much?\nAnn has 2*3=6 eggs.\nBob pays 6 - $1.50 = $4.50 and ",
    ]


def test_a_tiny_model_can_be_given_only_the_end_of_the_context(folder: Path) -> None:
    assert steps(folder, setting="copy", context_chars=9).source.task(1).prompt == "$1.50 = $"[-9:]


def test_the_calculation_and_the_value_are_both_needed(folder: Path) -> None:
    env = steps(folder)
    good = play(env, 1, "<calculator>6-1.50</calculator>", "4.5")["verdict"]
    assert good.value == 1.0
    assert good.evidence["value_right"] and good.evidence["call_right"]
    assert play(env, 1, "<calculator>12-7.5</calculator>", "4.50")["verdict"].value == 1.0
    wrong = {
        "value without a call": ("4.5",),
        "wrong call": ("<calculator>6+1.50</calculator>", "4.5"),
        "failed call": ("<calculator>6-</calculator>", "4.5"),
        "a bare number is no calculation": ("<calculator>4.5</calculator>", "4.5"),
        "wrong value": ("<calculator>6-1.50</calculator>", "5.5"),
        "several values": ("<calculator>6-1.50</calculator>", "4.5 5.5"),
        "no value": ("<calculator>6-1.50</calculator>", ""),
    }
    assert {what: play(env, 1, *actions)["verdict"].value for what, actions in wrong.items()} == dict.fromkeys(
        wrong, 0.0
    )


def test_calls_of_the_last_episode_do_not_count(folder: Path) -> None:
    env = steps(folder)
    play(env, 1, "<calculator>6-1.50</calculator>")
    assert play(env, 1, "4.5")["verdict"].value == 0.0


def test_the_answer_is_in_no_observation_or_info_before_the_end(folder: Path) -> None:
    env = steps(folder)
    observation, info = env.reset(options={"index": 1})
    assert "4.5" not in observation + repr(info)


def test_an_annotation_that_cannot_be_calculated_is_left_out_and_counted(tmp_path: Path) -> None:
    answer = "<<7//2=3>>3 and <<1/3=0.33>>0.33 and <<2+2=4>>4\n#### 4"
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "?", "answer": answer}), encoding="utf-8")
    env = steps(tmp_path, split="test")
    assert (env.steps.size, env.steps.skipped) == (1, 2)


def test_annotations_with_spaces_commas_and_bare_decimals_are_read() -> None:
    found, skipped = calculations("<<1,000 * .5 = 500>> and <<12=12>> and <<20*.8=16.00>>")
    assert [(step.expression, step.value) for step in found] == [("1,000*.5", 500), ("12", 12), ("20*.8", 16)]
    assert skipped == 0


@pytest.mark.parametrize("expression", ["16-3-4", "2/2", "2*2", "12", "0*5", ".5*4", "(1+2)*3", "10-10", "5*-1", "3*1"])
def test_every_flawed_expression_has_a_wrong_value(expression: str) -> None:
    flaws = flawed_expressions(expression)
    assert flaws and all(evaluate(flaw) != evaluate(expression) for flaw in flaws)


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("Janet sells 16 - 3 - 4 = ", "16 - 3 - 4"),
        ("It has 20 sheep + 160 sheep = ", "20  + 160"),
        ("She makes $20/hour * 35 hours/week = $", "20 * 35"),
        ("They need (3+4) x 2 = ", "(3+4) * 2"),
        ("worth .05*104,000=$", ".05*104,000"),
        ("x = ", None),
    ],
)
def test_the_baseline_copies_the_last_expression_of_the_line(line: str, expression: str | None) -> None:
    found = last_expression(line)
    assert found == expression or (found is not None and found.split() == str(expression).split())


def test_the_whole_problem_is_answered_after_the_hashes(folder: Path) -> None:
    env = GSM8K(data_dir=str(folder), dialect="tag")
    assert play(env, 0, "<calculator>4.5/3</calculator>", "So it is\n#### $1.50")["verdict"].value == 1.0
    assert play(env, 0, "It is 1.50")["verdict"].value == 0.0
    assert play(env, 0, "#### 1.5 or 2")["verdict"].value == 0.0
    lenient = GSM8K(data_dir=str(folder), order=("hash", "tag", "boxed", "last"))
    assert play(lenient, 0, "It is 1.50")["verdict"].value == 1.0


@pytest.mark.parametrize("name", ["ludus/GSM8K-v0", "ludus/GSM8KSteps-v0"])
@pytest.mark.filterwarnings("error")
def test_gymnasiums_own_checker_passes_without_a_warning(folder: Path, name: str) -> None:
    check_env(gymnasium.make(name, data_dir=str(folder)))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"question": "?"}', "test.jsonl:1: the row needs the texts 'question' and 'answer'; it has question."),
        ('{"question": "?", "answer": "It is 4."}', "test.jsonl:1: the answer must end with #### and a number"),
        ('{"question": "?", "answer": "#### many"}', "test.jsonl:1: the answer must end with #### and a number"),
        ('{"question": "\\ud800", "answer": "#### 4"}', "test.jsonl:1: the text holds half of a surrogate pair"),
        ('{"question": ', "test.jsonl:1: the line is not valid JSON"),
    ],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "test.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        GSM8K(split="test", data_dir=str(tmp_path))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"data_dir": "nowhere"}, "There is no folder nowhere; let data_dir name one"),
        ({"setting": "guess"}, "the option setting = 'guess' is wrong: Input should be 'copy' or 'infer'."),
        ({"split": "dev"}, "the option split = 'dev' is wrong"),
        ({"context_chars": 0}, "context_chars = 0 leaves no context"),
    ],
)
def test_a_wrong_option_is_told(folder: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EnvError) as caught:
        make_env("ludus/GSM8KSteps-v0", **{"data_dir": str(folder), **options})
    assert sentence in str(caught.value)


def test_a_folder_without_the_split_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"Cannot read the task file .*train\.jsonl"):
        GSM8K(data_dir=str(tmp_path))


def test_the_data_is_looked_for_in_the_environment_and_near_by(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, near = tmp_path / "project", tmp_path / "shared" / "data" / "gsm8k"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.delenv("LUDUS_DATA", raising=False)
    assert data_folder(None) is None
    near.mkdir(parents=True)
    assert data_folder(None) == near
    monkeypatch.setenv("LUDUS_DATA", str(near.parent))
    monkeypatch.chdir("/")
    assert data_folder(None) == near
    monkeypatch.setenv("LUDUS_DATA", "nowhere")
    with pytest.raises(EnvError, match="let LUDUS_DATA name one"):
        data_folder(None)


def test_without_data_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.delenv("LUDUS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EnvError, match=r"GSM8K is not on this machine: give the option data_dir, or set LUDUS_DATA"):
        GSM8K(split="test")


# On the real files.


@pytest.mark.parametrize(("split", "size", "skipped"), [("train", 23_714, 2), ("test", 4_282, 0)])
def test_every_annotation_but_two_becomes_a_task(data_dir: str, split: Any, size: int, skipped: int) -> None:
    env = steps(data_dir, split=split)
    assert (env.steps.size, env.steps.skipped) == (size, skipped)


def test_no_two_contexts_ask_for_different_values(data_dir: str) -> None:
    for setting in ("copy", "infer"):
        env = steps(data_dir, split="test", setting=setting)
        tasks = [env.source.task(index) for index in range(env.steps.size or 0)]
        assert len({task.prompt for task in tasks}) == len(tasks)
        assert len({task.id for task in tasks}) == len(tasks)


def test_no_context_shows_an_annotation_and_infer_shows_no_digit_of_the_calculation(data_dir: str) -> None:
    env = steps(data_dir, split="test", setting="infer")
    for index, (problem, _, step) in enumerate(env.steps.steps):
        assert "<<" not in env.source.task(index).prompt
        copy, infer = (cut_solution(problem.solution, step.start, setting) for setting in ("copy", "infer"))
        assert copy.startswith(infer)
        assert not infer or infer == copy or re.match("[0-9]", copy[len(infer)])


def test_a_demonstration_scores_1_and_a_flawed_one_0(data_dir: str) -> None:
    for setting in ("copy", "infer"):
        env = steps(data_dir, split="test", setting=setting, system_prompt="", context_chars=160)
        for index in range(0, env.steps.size or 0, 4):
            task = env.source.task(index)
            for flaw_rate in (0.0, 1.0):
                actions = env.demonstrate(task, np.random.default_rng((0, index)), flaw_rate)
                assert play(env, index, *actions)["verdict"].value == 1.0 - flaw_rate
            assert "<calculator>" in actions[0] and " " not in actions[0]


def test_whole_solutions_demonstrate_themselves(data_dir: str) -> None:
    env = GSM8K(split="test", data_dir=data_dir)
    shown = 0
    for index in range(env.source.size or 0):
        task = env.source.task(index)
        try:
            actions = env.demonstrate(task, np.random.default_rng(index))
        except NoDemonstration:
            continue
        shown += 1
        assert play(env, index, *actions)["verdict"].value == 1.0
    assert shown == 1_208


def test_the_regular_expression_scores_what_the_documentation_says(data_dir: str) -> None:
    for split, score in (("test", 0.9787), ("train", 0.9817)):
        env = steps(data_dir, split=split)
        assert env.baselines() == {"regular expression": pytest.approx(score, abs=5e-5)}
        assert str(score) in (GSM8KSteps.copy_baseline.__doc__ or "")
    assert steps(data_dir, setting="infer").baselines() == {}


def test_the_whole_problems_hold_the_gold_answers(data_dir: str) -> None:
    env = GSM8K(split="test", data_dir=data_dir)
    assert env.source.size == 1_319
    lines = (Path(data_dir) / "test.jsonl").read_text("utf-8").splitlines()
    golds = [json.loads(line)["answer"].rpartition("####")[2] for line in lines]
    assert [parse_number(env.source.task(index).answer) for index in range(1_319)] == list(map(parse_number, golds))

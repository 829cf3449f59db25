"""Programs: right solutions, mistakes that fail, splits that share no statement, bad rows told by file and line."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus import LudusError, Outcome, make_env
from ludus.arenas import same_tasks
from ludus.envs import EnvError
from ludus.envs.errors import NoDemonstration, TaskError
from ludus.envs.programs import CASES, PROGRAMS, Programs
from ludus.envs.task import Task
from ludus.sandbox.bubblewrap import Bubblewrap

TASKS = 25
"""Of each template in each split."""
ROW = {
    "prompt": "Print the sum of the two numbers on each line.",
    "cases": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "-4 4\n5 6\n", "stdout": "0\n11"}],
    "solution": "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))\n",
}
LETTERS = st.sampled_from("abcd")
WHOLE = st.integers(-30, 30)


@pytest.fixture(scope="module")
def tasks() -> dict[str, list[Task]]:
    return {
        split: [Programs(split=split, templates=[name]).source.task(i) for name in PROGRAMS for i in range(TASKS)]
        for split in ("train", "test")
    }


def solve(name: str, text: str, **parameters: Any) -> str:
    """What the reference solution of a template prints."""
    return PROGRAMS[name].solution(text, **parameters)


def write_rows(path: Path, *rows: Any) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def play(env: Any, task: Task, action: str) -> tuple[float, Outcome]:
    env.reset(options={"task": task})
    _, reward, terminated, truncated, info = env.step(action)
    assert terminated and not truncated
    return reward, info["verdict"].outcome


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


# The generator


def test_there_are_twenty_templates_on_three_levels() -> None:
    assert Counter(template.level for template in PROGRAMS.values()) == {1: 6, 2: 8, 3: 6}


@pytest.mark.slow
@pytest.mark.bubblewrap
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_demonstration_scores_1_and_a_flawed_one_0(bubblewrap: Bubblewrap, name: str) -> None:
    for seed, split in ((0, "train"), (1, "test"), (2, "train")):
        env = make_env("ludus/Programs-v0", templates=[name], seed=seed, split=split)
        task = env.source.task(seed)
        (right,), (flawed,) = (env.demonstrate(task, np.random.default_rng(seed), rate) for rate in (0.0, 1.0))
        assert play(env, task, right) == (1.0, Outcome.CORRECT)
        assert play(env, task, flawed) == (0.0, Outcome.WRONG)


def test_every_program_of_every_task_does_what_it_should(tasks: dict[str, list[Task]], tmp_path: Path) -> None:
    runner = (
        "import contextlib, io, json, sys\n"
        "def passed(program, cases):\n"
        "    code = compile(program, 'main.py', 'exec')\n"
        "    for case in cases:\n"
        "        sys.stdin, out = io.StringIO(case['stdin']), io.StringIO()\n"
        "        with contextlib.redirect_stdout(out):\n"
        "            exec(code, {'__name__': '__main__'})\n"
        "        yield out.getvalue() == case['stdout']\n"
        "jobs = json.load(open(sys.argv[1]))\n"
        "print(json.dumps([[all(passed(program, cases)) for program in programs] for programs, cases in jobs]))\n"
    )
    every = (tasks["train"] + tasks["test"])[::2]
    jobs = [([task.data["solution"], *task.data["flawed"]], task.answer["cases"]) for task in every]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, "-c", runner, str(tmp_path / "jobs.json")]
    results = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    for task, (right, *flawed) in zip(every, results, strict=True):
        assert right, task.data["solution"]
        assert flawed and not any(flawed), task.data["flawed"]


def test_every_task_has_different_cases_which_no_constant_and_no_echo_passes(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"] + tasks["test"]:
        cases = task.answer["cases"]
        assert CASES[0] <= len(cases) <= CASES[1] and len({case["stdin"] for case in cases}) == len(cases)
        assert len({case["stdout"] for case in cases}) >= 3
        assert all(case["stdout"].strip() and case["stdout"].endswith("\n") for case in cases)
        assert any(case["stdout"].split() != case["stdin"].split() for case in cases)


def test_the_example_is_right_and_is_none_of_the_hidden_cases(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"] + tasks["test"]:
        _, shown, _, output, _ = task.prompt.split("```")
        solution = PROGRAMS[task.data["template"]].solution
        assert solution(shown[1:], **task.data["parameters"]) == output.strip("\n")
        assert shown[1:] not in [case["stdin"] for case in task.answer["cases"]]


def test_each_parameter_stands_in_the_statement(tasks: dict[str, list[Task]]) -> None:
    for task in tasks["train"] + tasks["test"]:
        statement = task.prompt.split("\n\nExample")[0]
        for value in task.data["parameters"].values():
            if not isinstance(value, bool):
                parts = [str(value)] if isinstance(value, int) else map(str, value)
                assert all(part in statement for part in parts), task.prompt


def test_tasks_of_a_template_differ_and_different_parameters_give_different_statements(
    tasks: dict[str, list[Task]],
) -> None:
    for name in PROGRAMS:
        for split in ("train", "test"):
            own = [task for task in tasks[split] if task.data["template"] == name]
            assert len({task.prompt for task in own}) > 0.6 * TASKS, name
            statements = {task.prompt.split("\n\nExample")[0] for task in own}
            assert len(statements) == len({json.dumps(task.data["parameters"]) for task in own}) >= 4, name


def test_the_splits_share_no_statement(tasks: dict[str, list[Task]]) -> None:
    seen = {split: {task.prompt.split("\n\nExample")[0] for task in tasks[split]} for split in tasks}
    assert not seen["train"] & seen["test"]
    assert not {task.hash for task in tasks["train"]} & {task.hash for task in tasks["test"]}


def test_levels_and_templates_can_be_chosen() -> None:
    drawn = [Programs(levels=[3]).source.task(index) for index in range(40)]
    assert {task.data["level"] for task in drawn} == {3} and len({task.data["template"] for task in drawn}) > 3
    env = Programs(templates=["sum_above", "muddy_path"], levels=(2, 3))
    assert {env.source.task(index).data["template"] for index in range(9)} == {"muddy_path"}


def test_seeds_give_different_streams() -> None:
    streams = [{Programs(seed=seed).source.task(i).prompt for i in range(20)} for seed in (0, 1)]
    assert len(streams[0] & streams[1]) < 3


def test_tasks_are_the_same_in_every_process_and_under_every_hash_seed() -> None:
    code = (
        "import hashlib; from ludus.envs import make_env\n"
        "import numpy as np\n"
        "env = make_env('ludus/Programs-v0', seed=3, split='test')\n"
        "tasks = [env.source.task(i) for i in range(100)]\n"
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


def test_flaws_come_at_the_rate_asked_for() -> None:
    env, rng = Programs(levels=[1]), np.random.default_rng(0)
    task = env.source.task(0)
    right = env.demonstrate(task, rng)
    assert 0.25 < np.mean([env.demonstrate(task, rng, 0.3) != right for _ in range(1_000)]) < 0.35


# The environment


@pytest.mark.bubblewrap
def test_stubs_and_empty_answers_are_wrong(bubblewrap: Bubblewrap) -> None:
    env = make_env("ludus/Programs-v0")
    for index, level in enumerate((1, 2, 3)):
        task = make_env("ludus/Programs-v0", levels=[level]).source.task(index)
        first = task.answer["cases"][0]["stdout"]
        stubs = ("pass", "print(0)", f"print({first!r}, end='')", "import sys\nprint(sys.stdin.read())", "def solve(")
        for answer in ("", "I do not know.", *map(fenced, stubs)):
            assert play(env, task, answer) == (0.0, Outcome.WRONG), answer


@pytest.mark.bubblewrap
def test_the_share_of_cases_can_be_paid(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", ROW)
    half = fenced("print(sum(map(int, input().split())))")
    for scoring, expected in (("all", (0.0, Outcome.WRONG)), ("share", (0.5, Outcome.PARTIAL))):
        env = make_env("ludus/Programs-v0", path=path, scoring=scoring)
        assert play(env, env.source.task(0), half) == expected


def test_no_case_and_no_solution_is_in_the_first_observation_or_info() -> None:
    env = make_env("ludus/Programs-v0")
    for index in range(50):
        observation, info = env.reset(options={"index": index})
        assert env.task is not None and set(info) == {"task_id", "messages"}
        assert "def solve" not in f"{observation}{info}" and "stdin" not in observation
        assert "standard input" in info["messages"][0]["content"]


@pytest.mark.bubblewrap
def test_gymnasium_makes_and_checks_it(bubblewrap: Bubblewrap) -> None:
    from gymnasium.utils.env_checker import check_env

    check_env(gymnasium.make("ludus/Programs-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"templates": ["muddy_paht"]}, "Unknown template 'muddy_paht'. Did you mean 'muddy_path'"),
        ({"levels": [4]}, r"no level 4; take some of \(1, 2, 3\)"),
        ({"levels": []}, "choose nothing; leave one of them out"),
        ({"levels": [1], "templates": ["muddy_path"]}, "choose nothing; leave one of them out"),
        ({"seed": -1}, "give a seed of 0 or more"),
        ({"sandbox": "bubblewarp"}, "Unknown sandbox 'bubblewarp'. Did you mean 'bubblewrap'"),
        ({"scoring": "groups"}, "Unknown scoring 'groups'"),
        ({"max_turns": 0}, "give 1 or more"),
        ({"path": "own.jsonl", "levels": [1]}, "leave them out with path = 'own.jsonl'"),
        ({"path": "nowhere.jsonl"}, "Cannot read the task file nowhere.jsonl"),
    ],
)
def test_an_option_that_cannot_work_is_told_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(EnvError, match=sentence):
        Programs(**options)
    with pytest.raises(LudusError):
        make_env("ludus/Programs-v0", **options)


# Tasks from a file


@pytest.mark.bubblewrap
@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz"])
def test_rows_of_a_file_are_tasks_with_demonstrations_and_flawed_ones_fail(
    bubblewrap: Bubblewrap, tmp_path: Path, name: str
) -> None:
    env = make_env("ludus/Programs-v0", path=write_rows(tmp_path / name, ROW, {**ROW, "id": "second", "note": 1}))
    assert [env.source.task(index).id for index in range(2)] == ["own-1", "second"]
    task = env.source.task(1)
    assert task.prompt == ROW["prompt"] and task.answer == {"cases": ROW["cases"]}
    for flaw_rate, outcome in ((0.0, Outcome.CORRECT), (1.0, Outcome.WRONG)):
        (action,) = env.demonstrate(task, np.random.default_rng(0), flaw_rate)
        assert play(env, task, action)[1] is outcome


def test_a_row_without_a_solution_has_no_demonstration(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "own.jsonl", {key: ROW[key] for key in ("prompt", "cases")})
    env = make_env("ludus/Programs-v0", path=path)
    with pytest.raises(NoDemonstration, match="own-1 has no 'solution'; add one"):
        env.demonstrate(env.source.task(0), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": None}, "needs the text 'prompt'"),
        ({"prompt": " "}, "needs the text 'prompt'"),
        ({"cases": None}, "needs 'cases', such as "),
        ({"cases": []}, "needs 'cases', such as "),
        ({"cases": {"stdin": "", "stdout": "1"}}, "needs 'cases', such as "),
        ({"cases": [{"stdin": "1", "stdout": "1"}, {"stdin": "1"}]}, "case 2 needs the text 'stdout'"),
        ({"cases": [{"stdout": "1"}]}, "case 1 needs the text 'stdin'"),
        ({"cases": [{"stdin": 1, "stdout": "1"}]}, "case 1 needs the text 'stdin'"),
        ({"cases": ["1"]}, "case 1 needs the text 'stdin'"),
        ({"cases": [{"stdin": "1", "stdout": "\n"}]}, "no case asks for any output"),
        ({"solution": ["print(1)"]}, "'solution' must be the text of a program"),
        ({"solution": ""}, "'solution' must be the text of a program"),
        ({"solution": "```python\nprint(1)\n```"}, "'solution' has a code fence"),
        ({"language": "cpp"}, "'language' is 'cpp'"),
        ({"id": ["x"]}, "'id' must be a text or a whole number"),
        ({"id": "first"}, "the id 'first' stands in an earlier row"),
    ],
)
def test_a_bad_row_is_told_by_file_and_line(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = write_rows(tmp_path / "own.jsonl", {**ROW, "id": "first"}, {**ROW, **change})
    with pytest.raises(TaskError, match=rf"own\.jsonl:2: .*{sentence}"):
        make_env("ludus/Programs-v0", path=path)


def test_a_file_without_rows_or_with_a_broken_line_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="has no rows"):
        make_env("ludus/Programs-v0", path=write_rows(tmp_path / "empty.jsonl"))
    (tmp_path / "broken.jsonl").write_text('\n{"prompt": \n')
    with pytest.raises(TaskError, match=r"broken\.jsonl:2: the line is not valid JSON"):
        make_env("ludus/Programs-v0", path=str(tmp_path / "broken.jsonl"))


# The reference solutions, beside other ways to the same answer


@given(st.lists(WHOLE), WHOLE)
def test_sum_above_is_what_is_left_of_the_whole_sum(numbers: list[int], limit: int) -> None:
    kept = sum(numbers) - sum(min(number, limit) for number in numbers) + limit * sum(n > limit for n in numbers)
    assert solve("sum_above", " ".join(map(str, numbers)), limit=limit) == str(kept)


@given(st.text("abcdABCD 1"), st.sets(LETTERS, min_size=1), st.booleans())
def test_letter_count_counts_one_character_after_the_other(text: str, letters: set[str], capitals: bool) -> None:
    wanted = letters | ({letter.upper() for letter in letters} if capitals else set())
    found = solve("letter_count", text, letters="".join(sorted(letters)), capitals=capitals)
    assert found == str(len([char for char in text if char in wanted]))


@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1), st.integers(1, 6))
def test_long_words_twice_is_the_words(words: list[str], shortest: int) -> None:
    once = solve("long_words", "  ".join(words), shortest=shortest, joiner="-").split("-")
    assert solve("long_words", " ".join(once), shortest=shortest, joiner="-") == "-".join(words)
    for word, turned in zip(words, once, strict=True):
        assert turned == ("".join(reversed(word)) if len(word) >= shortest else word)


@given(st.lists(WHOLE, min_size=1), st.integers(1, 40))
def test_restarting_totals_are_sums_since_the_last_restart(numbers: list[int], limit: int) -> None:
    totals = [int(word) for word in solve("restarting_total", " ".join(map(str, numbers)), limit=limit).split()]
    starts = [0, *(i + 1 for i, total in enumerate(totals) if total > limit)]
    assert totals == [sum(numbers[max(s for s in starts if s <= i) : i + 1]) for i in range(len(numbers))]


@given(st.text("abyzABYZ ,.1", min_size=1), st.integers(1, 25))
def test_a_letter_shift_is_str_translate(text: str, shift: int) -> None:
    small = "abcdefghijklmnopqrstuvwxyz"
    moved = small[shift:] + small[:shift]
    table = str.maketrans(small + small.upper(), moved + moved.upper())
    assert solve("letter_shift", text + "\n", shift=shift) == text.translate(table)


@given(st.integers(1, 80), st.integers(2, 5), st.integers(2, 9))
def test_word_multiples_say_each_number_by_its_divisors(size: int, first: int, second: int) -> None:
    lines = solve("word_multiples", f"{size}\n", first=first, second=second, words=["Hip", "Hop"]).split("\n")
    said = {number: str(number) for number in range(1, size + 1)}
    for step, word in ((first, "Hip"), (second, "Hop"), (math.lcm(first, second), "HipHop")):
        said |= dict.fromkeys(range(step, size + 1, step), word)
    assert lines == list(said.values())


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), st.integers(2, 36), st.integers(1, 7))
def test_number_base_is_read_back_by_int(numbers: list[int], base: int, width: int) -> None:
    lines = solve("number_base", "\n".join(map(str, numbers)), base=base, width=width).split("\n")
    assert [int(line, base) for line in lines] == numbers
    for line, number in zip(lines, numbers, strict=True):
        digits = line.removeprefix("-")
        assert line.startswith("-") == (number < 0) and len(digits) >= width
        assert len(digits) == width or digits[0] != "0"


@given(st.text("ab", min_size=1, max_size=40), st.integers(2, 6))
def test_run_lengths_can_be_read_back(text: str, least: int) -> None:
    parts = solve("run_lengths", f"{text}\n", least=least, joiner="|").split("|")
    runs = [int(part[:-1]) * part[-1] if part[0].isdigit() else part for part in parts]
    assert "".join(runs) == text and all(one[0] != two[0] for one, two in itertools.pairwise(runs))
    for part, run in zip(parts, runs, strict=True):
        assert len(set(run)) == 1 and part[0].isdigit() == (len(run) >= least)


BALANCED = st.recursive(
    st.sampled_from(["()", "[]"]),
    lambda inner: inner.map("({})".format) | inner.map("[{}]".format) | st.tuples(inner, inner).map("".join),
    max_leaves=6,
)


@given(st.lists(BALANCED | st.text("()[]", min_size=1, max_size=8), min_size=1), st.integers(1, 4))
def test_balanced_brackets_vanish_pair_by_pair(lines: list[str], depth: int) -> None:
    expected = []
    for line in lines:
        height = max(itertools.accumulate(1 if char in "([" else -1 for char in line))
        while (shorter := line.replace("()", "").replace("[]", "")) != line:
            line = shorter
        expected.append("no" if line or height > depth else "yes")
    assert solve("nested_brackets", "\n".join(lines), pairs="()[]", depth=depth).split("\n") == expected


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(0, 20))
def test_divisor_pairs_share_a_divisor_above_the_bound(numbers: list[int], bound: int) -> None:
    count = 0
    for i, a in enumerate(numbers):
        for b in numbers[:i]:
            count += any(a % divisor == b % divisor == 0 for divisor in range(bound + 1, 61))
    assert solve("divisor_pairs", " ".join(map(str, numbers)), bound=bound) == str(count)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 9), st.data())
def test_marked_columns_are_the_transposed_table(rows: int, columns: int, divisor: int, data: st.DataObject) -> None:
    table = np.array(data.draw(st.lists(WHOLE, min_size=rows * columns, max_size=rows * columns)))
    table = table.reshape(rows, columns)
    text = f"{rows} {columns}\n" + "".join(" ".join(map(str, row)) + "\n" for row in table.tolist())
    lines = solve("marked_columns", text, divisor=divisor, mark="*").split("\n")
    shown = [["*" if math.gcd(cell, divisor) == divisor else str(cell) for cell in r] for r in table.T.tolist()]
    assert [line.split() for line in lines] == shown


@given(st.lists(st.integers(0, 12), min_size=1, max_size=12), st.integers(1, 5))
def test_no_stretch_is_longer_than_the_calm_one(numbers: list[int], step: int) -> None:
    length, place = map(int, solve("calm_stretch", " ".join(map(str, numbers)), step=step).split())
    spans = itertools.combinations(range(len(numbers) + 1), 2)
    calm = [
        (low - high, low)
        for low, high in spans
        if all(abs(a - b) <= step for a, b in itertools.pairwise(numbers[low:high]))
    ]
    assert (-length, place - 1) == min(calm)


@pytest.mark.parametrize("subtract", [True, False])
def test_roman_signs_are_roman_numerals_read_back(subtract: bool) -> None:
    worth = dict(zip("IVXLCDM", (1, 5, 10, 50, 100, 500, 1000), strict=True))
    text = "".join(f"{number}\n" for number in range(1, 4000))
    numerals = solve("roman_signs", text, signs="IVXLCDM", subtract=subtract).split("\n")
    for number, numeral in enumerate(numerals, 1):
        values = [worth[sign] for sign in numeral]
        if not subtract:
            assert sum(values) == number and values == sorted(values, reverse=True)
            assert all(numeral.count(sign) < (2 if sign in "VLD" else 5) for sign in worth)
            continue
        assert sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True)) == number
        thousands, hundreds, tens, ones = (number // 10**place % 10 for place in (3, 2, 1, 0))
        columns = [(hundreds, "CDM"), (tens, "XLC"), (ones, "IVX")]
        by_digit = [_roman_digit(digit, *signs) for digit, signs in columns]
        assert numeral == "M" * thousands + "".join(by_digit)


def _roman_digit(digit: int, one: str, five: str, ten: str) -> str:
    patterns = ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"]
    return patterns[digit].translate(str.maketrans({"i": one, "v": five, "x": ten}))


@given(st.integers(2, 9), st.integers(1, 30), st.lists(st.integers(0, 300), min_size=2, max_size=2).map(sorted))
def test_prime_values_are_in_the_sieve(factor: int, offset: int, ends: list[int]) -> None:
    expected = sum(factor * n + offset in _primes() for n in range(ends[0], ends[1] + 1))
    assert solve("prime_values", f"{ends[0]} {ends[1]}\n", factor=factor, offset=offset) == str(expected)


@cache
def _primes() -> frozenset[int]:
    numbers = set(range(2, 3_000))
    for number in range(2, 55):
        numbers -= set(range(2 * number, 3_000, number))
    return frozenset(numbers)


@given(st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 9)), min_size=1, max_size=8), st.integers(1, 6))
def test_merged_ranges_join_until_nothing_can_be_joined(drawn: list[tuple[int, int]], gap: int) -> None:
    ranges = [(low, low + size) for low, size in drawn]
    text = "".join(f"{low} {high}\n" for low, high in ranges)
    joined = True
    while joined:
        joined = False
        for one, two in itertools.combinations(ranges, 2):
            if max(one[0], two[0]) - min(one[1], two[1]) <= gap:
                ranges = [r for r in ranges if r not in (one, two)] + [(min(one[0], two[0]), max(one[1], two[1]))]
                joined = True
                break
    expected = "\n".join(f"{low} {high}" for low, high in sorted(set(ranges)))
    assert solve("merged_ranges", text, gap=gap) == expected


@given(st.integers(1, 5), st.integers(1, 5), st.integers(2, 9), st.data())
def test_muddy_paths_cost_what_relaxing_every_step_gives(
    rows: int, columns: int, cost: int, data: st.DataObject
) -> None:
    cells = data.draw(st.lists(st.sampled_from("..~~#"), min_size=rows * columns + 1, max_size=rows * columns + 1))
    size = max(2, rows * columns)
    start, goal = data.draw(st.permutations(range(size)))[:2]
    cells = cells[:size]
    cells[start], cells[goal] = "S", "G"
    width = columns if rows * columns == size else 2
    least = [math.inf] * size
    least[start] = 0
    for _ in range(size):  # Bellman and Ford
        for a in range(size):
            near = [b for b in (a - width, a + width) if 0 <= b < size]
            near += [b for b in (a - 1, a + 1) if 0 <= b < size and b // width == a // width]
            for b in near:
                if cells[b] != "#":
                    least[b] = min(least[b], least[a] + {"~": cost}.get(cells[b], 1))
    grid = "".join("".join(cells[i : i + width]) + "\n" for i in range(0, size, width))
    expected = "none" if least[goal] == math.inf else str(least[goal])
    assert solve("muddy_path", grid, wall="#", cost=cost) == expected


@given(st.text(LETTERS, min_size=1, max_size=8), st.text(LETTERS, min_size=1, max_size=8), st.integers(1, 5))
def test_common_letters_are_the_best_of_all_subsequences(first: str, second: str, points: int) -> None:
    def subsequences(text: str) -> set[tuple[str, ...]]:
        return {kept for size in range(len(text) + 1) for kept in itertools.combinations(text, size)}

    shared = subsequences(first) & subsequences(second)
    best = max(sum(points if letter in "ac" else 1 for letter in kept) for kept in shared)
    assert solve("common_letters", f"{first}\n{second}\n", letters="ac", points=points) == str(best)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(2, 20), st.integers(1, 4))
def test_counting_out_ends_with_those_that_the_recurrence_names(sizes: list[int], step: int, left: int) -> None:
    expected = []
    for size in sizes:
        survivors = list(range(min(left, size)))
        for people in range(left + 1, size + 1):
            survivors = [(place + step) % people for place in survivors]
        expected.append(" ".join(str(place + 1) for place in sorted(survivors)))
    text = "".join(f"{size}\n" for size in sizes)
    assert solve("counting_out", text, step=step, left=left).split("\n") == expected


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.sets(st.integers(2, 25), min_size=2, max_size=4))
def test_fewest_coins_is_the_first_round_that_reaches_the_amount(amounts: list[int], coins: set[int]) -> None:
    rounds: dict[int, int] = {}
    reached, count = {0}, 0
    while reached:
        rounds |= {amount: count for amount in reached if amount not in rounds}
        reached = {a + coin for a in reached for coin in coins if a + coin <= 60 and a + coin not in rounds}
        count += 1
    expected = [str(rounds.get(amount, "none")) for amount in amounts]
    assert solve("fewest_coins", "\n".join(map(str, amounts)), coins=sorted(coins)).split("\n") == expected


@given(st.lists(st.text("#.", min_size=6, max_size=6), min_size=1, max_size=6), st.integers(1, 5), st.booleans())
def test_islands_are_the_classes_of_cells_that_touch(rows: list[str], least: int, corners: bool) -> None:
    labels = {(r, c): 6 * r + c for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "#"}
    for _ in labels:
        for a, b in itertools.permutations(labels, 2):
            down, right = abs(a[0] - b[0]), abs(a[1] - b[1])
            if max(down, right) == 1 and (corners or down + right == 1):
                labels[a] = min(labels[a], labels[b])
    expected = sum(size >= least for size in Counter(labels.values()).values())
    assert solve("island_count", "\n".join(rows) + "\n", land="#", least=least, corners=corners) == str(expected)


def test_of_a_file_of_ones_own_training_leaves_tasks_for_the_evaluation(tmp_path: Path) -> None:
    rows = [{**ROW, "id": f"row-{number}", "prompt": f"{ROW['prompt']} {number}"} for number in range(20)]
    path = write_rows(tmp_path / "own.jsonl", *rows)
    sources = [make_env("ludus/Programs-v0", path=path, split=split).source for split in ("train", "test")]
    assert same_tasks(*sources)
    generated = [make_env("ludus/Programs-v0", split=split).source for split in ("train", "test")]
    assert not same_tasks(*generated)
    assert same_tasks(generated[0], make_env("ludus/Programs-v0").source)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"levels": 1}, "levels = 1 must be a list"),
        ({"templates": 5}, "templates = 5 must be a list"),
        ({"templates": "sum_above"}, "must be a list"),
        ({"seed": "a"}, "the option seed = 'a' is wrong"),
    ],
)
def test_options_of_a_wrong_kind_are_told_in_one_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(LudusError, match=says):
        make_env("ludus/Programs-v0", **options)

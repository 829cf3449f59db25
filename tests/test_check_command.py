"""`ludus check`: environments and verifiers by name, what is shown, and what is refused."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from ludus.envs import ListSource, ProceduralSource, Task, TextEnv, tool
from ludus.envs.check import EnvVerifier, RightEpisode, check_env_verifier
from ludus.envs.errors import EnvError
from ludus.sandbox.errors import LudusError
from ludus.verifiers import Verdict, check_verifier

MODULE = """\
from ludus.verifiers import LengthPenalty, MathVerifier, Verdict

verifier = MathVerifier(["hash"])
brief = LengthPenalty(100, 50)
number = 42


class Loose:
    def verify(self, gold, response, *, prompt=""):
        return Verdict.correct("found") if gold in response else Verdict.wrong("not found")


class Holder:
    verifier = Loose()


def make():
    return MathVerifier(["hash"])


def needs_more(order):
    return MathVerifier(order)
"""


def ludus(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # The command as it is installed, which unlike `python -m ludus` does not look for modules where it is run.
    command = [sys.executable, "-P", "-m", "ludus", *arguments]
    inherited = {**os.environ, "PYTHONPATH": "", **environment}
    return subprocess.run(command, cwd=cwd, env=inherited, capture_output=True, text=True, timeout=120)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
    rows = [{"gold": "42", "response": "#### 42"}, {"gold": 7, "response": "3 + 4 = 7\n#### 7", "prompt": "3 + 4?"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bare.jsonl").write_text('{"gold": "42"}\n\n{"gold": "7"}\n')
    (tmp_path / "bad.jsonl").write_text('{"gold": 1}\n{"gold": \n')
    (tmp_path / "typo.jsonl").write_text('{"gold": 1, "respnse": "1"}\n')
    (tmp_path / "no_gold.jsonl").write_text('{"response": "1"}\n')
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    (tmp_path / "number.jsonl").write_text('{"gold": 1, "response": 1}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"gold": "\xe9"}\n')
    return tmp_path


@pytest.mark.parametrize("name", ["ludus/WordMath-v0", "ludus/GSM8K-v0", "ludus/GSM8KSteps-v0"])
def test_an_environment_of_ludus_passes(name: str, here: Path, shared_data: Path) -> None:
    done = ludus("check", name, "--tasks", "5", "--seed", "1", cwd=here, LUDUS_DATA=str(shared_data))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert "passed   demonstrations: 5 demonstrations end with an answer." in lines
    assert "passed   gold: 5 right responses are CORRECT." in lines
    assert lines[-1] == f"{name}: 24 passed"


def test_options_reach_the_environment(here: Path) -> None:
    done = ludus("check", "ludus/WordMath-v0", "--tasks", "2", "--set", "levels=[3]", cwd=here)
    assert done.returncode == 0, done.stdout
    done = ludus("check", "ludus/WordMath-v0", "--set", "levels=[9]", cwd=here)
    assert done.returncode == 2 and "No template has the levels [9]" in done.stderr


def test_the_environment_of_a_plugin_is_checked_by_its_name(here: Path, repository: Path) -> None:
    place = here / "site"
    source = shutil.copytree(repository / "examples" / "reverse_env", here / "reverse_env")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(place), str(source)], check=True, capture_output=True)
    done = ludus("check", "reverse/Reverse-v0", cwd=here, PYTHONPATH=str(place))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped  demonstrations: There are none" in done.stdout
    assert done.stdout.splitlines()[-1] == "reverse/Reverse-v0: 23 passed, 1 skipped"


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("mine:verifier", "pairs.jsonl"), ("mine:make", "pairs.jsonl")],
)
def test_a_verifier_is_checked_where_it_stands(name: str, pairs: str, here: Path) -> None:
    done = ludus("check", name, "--pairs", pairs, cwd=here)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "passed   processes" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{name}: 16 passed"


@pytest.mark.parametrize("name", ["mine:Loose", "mine:Holder.verifier"])
def test_what_fails_is_told_with_what_to_do_and_exit_code_1(name: str, here: Path) -> None:
    done = ludus("check", name, "--pairs", "bare.jsonl", cwd=here)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("failed   hedged: "))
    assert lines[at + 1].strip().startswith("fix: require exactly one answer")
    assert lines[at + 2].strip().startswith("example: gold '")
    assert lines[-1] == f"{name}: 12 passed, 4 failed"


def test_a_verifier_that_scores_is_checked_without_right_and_wrong(here: Path) -> None:
    done = ludus("check", "mine:brief", "--pairs", "bare.jsonl", "--no-judges", cwd=here)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "mine:brief: 8 passed"


def test_a_terminal_gets_a_table(here: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ludus", "check", "mine:Loose", "--pairs", "bare.jsonl"]
    with subprocess.Popen(command, cwd=here, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as done:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # the other side is closed
            pass
    os.close(ours)
    assert done.returncode == 1
    assert b"\x1b[1;31mfailed" in shown and b"fix: " in shown and b"mine:Loose: " in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("ludus/WordMth-v0", "Unknown environment 'ludus/WordMth-v0'. Did you mean 'ludus/WordMath-v0'?"),
        ("", "Missing argument"),
        ("ludus/WordMath-v0 --tasks 0", "Invalid value for '--tasks'"),
        ("ludus/WordMath-v0 --set levles=[1]", "has no option 'levles'. Did you mean 'levels'?"),
        ("ludus/WordMath-v0 --set levels", "--set levels: write it as key=value"),
        ("ludus/WordMath-v0 --pairs pairs.jsonl", "is an environment, whose tasks are taken; leave --pairs out."),
        ("ludus/WordMath-v0 --deadline 0", "deadline_s = 0.0 must be above 0 and below 3600 seconds."),
        ("mine:verifier", "mine:verifier is a verifier, which needs right answers; add --pairs FILE.jsonl."),
        ("mine:verifier --pairs pairs.jsonl --set a=1", "takes no --set; set it up in its module."),
        ("mine:verifer --pairs pairs.jsonl", "mine has no verifer. Did you mean 'verifier'?"),
        ("mine:Holder.x --pairs pairs.jsonl", "mine has no Holder.x. Known: verifier."),
        ("mine:number --pairs pairs.jsonl", "mine:number is no verifier; it needs a method verify(gold, response, *"),
        ("mine:needs_more --pairs pairs.jsonl", "cannot be called without arguments (TypeError: needs_more() missing"),
        ("gone:verifier --pairs pairs.jsonl", "There is no module gone; run the command where it lies, or install it."),
        ("mine.gone:x --pairs pairs.jsonl", "There is no module mine.gone; run the command where it lies"),
        (
            "broken:x --pairs pairs.jsonl",
            "broken cannot be imported (ZeroDivisionError: division by zero); correct it.",
        ),
        ("needy:x --pairs pairs.jsonl", "needy cannot be imported (ModuleNotFoundError: No module named 'not_inst"),
        (
            "mine.py:verifier: --pairs pairs.jsonl",
            "'mine.py:verifier:' is no place in a module; write module:attribute",
        ),
        (": --pairs pairs.jsonl", "':' is no place in a module"),
        ("mine:verifier --pairs gone.jsonl", "gone.jsonl does not exist; give a file of JSON lines."),
        ("mine:verifier --pairs .", ". is a folder; give a file of JSON lines."),
        ("mine:verifier --pairs bad.jsonl", "bad.jsonl:2: the line is not JSON (Expecting value: line 1 column"),
        (
            "mine:verifier --pairs typo.jsonl",
            "typo.jsonl:1: the field 'respnse' is not known; there are gold, response",
        ),
        ("mine:verifier --pairs no_gold.jsonl", 'no_gold.jsonl:1: the line is no object with the field "gold"'),
        ("mine:verifier --pairs list.jsonl", 'list.jsonl:1: the line is no object with the field "gold"'),
        (
            "mine:verifier --pairs number.jsonl",
            "number.jsonl:1: response and prompt must be texts; put them in quotes.",
        ),
        ("mine:verifier --pairs empty.jsonl", "empty.jsonl has no lines"),
        ("mine:verifier --pairs latin.jsonl", "latin.jsonl is not UTF-8 text (byte 10); save it as UTF-8."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(here: Path, arguments: str, sentence: str) -> None:
    done = ludus("check", *arguments.split(), cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and sentence in line


# Environments


class Doubling(TextEnv):
    """Double a number: the tool must have been called, and the answer must be right."""

    def __init__(self, *, flawed: str = "") -> None:
        self.flawed = flawed

        @tool
        def double(number: int) -> str:
            """Twice a number.

            number: what is doubled.
            """
            return str(2 * number)

        super().__init__(ProceduralSource(self.generate), tools=(double,))

    def generate(self, rng: Any, index: int) -> Task:
        return Task(f"double-{index}", f"Double {index + 10}.", 2 * (index + 10))

    def verify(self, task: Task, response: str) -> Verdict:
        if not any(call.result == str(task.answer) for call in self.calls) and self.flawed != "no tool":
            return Verdict.wrong("The tool was not called.")
        if self.flawed == "substring":
            right = str(task.answer) in response
        elif self.flawed == "any number":
            right = response.isdecimal()
        else:
            right = response == str(task.answer)
        return Verdict.correct("right") if right else Verdict.wrong("wrong")

    def demonstrate(self, task: Task, rng: Any, flaw_rate: float = 0.0) -> list[str]:
        call = f'<tool_call>{{"name": "double", "arguments": {{"number": {task.answer // 2}}}}}</tool_call>'
        if self.flawed == "early":
            return [str(task.answer), call]
        return [call, str(task.answer)]


class Single(TextEnv):
    """One task, without a demonstration."""

    def __init__(self) -> None:
        super().__init__(ListSource([Task("one", "Say it.", {"said": "it"})]))

    def verify(self, task: Task, response: str) -> Verdict:
        right = response == json.dumps(task.answer)
        return Verdict.correct("right") if right else Verdict.wrong("wrong")


class Nothing(Single):
    def __init__(self) -> None:
        TextEnv.__init__(self, ListSource([]))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    names = {"checked/Doubling-v0": Doubling, "checked/Single-v0": Single, "checked/Nothing-v0": Nothing}
    for name, cls in names.items():
        gymnasium.register(name, entry_point=cls, disable_env_checker=True, order_enforce=False)
    yield
    for name in names:
        del gymnasium.registry[name]


def test_a_verdict_that_depends_on_tool_calls_is_judged_after_them() -> None:
    report = check_env_verifier("checked/Doubling-v0", tasks=3)
    report.raise_for_failures()
    assert report.row("gold").what == "3 right responses are CORRECT."
    assert report.row("processes").status == "skipped"
    assert "Unknown environment 'checked/Doubling-v0'" in report.row("processes").what


@pytest.mark.parametrize(
    ("flawed", "failed"),
    [
        ("substring", ["other", "hedged", "listed", "negated"]),
        ("any number", ["other"]),
        ("early", ["demonstrations", "gold"]),
    ],
)
def test_a_flaw_of_an_environment_is_found(flawed: str, failed: list[str]) -> None:
    report = check_env_verifier("checked/Doubling-v0", tasks=3, options={"flawed": flawed})
    assert [row.name for row in report.failures] == failed


def test_an_answer_that_is_no_text_is_taken_as_json() -> None:
    report = check_env_verifier("checked/Single-v0")
    report.raise_for_failures()
    assert report.row("gold").what == "1 right responses are CORRECT."


def test_no_task_is_told() -> None:
    with pytest.raises(EnvError, match="The task source is empty"):
        check_env_verifier("checked/Nothing-v0")
    with pytest.raises(EnvError, match="tasks = 0 leaves nothing to check"):
        check_env_verifier("checked/Single-v0", tasks=0)


def test_an_environment_may_be_asked_from_many_threads() -> None:
    episodes = [RightEpisode(Task(str(n), f"Double {n}.", 2 * n), (str(2 * n),), False) for n in (11, 12)]
    verifier = EnvVerifier("checked/Doubling-v0", {"flawed": "no tool"}, episodes)
    pairs = [(episode.task.answer, episode.response, episode.task.prompt) for episode in episodes]
    assert check_verifier(verifier, pairs).row("threads").status == "passed"
    assert issubclass(EnvError, LudusError)

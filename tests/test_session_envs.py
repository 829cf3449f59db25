"""PythonMath and Shell: episodes in a sandbox session, and what each of them pays for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sandbox import gone, processes

from ludus import InfrastructureError, Outcome, make_env
from ludus.envs import session_env
from ludus.envs.errors import EnvError
from ludus.envs.human_eval import HumanEval, HumanEvalRepair
from ludus.envs.programs import Programs
from ludus.envs.python_math import PythonMath
from ludus.envs.python_math_problems import PROBLEMS
from ludus.envs.repo_repair import RepoRepair
from ludus.envs.session_env import SessionEnv
from ludus.envs.shell import JOBS, Shell
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.tool_call import render_call
from ludus.envs.word_math import WordMath
from ludus.sandbox import Limits, SandboxError, keeper_session, open_sandbox
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.interpreter import PythonInterpreter
from ludus.sandbox.keeper_session import KeeperSession

pytestmark = pytest.mark.bubblewrap


def call(env: TextEnv, text: str) -> str:
    (tool,) = env.tools
    return env.step(render_call(tool, {next(iter(tool.parameters["properties"])): text}, env.dialect))[0]


def play(env: TextEnv, index: int, flaw_rate: float) -> float:
    env.reset(options={"index": index})
    assert env.task is not None
    for action in env.demonstrate(env.task, np.random.default_rng(index), flaw_rate):
        _, reward, terminated, _, _ = env.step(action)
    assert terminated
    return reward


@pytest.mark.parametrize("name", [*PROBLEMS, *JOBS])
def test_demonstrations_are_right_and_flawed_ones_are_not(bubblewrap: Bubblewrap, name: str) -> None:
    env = PythonMath(sandbox="bubblewrap") if name in PROBLEMS else Shell(sandbox="bubblewrap", jobs=[name])
    if isinstance(env, PythonMath):
        env.names = [name]
    for index in range(3):
        assert (play(env, index, 0.0), play(env, index, 1.0)) == (1.0, 0.0)
    env.close()


@pytest.mark.parametrize("name", ["ludus/PythonMath-v0", "ludus/Shell-v0"])
def test_tasks_are_the_same_in_every_process_and_splits_share_none(bubblewrap: Bubblewrap, name: str) -> None:
    def hashes(split: str) -> list[str]:
        env = make_env(name, split=split, seed=3)
        return [env.source.task(index).hash for index in range(40)]

    program = f"""
import json
from ludus import make_env
env = make_env({name!r}, split="train", seed=3)
print(json.dumps([env.source.task(index).hash for index in range(40)]))
"""
    for seed in ("0", "77"):
        other = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        )
        assert json.loads(other.stdout) == hashes("train")
    assert not set(hashes("train")) & set(hashes("test"))


@pytest.mark.parametrize("make", [PythonMath, Shell])
def test_unknown_options_name_what_there_is(make: type[SessionEnv]) -> None:
    with pytest.raises(EnvError, match=r"Unknown split 'tests'.*Did you mean 'test'"):
        make(split="tests")
    with pytest.raises(EnvError, match=r"the levels are|Did you mean 'sort'"):
        make(levels=[9]) if make is PythonMath else make(jobs=["sorted"])


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        *(
            (make, {"max_turns": "3"}, "max_turns = '3' must be a whole number")
            for make in (Shell, HumanEval, Programs)
        ),
        *((make, {"system_prompt": 5}, "system_prompt = 5 must be text") for make in (RepoRepair, PythonMath)),
        *((make, {"seed": seed}, "give a seed of 0 or more") for make in (Shell, PythonMath) for seed in ("a", 1.5)),
        (Shell, {"jobs": 3}, "jobs = 3 must be a list"),
        (Shell, {"jobs": [["write"]]}, "Unknown job"),
        *((make, {"levels": 1}, "levels = 1 must be a list") for make in (PythonMath, Programs, WordMath)),
        *((make, {"levels": "1"}, "levels = '1' must be a list") for make in (PythonMath, Programs, WordMath)),
        *((make, {"levels": [1, 9]}, "no level 9|No template has the levels") for make in (PythonMath, WordMath)),
        *((make, {"path": 5}, "path = 5 must be a path") for make in (PythonMath, Programs)),
        *((make, {"data_dir": 5}, "data_dir = 5 must be a path") for make in (HumanEval, HumanEvalRepair)),
        *((make, {"sandbox": "bubblewarp"}, "Did you mean 'bubblewrap'") for make in (HumanEval, HumanEvalRepair)),
    ],
)
def test_options_of_a_wrong_kind_are_one_sentence(make: type[TextEnv], options: dict[str, Any], says: str) -> None:
    with pytest.raises((EnvError, SandboxError), match=says):
        make(**options)


def test_a_sandbox_that_cannot_be_had_is_no_observation(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Bubblewrap()
    closed.close()
    for env in (PythonMath(sandbox=closed), Shell(sandbox=closed)):  # type: ignore[arg-type]
        env.reset(options={"index": 0})
        with pytest.raises(InfrastructureError, match="closed"):
            call(env, "1 + 1")


def test_a_session_that_fails_within_an_episode_is_no_observation(bubblewrap: Bubblewrap) -> None:
    for make in (PythonMath, Shell):
        env = make(sandbox="bubblewrap")
        env.reset(options={"index": 0})
        call(env, "1")
        env.session.close()
        with pytest.raises(InfrastructureError, match="closed"):
            call(env, "1")


# --- PythonMath ------------------------------------------------------------------------------------------------------


def test_names_stay_between_calls_and_end_with_the_episode(bubblewrap: Bubblewrap) -> None:
    env = PythonMath(sandbox="bubblewrap")
    env.reset(options={"index": 0})
    assert call(env, "from fractions import Fraction\nx = Fraction(1, 3)") == "[no output]"
    assert call(env, "x + 1") == "Fraction(4, 3)\n"
    assert call(env, "print(1)\nimport os\nos.system('echo 2')\n3") == "1\n2\n3\n"
    env.reset(options={"index": 1})
    assert "NameError" in call(env, "x")
    env.close()


def test_errors_and_endings_are_told_and_the_next_call_finds_an_interpreter(bubblewrap: Bubblewrap) -> None:
    with open_sandbox("bubblewrap") as sandbox, sandbox.open_session(Limits(wall_s=3.0)) as session:
        python = PythonInterpreter(session)
        assert python.run("1 / 0").output.endswith("ZeroDivisionError: division by zero\n")
        assert "SyntaxError" in python.run("1 +").output and "interpreter_runner" not in python.run("f()").output
        assert python.run("x = 1").ok and python.run("x").output == "1\n"
        late = python.run("while True: pass")
        assert not late.ok and "more than 3 s" in late.output and "without the names" in late.output
        assert "NameError" in python.run("x").output
        for code in (
            "import os; os._exit(3)",
            "import os, signal; os.kill(os.getpid(), 9)",
            "import os; os.closerange(0, 99)",
        ):
            ended = python.run(code)
            assert not ended.ok and ended.output, code
            assert python.run("6 * 7").output == "42\n", code
        forged = python.run(
            "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'no answer\\n')\n    except OSError: pass"
        )
        assert forged.ok or "own channel" in forged.output
        assert python.run("6 * 7").output == "42\n"
        assert len(python.run("print('x' * 10**6)").output) < 21_000
        assert python.run("print('\\ud800')").output
        assert python.run("raise SystemExit(3)").output
        python.close()
        python.close()


def test_the_math_verifier_judges_the_answer(bubblewrap: Bubblewrap) -> None:
    env = PythonMath(sandbox="bubblewrap", levels=[3])
    index = next(index for index in range(100) if env.source.task(index).data["problem"] == "series")
    answer = Fraction(env.source.task(index).answer)
    for text, reward in (
        (f"\\boxed{{\\frac{{{answer.numerator}}}{{{answer.denominator}}}}}", 1.0),
        (f"\\boxed{{{answer + 1}}}", 0.0),
        ("", 0.0),
    ):
        env.reset(options={"index": index})
        assert env.step(text)[1] == reward


def test_problems_of_your_own_come_from_a_file(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"problem": "What is 2^10?", "answer": "1024"}\n')
    env = make_env("ludus/PythonMath-v0", path=str(path))
    observation, _ = env.reset(options={"index": 0})
    assert observation == "What is 2^10?" and call(env, "2 ** 10") == "1024\n"
    assert env.step("\\boxed{1024}")[1] == 1.0
    with pytest.raises(EnvError, match="holds no code to demonstrate"):
        env.demonstrate(env.source.task(0), np.random.default_rng(0))


# --- Shell -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(bubblewrap: Bubblewrap) -> Shell:
    return Shell(sandbox="bubblewrap")


def start(env: Shell, files: dict[str, str], expected: dict[str, str]) -> None:
    env.reset(options={"task": Task("own", "Do it.", expected, {"files": files})})


def test_files_decide_and_not_words(shell: Shell) -> None:
    start(shell, {"a": "1\n"}, {"a": "1\n", "b": "2\n"})
    assert shell.step("Done, b holds 2.")[1] == 0.0
    for command, outcome in (
        ("echo 2 > b", Outcome.CORRECT),
        ("printf 2 > b", Outcome.CORRECT),
        ("echo 3 > b", Outcome.WRONG),
        ("echo 2 > b; rm a", Outcome.WRONG),
        ("echo 2 > b; echo x > c", Outcome.WRONG),
        ("echo 2 > b; echo x > .hidden", Outcome.WRONG),
        ("mkdir b", Outcome.WRONG),
        ("mkfifo b", Outcome.WRONG),
        ("ln -s /dev/zero b", Outcome.WRONG),
        ("printf '2\\n\\377' > b", Outcome.WRONG),
        ("echo 2 > b; mkdir empty", Outcome.CORRECT),
    ):
        start(shell, {"a": "1\n"}, {"a": "1\n", "b": "2\n"})
        call(shell, command)
        assert shell.step("Done.")[4]["verdict"].outcome is outcome, command


def test_what_a_command_writes_and_how_it_ends_is_told(shell: Shell) -> None:
    start(shell, {}, {"a": ""})
    assert call(shell, "echo out; echo err >&2; exit 3") == "out\nerr\n[exit code 3]"
    assert call(shell, "true") == "[no output]"
    assert "Signal 9" in call(shell, "kill -9 $$")
    assert call(shell, "yes").endswith("The program wrote more than 1048576 bytes.")
    assert call(shell, "cd /tmp && pwd") == "/tmp" and call(shell, "basename $(pwd)") == "work"


# --- what an agent does to its session is its own affair ------------------------------------------------------------


@pytest.mark.bubblewrap
def test_a_session_that_its_programs_have_ended_is_wrong_and_no_failure(bubblewrap: Bubblewrap) -> None:
    """Nine files in memory, of which the keeper is the victim: the largest process that is left."""
    grab = (
        "import os, time\n"
        "held = [os.memfd_create('x') for _ in range(9)]\n"
        "for fd in held:\n"
        "    for _ in range(60):\n"
        "        os.write(fd, bytes(2**20))\n"
        "time.sleep(5)\n"
    )
    with contextlib.closing(Shell(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        env.step(render_call(env.tools[0], {"command": f'python3 -c "{grab}" & sleep 3; echo on'}, env.dialect))
        *_, terminated, _, info = env.step("Done.")
        assert terminated and info["verdict"].outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_names_that_are_too_long_to_list_are_wrong_and_no_failure(bubblewrap: Bubblewrap) -> None:
    command = "d=$(printf 'x%.0s' $(seq 200)); mkdir $d; cd $d; for i in $(seq 9000); do : > $d$i; done"
    with contextlib.closing(Shell(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        env.step(render_call(env.tools[0], {"command": command}, env.dialect))
        *_, terminated, _, info = env.step("Done.")
        assert terminated and info["verdict"].outcome is Outcome.WRONG
        assert "characters" in info["verdict"].reason or "files" in info["verdict"].reason


@pytest.mark.bubblewrap
def test_all_calls_of_one_message_share_its_time(bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_env, "STEP_S", 1.0)
    with contextlib.closing(Shell(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        call = render_call(env.tools[0], {"command": "sleep 100"}, env.dialect)
        _, _, terminated, _, info = env.step("\n".join([call] * 3))
        said = [message["content"] for message in info["messages"]]
        assert not terminated and "ended after" in said[0] and all("together" in one for one in said[1:])
        *_, info = env.step(render_call(env.tools[0], {"command": "echo on"}, env.dialect))
        assert info["messages"][0]["content"] == "on"


@pytest.mark.parametrize(("make", "name"), [(Shell, "shell"), (RepoRepair, "search")])
def test_an_argument_that_no_program_can_be_given_is_told(
    bubblewrap: Bubblewrap, make: type[SessionEnv], name: str
) -> None:
    with contextlib.closing(make(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        (tool,) = (tool for tool in env.tools if tool.name == name)
        (argument,) = tool.parameters["properties"]
        *_, info = env.step(render_call(tool, {argument: "ledger\0"}, env.dialect))
        assert info["messages"][0]["content"].startswith("Error: argv holds")
        *_, info = env.step(render_call(tool, {argument: "ledger"}, env.dialect))
        assert "ledger" in info["messages"][0]["content"]


def test_large_files_are_wrong_and_hardly_read(bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    read, ask = [], KeeperSession._ask

    def spy(session: KeeperSession, what: str, **request: object) -> object:
        answer = ask(session, what, **request)
        read.append(len(answer.get("data", "")))
        return answer

    monkeypatch.setattr(KeeperSession, "_ask", spy)
    links = "truncate -s 60M ledger/aa.py; for i in $(seq 15); do ln -s aa.py ledger/a$i.py; done"
    with contextlib.closing(RepoRepair(sandbox=bubblewrap)) as env:
        for prepared in (links, "for i in $(seq 9); do head -c 90000 /dev/zero > ledger/a$i.py; done"):
            env.reset(seed=0)
            env.session.exec(["sh", "-c", prepared])
            *_, info = env.step("Done.")
            assert info["verdict"].outcome is Outcome.WRONG and "larger than" in info["verdict"].reason
    with contextlib.closing(Shell(sandbox=bubblewrap)) as shell:
        start(shell, {}, {"b": "2\n"})
        call(shell, "truncate -s 60M b")
        assert shell.step("Done.")[4]["verdict"].outcome is Outcome.WRONG
    assert sum(read) < 10 * 2**20


def test_what_may_hide_files_is_wrong(shell: Shell) -> None:
    for hide in ("mkdir h; echo > h/x; chmod 000 h", "d=$(printf 'x%.0s' $(seq 250)); " + "mkdir $d; cd $d; " * 20):
        start(shell, {}, {"b": "2\n"})
        call(shell, f"echo 2 > b; {hide}")
        verdict = shell.step("Done.")[4]["verdict"]
        assert verdict.outcome is Outcome.WRONG and "cannot be listed" in verdict.reason


@pytest.mark.parametrize("works", [True, False])
def test_a_session_that_answers_no_more_is_wrong_where_another_one_works(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    def broken(sandbox: object) -> None:
        raise SandboxError("The sandbox does not work.")

    mark = f"66.{os.getpid()}"
    with contextlib.closing(Shell(sandbox=bubblewrap)) as env:
        start(env, {}, {"b": "2\n"})
        call(env, f"sleep {mark} > /dev/null 2>&1 &")
        assert gone(lambda: not processes(mark, "sleep"))
        (program,) = processes(mark, "sleep")
        keeper = int(Path("/proc", program, "stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGSTOP)  # from outside; here it stands for what the agent's programs may do
        monkeypatch.setattr(keeper_session, "_ANSWER_S", 0.5)
        monkeypatch.setattr(keeper_session, "_CLOSE_S", 0.5)
        if works:
            assert env.step("Done.")[4]["verdict"].outcome is Outcome.WRONG
        else:
            monkeypatch.setattr(session_env, "shared_sandbox", broken)
            with pytest.raises(InfrastructureError, match="could not list"):
                env.step("Done.")
    assert gone(lambda: processes(mark))


def test_no_call_of_any_kind_takes_more_than_the_time_of_its_message(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(PythonMath(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        assert call(env, "1") == "1\n"
        monkeypatch.setattr(session_env, "STEP_S", 1.0)
        action = render_call(env.tools[0], {"code": "while True: pass"}, env.dialect)
        started = time.monotonic()
        *_, info = env.step("\n".join([action] * 3))
        assert time.monotonic() - started < 5.0
        said = [message["content"] for message in info["messages"]]
        assert "time that was left" in said[0] and all("together" in one for one in said[1:])
    with contextlib.closing(RepoRepair(sandbox=bubblewrap)) as repair:
        repair.reset(seed=0)
        assert repair.read_file("ledger/money.py")
        monkeypatch.setattr(session_env, "STEP_S", 0.0)
        *_, info = repair.step(render_call(repair._read, {"path": "ledger/money.py"}, repair.dialect))
        assert "together" in info["messages"][0]["content"]


def test_a_module_of_the_code_is_found_by_the_code_and_not_by_the_interpreter(bubblewrap: Bubblewrap) -> None:
    with contextlib.closing(PythonMath(sandbox=bubblewrap)) as env:
        env.reset(seed=0)
        write = "for name in ('fcntl', 'tempfile', 'mine'):\n    open(name + '.py', 'w').write('value = 7\\n' * 9)"
        assert call(env, write) == "[no output]"
        assert "ended the interpreter" in call(env, "import os; os._exit(3)")
        assert call(env, "import mine, math\nmine.value + math.gcd(4, 6)") == "9\n"


def test_a_sandbox_that_there_is_not_is_told_when_the_environment_is_made() -> None:
    with pytest.raises(SandboxError, match="Did you mean 'bubblewrap'"):
        make_env("ludus/Shell-v0", sandbox="bubblewarp")

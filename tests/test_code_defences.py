"""Each defence of the code verifier holds some cheat: where it is taken away, a named one passes, or its twin fails.

What is taken away is a piece of the harness' own text, which must stand there exactly once.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cheats import CHEATS, TESTS

from ludus.sandbox import Limits, Result, Sandbox, Session, Status
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.job import Job
from ludus.verifiers import CodeVerifier, Outcome
from ludus.verifiers.code import relay, verifier
from ludus.verifiers.code.plain_values import encode

LIMITS = Limits(wall_s=2, cpu_s=2)
HELD, PASSES, TWIN_FAILS, RAISES = "held", "the cheat passes", "its honest twin fails", "the verifier raises"


@dataclass(frozen=True)
class Change:
    """`old` becomes `new` in a runner, by its name, or in a function, which is put in its place in `owner`."""

    where: str
    old: str
    new: str
    owner: Any = None

    def make(self, patch: pytest.MonkeyPatch, program: str = "") -> None:
        """Make it. program: the cheat's, for a PROGRAM in `new`."""
        new = self.new.replace("PROGRAM", repr(program))
        if self.owner is None:
            source = relay.runner_source
            assert source(self.where).count(self.old) == 1, f"{self.where} has changed; correct this test"
            patch.setattr(
                relay,
                "runner_source",
                lambda name: source(name).replace(self.old, new) if name == self.where else source(name),
            )
            return
        function = getattr(self.owner, self.where)
        text = getattr(function, "text", None) or textwrap.dedent(inspect.getsource(function))
        assert text.count(self.old) == 1, f"{self.where} has changed; correct this test"
        made: dict[str, Any] = {}
        exec(compile(text.replace(self.old, new), self.where, "exec"), function.__globals__, made)  # noqa: S102
        made[self.where].text = text.replace(self.old, new)
        patch.setattr(self.owner, self.where, made[self.where])


OWN_PROCESS = (
    Change("__init__", '{"candidate.py": source}', '{"candidate.py": f"def {entry_point}(): pass"}', relay.Candidate),
    Change(
        "judge_runner",
        'names[tests["entry_point"]] = candidate',
        'exec(PROGRAM, names); globals()["candidate"] = names[tests["entry_point"]]',
    ),
)
PICKLED = (
    Change(
        "plain_values",
        'raise NotPlain(f"a {type(value).__name__} is no plain value")',
        'import pickle; return {"p": pickle.dumps(value).hex()}',
    ),
    Change(
        "plain_values",
        'if sign == "i":',
        'if sign == "p": import pickle; return pickle.loads(bytes.fromhex(body))\n        if sign == "i":',
    ),
)
STATUS = Change("_input_case", "if result.status is not Status.EXITED:", "if False:", CodeVerifier)
EXIT_CODE = Change("_input_case", "if result.exit_code != 0:", "if False:", CodeVerifier)

EXIT_IS_PASS = Change("outcome_of", '"error"}', '"error" if result.exit_code else "passed"}', relay)

HELD_BY: dict[str, tuple[tuple[Change, ...], list[tuple[str, str, str]]]] = {
    "the candidate runs in a process of its own": (
        OWN_PROCESS,
        [
            ("is equal to everything", "check", PASSES),
            ("is an int that is equal to everything", "check", PASSES),
            ("writes the marker to every descriptor", "check", PASSES),
        ],
    ),
    "answers keep a descriptor of their own": (
        (Change("candidate_runner", "os.dup2(2, 1)", ""),),
        [("prints the marker", "cases", TWIN_FAILS), ("prints the marker", "check", TWIN_FAILS)],
    ),
    "standard input is empty": (
        (Change("candidate_runner", "os.dup2(os.open(os.devnull, os.O_RDONLY), 0)", ""),),
        [("reads what it will be asked", "cases", TWIN_FAILS)],
    ),
    "what the tests print is no report": (
        (Change("judge_runner", "os.dup2(2, 1)", ""),),
        [("returns the report", "check", PASSES)],
    ),
    "an error is an exception of Python's own": (
        (Change("judge_runner", "if not (isinstance(kind, type) and issubclass(kind, Exception)):", "if False:"),),
        [("has the judge run its message", "check", PASSES)],
    ),
    "an error that cannot be told is one": (
        (Change("candidate_runner", 'except BaseException:\n        text = ""', "finally:\n        pass"),),
        [("raises what cannot be told", "error", TWIN_FAILS)],
    ),
    "values are plain": (PICKLED, [("is pickled as code", "check", PASSES)]),
    "True is no 1": (
        (Change("same_value", "if isinstance(expected, bool) or isinstance(given, bool):", "if False:", verifier),),
        [("is true where 1 is right", "cases", PASSES)],
    ),
    "a tolerance is finite": (
        (Change("same_value", "math.isfinite(difference) and ", "", verifier),),
        [("is infinitely near", "cases", PASSES)],
    ),
    "an exit code is no answer": (
        (EXIT_IS_PASS,),
        [
            ("ends at once with success", "cases", PASSES),
            ("ends at once with success", "check", PASSES),
            ("ends with success when called", "cases", PASSES),
        ],
    ),
    "a candidate that is lost has failed": (
        (
            Change(
                "call",
                "return self._receive(left_s)",
                "try: return self._receive(left_s)\n    except CandidateLost: return {'error': 'EOFError'}",
                relay.Candidate,
            ),
        ),
        [("ends where an error is asked for", "error", PASSES)],
    ),
    "an answer is JSON": (
        (Change("_receive", "except (ValueError, RecursionError):", "except ZeroDivisionError:", relay.Candidate),),
        [("answers with what is no JSON", "cases", RAISES), ("answers with what is no JSON", "check", RAISES)],
    ),
    "an answer is an object": (
        (Change("_receive", "if not isinstance(reply, dict):", "if False:", relay.Candidate),),
        [("answers with what is no object", "cases", RAISES), ("answers with what is no object", "check", RAISES)],
    ),
    "a value that cannot be read is an error": (
        (Change("returned", "except (NotPlain, RecursionError) as error:", "except OSError as error:", verifier),),
        [("answers with what is no value", "cases", RAISES)],
    ),
    "a call has its time": (
        (Change("call", "self._receive(left_s)", "self._receive(60)", relay.Candidate),),
        [("takes more time than it has", "cases", PASSES)],
    ),
    "all calls of the tests have a time": (
        (Change("run_check", ", deadline - time.monotonic())", ")", verifier),),
        [("takes its time in slices", "check", PASSES)],
    ),
    "the last block counts": (
        (
            Change(
                "find_program",
                'program = "".join(lines) if block in names else program',
                'program = program or "".join(lines)',
                verifier,
            ),
        ),
        [("two programs", "cases", PASSES)],
    ),
    "thoughts do not count": (
        (Change("find_program", 'response.rpartition("</think>")[2]', "response", verifier),),
        [("only thinks of it", "cases", PASSES)],
    ),
    "a program has a length": (
        (Change("_judge", "if len(program) > MAX_CHARS:", "if False:", CodeVerifier),),
        [("longer than anybody reads", "cases", PASSES)],
    ),
    "a program that fails is wrong, whatever it printed": ((EXIT_CODE,), [("prints and fails", "input", PASSES)]),
    "all that is printed counts": (
        (
            Change(
                "_input_case",
                "_lines(result) == _trimmed(case.stdout)",
                "set(_trimmed(case.stdout)) <= set(_lines(result))",
                CodeVerifier,
            ),
        ),
        [("prints every number", "input", PASSES)],
    ),
    "expected output stays outside": (
        (Change("_input_case", "files=files", 'files={**files, "expected": case.stdout}', CodeVerifier),),
        [("prints what lies around", "input", PASSES)],
    ),
}
"""What is changed, and which cheats, on which tests, are then judged how."""
BEHIND: dict[str, tuple[tuple[Change, ...], tuple[Change, ...], str, str]] = {
    "a program that does not end is wrong, whatever it printed": (
        (EXIT_CODE,),
        (STATUS,),
        "prints and never ends",
        "input",
    ),
    "an exit while a call is answered is an error": (
        (EXIT_IS_PASS,),
        (
            Change(
                "candidate_runner",
                "except BaseException as error:\n            reply = told(error)",
                "except Exception as error:\n            reply = told(error)",
            ),
        ),
        "raises SystemExit when called",
        "cases",
    ),
    "an exit while a candidate is loaded is an error": (
        (EXIT_IS_PASS,),
        (
            Change(
                "candidate_runner",
                'except BaseException as error:\n        return answer(stage="load"',
                'except Exception as error:\n        return answer(stage="load"',
            ),
        ),
        "ends with success",
        "check",
    ),
    "no test takes the end of its input for an error": (
        (
            Change(
                "run_check",
                'reply = candidate.call(json.dumps(message["call"]), deadline - time.monotonic())',
                'try: reply = candidate.call(json.dumps(message["call"]), deadline - time.monotonic())\n'
                "            except CandidateLost: judge.end_input(); continue",
                verifier,
            ),
        ),
        (Change("judge_runner", "class Ended(BaseException):", "class Ended(Exception):"),),
        "ends where an error is asked for",
        "error",
    ),
}
"""A second line: the cheat passes only where a first line is taken away, too. (first, second, cheat, form)"""


def judged(sandbox: Sandbox, name: str, form: str) -> str:
    """How a cheat and its twin are judged: HELD, or what went wrong first."""
    judge = CodeVerifier(sandbox, limits=LIMITS)
    try:
        if judge.verify(TESTS[form], CHEATS[name].program).outcome is not Outcome.WRONG:
            return PASSES
        return HELD if judge.verify(TESTS[form], CHEATS[name].honest).outcome is Outcome.CORRECT else TWIN_FAILS
    except Exception:
        return RAISES


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("defence", "name", "form", "then"), [(one, *cheat) for one, (_, cheats) in HELD_BY.items() for cheat in cheats]
)
def test_without_its_defence_a_cheat_is_judged_wrongly(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch, defence: str, name: str, form: str, then: str
) -> None:
    assert judged(bubblewrap, name, form) == HELD
    for change in HELD_BY[defence][0]:
        change.make(monkeypatch, CHEATS[name].program)
    assert judged(bubblewrap, name, form) == then


@pytest.mark.bubblewrap
@pytest.mark.parametrize("defence", BEHIND)
def test_a_second_line_holds_where_the_first_is_taken_away(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch, defence: str
) -> None:
    first, second, name, form = BEHIND[defence]
    for change in first:
        change.make(monkeypatch)
    assert judged(bubblewrap, name, form) == HELD
    for change in second:
        change.make(monkeypatch)
    assert judged(bubblewrap, name, form) == PASSES


# --- expected values stay where the candidate cannot see them ---------------------------------------------------------

TOLD = "args, kwargs = (decode(part) for part in json.loads(line))"
EXPECTED = {tuple(case["args"]): case["expected"] for case in TESTS["cases"]["cases"]}


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("reads the tests from frames", "args, kwargs, expected = (decode(part) for part in json.loads(line))"),
        (
            "reads the tests from memory",
            "case = dict(zip(('args', 'kwargs', 'expected'), map(decode, json.loads(line)))); "
            "args, kwargs = case['args'], case['kwargs']",
        ),
    ],
)
def test_a_candidate_that_is_told_what_is_expected_finds_it(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    assert judged(bubblewrap, name, "cases") == HELD
    Change("candidate_runner", TOLD, told).make(monkeypatch)
    monkeypatch.setattr(
        verifier, "request_of", lambda args, kwargs: json.dumps([encode(args), encode(kwargs), encode(EXPECTED[args])])
    )
    assert judged(bubblewrap, name, "cases") == PASSES


class OneRoom(Sandbox):
    """Starts all programs in one session: a judge beside its candidate."""

    name, limits, isolates = "one room", LIMITS, True

    def __init__(self, around: Sandbox) -> None:
        self._stack = ExitStack()
        self._session: Session = self._stack.enter_context(around.open_session(LIMITS.but(wall_s=30)))

    def execute(self, job: Job) -> Result:
        for path, content in job.files.items():
            self._session.write_file(path, content)
        return self._session.execute(replace(job, files={}))

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def one_room(bubblewrap: Bubblewrap) -> Iterator[OneRoom]:
    with OneRoom(bubblewrap) as sandbox:
        yield sandbox


@pytest.mark.bubblewrap
def test_a_candidate_that_shares_a_sandbox_with_the_tests_reads_them(bubblewrap: Bubblewrap, one_room: OneRoom) -> None:
    assert judged(bubblewrap, "reads the tests from disk", "check") == HELD
    assert judged(one_room, "reads the tests from disk", "check") == PASSES


@pytest.mark.bubblewrap
def test_a_candidate_that_shares_a_sandbox_with_the_tests_reads_their_command_line(
    bubblewrap: Bubblewrap, one_room: OneRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "reads the tests of other processes"
    Change("run_check", 'import judge_runner"', 'import judge_runner  # " + tests', verifier).make(monkeypatch)
    assert judged(bubblewrap, name, "check") == HELD
    assert judged(one_room, name, "check") == PASSES


# --- a sandbox that fails --------------------------------------------------------------------------------------------


class Failing(Sandbox):
    """A sandbox that fails as long as `fails` says so of a job."""

    name, limits, isolates = "failing", LIMITS, True

    def __init__(self, around: Sandbox, fails: Callable[[Job], bool]) -> None:
        self._around, self._fails = around, fails

    def execute(self, job: Job) -> Result:
        if self._fails(job):
            return Result(Status.FAILED, None, "", "", reason="The machine is gone.")
        return self._around.execute(job)

    def close(self) -> None:
        pass


@pytest.mark.bubblewrap
def test_a_sandbox_that_fails_is_asked_again(bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict() -> Outcome:
        left = iter([True])
        sandbox = Failing(bubblewrap, lambda job: next(left, False))
        return CodeVerifier(sandbox, limits=LIMITS).verify(TESTS["input"], CHEATS["prints and fails"].honest).outcome

    assert verdict() is Outcome.CORRECT
    monkeypatch.setattr(verifier, "_RETRIES", 0)
    assert verdict() is not Outcome.CORRECT


@pytest.mark.bubblewrap
def test_a_program_that_brings_its_sandbox_down_does_not_get_away_without_a_verdict(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = CodeVerifier(Failing(bubblewrap, lambda job: "main.py" in job.files), limits=LIMITS)
    assert judge.verify(TESTS["input"], "bomb").outcome is Outcome.WRONG
    known_good = 'sandbox.run(["python3", "-c", "print(6 * 7)"], limits=self.limits).stdout == "42\\n"'
    Change("_works", known_good, "False", CodeVerifier).make(monkeypatch)
    assert judge.verify(TESTS["input"], "bomb").outcome is Outcome.ERROR


@pytest.mark.bubblewrap
def test_a_sandbox_that_does_not_work_is_no_wrong_answer(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = CodeVerifier(Failing(bubblewrap, lambda job: True), limits=LIMITS)
    honest = CHEATS["prints and fails"].honest
    assert judge.verify(TESTS["input"], honest).outcome is Outcome.ERROR
    Change("outcome_of", 'Status.FAILED: "failed"', 'Status.FAILED: "error"', verifier).make(monkeypatch)
    assert judge.verify(TESTS["input"], honest).outcome is Outcome.WRONG


# --- not held yet ----------------------------------------------------------------------------------------------------

MAPS = {
    "entry_point": "add",
    "check": "def check(candidate):\n    assert all(map(lambda row: candidate(*row[:2]) == row[2], [(1, 2, 3)]))",
}


@pytest.mark.bubblewrap
def test_an_error_of_the_candidate_does_not_end_the_loops_of_the_tests(bubblewrap: Bubblewrap) -> None:
    judge = CodeVerifier(bubblewrap, limits=LIMITS)
    assert judge.verify(MAPS, "def add(a, b): return a + b").outcome is Outcome.CORRECT
    assert judge.verify(MAPS, "def add(a, b): raise StopIteration").outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_a_very_large_number_is_a_wrong_answer(bubblewrap: Bubblewrap) -> None:
    judge = CodeVerifier(bubblewrap, limits=LIMITS)
    assert judge.verify(TESTS["cases"], "def add(a, b): return 10**5000").outcome is Outcome.WRONG

"""Programs are judged by what they do: no cheat passes, its honest twin does, and every way to fail is told apart."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cheats import CHEATS, RIGHT, TESTS
from hypothesis import given
from hypothesis import strategies as st

from ludus.sandbox import Limits, Result, Sandbox, SandboxError, Status
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.job import Job
from ludus.verifiers import CodeVerifier, Outcome, VerifierError
from ludus.verifiers.code import verifier as code_verifier
from ludus.verifiers.code.compare_values import same_value
from ludus.verifiers.code.languages import LANGUAGES
from ludus.verifiers.code.plain_values import NotPlain, decode, encode
from ludus.verifiers.code.program import find_program

NEGATIVE_IS_REFUSED = """
def check(candidate):
    try:
        candidate(-1)
    except ValueError:
        return
    assert False
"""
SAME_VALUES = r"""
VALUES = [None, True, 0, -2**70, 0.1, float("inf"), 1j, "né\ud800", b"\xff", [1, (2,)], {3}, {(1, 2): {"a": []}}]


def check(candidate):
    for value in VALUES:
        assert candidate(value) == value, value
"""
DOUBLE = {"cases": [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in range(4)]}


@pytest.fixture(scope="module")
def verifier(bubblewrap: Bubblewrap) -> CodeVerifier:
    return CodeVerifier(bubblewrap, limits=Limits(wall_s=2, cpu_s=2))


# --- cheats ----------------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.parametrize(("name", "form"), [(name, form) for name, cheat in CHEATS.items() for form in cheat.forms])
def test_no_cheat_passes_and_its_honest_twin_does(verifier: CodeVerifier, name: str, form: str) -> None:
    assert verifier.verify(TESTS[form], CHEATS[name].program).outcome is Outcome.WRONG
    assert verifier.verify(TESTS[form], CHEATS[name].honest).outcome is Outcome.CORRECT


# --- HumanEval -------------------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_all_solutions_of_humaneval_pass_and_no_stub_does(bubblewrap: Bubblewrap, shared_data: Path) -> None:
    with gzip.open(shared_data / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    verifier = CodeVerifier(bubblewrap)

    def outcomes(solution: Any) -> list[Outcome]:
        def judge(row: dict[str, str]) -> Outcome:
            gold = {"entry_point": row["entry_point"], "check": row["test"], "prefix": row["prompt"]}
            return verifier.verify(gold, solution(row)).outcome

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(judge, rows))

    assert outcomes(lambda row: row["canonical_solution"]) == [Outcome.CORRECT] * 164
    assert outcomes(lambda row: "    pass\n") == [Outcome.WRONG] * 164


# --- how programs fail -----------------------------------------------------------------------------------------------


@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("print(2 * int(input()))", "passed"),
        ("print(3 * int(input()) + 1)", "wrong"),
        ("print(2 * int(input())", "compile"),
        ("raise ValueError('no')", "error"),
        ("while True: pass", "timeout"),
        ("while True: print('x' * 1000)", "output"),
        ("import os; os.abort()", "killed"),
    ],
)
def test_the_ways_to_fail_are_told_apart(verifier: CodeVerifier, program: str, kind: str) -> None:
    verdict = verifier.verify(DOUBLE, f"Here it is:\n```python\n{program}\n```\n")
    assert verdict.evidence["outcomes"][-1]["kind"] == kind
    assert verdict.outcome is (Outcome.CORRECT if kind == "passed" else Outcome.WRONG)


@pytest.mark.bubblewrap
def test_a_program_that_takes_all_memory_has_an_error_and_not_too_little_time(bubblewrap: Bubblewrap) -> None:
    little = CodeVerifier(bubblewrap, limits=Limits(wall_s=10, cpu_s=10, memory_bytes=128 * 2**20))
    verdict = little.verify(DOUBLE, "```python\nx = [0]\nwhile True: x += x\n```\n")
    assert verdict.evidence["outcomes"][-1]["kind"] == "error"
    assert verdict.outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_shares_and_groups_of_cases_are_partial_credit(bubblewrap: Bubblewrap) -> None:
    cases = [{"args": [n], "expected": n * n, "group": "small" if n < 3 else "large"} for n in range(4)]
    gold = {"entry_point": "square", "cases": cases}
    program = "def square(n):\n    if n == 3: raise OverflowError\n    return n * n"
    share = CodeVerifier(bubblewrap, scoring="share").verify(gold, program)
    groups = CodeVerifier(bubblewrap, scoring="groups").verify(gold, program)
    assert (share.outcome, share.value) == (Outcome.PARTIAL, 0.75)
    assert (groups.value, groups.evidence["groups"]) == (0.5, {"small": True, "large": False})
    assert CodeVerifier(bubblewrap).verify(gold, program).outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_a_candidate_that_is_lost_is_started_anew_for_the_next_case(bubblewrap: Bubblewrap) -> None:
    cases = [{"args": [n], "expected": n} for n in range(3)]
    program = "import os\ndef same(n):\n    if n == 1: os._exit(0)\n    return n"
    verdict = CodeVerifier(bubblewrap, scoring="share").verify({"entry_point": "same", "cases": cases}, program)
    assert [outcome["kind"] for outcome in verdict.evidence["outcomes"]] == ["passed", "error", "passed"]


@pytest.mark.bubblewrap
def test_a_completion_is_put_behind_the_prompt_that_it_completes(verifier: CodeVerifier) -> None:
    gold = {**TESTS["cases"], "prefix": 'def add(a, b):\n    """The sum."""\n'}
    assert verifier.verify(gold, "    return a + b\n").outcome is Outcome.CORRECT
    assert verifier.verify(gold, RIGHT).outcome is Outcome.CORRECT


@pytest.mark.bubblewrap
def test_an_exception_that_the_tests_ask_for_reaches_them(verifier: CodeVerifier) -> None:
    gold = {"entry_point": "root", "check": NEGATIVE_IS_REFUSED}
    assert verifier.verify(gold, "def root(n):\n    raise ValueError('negative')").outcome is Outcome.CORRECT
    assert verifier.verify(gold, "def root(n):\n    raise TypeError").outcome is Outcome.WRONG
    assert verifier.verify(gold, "import os\ndef root(n):\n    os._exit(0)").outcome is Outcome.WRONG


@pytest.mark.bubblewrap
def test_values_of_every_plain_kind_pass_both_ways(verifier: CodeVerifier) -> None:
    gold = {"entry_point": "same", "check": SAME_VALUES}
    assert verifier.verify(gold, "def same(value):\n    return value").outcome is Outcome.CORRECT


# --- the sandbox fails -----------------------------------------------------------------------------------------------


class Failing(Sandbox):
    """A sandbox that fails for programs that hold a word, or for all."""

    name, limits, isolates = "failing", Limits(), True

    def __init__(self, word: str) -> None:
        self.word, self.asked = word, 0

    def execute(self, job: Job) -> Result:
        self.asked += 1
        if self.word in f"{job.files}{job.argv}":
            return Result(Status.FAILED, None, "", "", reason="The machine is gone.")
        return Result(Status.EXITED, 0, "42\n", "")

    def close(self) -> None:
        pass


def test_a_sandbox_that_fails_is_an_error_and_never_a_reward() -> None:
    sandbox = Failing("")
    verdict = CodeVerifier(sandbox).verify(DOUBLE, "print(1)")
    assert (verdict.outcome, verdict.value) == (Outcome.ERROR, None)
    assert sandbox.asked == 3  # twice the program, once a known good one


def test_a_program_that_twice_brings_down_a_sandbox_that_works_is_wrong() -> None:
    verdict = CodeVerifier(Failing("bomb")).verify(DOUBLE, "bomb")
    assert (verdict.outcome, verdict.evidence) == (Outcome.WRONG, {"resource": True})


class Gone(Sandbox):
    """A sandbox that cannot begin anything any more, from the n-th program on."""

    name, limits, isolates = "gone", Limits(), True

    def __init__(self, begins: int = 0) -> None:
        self.begins = begins

    def execute(self, job: Job) -> Result:
        self.begins -= 1
        if self.begins < 0:
            raise SandboxError("No sandbox server answers; start one.")
        return Result(Status.FAILED, None, "", "", reason="The machine is gone.")

    def close(self) -> None:
        pass


@pytest.mark.parametrize("gold", [*TESTS.values(), {**DOUBLE, "language": "cpp"}])
@pytest.mark.parametrize("begins", [0, 1, 2])
def test_a_sandbox_that_is_gone_is_an_error_and_never_a_reward(gold: Any, begins: int) -> None:
    verdict = CodeVerifier(Gone(begins)).verify(gold, RIGHT)
    assert verdict.outcome is Outcome.ERROR and verdict.reason.startswith("The sandbox does not work: "), verdict


def test_asking_again_has_only_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Failing):
        def execute(self, job: Job) -> Result:
            time.sleep(0.3)
            return super().execute(job)

    monkeypatch.setattr(code_verifier, "VERDICT_S", 0.2)
    sandbox = Late("bomb")
    assert CodeVerifier(sandbox).verify(DOUBLE, "bomb").outcome is Outcome.ERROR
    assert sandbox.asked == 1


@pytest.mark.bubblewrap
def test_compiling_has_its_share_of_the_time_of_a_verdict(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_verifier, "VERDICT_S", 0.5)
    judge = CodeVerifier(bubblewrap)
    judge._seen_working.add("cpp")
    monkeypatch.setitem(LANGUAGES, "cpp", replace(LANGUAGES["cpp"], compile=("sleep", "6")))
    started = time.monotonic()
    assert judge.verify({**DOUBLE, "language": "cpp"}, "int main() {}").outcome is Outcome.WRONG
    assert time.monotonic() - started < 5


# --- tests that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gold",
    [
        "print(1)",
        {},
        {"cases": []},
        {"cases": [{"stdin": "1"}]},
        {"cases": [{"args": [1], "expected": 2}]},
        {"entry_point": "a b", "cases": [{"args": [1], "expected": 2}]},
        {"entry_point": "f", "check": "assert f(1) == 2"},
        {"check": "def check(candidate): pass"},
        {"entry_point": "f", "check": "def check(candidate): pass", "cases": []},
        {"entry_point": "class", "cases": [{"args": [1], "expected": 2}]},
        {5: 1, "cases": []},
        {"cases": 10**5000},
        {"entry_point": "f", "check": "def check(candidate): pass", "prefix": "x ="},
        {"entry_point": "f", "check": "'def check(candidate)'"},
        {"entry_point": "f", "check": "def other(): \n    def check(candidate): pass"},
        {"entry_point": "f", "check": "class check(list): pass"},
        {"entry_point": "f", "check": "def check(): pass"},
        {"entry_point": "f", "check": "async def check(candidate): pass"},
        {"entry_point": "f", "check": "def check(candidate): yield candidate(1)"},
        {"entry_point": "f", "check": "def check(candidate): " + "-" * 100_000 + "1"},
        {"cases": [{"stdin": "\ud800", "stdout": "1"}]},
        {"entry_point": "f", "cases": [{"args": [1], "expected": 2, "tolerence": 1}]},
    ],
)
def test_tests_that_are_none_are_the_tasks_fault(gold: Any) -> None:
    with pytest.raises(VerifierError, match="correct the task"):
        CodeVerifier(Failing("x")).verify(gold, RIGHT)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(VerifierError, match="scoring"):
        CodeVerifier(scoring="most")  # type: ignore[arg-type]
    with pytest.raises(VerifierError, match="limits"):
        CodeVerifier(limits=5)  # type: ignore[arg-type]
    with pytest.raises(VerifierError, match="sandbox"):
        CodeVerifier(5)  # type: ignore[arg-type]


def test_a_verifier_by_the_name_of_its_sandbox_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(CodeVerifier("bubblewrap"))).scoring == "all"


def test_a_response_without_a_program_is_wrong() -> None:
    assert CodeVerifier(Failing("x")).verify(DOUBLE, "```python\n\n```").outcome is Outcome.WRONG


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```\nor\n```py\nb\n```\n", "b\n"),
        ("```\na\n```\n```bash\npip install x\n```", "a\n"),
        ("a = 1", "a = 1"),
        ("<think>```python\na\n```</think>b", "b"),
        ("Look:\n```python\na", "a"),
        ("```json\n" * 200_001, "```json\n" * 200_001),  # in time
        ("```\na\n```\nSo:\n```json\n{}", "a\n"),
    ],
)
def test_the_last_block_of_python_is_the_program(response: str, program: str) -> None:
    assert find_program(response) == program


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_a_plain_value_survives_json(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value and type(back) is type(value) and same_value(value, back)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=1), inner),
    )
)
def test_any_json_is_decoded_to_pythons_own_types_or_refused(data: Any) -> None:
    try:
        value = decode(data)
    except NotPlain:
        return
    assert type(value).__module__ == "builtins"


@pytest.mark.parametrize(
    ("expected", "given_", "tolerance", "same"),
    [
        (1, 1.0, 0, True),
        (1, True, 0, False),
        ([1, 2], (1, 2), 0, True),
        ([1, 2], [1, 2, 3], 0, False),
        (0.3, 0.1 + 0.2, 0, False),
        (0.3, 0.1 + 0.2, 1e-9, True),
        (1e300, 1e300 + 1e290, 1e-9, True),
        (10, 11, 1.0, False),
        (float("inf"), 1e308, 1e-6, False),
        (float("nan"), float("nan"), 0, True),
        ({"a": [1.0]}, {"a": [1.0 + 1e-12]}, 1e-9, True),
        ({"a": 1}, {"b": 1}, 0, False),
        ("1", 1, 0, False),
        ({1, 2}, frozenset({1, 2}), 0, False),
        ({1, 2}, {2, 1.0}, 0, True),
        ({1}, {True}, 0, False),
        ({(0, "a")}, {(False, "a")}, 0, False),
        ({frozenset({1})}, {frozenset({True})}, 0, False),
        ({1: "a"}, {True: "a"}, 0, False),
    ],
)
def test_values_are_compared_with_a_tolerance(expected: Any, given_: Any, tolerance: float, same: bool) -> None:
    assert same_value(expected, given_, tolerance) is same


@pytest.mark.bubblewrap
@pytest.mark.parametrize("page", ["code.md", "sandbox.md"])
def test_the_example_in_the_documentation_prints_what_it_says(
    bubblewrap: Bubblewrap, repository: Path, capsys: pytest.CaptureFixture[str], page: str
) -> None:
    example = re.search(r"```python\n(.*?)^```\n", (repository / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    assert example is not None
    exec(example[1], {})  # noqa: S102
    said = [line.partition("  # ")[2] for line in example[1].splitlines() if "print(" in line and "  # " in line]
    assert capsys.readouterr().out.split() == " ".join(said).split() and said


def test_runners_need_nothing_but_their_own_files() -> None:
    """They run under whatever Python a sandbox has, without Ludus."""
    folder = Path(sys.modules["ludus.verifiers.code.plain_values"].__file__ or "").parent
    for name in ("candidate_runner", "judge_runner", "plain_values"):
        source = (folder / f"{name}.py").read_text()
        assert "ludus" not in source.replace("Ludus", "") and "from ." not in source


@pytest.mark.bubblewrap
def test_a_candidate_that_reads_nothing_is_waited_for_no_longer_than_a_call(bubblewrap: Bubblewrap) -> None:
    lazy = 'print(\'{"stage": "ready"}\', flush=True)\nimport time\ntime.sleep(60)'
    gold = {"entry_point": "f", "cases": [{"args": ["x" * 2_000_000], "expected": 1}]}
    started = time.monotonic()
    judge = CodeVerifier(bubblewrap, limits=Limits(wall_s=0.5, cpu_s=2))
    assert judge.verify(gold, lazy).outcome is Outcome.WRONG
    assert time.monotonic() - started < 30


@pytest.mark.bubblewrap
def test_all_cases_of_a_response_share_the_time_of_a_verdict(
    bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_verifier, "VERDICT_S", 0.5)
    cases = [{"stdin": "", "stdout": "on"}] * 5
    judge = CodeVerifier(bubblewrap, limits=Limits(wall_s=2, cpu_s=2), scoring="share")
    verdict = judge.verify({"cases": cases}, "import time\ntime.sleep(0.4)\nprint('on')")
    assert 0 < verdict.value < 1


@pytest.mark.parametrize(
    ("gold", "says"),
    [
        ({"args": 5, "expected": 1}, "a list of args"),
        ({"args": "ab", "expected": 1}, "a list of args"),
        ({"args": [], "kwargs": [1], "expected": 1}, "an object of kwargs"),
        ({"args": [], "tolerance": "x", "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "tolerance": float("inf"), "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "tolerance": float("nan"), "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "tolerance": -1, "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "tolerance": 10**400, "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "tolerance": 10**5000, "expected": 1}, "must be a number, 0 or more"),
        ({"args": [], "kwargs": {1: 2}, "expected": 1}, "an object of kwargs"),
        ({"args": [], "expected": dict.fromkeys(range(10_001))}, "cannot be sent to a program"),
        ({"args": [object()], "expected": 1}, "cannot be sent to a program"),
        ({"args": [], "expected": object()}, "cannot be sent to a program"),
    ],
)
def test_a_case_that_makes_no_sense_is_the_task_s_fault(gold: dict[str, Any], says: str) -> None:
    with pytest.raises(VerifierError, match=says):
        CodeVerifier("plain").verify({"entry_point": "f", "cases": [gold]}, "def f(): return 1")


@pytest.mark.bubblewrap
def test_expected_values_are_what_a_candidate_can_return(verifier: CodeVerifier) -> None:
    class Name(str):
        """As numpy's texts are."""

    for expected, program in ((bytearray(b"on"), "return bytearray(b'on')"), ([Name("on")], "return ['on']")):
        gold = {"entry_point": "f", "cases": [{"args": [], "expected": expected}]}
        assert verifier.verify(gold, f"def f(): {program}").outcome is Outcome.CORRECT


@pytest.mark.parametrize("response", [None, b"print(1)", ["print(1)"]])
def test_a_response_that_is_no_text_is_told(response: Any) -> None:
    for verify in (CodeVerifier("plain").verify, CodeVerifier("plain").verify_program):
        with pytest.raises(VerifierError, match="must be text"):
            verify(DOUBLE, response)


def test_a_check_that_is_no_python_is_the_task_s_fault() -> None:
    with pytest.raises(VerifierError, match="The tests' check is no Python"):
        CodeVerifier("plain").verify({"entry_point": "f", "check": "def check(candidate): assert ("}, "def f(): 1")


@pytest.mark.bubblewrap
def test_the_last_call_of_a_check_has_the_time_that_is_left(bubblewrap: Bubblewrap) -> None:
    check = "def check(candidate):\n    for s in (0.1, 0.8, 0.9):\n        candidate(s)"
    program = "import time\ndef nap(s):\n    time.sleep(s)"
    judge = CodeVerifier(bubblewrap, limits=Limits(wall_s=1, cpu_s=1))
    assert judge.verify({"entry_point": "nap", "check": check}, program).outcome is Outcome.WRONG

"""Programs are judged by what they do: no cheat passes, its honest twin does, and every way to fail is told apart."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cheats import CHEATS, RIGHT
from hypothesis import given
from hypothesis import strategies as st

from ludus.sandbox import Limits, Result, Status
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.verifiers import CodeVerifier, Outcome, VerifierError
from ludus.verifiers.code.compare_values import same_value
from ludus.verifiers.code.plain_values import NotPlain, decode, encode
from ludus.verifiers.code.program import find_program

CALLS = [(1, 2, 3), (-1, 5, 4), (10**20, 1, 10**20 + 1)]
ADD_CASES = {"entry_point": "add", "cases": [{"args": [a, b], "expected": c} for a, b, c in CALLS]}
ADD_CHECK = {
    "entry_point": "add",
    "check": "def check(candidate):\n" + "".join(f"    assert candidate({a}, {b}) == {c}\n" for a, b, c in CALLS),
}
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
@pytest.mark.parametrize("gold", [ADD_CASES, ADD_CHECK], ids=["cases", "check"])
@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_passes_and_its_honest_twin_does(verifier: CodeVerifier, name: str, gold: dict[str, Any]) -> None:
    cheat, honest = CHEATS[name]
    assert verifier.verify(gold, cheat).outcome is Outcome.WRONG
    assert verifier.verify(gold, honest).outcome is Outcome.CORRECT


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
        ("x = [0]\nwhile True: x += x", "error"),
        ("while True: print('x' * 1000)", "output"),
        ("import os; os.abort()", "killed"),
    ],
)
def test_the_ways_to_fail_are_told_apart(verifier: CodeVerifier, program: str, kind: str) -> None:
    verdict = verifier.verify(DOUBLE, f"Here it is:\n```python\n{program}\n```\n")
    assert verdict.evidence["outcomes"][-1]["kind"] == kind
    assert verdict.outcome is (Outcome.CORRECT if kind == "passed" else Outcome.WRONG)


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
    gold = {**ADD_CASES, "prefix": 'def add(a, b):\n    """The sum."""\n'}
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


class Failing:
    """A sandbox that fails for programs that hold a word, or for all."""

    name, limits, isolates = "failing", Limits(), True

    def __init__(self, word: str) -> None:
        self.word, self.asked = word, 0

    def run(self, argv, *, stdin=b"", files=None, limits=None, cancellation=None) -> Result:
        self.asked += 1
        if self.word in str(files) + str(argv):
            return Result(Status.FAILED, None, "", "", reason="The machine is gone.")
        return Result(Status.EXITED, 0, "42\n", "")

    def start(self, argv, *, files=None, limits=None):
        raise NotImplementedError

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

"""CodeVerifier: does a program do what its tests ask for?

Invariant: expected values stay in this process or in the judge's sandbox, and what comes from the candidate is data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, get_args

from ...sandbox.choose import open_sandbox
from ...sandbox.limits import Limits
from ...sandbox.protocol import Sandbox
from ...sandbox.result import Result, Status
from ..errors import VerifierError
from ..verdict import Verdict
from .code_tests import CallCase, CheckFunction, CodeTests, InputCase, read_tests
from .compare_values import same_value
from .program import MAX_CHARS, defines, find_program
from .relay import Candidate, CandidateLost, CaseOutcome, outcome_of, request_of, returned, run_check

Scoring = Literal["all", "share", "groups"]
"""all: CORRECT where every case passes, else WRONG. share: the share of cases that pass. groups: the share of groups
all of whose cases pass."""

LIMITS = Limits(wall_s=5.0, cpu_s=5.0)
"""Of each case."""
_SHOWN = 20
"""Cases that the evidence shows."""
_BROKEN_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_RETRIES = 1


class CodeVerifier:
    """Runs the program in a response, in a sandbox, against the tests of its task.

    sandbox: a name for `open_sandbox`, opened at the first use and shared, or an open one. limits: of each case.
    scoring: see `Scoring`. gold is plain data, see `code_tests.read_tests`: cases of standard input and output, cases
    of calls with expected values, or a function `check(candidate)`.
    """

    def __init__(self, sandbox: str | Sandbox = "auto", *, limits: Limits = LIMITS, scoring: Scoring = "all") -> None:
        if scoring not in get_args(Scoring):
            raise VerifierError(f"scoring = {scoring!r} is unknown; choose one of {', '.join(get_args(Scoring))}.")
        if not isinstance(limits, Limits):
            raise VerifierError(f"limits = {limits!r:.100} must be Limits, such as Limits(wall_s=5).")
        if not isinstance(sandbox, str | Sandbox):
            raise VerifierError(f"sandbox = {sandbox!r:.100} must be a name, such as 'auto', or an open sandbox.")
        self._sandbox = sandbox
        self.limits = limits
        self.scoring: Scoring = scoring

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT, WRONG or PARTIAL; the evidence has what came of each case. ERROR where the sandbox failed.

        Raises VerifierError where gold holds no tests, and SandboxError where no sandbox can be opened.
        """
        tests = read_tests(gold)
        program = find_program(response)
        if not program.strip():
            return Verdict.wrong("The response holds no program.")
        if len(program) > MAX_CHARS:
            return Verdict.wrong(f"The program has more than {MAX_CHARS} characters.")
        if tests.entry_point and tests.prefix and not defines(program, tests.entry_point):
            program = tests.prefix + program
        sandbox = _opened(self._sandbox)
        for _ in range(_RETRIES + 1):
            outcomes = self._outcomes(sandbox, tests, program)
            if not any(outcome.kind == "failed" for outcome in outcomes):
                return self._verdict(tests, outcomes)
        failed = next(outcome for outcome in outcomes if outcome.kind == "failed")
        if sandbox.run(["python3", "-c", "print(6 * 7)"], limits=self.limits).stdout == "42\n":
            return Verdict.wrong(f"The program brought its sandbox down twice: {failed.message}", resource=True)
        return Verdict.error(f"The sandbox does not work: {failed.message}")

    def _outcomes(self, sandbox: Sandbox, tests: CodeTests, program: str) -> list[CaseOutcome]:
        if isinstance(tests.cases[0], InputCase):
            return self._in_order(tests, lambda case: self._input_case(sandbox, program, case))
        if isinstance(tests.cases[0], CheckFunction):
            check = tests.cases[0]
            try:
                candidate = Candidate(sandbox, program, tests.entry_point, self.limits, calls=1)
            except CandidateLost as lost:
                return [lost.outcome]
            try:
                return [run_check(sandbox, candidate, check.source, check.prefix, tests.entry_point, self.limits)]
            except CandidateLost as lost:
                return [lost.outcome]
            finally:
                candidate.close()
        with _Calls(sandbox, program, tests, self.limits) as calls:
            return self._in_order(tests, calls.outcome)

    def _in_order(self, tests: CodeTests, judge: Callable[[Any], CaseOutcome]) -> list[CaseOutcome]:
        """The outcomes of the cases; up to the first that fails where all must pass."""
        outcomes = []
        for case in tests.cases:
            outcomes.append(judge(case))
            if outcomes[-1].kind in ("compile", "failed") or (self.scoring == "all" and outcomes[-1].kind != "passed"):
                break
        return outcomes

    def _input_case(self, sandbox: Sandbox, program: str, case: InputCase) -> CaseOutcome:
        result = sandbox.run(["python3", "main.py"], stdin=case.stdin, files={"main.py": program}, limits=self.limits)
        if result.status is not Status.EXITED:
            return outcome_of(result)
        if result.exit_code != 0:
            last = (result.stderr.strip().splitlines() or [f"exit code {result.exit_code}"])[-1][:500]
            return CaseOutcome("compile" if last.startswith(_BROKEN_SYNTAX) else "error", last)
        if _lines(result) == _trimmed(case.stdout):
            return CaseOutcome("passed")
        return CaseOutcome("wrong", f"It printed {result.stdout[:200]!r}.")

    def _verdict(self, tests: CodeTests, outcomes: list[CaseOutcome]) -> Verdict:
        passed = sum(outcome.kind == "passed" for outcome in outcomes)
        total = len(tests.cases)
        shown = [{"kind": outcome.kind, "message": outcome.message} for outcome in outcomes[:_SHOWN]]
        evidence = {"passed": passed, "cases": total, "outcomes": shown}
        if passed == total:
            return Verdict.correct(f"All {total} tests pass." if total > 1 else "The tests pass.", **evidence)
        worst = next(outcome for outcome in outcomes if outcome.kind != "passed")
        reason = f"A test fails ({worst.kind}): {worst.message}"[:600]
        if self.scoring == "all" or passed == 0:
            return Verdict.wrong(reason, **evidence)
        if self.scoring == "share":
            return Verdict.partial(passed / total, reason, **evidence)
        groups: dict[str, bool] = {}
        for number, case in enumerate(tests.cases):
            right = number < len(outcomes) and outcomes[number].kind == "passed"
            group = getattr(case, "group", "")
            groups[group] = groups.get(group, True) and right
        share = sum(groups.values()) / len(groups)
        evidence["groups"] = groups
        return Verdict.partial(share, reason, **evidence) if share else Verdict.wrong(reason, **evidence)


class _Calls:
    """Calls of one candidate, which is started anew where it was lost."""

    def __init__(self, sandbox: Sandbox, program: str, tests: CodeTests, limits: Limits) -> None:
        self._start = lambda: Candidate(sandbox, program, tests.entry_point, limits, len(tests.cases))
        self._candidate: Candidate | None = None

    def __enter__(self) -> _Calls:
        return self

    def __exit__(self, *_: object) -> None:
        if self._candidate is not None:
            self._candidate.close()

    def outcome(self, case: CallCase) -> CaseOutcome:
        """What came of one call."""
        try:
            self._candidate = self._candidate or self._start()
            reply = self._candidate.call(request_of(case.args, case.kwargs))
        except CandidateLost as lost:
            self._candidate = None
            return lost.outcome
        try:
            value = returned(reply)
        except CandidateLost as lost:
            return lost.outcome
        if same_value(case.expected, value, case.tolerance):
            return CaseOutcome("passed")
        return CaseOutcome("wrong", f"It returned {value!r:.200}.")


def _lines(result: Result) -> list[str]:
    return _trimmed(result.stdout)


def _trimmed(text: str) -> list[str]:
    """Lines without the white space at their ends, and without empty ones at the end of all."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


_shared: dict[str, Sandbox] = {}
_lock = threading.Lock()


def _opened(sandbox: str | Sandbox) -> Sandbox:
    """An open sandbox; of each name there is one in this process."""
    if not isinstance(sandbox, str):
        return sandbox
    with _lock:
        if sandbox not in _shared:
            _shared[sandbox] = open_sandbox(sandbox)
        return _shared[sandbox]

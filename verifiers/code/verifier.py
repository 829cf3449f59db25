"""CodeVerifier: does a program do what its tests ask for?

Invariant: expected values stay in this process or in the judge's sandbox, and what comes from the candidate is data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from ...sandbox.backend import Sandbox
from ...sandbox.choose import shared_sandbox
from ...sandbox.errors import SandboxError
from ...sandbox.limits import Limits
from ...sandbox.result import Result, Status
from ..errors import VerifierError
from ..verdict import Outcome, Verdict
from .code_tests import CallCase, CheckFunction, CodeTests, InputCase, read_tests, shown
from .compare_values import same_value
from .languages import LANGUAGES, Language, complaint, make_program
from .program import MAX_CHARS, defines, find_program
from .relay import Candidate, CandidateLost, CaseOutcome, outcome_of, request_of, returned, run_check

Scoring = Literal["all", "share", "groups"]
"""all: CORRECT where every case passes, else WRONG. share: the share of cases that pass. groups: the share of groups
all of whose cases pass."""

LIMITS = Limits(wall_s=5.0, cpu_s=5.0)
"""Of each case."""
VERDICT_S = 40.0
"""Time to compile a response and for all of its cases together, asking a sandbox again included; what comes later
fails. A verdict must not last as long as a step may."""
_SHOWN = 20
"""Cases that the evidence shows."""
_RETRIES = 1


class CodeVerifier:
    """Runs the program in a response, in a sandbox, against the tests of its task.

    sandbox: a name for `open_sandbox`, opened at the first use and shared, or an open one. limits: of each case.
    scoring: see `Scoring`. gold is plain data, see `code_tests.read_tests`: cases of standard input and output (of a
    program in any of LANGUAGES), cases of calls with expected values, or a function `check(candidate)`.
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
        self._seen_working = {"python"}

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT, WRONG or PARTIAL; the evidence has what came of each case. ERROR where the sandbox failed,
        or has no compiler, or interpreter, that works.

        Raises VerifierError where gold holds no tests, and SandboxError where no sandbox can be opened.
        """
        tests = read_tests(gold)
        return self._judge(tests, find_program(_text(response), tests.language))

    def verify_program(self, gold: Any, program: str) -> Verdict:
        """Judge a program that stands in no response. gold, errors: see `verify`."""
        return self._judge(read_tests(gold), _text(program))

    def _judge(self, tests: CodeTests, program: str) -> Verdict:
        if not program.strip():
            return Verdict.wrong("The response holds no program.")
        if len(program) > MAX_CHARS:
            return Verdict.wrong(f"The program has more than {MAX_CHARS} characters.")
        if tests.entry_point and tests.prefix and not defines(program, tests.entry_point):
            program = tests.prefix + program
        sandbox = shared_sandbox(self._sandbox)
        if tests.language not in self._seen_working:
            trouble = self._trouble(sandbox, tests.language)
            if trouble:
                return Verdict.error(trouble)
            self._seen_working.add(tests.language)
        until = time.monotonic() + VERDICT_S
        failures: list[str] = []
        begun = True
        while len(failures) <= _RETRIES:
            try:
                outcomes = self._outcomes(sandbox, tests, program, until)
                failed = next((outcome.message for outcome in outcomes if outcome.kind == "failed"), None)
            except SandboxError as error:  # nothing was run, and the program has no part in that
                failed, begun = str(error), False
            if failed is None:
                verdict = self._verdict(tests, outcomes)
                if failures and verdict.outcome is not Outcome.CORRECT and time.monotonic() >= until:
                    return Verdict.error(f"The sandbox failed, and too little time was left for more: {failures[0]}")
                return verdict
            failures.append(failed)
        if begun and self._works(sandbox):
            return Verdict.wrong(f"The program brought its sandbox down twice: {failures[-1]}", resource=True)
        return Verdict.error(f"The sandbox does not work: {failures[-1]}")

    def _works(self, sandbox: Sandbox) -> bool:
        """Whether a program that is known to be good runs."""
        try:
            return sandbox.run(["python3", "-c", "print(6 * 7)"], limits=self.limits).stdout == "42\n"
        except SandboxError:
            return False

    def _trouble(self, sandbox: Sandbox, name: str) -> str:
        """Why a program that is known to be good does not run, with what to do; "" where it does.

        Asked first, so that a response is not held to account for a compiler that is missing, or for an interpreter
        that does not start within the limits. How the response's program ends could not be trusted in that.
        """
        language = LANGUAGES[name]
        tests, until = CodeTests((InputCase("", "42"),), language=name), time.monotonic() + VERDICT_S
        try:
            (outcome,) = self._outcomes(sandbox, tests, language.hello, until)
        except SandboxError as error:
            return f"The sandbox does not work: {error}"
        if outcome.kind == "passed":
            return ""
        if outcome.kind == "failed":
            return f"The sandbox does not work: {outcome.message}"
        return (
            f"The sandbox has no {language.tool} that works ({outcome.kind}: {outcome.message}); install it where "
            f"programs run (`apt-get install {language.package}`), or, where it is there, raise the limits."
        )

    def _outcomes(self, sandbox: Sandbox, tests: CodeTests, program: str, until: float) -> list[CaseOutcome]:
        """What came of each case. until: in time.monotonic(), after which nothing more is begun. SandboxError where the
        sandbox is not there, or does not take what it is asked."""
        if isinstance(tests.cases[0], InputCase):
            language = LANGUAGES[tests.language]
            try:
                files = make_program(sandbox, language, program, self.limits, until)
            except CandidateLost as lost:
                return [lost.outcome]
            return self._in_order(tests, until, lambda case: self._input_case(sandbox, language, files, case))
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
            return self._in_order(tests, until, calls.outcome)

    def _in_order(self, tests: CodeTests, until: float, judge: Callable[[Any], CaseOutcome]) -> list[CaseOutcome]:
        """The outcomes of the cases; up to the first that fails where all must pass."""
        outcomes: list[CaseOutcome] = []
        for case in tests.cases:
            late = CaseOutcome("timeout", f"All cases together have {VERDICT_S:g} s.")
            outcomes.append(judge(case) if time.monotonic() < until else late)
            if outcomes[-1].kind in ("compile", "failed") or (self.scoring == "all" and outcomes[-1].kind != "passed"):
                break
        return outcomes

    def _input_case(
        self, sandbox: Sandbox, language: Language, files: Mapping[str, str | bytes], case: InputCase
    ) -> CaseOutcome:
        result = sandbox.run(language.run, stdin=case.stdin, files=files, limits=self.limits)
        if result.status is not Status.EXITED:
            return outcome_of(result)
        if result.exit_code != 0:
            said = complaint(language, result)
            return CaseOutcome("compile" if said.startswith(language.broken) else "error", said)
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
        return CaseOutcome("wrong", f"It returned {shown(value)}.")


def _text(response: Any) -> str:
    if not isinstance(response, str):
        raise VerifierError(f"A response must be text (str), not {type(response).__name__}; give verify() a string.")
    return response


def _lines(result: Result) -> list[str]:
    return _trimmed(result.stdout)


def _trimmed(text: str) -> list[str]:
    """Lines without the white space at their ends, and without empty ones at the end of all."""
    return [line.rstrip() for line in text.rstrip().split("\n")]

"""Lines between a candidate's process and what judges it.

Invariant: every wait has an end, and a candidate that is gone, or answers with anything but one JSON object, has
failed; what a test made of it then no longer counts.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from ...sandbox.backend import Sandbox
from ...sandbox.limits import Limits
from ...sandbox.process import Process
from ...sandbox.result import Result, Status
from .plain_values import NotPlain, decode, encode

PYTHON = ("python3", "-I", "-S")
"""Isolated from what lies around: no site packages, no startup files, no environment."""
_LOADING_S = 5.0
"""On top of the time for calls."""


@dataclass(frozen=True)
class CaseOutcome:
    """What came of one case.

    kind: passed, wrong, error (it raised), compile, timeout, memory, output, killed, or failed (the sandbox). message:
    a sentence for the reader.
    """

    kind: str
    message: str = ""


class CandidateLost(Exception):
    """The candidate does not answer any more; `outcome` says why."""

    def __init__(self, outcome: CaseOutcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


@lru_cache(maxsize=8)
def runner_source(name: str) -> str:
    """The source of a program that runs inside a sandbox."""
    return files(__package__).joinpath(f"{name}.py").read_text(encoding="utf-8")


def outcome_of(result: Result) -> CaseOutcome:
    """What the end of a program means that should have gone on."""
    kinds = {
        **{Status.TIMEOUT: "timeout", Status.MEMORY: "memory", Status.OUTPUT: "output", Status.KILLED: "killed"},
        **{Status.FAILED: "failed", Status.EXITED: "error"},
    }
    message = result.reason or f"The program ended with exit code {result.exit_code}."
    return CaseOutcome(kinds[result.status], message)


class Candidate:
    """A running candidate whose function can be called. Raises CandidateLost where it does not load."""

    def __init__(self, sandbox: Sandbox, source: str, entry_point: str, limits: Limits, calls: int) -> None:
        contents = {name: runner_source(name) for name in ("candidate_runner", "plain_values")}
        programs = {f"{name}.py": text for name, text in contents.items()} | {"candidate.py": source}
        # `-I` leaves the folder out of the path, so the runner is given as text that puts it there.
        start = "import sys; sys.path.insert(0, ''); import candidate_runner"
        whole = limits.but(wall_s=limits.wall_s * calls + _LOADING_S, cpu_s=limits.cpu_s * calls)
        self._timeout_s = limits.wall_s
        self._process: Process = sandbox.start([*PYTHON, "-c", start, entry_point], files=programs, limits=whole)
        stage = self._receive(limits.wall_s + _LOADING_S)
        if stage.get("stage") != "ready":
            kind = "compile" if stage.get("stage") == "compile" else "error"
            error = CaseOutcome(kind, f"{stage.get('error')}: {stage.get('message')}"[:500])
            self.close()
            raise CandidateLost(error)

    def call(self, request: str, within_s: float = math.inf) -> Mapping[str, Any]:
        """The reply to one call, [args, kwargs] as JSON: {"value": …} or {"error": …, "message": …}."""
        wait_s = min(self._timeout_s, within_s)
        until = time.monotonic() + wait_s
        self._process.send_line(request.encode(), wait_s)
        left_s = max(until - time.monotonic(), 0.0)
        return self._receive(left_s)

    def close(self) -> None:
        """End it."""
        self._process.close()

    def _receive(self, timeout_s: float) -> Mapping[str, Any]:
        started = time.monotonic()
        line = self._process.receive_line(timeout_s)
        if line is None:
            late = time.monotonic() - started >= timeout_s
            if late:
                self._process.close()
            result = self._process.finish()
            lost = CaseOutcome("timeout", f"No answer in {self._timeout_s:g} s.") if late else outcome_of(result)
            raise CandidateLost(lost)
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self._process.close()
            raise CandidateLost(CaseOutcome("error", "The candidate's process wrote what is no answer."))
        return reply


def returned(reply: Mapping[str, Any]) -> Any:
    """The value in a reply, of Python's own types. Raises CandidateLost where it holds none."""
    if "value" not in reply:
        raise CandidateLost(CaseOutcome("error", f"{reply.get('error')}: {reply.get('message')}"[:500]))
    try:
        return decode(reply["value"])
    except (NotPlain, RecursionError) as error:
        raise CandidateLost(CaseOutcome("error", f"What the function returned cannot be read: {error}.")) from None


def request_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A call as JSON."""
    return json.dumps([encode(args), encode(dict(kwargs))])


def run_check(
    sandbox: Sandbox, candidate: Candidate, check: str, prefix: str, entry_point: str, limits: Limits
) -> CaseOutcome:
    """Run `check(candidate)` in another sandbox than the candidate's. Its time is that of the candidate."""
    contents = {f"{name}.py": runner_source(name) for name in ("judge_runner", "plain_values")}
    tests = json.dumps({"check": check, "prefix": prefix, "entry_point": entry_point})
    start = "import sys; sys.path.insert(0, ''); import judge_runner"
    deadline = time.monotonic() + limits.wall_s
    whole = limits.but(wall_s=limits.wall_s + _LOADING_S)
    given = {**contents, "tests.json": tests}
    with sandbox.start([*PYTHON, "-c", start], files=given, limits=whole, trusted=True) as judge:
        while (line := judge.receive_line(max(deadline + _LOADING_S - time.monotonic(), 0))) is not None:
            message = json.loads(line)
            if "passed" in message:
                return CaseOutcome("passed") if message["passed"] is True else CaseOutcome("wrong", message["reason"])
            reply = candidate.call(json.dumps(message["call"]), deadline - time.monotonic())
            judge.send_line(json.dumps(reply).encode())
        late = time.monotonic() >= deadline + _LOADING_S
        if late:
            judge.close()
        ended = judge.finish()
    return CaseOutcome("timeout", f"The tests took more than {limits.wall_s:g} s.") if late else outcome_of(ended)

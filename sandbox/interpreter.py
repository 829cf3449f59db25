"""PythonInterpreter: Python in a session, whose names stay from one piece of code to the next."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from .errors import SandboxError
from .limits import LONGEST_S, Limits
from .process import Process
from .result import Status
from .session import Session

_CPU_S = 3_600.0
_START_S = 20.0


@dataclass(frozen=True)
class Reply:
    """What came of a piece of code. output: what it printed and the value of its last expression, or its error. ok:
    whether it ran to its end."""

    output: str
    ok: bool


class PythonInterpreter:
    """Runs code in a session. Where the code takes too long, or ends the interpreter, the next code finds a new one.

    session: an open one; the interpreter ends with it. limits: of the interpreter; its time by the clock is for each
    piece of code. One thread at a time may use it.
    """

    def __init__(self, session: Session, limits: Limits | None = None) -> None:
        self._session = session
        self._limits = limits or session.limits
        self._process: Process | None = None
        self._started = False

    def run(self, code: str, *, within_s: float = LONGEST_S) -> Reply:
        """Run code. within_s: for all of it, the start of an interpreter, too, in seconds. Raises SandboxError where
        the session has failed."""
        until = time.monotonic() + within_s
        if self._process is None:
            room = self._limits.but(wall_s=LONGEST_S, cpu_s=_CPU_S)
            self._process = self._session.start(["python3", "-I", "-u", "-c", _runner()], limits=room)
            deadline = min(time.monotonic() + _START_S, until)
            if self._process.receive_line(max(deadline - time.monotonic(), 0.0)) is None:
                return self._gone(self._process, deadline, "The interpreter did not start in time")
        self._started = True
        late = f"The code took more than {self._limits.wall_s:g} s"
        deadline = time.monotonic() + self._limits.wall_s
        if until < deadline:
            late, deadline = "The code took more than the time that was left for it", until
        self._process.send_line(json.dumps(code).encode(), max(deadline - time.monotonic(), 0.0))
        line = self._process.receive_line(max(deadline - time.monotonic(), 0.0))
        if line is None:
            return self._gone(self._process, deadline, late)
        try:
            answer = json.loads(line)
            return Reply(str(answer["output"]), answer["ok"] is True)
        except (ValueError, KeyError, TypeError, RecursionError):
            return Reply(self._lost("The code wrote into the interpreter's own channel"), False)

    def _gone(self, process: Process, deadline: float, late: str) -> Reply:
        """What is said where no answer came: how it ended, or `late` where it still runs at a time."""
        if not process.wait(max(deadline - time.monotonic(), 0.0)):
            if not self._started:
                self.close()
                raise SandboxError(f"{late}.")  # no code has run that could be the reason
            return Reply(self._lost(late), False)
        self._process = None
        result = process.finish()
        if result.status is Status.FAILED:
            raise SandboxError(result.reason)
        ended = result.reason.rstrip(".") or f"The code ended the interpreter (exit code {result.exit_code})"
        return Reply(self._lost(ended), False)

    def close(self) -> None:
        """End it; more than once is once."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _lost(self, why: str) -> str:
        self.close()
        return f"{why}. The interpreter was started anew, without the names that were defined."


@cache
def _runner() -> str:
    return files(__package__).joinpath("interpreter_runner.py").read_text(encoding="utf-8")

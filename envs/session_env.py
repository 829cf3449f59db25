"""SessionEnv: an environment whose tools work in a sandbox session, a new one for each episode.

Invariant: no session outlives its episode. What the machine did is an InfrastructureError, never an observation; what
an agent did to its own session is told to it, and judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..sandbox.backend import Sandbox
from ..sandbox.choose import checked_sandbox, shared_sandbox
from ..sandbox.errors import SandboxError
from ..sandbox.job import checked_argv
from ..sandbox.limits import Limits
from ..sandbox.result import Result, Status
from ..sandbox.session import MOST_READ, Session
from ..verifiers.verdict import InfrastructureError
from .errors import ToolError
from .task import Task
from .text_env import TextEnv

T = TypeVar("T")

LIMITS = Limits(wall_s=10.0, cpu_s=10.0)
"""Of each command; memory, disk and processes for the episode."""

STEP_S = 30.0
"""For all tool calls of one message together; a step must not last as long as a rollout waits for one."""

_MOST_OUTPUT, _MOST_COMPLAINTS = 14_000, 4_000
"""Characters that an agent is shown; together less than an observation may have."""


class SessionEnv(TextEnv):
    """A TextEnv with `self.session`, which is opened when it is first asked for and closed when the episode is over.

    Subclasses write `verify`, and where an episode begins with files, `prepare`. sandbox: a name for `open_sandbox`, or
    an open one. limits: of the session and of each command. options: of TextEnv.
    """

    def __init__(self, *args: Any, sandbox: str | Sandbox = "auto", limits: Limits = LIMITS, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sandbox = checked_sandbox(sandbox)
        self.limits = limits
        self._session: Session | None = None
        self._until = math.inf
        self._last: Status | None = None
        self._ran = False

    def prepare(self, task: Task, session: Session) -> None:
        """Write what an episode begins with."""
        return None

    @property
    def session(self) -> Session:
        """The session of the running episode. Raises InfrastructureError where there can be none."""
        if self._session is None:
            assert self.task is not None
            try:
                self._session = shared_sandbox(self.sandbox).open_session(self.limits)
                self.prepare(self.task, self._session)
            except SandboxError as error:
                self._end_session()
                raise InfrastructureError(str(error)) from error
        return self._session

    def execute(self, argv: Sequence[str]) -> Result:
        """Run a program in the session. Raises ToolError where there can be no such program, or where the agent has
        brought its session down, and InfrastructureError where the sandbox failed."""
        try:
            checked_argv(argv)
        except SandboxError as error:
            raise ToolError(str(error)) from error
        late = self.late()
        if late:
            return Result(Status.TIMEOUT, None, "", "", reason=late)
        session, limits = self.session, self.limits.but(wall_s=min(self.limits.wall_s, self.left_s()))
        self._ran = True
        try:
            result = session.exec(argv, limits=limits)
        except SandboxError as error:
            raise self.failure(str(error)) from error
        if result.status is Status.FAILED:
            raise self.failure(result.reason)
        self._last = result.status
        return result

    def left_s(self) -> float:
        """How much time the message has left, in seconds; always a little."""
        return max(self._until - time.monotonic(), 0.01)

    def late(self) -> str:
        """What a tool answers where those before it have used up the time of the message; "" where it may work."""
        over = time.monotonic() >= self._until
        return f"All calls of one message together have {STEP_S:g} s." if over else ""

    def read_file(self, path: str, *, most: int = MOST_READ) -> str:
        """What stands in a file of the session, as text. Raises ToolError where there is none, or it has more than
        `most` bytes."""
        return self._ask(lambda session: session.read_file(path, most=most)).decode("utf-8", "backslashreplace")

    def write_file(self, path: str, content: str) -> None:
        """Write a file of the session. Raises ToolError where that cannot be."""
        self._ask(lambda session: session.write_file(path, content))

    def list_files(self) -> list[str]:
        """The files of the session. Raises ToolError where they are too many."""
        return self._ask(lambda session: session.list_files())

    def _ask(self, ask: Callable[[Session], T]) -> T:
        late = self.late()
        if late:
            raise ToolError(late)
        session = self.session
        try:
            return ask(session)
        except SandboxError as error:
            raise (self.failure(str(error)) if session.over else ToolError(str(error))) from error

    def failure(self, reason: str) -> Exception:
        """What to raise where the session has failed: ToolError where the agent's programs have brought it down.

        They have where they took all its memory; or where it ended, or answers no more, and a program that is known to
        be good runs in the same sandbox. A session that was closed is never their doing.
        """
        session = self._session
        by_agent = session is not None and session.over and self._ran
        if session is None or not by_agent:
            return InfrastructureError(reason)
        if {self._last, session.ended} & {Status.MEMORY, Status.OUTPUT}:
            return ToolError(reason)
        return ToolError(reason) if session.ended is not None and self._works() else InfrastructureError(reason)

    def _works(self) -> bool:
        """Whether a program that is known to be good runs in the sandbox."""
        try:
            result = shared_sandbox(self.sandbox).run(["python3", "-c", "print(6 * 7)"], limits=self.limits)
        except SandboxError:
            return False
        return result.stdout == "42\n"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `TextEnv.reset`."""
        self._end_session()
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `TextEnv.step`."""
        over = True
        self._until = time.monotonic() + STEP_S
        try:
            observation, reward, terminated, truncated, info = super().step(action)
            over = terminated or truncated
        finally:
            self._until = math.inf
            if over:
                self._end_session()
        return observation, reward, terminated, truncated, info

    def cut(self, *, acted: bool) -> float:
        """See `TextEnv.cut`."""
        self._end_session()
        return super().cut(acted=acted)

    def close(self) -> None:
        """End the session, if there is one."""
        self._end_session()
        super().close()

    def _end_session(self) -> None:
        session, self._session, self._last, self._ran = self._session, None, None, False
        if session is not None:
            session.close()


def shown(result: Result) -> str:
    """What an agent is told of a program: its output, its complaints, and how it ended where that was not well."""
    parts = [_cut(result.stdout.rstrip("\n"), _MOST_OUTPUT), _cut(result.stderr.rstrip("\n"), _MOST_COMPLAINTS)]
    if result.status is not Status.EXITED:
        parts.append(result.reason)
    elif result.exit_code:
        parts.append(f"[exit code {result.exit_code}]")
    return "\n".join(part for part in parts if part) or "[no output]"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}\n[cut: {len(text) - most} more characters]"

"""Remote: a sandbox on another machine, over HTTP; `ludus sandbox-server` is its other side.

Invariant: a program is started at most once, and one that was started has ended before its result is here, unless the
server is gone, which then ends it by itself.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import Any

from .backend import Sandbox
from .connection import ANSWER_S, Broken, Connection, Refused, Unreachable
from .errors import SandboxError
from .job import Job, Running, as_bytes, checked_files, checked_limits
from .limits import LONGEST_S, Limits
from .result import Result, Status, Usage
from .session import MOST_READ, Session
from .supervise import Cancellation
from .wire import POLL_S, PROTOCOL, check_allowed, decode, encode, job_body, limits_from, result_from

_LATE_S = 60.0
"""How long after its time the end of a program may be told."""
_TOLD_S = 5.0
"""How long after a program has ended its end may be on the way."""
_CLOSE_S = 30.0
_ENV_URL, _ENV_TOKEN = "LUDUS_SANDBOX_URL", "LUDUS_SANDBOX_TOKEN"


class Remote(Sandbox):
    """Runs each program in the sandbox of a server.

    limits: of every run that brings none of its own; by default the usual ones, or the server's where they are lower.
    url, token: of the server; by default what the environment has as LUDUS_SANDBOX_URL and LUDUS_SANDBOX_TOKEN. Raises
    SandboxError, with what to do, where it cannot be reached, does not take the token, or allows less than `limits`.
    """

    name = "remote"

    def __init__(self, limits: Limits | None = None, *, url: str | None = None, token: str | None = None) -> None:
        url, token = url or os.environ.get(_ENV_URL), token or os.environ.get(_ENV_TOKEN)
        if not url:
            raise SandboxError(f"No sandbox server is named; set {_ENV_URL}, such as http://host:8675.")
        self._connection = Connection(url, token)
        status = self._connection.get("/status")
        try:
            if status["protocol"] != PROTOCOL:
                raise SandboxError(f"The sandbox server at {url} is of another version; install the same ludus.")
            most, self.isolates = limits_from(status["limits"]), status["isolates"] is True
        except KeyError:
            raise SandboxError(f"What answers at {url} is no sandbox server; put the address right.") from None
        if limits is None:
            limits = Limits(
                **{one.name: min(getattr(Limits(), one.name), getattr(most, one.name)) for one in fields(most)}
            )
        check_allowed(limits, most)
        self.limits = limits
        self._closing = Cancellation()
        self._changed = threading.Condition()
        self._closed = False
        self._running = 0
        self._sessions: set[RemoteSession] = set()
        self._pid = os.getpid()
        _remotes.add(self)

    def execute(self, job: Job) -> Result:
        """See `Sandbox.execute`."""
        return self._execute(job, None)

    def open_session(self, limits: Limits | None = None) -> Session:
        """See `Sandbox.open_session`."""
        limits = checked_limits(limits or self.limits)
        with self._using():
            answer = self._connection.call("/sessions", {"limits": asdict(limits)}, waits_s=ANSWER_S)
            session = RemoteSession(self, limits, str(answer["session"]))
            with self._changed:
                self._sessions.add(session)
        return session

    def close(self) -> None:
        """End everything that this one runs; more than once is once. The server goes on."""
        with self._changed:
            closing, self._closed = not self._closed, True
        if not closing:
            return
        _remotes.discard(self)
        self._closing.cancel()
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._running, _CLOSE_S)
            sessions = list(self._sessions)
        for session in sessions:
            session.close()
        if ended:
            self._closing.close()

    def _execute(self, job: Job, session: str | None) -> Result:
        """Run a program, in a session if one is named. Raises SandboxError where it was not begun."""
        with self._using():
            interrupts = [self._closing, *([job.cancellation] if job.cancellation is not None else [])]
            return _RemoteRun(self._connection, job, interrupts).end(session, lambda: self._closed)

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise SandboxError("The sandbox was closed; open another one.")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()


class RemoteSession(Session):
    """A session on a server; see `Session`. That it has ended by itself is known once something was asked of it."""

    def __init__(self, sandbox: Remote, limits: Limits, number: str) -> None:
        self.limits = limits
        self._sandbox, self._number = sandbox, number
        self._over = self._closed = False
        self._ended: Status | None = None

    @property
    def over(self) -> bool:
        """See `Session.over`."""
        return self._over or self._closed

    @property
    def ended(self) -> Status | None:
        """See `Session.ended`."""
        return self._ended

    def execute(self, job: Job) -> Result:
        """See `Session.execute`."""
        self._check_open()
        begun = time.monotonic()
        try:
            return self._sandbox._execute(job, self._number)
        except Refused as refused:
            if not refused.over:
                raise
            self._over, self._ended = True, refused.ended
            usage = Usage(time.monotonic() - begun)
            return Result(refused.ended or Status.FAILED, None, "", "", usage, f"The session ended: {refused}")

    def write_file(self, path: str, content: str | bytes) -> None:
        """See `Session.write_file`."""
        checked_files({path: content})
        self._ask("write", path=path, data=encode(as_bytes(content)))

    def read_file(self, path: str, *, most: int = MOST_READ) -> bytes:
        """See `Session.read_file`."""
        checked_files({path: b""})
        return decode(self._ask("read", path=path, most=most)["data"], "data")

    def list_files(self) -> list[str]:
        """See `Session.list_files`."""
        return [str(path) for path in self._ask("list")["paths"]]

    def close(self) -> None:
        """See `Session.close`."""
        if self._closed:
            return
        self._closed = True
        with self._sandbox._changed:
            self._sandbox._sessions.discard(self)
        with contextlib.suppress(SandboxError):  # a server that is gone has ended it
            self._sandbox._connection.call(f"/sessions/{self._number}/close")

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxError("The session was closed; open another one.")

    def _ask(self, what: str, **body: Any) -> dict[str, Any]:
        self._check_open()
        try:
            return self._sandbox._connection.call(f"/sessions/{self._number}/{what}", body, waits_s=ANSWER_S)
        except Refused as refused:
            self._over |= refused.over
            self._ended = refused.ended or self._ended
            raise
        except (Unreachable, Broken):
            self._over = True  # of a session that cannot be reached nothing more is to be expected
            raise


class _RemoteRun:
    """One program on a server. interrupts: end it when they come; the first one is that the sandbox is closed."""

    def __init__(self, connection: Connection, job: Job, interrupts: list[Cancellation]) -> None:
        self._connection, self._job, self._interrupts = connection, job, interrupts
        self._number = secrets.token_hex(16)
        self._begun = time.monotonic()
        self._rest: deque[bytes] = deque()
        self._over = threading.Event()

    def end(self, session: str | None, closed: Callable[[], bool]) -> Result:
        """Run it to its end, and talk to it meanwhile where that was asked for. Raises SandboxError where it was not
        begun. closed: whether the sandbox is."""
        try:
            result = self._end(session)
        finally:
            self._over.set()
        if closed() and result.status is Status.FAILED:
            return Result(result.status, None, result.stdout, result.stderr, result.usage, "The sandbox was closed.")
        return result

    def call(self, what: str, waits_s: float, **body: Any) -> dict[str, Any]:
        """Ask something of it while it runs."""
        return self._connection.call(f"/programs/{self._number}/{what}", body, waits_s=waits_s)

    def write(self, data: bytes, timeout_s: float | None = None) -> bool:
        """See `Input.write`. Here it was taken when the server has it."""
        deadline = time.monotonic() + (LONGEST_S if timeout_s is None else timeout_s)
        text = encode(data)
        while not self._over.is_set():
            wait_s = min(max(deadline - time.monotonic(), 0.0), POLL_S)
            try:
                answer = self.call("send", wait_s, data=text, timeout_s=wait_s)
            except (Unreachable, Broken, Refused):
                return False
            if answer["taken"]:
                return True
            if answer["ended"] or time.monotonic() >= deadline:
                return False
        return False

    def close(self) -> None:
        """See `Input.close`."""
        if not self._over.is_set():
            with contextlib.suppress(SandboxError):
                self.call("end_input", 0.0)

    def read_line(self, timeout_s: float) -> bytes | None:
        """See `Lines.read_line`. What was not read when the program ended came with its end."""
        deadline = time.monotonic() + timeout_s
        while not self._over.is_set():
            wait_s = min(max(deadline - time.monotonic(), 0.0), POLL_S)
            try:
                answer = self.call("receive", wait_s, timeout_s=wait_s)
            except SandboxError:
                break
            if answer["line"] is not None:
                return decode(answer["line"], "line")
            if answer["ended"]:
                break
            if time.monotonic() >= deadline:
                return None
        self._over.wait(max(deadline - time.monotonic(), _TOLD_S))
        return self._rest.popleft() if self._rest else None

    def _end(self, session: str | None) -> Result:
        if any(_came(one) for one in self._interrupts):
            return self._failed("The run was cancelled.")
        body = {**job_body(self._job), "program": self._number, "session": session}
        path, talking, deadline = "/programs", False, self._begun + self._job.limits.wall_s + _LATE_S
        while True:
            try:
                answer = self._connection.call(
                    path, body, waits_s=POLL_S, interrupts=self._interrupts, interrupt=self._cancel
                )
            except Broken as broken:
                return self._failed(str(broken))
            except SandboxError as error:
                if path == "/programs":
                    raise
                return self._failed(f"The sandbox server gave the program up: {error}")
            if answer["ended"]:
                self._rest.extend(decode(line, "line") for line in answer["lines"])
            if self._job.started is not None and answer["started"] and not talking:
                self._job.started(Running(self, self))
                talking = True
            if answer["ended"]:
                return result_from(answer["result"])
            if time.monotonic() > deadline:
                self._cancel()
                return self._failed(f"The sandbox server did not end it within {self._job.limits.wall_s:g} s.")
            path, body = f"/programs/{self._number}/wait", {}

    def _cancel(self) -> None:
        """The server may not have begun it yet, so this is asked again and again."""
        with contextlib.suppress(SandboxError):
            self.call("cancel", 0.0)

    def _failed(self, reason: str) -> Result:
        return Result(Status.FAILED, None, "", "", Usage(time.monotonic() - self._begun), reason)


def _came(cancellation: Cancellation) -> bool:
    poll = select.poll()
    poll.register(cancellation, select.POLLIN)
    return bool(poll.poll(0))


_remotes: weakref.WeakSet[Remote] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for remote in list(_remotes):
        if remote._pid == os.getpid():
            with contextlib.suppress(Exception):
                remote.close()

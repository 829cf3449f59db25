"""Served: the programs and sessions that a sandbox server keeps for its clients.

Invariant: a program for whose end nobody waits is ended, and a session that nobody uses is closed; so a client that is
gone leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .backend import Sandbox
from .errors import SandboxError
from .job import Job, Running
from .limits import Limits
from .result import Result, Status
from .session import MOST_READ, Session
from .supervise import Cancellation
from .wire import POLL_S, PROTOCOL, check_allowed, decode, encode, job_from, limits_from

LEASE_S = 30.0
"""How long a program is kept for whose end nobody waits."""
WINDOW = 2**20
"""Bytes of input that are held for a program that does not read them yet."""
_LOOK_S = 0.2
_CLOSE_S = 15.0
_ID = re.compile("[0-9a-f]{1,64}")


class Refusal(Exception):
    """What is not done. status: of HTTP. over: whether the session that was asked for has ended; ended: how, where that
    is known."""

    def __init__(self, status: int, text: str, *, over: bool = False, ended: Status | None = None) -> None:
        super().__init__(text)
        self.status, self.over, self.ended = status, over, ended


class Program:
    """A program that runs in a thread of its own. ended: called once it is over."""

    def __init__(self, execute: Callable[[Job], Result], job: Job, ended: Callable[[], None]) -> None:
        self.waiting, self.waited = 0, time.monotonic()
        self._talks, self._told = job.stdin is None, False  # told: whether the client knows that it has started
        self._execute, self._ended = execute, ended
        self._cancellation = Cancellation()
        self._cancelled = False
        self._running: Running | None = None
        self._result: Result | None = None
        self._error: Exception | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._reading = threading.Lock()
        self._input: deque[bytes | None] = deque()
        self._held = 0
        self._writer: threading.Thread | None = None
        self._changed = threading.Condition()
        started = self._begin if self._talks else None
        job = replace(job, cancellation=self._cancellation, started=started)
        threading.Thread(target=self._work, args=(job,), name="ludus-served", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    def cancel(self) -> None:
        """End it; more than once is once."""
        with self._changed:
            cancelled, self._cancelled = self._cancelled, True
        if not cancelled:
            self._cancellation.cancel()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ends within a time."""
        return self._over.wait(timeout_s)

    def progress(self, gone: Callable[[], bool]) -> dict[str, Any]:
        """How it stands, once it has ended, or has started and can be talked to, or POLL_S are over; it is cancelled
        where whoever waits is gone."""
        news = self._ready if self._talks and not self._told else self._over
        deadline = time.monotonic() + POLL_S
        with self._changed:
            self.waiting += 1
        try:
            while not news.wait(_LOOK_S) and time.monotonic() < deadline:
                if gone():
                    self.cancel()
                    break
        finally:
            with self._changed:
                self.waiting -= 1
                self.waited = time.monotonic()
        if not self._over.is_set():
            self._told = self._running is not None
            return {"ended": False, "started": self._told}
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return {"ended": True, "started": True, "result": asdict(self._result), "lines": self._rest()}

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """The next line, if one comes within a time."""
        line = None
        if self._running is not None:
            with self._reading:
                line = self._running.output.read_line(timeout_s)
        return {"line": None if line is None else encode(line), "ended": line is None and self._over.is_set()}

    def send(self, data: bytes, timeout_s: float) -> dict[str, Any]:
        """Take input, all of it or none, when there is room within a time."""
        with self._changed:
            self._changed.wait_for(lambda: self._held < WINDOW or self._over.is_set(), timeout_s)
            taken = self._held < WINDOW and not self._over.is_set() and self._running is not None
            if taken:
                self._put(data)
        return {"taken": taken, "ended": self._over.is_set()}

    def end_input(self) -> None:
        """No input will be sent any more."""
        with self._changed:
            if self._running is not None and not self._over.is_set():
                self._put(None)

    def _put(self, data: bytes | None) -> None:
        self._input.append(data)
        self._held += len(data or b"")
        self._changed.notify_all()
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="ludus-served-input", daemon=True)
            self._writer.start()

    def _write(self) -> None:
        """Give the program its input in order, as fast as it reads."""
        assert self._running is not None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._input or self._over.is_set())
                data = None if self._over.is_set() else self._input.popleft()
            if data is None or not self._running.input.write(data):
                self._running.input.close()
                return
            with self._changed:
                self._held -= len(data)
                self._changed.notify_all()

    def _rest(self) -> list[str]:
        """The lines that were not received; a request that is under way gets its own first."""
        lines: list[str] = []
        if self._running is not None:
            with self._reading:
                while (line := self._running.output.read_line(0)) is not None:
                    lines.append(encode(line))
        return lines

    def _work(self, job: Job) -> None:
        try:
            self._result = self._execute(job)
        except Exception as error:
            self._error = error
        finally:
            self._cancellation.close()
            with self._changed:
                self._over.set()
                self._ready.set()
                self._changed.notify_all()
                close = self._running is not None and self._writer is None
            if close and self._running is not None:
                self._running.input.close()
            self._ended()

    def _begin(self, running: Running) -> None:
        self._running = running
        self._ready.set()


@dataclass
class _Open:
    """An open session. users: requests and programs that use it now. used: when it was last, in time.monotonic()."""

    session: Session
    users: int
    used: float


class Served:
    """Does what clients of a sandbox server ask for; see `wire`. limits: the most that is allowed. idle_s: after which
    a session that nobody uses is closed. most_sessions: that are open at one time."""

    def __init__(self, sandbox: Sandbox, limits: Limits, idle_s: float, most_sessions: int) -> None:
        self._sandbox, self._limits, self._idle_s, self._most = sandbox, limits, idle_s, most_sessions
        self._sessions: dict[str, _Open] = {}
        self._opening = 0
        self._programs: dict[str, Program] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reaper = threading.Thread(target=self._reap, name="ludus-reaper", daemon=True)
        self._reaper.start()

    def status(self) -> dict[str, Any]:
        """What the server is, and what it has to do."""
        with self._lock:
            running = sum(not program.over for program in self._programs.values())
            now = {"programs": running, "sessions": len(self._sessions), "most_sessions": self._most}
        told = {"protocol": PROTOCOL, "sandbox": self._sandbox.name, "isolates": self._sandbox.isolates}
        return {**told, "limits": asdict(self._limits), "idle_s": self._idle_s, **now}

    def start(self, body: Mapping[str, Any], gone: Callable[[], bool]) -> dict[str, Any]:
        """Start a program. gone: whether the client is."""
        number, where = body.get("program"), body.get("session")
        if not isinstance(number, str) or not _ID.fullmatch(number):
            raise Refusal(400, "program must be an id of 1 to 64 hexadecimal digits.")
        if where is not None and not isinstance(where, str):
            raise Refusal(400, "session must be the id of a session, or null.")
        job = job_from(body)
        check_allowed(job.limits, self._limits)
        if where is not None and job.files:
            raise Refusal(400, "files are written into a session by themselves; leave them out.")
        with self._lock:
            self._check_open()
            if number in self._programs:
                raise Refusal(409, f"There is a program {number} already; take another id.")
            if where is None:
                program = Program(self._sandbox.execute, job, lambda: None)
            else:
                opened = self._enter(where)
                program = Program(opened.session.execute, job, lambda: self._leave(opened))
            self._programs[number] = program
        return self._progress(number, program, gone)

    def wait(self, number: str, gone: Callable[[], bool]) -> dict[str, Any]:
        """Wait for the end of a program; one whose end was told is forgotten."""
        return self._progress(number, self._program(number), gone)

    def send(self, number: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send to a program."""
        return self._program(number).send(decode(body.get("data"), "data"), _timeout(body))

    def receive(self, number: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Receive a line from a program."""
        return self._program(number).receive(_timeout(body))

    def end_input(self, number: str) -> dict[str, Any]:
        """End the input of a program."""
        self._program(number).end_input()
        return {}

    def cancel(self, number: str) -> dict[str, Any]:
        """End a program."""
        self._program(number).cancel()
        return {}

    def open_session(self, body: Mapping[str, Any], gone: Callable[[], bool]) -> dict[str, Any]:
        """Open a session."""
        limits = limits_from(body.get("limits", {}))
        check_allowed(limits, self._limits)
        with self._lock:
            self._check_open()
            if len(self._sessions) + self._opening >= self._most:
                raise Refusal(
                    429, f"The sandbox server has its {self._most} sessions open; close some, or allow it more."
                )
            self._opening += 1
        session = None
        try:
            session = self._sandbox.open_session(limits)
        finally:
            number = secrets.token_hex(16)
            with self._lock:
                self._opening -= 1
                keep = session is not None and not self._closed.is_set() and not gone()
                if session is not None and keep:
                    self._sessions[number] = _Open(session, 0, time.monotonic())
            if session is not None and not keep:
                session.close()
        self._check_open()
        return {"session": number}

    def close_session(self, number: str) -> dict[str, Any]:
        """Close a session; one that is not open is closed."""
        with self._lock:
            opened = self._sessions.pop(number, None)
        if opened is not None:
            opened.session.close()
        return {}

    def write(self, number: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a file of a session."""
        content = decode(body.get("data"), "data")
        with self._using(number) as session:
            session.write_file(_path(body), content)
        return {}

    def read(self, number: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Read a file of a session."""
        with self._using(number) as session:
            return {"data": encode(session.read_file(_path(body), most=_most(body)))}

    def list(self, number: str) -> dict[str, Any]:
        """List the files of a session."""
        with self._using(number) as session:
            return {"paths": session.list_files()}

    def close(self) -> None:
        """End all programs and sessions; more than once is once."""
        with self._lock:
            self._closed.set()
            programs, sessions = list(self._programs.values()), list(self._sessions)
        for program in programs:
            program.cancel()
        for number in sessions:
            with contextlib.suppress(SandboxError):
                self.close_session(number)
        deadline = time.monotonic() + _CLOSE_S
        for program in programs:
            program.wait(max(deadline - time.monotonic(), 0))
        self._reaper.join(_CLOSE_S)

    def _progress(self, number: str, program: Program, gone: Callable[[], bool]) -> dict[str, Any]:
        try:
            answer = program.progress(gone)
        except Exception:
            self._forget(number)
            raise
        if answer["ended"]:
            self._forget(number)
            if self._closed.is_set() and answer["result"]["status"] is Status.FAILED:
                answer["result"]["reason"] = "The sandbox server was closed."
        return answer

    def _forget(self, number: str) -> None:
        with self._lock:
            self._programs.pop(number, None)

    def _program(self, number: str) -> Program:
        with self._lock:
            program = self._programs.get(number)
        if program is None:
            raise Refusal(404, f"There is no program {number}: its end was told, or it was given up.")
        return program

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise Refusal(503, "The sandbox server was closed; start it again.")

    def _enter(self, number: str) -> _Open:
        """Use a session; with the lock held."""
        if number not in self._sessions:
            raise Refusal(
                410,
                f"The session is not open any more: it was closed, or nobody used it for {self._idle_s:g} s; open "
                "another one.",
                over=True,
            )
        opened = self._sessions[number]
        opened.users += 1
        return opened

    def _leave(self, opened: _Open) -> None:
        with self._lock:
            opened.users -= 1
            opened.used = time.monotonic()

    @contextlib.contextmanager
    def _using(self, number: str) -> Iterator[Session]:
        with self._lock:
            opened = self._enter(number)
        try:
            yield opened.session
        except SandboxError as error:
            raise Refusal(422, str(error), over=opened.session.over, ended=opened.session.ended) from error
        finally:
            self._leave(opened)

    def _reap(self) -> None:
        """Close what nobody uses."""
        while not self._closed.wait(min(self._idle_s / 4, 5.0)):
            now = time.monotonic()
            with self._lock:
                # One that has ended by itself is kept as long, so that its client hears how.
                idle = [
                    number
                    for number, opened in self._sessions.items()
                    if not opened.users and now - opened.used > self._idle_s
                ]
                sessions = [self._sessions.pop(number).session for number in idle]
                left = [
                    (number, program)
                    for number, program in self._programs.items()
                    if not program.waiting and now - program.waited > LEASE_S
                ]
            for session in sessions:
                with contextlib.suppress(Exception):  # the next is closed nonetheless
                    session.close()
            for number, program in left:
                program.cancel()
                if program.over:
                    self._forget(number)


def _timeout(body: Mapping[str, Any]) -> float:
    value = body.get("timeout_s")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= POLL_S:  # not true of NaN
        raise Refusal(400, f"timeout_s must be a number from 0 to {POLL_S:g}.")
    return float(value)


def _most(body: Mapping[str, Any]) -> int:
    most = body.get("most", MOST_READ)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise Refusal(400, "most must be a number of bytes.")
    return most


def _path(body: Mapping[str, Any]) -> str:
    path = body.get("path")
    if not isinstance(path, str):
        raise Refusal(400, "path must be a text.")
    return path

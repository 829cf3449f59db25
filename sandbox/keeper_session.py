"""KeeperSession: a session whose first process, a keeper, starts the others and passes on what they say.

Invariant: every wait has an end, and when a session is over, all that waits for it is told so.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, Protocol, Self

from .descriptors import Descriptors
from .errors import SandboxError
from .job import Job, Running, checked_files
from .limits import LONGEST_S, Limits
from .outcome import outcome
from .output import Output
from .result import Result, Status, Usage
from .seccomp import seccomp_filter
from .session import MOST_FILES, MOST_READ, Session
from .supervise import Ending, SurvivedKill, supervise

WINDOW = 2**20
"""Bytes of input that the keeper holds for a program that does not read them yet."""
CHANNEL_BYTES = 64 * 2**20
_CHUNK = 1 << 16
_PART = 1 << 20
_ANSWER_S = 15.0
"""How long the keeper may take to answer, on a machine with much else to do."""
_CLOSE_S = 1.0


class Place(Protocol):
    """Where the keeper of a session runs, as the first process; `Process` is one."""

    def send_line(self, line: bytes, timeout_s: float | None = None) -> bool:
        """Send a line; whether the keeper was still there to take it, within a time if there is one."""

    def receive_line(self, timeout_s: float) -> bytes | None:
        """The next line from the keeper; None where none has come in time, or none will come."""

    def end_input(self) -> None:
        """No line will be sent any more."""

    def wait(self, timeout_s: float) -> bool:
        """Whether it ends within a time."""

    def oom_kills(self) -> int:
        """How many processes the kernel has ended for want of memory, as far as that is known."""

    def finish(self) -> Result:
        """How it ended, once it has."""

    def close(self) -> None:
        """End it; more than once is once."""


_LOAD = "import json, sys; exec(compile(json.loads(sys.stdin.buffer.readline()), 'keeper.py', 'exec'))"


def keeper_command(folder: str = "") -> list[str]:
    """The program that is the first of a session. folder: where it works; by default where it is started."""
    return ["python3", "-I", "-S", "-c", _LOAD, *([folder] if folder else [])]


@cache
def _keeper() -> bytes:
    return json.dumps(files(__package__).joinpath("keeper.py").read_text(encoding="utf-8")).encode()


class KeeperSession(Session):
    """A session on this machine.

    place: where `keeper_command` was just started. confine: whether the keeper puts the filter of system calls on
    itself, and so on all programs. closed: called with the session once it is over. Raises SandboxError where it does
    not come up.
    """

    def __init__(
        self,
        place: Place,
        limits: Limits,
        *,
        confine: bool = False,
        closed: Callable[[KeeperSession], None] = lambda session: None,
    ) -> None:
        self.limits = limits
        self._place = place
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._waiting: dict[int, Callable[[Mapping[str, Any] | None], None]] = {}
        self._lock = threading.Lock()
        self._over = False
        self._closed = False
        self._ended: Result | None = None
        self._when_closed = closed
        self._reader = threading.Thread(target=self._read, name="ludus-session", daemon=True)
        try:
            ready = place.receive_line(_ANSWER_S) if place.send_line(_keeper()) else None
            if ready is None:
                place.close()
                result = place.finish()
                raise SandboxError(f"The session did not start: {result.reason} {result.stderr[-500:]}".strip())
            self._reader.start()
            if confine:
                rules = base64.b64encode(seccomp_filter(json.loads(ready)["machine"])).decode()
                self._ask("be confined", do="confine", rules=rules)
        except BaseException:
            place.close()
            raise

    @property
    def over(self) -> bool:
        """See `Session.over`."""
        return self._over or self._closed or self._ended is not None

    @property
    def ended(self) -> Status | None:
        """See `Session.ended`."""
        return None if self._ended is None else self._ended.status

    def write_file(self, path: str, content: str | bytes) -> None:
        """See `Session.write_file`."""
        ((name, data),) = checked_files({path: content}).items()
        for start in range(0, max(len(data), 1), _PART):
            part = base64.b64encode(data[start : start + _PART]).decode()
            self._ask(f"write {path!r}", do="write", path=name, data=part, more=start > 0)

    def read_file(self, path: str, *, most: int = MOST_READ) -> bytes:
        """See `Session.read_file`."""
        (name,) = checked_files({path: b""})
        data, most = bytearray(), min(most, MOST_READ)
        while True:
            answer = self._ask(f"read {path!r}", do="read", path=name, start=len(data))
            part = base64.b64decode(answer["data"])
            data += part
            if answer["size"] > most or len(data) > most:
                raise SandboxError(f"The session cannot read {path!r}: it is larger than {most} bytes.")
            if not part or len(data) >= answer["size"]:
                return bytes(data)

    def list_files(self) -> list[str]:
        """See `Session.list_files`."""
        return [str(path) for path in self._ask("list its files", do="list", most=MOST_FILES)["paths"]]

    def empty(self) -> None:
        """End all programs, and remove all files, so that it is as it was at first. For containers only: SandboxError
        where something may be left; it should be closed then."""
        self._ask("be emptied", do="empty")

    def close(self) -> None:
        """See `Session.close`."""
        with self._lock:
            closing, self._closed = not self._closed, True
        try:
            if closing and self._sending.acquire(timeout=_CLOSE_S):  # else a keeper takes nothing any more
                try:
                    self._place.end_input()
                finally:
                    self._sending.release()
                self._reader.join(_CLOSE_S)
        finally:
            self._place.close()
            self._reader.join(_ANSWER_S)  # nothing more is said
            self._when_closed(self)

    def execute(self, job: Job) -> Result:
        """See `Session.execute`."""
        if self._closed:
            raise SandboxError("The session was closed; open another one.")
        begun, kills = time.monotonic(), self._place.oom_kills()
        try:
            number = next(self._numbers)
            given = _Input(partial(self._send, number))
            with _Run(given, job.limits.output_bytes) as run, self._answers(number, run.take):
                if not self._send(number, do="start", argv=job.argv, limits=_bounds(job.limits)):
                    return self._lost(begun)
                ending = self._supervise(job, run, number, begun)
        except SurvivedKill:
            return self._lost(begun)
        except OSError as error:
            return Result(Status.FAILED, None, "", "", Usage(time.monotonic() - begun), f"The sandbox failed: {error}.")
        if run.last is None:
            return self._lost(begun)
        return self._result(job.limits, ending, run, kills, time.monotonic() - begun)

    def _supervise(self, job: Job, run: _Run, number: int, begun: float) -> Ending:
        def kill() -> None:
            self._send(number, do="kill")

        try:
            if job.started is not None:
                job.started(Running(run.input, run.outputs[0], self._place.oom_kills))
            if job.stdin is not None:
                run.input.give(job.stdin)
            deadline = begun + job.limits.wall_s
            return supervise(run.outputs, [run.ended], deadline=deadline, kill=kill, cancellation=job.cancellation)
        except BaseException:
            kill()
            raise

    def _result(self, limits: Limits, ending: Ending, run: _Run, kills: int, wall_s: float) -> Result:
        last = run.last or {}
        code, usage = last.get("code", 126), Usage(wall_s, last.get("cpu_s"), last.get("memory_bytes"))
        out, err = (output.text() for output in run.outputs)
        if ending is Ending.ITSELF and "signal" not in last:
            return Result(Status.EXITED, code, out, err + str(last.get("error", "")), usage)
        ran_out = last.get("ran_out")
        if ran_out is None:
            ran_out = self._place.oom_kills() > kills
        how, reason = outcome(ending, code, ran_out and last.get("signal") == signal.SIGKILL, limits, usage)
        return Result(how, code if how is Status.KILLED else None, out, err, usage, reason)

    def _lost(self, begun: float) -> Result:
        """What is said of a program when the session ended around it."""
        usage = Usage(time.monotonic() - begun)
        if self._closed:
            return Result(Status.FAILED, None, "", "", usage, "The session was closed.")
        if self._ended is None:
            # A keeper that has said its last is ending, which takes the kernel seconds where much memory goes.
            self._place.wait(_ANSWER_S if self._over else _CLOSE_S)
            self._place.close()
            self._ended = self._place.finish()
        ended = self._ended
        if ended.status is Status.MEMORY:
            return replace(ended, stdout="", stderr="", usage=usage)
        return Result(Status.FAILED, None, "", "", usage, f"The session ended: {ended.reason or ended.stderr[-500:]}")

    def _ask(self, what: str, **request: Any) -> Mapping[str, Any]:
        """One answer to one request. Raises SandboxError where it is an error, or does not come."""
        if self._closed:
            raise SandboxError("The session was closed; open another one.")
        answers: list[Mapping[str, Any] | None] = []
        came = threading.Event()

        def take(answer: Mapping[str, Any] | None) -> None:
            answers.append(answer)
            came.set()

        number = next(self._numbers)
        with self._answers(number, take):
            if not self._send(number, **request) or not came.wait(_ANSWER_S) or answers[0] is None:
                raise SandboxError(f"The session could not {what}: {self._lost(time.monotonic()).reason}")
        if "error" in answers[0]:
            raise SandboxError(f"The session cannot {what}: {answers[0]['error']}.")
        return answers[0]

    @contextlib.contextmanager
    def _answers(self, number: int, take: Callable[[Mapping[str, Any] | None], None]) -> Iterator[None]:
        """take: called for each answer to the request of that number, and with None where the session is over."""
        with self._lock:
            self._waiting[number] = take
            over = self._over
        if over:
            take(None)
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[number]

    def _send(self, number: int, **message: Any) -> bool:
        """Ask the keeper; whether it was there. One that takes nothing for a long time is ended."""
        with self._sending:
            taken = self._place.send_line(json.dumps({"id": number, **message}).encode(), _ANSWER_S)
        if not taken:
            self._place.close()
        return taken

    def _read(self) -> None:
        """Hand out what the keeper says."""
        try:
            while (line := self._place.receive_line(LONGEST_S)) is not None:
                answer = json.loads(line)
                with self._lock:
                    take = self._waiting.get(answer["id"])
                if take is not None:
                    take(answer)
        except (ValueError, KeyError, TypeError):  # not the keeper's words: it is no more
            self._place.close()
        finally:
            with self._lock:
                self._over = True
                waiting = list(self._waiting.values())
            for take in waiting:
                take(None)


class _Run:
    """What goes to one program of a session, and what comes from it.

    ended: readable once it has ended. last: how it ended; None where the session ended around it.
    """

    def __init__(self, given: _Input, output_bytes: int) -> None:
        self.input = given
        self._reading, self._writing = Descriptors(), Descriptors()
        self.last: Mapping[str, Any] | None = None
        self._lock = threading.Lock()
        self._over = False
        try:
            (self.ended, self._end), (stdout, self._stdout), (stderr, self._stderr) = (self._pipe() for _ in range(3))
        except OSError:
            self.__exit__()
            raise
        self.outputs = [Output(fd, output_bytes) for fd in (stdout, stderr)]

    def _pipe(self) -> tuple[int, int]:
        read_fd, write_fd = os.pipe()
        return self._reading.own(read_fd), self._writing.own(write_fd)

    def take(self, answer: Mapping[str, Any] | None) -> None:
        """Pass on what the keeper says of it."""
        with self._lock:
            if self._over:
                return
            if answer is None or "code" in answer or "error" in answer:
                self.last, self._over = answer, True
                self._writing.close(self._end, self._stdout, self._stderr)
                self.input.end()
                return
            for name, fd in (("out", self._stdout), ("err", self._stderr)):
                data = base64.b64decode(answer.get(name, ""))
                with contextlib.suppress(BrokenPipeError):
                    while data:
                        data = data[os.write(fd, data) :]
        self.input.took(answer.get("took", 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.__exit__(None, None, None)  # first: whoever writes is woken by it
        with self._lock:
            self._over = True
            self._writing.__exit__(None, None, None)
        self.input.end()


class _Input:
    """What a program of a session is given, never far ahead of what it reads. send: a message of it to the keeper."""

    def __init__(self, send: Callable[..., bool]) -> None:
        self._send = send
        self._ahead = 0
        self._over = False
        self._changed = threading.Condition()

    def give(self, data: bytes) -> None:
        """All of its input; where that is long, as it is read."""
        if len(data) > WINDOW:
            threading.Thread(target=self._give, args=(data,), name="ludus-input", daemon=True).start()
        else:
            self._give(data)

    def _give(self, data: bytes) -> None:
        self.write(data)
        self.close()

    def write(self, data: bytes, timeout_s: float | None = None) -> bool:
        """See `Input.write`."""
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            with self._changed:
                if not self._changed.wait_for(lambda: self._ahead < WINDOW or self._over, timeout_s):
                    return False
                self._ahead += len(part)
            if self._over or not self._send(do="give", data=base64.b64encode(part).decode()):
                return False
        return not self._over

    def close(self) -> None:
        """See `Input.close`."""
        if not self._over:
            self._send(do="give", last=True)

    def took(self, count: int) -> None:
        """The program has read some."""
        with self._changed:
            self._ahead -= count
            self._changed.notify_all()

    def end(self) -> None:
        """The program reads no more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


def _bounds(limits: Limits) -> dict[str, int]:
    """What holds for each program, by the names of the module resource."""
    cpu_s = max(int(limits.cpu_s + 0.999), 1)
    bounds = {"RLIMIT_CPU": cpu_s, "RLIMIT_DATA": limits.memory_bytes, "RLIMIT_FSIZE": limits.file_bytes}
    return {**bounds, "RLIMIT_NOFILE": limits.open_files}

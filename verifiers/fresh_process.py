"""FreshProcess: a copy of a verifier in a process of its own, with another hash seed, that can be killed.

Invariant: a call that hangs, crashes or eats memory ends with that process and never with the caller's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .observation import SLACK_S, Call, Observation, observe, too_late
from .verdict import Outcome
from .verifier import Verifier

START_S = 60.0
"""Longest time that the process may take to import what it needs."""
MAX_PICKLED_BYTES = 64 << 20
"""A verifier that is larger, such as one with a model in it, is not sent to another process."""
MAX_GROWTH_BYTES = 4 << 30
"""What the process may take in memory beyond what it has after its start; more is a MemoryError in the verifier."""
_BOOTSTRAP = (
    "import json, os, sys; sys.path[:] = json.loads(os.environ.pop('LUDUS_CHECK_PATH')); "
    "from ludus.verifiers.fresh_process import serve; serve()"
)


class CannotRebuild(Exception):
    """Why a verifier cannot be had in another process, in words."""


class FreshProcess:
    """Asks a copy of the verifier in another process, which is replaced after a call that hangs or ends it.

    golds: what it will be asked about. Raises CannotRebuild where there can be no copy.
    """

    def __init__(self, verifier: Verifier, golds: Sequence[Any]) -> None:
        try:
            what = "the verifier"
            self._pickled = pickle.dumps(verifier)
            what = "a right answer"
            pickle.dumps(golds)
        except Exception as error:
            raise CannotRebuild(f"{what} cannot be pickled ({_words(error)})") from error
        if len(self._pickled) > MAX_PICKLED_BYTES:
            raise CannotRebuild(f"the verifier is {len(self._pickled) >> 20} MiB large when pickled")
        self._process: subprocess.Popen[bytes] | None = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        ours = os.environ.get("PYTHONHASHSEED")
        environment = {
            **os.environ,
            "LUDUS_CHECK_PATH": json.dumps([str(place) for place in sys.path]),
            "PYTHONHASHSEED": "2" if ours == "1" else "1",
            "PYTHONSAFEPATH": "1",
        }
        command = [sys.executable, "-c", _BOOTSTRAP]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
        )
        self._unread = b""
        try:
            self._send(process, self._pickled)
            ready = self._receive(process, START_S)
        except OSError:
            ready = {"fault": "its process ended while it started"}
        if ready is None or "fault" in ready:
            _end(process)
            raise CannotRebuild(ready["fault"] if ready else f"its process did not start within {START_S:g} s")
        return process

    def ask(self, call: Call, seconds: float) -> Observation:
        """See `Asker.ask`. "died" where the process ended."""
        try:
            if self._process is None:
                self._process = self._start()
        except CannotRebuild as reason:
            return Observation("died", str(reason))
        try:
            self._send(self._process, pickle.dumps((call.gold, call.response, call.prompt)))
            row = self._receive(self._process, seconds + SLACK_S)
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)  # its own exit code, where it has one
            code = self.close()
            return Observation("died", f"its process ended {f'by signal {-code}' if code < 0 else f'with code {code}'}")
        if row is None:
            self.close()
            return too_late(seconds)
        outcome = None if row["outcome"] is None else Outcome(row["outcome"])
        return Observation(row["kind"], row["said"], outcome, row["reason"])

    def close(self) -> int:
        """End the process; the code that it ended with."""
        process, self._process = self._process, None
        return 0 if process is None else _end(process)

    def _send(self, process: subprocess.Popen[bytes], data: bytes) -> None:
        assert process.stdin is not None
        unsent = memoryview(len(data).to_bytes(8, "big") + data)
        while unsent:
            unsent = unsent[os.write(process.stdin.fileno(), unsent) :]

    def _receive(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next line of the process, None where there is none in time. OSError where it has ended."""
        assert process.stdout is not None
        descriptor, end = process.stdout.fileno(), time.monotonic() + seconds
        poll = select.poll()  # select.select knows no descriptor above 1,023
        poll.register(descriptor, select.POLLIN)
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return None
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                raise OSError("the process has ended")
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        row: dict[str, Any] = json.loads(line)
        return row


def serve() -> None:
    """What the process does: read a verifier from standard input, then calls, and answer each with one line."""
    source = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what the verifier prints is no answer

    def say(row: dict[str, Any]) -> None:
        out.write(json.dumps(row) + "\n")
        out.flush()

    try:
        verifier = pickle.loads(_read(source))
    except BaseException as error:
        say({"fault": f"the verifier cannot be rebuilt in another process ({_words(error)})"})
        return
    _limit_memory()
    say({})
    while data := _read(source):
        gold, response, prompt = pickle.loads(data)
        say(asdict(observe(verifier, Call("", gold, response, prompt))))
    os._exit(0)


def _read(source: Any) -> bytes:
    return bytes(source.read(int.from_bytes(source.read(8), "big")))


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):  # where it is not known or not allowed, there is no limit
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[5]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = used + MAX_GROWTH_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kill it; the code that it ended with."""
    process.kill()
    code = process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    return code


def _words(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}"

"""Plain: no sandbox at all, for debugging what runs in one. It isolates nothing, and so must be asked for by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .backend import Sandbox
from .descriptors import Descriptors
from .errors import SandboxError
from .job import Job, Running
from .limits import Limits
from .outcome import outcome
from .output import Output
from .process import PipeInput
from .result import Result, Status, Usage
from .supervise import Cancellation, Ending, SurvivedKill, exit_fd, supervise


class Plain(Sandbox):
    """Runs programs as ordinary processes of this user in a temporary folder, with this environment's PATH.

    Of the limits only the time by the clock and the output are kept. A process that leaves its group outlives its run.
    """

    name = "plain"
    isolates = False

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._closed = False

    def execute(self, job: Job) -> Result:
        """See `Sandbox.execute`."""
        argv, limits = job.argv, job.limits
        if self._closed:
            raise SandboxError("The sandbox was closed; open another one.")
        begun = time.monotonic()
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ludus-", ignore_cleanup_errors=True))
            for name, content in job.files.items():
                place = Path(folder, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            fds = stack.enter_context(Descriptors())
            given, write_fd = fds.pipe() if job.stdin is None else (_content(fds, job.stdin), None)
            try:
                process = _start(argv, folder, given)
            except FileNotFoundError:
                return Result(Status.EXITED, 127, "", f"{argv[0]}: not found\n", Usage(time.monotonic() - begun))
            except OSError as error:
                return Result(Status.FAILED, None, "", "", Usage(time.monotonic() - begun), f"{argv[0]}: {error}.")
            fds.close(given)
            stack.enter_context(process)
            assert process.stdout is not None and process.stderr is not None
            outputs = [Output(pipe.fileno(), limits.output_bytes) for pipe in (process.stdout, process.stderr)]
            if job.started is not None and write_fd is not None:
                job.started(Running(PipeInput(fds.hand_over(write_fd)), outputs[0]))
            return self._watch(process, outputs, begun, limits, job.cancellation)

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        outputs: Sequence[Output],
        begun: float,
        limits: Limits,
        cancellation: Cancellation | None,
    ) -> Result:
        ended = exit_fd(process.pid, process.wait)
        with self._lock:
            self._running.add(process.pid)
            if self._closed:
                _kill(process.pid)
        try:
            ending = supervise(
                outputs,
                [ended],
                deadline=begun + limits.wall_s,
                kill=lambda: _kill(process.pid),
                cancellation=cancellation,
            )
        except SurvivedKill:
            ending = Ending.CANCELLED
        finally:
            os.close(ended)
            with self._lock:
                self._running.discard(process.pid)
            _kill(process.pid)
        code = process.wait()
        code = code if code >= 0 else 128 - code
        out, err = (output.text() for output in outputs)
        usage = Usage(time.monotonic() - begun)
        if self._closed and code == 128 + signal.SIGKILL:
            return Result(Status.FAILED, None, out, err, usage, "The sandbox was closed.")
        how, reason = outcome(ending, code, False, limits, usage)
        return Result(how, code if how in (Status.EXITED, Status.KILLED) else None, out, err, usage, reason)

    def close(self) -> None:
        """End everything that runs; more than once is once."""
        with self._lock:
            self._closed = True
            for pid in self._running:
                _kill(pid)


def _content(fds: Descriptors, content: bytes) -> int:
    """A descriptor from which a content can be read, on any system."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return fds.own(os.dup(file.fileno()))


def _start(argv: Sequence[str], folder: str, given: int) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.base_prefix) / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    environment = {"PATH": path, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, cwd=folder, env=environment, stdin=given, stdout=pipe, stderr=pipe, start_new_session=True
    )


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)

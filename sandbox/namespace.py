"""Namespace: a started bubblewrap whose first process waits until it is released.

Invariant: bounds are put on the first process, the head, before anything else runs; and when the head has ended, the
kernel has ended every other process of the namespace. No program runs unless it was released: bubblewrap also goes on
where the pipe it waits at is closed, as it is when Ludus is killed, and so a gate behind it asks for a word.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cgroup import Cgroup
from .descriptors import Descriptors
from .job import Job
from .launcher import Launcher
from .limits import MIB, Limits
from .output import Output
from .process import PipeInput
from .start_time import start_time
from .supervise import exit_fd

SETUP_S = 20.0
"""Longest that namespaces and mounts may take to be made, on a machine with much else to do."""
_GATE = """
read -r word </proc/self/fd/$1 && [ "$word" = go ] || exit 1
shift
command -v "$1" >/dev/null || { printf "%s: not found\\n" "$1" >&2; exit 127; }
exec "$@"
"""
"""Run in the sandbox: waits for the word, and becomes the program. $1: the descriptor, whose reading end the program
keeps; nothing comes from it any more."""
_MARK = "ludus-sandbox-of-"


class Namespace:
    """One started bubblewrap. fds: owns the descriptors; as a context manager it ends what still runs. cgroup: which
    bounds it, where there is one.

    input: where the job brings none. head_fd: readable when the head has ended;
    None where bubblewrap gave up before there was one.
    """

    def __init__(
        self,
        fds: Descriptors,
        launcher: Launcher,
        command: Callable[[Callable[[bytes], int]], list[str]],
        job: Job,
        environment: dict[str, str] | None,
        cgroup: Cgroup | None,
    ) -> None:
        self._cgroup = cgroup
        hold, self._release = fds.pipe()
        self._status, status_end = fds.pipe()
        stdout, stdout_end = fds.pipe()
        stderr, stderr_end = fds.pipe()
        gate = fds.make(os.dup, hold)
        passed = [hold, gate, status_end]

        def content(data: bytes) -> int:
            passed.append(fds.content(data))
            return passed[-1]

        self.input: PipeInput | None = None
        if job.stdin is None:
            given, give = fds.pipe()
            self.input = PipeInput(fds.hand_over(give))
        else:
            given = fds.content(job.stdin)
        options = [*command(content), "--block-fd", str(hold), "--json-status-fd", str(status_end)]
        ends: dict[str, Any] = {"stdin": given, "stdout": stdout_end, "stderr": stderr_end, "pass_fds": tuple(passed)}
        gated = ["/bin/sh", "-c", _GATE, _mark_of(os.getpid()), str(gate), *job.argv]
        self._process = launcher.start([*options, "--", *gated], cgroup, env=environment, **ends)
        fds.close(*passed, given, stdout_end, stderr_end)
        self.outputs = [Output(fd, job.limits.output_bytes) for fd in (stdout, stderr)]
        self.outer_fd = fds.make(exit_fd, self._process.pid, self._process.wait)
        self.head_fd: int | None = None
        self._said = b""
        self._head = self._find_head()
        if self._head is not None:
            with contextlib.suppress(ProcessLookupError):
                self.head_fd = fds.make(os.pidfd_open, self._head)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self.input is not None:
            self.input.close()

    def confine(self, limits: Limits, rlimits: bool = True) -> None:
        """Put bounds on the head, and so on all that it will start. Raises ProcessLookupError where it has ended."""
        assert self._head is not None
        if self._cgroup is not None:
            self._cgroup.add(self._head)
        for kind, bound in _bounds(limits, whole_tree=self._cgroup is not None).items() if rlimits else ():
            soft, hard = bound if isinstance(bound, tuple) else (bound, bound)
            allowed = resource.prlimit(self._head, kind)[1]
            if allowed != resource.RLIM_INFINITY:
                soft, hard = min(soft, allowed), min(hard, allowed)
            resource.prlimit(self._head, kind, (soft, hard))

    def release(self) -> None:
        """Let the program run."""
        os.write(self._release, b"xgo\n")  # bubblewrap takes the first byte, the gate the rest

    def kill(self) -> None:
        """End every process of the namespace at once."""
        with contextlib.suppress(ProcessLookupError):
            if self.head_fd is not None:
                signal.pidfd_send_signal(self.head_fd, signal.SIGKILL)
            else:
                self._process.kill()

    def exit_code(self) -> int | None:
        """What bubblewrap reports of the program at its end: 128 + n for signal n; None where it started none."""
        self._process.wait()
        while chunk := os.read(self._status, 4096):
            self._said += chunk
        for line in self._said.splitlines():
            with contextlib.suppress(ValueError):
                code = json.loads(line).get("exit-code")
                if code is not None:
                    return int(code)
        return None

    def _find_head(self) -> int | None:
        """The process id of the head, as bubblewrap reports it; None where it gave up."""
        deadline = time.monotonic() + SETUP_S
        poll = select.poll()  # select.select knows no descriptor above 1,023
        poll.register(self._status, select.POLLIN)
        while b"\n" not in self._said:
            ready = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
            chunk = os.read(self._status, 4096) if ready else b""
            if not chunk:
                return None
            self._said += chunk
        return int(json.loads(self._said.split(b"\n")[0])["child-pid"])


def reap_orphans() -> None:
    """End what bubblewrap left behind where Ludus was killed in the middle of making a namespace.

    bubblewrap's outer process then ends with its parent, and its inner one waits for it for ever. No program ran in it.
    """
    mark = re.compile(rf"\0({_MARK}([0-9]+)-[0-9]*-{_pid_namespace()})\0".encode())
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            owner = mark.search((folder / "cmdline").read_bytes())
            if owner and owner[1].decode() != _mark_of(owner[2].decode()):
                os.kill(int(folder.name), signal.SIGKILL)


def _mark_of(pid: int | str) -> str:
    """What names an owner for good; that of a process that is not there is nobody's."""
    return f"{_MARK}{pid}-{start_time(pid)}-{_pid_namespace()}"


def _pid_namespace() -> int:
    """Process ids of another one, such as a container's, mean nothing here."""
    return os.stat("/proc/self/ns/pid").st_ino


def _bounds(limits: Limits, whole_tree: bool) -> dict[int, int | tuple[int, int]]:
    """Bounds of each process by their kind. whole_tree: whether a cgroup bounds the memory of all together."""
    cpu_s = max(int(limits.cpu_s + 0.999), 1)
    bounds: dict[int, int | tuple[int, int]] = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_DATA: limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_NPROC: limits.processes + 1,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 65536,
        resource.RLIMIT_MSGQUEUE: MIB,
    }
    if not whole_tree:
        bounds[resource.RLIMIT_AS] = limits.memory_bytes
    return bounds

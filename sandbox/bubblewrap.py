"""Bubblewrap: the embedded sandbox of Linux, which needs no root, no daemon and no image.

Invariant: a program sees read-only system folders, a folder of its own of bounded size, and nothing else of the host:
no other process, no network, no environment. Its first process is the head of a process namespace, so that all it ever
started ends with it, whatever it did to hide; and that head ends with the process that runs Ludus.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from .backend import Sandbox
from .bubblewrap_command import bubblewrap_command, folder_mounts, system_mounts
from .cgroup import Cgroup, hierarchy
from .descriptors import Descriptors
from .errors import SandboxError
from .job import Job, Running, check_room
from .launcher import shared_launcher
from .limits import Limits
from .namespace import SETUP_S, Namespace, reap_orphans
from .outcome import outcome
from .result import Result, Status, Usage
from .supervise import Ending, SurvivedKill, supervise

_MOST_FILES = 500


class Bubblewrap(Sandbox):
    """Runs each program in namespaces of its own.

    limits: of every run that brings none of its own. read_only: more folders of the host that programs may read, at
    the same place; a socket or named pipe in one can be talked to nonetheless, and a file locked. Raises SandboxError,
    with what to do, where bubblewrap is missing or the kernel forbids it.
    """

    name = "bubblewrap"
    isolates = True

    def __init__(
        self, limits: Limits | None = None, *, read_only: Sequence[str | Path] = (), _without: Collection[str] = ()
    ) -> None:
        self.limits = limits or Limits()
        self._without = frozenset(_without)
        self._cgroups = None if "cgroup" in self._without else hierarchy()
        self._mounts = [*system_mounts(), *folder_mounts(read_only)]
        self._bwrap = shutil.which("bwrap") or ""
        self._running: set[int] = set()
        self._lock = threading.Lock()
        self._closed = False
        reap_orphans()
        reason = self._why_not()
        if reason:
            raise SandboxError(reason)

    def close(self) -> None:
        """End everything that runs; more than once is once."""
        with self._lock:
            self._closed = True
            for fd in self._running:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)

    def execute(self, job: Job) -> Result:
        """See `Sandbox.execute`."""
        limits = job.limits
        if len(job.files) > _MOST_FILES:
            raise SandboxError(f"files: {len(job.files)} are more than {_MOST_FILES}; pack them into one.")
        check_room(job)
        if self._closed:
            raise SandboxError("The sandbox was closed; open another one.")
        rules = self._mounts, limits, job.files
        command = partial(bubblewrap_command, self._bwrap, *rules, first=job.keeps, without=self._without)
        environment: dict[str, str] | None = None if "environment" in self._without else {}
        launcher = shared_launcher("landlock" not in self._without)
        begun = time.monotonic()
        try:
            with (
                self._bounded(job) as cgroup,
                Descriptors() as fds,
                Namespace(fds, launcher, command, job, environment, cgroup) as namespace,
            ):
                return self._watch(namespace, cgroup, job, begun)
        except (OSError, SurvivedKill) as error:
            reason = f"The sandbox failed: {error or 'a program could not be ended'}."
            return Result(Status.FAILED, None, "", "", Usage(time.monotonic() - begun), reason)

    def _watch(self, namespace: Namespace, cgroup: Cgroup | None, job: Job, begun: float) -> Result:
        limits = job.limits
        ending, usage, ran_out = Ending.ITSELF, Usage(0.0), False
        try:
            if namespace.head_fd is None:
                raise ProcessLookupError
            with self._tracked(namespace.head_fd):
                namespace.confine(limits, rlimits="rlimits" not in self._without)
                namespace.release()
                if job.started is not None and namespace.input is not None:
                    oom_kills = (lambda: 0) if cgroup is None else cgroup.oom_kills
                    job.started(Running(namespace.input, namespace.outputs[0], oom_kills))
                ending = supervise(
                    namespace.outputs,
                    [namespace.head_fd, namespace.outer_fd],
                    deadline=time.monotonic() + limits.wall_s,
                    kill=namespace.kill,
                    cancellation=job.cancellation,
                )
                usage = Usage(time.monotonic() - begun)
                if cgroup is not None:
                    usage, ran_out = Usage(usage.wall_s, cgroup.cpu_s(), cgroup.peak_bytes()), cgroup.oom_kills() > 0
        except (ProcessLookupError, BrokenPipeError):  # bubblewrap gave up; what it says stands in its output
            deadline = time.monotonic() + SETUP_S
            supervise(namespace.outputs, [namespace.outer_fd], deadline=deadline, kill=namespace.kill)
        code = namespace.exit_code()
        out, err = (output.text() for output in namespace.outputs)
        if self._closed and code in (None, 128 + signal.SIGKILL):
            return Result(Status.FAILED, None, out, err, usage, "The sandbox was closed.")
        if code is None and ending is Ending.ITSELF and not ran_out:
            reason = err.strip()[:2_000] or "it was ended from outside"
            return Result(Status.FAILED, None, out, err, usage, f"The sandbox failed: {reason}.")
        how, reason = outcome(ending, code, ran_out, limits, usage)
        return Result(how, code if how in (Status.EXITED, Status.KILLED) else None, out, err, usage, reason)

    @contextlib.contextmanager
    def _bounded(self, job: Job) -> Iterator[Cgroup | None]:
        """The cgroup of one run, where there can be any; it goes when the run has ended."""
        if self._cgroups is None:
            yield None
            return
        room = job.limits
        # Beside the program there is bubblewrap's own first process; a keeper is the first one itself.
        most = room.processes + (0 if job.keeps else 1)
        cgroup = Cgroup(self._cgroups, room.memory_bytes, most, together=not job.keeps)
        try:
            yield cgroup
        finally:
            cgroup.remove()

    @contextlib.contextmanager
    def _tracked(self, fd: int) -> Iterator[None]:
        """While it runs, `close` can end it."""
        with self._lock:
            if self._closed:
                raise OSError("it was closed")
            self._running.add(fd)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(fd)

    def _why_not(self) -> str:
        """Why programs cannot be run here, with what to do; "" where they can."""
        if sys.platform != "linux":
            return f"bubblewrap is for Linux and this is {sys.platform}; use sandbox 'docker'."
        if not self._bwrap:
            return "The command bwrap is missing: 'apt-get install bubblewrap' (or your distribution's) adds it."
        if os.geteuid() == 0 and self._cgroups is None and not self._without:
            return (
                "For root the kernel bounds the number of processes by cgroups only, and none can be made here: run as"
                " another user, or use sandbox 'docker'."
            )
        result = self.run(["true"], limits=Limits(wall_s=SETUP_S))
        if result.ok:
            return ""
        return (
            f"bubblewrap cannot make its namespaces here ({result.reason or result.stderr.strip()[:200]}). The kernel"
            " must allow unprivileged user namespaces (on Ubuntu from 23.10 on: an AppArmor profile for bwrap, or"
            " kernel.apparmor_restrict_unprivileged_userns=0; in a container: --privileged); else use sandbox 'docker'."
        )

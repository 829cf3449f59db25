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

from .bubblewrap_command import bubblewrap_command, folder_mounts, system_mounts
from .cgroup import Cgroup, hierarchy
from .descriptors import Descriptors
from .errors import SandboxError
from .launcher import shared_launcher
from .limits import Limits
from .namespace import SETUP_S, Namespace, reap_orphans
from .outcome import outcome
from .process import Started
from .protocol import Files, SandboxBase, checked_argv, checked_files
from .result import Result, Status, Usage
from .supervise import Cancellation, Ending, SurvivedKill, supervise

_MOST_FILES = 500


class Bubblewrap(SandboxBase):
    """Runs each program in namespaces of its own.

    limits: of every run that brings none of its own. read_only: more folders of the host that programs may read, at
    the same place. Raises SandboxError, with what to do, where bubblewrap is missing or the kernel forbids it.
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

    def _execute(
        self,
        argv: Sequence[str],
        stdin: bytes | None,
        files: Files | None,
        limits: Limits | None,
        cancellation: Cancellation | None,
        started: Started | None,
    ) -> Result:
        argv, contents, limits = checked_argv(argv), checked_files(files), limits or self.limits
        if len(contents) > _MOST_FILES:
            raise SandboxError(f"files: {len(contents)} are more than {_MOST_FILES}; pack them into one.")
        if sum(map(len, contents.values())) > limits.disk_bytes // 2:
            raise SandboxError(
                f"files: they are larger than half of limits.disk_bytes = {limits.disk_bytes}; raise it."
            )
        if self._closed:
            raise SandboxError("The sandbox was closed; open another one.")
        rules = self._mounts, limits, contents
        command = partial(bubblewrap_command, self._bwrap, *rules, without=self._without)
        environment: dict[str, str] | None = None if "environment" in self._without else {}
        launcher = shared_launcher("landlock" not in self._without)
        begun = time.monotonic()
        try:
            with (
                Descriptors() as fds,
                Namespace(fds, launcher, command, argv, stdin, environment, limits.output_bytes) as namespace,
            ):
                if started is not None and namespace.stdin_fd is not None:
                    started(fds.hand_over(namespace.stdin_fd), namespace.outputs[0])
                return self._watch(namespace, limits, cancellation, begun)
        except (OSError, SurvivedKill) as error:
            reason = f"The sandbox failed: {error or 'a program could not be ended'}."
            return Result(Status.FAILED, None, "", "", Usage(time.monotonic() - begun), reason)

    def _watch(
        self,
        namespace: Namespace,
        limits: Limits,
        cancellation: Cancellation | None,
        started: float,
    ) -> Result:
        ending, usage, ran_out = Ending.ITSELF, Usage(0.0), False
        try:
            if namespace.head_fd is None:
                raise ProcessLookupError
            with self._tracked(namespace.head_fd), self._confined(namespace, limits) as cgroup:
                namespace.release()
                ending = supervise(
                    namespace.outputs,
                    [namespace.head_fd, namespace.outer_fd],
                    deadline=time.monotonic() + limits.wall_s,
                    kill=namespace.kill,
                    cancellation=cancellation,
                )
                usage = Usage(time.monotonic() - started)
                if cgroup is not None:
                    usage, ran_out = Usage(usage.wall_s, cgroup.cpu_s(), cgroup.peak_bytes()), cgroup.ran_out()
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
    def _confined(self, namespace: Namespace, limits: Limits) -> Iterator[Cgroup | None]:
        cgroup = namespace.confine(limits, self._cgroups, rlimits="rlimits" not in self._without)
        try:
            yield cgroup
        finally:
            if cgroup is not None:
                namespace.kill()
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

"""Cgroup: bounds on memory and processes of a whole process tree, where this process may make cgroups.

Invariant: a cgroup is removed when its run ends; what a killed process of Ludus left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .start_time import start_time

_PREFIX = "ludus-"
_counter = itertools.count()
_left: set[Path] = set()
"""What could not be removed yet; the next run tries again."""


@dataclass(frozen=True)
class Hierarchy:
    """Where cgroups can be made.

    memory, pids, cpu: the folder of each controller; in version 2 they are the same. cpu only counts; None without it.
    """

    version: int
    memory: Path
    pids: Path
    cpu: Path | None

    def folders(self) -> set[Path]:
        """The different ones."""
        return {folder for folder in (self.memory, self.pids, self.cpu) if folder is not None}


@lru_cache(maxsize=1)
def hierarchy() -> Hierarchy | None:
    """Where this process can bound memory and processes by cgroups; None where it may not."""
    found = _version_2() or _version_1()
    if found is not None:
        for folder in found.folders():
            _remove_orphans(folder)
    return found


def _own_paths() -> dict[str, str]:
    """The path of this process in each hierarchy, by controller; version 2 is ""."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    return {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}


def _mounts(kind: str) -> list[tuple[Path, set[str]]]:
    """Where hierarchies of a kind are mounted, with their options."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines]
    return [(Path(row[1]), set(row[3].split(","))) for row in rows if row[2] == kind]


def _version_2() -> Hierarchy | None:
    path = _own_paths().get("")
    for mount, _ in _mounts("cgroup2") if path is not None else []:
        # Controllers are handed down only to groups without processes of their own, so the parent's are looked at.
        own = mount / path.strip("/")  # type: ignore[union-attr]
        for folder in (own, own.parent):
            with contextlib.suppress(OSError):
                if {"memory", "pids"} <= set((folder / "cgroup.subtree_control").read_text().split()) and _writable(
                    folder
                ):
                    return Hierarchy(2, folder, folder, folder)
    return None


def _version_1() -> Hierarchy | None:
    paths = _own_paths()
    folders = {}
    for name in ("memory", "pids", "cpuacct"):
        for mount, options in _mounts("cgroup"):
            if name in options and name in paths:
                folder = mount / paths[name].strip("/")
                if _writable(folder) and os.access(folder / "tasks", os.W_OK):
                    folders[name] = folder
    if not {"memory", "pids"} <= folders.keys():
        return None
    return Hierarchy(1, folders["memory"], folders["pids"], folders.get("cpuacct"))


def _writable(folder: Path) -> bool:
    probe = folder / f"{_PREFIX}{os.getpid()}-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _remove_orphans(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*-*"):
        owner, _, rest = left.name.removeprefix(_PREFIX).partition("-")
        since = start_time(owner) if owner.isdecimal() else None
        if since == "" or (since is not None and rest != "probe" and since != rest.partition("-")[0]):
            with contextlib.suppress(OSError):
                left.rmdir()


def _remove_left() -> None:
    for folder in list(_left):
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            _left.discard(folder)


class Cgroup:
    """One cgroup with bounds. together: where memory runs out, all of its processes end, and not just one; known to
    version 2 only. Raises OSError where it cannot be made.

    A process is put under it in one of two ways. Version 1 lets a thread move itself, and so it is started from inside,
    at once. Version 2 lets none, and it is moved when it is there, for which the kernel waits for all processors: ten
    milliseconds and more, unless it was just done.
    """

    def __init__(self, place: Hierarchy, memory_bytes: int, processes: int, *, together: bool = True) -> None:
        name = f"{_PREFIX}{os.getpid()}-{start_time(os.getpid())}-{next(_counter)}"
        _remove_left()
        self._version = place.version
        self._memory, self._pids = place.memory / name, place.pids / name
        self._cpu = place.cpu / name if place.cpu is not None else None
        self._around = place.folders()
        self._folders = {folder / name for folder in self._around}
        try:
            self._make(place, memory_bytes, processes, together)
        except OSError:
            self.remove()
            raise

    def _make(self, place: Hierarchy, memory_bytes: int, processes: int, together: bool) -> None:
        for folder in self._folders:
            folder.mkdir()
        (self._pids / "pids.max").write_text(str(processes if place.version == 2 else processes + 1))
        if place.version == 2:
            (self._memory / "memory.max").write_text(str(memory_bytes))
            with contextlib.suppress(OSError):  # kernels without swap accounting have no such file
                (self._memory / "memory.swap.max").write_text("0")
            with contextlib.suppress(OSError):
                (self._memory / "memory.oom.group").write_text("1" if together else "0")
        else:
            (self._memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
            with contextlib.suppress(OSError):
                (self._memory / "memory.memsw.limit_in_bytes").write_text(str(memory_bytes))

    @contextlib.contextmanager
    def around_start(self) -> Iterator[None]:
        """What this thread starts meanwhile is under the bounds, and one process beside those allowed: the first."""
        if self._version == 2:
            yield
            return
        try:
            self._move_here(self._folders)
            yield
        finally:
            self._move_here(self._around)

    def add(self, pid: int) -> None:
        """Put a process that was started meanwhile, and what it will start, under the bounds."""
        if self._version == 2:
            (self._memory / "cgroup.procs").write_text(str(pid))

    @staticmethod
    def _move_here(folders: set[Path]) -> None:
        for folder in folders:
            (folder / "tasks").write_text("0")  # this thread, by the kernel's word for it

    def peak_bytes(self) -> int | None:
        """The most memory that was used at one time."""
        name = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        with contextlib.suppress(OSError, ValueError):
            return int((self._memory / name).read_text())
        return None

    def cpu_s(self) -> float | None:
        """The processor time that was used."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            if self._cpu is not None and self._version == 2:
                return int((self._cpu / "cpu.stat").read_text().split("usage_usec", 1)[1].split()[0]) / 1e6
            if self._cpu is not None:
                return int((self._cpu / "cpuacct.usage").read_text()) / 1e9
        return None

    def oom_kills(self) -> int:
        """How many processes the kernel has ended because of the bound on memory."""
        name = "memory.events" if self._version == 2 else "memory.oom_control"
        with contextlib.suppress(OSError):
            rows = (line.split() for line in (self._memory / name).read_text().splitlines())
            return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)
        return 0

    def remove(self) -> None:
        """Remove the cgroup, once its processes are gone."""
        for folder in self._folders:
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:  # the last process has ended and is not yet counted out
                    time.sleep(0.002)
            else:
                _left.add(folder)

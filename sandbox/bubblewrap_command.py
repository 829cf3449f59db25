"""The command line of bubblewrap: what a program in its namespaces sees.

Order matters: what is mounted later covers what was there, and the root folder becomes read-only last.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from .errors import SandboxError
from .limits import Limits
from .seccomp import seccomp_filter

WORK = "/tmp/work"
"""The folder in which a program runs; /work leads there."""
USER_ID = 1000
_OWN = Path(__file__).resolve().parents[1]
"""The installed package, or the folder of its source."""
_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/nsswitch.conf")
_MADE_FILES = {
    "/etc/passwd": f"root:x:0:0:root:/:/bin/false\nplayer:x:{USER_ID}:{USER_ID}::{WORK}:/bin/sh\n".encode(),
    "/etc/group": b"player:x:%d:\n" % USER_ID,
}

DEFENCES = (
    *("seccomp", "landlock", "cgroup", "rlimits", "network", "processes", "environment", "capabilities"),
    *("read-only proc", "read-only root", "read-only system", "bounded disk", "end with parent", "ipc"),
)
"""What can be taken away, one at a time, to prove that `check_sandbox` notices."""

Mount = tuple[str, str, str]
"""An option of bubblewrap, a source on the host, a place in the sandbox."""


def system_mounts() -> list[Mount]:
    """The system's folders, and the Python that runs Ludus, all to be read only."""
    mounts: list[Mount] = []
    for name in _SYSTEM_FOLDERS:
        folder = Path(name)
        if folder.is_symlink():
            mounts.append(("--symlink", os.readlink(folder), name))
        elif folder.is_dir():
            mounts.append(("--ro-bind", name, name))
    mounts += [("--ro-bind", name, name) for name in _SYSTEM_FILES if os.path.exists(name)]
    return mounts + folder_mounts([sys.base_prefix])


def folder_mounts(folders: Sequence[str | Path]) -> list[Mount]:
    """Folders of the host at the same place, to be read only. SandboxError where one is not there."""
    if isinstance(folders, str | Path):
        raise SandboxError(f"read_only = {str(folders)!r} must be a list of folders: [{str(folders)!r}].")
    if not isinstance(folders, Collection) or not all(isinstance(folder, str | Path) for folder in folders):
        raise SandboxError(f"read_only = {folders!r:.100} must be a list of folders, such as ['/data'].")
    mounts: list[Mount] = []
    for folder in map(Path, folders):
        if not folder.exists():
            raise SandboxError(f"read_only: {folder} is not there; take it out or correct it.")
        for place in dict.fromkeys((str(folder.resolve()), str(folder.absolute()))):
            if not Path(place).is_relative_to("/usr"):
                mounts.append(("--ro-bind", str(folder.resolve()), place))
    return mounts


def covered_folders(mounts: Sequence[Mount]) -> list[str]:
    """Where a sandbox would show Ludus itself, whose environments hold solutions; they are covered with nothing."""
    places = []
    for option, source, target in mounts:
        if option == "--ro-bind" and _OWN.is_relative_to(Path(source).resolve()):
            places.append(str(Path(target) / _OWN.relative_to(Path(source).resolve())))
    return list(dict.fromkeys(places))


def bubblewrap_command(
    program: str,
    mounts: Sequence[Mount],
    limits: Limits,
    files: Mapping[str, bytes],
    content: Callable[[bytes], int],
    first: bool = False,
    without: Collection[str] = (),
) -> list[str]:
    """bubblewrap and its options.

    program: bubblewrap's path. mounts: those of the system, and what else may be read. content: makes a descriptor
    from which bubblewrap reads. first: whether the program is the first process of its namespace. without: of DEFENCES,
    for proofs.
    """
    kept = {name for name in DEFENCES if name not in without}
    command = [program, "--unshare-user", "--uid", str(USER_ID), "--gid", str(USER_ID), "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--hostname", "sandbox", "--new-session"]
    command += ["--unshare-ipc"] if "ipc" in kept else []
    command += ["--unshare-net"] if "network" in kept else []
    command += ["--unshare-pid", *(["--as-pid-1"] if first else [])] if "processes" in kept else []
    command += ["--die-with-parent"] if "end with parent" in kept else []
    command += ["--cap-drop", "ALL"] if "capabilities" in kept else ["--cap-add", "ALL"]
    command += ["--seccomp", str(content(seccomp_filter()))] if "seccomp" in kept else []
    path = f"{Path(sys.base_prefix) / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "player"}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    # The two folders that can be written share the room, since one size cannot be put on both.
    shared = limits.disk_bytes // 4
    sizes = [["--size", str(size)] if "bounded disk" in kept else [] for size in (limits.disk_bytes - shared, shared)]
    command += ["--proc", "/proc", *(("--remount-ro", "/proc") if "read-only proc" in kept else ())]
    command += ["--dev", "/dev", *sizes[1], "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
    command += [*sizes[0], "--tmpfs", "/tmp", "--dir", WORK, "--symlink", WORK[1:], "/work"]
    for option, source, target in mounts:
        writable = option == "--ro-bind" and "read-only system" not in kept
        command += ["--bind" if writable else option, source, target]
    for place in covered_folders(mounts):
        command += ["--tmpfs", place, "--remount-ro", place]
    for target, made in _MADE_FILES.items():
        command += ["--ro-bind-data", str(content(made)), target]
    for name, given in files.items():
        command += ["--perms", "0644", "--file", str(content(given)), f"{WORK}/{name}"]
    return [*command, *(("--remount-ro", "/") if "read-only root" in kept else ()), "--chdir", WORK]

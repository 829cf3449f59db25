"""Job: one program that a sandbox is asked to run, checked before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from .errors import SandboxError
from .limits import Limits
from .supervise import Cancellation

Files = Mapping[str, str | bytes]
"""Contents by path, relative to the folder in which a program runs."""


class Input(Protocol):
    """What a running program reads from."""

    def write(self, data: bytes, timeout_s: float | None = None) -> bool:
        """Give it some; whether there was somebody to take it, within a time if there is one."""

    def close(self) -> None:
        """That was all; more than once is once."""


class Lines(Protocol):
    """What a running program says."""

    def read_line(self, timeout_s: float) -> bytes | None:
        """The next line, without its end; None where none has come in time, and none will come after the last."""


@dataclass(frozen=True)
class Running:
    """A program that has started. oom_kills: how many of its processes the kernel has ended for want of memory."""

    input: Input
    output: Lines
    oom_kills: Callable[[], int] = lambda: 0


_LONGEST_NAME = 255
_LONGEST_ARGUMENT = 32 * 4096
"""Linux' MAX_ARG_STRLEN, with the byte that ends it."""


@dataclass(frozen=True)
class Job:
    """argv: the program and its arguments. stdin: its input; None where it comes while it runs, by what `started` is
    called with then. files: contents by path inside its folder. cancellation: ends it from another thread. keeps: it
    is the keeper of a session, to be the first process of its namespace and to outlive what it starts. trusted: nobody
    wrote it to break out, so that it may run where other trusted ones ran, once what they left is gone.
    """

    argv: tuple[str, ...]
    stdin: bytes | None
    files: Mapping[str, bytes]
    limits: Limits
    cancellation: Cancellation | None = None
    started: Callable[[Running], None] | None = None
    keeps: bool = False
    trusted: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.cancellation, Cancellation | None):
            raise SandboxError(f"cancellation = {self.cancellation!r:.100} must be a Cancellation.")


def checked_argv(argv: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a program. SandboxError where they are none."""
    if (
        not isinstance(argv, Sequence)
        or isinstance(argv, str | bytes)
        or not argv
        or not all(isinstance(arg, str) for arg in argv)
    ):
        raise SandboxError(f"argv = {argv!r:.100} must be a list of texts, the program first: ['python3', 'main.py'].")
    for arg in argv:
        if not argv[0] or "\0" in arg or not _encodes(arg):
            raise SandboxError(f"argv holds {arg!r:.100}, which no program can be given; take it out.")
    return tuple(argv)


def checked_files(files: Files | None) -> dict[str, bytes]:
    """Contents by path, as bytes. SandboxError where a path leads out of the folder, or is a file and a folder."""
    checked: dict[str, bytes] = {}
    if not isinstance(files or {}, Mapping) or not all(isinstance(name, str) for name in files or {}):
        raise SandboxError(f"files = {files!r:.100} must be contents by path: {{'main.py': 'print(42)'}}.")
    for name, content in (files or {}).items():
        path = PurePosixPath(name)
        if not path.parts or "\0" in name or path.is_absolute() or ".." in path.parts or not _encodes(name):
            raise SandboxError(f"files: {name!r:.100} must be a path inside the folder, without '..' and leading '/'.")
        if len(path.parts) > 100 or len(name) > 2_000:
            raise SandboxError(f"files: {name!r:.100} … is too long a path; use fewer and shorter names.")
        if any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_NAME for part in path.parts):
            raise SandboxError(f"files: {name!r:.100} … has a name of over {_LONGEST_NAME} bytes; use a shorter one.")
        if not isinstance(content, str | bytes):
            kind = type(content).__name__
            raise SandboxError(f"files: the content of {name!r:.100} must be text or bytes, not {kind}.")
        checked[str(path)] = as_bytes(content)
    for name in checked:
        above = next((str(one) for one in PurePosixPath(name).parents if str(one) in checked), None)
        if above is not None:
            raise SandboxError(f"files: {above!r:.100} is a file and cannot hold {name!r:.100}; rename one.")
    return checked


def checked_stdin(stdin: str | bytes) -> bytes:
    """Input as bytes. SandboxError where it is neither text nor bytes."""
    if not isinstance(stdin, str | bytes):
        raise SandboxError(f"stdin = {stdin!r:.100} must be text or bytes, not {type(stdin).__name__}.")
    return as_bytes(stdin)


def checked_limits(limits: Limits) -> Limits:
    """As they are. SandboxError where they are none."""
    if not isinstance(limits, Limits):
        raise SandboxError(f"limits = {limits!r:.100} must be Limits, such as Limits(wall_s=5).")
    return limits


def check_room(job: Job) -> None:
    """Raises SandboxError where the files leave a program too little room, or an argument is too long to be given."""
    longest = max(len(arg.encode("utf-8", "surrogateescape")) for arg in job.argv)
    if longest >= _LONGEST_ARGUMENT:
        raise SandboxError(
            f"argv: one of {longest} bytes is above the {_LONGEST_ARGUMENT - 1} that Linux takes; give it by files or "
            "stdin."
        )
    if sum(map(len, job.files.values())) > job.limits.disk_bytes // 2:
        raise SandboxError(f"files: they are over half of limits.disk_bytes = {job.limits.disk_bytes}; raise it.")


def as_bytes(content: str | bytes) -> bytes:
    """Text as UTF-8, halves of surrogate pairs as they are."""
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")


def _encodes(text: str) -> bool:
    """Whether the system can be given a text; of half a surrogate pair it knows only those that stand for odd bytes."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True

"""open_sandbox: the back end by its name."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any

from .backend import Sandbox
from .bubblewrap import Bubblewrap
from .docker_engine import Docker
from .errors import SandboxError, did_you_mean
from .limits import Limits
from .plain import Plain
from .remote import Remote

SANDBOXES: dict[str, Callable[..., Sandbox]] = {
    "bubblewrap": Bubblewrap,
    "docker": Docker,
    "remote": Remote,
    "plain": Plain,
}
AUTO = ("bubblewrap", "docker", "remote")
"""What "auto" tries, in this order."""


_shared: dict[tuple[int, str], Sandbox] = {}
_lock = threading.Lock()


def shared_sandbox(sandbox: str | Sandbox) -> Sandbox:
    """An open sandbox as it is; of each name the one that this process shares, opened at the first call."""
    name = checked_sandbox(sandbox)
    if not isinstance(name, str):
        return name
    key = os.getpid(), name
    with _lock:
        if key not in _shared:
            _shared[key] = open_sandbox(name)
        return _shared[key]


def checked_sandbox(sandbox: str | Sandbox) -> str | Sandbox:
    """A name that there is, or an open sandbox, as it is; nothing is opened. SandboxError where it is neither."""
    if isinstance(sandbox, str) and sandbox not in ("auto", *SANDBOXES):
        raise SandboxError(f"Unknown sandbox {sandbox!r}.{did_you_mean(sandbox, ['auto', *SANDBOXES])}")
    if not isinstance(sandbox, str | Sandbox):
        raise SandboxError(f"The sandbox {sandbox!r:.100} must be open, or a name: auto, {', '.join(SANDBOXES)}.")
    return sandbox


def open_sandbox(name: str = "auto", *, limits: Limits | None = None, **options: Any) -> Sandbox:
    """A sandbox to run programs in that nobody trusts.

    name: "bubblewrap"; "docker"; "remote", the server that LUDUS_SANDBOX_URL names; "auto", the first of them that can
    be had here; or "plain", which isolates nothing. limits: of every run that brings none of its own. options: of a
    back end that was named. Raises SandboxError, with what to do, where it cannot be had.

    >>> with open_sandbox(limits=Limits(wall_s=5)) as sandbox:
    ...     sandbox.run(["python3", "-c", "print(6 * 7)"]).stdout
    '42\\n'
    """
    if limits is not None and not isinstance(limits, Limits):
        raise SandboxError(f"limits = {limits!r:.100} must be Limits, such as Limits(wall_s=5).")
    if not isinstance(name, str):
        raise SandboxError(f"The sandbox {name!r:.100} must be a name, one of {', '.join(['auto', *SANDBOXES])}.")
    if name == "auto":
        if options:
            raise SandboxError(f"The sandbox 'auto' takes no option {next(iter(options))!r}; name one of {AUTO}.")
        reasons = []
        for candidate in AUTO:
            try:
                return SANDBOXES[candidate](limits)
            except SandboxError as error:
                reasons.append(f"{candidate}: {error}")
        raise SandboxError(f"No sandbox can be opened here. {' '.join(reasons)}")
    if name not in SANDBOXES:
        raise SandboxError(f"Unknown sandbox {name!r}.{did_you_mean(str(name), ['auto', *SANDBOXES])}")
    try:
        inspect.signature(SANDBOXES[name]).bind(limits, **options)
    except TypeError as error:
        raise SandboxError(f"The sandbox {name!r}: {error}.") from None
    return SANDBOXES[name](limits, **options)

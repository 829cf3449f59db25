"""open_sandbox: the back end by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bubblewrap import Bubblewrap
from .errors import SandboxError, did_you_mean
from .limits import Limits
from .plain import Plain
from .protocol import SandboxBase

SANDBOXES: dict[str, Callable[..., SandboxBase]] = {"bubblewrap": Bubblewrap, "plain": Plain}
AUTO = ("bubblewrap",)
"""What "auto" tries, in this order."""


def open_sandbox(name: str = "auto", *, limits: Limits | None = None, **options: Any) -> SandboxBase:
    """A sandbox to run programs in that nobody trusts.

    name: "bubblewrap"; "auto", the first that this machine can offer; or "plain", which isolates nothing. limits: of
    every run that brings none of its own. options: of the back end. Raises SandboxError, with what to do, where the
    machine cannot offer it.

    >>> with open_sandbox(limits=Limits(wall_s=5)) as sandbox:
    ...     sandbox.run(["python3", "-c", "print(6 * 7)"]).stdout
    '42\\n'
    """
    if limits is not None and not isinstance(limits, Limits):
        raise SandboxError(f"limits = {limits!r:.100} must be Limits, such as Limits(wall_s=5).")
    if name == "auto":
        reasons = []
        for candidate in AUTO:
            try:
                return SANDBOXES[candidate](limits, **options)
            except SandboxError as error:
                reasons.append(f"{candidate}: {error}")
        raise SandboxError(f"No sandbox can be opened here. {' '.join(reasons)}")
    if name not in SANDBOXES:
        raise SandboxError(f"Unknown sandbox {name!r}.{did_you_mean(str(name), ['auto', *SANDBOXES])}")
    return SANDBOXES[name](limits, **options)

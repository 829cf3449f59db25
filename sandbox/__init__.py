"""Run code nobody trusts: the ground floor of the house."""

from __future__ import annotations

from typing import TYPE_CHECKING

if __name__ != "ludus.sandbox":
    raise ImportError(
        f"This folder is installed as ludus.sandbox: write 'import ludus.sandbox' instead of 'import {__name__}'."
    )

from .lazy import lazy_names

if TYPE_CHECKING:
    from .backend import Sandbox
    from .check import check_sandbox
    from .check_report import CheckFailed, CheckReport, CheckRow
    from .choose import open_sandbox
    from .errors import LudusError, SandboxError
    from .limits import Limits
    from .result import Result, Status, Usage
    from .session import Session
    from .supervise import Cancellation

_HOMES = {
    "backend": ("Sandbox",),
    "check": ("check_sandbox",),
    "check_report": ("CheckFailed", "CheckReport", "CheckRow"),
    "choose": ("open_sandbox",),
    "errors": ("LudusError", "SandboxError"),
    "limits": ("Limits",),
    "result": ("Result", "Status", "Usage"),
    "session": ("Session",),
    "supervise": ("Cancellation",),
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Cancellation",
    "CheckFailed",
    "CheckReport",
    "CheckRow",
    "Limits",
    "LudusError",
    "Result",
    "Sandbox",
    "SandboxError",
    "Session",
    "Status",
    "Usage",
    "check_sandbox",
    "open_sandbox",
]

"""Say whether a response is right. May use the sandbox."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "ludus.verifiers":
    raise ImportError(
        f"This folder is installed as ludus.verifiers: write 'import ludus.verifiers' instead of 'import {__name__}'."
    )

if TYPE_CHECKING:
    from .math.verifier import MathVerifier, verify_math, verify_math_async, verify_math_many
    from .verdict import InfrastructureError, Outcome, Verdict
    from .verifier import Verifier

_HOMES = {
    "math.verifier": ("MathVerifier", "verify_math", "verify_math_async", "verify_math_many"),
    "verdict": ("InfrastructureError", "Outcome", "Verdict"),
    "verifier": ("Verifier",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "InfrastructureError",
    "MathVerifier",
    "Outcome",
    "Verdict",
    "Verifier",
    "verify_math",
    "verify_math_async",
    "verify_math_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

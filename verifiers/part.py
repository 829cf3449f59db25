"""Parts of a rubric: their names, and how a child is asked so that whatever it does ends as its own verdict.

Invariant: a child that fails is an ERROR and never a number; a wrong set-up (VerifierError) passes through.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping
from numbers import Real
from typing import Any

from .errors import VerifierError
from .verdict import InfrastructureError, Outcome, Verdict
from .verifier import Verifier

NOT_ASKED = "not asked"
"""The reason of a part that its rubric had no need to ask; it is UNDECIDED, and counted apart from those that were."""

RESERVED = ("correct", "shaping", "charge", "undecided", "error", "not_asked")
"""Names that rewards and metrics have beside those of parts."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")
_MAX_REASON_CHARS = 500


def not_asked() -> Verdict:
    """The verdict of a part that was not asked."""
    return Verdict.undecided(NOT_ASKED)


def was_asked(verdict: Verdict) -> bool:
    """Whether a part is there because its verifier was asked."""
    return verdict.outcome is not Outcome.UNDECIDED or verdict.reason != NOT_ASKED


def ask(child: Verifier, gold: Any, response: str, prompt: str) -> Verdict:
    """What a child says of a response; ERROR where it raises or returns no verdict. Raises VerifierError alone."""
    try:
        verdict = child.verify(gold, response, prompt=prompt)
    except VerifierError:
        raise
    except InfrastructureError as error:
        return Verdict.error(str(error)[:_MAX_REASON_CHARS])
    except Exception as error:
        # Not str(error), which may raise in its turn.
        said = " ".join("".join(traceback.format_exception_only(error)).split())
        return Verdict.error(f"the verifier raised {said}"[:_MAX_REASON_CHARS])
    if not isinstance(verdict, Verdict):
        return Verdict.error(f"the verifier returned {type(verdict).__name__} and not a Verdict")
    return verdict


def first_error(parts: Mapping[str, Verdict]) -> str | None:
    """ "NAME: why" of the first part that is ERROR, or None."""
    for name, part in parts.items():
        if part.outcome is Outcome.ERROR:
            return f"{name}: {part.reason}"[:_MAX_REASON_CHARS]
    return None


def check_children(rubric: str, children: object) -> dict[str, Verifier]:
    """The children of a rubric. Raises VerifierError where there are none, a name cannot stand in a path, or one is
    no verifier."""
    if not isinstance(children, Mapping) or not children:
        raise VerifierError(f'{rubric} needs at least one child; give it a dictionary such as {{"answer": verifier}}.')
    for name, child in children.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise VerifierError(
                f"{rubric}: a child cannot be called {name!r}; use letters, digits, spaces, dots, dashes, underscores."
            )
        if name in RESERVED:
            raise VerifierError(f"{rubric}: the name {name!r} is taken by Ludus; call the child something else.")
        if isinstance(child, type) or not isinstance(child, Verifier):
            raise VerifierError(f"{rubric}: the child {name!r} is no verifier; give an object with a method verify.")
    return dict(children)


def is_finite(value: object) -> bool:
    """Whether a value is a number that a float can hold, NumPy's included; True and False are none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float can hold
        return False


def is_penalty(child: Verifier) -> bool:
    """Whether a verifier only ever takes away, so that its 0 is nothing that was earned."""
    return getattr(child, "penalty", False) is True

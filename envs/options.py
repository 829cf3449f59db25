"""Options of environments: of what kind each must be, told in one sentence where it is of another."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .errors import EnvError


def check_list(option: str, given: object) -> None:
    """Raise EnvError where an option is neither None nor a list."""
    if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
        raise EnvError(f"{option} = {given!r:.100} must be a list; write [{given!r:.100}].")


def check_text(option: str, given: object) -> None:
    """Raise EnvError where an option is neither None nor text."""
    if given is not None and not isinstance(given, str):
        raise EnvError(f"{option} = {given!r:.100} must be text (str); put it in quotes, or leave it out.")


def check_path(option: str, given: object) -> None:
    """Raise EnvError where an option is neither None nor the path of a file or folder."""
    if given is not None and not isinstance(given, str | os.PathLike):
        raise EnvError(f"{option} = {given!r:.100} must be a path; put it in quotes, or leave it out.")

"""LudusError: the failures that are the user's to fix."""

from __future__ import annotations


class LudusError(Exception):
    """An error whose text is one sentence that names the fix; the command line prints it and exits with 2."""

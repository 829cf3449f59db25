"""The program in a response."""

from __future__ import annotations

import re

MAX_CHARS = 200_000
"""A longer program is wrong unread."""
_FENCED = re.compile(r"^```[ \t]*([\w+-]*)[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "py", "python3")


def find_program(response: str) -> str:
    """The last code block that is Python or says no language, else the whole response.

    What was only thought is left out. A block that is not closed goes to the end.
    """
    said = response.rpartition("</think>")[2]
    blocks = [match[2] for match in _FENCED.finditer(said) if match[1].lower() in _PYTHON]
    if blocks:
        return blocks[-1]
    opened = re.search(r"^```[ \t]*(?:python3?|py)?[ \t]*\n", said, re.MULTILINE)
    return said[opened.end() :] if opened else said


def defines(program: str, name: str) -> bool:
    """Whether a program defines a function at its outermost level, as far as its lines show."""
    return re.search(rf"^(?:async\s+)?def\s+{name}\b|^{name}\s*(?::[^=\n]*)?=", program, re.MULTILINE) is not None

"""The program in a response.

Invariant: linear in the response, whatever it holds.
"""

from __future__ import annotations

import re

MAX_CHARS = 200_000
"""A longer program is wrong unread."""
_FENCE = "```"
_PYTHON = ("", "python", "py", "python3")


def find_program(response: str) -> str:
    """The last code block that is Python or says no language, else the whole response.

    What was only thought is left out. A block that is not closed goes to the end.
    """
    said = response.rpartition("</think>")[2]
    program, language, lines = None, None, []
    for line in said.splitlines(keepends=True):
        if not line.startswith(_FENCE):
            lines.append(line)
        elif language is None:  # the fence opens a block
            language, lines = (line[len(_FENCE) :].split() or [""])[0].lower(), []
        else:
            program = "".join(lines) if language in _PYTHON else program
            language = None
    if language in _PYTHON:
        program = "".join(lines)
    return said if program is None else program


def defines(program: str, name: str) -> bool:
    """Whether a program defines a function at its outermost level, as far as its lines show."""
    return (
        re.search(rf"^(?:async[ \t]+)?def[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]*)?=", program, re.MULTILINE) is not None
    )

"""The program in a response.

Invariant: linear in the response, whatever it holds.
"""

from __future__ import annotations

import re

from .languages import LANGUAGES

MAX_CHARS = 200_000
"""A longer program is wrong unread."""
_FENCE = "```"


def find_program(response: str, language: str = "python") -> str:
    """The last code block that is of a language, or says none, else the whole response.

    What was only thought is left out. A block that is not closed goes to the end. language: a key of LANGUAGES.
    """
    names = ("", *LANGUAGES[language].names)
    said = response.rpartition("</think>")[2]
    program, block, lines = None, None, []
    for line in said.splitlines(keepends=True):
        if not line.startswith(_FENCE):
            lines.append(line)
        elif block is None:  # the fence opens a block
            block, lines = (line[len(_FENCE) :].split() or [""])[0].lower(), []
        else:
            program = "".join(lines) if block in names else program
            block = None
    if block in names:
        program = "".join(lines)
    return said if program is None else program


def defines(program: str, name: str) -> bool:
    """Whether a program defines a function at its outermost level, as far as its lines show."""
    return (
        re.search(rf"^(?:async[ \t]+)?def[ \t]+{name}\b|^{name}[ \t]*(?::[^=\n]*)?=", program, re.MULTILINE) is not None
    )

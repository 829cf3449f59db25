"""The languages of programs: how a program of each is made ready in a sandbox, and how it is run there.

Invariant: what is made ready holds no process of the candidate. Each run gets it anew, as bytes from this process, so
that nothing a program does reaches its next run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from ...sandbox.backend import Sandbox
from ...sandbox.errors import SandboxError
from ...sandbox.limits import MIB, Limits
from ...sandbox.result import Result, Status
from .relay import CandidateLost, CaseOutcome

COMPILING = Limits(wall_s=30.0, cpu_s=30.0, memory_bytes=1024 * MIB, disk_bytes=256 * MIB, file_bytes=16 * MIB)
"""Of a compiler, whatever the limits of a run are; but what it makes must leave a run half of its room."""


@dataclass(frozen=True)
class Language:
    """A row of LANGUAGES.

    names: of its code blocks, in lower case. source: the file that the program is written to. compile: reads that file
    and, as it runs nothing of it, needs no trust; () where there is nothing to do. made: the file that `run` needs.
    complaint: a pattern of the line that says what is wrong; "" for the last line. broken: how a complaint of `run`
    begins where the program is none. tool: what must be there, package: what brings it. hello: a program that prints
    42 and a line end, wherever the tool works.
    """

    names: tuple[str, ...]
    source: str
    compile: tuple[str, ...]
    made: str
    run: tuple[str, ...]
    complaint: str
    broken: tuple[str, ...]
    tool: str
    package: str
    hello: str


LANGUAGES = {
    "python": Language(
        names=("python", "py", "python3"),
        source="main.py",
        compile=(),
        made="main.py",
        run=("python3", "main.py"),
        complaint="",
        broken=("SyntaxError", "IndentationError", "TabError"),
        tool="python3",
        package="python3",
        hello="print(6 * 7)",
    ),
    "cpp": Language(
        names=("cpp", "c++", "cc", "cxx"),
        source="main.cpp",
        compile=("g++", "-O2", "-std=c++17", "-o", "main", "main.cpp"),
        made="main",
        run=("sh", "-c", "chmod +x main && exec ./main"),  # a file that a sandbox is given is not executable
        complaint=r"\berror: |undefined reference",
        broken=(),
        tool="g++",
        package="g++",
        hello="#include <iostream>\nint main() { std::cout << 6 * 7 << std::endl; }",
    ),
    "javascript": Language(
        names=("javascript", "js", "node"),
        source="main.js",
        compile=("node", "--check", "main.js"),  # else a SyntaxError of JSON.parse looks like one of the program
        made="main.js",
        run=("node", "main.js"),
        complaint=r"^\w*(Error|Rejection)\b",
        broken=(),
        tool="node",
        package="nodejs",
        hello="console.log(6 * 7)",
    ),
}


def make_program(
    sandbox: Sandbox, language: Language, program: str, limits: Limits, until: float
) -> Mapping[str, str | bytes]:
    """The files that `language.run` needs. limits: of the runs. until: in time.monotonic(), when compiling must have
    ended. CandidateLost where the program does not compile."""
    if not language.compile:
        return {language.made: program}
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise CandidateLost(CaseOutcome("timeout", "No time was left to compile it."))
    try:
        with sandbox.open_session(COMPILING) as session:
            session.write_file(language.source, program)
            file_bytes = min(COMPILING.file_bytes, limits.disk_bytes // 2)
            bounds = COMPILING.but(file_bytes=file_bytes, wall_s=min(COMPILING.wall_s, left_s))
            result = session.exec(language.compile, limits=bounds)
            made = session.read_file(language.made) if result.ok else b""
    except SandboxError as error:
        raise CandidateLost(CaseOutcome("failed", str(error))) from None
    if result.status is Status.FAILED:
        raise CandidateLost(CaseOutcome("failed", result.reason))
    if result.status is not Status.EXITED:
        raise CandidateLost(CaseOutcome("compile", f"{language.tool}: {result.reason}"))
    if result.exit_code != 0:
        raise CandidateLost(CaseOutcome("compile", complaint(language, result)))
    return {language.made: made}


def complaint(language: Language, result: Result) -> str:
    """The line of standard error that says why a program, or its compiler, ended as it did."""
    lines = result.stderr.strip().splitlines()
    found = [line for line in lines if re.search(language.complaint, line)] if language.complaint else []
    return (found or lines[-1:] or [f"exit code {result.exit_code}"])[0].strip()[:500]

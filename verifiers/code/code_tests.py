"""The tests of a programming task: what a program must print for an input, or what a function must return.

Written as plain data, so that a task's answer is JSON: see `read_tests`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import VerifierError


@dataclass(frozen=True)
class InputCase:
    """A program that reads `stdin` must print `stdout`. group: cases that belong together."""

    stdin: str
    stdout: str
    group: str = ""


@dataclass(frozen=True)
class CallCase:
    """function(*args, **kwargs) must return `expected`; numbers may differ by `tolerance`, absolute or relative."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    expected: Any
    tolerance: float = 0.0
    group: str = ""


@dataclass(frozen=True)
class CheckFunction:
    """`check(candidate)` must return. prefix: code that the tests need, such as the task's helper functions."""

    source: str
    prefix: str = ""


@dataclass(frozen=True)
class CodeTests:
    """cases: all of one kind. entry_point: the function's name, for calls. prefix: code to put before a response that
    does not define the function, as a completion of the prompt."""

    cases: tuple[InputCase | CallCase | CheckFunction, ...]
    entry_point: str = ""
    prefix: str = ""


_FORMS = (
    '{"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}, '
    '{"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}]} or '
    '{"entry_point": "add", "check": "def check(candidate): assert candidate(1, 2) == 3"}'
)


def read_tests(gold: Any) -> CodeTests:
    """The tests in a task's answer. Raises VerifierError, with the forms there are, where it holds none."""
    if not isinstance(gold, Mapping):
        raise VerifierError(f"The tests {gold!r:.100} must be one of {_FORMS}; correct the task.")
    unknown = set(gold) - {"cases", "check", "entry_point", "prefix"}
    if unknown or ("cases" in gold) == ("check" in gold):
        raise VerifierError(f"The tests have the keys {sorted(gold)}, but must be one of {_FORMS}; correct the task.")
    entry_point, prefix = gold.get("entry_point", ""), gold.get("prefix", "")
    if (
        not isinstance(entry_point, str)
        or not isinstance(prefix, str)
        or (entry_point and not entry_point.isidentifier())
    ):
        raise VerifierError(f"The tests name the function {entry_point!r}, which is no name; correct the task.")
    if "check" in gold:
        if not entry_point or not isinstance(gold["check"], str) or "def check(" not in gold["check"]:
            raise VerifierError(
                "The tests have a check without entry_point or `def check(candidate)`; correct the task."
            )
        return CodeTests((CheckFunction(gold["check"], prefix),), entry_point, prefix)
    rows = gold["cases"]
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise VerifierError(f"The tests hold no cases; they must be one of {_FORMS}; correct the task.")
    return CodeTests(tuple(_case(row, entry_point) for row in rows), entry_point, prefix)


def _case(row: Any, entry_point: str) -> InputCase | CallCase:
    if not isinstance(row, Mapping):
        raise VerifierError(f"The case {row!r:.100} is no object; the tests must be one of {_FORMS}; correct the task.")
    group = str(row.get("group", ""))
    if not entry_point and isinstance(row.get("stdin", ""), str) and isinstance(row.get("stdout"), str):
        return InputCase(row.get("stdin", ""), row["stdout"], group)
    if entry_point and "expected" in row and not set(row) - {"args", "kwargs", "expected", "tolerance", "group"}:
        args, kwargs = row.get("args", ()), row.get("kwargs", {})
        tolerance = float(row.get("tolerance", 0.0))
        return CallCase(tuple(args), dict(kwargs), row["expected"], tolerance, group)
    raise VerifierError(
        f"The case {dict(row)!r:.200} does not fit; the tests must be one of {_FORMS}; correct the task."
    )

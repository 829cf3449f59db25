"""The tests of a programming task: what a program must print for an input, or what a function must return.

Written as plain data, so that a task's answer is JSON: see `read_tests`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR, CO_NEWLOCALS, CO_VARARGS
from keyword import iskeyword
from types import CodeType
from typing import Any

from ...sandbox.errors import did_you_mean
from ..errors import VerifierError
from .languages import LANGUAGES
from .plain_values import NotPlain, decode, encode


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
    does not define the function, as a completion of the prompt. language: of the program, a key of LANGUAGES."""

    cases: tuple[InputCase | CallCase | CheckFunction, ...]
    entry_point: str = ""
    prefix: str = ""
    language: str = "python"


_FORMS = (
    '{"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}, '
    '{"entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}]} or '
    '{"entry_point": "add", "check": "def check(candidate): assert candidate(1, 2) == 3"}'
)


def read_tests(gold: Any) -> CodeTests:
    """The tests in a task's answer. Raises VerifierError, with the forms there are, where it holds none."""
    if not isinstance(gold, Mapping):
        raise VerifierError(f"The tests {shown(gold)} must be one of {_FORMS}; correct the task.")
    unknown = set(gold) - {"cases", "check", "entry_point", "prefix", "language"}
    if unknown or ("cases" in gold) == ("check" in gold):
        raise VerifierError(
            f"The tests have the keys {sorted(map(str, gold))}, but must be one of {_FORMS}; correct the task."
        )
    entry_point, prefix = gold.get("entry_point", ""), gold.get("prefix", "")
    if (
        not isinstance(entry_point, str)
        or not isinstance(prefix, str)
        or (entry_point and (not entry_point.isidentifier() or iskeyword(entry_point)))
    ):
        raise VerifierError(f"The tests name the function {shown(entry_point)}, which is no name; correct the task.")
    language = gold.get("language", "python")
    if not isinstance(language, str) or language not in LANGUAGES:
        hint = did_you_mean(str(language), LANGUAGES)
        raise VerifierError(f"The tests have the unknown language {language!r:.100}; correct the task.{hint}")
    if language != "python" and (entry_point or "check" in gold):
        raise VerifierError(
            f"The tests call a function, which only Python can be asked to, but have the language {language!r}; "
            "correct the task to cases of stdin and stdout, or take the language out."
        )
    if "check" in gold:
        _compiled("prefix", prefix)
        if not entry_point or not isinstance(gold["check"], str) or not _checks(_compiled("check", gold["check"])):
            raise VerifierError(
                "The tests have a check without entry_point or `def check(candidate)`; correct the task."
            )
        return CodeTests((CheckFunction(gold["check"], prefix),), entry_point, prefix)
    rows = gold["cases"]
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        raise VerifierError(f"The tests hold no cases; they must be one of {_FORMS}; correct the task.")
    return CodeTests(tuple(_case(row, entry_point) for row in rows), entry_point, prefix, language)


def _compiled(name: str, source: str) -> CodeType:
    try:
        return compile(source, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise VerifierError(f"The tests' {name} is no Python ({str(error) or 'too deep'}); correct the task.") from None


def _checks(source: CodeType) -> bool:
    """Whether it defines an ordinary function `check` that takes something, at its outermost level."""
    lazy = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR  # which a call does not run
    functions = [one for one in source.co_consts if isinstance(one, CodeType) and one.co_flags & CO_NEWLOCALS]
    return any(
        one.co_name == "check" and (one.co_argcount or one.co_flags & CO_VARARGS) and not one.co_flags & lazy
        for one in functions
    )


def shown(value: Any) -> str:
    """The beginning of a value as text. Python shows no number of more than some thousand digits."""
    try:
        return f"{value!r:.200}"
    except ValueError:
        return f"a {type(value).__name__} that is too large to be shown"


def _case(row: Any, entry_point: str) -> InputCase | CallCase:
    if not isinstance(row, Mapping):
        raise VerifierError(f"The case {shown(row)} is no object; the tests must be one of {_FORMS}; correct the task.")
    group = str(row.get("group", ""))
    if not entry_point and isinstance(row.get("stdin", ""), str) and isinstance(row.get("stdout"), str):
        if any("\ud800" <= char <= "\udfff" for char in row.get("stdin", "") + row["stdout"]):
            raise VerifierError(f"The case {shown(dict(row))} holds half a character; correct the task.")
        return InputCase(row.get("stdin", ""), row["stdout"], group)
    if entry_point and "expected" in row and not set(row) - {"args", "kwargs", "expected", "tolerance", "group"}:
        args, kwargs, tolerance = row.get("args", ()), row.get("kwargs", {}), row.get("tolerance", 0.0)
        if (
            not isinstance(args, list | tuple)
            or not isinstance(kwargs, Mapping)
            or not all(isinstance(name, str) for name in kwargs)
        ):
            raise VerifierError(
                f"The case {shown(dict(row))} needs a list of args and an object of kwargs; correct it."
            )
        if (
            isinstance(tolerance, bool)
            or not isinstance(tolerance, int | float)
            or not 0 <= tolerance <= sys.float_info.max
        ):
            raise VerifierError(f"The tolerance {shown(tolerance)} must be a number, 0 or more; correct the task.")
        try:
            # As they come through the channel, so that what a candidate returns can be the same.
            args, kwargs, expected = (decode(encode(value)) for value in (tuple(args), dict(kwargs), row["expected"]))
        except NotPlain as error:
            raise VerifierError(f"The case {shown(dict(row))} cannot be sent to a program: {error}.") from None
        return CallCase(args, kwargs, expected, float(tolerance), group)
    raise VerifierError(
        f"The case {shown(dict(row))} does not fit; the tests must be one of {_FORMS}; correct the task."
    )

"""JsonSchema: is a response one JSON value that a schema allows?

Invariant: no response makes validating it take longer than the time given, and nothing is fetched.
"""

from __future__ import annotations

import copy
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from fractions import Fraction
from functools import cache
from typing import Any, Literal, get_args

from .errors import VerifierError
from .json_value import NotJSON, comparable, parse_json, shortened
from .verdict import Verdict

Extract = Literal["auto", "fenced", "bare"]
"""fenced: the last ```json block of the response, or a ``` block that is all of it. bare: the whole response. auto:
fenced if there is one, else bare. Whatever precedes the last </think> is no part of the response."""

MAX_RESPONSE_CHARS = 1_000_000
"""A longer response is wrong unread."""

_OPENING = re.compile(r"^[ \t]*```[ \t]*json[ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_CLOSING = re.compile(r"^[ \t]*```[ \t\r]*$", re.MULTILINE)
_UNTAGGED = re.compile(r"```[ \t\r]*\n(.*)\n[ \t]*```", re.DOTALL)
_DEADLINE: ContextVar[float] = ContextVar("deadline")
"""When, on the thread's own clock, the validation under way has to stop."""


class _TooLong(Exception):
    """The time is up."""


class JsonSchema:
    """CORRECT where the response is JSON that the schema allows, and, if asked for, equals the right answer.

    schema: a JSON Schema, of draft 2020-12 where it does not say which in "$schema". It may refer to its own parts
    alone: nothing is ever fetched. extract: where the JSON stands, see `Extract`. compare: whether it must also equal
    the gold answer, a JSON value (not its text): objects in any order of names, numbers by value, so that 1 is 1.0.
    timeout_s: processor time for one response.
    """

    def __init__(
        self,
        schema: dict[str, Any] | bool,
        *,
        extract: Extract = "auto",
        compare: bool = False,
        timeout_s: float = 2.0,
    ) -> None:
        if extract not in get_args(Extract):
            raise VerifierError(f"extract = {extract!r} is unknown; choose 'auto', 'fenced' or 'bare'.")
        if not 0 < timeout_s < 3600:
            raise VerifierError(f"timeout_s = {timeout_s} must be above 0 and below 3600 seconds.")
        self.schema = copy.deepcopy(schema)
        self.extract: Extract = extract
        self.compare = compare
        self.timeout_s = timeout_s
        self._validator = _make_validator(self.schema)

    def verify(self, gold: Any, response: str, *, prompt: str = "") -> Verdict:
        """CORRECT, WRONG, or UNDECIDED where the time ran out. Raises VerifierError for a gold the schema forbids."""
        if self.compare:
            self._check_gold(gold)
        try:
            value = parse_json(self._extracted(response))
        except NotJSON as error:
            return Verdict.wrong(f"The response is not one JSON value: {error}.")
        try:
            fault = self._fault(value)
        except (_TooLong, TimeoutError):
            return Verdict.undecided(f"Validating did not come to an end within {self.timeout_s:g} s.")
        except RecursionError:
            return Verdict.undecided("The schema went deeper into the JSON than Python's stack allows.")
        if fault is not None:
            return Verdict.wrong(f"The schema does not allow it: {fault}.")
        if self.compare and comparable(value) != comparable(gold):
            return Verdict.wrong("The JSON value is not the right one.", expected=gold)
        return Verdict.correct("The JSON value is right." if self.compare else "The schema allows the JSON value.")

    def _extracted(self, response: str) -> str:
        if len(response) > MAX_RESPONSE_CHARS:
            raise NotJSON(f"it is longer than {MAX_RESPONSE_CHARS:,} characters")
        response = response.rpartition("</think>")[2]
        *_, last = [None, *_OPENING.finditer(response)] if self.extract != "bare" else [None]
        if last is None:
            if self.extract != "bare" and (block := _UNTAGGED.fullmatch(response.strip())) is not None:
                return block[1]
            if self.extract == "fenced":
                raise NotJSON("there is no ```json block")
            return response
        close = _CLOSING.search(response, last.end())
        if close is None:
            raise NotJSON("the last ```json block is not closed")
        return response[last.end() : close.start()]

    def _fault(self, value: Any) -> str | None:
        """The first thing that the schema does not allow, or None."""
        token = _DEADLINE.set(time.thread_time() + self.timeout_s)
        try:
            error = next(self._validator.iter_errors(value), None)
        finally:
            _DEADLINE.reset(token)
        if error is None:
            return None
        where = "".join(f"[{part!r}]" for part in list(error.absolute_path)[:20])
        return f"{shortened(error.message)}{f', at {where[:200]}' if where else ''}"

    def _check_gold(self, gold: Any) -> None:
        try:
            value = parse_json(json.dumps(gold, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise VerifierError(f"The right answer is no JSON value: {error}; correct the task.") from None
        try:
            fault = self._fault(value)
        except (_TooLong, TimeoutError, RecursionError):
            fault = "it cannot be validated within the limits"
        if fault is not None:
            raise VerifierError(f"The schema does not allow the right answer: {fault}; correct the task or the schema.")


# Validating


def _make_validator(schema: Any) -> Any:
    """A validator of the schema's draft. VerifierError where the schema is not valid, or refers to what it has not."""
    import jsonschema
    import referencing.exceptions
    from referencing.jsonschema import EMPTY_REGISTRY

    if not isinstance(schema, dict | bool):
        raise VerifierError(f"A schema is a dictionary, true or false, not {schema!r:.100}; correct it.")
    base = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        json.dumps(schema, allow_nan=False)
        base.check_schema(schema)
        _check_parts(schema, base)
        validator = _bounded(base)(schema, registry=EMPTY_REGISTRY)
        token = _DEADLINE.set(math.inf)
        try:
            probes: list[Any] = [None, True, 0, 0.5, "", [], {}]
            for probe in probes:
                next(validator.iter_errors(probe), None)
        finally:
            _DEADLINE.reset(token)
    except jsonschema.SchemaError as error:
        raise VerifierError(f"The schema is not valid: {shortened(error.message)}; correct it.") from None
    except (TypeError, ValueError) as error:
        raise VerifierError(f"The schema is not JSON: {error}; correct it.") from None
    except RecursionError:
        raise VerifierError("The schema refers to itself without end; correct its $ref.") from None
    except referencing.exceptions.Unresolvable as error:
        raise VerifierError(
            f"The schema refers to {error.ref!r}, which is not in it, and nothing is fetched; copy it into $defs."
        ) from None
    return validator


def _check_parts(schema: Any, base: Any) -> None:
    """Look up every reference of a valid schema, compile every pattern, and refuse what would run without a limit."""
    import regex
    from referencing.jsonschema import EMPTY_REGISTRY, specification_with

    specification = specification_with(base.ID_OF(base.META_SCHEMA).rstrip("#"))
    whole = specification.create_resource(schema)
    registry = whole @ EMPTY_REGISTRY if whole.id() else EMPTY_REGISTRY.with_resource("", whole)
    todo = [(whole, registry.crawl().resolver(whole.id() or ""))]
    keywords: set[str] = set()
    while todo:
        part, resolver = todo.pop()
        if isinstance(part.contents, dict):
            keywords |= part.contents.keys()
            for name in ("$ref", "$dynamicRef", "$recursiveRef"):
                if isinstance(part.contents.get(name), str):
                    resolver.lookup(part.contents[name])
            for pattern in [part.contents.get("pattern"), *part.contents.get("patternProperties", ())]:
                try:
                    regex.compile(pattern or "")
                except regex.error as error:
                    raise VerifierError(
                        f"The schema's pattern {pattern!r:.200} is no regular expression: {error}; correct it."
                    ) from None
        todo += [(inner, resolver.in_subresource(inner)) for inner in part.subresources()]
    if {"patternProperties", "unevaluatedProperties"} <= keywords:
        raise VerifierError(
            "A schema with patternProperties may not have unevaluatedProperties; use additionalProperties instead."
        )


@cache
def _bounded(base: Any) -> Any:
    """The validator class of a draft, in which every keyword looks at the clock and patterns have a time limit."""
    import jsonschema

    ours = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
        "multipleOf": _multiple_of,
        "anyOf": _any_of,
        "oneOf": _one_of,
    }
    keywords = {name: _timed(ours.get(name, check)) for name, check in base.VALIDATORS.items()}
    return jsonschema.validators.extend(base, keywords)


Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def _timed(check: Check) -> Check:
    def timed(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        _time_left()
        yield from check(validator, value, instance, schema) or ()

    return timed


def _time_left() -> float:
    """Seconds of processor time. Raises _TooLong where there are none."""
    left = _DEADLINE.get() - time.thread_time()
    if left <= 0:
        raise _TooLong
    return left


def _matches(pattern: str, text: str) -> bool:
    import regex

    left = _time_left()
    return regex.search(pattern, text, timeout=None if left == math.inf else left, concurrent=True) is not None


def _error(message: str) -> Any:
    import jsonschema

    return jsonschema.ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield _error(f"{shortened(repr(instance))} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for name, value in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(value, inner, path=name, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, value in instance.items():
            if name not in named and not any(_matches(pattern, name) for pattern in patterns):
                if inner is False:
                    yield _error(f"the name {shortened(repr(name))} is not foreseen")
                yield from validator.descend(value, inner, path=name)


def _unique_items(validator: Any, unique: bool, instance: Any, schema: Any) -> Iterator[Any]:
    if unique and isinstance(instance, list) and len(set(map(comparable, instance))) < len(instance):
        yield _error("an array has an item twice")


def _multiple_of(validator: Any, divisor: Any, instance: Any, schema: Any) -> Iterator[Any]:
    # As the numbers are written: in binary, 19.99 is no multiple of 0.01.
    if isinstance(instance, int | float) and not isinstance(instance, bool) and _exact(instance) % _exact(divisor):
        yield _error(f"{shortened(repr(instance))} is not a multiple of {divisor!r}")


def _exact(number: int | float) -> Fraction:
    return Fraction(repr(number) if isinstance(number, float) else number)


def _any_of(validator: Any, choices: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    # jsonschema's own collects all errors of all choices, which may be many.
    if not any(_allows(validator, index, choice, instance) for index, choice in enumerate(choices)):
        yield _error(f"{shortened(repr(instance))} is none of what anyOf allows")


def _one_of(validator: Any, choices: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    count = sum(_allows(validator, index, choice, instance) for index, choice in enumerate(choices))
    if count != 1:
        yield _error(f"{shortened(repr(instance))} is {count} of what oneOf allows, not one")


def _allows(validator: Any, index: int, choice: Any, instance: Any) -> bool:
    return next(validator.descend(instance, choice, schema_path=index), None) is None

"""Tool calls in assistant text: find them, check them, write them. Parsing never raises, on any text.

Two dialects. "json", as Qwen and Hermes write it, any number per turn:
    <tool_call>{"name": "calculator", "arguments": {"expression": "3*4"}}</tool_call>
"tag", for tools with exactly one text parameter: <calculator>3*4</calculator>
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import EnvError, ToolError, did_you_mean
from .tool import Tool

Dialect = Literal["json", "tag"]

MAX_CALLS = 32
"""Calls that one message may make; what follows is answered with one sentence."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_TAG = re.compile(r"<(/?)([A-Za-z_][A-Za-z0-9_]{0,63})>")


@dataclass(frozen=True)
class ToolCall:
    """A call that can be run: the tool exists and the arguments fit it."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class MalformedCall:
    """Something that was meant as a call. `problem` is the observation: what is wrong and how to write it."""

    problem: str


def check_dialect(tools: Sequence[Tool], dialect: Dialect) -> None:
    """Raise EnvError where the dialect is unknown, cannot express a tool, or two tools share a name."""
    if dialect not in ("json", "tag"):
        raise EnvError(f"Unknown tool dialect {dialect!r}.{did_you_mean(str(dialect), ('json', 'tag'))}")
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise EnvError(f"Two tools share a name: {', '.join(names)}; rename one.")
    for tool in tools:
        if dialect == "tag" and tool.only_text_parameter is None:
            raise EnvError(
                f"The tool {tool.name} does not have exactly one text parameter, so it cannot be called as "
                f"<{tool.name}>…</{tool.name}>; use dialect='json'."
            )


def render_call(tool: Tool, arguments: Mapping[str, Any], dialect: Dialect) -> str:
    """The text of a call, which `parse_calls` reads back. Raises EnvError where the dialect cannot express it."""
    if dialect == "json":
        return f"{_OPEN}{json.dumps({'name': tool.name, 'arguments': dict(arguments)}, ensure_ascii=False)}{_CLOSE}"
    check_dialect([tool], dialect)
    return f"<{tool.name}>{arguments[tool.only_text_parameter or '']}</{tool.name}>"


def write_call(name: str, arguments: str, tools: Sequence[Tool], dialect: Dialect) -> str:
    """The text of a call that an endpoint gave apart from the text; `parse_calls` reads it back.

    arguments: JSON. What is none stays text in it, and is answered as any malformed call.
    """
    value: Any
    try:
        value = json.loads(arguments or "{}", parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        value = arguments
    tool = next((tool for tool in tools if tool.name == name), None)
    if dialect == "tag" and tool is not None and isinstance(value, dict) and list(value) == [tool.only_text_parameter]:
        return render_call(tool, value, dialect)
    text = json.dumps({"name": name, "arguments": value}, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps({"name": name, "arguments": value})
    if _OPEN in text or _CLOSE in text:
        text = text.replace("<", "\\u003c")  # in JSON it stands in strings alone, and means the same there
    return f"{_OPEN}{text}{_CLOSE}"


def parse_calls(text: str, tools: Sequence[Tool], dialect: Dialect) -> list[ToolCall | MalformedCall]:
    """Every call in the text, in order; [] where the text makes none (or there are no tools)."""
    if not tools:
        return []
    by_name = {tool.name: tool for tool in tools}
    calls = _parse_json(text, by_name) if dialect == "json" else _parse_tags(text, by_name)
    if len(calls) > MAX_CALLS:
        return [*calls[:MAX_CALLS], MalformedCall(f"Only {MAX_CALLS} calls are answered in one message.")]
    return calls


def _checked(tool: Tool, arguments: Mapping[str, Any]) -> ToolCall | MalformedCall:
    try:
        tool.check(arguments)
    except ToolError as error:
        return MalformedCall(str(error))
    return ToolCall(tool.name, dict(arguments))


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_call(body: str, tools: Mapping[str, Tool]) -> ToolCall | MalformedCall:
    form = f'Write {_OPEN}{{"name": …, "arguments": {{…}}}}{_CLOSE}.'
    try:
        call = json.loads(body, parse_constant=_reject_constant)
        json.dumps(call, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return MalformedCall(
            "The tool call holds half of a surrogate pair, such as \\ud800, which is no character; leave it out."
        )
    except RecursionError:
        return MalformedCall(f"The tool call is nested too deeply. {form}")
    except ValueError as error:
        return MalformedCall(f"The tool call is not valid JSON ({error}). {form}")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return MalformedCall(f"The tool call has no name. {form}")
    if call["name"] not in tools:
        return MalformedCall(f"There is no tool {call['name'][:100]!r}.{did_you_mean(call['name'], tools)}")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return MalformedCall(f"The arguments of {call['name']} must be a JSON object. {form}")
    return _checked(tools[call["name"]], arguments)


def _parse_json(text: str, tools: Mapping[str, Tool]) -> list[ToolCall | MalformedCall]:
    calls: list[ToolCall | MalformedCall] = []
    start = 0
    while len(calls) <= MAX_CALLS:
        opening = text.find(_OPEN, start)
        closing = text.find(_CLOSE, start)
        if closing != -1 and (opening == -1 or closing < opening):
            calls.append(MalformedCall(f"{_CLOSE} without {_OPEN} before it."))
            start = closing + len(_CLOSE)
            continue
        if opening == -1:
            return calls
        if closing == -1:
            calls.append(MalformedCall(f"The tool call does not end: close it with {_CLOSE}."))
            return calls
        calls.append(_json_call(text[opening + len(_OPEN) : closing], tools))
        start = closing + len(_CLOSE)
    return calls


def _parse_tags(text: str, tools: Mapping[str, Tool]) -> list[ToolCall | MalformedCall]:
    calls: list[ToolCall | MalformedCall] = []
    other_tags: set[str] = set()
    start = 0
    while len(calls) <= MAX_CALLS and (tag := _TAG.search(text, start)):
        start = tag.end()
        closes, name = tag.group(1) == "/", tag.group(2)
        if name not in tools:
            # <answer> and the like are plain text; nearly a tool's name is a slip. Few are compared: bounded work.
            if not closes and name not in other_tags and len(other_tags) < MAX_CALLS:
                other_tags.add(name)
                if difflib.get_close_matches(name, tools, n=1, cutoff=0.75):
                    calls.append(MalformedCall(f"There is no tool {name!r}.{did_you_mean(name, tools)}"))
            continue
        if closes:
            calls.append(MalformedCall(f"</{name}> without <{name}> before it."))
            continue
        closing = text.find(f"</{name}>", start)
        again = text.find(f"<{name}>", start)
        if closing == -1 or -1 < again < closing:
            calls.append(MalformedCall(f"The call does not end: close <{name}> with </{name}>."))
            continue
        parameter = tools[name].only_text_parameter or ""
        calls.append(_checked(tools[name], {parameter: text[start:closing].strip()}))
        start = closing + len(name) + 3
    return calls

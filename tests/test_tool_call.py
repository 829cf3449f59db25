"""Calls are found in both dialects, what is malformed is explained, and no text makes the parser raise."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.envs.calculator import calculator
from ludus.envs.errors import EnvError
from ludus.envs.tool import tool
from ludus.envs.tool_call import (
    MAX_CALLS,
    Dialect,
    MalformedCall,
    ToolCall,
    check_dialect,
    parse_calls,
    render_call,
    write_call,
)


@tool
def search(query: str, limit: int = 3) -> str:
    """Search for a text."""
    return query * limit


TOOLS = (calculator, search)


def problems(text: str, dialect: Dialect) -> list[str]:
    tools = TOOLS if dialect == "json" else (calculator,)
    return [call.problem for call in parse_calls(text, tools, dialect) if isinstance(call, MalformedCall)]


def test_several_json_calls_in_one_message_are_found_in_order() -> None:
    text = (
        'Let me see.\n<tool_call>\n{"name": "calculator", "arguments": {"expression": "3*4"}}\n</tool_call>\n'
        '<tool_call>{"name": "search", "arguments": {"query": "x", "limit": 2}}</tool_call>'
    )
    assert parse_calls(text, TOOLS, "json") == [
        ToolCall("calculator", {"expression": "3*4"}),
        ToolCall("search", {"query": "x", "limit": 2}),
    ]


def test_tag_calls_are_found() -> None:
    text = "First <calculator> 3*4 </calculator>, then <calculator>5</calculator>"
    assert parse_calls(text, (calculator,), "tag") == [
        ToolCall("calculator", {"expression": "3*4"}),
        ToolCall("calculator", {"expression": "5"}),
    ]


@pytest.mark.parametrize("dialect", ["json", "tag"])
@pytest.mark.parametrize("text", ["", "37", "a < b > c", "<answer>4</answer>", "<think>3*4</think>", "#### 4"])
def test_text_without_calls_has_none(text: str, dialect: Dialect) -> None:
    assert parse_calls(text, (calculator,), dialect) == []


def test_a_call_may_escape_a_whole_surrogate_pair() -> None:
    text = '<tool_call>{"name": "search", "arguments": {"query": "\\ud83d\\ude00"}}</tool_call>'
    assert parse_calls(text, TOOLS, "json") == [ToolCall("search", {"query": "😀"})]


def test_without_tools_nothing_is_a_call() -> None:
    assert parse_calls('<tool_call>{"name": "x"}</tool_call>', (), "json") == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<tool_call>{oops}</tool_call>", "not valid JSON"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "JSON|nested too deeply"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": NaN}}</tool_call>', "NaN is not JSON"),
        (
            '<tool_call>{"name": "calculator", "arguments": {"expression": "3\\ud800"}}</tool_call>',
            "half of a surrogate pair, such as \\ud800",
        ),
        ('<tool_call>{"name": "\\udfff"}</tool_call>', "half of a surrogate pair"),
        ("<tool_call>[1]</tool_call>", "has no name"),
        ('<tool_call>{"arguments": {}}</tool_call>', "has no name"),
        ('<tool_call>{"name": "calculater", "arguments": {}}</tool_call>', "Did you mean 'calculator'"),
        ('<tool_call>{"name": "calculator", "arguments": "3*4"}</tool_call>', "must be a JSON object"),
        ('<tool_call>{"name": "calculator"}</tool_call>', "needs the argument 'expression'"),
        ('<tool_call>{"name": "calculator", "arguments": {"expr": "3"}}</tool_call>', "Did you mean 'expression'"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": 3}}</tool_call>', "valid string"),
        ('<tool_call>{"name": "calculator", "arguments": {"expression": "3"}}', "close it with </tool_call>"),
        ("3</tool_call>", "</tool_call> without <tool_call>"),
    ],
)
def test_a_malformed_json_call_is_explained(text: str, sentence: str) -> None:
    (problem,) = problems(text, "json")
    assert any(part in problem for part in sentence.split("|"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<calculatr>3*4</calculatr>", "There is no tool 'calculatr'. Did you mean 'calculator'?"),
        ("<calculator>3*4", "close <calculator> with </calculator>"),
        ("3*4</calculator>", "</calculator> without <calculator>"),
    ],
)
def test_a_malformed_tag_call_is_explained(text: str, sentence: str) -> None:
    (problem,) = problems(text, "tag")
    assert sentence in problem


def test_an_unclosed_call_does_not_swallow_the_next_one() -> None:
    unclosed, call = parse_calls("<calculator>3 <calculator>4</calculator>", (calculator,), "tag")
    assert isinstance(unclosed, MalformedCall)
    assert call == ToolCall("calculator", {"expression": "4"})


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "<calculator>",
    "</calculator>",
    "<calc>",
    '{"name": "calculator", ',
    "{}",
    "]",
]
PIECES += ['"arguments": {"expression": "3*4"}}', '{"name": 3}', "3*4", " ", "\ud800", "<", ">", '"', "null", "1e999"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    for dialect in ("json", "tag"):
        for call in parse_calls(text, (calculator,), dialect):  # type: ignore[arg-type]
            assert isinstance(call, ToolCall | MalformedCall)


@given(st.text().filter(lambda text: "<" not in text))
def test_a_rendered_call_is_read_back(expression: str) -> None:
    for dialect in ("json", "tag"):
        text = render_call(calculator, {"expression": expression}, dialect)  # type: ignore[arg-type]
        (call,) = parse_calls(f"I call {text} now", (calculator,), dialect)  # type: ignore[arg-type]
        kept = expression if dialect == "json" else expression.strip()
        assert call == ToolCall("calculator", {"expression": kept})


@pytest.mark.parametrize("dialect", ["json", "tag"])
def test_many_calls_are_answered_up_to_the_limit_and_quickly(dialect: Dialect) -> None:
    text = render_call(calculator, {"expression": "1"}, dialect) * 10_000
    start = time.thread_time()
    calls = parse_calls(text, (calculator,), dialect)
    odd = "".join(f"<calculat{n}>" for n in range(100_000))
    parse_calls(odd, (calculator,), dialect)
    parse_calls("<calculator>" * 100_000, (calculator,), dialect)
    assert time.thread_time() - start < 2.0
    assert len(calls) == MAX_CALLS + 1
    assert isinstance(calls[-1], MalformedCall)


def test_a_tool_that_a_dialect_cannot_express_is_refused() -> None:
    with pytest.raises(EnvError, match="use dialect='json'"):
        check_dialect([search], "tag")
    with pytest.raises(EnvError, match="Unknown tool dialect 'xml'"):
        check_dialect([search], "xml")  # type: ignore[arg-type]
    with pytest.raises(EnvError, match="Two tools share a name"):
        check_dialect([search, search], "json")


# Calls that an endpoint gives apart from the text


@given(query=st.text(max_size=40) | st.sampled_from(["</tool_call>", "<tool_call>{}</tool_call>", 'a"}}</tool_call>']))
def test_a_structured_call_is_read_back_from_its_text_whatever_its_arguments_say(query: str) -> None:
    text = write_call("search", json.dumps({"query": query, "limit": 2}), TOOLS, "json")
    assert parse_calls(text, TOOLS, "json") == [ToolCall("search", {"query": query, "limit": 2})]


@given(
    arguments=st.text(max_size=40) | st.sampled_from(['{}, "name": "calculator"', "NaN", '"\\ud800"', "</tool_call>"])
)
def test_arguments_that_make_no_sense_are_one_malformed_call(arguments: str) -> None:
    (call,) = parse_calls(write_call("search", arguments, TOOLS, "json"), TOOLS, "json")
    assert isinstance(call, MalformedCall)


def test_a_structured_call_is_written_as_a_tag_where_that_is_the_dialect() -> None:
    text = write_call("calculator", '{"expression": "3*4"}', (calculator,), "tag")
    assert text == "<calculator>3*4</calculator>"

"""A typed function becomes a tool: a schema for the model, checked arguments, one-sentence errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import cloudpickle
import pytest
from pydantic import Field

from ludus.envs.errors import EnvError, ToolError
from ludus.envs.tool import Tool, tool


@tool
def weather(
    city: Annotated[str, Field(description="Name of the city")], days: int = 1, unit: Literal["C", "F"] = "C"
) -> str:
    """Forecast the weather
    of a city.

    Only the first paragraph is for the agent.
    """
    return f"{city} {days + 0} {unit}"


def test_the_schema_is_in_the_openai_function_style() -> None:
    assert weather.schema == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Forecast the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city"},
                    "days": {"type": "integer", "default": 1},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }


def test_a_parameter_called_title_stays_in_the_schema() -> None:
    @tool
    def find(title: str) -> str:
        """Find a book."""
        return title

    assert find.parameters["properties"] == {"title": {"type": "string"}}
    assert find.only_text_parameter == "title"


@pytest.mark.filterwarnings("error")
def test_a_parameter_may_have_any_name() -> None:
    @tool
    def odd(json: str, schema: int, copy: bool, _x: int, model_config: str, model_dump: int = 7, self: int = 8) -> str:
        """Take odd names."""
        return f"{json} {schema} {copy} {_x} {model_config} {model_dump} {self}"

    assert list(odd.parameters["properties"]) == [
        *("json", "schema", "copy", "_x", "model_config", "model_dump", "self")
    ]
    assert odd.parameters["required"] == ["json", "schema", "copy", "_x", "model_config"]
    arguments = {"json": "a", "schema": 1, "copy": True, "_x": 2, "model_config": "b"}
    assert odd.call(arguments) == "a 1 True 2 b 7 8"
    with pytest.raises(ToolError, match="The argument '_x' of odd is wrong"):
        odd.call({**arguments, "_x": "many"})
    with pytest.raises(ToolError, match=r"odd needs the argument '_x'\."):
        odd.call({name: value for name, value in arguments.items() if name != "_x"})


def test_a_default_may_be_a_pydantic_field() -> None:
    @tool
    def look(place: str = Field("here", description="Where")) -> str:
        """Look around."""
        return place

    assert look.parameters["properties"] == {"place": {"type": "string", "default": "here", "description": "Where"}}
    assert look.call({}) == "here"


class Kit:
    @staticmethod
    @tool
    def nested() -> str:
        """Say nothing."""
        return ""


def test_a_tool_is_pickled_by_reference() -> None:
    for one in (weather, Kit.nested):
        assert pickle.loads(pickle.dumps(one)) is one
        assert copy.deepcopy(one) is one


def test_a_tool_inside_a_function_cannot_be_pickled_and_is_not_mistaken_for_another() -> None:
    @tool
    def weather(city: str) -> str:
        """Forecast."""
        return city

    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(weather)
    assert cloudpickle.loads(cloudpickle.dumps(weather)).call({"city": "Rome"}) == "Rome"


def test_a_call_converts_and_fills_in_arguments() -> None:
    assert weather.call({"city": "Rome", "days": "3"}) == "Rome 3 C"
    assert weather("Rome", unit="F") == "Rome 1 F"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "weather needs the argument 'city'."),
        ({"city": "Rome", "dys": 2}, "weather has no argument 'dys'. Did you mean 'days'? Known: city, days, unit."),
        ({"city": 3}, "The argument 'city' of weather is wrong: Input should be a valid string."),
        ({"city": "Rome", "days": "many"}, "The argument 'days' of weather is wrong"),
        ({"city": "Rome", "unit": "K"}, "The argument 'unit' of weather is wrong: Input should be 'C' or 'F'."),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ToolError) as caught:
        weather.call(arguments)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_result_that_is_no_text_becomes_json() -> None:
    @tool
    def look() -> dict[str, list[int]]:
        """Look around."""
        return {"seen": [1, 2]}

    assert look.call({}) == '{"seen": [1, 2]}'


def _no_hint(a, b: int) -> int:  # type: ignore[no-untyped-def]
    """Add."""
    return a + b


def _no_docstring(a: int) -> int:
    return a


def _star(*numbers: int) -> int:
    """Add."""
    return sum(numbers)


async def _async(a: int) -> int:
    """Wait."""
    return a


async def _async_generator(a: int) -> AsyncIterator[int]:
    """Wait."""
    yield a


def _unknown_hint(a: Missing) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Fail."""
    return str(a)


def _no_schema(a: type[Tool] | object, b: memoryview) -> str:
    """Fail."""
    return ""


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (_no_hint, "The parameter 'a' of the tool _no_hint has no type hint; add one."),
        (_no_docstring, "The tool _no_docstring has no docstring"),
        (_star, r"The tool _star takes \*numbers: 'int'"),
        (_async, "The tool _async is an async function, which nobody awaits; write it with a plain def."),
        (_async_generator, "The tool _async_generator is an async function"),
        (_unknown_hint, "The type hints of the tool _unknown_hint cannot be read"),
        (_no_schema, "The type hints of the tool _no_schema have no JSON schema"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_when_it_is_decorated(function: Any, sentence: str) -> None:
    with pytest.raises(EnvError, match=sentence):
        tool(function)

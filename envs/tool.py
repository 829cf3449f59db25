"""Typed tools: `@tool` on a type-hinted function gives its JSON schema, its argument check and its error text."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic

from .errors import EnvError, ToolError, did_you_mean

_FIELD = "argument_"
"""Every field of an arguments_model begins so: json, copy, model_config or _x alone mean another thing to pydantic."""


@dataclass(frozen=True)
class Tool:
    """A function that an agent may call by name.

    description: the first paragraph of the docstring. parameters: JSON schema of the arguments (an object).
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    arguments_model: type[pydantic.BaseModel]

    @property
    def schema(self) -> dict[str, Any]:
        """The OpenAI function style: {"type": "function", "function": {name, description, parameters}}."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    @property
    def only_text_parameter(self) -> str | None:
        """The name of the parameter where there is exactly one and it is a string; else None."""
        properties = self.parameters["properties"]
        names = [name for name, schema in properties.items() if schema.get("type") == "string"]
        return names[0] if len(properties) == 1 and names else None

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, converted to the hinted types. Raises ToolError with one sentence for the agent."""
        known = self.parameters["properties"]
        for name in arguments:
            if name not in known:
                raise ToolError(f"{self.name} has no argument {name!r}.{did_you_mean(str(name), known)}")
        try:
            checked = self.arguments_model.model_validate(dict(arguments))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "arguments"
            if first["type"] == "missing":
                raise ToolError(f"{self.name} needs the argument {place!r}.") from error
            raise ToolError(f"The argument {place!r} of {self.name} is wrong: {first['msg']}.") from error
        return {name: getattr(checked, _FIELD + name) for name in known}

    def call(self, arguments: Mapping[str, Any]) -> str:
        """Check the arguments, run the function, return its result as text (JSON where it is not a string).

        Raises ToolError, whose text is meant for the agent; whatever else the function raises passes through.
        """
        result = self.function(**self.check(arguments))
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by reference where module and name lead to this tool, since its function is hidden behind it."""
        place = (self.function.__module__, self.function.__qualname__)
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            if _at(*place) is self:
                return _at, place
        return super().__reduce_ex__(protocol)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The plain function, for Python callers."""
        return self.function(*args, **kwargs)


def _at(module: str, name: str) -> Any:
    return operator.attrgetter(name)(importlib.import_module(module))


def _without_titles(schema: Any) -> Any:
    """pydantic titles every field; a title is an entry whose value is text (a parameter named title is a schema)."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
        return {k: _without_titles(v) for k, v in kept.items()}
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


def tool(function: Callable[..., Any]) -> Tool:
    """Turn a type-hinted, documented function into a Tool. Raises EnvError where a hint or the docstring is missing.

    A parameter is described by `Annotated[str, pydantic.Field(description="…")]`.
    """
    name = function.__name__
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise EnvError(f"The tool {name} is an async function, which nobody awaits; write it with a plain def.")
    docstring = inspect.getdoc(function)
    if not docstring:
        raise EnvError(
            f"The tool {name} has no docstring; write one: its first paragraph tells the agent what it does."
        )
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise EnvError(f"The type hints of the tool {name} cannot be read: {error}.") from error
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise EnvError(f"The tool {name} takes {parameter}; name each parameter so that it can stand in a schema.")
        if parameter.name not in hints:
            raise EnvError(f"The parameter {parameter.name!r} of the tool {name} has no type hint; add one.")
        default = ... if parameter.default is parameter.empty else parameter.default
        hint: Any = Annotated[hints[parameter.name], pydantic.Field(alias=parameter.name)]
        fields[_FIELD + parameter.name] = (hint, default)
    try:
        model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
        schema = model.model_json_schema()
    except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
        first = str(error).splitlines()[0]
        raise EnvError(f"The type hints of the tool {name} have no JSON schema: {first}") from error
    parameters = {"type": "object", "properties": {}, "required": [], **_without_titles(schema)}
    parameters.pop("description", None)
    description = " ".join(docstring.split("\n\n")[0].split())
    return Tool(name, description, parameters, function, model)

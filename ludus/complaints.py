"""Validation errors as sentences: the key, the value, what is allowed, and the nearest spelling.

Works for any pydantic model: what is allowed is read off the model's own fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Location = tuple[int | str, ...]

ALLOWED = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "is not one of {expected}",
    "enum": "is not one of {expected}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text: put it in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list, such as [first, second]",
    "tuple_type": "must be a list, such as [first, second]",
    "dict_type": "must be a section of `key: value` lines",
    "too_short": "needs at least {min_length} (it has {actual_length})",
    "too_long": "may have at most {max_length} (it has {actual_length})",
}


def dotted(location: Location) -> str:
    """The key as the user writes it: envs.0.weight."""
    return ".".join(str(part) for part in location)


def complaints(error: ValidationError, model: type[BaseModel]) -> list[tuple[Location, str]]:
    """One (location, sentence without its full stop) for each thing that is wrong."""
    return [(tuple(item["loc"]), _sentence(tuple(item["loc"]), item, model)) for item in error.errors()]


def unknown_key(location: Location, model: type[BaseModel]) -> str:
    """What to say of a key that the model does not have."""
    meant = _nearest(location, model)
    if meant:
        return f"{dotted(location)} is not a known key; did you mean {' or '.join(meant)}?"
    parent = section_at(model, location[:-1])
    known = ", ".join(parent.model_fields) if parent else ""
    return f"{dotted(location)} is not a known key; known here: {known}"


def section_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model that describes the section at a location, or None where there is no such section."""
    here: type[BaseModel] | None = model
    for part in location:
        if here is None:
            return None
        if isinstance(part, str):
            field = here.model_fields.get(part)
            here = _section(field.annotation) if field else None
    return here


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a model; the items of a list count as item 0."""
    for name, field in model.model_fields.items():
        yield prefix + name
        section = _section(field.annotation)
        if section:
            item = "0." if "list" in str(field.annotation) else ""
            yield from keys_of(section, f"{prefix}{name}.{item}")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model inside X, X | None, list[X]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(argument) for argument in get_args(annotation))
    return next((section for section in found if section), None)


def _nearest(location: Location, model: type[BaseModel]) -> list[str]:
    last = str(location[-1])
    parent = section_at(model, location[:-1])
    near = get_close_matches(last, list(parent.model_fields), n=3, cutoff=0.6) if parent else []
    if near:
        closeness = [SequenceMatcher(None, name, last).ratio() for name in near]
        equally = [name for name, ratio in zip(near, closeness, strict=True) if ratio == closeness[0]]
        return [dotted((*location[:-1], name)) for name in equally]
    everywhere = list(keys_of(model))
    same = [key for key in everywhere if key.rpartition(".")[2] == last]
    return same[:3] or get_close_matches(dotted(location), everywhere, n=1, cutoff=0.75)


def _sentence(location: Location, item: Any, model: type[BaseModel]) -> str:
    key, kind, context = dotted(location), item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(location, model)
    if kind == "missing":
        if isinstance(location[-1], int):
            return f"{dotted(location[:-1])} needs more entries: the one at {location[-1]} is missing"
        return f"{key} is missing; add it{_described(location, model)}"
    if kind == "value_error":
        text = str(context["error"]).rstrip(".")
        return text if not key or key in text else f"{key}: {text}"
    if kind in ("model_type", "model_attributes_type", "dataclass_type"):
        section = section_at(model, location)
        known = f" with the keys {', '.join(section.model_fields)}" if section else ""
        return f"{key or 'the recipe'} = {shown(item['input'])} must be a section{known}"
    text = ALLOWED[kind].format(**context) if kind in ALLOWED else item["msg"].replace("Input should", "should")
    if kind == "string_pattern_mismatch":
        text = f"is not allowed{_described(location, model) or ': it must match ' + context['pattern']}"
    sentence = f"{key} = {shown(item['input'])} {text}"
    if text == ALLOWED["int_type"] and isinstance(item["input"], float) and item["input"].is_integer():
        sentence += f"; write {int(item['input'])}"
    if kind == "literal_error" and isinstance(item["input"], str):
        choices = [choice.strip("' ") for choice in context["expected"].replace(" or ", ",").split(",")]
        near = get_close_matches(item["input"], choices, n=1, cutoff=0.7)
        sentence += f"; did you mean {near[0]}?" if near else ""
    return sentence


def _described(location: Location, model: type[BaseModel]) -> str:
    parent = section_at(model, location[:-1])
    field = parent.model_fields.get(str(location[-1])) if parent else None
    return f": {field.description}" if field and field.description else ""


def shown(value: Any) -> str:
    """A value as the user may have written it, cut to one short line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

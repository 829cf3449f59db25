"""JsonSchema: what is JSON, what the schema allows, and what neither can be made to hang on."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.json_schema import JsonSchema
from ludus.verifiers.json_value import MAX_CHARS, MAX_DEPTH, parse_json
from ludus.verifiers.verdict import Outcome

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}
EVIL = "^(a|aa)+$"
BAIT = "a" * 60 + "b"


def outcome(schema: Any, response: str, **settings: Any) -> Outcome:
    return JsonSchema(schema, **settings).verify(None, response).outcome


@pytest.mark.parametrize(
    "response",
    [
        '{"name": "Ada"}',
        ' {"age": 3.0, "name": "\\ud800"}\n',
        'Here it is:\n```json\n{"name": "Ada"}\n```\nGood luck!',
        '```json\r\n{"name": "Ada"}\r\n```\r\n',
        '```\n{"name": "Ada"}\n```',
        ' ```\r\n{"name": "Ada"}\r\n```\r\n',
        '<think>Perhaps {"name": "Bob"}?</think>{"name": "Ada"}',
        'A\n```json\n[]\n```\n</think>\n```\n{"name": "Ada"}\n```',
        '```json\n[1]\n```\nNo, better:\n```JSON\n{"name": "Ada"}\n  ```',
    ],
)
def test_what_the_schema_allows_is_right(response: str) -> None:
    assert outcome(PERSON, response) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "not one JSON value: Expecting value"),
        ("Ada", "not one JSON value"),
        ('{"name": "Ada"} {"name": "Bob"}', "not one JSON value: Extra data"),
        ('Sure! {"name": "Ada"}', "not one JSON value"),
        ("{'name': 'Ada'}", "not one JSON value"),
        ('{"name": "Ada",}', "not one JSON value"),
        ('{"name": "Ada"} // ok', "not one JSON value"),
        ('\ufeff{"name": "Ada"}', "not one JSON value"),
        ('{"name": "a\nb"}', "not one JSON value"),
        ('{"name": "Eve", "name": "Ada"}', "an object has the name 'name' twice"),
        ('{"name": "Ada", "age": NaN}', "NaN is no JSON number"),
        ('{"name": "Ada", "age": Infinity}', "Infinity is no JSON number"),
        ('{"name": "Ada", "age": 1e999}', "a number has too many digits or is too large"),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", "a number has more than 300 digits"),
        ('```json\n{"name": "Ada"}', "the last ```json block is not closed"),
        ('```json\n{"name": "Ada"}\n```\n```json\n[]\n```', "does not allow it: [] is not of type 'object'"),
        ('{"name": "Ada", "age": -1}', "-1 is less than the minimum of 0, at ['age']"),
        ('{"name": "Ada", "sex": 1}', "the name 'sex' is not foreseen"),
        ('{"age": 1}', "'name' is a required property"),
        ("true", "True is not of type 'object'"),
        ('{"name": "Ada"}</think>', "not one JSON value"),
        ('So: ```\n{"name": "Ada"}\n```', "not one JSON value"),
    ],
)
def test_what_is_wrong_is_said(response: str, reason: str) -> None:
    verdict = JsonSchema(PERSON).verify(None, response)
    assert verdict.outcome is Outcome.WRONG
    assert reason in verdict.reason


def test_where_the_json_stands_can_be_laid_down() -> None:
    fenced = '```json\n{"name": "Ada"}\n```'
    assert outcome(PERSON, fenced, extract="fenced") is Outcome.CORRECT
    assert outcome(PERSON, '{"name": "Ada"}', extract="fenced") is Outcome.WRONG
    assert outcome(PERSON, fenced, extract="bare") is Outcome.WRONG


def test_a_block_inside_a_string_is_not_one() -> None:
    assert outcome({"type": "string"}, json.dumps('\n```json\n{"name": "Ada"}\n```\n')) is Outcome.CORRECT


# Equality


@pytest.mark.parametrize(
    ("gold", "response", "equal"),
    [
        ({"a": 1, "b": [True, None]}, '{"b": [true, null], "a": 1.0}', True),
        (100, "1e2", True),
        (0, "-0.0", True),
        ("x", '"x"', True),
        (None, "null", True),
        ([1], "[true]", False),
        (0, "false", False),
        (1, '"1"', False),
        ([1, 2], "[2, 1]", False),
        ({"a": 1}, '{"a": 1, "b": 2}', False),
        ({"a": 1, "b": 2}, '{"a": 1}', False),
        ({}, "[]", False),
        ([], "null", False),
        (9007199254740993, "9007199254740992.0", False),
        ([[]], "[[[]]]", False),
    ],
)
def test_the_right_answer_is_compared_by_value(gold: Any, response: str, equal: bool) -> None:
    verdict = JsonSchema(True, compare=True).verify(gold, response)
    assert verdict.outcome is (Outcome.CORRECT if equal else Outcome.WRONG)


numbers = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(values, values, st.booleans())
def test_a_value_written_down_equals_itself_and_no_other(gold: Any, other: Any, ascii_only: bool) -> None:
    verifier = JsonSchema({"uniqueItems": False}, compare=True)
    assert verifier.verify(gold, json.dumps(gold, ensure_ascii=ascii_only, indent=1)).outcome is Outcome.CORRECT
    same = json.dumps(gold, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert not same or verifier.verify(gold, json.dumps(other)).outcome is Outcome.CORRECT
    if type(gold) is not type(other) and not {type(gold), type(other)} <= {int, float}:
        assert verifier.verify(gold, json.dumps(other)).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("gold", "sentence"),
    [
        ({1, 2}, "The right answer is no JSON value"),
        (float("nan"), "The right answer is no JSON value"),
        ([], "The schema does not allow the right answer: [] is not of type 'object'"),
    ],
)
def test_a_right_answer_that_no_response_could_match_is_refused(gold: Any, sentence: str) -> None:
    with pytest.raises(VerifierError, match=re.escape(sentence)):
        JsonSchema(PERSON, compare=True).verify(gold, "{}")


# Keywords that are our own


@pytest.mark.parametrize(
    ("schema", "allowed", "forbidden"),
    [
        ({"pattern": "^a+$"}, ['"aa"', "3"], ['"ab"', '""']),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, ['{"n_a": 1, "x": "y"}', "[]"], ['{"n_a": "1"}']),
        (
            {"properties": {"a": {}}, "patternProperties": {"^n_": {}}, "additionalProperties": {"type": "null"}},
            ['{"a": 1, "n_a": 1, "x": null}'],
            ['{"x": 1}'],
        ),
        ({"uniqueItems": True}, ["[1, true, 0, false]", "[{}, []]", "3"], ["[1, 1.0]", '[{"a": 1}, {"a": 1.0}]']),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, ['"x"', "4", "[]"], ["2"]),
        ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}]}, ["2", "3", "8"], ["6", "5"]),
        ({"not": {"anyOf": [{"const": 1}, False]}}, ["2"], ["1", "1.0"]),
    ],
)  # fmt: skip
def test_patterns_choices_and_unique_items_mean_what_the_standard_says(
    schema: Any, allowed: list[str], forbidden: list[str]
) -> None:
    for response in allowed:
        assert outcome(schema, response) is Outcome.CORRECT, response
    for response in forbidden:
        assert outcome(schema, response) is Outcome.WRONG, response


def test_a_multiple_is_one_of_the_numbers_as_they_are_written() -> None:
    for price in ("19.99", "4.35", "0.07", "-0.07", "3", "0", "1e300", "1e2", '"x"'):
        assert outcome({"multipleOf": 0.01}, price) is Outcome.CORRECT
    for price in ("19.999", "0.005", "1e-300"):
        assert outcome({"multipleOf": 0.01}, price) is Outcome.WRONG
    verdict = JsonSchema({"items": {"multipleOf": 3}}).verify(None, "[6, 7]")
    assert verdict.reason == "The schema does not allow it: 7 is not a multiple of 3, at [1]."


@given(values)
def test_the_verdict_is_jsonschema_s_own(value: Any) -> None:
    import jsonschema

    schema = {
        "$defs": {"v": {"anyOf": [{"type": ["null", "boolean", "string"], "pattern": "^[a-z]*$"}, {"$ref": "#"}]}},
        "oneOf": [
            {"type": "array", "items": {"$ref": "#/$defs/v"}, "uniqueItems": True},
            {"type": "object", "patternProperties": {"^.?$": {"$ref": "#/$defs/v"}}, "additionalProperties": False},
            {"type": "number", "multipleOf": 0.5},
        ],
    }
    right = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert outcome(schema, json.dumps(value)) is (Outcome.CORRECT if right else Outcome.WRONG)


# What might hang, crash, or reach out


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": EVIL}, BAIT),
        ({"patternProperties": {EVIL: True}}, {BAIT: 1}),
        ({"patternProperties": {EVIL: True}, "additionalProperties": False}, {BAIT: 1}),
        ({"propertyNames": {"pattern": EVIL}}, {BAIT: 1}),
        ({"not": {"items": {"pattern": EVIL}}}, [BAIT]),
    ],
)
def test_a_pattern_that_would_run_for_ever_is_undecided(schema: Any, value: Any) -> None:
    verdict = JsonSchema(schema, timeout_s=0.1).verify(None, json.dumps(value))
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reason == "Validating did not come to an end within 0.1 s."


def test_a_schema_that_tries_everything_twice_at_each_depth_is_undecided() -> None:
    tree = {
        "anyOf": [{"type": "array", "maxItems": 1, "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}}]
    }
    deep = "[" * MAX_DEPTH + "{}" + "]" * MAX_DEPTH
    assert outcome(tree, deep.replace("{}", "")) is Outcome.CORRECT
    deep = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert outcome(tree, deep, timeout_s=0.2) is Outcome.UNDECIDED


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_a_thousand_deep_is_wrong(pair: str) -> None:
    text = "[" * 1000 + "]" * 1000 if pair == "[]" else '{"a":' * 1000 + "1" + "}" * 1000
    for schema in (True, {"items": {"$ref": "#"}}):
        verdict = JsonSchema(schema).verify(None, text)
        assert verdict.outcome is Outcome.WRONG
        assert f"nested more than {MAX_DEPTH} deep" in verdict.reason
    assert parse_json('["' + "[" * 1000 + '\\"]"]') == ["[" * 1000 + '"]']


def test_a_recursive_schema_takes_the_deepest_allowed_nesting() -> None:
    node = {"type": "object", "properties": {"next": {"allOf": [{"anyOf": [{"$ref": "#"}]}]}}}
    text = '{"next":' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1)
    assert outcome(node, text) is Outcome.CORRECT


FLOODS = [
    "[" + ",".join(["{}"] * 33_000) + "]",
    "[" + ",".join(str(k * (2**61 - 1)) for k in range(4_000)) + "]",
    "[" + "1," * 45_000 + "1]",
    json.dumps({str(i): 0 for i in range(8_000)}),
    '"' + "\\\\" * 49_000 + '"',
    "9" * 299,
    "1e300",
]
HOSTILE_SCHEMAS: list[Any] = [
    {"uniqueItems": True},
    {"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "null"}}, {"additionalProperties": False}]},
    {"unevaluatedProperties": False, "anyOf": [{"properties": {"1": True}}, True]},
    {"multipleOf": 0.01},
    {"enum": [[], {}, 1]},
]


@pytest.mark.parametrize("schema", HOSTILE_SCHEMAS)
@pytest.mark.parametrize("response", FLOODS, ids=range(len(FLOODS)))
def test_a_flood_of_values_is_answered(schema: Any, response: str) -> None:
    assert len(response) <= MAX_CHARS
    assert JsonSchema(schema).verify(None, response).outcome in (Outcome.CORRECT, Outcome.WRONG)


PIECES = [
    "{",
    "[",
    '"',
    "\\",
    "```json\n",
    "```json\n```\n",
    "```\n",
    "\n```",
    "</think>",
    "\ud800",
    " ",
    "1",
    "\x00",
    '{"a":',
    "\t```",
]


@pytest.mark.parametrize("piece", PIECES)
def test_megabytes_are_answered(piece: str) -> None:
    for size in (MAX_CHARS, 900_000, 3_000_000):
        assert outcome(PERSON, piece * (size // len(piece))) is Outcome.WRONG


@given(st.text(alphabet='{}[]",:\\ntrue1e-.\ud800 ', max_size=60) | st.text())
def test_any_text_is_answered(text: str) -> None:
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        expected = ...
    right = outcome(True, text) is Outcome.CORRECT
    assert not right or expected is not ...


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (
            {"type": "strng"},
            "The schema is not valid: 'strng' is not valid under any of the given schemas; correct it.",
        ),
        ({"pattern": "("}, "The schema is not valid: '(' is not a 'regex'; correct it."),
        ({"minimum": float("nan")}, "The schema is not JSON"),
        ({"enum": [{1}]}, "The schema is not JSON"),
        (3, "A schema is a dictionary, true or false, not 3; correct it."),
        ({"$ref": "#"}, "The schema refers to itself without end; correct its $ref."),
        ({"allOf": [{"$ref": "#"}]}, "The schema refers to itself without end; correct its $ref."),
        (
            {"$ref": "http://127.0.0.1:9/x.json"},
            "refers to 'http://127.0.0.1:9/x.json', which is not in it, and nothing",
        ),
        ({"properties": {"a": {"$ref": "other.json"}}}, "refers to 'other.json', which is not in it, and nothing"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}}}, "/$defs/b', which is not in it"),
        ({"patternProperties": {"a": True}, "unevaluatedProperties": False}, "use additionalProperties instead"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: Any, sentence: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(VerifierError, match=re.escape(sentence)):
            JsonSchema(schema)


def test_references_within_a_schema_and_older_drafts_are_followed() -> None:
    by_id = {"$id": "http://x.y/z", "$defs": {"n": {"$anchor": "n", "type": "integer"}}, "items": {"$ref": "#n"}}
    assert outcome(by_id, "[1]") is Outcome.CORRECT
    assert outcome(by_id, '["1"]') is Outcome.WRONG
    draft7 = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"n": {"type": "integer"}},
        "items": [{"$ref": "#/definitions/n"}],
    }
    assert outcome(draft7, '[1, "x"]') is Outcome.CORRECT
    assert outcome(draft7, '["x"]') is Outcome.WRONG
    assert (
        outcome({"properties": {"$ref": {"const": {"$ref": "nowhere"}}}}, '{"$ref": {"$ref": "nowhere"}}')
        is Outcome.CORRECT
    )


def test_changing_the_schema_afterwards_changes_nothing() -> None:
    schema = {"type": "object"}
    verifier = JsonSchema(schema)
    schema["type"] = "array"
    assert verifier.verify(None, "{}").outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"extract": "first"}, "extract = 'first' is unknown; choose 'auto', 'fenced' or 'bare'."),
        ({"timeout_s": 0}, "timeout_s = 0 must be above 0 and below 3600 seconds."),
    ],
)
def test_a_set_up_that_cannot_work_says_so(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(VerifierError) as caught:
        JsonSchema(True, **settings)
    assert str(caught.value) == sentence

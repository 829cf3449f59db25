"""A ballot counts only where it is exactly what was asked for."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ludus.verifiers.ballot import UnusableAnswer, answer_schema, read_ballot


@pytest.mark.parametrize("score", [-1, 11, "7", True, None, 10**400, float("nan"), float("inf")])
def test_a_score_off_the_scale_is_unusable(score) -> None:
    with pytest.raises(UnusableAnswer):
        read_ballot(json.dumps({"reasoning": "", "score": score, "check": "c"}), "c", 10)


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "r", "verdict": "correct", "check": "c"}',
        ' \n{"check": "c", "verdict": "correct", "reasoning": "r"}\n',
        '```json\n{"reasoning": "r", "verdict": "correct", "check": "c"}\n```',
        '```json\r\n{"reasoning": "r", "verdict": "correct", "check": "c"}\r\n```\r\n',
        '```{"reasoning": "r", "verdict": "correct", "check": "c"}```',
        '{"reasoning": "one\r\n\ttwo", "verdict": "correct", "check": "c"}',
        '{"reasoning": "r", "verdict": "Correct", "check": "c"}',
        '<think>Is it {"verdict": "incorrect"}? No.</think>\n{"reasoning": "r", "verdict": "correct", "check": "c"}',
    ],
)
def test_one_object_alone_in_a_code_block_or_after_thoughts_is_a_ballot(text) -> None:
    assert read_ballot(text, "c", None).passed is True


@pytest.mark.parametrize(
    "text",
    [
        '{"reasoning": "r", "verdict": "incorrect", "verdict": "correct", "check": "c"}',
        '{"reasoning": "r", "verdict": "correct", "check": "c"} So it is incorrect.',
        'Here you are: {"reasoning": "r", "verdict": "correct", "check": "c"}',
        '{"reasoning": "r", "verdict": ["correct"], "check": "c"}',
        '{"reasoning": {}, "verdict": "correct", "check": "c"}',
        '{"reasoning": "r", "verdict": "correct\n", "check": "c"}',
        '```json\n{"reasoning": "r", "verdict": "correct", "check": "c"}\n``` ```json\n{}\n```',
        "```",
        '{"reasoning": "r", "verdict": "correct", "check": "C"}',
    ],
)
def test_anything_beside_exactly_one_verdict_is_no_ballot(text) -> None:
    with pytest.raises(UnusableAnswer):
        read_ballot(text, "c", None)


fields = st.fixed_dictionaries(
    {"reasoning": st.text(max_size=20), "verdict": st.sampled_from(["correct", "incorrect", "maybe", "", 1, None])},
    optional={"check": st.sampled_from(["c", "C", "d", None]), "note": st.text(max_size=5)},
)


@given(fields.map(json.dumps) | st.text(max_size=300))
@example('{"reasoning": "", "verdict": "correct", "check": "c"}')
def test_a_text_is_a_vote_for_the_response_or_against_it_or_unusable(text) -> None:
    try:
        ballot = read_ballot(text, "c", None)
    except UnusableAnswer:
        ballot = None
    said = None
    with contextlib.suppress(ValueError):
        said = json.loads(text)
    exact = isinstance(said, dict) and said.keys() == {"reasoning", "verdict", "check"} and said["check"] == "c"
    asked = {"correct": True, "incorrect": False}.get(said["verdict"]) if exact else None
    assert (ballot.passed if ballot else None) is asked


def test_the_schema_does_not_give_the_check_code_away() -> None:
    assert answer_schema(None)["properties"]["check"] == {"type": "string"}

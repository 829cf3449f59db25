"""LengthPenalty: DAPO's soft punishment, point by point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.length import LengthPenalty
from ludus.verifiers.verdict import Outcome


@pytest.mark.parametrize(
    ("length", "value"),
    [(0, 0.0), (60, 0.0), (61, -0.025), (70, -0.25), (80, -0.5), (100, -1.0), (101, -1.0), (10**6, -1.0)],
)
def test_the_penalty_is_free_then_linear_then_full(length: int, value: float) -> None:
    verdict = LengthPenalty(max_length=100, buffer=40).verify(None, "x" * length)
    assert verdict.outcome is Outcome.PARTIAL
    assert verdict.value == pytest.approx(value)
    assert verdict.evidence == {"length": length}


def test_a_short_response_costs_plain_zero_and_is_not_called_right() -> None:
    verdict = LengthPenalty(10, 5).verify(None, "")
    assert (verdict.outcome, str(verdict.value)) == (Outcome.PARTIAL, "0.0")


def test_words_are_what_white_space_parts() -> None:
    penalty = LengthPenalty(max_length=6, buffer=4, unit="words")
    assert penalty.verify(None, "one two").value == 0.0
    assert penalty.verify(None, " one\ttwo\n three  four.").value == pytest.approx(-0.5)
    assert penalty.verify(None, "word " * 1_000_000).value == -1.0


@given(st.integers(1, 50), st.integers(1, 50), st.text(max_size=120), st.text(max_size=20))
def test_more_text_never_costs_less(buffer: int, free: int, text: str, more: str) -> None:
    for unit in ("characters", "words"):
        penalty = LengthPenalty(buffer + free, buffer, unit)  # type: ignore[arg-type]
        before, after = penalty.verify(None, text).value, penalty.verify(None, f"{text} {more}").value
        assert before is not None and after is not None
        assert 0.0 >= before >= after >= -1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((100, 0), "buffer = 0 must be at least 1 and at most max_length = 100; change it."),
        ((100, 101), "buffer = 101 must be at least 1 and at most max_length = 100; change it."),
        (("10", 5), "max_length = '10' and buffer = 5 must be numbers; change them."),
        ((100, 10, "tokens"), "unit = 'tokens' is unknown; choose 'characters' or 'words'."),
    ],
)
def test_a_set_up_that_cannot_work_says_so(arguments: tuple[int, int], sentence: str) -> None:
    with pytest.raises(VerifierError) as caught:
        LengthPenalty(*arguments)
    assert str(caught.value) == sentence

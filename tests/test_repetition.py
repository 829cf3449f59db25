"""Repetition: a share that hand-counting confirms, and loops found exactly where the definition says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.repetition import Loop, LoopDetector, RepetitionPenalty
from ludus.verifiers.verdict import Outcome


def value(response: str, **settings: object) -> float | None:
    verdict = RepetitionPenalty(**settings).verify(None, response)  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.PARTIAL
    return verdict.value


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c d e", 2, 0.0),
        ("a b a b", 2, -1 / 3),  # ab, ba, ab
        ("a b a b a b", 2, -3 / 5),  # ab, ba, ab, ba, ab
        ("a a a a a", 1, -4 / 5),
        ("The cat. the CAT.", 3, -1 / 4),  # "the cat .", "cat . the", ". the cat", "the cat ."
        ("one two", 3, 0.0),
        ("", 3, 0.0),
    ],
)
def test_the_value_is_minus_the_share_of_ngrams_seen_before(text: str, n: int, expected: float) -> None:
    assert value(text, n=n) == pytest.approx(expected)


def test_characters_can_be_counted_where_words_are_not_parted_by_spaces() -> None:
    assert value("abcabc", n=3, unit="characters") == pytest.approx(-1 / 4)
    assert value("我们走" * 50, n=3, unit="characters") == pytest.approx(-145 / 148)


@pytest.mark.parametrize("text", ["ab" * 5000, "xyz" * 5000, "a" * 5000, "_" * 5000, "1234567" * 3000])
def test_leaving_out_the_spaces_hides_no_repetition(text: str) -> None:
    found = value(text)
    assert found is not None and found < -0.9


def test_no_repetition_is_plain_zero_and_not_minus_zero() -> None:
    assert str(value("all different here")) == "0.0"


def test_the_evidence_counts() -> None:
    assert RepetitionPenalty(2).verify(None, "a b a b").evidence == {"ngrams": 3, "repeated": 1}


@given(st.text(max_size=300), st.integers(1, 5), st.sampled_from(["words", "characters"]))
def test_the_penalty_lies_in_its_bounds_for_any_text(text: str, n: int, unit: str) -> None:
    found = value(text, n=n, unit=unit)
    assert found is not None and -1.0 < found <= 0.0


@pytest.mark.parametrize("text", ["a" * 3_000_000, "a " * 1_000_000, "\ud800 \x00" * 500_000, "." * 2_000_000])
def test_megabytes_are_answered(text: str) -> None:
    for unit in ("words", "characters"):
        found = value(text, n=100, unit=unit)
        assert found is not None and found < -0.9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RepetitionPenalty(0), "n = 0 is no length of an n-gram; give 1 to 100."),
        (lambda: RepetitionPenalty(2.5), "n = 2.5 is no length of an n-gram; give 1 to 100."),  # type: ignore[arg-type]
        (lambda: RepetitionPenalty(3, "tokens"), "unit = 'tokens' is unknown; choose 'words' or 'characters'."),  # type: ignore[arg-type]
        (lambda: Loop(max_period=0), "max_period = 0 is out of range; give 1 to 4096 tokens."),
        (lambda: Loop(max_period=5000), "max_period = 5000 is out of range; give 1 to 4096 tokens."),
        (lambda: Loop(repeats=1), "repeats = 1 is no repetition; give 2 or more."),
        (lambda: Loop(min_tokens=0), "min_tokens = 0 is out of range; give 1 or more."),
    ],
)
def test_what_cannot_be_counted_is_refused_in_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(VerifierError) as caught:
        make()  # type: ignore[operator]
    assert str(caught.value) == sentence


# Loops


def ends_in_a_loop(tokens: list[int], loop: Loop) -> bool:
    """The definition, word for word."""
    for period in range(1, loop.max_period + 1):
        length = max(loop.repeats * period, loop.min_tokens)
        tail = tokens[-length:]
        if len(tail) == length and all(a == b for a, b in zip(tail, tail[period:], strict=False)):
            return True
    return False


loops = st.builds(Loop, max_period=st.integers(1, 6), repeats=st.integers(2, 4), min_tokens=st.integers(1, 14))
blocks = st.lists(st.integers(0, 2), min_size=1, max_size=6)
pieces = st.tuples(blocks, st.integers(1, 6)).map(lambda piece: piece[0] * piece[1])
sequences = st.lists(pieces | blocks, max_size=8).map(lambda lists: [token for piece in lists for token in piece])


@given(loops, sequences)
def test_the_detector_says_what_the_definition_says_after_every_token(loop: Loop, tokens: list[int]) -> None:
    detector = LoopDetector(loop)
    found = [detector.push(token) for token in tokens]
    assert found == [ends_in_a_loop(tokens[: count + 1], loop) for count in range(len(tokens))]


@given(st.integers(1, 64), st.integers(2, 5), st.integers(1, 200), st.integers(0, 2**32))
def test_a_block_of_different_tokens_is_found_at_the_first_token_that_makes_it_a_loop(
    period: int, repeats: int, least: int, seed: int
) -> None:
    detector = LoopDetector(Loop(64, repeats, least))
    before = random.Random(seed).sample(range(1000, 2000), 100)
    assert not any(map(detector.push, before))
    needed = max(period * repeats, least)
    found = [detector.push(index % period) for index in range(needed)]
    assert found == [False] * (needed - 1) + [True]


def test_a_block_longer_than_the_longest_period_is_no_loop() -> None:
    detector = LoopDetector(Loop(max_period=9, repeats=2, min_tokens=1))
    assert not any(detector.push(index % 10) for index in range(200))


def test_tokens_may_be_anything_that_can_be_looked_up() -> None:
    detector = LoopDetector(Loop(max_period=3, repeats=2, min_tokens=4))
    assert [detector.push(token) for token in ("a", (1, 2), "a", (1, 2))] == [False, False, False, True]


def test_a_detector_remembers_no_more_than_its_longest_period() -> None:
    detector = LoopDetector(Loop(max_period=16, repeats=2, min_tokens=1))
    for token in range(100_000):
        detector.push(token)
    assert len(detector._window) == len(detector._places) == 16

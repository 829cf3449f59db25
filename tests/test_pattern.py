"""Pattern and Format: shapes are told in words, and no pattern holds anything up."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.verifiers.errors import VerifierError
from ludus.verifiers.pattern import MAX_CHARS, Format, Pattern
from ludus.verifiers.verdict import Outcome

EVIL = r"(?:a|aa)+$"
BAIT = "a" * 60 + "b"


def test_a_pattern_matches_the_whole_response_or_a_part_of_it() -> None:
    assert Pattern(r"\d{4}-\d\d").verify(None, "2024-05").outcome is Outcome.CORRECT
    for response in ("on 2024-05", "2024-05\n", "2024-5", ""):
        assert Pattern(r"\d{4}-\d\d").verify(None, response).outcome is Outcome.WRONG
    assert Pattern(r"\d{4}-\d\d", match="search").verify(None, "on 2024-05\n").outcome is Outcome.CORRECT


def test_the_gold_answer_is_ignored_without_a_group() -> None:
    assert Pattern("x+").verify(object(), "xxx").outcome is Outcome.CORRECT


def test_a_named_group_must_be_the_right_answer() -> None:
    pattern = Pattern(r"The year is (?P<year>\d+)\.", group="year")
    assert pattern.verify("1999", "The year is 1999.").outcome is Outcome.CORRECT
    assert pattern.verify(1999, "The year is 1999.").outcome is Outcome.CORRECT
    wrong = pattern.verify("1999", "The year is 2000.")
    assert (wrong.outcome, wrong.evidence) == (Outcome.WRONG, {"extracted": "2000", "expected": "1999"})


def test_everything_that_is_found_must_be_the_right_answer() -> None:
    pattern = Pattern(r"year: (?P<year>\d+)", match="search", group="year")
    assert pattern.verify(7, "year: 7, year: 7").outcome is Outcome.CORRECT
    for gold in (6, 7, 8):
        assert pattern.verify(gold, "year: 6 year: 7 year: 8").outcome is Outcome.WRONG
    assert pattern.verify(7, "7").outcome is Outcome.WRONG


def test_a_group_that_took_no_part_is_not_the_answer() -> None:
    assert Pattern("(?P<x>a)?b", group="x").verify("None", "b").outcome is Outcome.WRONG


@pytest.mark.parametrize("match", ["full", "search"])
def test_a_pattern_that_would_run_for_ever_is_undecided(match: str) -> None:
    verdict = Pattern(EVIL, match=match, timeout_s=0.1).verify(None, BAIT)  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reason == "The pattern did not come to an end within 0.1 s."


def test_the_time_limit_is_that_of_all_matches_together() -> None:
    pattern = Pattern(r"(?P<x>x)(?:(?:a|aa)+$)?", match="search", group="x", timeout_s=0.2)
    assert pattern.verify("x", ("x" + "a" * 26 + "b") * 5000).outcome is Outcome.UNDECIDED


def test_other_threads_go_on_while_a_pattern_is_stuck() -> None:
    done = threading.Event()
    pattern = Pattern(EVIL, timeout_s=1.0)
    stuck = threading.Thread(target=lambda: (pattern.verify(None, BAIT), done.set()))
    stuck.start()
    steps = 0
    while not done.wait(0.001) and steps < 10:
        steps += 1
    stuck.join()
    assert steps == 10


def test_a_response_beyond_the_limit_is_wrong() -> None:
    assert Pattern("x*").verify(None, "x" * MAX_CHARS).outcome is Outcome.CORRECT
    assert Pattern("x*").verify(None, "x" * (MAX_CHARS + 1)).outcome is Outcome.WRONG


@given(st.text())
def test_any_response_is_answered(response: str) -> None:
    verdict = Pattern(r"(?s).*\ud800.*").verify(None, response + "\ud800\x00")
    assert verdict.outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Pattern("(a"), "The pattern '(a' is no regular expression: missing ) at position 2; correct it."),
        (lambda: Pattern("a", group="x"), "The pattern 'a' has no group 'x'; write it as (?P<x>...)."),
        (lambda: Pattern("a", match="whole"), "match = 'whole' is unknown; choose 'full' or 'search'."),  # type: ignore[arg-type]
        (lambda: Pattern("a", timeout_s=0), "timeout_s = 0 must be above 0 and below 3600 seconds."),
        (lambda: Pattern("(?P<x>a)", group="x").verify(None, "a"), "The right answer None is no text to compare a"),
        (lambda: Pattern(re.compile("x")), "The pattern must be a str, not Pattern; give its text, as in r'x+'."),  # type: ignore[arg-type]
        (lambda: Pattern(b"x"), "The pattern must be a str, not bytes; give its text"),  # type: ignore[arg-type]
        (lambda: Format(["<think>"]), "Format takes its tags one by one, as in Format('<think>', '<answer>'); give no"),  # type: ignore[arg-type]
        (lambda: Format(), "Format needs tags such as '<think>', not 'nothing'."),
        (lambda: Format("<think>", "<a b>"), "Format needs tags such as '<think>', not '<a b>'."),
        (lambda: Format("a", "<a>"), "Format has a tag twice in a, <a>; each may stand there once."),
    ],
)
def test_a_set_up_that_cannot_work_says_so(make: object, sentence: str) -> None:
    with pytest.raises(VerifierError, match=re.escape(sentence)):
        make()  # type: ignore[operator]


# Format


@pytest.mark.parametrize(
    "response",
    [
        "<think>x</think><answer>y</answer>",
        " \n<think>\nx < y\n</think>\n\n<answer>4</answer>\n",
        "<think></think> <answer></answer>",
        "<think>a <b>bold</b> idea</think><answer><Think></answer>",
    ],
)
def test_sections_in_order_with_white_space_between_are_right(response: str) -> None:
    assert Format("<think>", "<answer>").verify(None, response).outcome is Outcome.CORRECT


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "<think> is missing; <answer> is missing."),
        ("<think>x</think>", "<answer> is missing."),
        ("<think>x<answer>y</answer>", "<think> is never closed."),
        ("x</think><answer>y</answer>", "<think> is never opened."),
        ("<think>x</think><answer>y", "<answer> is never closed."),
        ("<think>x</think>" + 2 * "<answer>y</answer>", "<answer> is opened 2 times; <answer> is closed 2 times."),
        ("<answer>y</answer><think>x</think>", "<answer> stands before </think>."),
        ("<think>x<answer>y</answer></think>", "<answer> stands before </think>."),
        ("<think>x<answer></think>y</answer>", "<answer> stands before </think>."),
        ("</think>x<think><answer>y</answer>", "</think> stands before <think>."),
        ("Well. <think>x</think><answer>y</answer>", "there is text before <think>."),
        ("<think>x</think> so <answer>y</answer>", "there is text between </think> and <answer>."),
        ("<think>x</think><answer>y</answer> Done.", "there is text after </answer>."),
        ("<THINK>x</THINK><answer>y</answer>", "<think> is missing."),
        ("<think >x</think><answer>y</answer>", "<think> is never opened."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_format_is_said_in_words(response: str, reason: str) -> None:
    verdict = Format("<think>", "<answer>").verify(None, response)
    assert (verdict.outcome, verdict.reason) == (Outcome.WRONG, reason)


parts = st.sampled_from(["<a>", "</a>", "<b>", "</b>", "x", " ", "\n"])


@given(st.lists(parts, max_size=9).map("".join))
def test_a_format_is_right_exactly_where_a_plain_pattern_says_so(response: str) -> None:
    shape = r"\s*<a>((?!</?[ab]>)[\s\S])*</a>\s*<b>((?!</?[ab]>)[\s\S])*</b>\s*"
    right = Format("a", "b").verify(None, response).outcome is Outcome.CORRECT
    assert right == bool(re.fullmatch(shape, response))


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<think></think>", "\ud800", "<", " "])
def test_megabytes_are_answered(piece: str) -> None:
    assert Format("think").verify(None, piece * (3_000_000 // len(piece))).outcome is Outcome.WRONG

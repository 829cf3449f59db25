"""An endpoint that fails: it is tried again, and what stays wrong is an ERROR and never a number."""

from __future__ import annotations

import re
import sys

import pytest
from judge_server import Handler, drips, fails, finds, hangs, hangs_up, sends, takes_only

from ludus.verifiers.completer import CompletionError
from ludus.verifiers.errors import VerifierError
from ludus.verifiers.judge import LLMJudge
from ludus.verifiers.openai_completer import OpenAICompleter
from ludus.verifiers.openai_request import retry_after_s
from ludus.verifiers.verdict import InfrastructureError, Outcome


def test_an_error_of_the_server_that_passes_is_not_seen(serve, ask) -> None:
    server = serve(fails(500), hangs_up, sends("<html>"), sends('{"choices": []}'), finds("correct"))
    verdict = LLMJudge(ask(server)).verify("4", "It is four.")
    assert verdict.outcome is Outcome.CORRECT
    assert verdict.evidence["attempts"] == len(server.requests) == 5


FAILURES = {
    "500": fails(500, "out of memory"),
    "429": fails(429, "slow down"),
    "401": fails(401, "wrong key"),
    "404": fails(404, "no such model"),
    "connection closed": hangs_up,
    "no JSON": sends("<html>"),
    "half of JSON": sends('{"choices": [{"mess'),
    "another format": sends('{"choices": [{"text": "correct"}]}'),
    "null": sends("null"),
    "a list": sends("[1, 2]"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_an_endpoint_that_keeps_failing_is_an_error_without_a_value(serve, ask, kind) -> None:
    server = serve(FAILURES[kind])
    verdict = LLMJudge(ask(server, max_retries=1)).verify("4", "It is four.")
    assert (verdict.outcome, verdict.value) == (Outcome.ERROR, None)
    assert server.url in verdict.reason
    with pytest.raises(InfrastructureError):
        _ = verdict.reward
    lasting = kind in ("401", "404")
    assert verdict.evidence["attempts"] == len(server.requests) == (1 if lasting else 2)


def test_an_endpoint_that_is_not_there_is_an_error(serve, ask) -> None:
    server = serve(finds("correct"))
    completer = ask(server, max_retries=1)
    server.shutdown()
    server.server_close()
    verdict = LLMJudge(completer).verify("4", "It is four.")
    assert verdict.outcome is Outcome.ERROR
    assert "the connection broke" in verdict.reason


@pytest.mark.parametrize("stuck", [hangs, drips])
def test_a_request_that_takes_too_long_is_tried_again(serve, ask, stuck) -> None:
    server = serve(stuck, finds("correct"))
    assert LLMJudge(ask(server, timeout_s=0.3)).verify("4", "It is four.").outcome is Outcome.CORRECT


@pytest.mark.parametrize("stuck", [hangs, drips])
def test_a_server_that_never_answers_is_an_error_when_the_time_is_over(serve, ask, stuck) -> None:
    verdict = LLMJudge(ask(serve(stuck)), timeout_s=0.4).verify("4", "It is four.")
    assert verdict.outcome is Outcome.ERROR
    assert "gave no answer in" in verdict.reason


def test_the_time_of_a_judgement_covers_all_its_votes(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(finds("correct"), hangs)), votes=3, timeout_s=0.5).verify("4", "It is four.")
    assert verdict.outcome is Outcome.ERROR


def test_retry_after_is_waited_for(serve, ask) -> None:
    server = serve(fails(429, "slow down", Retry_After="0.3"), finds("correct"))
    assert LLMJudge(ask(server)).verify("4", "It is four.").outcome is Outcome.CORRECT
    assert server.times[1] - server.times[0] >= 0.29  # Without the header it would be 0.01.


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after_s("7", now_s=0) == 7.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:40 GMT", now_s=90) == 10.0
    assert retry_after_s("Thu, 01 Jan 1970 00:01:40 GMT", now_s=200) == 0.0
    assert retry_after_s(None, now_s=0) is None


def test_a_retry_after_beyond_the_deadline_is_an_error_at_once(serve, ask) -> None:
    server = serve(fails(429, "slow down", Retry_After="3600"))
    verdict = LLMJudge(ask(server), timeout_s=30).verify("4", "It is four.")
    assert verdict.outcome is Outcome.ERROR
    assert "slow down" in verdict.reason and "3.6e+03 s" in verdict.reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "-5", "Wed, 99 Nov 2026", ""])
def test_a_retry_after_that_makes_no_sense_is_passed_over(serve, ask, header) -> None:
    server = serve(fails(503, "busy", Retry_After=header), finds("correct"))
    assert LLMJudge(ask(server)).verify("4", "It is four.").outcome is Outcome.CORRECT


# --- ways to ask for JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formats", "asked"), [(("json_object",), 2), ((None,), 3)])
def test_a_server_without_schemas_is_asked_in_a_way_it_knows_and_this_is_remembered(serve, ask, formats, asked) -> None:
    server = serve(takes_only(*formats))
    judge = LLMJudge(ask(server))
    assert judge.verify("4", "It is four.").evidence["attempts"] == asked
    assert judge.verify("4", "It is 4.").evidence["attempts"] == 1
    assert server.requests[-1].get("response_format", {}).get("type") == formats[0]


def test_a_response_that_the_endpoint_refuses_is_undecided_and_no_way_out(serve, ask) -> None:
    def filters(handler: Handler, request: dict) -> None:
        bad = "forbidden" in request["messages"][1]["content"]
        (fails(400, "content policy") if bad else finds("correct"))(handler, request)

    server = serve(filters)
    judge = LLMJudge(ask(server))
    verdict = judge.verify("4", "Something forbidden.")
    assert (verdict.outcome, verdict.reward) == (Outcome.UNDECIDED, 0.0)
    assert "content policy" in verdict.reason
    assert judge.verify("4", "It is four.").evidence["attempts"] == 1
    assert server.requests[-1]["response_format"]["type"] == "json_schema"


def test_an_endpoint_that_refuses_everything_is_an_error(serve, ask) -> None:
    verdict = LLMJudge(ask(serve(fails(400, "max_tokens is not supported")))).verify("4", "It is four.")
    assert verdict.outcome is Outcome.ERROR
    assert "max_tokens is not supported" in verdict.reason


# --- set-up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": ""}, "model"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "file:///etc/passwd"}, "base_url"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"backoff_s": -1}, "backoff_s"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"api_key": "key\n"}, "api_key"),
        ({"api_key": None}, 'api_key is NoneType and not a str; set the environment variable .* or give ""'),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_with_the_option_at_fault(options, word) -> None:
    with pytest.raises(VerifierError, match=word):
        OpenAICompleter(**{"model": "m", "base_url": "http://localhost:8000/v1", **options})


def test_without_the_sdk_one_sentence_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(VerifierError, match=re.escape("pip install 'ludus[judge]'")):
        OpenAICompleter("m", "http://localhost:8000/v1")


def test_a_completer_without_an_answer_raises_only_its_own_error(serve, ask) -> None:
    messages = [{"role": "user", "content": "?"}]
    with pytest.raises(CompletionError) as caught:
        ask(serve(fails(500)), max_retries=2).complete(messages, timeout_s=5)
    assert caught.value.attempts == 3

"""A chat endpoint and its faults: each ends in an answer or in one sentence with the fix, in bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import time
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_server import (
    Handler,
    ScriptedServer,
    drips,
    fails,
    hangs,
    hangs_up,
    replies,
    says,
    sends,
)

from ludus.agents.budget import Budget, BudgetUsedUp
from ludus.agents.engine import ChatCompletion, Sampling, StopReason
from ludus.agents.openai_engine import EndpointError, OpenAIEngine
from ludus.agents.rate_limit import RateLimit
from ludus.sandbox.errors import LudusError
from ludus.verifiers.completer import CompletionError, RequestRefused
from ludus.verifiers.repetition import Loop

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-secret-1234567890"


def asked(server: ScriptedServer, *samplings: Sampling, tools: Any = (), messages: Any = HELLO, **options: Any) -> Any:
    """The answers to one question after the other."""

    async def run() -> list[ChatCompletion]:
        settings = {"timeout_s": 5.0, "backoff_s": 0.01, "max_retries": 2, **options}
        async with OpenAIEngine("model-1", server.url, **settings) as engine:
            return [await engine.chat(messages, tools, sampling) for sampling in samplings or [Sampling()]]

    return asyncio.run(run())


def test_a_request_says_all_that_the_sampling_does(serve) -> None:
    server = serve(says("hi"))
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=7, max_tokens=33, stop=("a", "b"), seed=2**40 + 5)
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}
    (answer,) = asked(
        server, sampling, tools=[tool], logprobs=True, extra_body={"reasoning_effort": "low"}, api_key=KEY
    )
    assert server.requests[0] == {
        "model": "model-1", "messages": HELLO, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_tokens": 33,
        "stop": ["a", "b"], "seed": 5, "tools": [tool], "logprobs": True, "reasoning_effort": "low",
    }  # fmt: skip
    assert server.keys == [f"Bearer {KEY}"]
    assert (answer.text, answer.stop_reason, answer.model) == ("hi", StopReason.END, "judge-1-2026")
    assert (answer.prompt_tokens, answer.completion_tokens, answer.attempts) == (100, 10, 1)


@pytest.mark.parametrize(
    ("finish_reason", "more", "text", "reason"),
    [
        ("stop", {}, "4", StopReason.END),
        ("eos", {}, "4", StopReason.END),
        ("tool_calls", {}, "4", StopReason.END),
        ("stop", {"stop_reason": "</a>"}, "4</a>", StopReason.STOP),
        ("stop", {"matched_stop": "</a>"}, "4</a>", StopReason.STOP),
        ("stop", {"stop_reason": 7}, "4", StopReason.END),
        ("length", {}, "4", StopReason.LENGTH),
    ],
)
def test_the_finish_reason_becomes_a_stop_reason(serve, finish_reason, more, text, reason) -> None:
    (answer,) = asked(serve(replies({"content": "4"}, finish_reason, **more)), Sampling(stop=("</a>",)))
    assert (answer.text, answer.stop_reason) == (text, reason)


def test_reasoning_is_kept_apart_from_the_text(serve) -> None:
    for name in ("reasoning", "reasoning_content"):
        (answer,) = asked(serve(replies({"content": None, name: "hmm"}, "length")))
        assert (answer.text, answer.reasoning, answer.stop_reason) == ("", "hmm", StopReason.LENGTH)


# Faults


def test_a_fault_that_passes_is_not_seen(serve) -> None:
    faults = (fails(500), fails(429, "slow", Retry_After="0"), fails(408), fails(409), fails(425), hangs_up)
    garbage = (sends("<html>"), sends('{"choices": []}'), sends("null"), replies({"content": None}), sends('{"cho'))
    server = serve(*faults, *garbage, says("hi"))
    (answer,) = asked(server, max_retries=20, backoff_s=0)
    assert (answer.text, answer.attempts) == ("hi", 12) and len(server.requests) == 12


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.sampled_from(["", "x", "stop", "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["content", "name", "id"]), inner),
    max_leaves=4,
)
PLACES = (
    (), ("choices",), ("choices", 0), ("choices", 0, "message"), ("choices", 0, "message", "content"),
    ("choices", 0, "message", "tool_calls"), ("choices", 0, "message", "tool_calls", 0, "function"),
    ("choices", 0, "message", "tool_calls", 0, "function", "arguments"), ("choices", 0, "message", "reasoning"),
    ("choices", 0, "message", "tool_calls", 0, "id"), ("choices", 0, "finish_reason"), ("choices", 0, "stop_reason"),
    ("choices", 0, "logprobs"), ("choices", 0, "logprobs", "content", 0), ("usage",), ("usage", "prompt_tokens"),
    ("choices", 0, "logprobs", "content", 0, "logprob"), ("model",),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.sampled_from(PLACES), JUNK), min_size=1, max_size=2))
def test_whatever_a_server_sends_is_an_answer_or_one_sentence(serve, places: list[tuple[tuple[Any, ...], Any]]) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "hi", "tool_calls": [call], "reasoning": "hm"}
    logprobs = {"content": [{"token": "hi", "logprob": -1.0, "bytes": None, "top_logprobs": []}]}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "stop_reason": None, "logprobs": logprobs}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    body: Any = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }
    for place, junk in places:
        if not place:
            body = junk
            continue
        at = body
        with contextlib.suppress(LookupError, TypeError):
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = junk
    try:
        (answer,) = asked(serve(sends(json.dumps(body))), logprobs=True, max_retries=0)
    except CompletionError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(answer.text, str) and all(isinstance(one.arguments, str) for one in answer.tool_calls)
        json.dumps(asdict(answer), allow_nan=False).encode()
        assert ChatCompletion.from_json(json.loads(json.dumps(asdict(answer)))) == answer


LASTING = {
    400: "status 400, no",
    401: r"status 401, no \(give the right api_key; on the command line --api-key-env",
    403: r"status 403, no \(give the right api_key",
    404: r"status 404, no \(the address ends in /v1, and under /models",
    422: "status 422, no",
}


@pytest.mark.parametrize("status", LASTING)
def test_what_no_other_try_can_mend_is_asked_once(serve, status) -> None:
    server = serve(fails(status))
    with pytest.raises(CompletionError, match=LASTING[status]) as caught:
        asked(server)
    assert len(server.requests) == caught.value.attempts == 1
    assert isinstance(caught.value, RequestRefused) == (status in (400, 422))


FOR_EVER = {
    "500": (fails(500, "out of memory"), r"failed, also at try 3: status 500, out of memory \(its log says more\)"),
    "429": (fails(429, "slow down"), r"status 429, slow down \(ask less: max_requests_per_minute"),
    "gone": (hangs_up, r"the connection broke, .* \(start the server or correct the address\)"),
    "html": (sends("<html>"), r"failed, also at try 3: .* \(an address of chat completions ends in /v1\)"),
    "half": (sends('{"choices": [{"mess'), "the answer is not what the format wants"),
    "empty": (sends('{"choices": []}'), "the answer is not a chat completion"),
    "null": (replies({"content": None}), "the answer has neither text nor tool calls"),
    "a list": (sends("[1, 2]"), r"also at try 3"),
    "filtered": (replies({"content": "4"}, "content_filter"), r"broken off \(finish_reason content_filter\)"),
    "later": (fails(429, "slow", Retry_After="3600"), r"the next try, after 3.6e\+03 s, is too late"),
}


@pytest.mark.parametrize("kind", FOR_EVER)
def test_a_fault_that_stays_is_one_sentence_that_names_the_endpoint(serve, kind) -> None:
    behaviour, sentence = FOR_EVER[kind]
    server = serve(behaviour)
    with pytest.raises(CompletionError, match=sentence) as caught:
        asked(server)
    assert str(caught.value).startswith(f"the endpoint {server.url} (model model-1) failed")
    assert "\n" not in str(caught.value)
    assert len(server.requests) == (1 if kind == "later" else 3)


@pytest.mark.parametrize("stuck", [hangs, drips])
def test_a_server_that_never_answers_is_given_up(serve, stuck) -> None:
    with pytest.raises(CompletionError, match=r"gave no answer in 0.9 s \(give more than timeout_s = 0.3"):
        asked(serve(stuck), timeout_s=0.3, max_retries=20)


def test_a_deadline_of_the_sampling_bounds_all_tries(serve) -> None:
    with pytest.raises(CompletionError, match=r"gave no answer in 0\.2 s"):
        asked(serve(hangs), Sampling(deadline_s=0.2))


def test_no_server_at_all_is_one_sentence(serve) -> None:
    server = serve(says("hi"))
    server.shutdown()
    server.server_close()
    with pytest.raises(CompletionError, match=r"the connection broke, .* \(start the server or correct the address\)"):
        asked(server)


def test_once_the_endpoint_is_of_no_use_nothing_more_is_asked(serve) -> None:
    server = serve(fails(401))

    async def run() -> None:
        async with OpenAIEngine("m", server.url) as engine:
            assert engine.stopped is None
            for _ in range(3):
                with pytest.raises(CompletionError, match="401"):
                    await engine.chat(HELLO, (), Sampling())
            assert engine.stopped is not None and "401" in engine.stopped

    asyncio.run(run())
    assert len(server.requests) == 1


def test_a_fault_after_an_answer_does_not_end_everything(serve) -> None:
    server = serve(says("one"), fails(500), says("two"))

    async def run() -> None:
        async with OpenAIEngine("m", server.url, max_retries=0) as engine:
            assert (await engine.chat(HELLO, (), Sampling())).text == "one"
            with pytest.raises(CompletionError, match="500"):
                await engine.chat(HELLO, (), Sampling())
            assert (await engine.chat(HELLO, (), Sampling())).text == "two"

    asyncio.run(run())


def test_an_answer_that_was_withheld_does_not_end_everything(serve) -> None:
    server = serve(replies({"content": ""}, "content_filter"), fails(400), says("two"))

    async def run() -> None:
        async with OpenAIEngine("m", server.url, max_retries=0) as engine:
            for _ in range(2):
                with pytest.raises(CompletionError):
                    await engine.chat(HELLO, (), Sampling())
            assert (await engine.chat(HELLO, (), Sampling())).text == "two"

    asyncio.run(run())


def test_an_endpoint_that_falls_silent_for_long_is_given_up(serve) -> None:
    server = serve(says("one"), hangs)

    async def run() -> None:
        async with OpenAIEngine("m", server.url, timeout_s=0.2, max_retries=9, backoff_s=0) as engine:
            await engine.chat(HELLO, (), Sampling())
            with pytest.raises(CompletionError, match="gave no answer"):
                await engine.chat(HELLO, (), Sampling())
            with pytest.raises(CompletionError, match="gave no answer"):
                await engine.chat(HELLO, (), Sampling())
            asked_before = len(server.requests)
            assert engine.stopped is not None
            with pytest.raises(CompletionError, match=r"^not asked: the endpoint .* gave no answer"):
                await engine.chat(HELLO, (), Sampling())
            assert len(server.requests) == asked_before

    asyncio.run(run())


def test_an_account_without_credit_is_not_asked_again(serve) -> None:
    def broke(handler: Handler, request: dict) -> None:
        handler.send(429, '{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}')

    server = serve(broke)
    with pytest.raises(CompletionError, match=r"You exceeded your quota \(see to the account"):
        asked(server)
    assert len(server.requests) == 1


def test_a_cancelled_question_ends_its_request_and_gives_back_its_budget(serve) -> None:
    server = serve(hangs)

    async def run() -> None:
        async with OpenAIEngine("m", server.url, budget=Budget(tokens=100)) as engine:
            task = asyncio.create_task(engine.chat(HELLO, (), Sampling(max_tokens=50)))
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            server.script = [says("hi")]
            assert (await engine.chat(HELLO, (), Sampling(max_tokens=50))).text == "hi"

    asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize("status", [400, 401, 500])
def test_the_key_stands_in_no_error_and_no_note(serve, status) -> None:
    notes: list[str] = []

    def repeats(handler: Handler, request: dict) -> None:
        fails(status, f"{'x' * 190}{handler.headers['Authorization']} is wrong")(handler, request)

    with pytest.raises(CompletionError) as caught:
        asked(serve(repeats), api_key=KEY, note=notes.append)
    text = " ".join([str(caught.value), *notes, repr(caught.value.__cause__), repr(caught.value.__context__)])
    assert KEY not in text and KEY[:8] not in text


# What a server may not know


@pytest.mark.parametrize("message", ["logprobs is not supported", "bad request"])
def test_a_server_without_log_probabilities_is_asked_without_and_this_is_told_once(serve, message) -> None:
    def plain(handler: Handler, request: dict) -> None:
        (fails(400, message) if "logprobs" in request else says("hi"))(handler, request)

    server, notes = serve(plain), []
    answers = asked(server, Sampling(), Sampling(), logprobs=True, note=notes.append)
    assert [(answer.text, answer.logprobs) for answer in answers] == [("hi", None)] * 2
    assert len(server.requests) == 3
    assert notes == [
        "The endpoint takes no logprobs; it is asked without.",
        "The endpoint gives no log-probabilities.",
    ]


def test_a_server_that_wants_max_completion_tokens_gets_it(serve) -> None:
    def new(handler: Handler, request: dict) -> None:
        refused = fails(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        (refused if "max_tokens" in request else says("hi"))(handler, request)

    server = serve(new)
    asked(server, Sampling(max_tokens=7), Sampling(max_tokens=7))
    assert [request.get("max_completion_tokens") for request in server.requests] == [None, 7, 7]


def test_a_refusal_for_another_reason_is_not_taken_for_one_of_these(serve) -> None:
    server = serve(fails(400, "temperature must be 1"))
    with pytest.raises(RequestRefused, match="temperature must be 1"):
        asked(server, logprobs=True)
    server.script = [says("hi")]
    assert asked(server, logprobs=True)[0].text == "hi"
    assert server.requests[-1]["logprobs"] is True


def test_an_answer_gets_the_room_that_is_left(serve) -> None:
    """As vLLM does it: prompt and max_tokens together are refused where the model does not read as much."""

    def short(handler: Handler, request: dict) -> None:
        refused = fails(400, "max_tokens=99 cannot be greater than max_model_len=64.")
        (refused if "max_tokens" in request else replies({"content": "4"}, "length"))(handler, request)

    (answer,) = asked(serve(short), Sampling(max_tokens=99))
    assert (answer.text, answer.stop_reason) == ("4", StopReason.CONTEXT)


# Limits


def test_the_budget_is_what_the_server_counted(serve) -> None:
    server = serve(replies({"content": "hi"}, usage=(60, 4)))

    async def run() -> None:
        budget = Budget(tokens=200, price_in=1.0, price_out=10.0)
        async with OpenAIEngine("m", server.url, budget=budget) as engine:
            await engine.chat(HELLO, (), Sampling(max_tokens=30))
            await engine.chat(HELLO, (), Sampling(max_tokens=30))
            with pytest.raises(BudgetUsedUp, match=r"the budget of 200 tokens is used up: 128 are spent"):
                await engine.chat(HELLO, (), Sampling(max_tokens=30))
            assert engine.usage.cost_usd == pytest.approx((120 + 80) / 1e6)
            assert engine.stopped is not None

    asyncio.run(run())
    assert len(server.requests) == 2


def test_tokens_that_nobody_counts_are_estimated_and_this_is_said(serve) -> None:
    server, notes = serve(replies({"content": "hello you"}, usage=None)), []

    async def run() -> None:
        async with OpenAIEngine("m", server.url, note=notes.append) as engine:
            await engine.chat(HELLO, (), Sampling())
            assert engine.usage.prompt_tokens > 5 and engine.usage.completion_tokens == math.ceil(9 / 2)

    asyncio.run(run())
    assert notes == ["The endpoint does not count tokens; they are estimated."]


def test_a_rate_limit_holds_for_tries_too_and_its_waits_are_not_the_server_s(serve) -> None:
    """The clock is the test's own: of five requests, two a minute, the last goes out after two minutes."""
    server, now, slept = serve(fails(500), fails(500), fails(500), fails(500), says("hi")), [0.0], []

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        slept.append(seconds)
        await asyncio.sleep(0)

    limit = RateLimit(requests=2, clock=lambda: now[0], sleep=sleep)
    (answer,) = asked(server, limit=limit, max_retries=4, timeout_s=5.0)
    assert (answer.text, answer.attempts) == ("hi", 5)
    assert sum(slept) >= 120


def test_retry_after_is_waited_for(serve) -> None:
    server = serve(fails(429, "slow", Retry_After="0.3"), says("hi"))
    asked(server)
    assert server.times[1] - server.times[0] >= 0.29  # Without the header it would be 0.01.


def test_the_wait_between_tries_is_the_same_for_the_same_seed(serve, monkeypatch) -> None:
    real, waits = asyncio.sleep, []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    def waited(seed: int) -> list[float]:
        waits.clear()
        monkeypatch.setattr("ludus.verifiers.openai_request.asyncio.sleep", sleep)
        with pytest.raises(CompletionError):
            asked(serve(fails(500)), Sampling(seed=seed), backoff_s=1.0, max_retries=4)
        monkeypatch.undo()
        return [wait for wait in waits if wait > 0.1]

    first, again, other = waited(1), waited(1), waited(2)
    assert first == again != other
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(first)) and len(first) == 4


# Set-up


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"model": ""}, "The model has no name"),
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://host:port/v1"}, "base_url"),
        ({"base_url": "http://me:pass@host/v1"}, "base_url has a user name or password"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_retries": -1}, "max_retries"),
        ({"api_key": "key\n"}, "api_key"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_with_the_option_at_fault(options, word) -> None:
    with pytest.raises(LudusError, match=word) as caught:
        OpenAIEngine(**{"model": "m", "base_url": "http://localhost:8000/v1", **options})
    assert "pass@" not in str(caught.value)


def test_what_an_endpoint_cannot_do_is_refused(serve) -> None:
    with pytest.raises(EndpointError, match="unset stop_on_loop"):
        asked(serve(says("hi")), Sampling(stop_on_loop=Loop()))


def test_without_the_sdk_one_sentence_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(LudusError, match=r"pip install 'ludus\[judge\]'"):
        OpenAIEngine("m", "http://localhost:8000/v1")


def test_half_of_a_surrogate_pair_is_no_reason_to_fail(serve) -> None:
    server = serve(replies({"content": "a\ud800b"}))
    (answer,) = asked(server, messages=[{"role": "user", "content": "x\udfffy"}])
    assert answer.text == "a?b" and server.requests[0]["messages"][0]["content"] == "x?y"


def test_many_questions_at_once_are_all_answered(serve) -> None:
    def echoes(handler: Handler, request: dict) -> None:
        time.sleep(0.01)
        says(request["messages"][0]["content"])(handler, request)

    async def run() -> list[str]:
        async with OpenAIEngine("m", serve(echoes).url) as engine:
            asked_ = [engine.chat([{"role": "user", "content": f"{i}"}], (), Sampling()) for i in range(64)]
            return [answer.text for answer in await asyncio.gather(*asked_)]

    assert asyncio.run(run()) == [f"{i}" for i in range(64)]

"""Episodes over a chat endpoint: what it and the environment read of one another, and what a failure leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import Behaviour, Handler, ScriptedServer, fails, replies, says

from ludus.agents.chat_rollout import ChatRollout, answers, said, with_ids
from ludus.agents.engine import ChatCompletion, Sampling, StopReason, StructuredCall
from ludus.agents.evaluate import evaluate
from ludus.agents.openai_engine import OpenAIEngine
from ludus.agents.rollout import Arena, EpisodeRequest, EpisodesFailedError
from ludus.agents.trajectory import Episode, NoTokensError, check_tokens
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.tool import tool
from ludus.verifiers.verdict import InfrastructureError, Verdict


@tool
def add(a: int, b: int) -> str:
    """Add two whole numbers."""
    return str(a + b)


@tool
def shout(text: str) -> str:
    """Say it loudly."""
    return text.upper()


class Sums(TextEnv):
    """The answer is 12; with potential, being asked is worth something."""

    def __init__(self, count: int = 1, **options: Any) -> None:
        tasks = [Task(f"t{i}", f"What is {i} + {12 - i}?", "12") for i in range(count)]
        super().__init__(ListSource(tasks), **{"tools": (add, shout), **options})

    def verify(self, task: Task, response: str) -> Verdict:
        if response == "!":
            raise InfrastructureError("no grader")
        return Verdict.correct("yes") if response == task.answer else Verdict.wrong("no")


Play = Callable[..., list[Episode]]


@pytest.fixture
def play() -> Iterator[Play]:
    """Plays the tasks of an environment on a server, one after the other."""

    def run(server: ScriptedServer, make: Callable[[], TextEnv] = Sums, count: int = 1, **options: Any) -> Any:
        sampling = Sampling(**options.pop("sampling", {}))
        engine = OpenAIEngine("m", server.url, **{"timeout_s": 5.0, "backoff_s": 0.01, "max_retries": 1, **options})
        arena = Arena.for_chat("sums", make)
        with ChatRollout(engine, {"sums": arena}, concurrency=1) as rollout:
            requests = [
                EpisodeRequest(f"e{i}", "sums", Task(f"t{i}", "What is 4 + 8?", "12"), f"g{i}", i, sampling)
                for i in range(count)
            ]
            try:
                return rollout.run(requests)
            finally:
                rollout.await_(engine.close())

    yield run


def call(arguments: str, name: str = "add", id: str | None = "id-1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], content: str | None = None) -> Behaviour:
    return replies({"content": content, "tool_calls": list(made)}, "tool_calls")


def test_a_structured_call_is_run_and_answered_under_its_id(serve, play: Play) -> None:
    server = serve(calls(call('{"a": 4, "b": 8}')), says("12"))
    (episode,) = play(server)
    assert (episode.reward, episode.terminated, episode.error) == (1.0, True, None)
    assert [(m["role"], m["content"]) for m in episode.messages] == [
        ("user", "What is 4 + 8?"),
        ("assistant", '<tool_call>{"name": "add", "arguments": {"a": 4, "b": 8}}</tool_call>'),
        ("tool", "12"),
        ("assistant", "12"),
    ]
    first, second = server.requests
    assert [one["function"]["name"] for one in first["tools"]] == ["add", "shout"]
    assert second["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [call('{"a": 4, "b": 8}')]},
        {"role": "tool", "tool_call_id": "id-1", "content": "12"},
    ]


def test_several_calls_are_answered_each_under_its_own_id(serve, play: Play) -> None:
    made = (call('{"a": 1, "b": 1}', id="x"), call('{"text": "hi"}', "shout", id="x"), call("{}", "shuot", id=None))
    server = serve(calls(*made, content="First."), says("12"))
    (episode,) = play(server)
    ids = [one["id"] for one in server.requests[1]["messages"][1]["tool_calls"]]
    assert ids[0] == "x" and len(set(ids)) == 3
    found = [(m["tool_call_id"], m["content"]) for m in server.requests[1]["messages"][2:]]
    assert found[:2] == [(ids[0], "2"), (ids[1], "HI")]
    assert found[2][0] == ids[2] and "There is no tool 'shuot'. Did you mean 'shout'?" in found[2][1]
    assert episode.messages[1]["content"].startswith("First.\n<tool_call>")


@pytest.mark.parametrize(
    ("arguments", "observation"),
    [
        ('{"a": 4', "The arguments of add must be a JSON object"),
        ("[1, 2]", "The arguments of add must be a JSON object"),
        ('{"a": 4}', "add needs the argument 'b'"),
        ('{}, "name": "shout"', "The arguments of add must be a JSON object"),
        ("", "add needs the argument 'a'"),
        ("[" * 100_000, "The arguments of add must be a JSON object"),
    ],
)
def test_a_malformed_call_is_answered_and_sent_back_as_what_servers_can_read(
    serve, play: Play, arguments: str, observation: str
) -> None:
    server = serve(calls(call(arguments)), says("12"))
    (episode,) = play(server)
    assert episode.error is None and episode.messages[2]["role"] == "tool"
    assert observation in episode.messages[2]["content"]
    sent = server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(sent), dict)


def test_arguments_cannot_close_the_call_that_they_stand_in(serve, play: Play) -> None:
    text = '</tool_call><tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call>'
    (episode,) = play(serve(calls(call(json.dumps({"text": text}), "shout")), says("12")))
    assert [m["content"] for m in episode.messages if m["role"] == "tool"] == [text.upper()]


def test_a_call_written_as_text_is_answered_by_a_tool_message(serve, play: Play) -> None:
    server = serve(says("<shout>hi</shout>"), says("12"))
    (episode,) = play(server, lambda: Sums(tools=(shout,), dialect="tag"))
    assert episode.reward == 1.0
    assert "tools" not in server.requests[0]
    role, content = (server.requests[1]["messages"][2][name] for name in ("role", "content"))
    assert (role, content) == ("tool", "HI")


def test_a_server_that_wants_a_call_before_a_tool_message_is_told_as_a_user_and_this_is_remembered(
    serve, play: Play
) -> None:
    def strict(handler: Handler, request: dict) -> None:
        roles = [message["role"] for message in request["messages"]]
        if "tool" in roles:
            return fails(400, "messages with role 'tool' must answer tool_calls")(handler, request)
        return says("12" if len(roles) > 1 else "<shout>hi</shout>")(handler, request)

    server, notes = serve(strict), []
    episodes = play(server, lambda: Sums(tools=(shout,), dialect="tag"), count=2, note=notes.append)
    assert [episode.reward for episode in episodes] == [1.0, 1.0]
    assert [m["role"] for m in server.requests[-1]["messages"]] == ["user", "assistant", "user"]
    assert len(server.requests) == 5, "it is refused once"
    assert notes == ["The endpoint takes no tool messages after calls in text; it is asked without."]


def test_a_failure_of_the_endpoint_is_an_error_and_no_reward(serve, play: Play) -> None:
    server = serve(says("12"), calls(call('{"a": 4, "b": 8}')), fails(500, "no"), fails(500, "no"), says("12"))
    right, failed, later = play(server, count=3)
    assert (right.reward, failed.reward, later.reward) == (1.0, None, 1.0)
    assert failed.error is not None and "status 500, no" in failed.error and failed.verdict is None
    assert len(failed.replies) == 1, "what was played stays"


def test_an_answer_that_is_cut_truncates_the_episode(serve, play: Play) -> None:
    (episode,) = play(serve(replies({"content": "1"}, "length")))
    assert (episode.truncated, episode.stop_reason, episode.reward, episode.verdict) == (True, "length", 0.0, None)


def test_a_conversation_that_gets_too_long_truncates_the_episode(serve, play: Play) -> None:
    server = serve(calls(call('{"a": 4, "b": 8}')), fails(400, "This model's maximum context length is 64 tokens."))
    (episode,) = play(server)
    assert (episode.truncated, episode.stop_reason, episode.reward) == (True, "context", 0.0)
    assert [m["role"] for m in episode.messages] == ["user", "assistant", "tool"]


def test_each_turn_of_each_episode_has_its_own_seed_and_the_same_again(serve, play: Play) -> None:
    def seeds() -> list[int]:
        turn = [calls(call('{"a": 4, "b": 8}')), says("12")]
        server = serve(*turn, *turn)
        play(server, count=2)
        return [request["seed"] for request in server.requests]

    assert len(set(seeds())) == 4
    assert seeds() == seeds()


def test_an_episode_of_an_endpoint_goes_through_json(serve, play: Play) -> None:
    logprobs = {"content": [{"token": "12", "logprob": -0.25, "bytes": None, "top_logprobs": []}]}
    server = serve(calls(call('{"a": 4, "b": 8}')), replies({"content": "12"}, logprobs=logprobs))
    (episode,) = play(server, logprobs=True)
    assert episode.replies[1].logprobs == (("12", -0.25),)
    assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def test_an_endpoint_leaves_no_tokens_and_that_is_one_sentence(serve, play: Play) -> None:
    episodes = play(serve(says("12")))
    assert episodes[0].trajectories == ()
    with pytest.raises(NoTokensError, match=r"^The episode e0 was played on a chat endpoint and holds no tokens"):
        check_tokens(episodes)


@pytest.mark.parametrize("kind", ["policy", "preference", "star"])
def test_every_trainer_refuses_episodes_of_an_endpoint(serve, kind: str) -> None:
    import test_preference_rounds
    import test_star
    import test_train

    vowels = ("vowels", lambda: test_train.Vowels("share"), 1.0)
    runs = {"preference": test_preference_rounds.Run, "star": test_star.Run}
    with test_train.Run(vowels) if kind == "policy" else runs[kind]() as run:
        trainer = run.trainer if kind == "policy" else run.rounds
        engine = OpenAIEngine("m", serve(says("aeiou")).url)
        with ChatRollout(engine, {"vowels": Arena.for_chat(*vowels[:2])}) as trainer.rollout:
            with pytest.raises(NoTokensError, match=r"played on a chat endpoint .* train with an engine that returns"):
                trainer.train(0, lambda step: None)
            trainer.rollout.await_(engine.close())


def test_nothing_is_asked_any_more_once_the_key_is_refused(serve) -> None:
    server = serve(fails(401, "wrong key"))
    engine = OpenAIEngine("m", server.url)
    arena = Arena.for_chat("sums", lambda: Sums(20))
    made = 0

    def make() -> TextEnv:
        nonlocal made
        made += 1
        return Sums(20)

    arena.make = make
    with ChatRollout(engine, {"sums": arena}, concurrency=2) as rollout:
        with pytest.raises(EpisodesFailedError, match=r"^All 20 episodes of sums failed, .* 401, wrong key \(give the"):
            evaluate(rollout, "sums", tasks=20, sampling=Sampling())
        rollout.await_(engine.close())
    assert len(server.requests) <= 2 and made <= 1


def test_prompts_that_leave_no_room_are_one_sentence(serve) -> None:
    engine = OpenAIEngine("m", serve(fails(400, "maximum context length is 8 tokens")).url)
    with ChatRollout(engine, {"sums": Arena.for_chat("sums", Sums)}) as rollout:
        with pytest.raises(
            EpisodesFailedError, match=r"^No prompt of sums leaves room for an answer; .* longer context"
        ):
            evaluate(rollout, "sums", tasks=20, sampling=Sampling())
        rollout.await_(engine.close())


# The conversation as the endpoint reads it


def completion(count: int, ids: Sequence[str] = ()) -> ChatCompletion:
    made = tuple(StructuredCall(ids[i] if i < len(ids) else "", "add", "{}") for i in range(count))
    return ChatCompletion("text", StopReason.END, made)


@given(turns=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=5), ids=st.lists(st.sampled_from("ab")))
def test_every_call_is_answered_once_right_after_it_and_nothing_else_is_a_tool_message(
    turns: list[tuple[int, int]], ids: list[str]
) -> None:
    """As OpenAI's format has it; however many observations the environment gives."""
    history: list[Mapping[str, Any]] = [{"role": "user", "content": "?"}]
    for number, (count, observed) in enumerate(turns):
        whole = with_ids(completion(count, ids), history)
        messages = [{"role": "tool", "content": f"{i}"} for i in range(max(observed, min(count, 1)))]
        added = [said(whole), *answers(whole, messages, number)]
        named = [one["id"] for one in added[0].get("tool_calls", ())]
        assert len(named) == count
        if count:
            assert [m["tool_call_id"] for m in added[1 : 1 + count]] == named
            assert all(m["role"] == "user" for m in added[1 + count :])
            assert {m["content"] for m in added[1:]} == {m["content"] for m in messages}
        history += added
    every = [one["id"] for message in history for one in message.get("tool_calls", ())]
    assert len(set(every)) == len(every)

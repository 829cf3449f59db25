"""Rollout: tokens exactly as the engine saw them, failures that never become rewards, and the order asked."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from twins import QWEN25_TEMPLATE, byte_tokenizer

from ludus.agents.config import TinyModel
from ludus.agents.engine import Completion, Sampling
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode, Trajectory
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.word_math import WordMath
from ludus.verifiers.verdict import InfrastructureError, Outcome, Verdict

SHAPE = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, initializer_range=0.3)


class Talk(TextEnv):
    """Answers every message until the third, and can be told to fail."""

    def __init__(self, fail: str = "", gate: threading.Event | None = None) -> None:
        super().__init__(ListSource([Task(str(i), f"say {i}", i) for i in range(16)]))
        self.fail, self.gate, self.closed = fail, gate, False

    def respond(self, task: Task, action: str) -> str | None:
        if task.answer == 3:
            if self.fail == "infrastructure":
                raise InfrastructureError("the grader is away")
            if self.fail == "bug":
                raise KeyError("lost")
            if self.gate is not None:
                self.gate.wait()
        return f"go on {self.turn}" if self.turn < 3 else None

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.correct("talked") if len(response) % 2 else Verdict.wrong("talked evenly")

    def close(self) -> None:
        self.closed = True


class Recorder:
    """A real engine that also notes what it was asked and what it answered."""

    def __init__(self, engine: TorchEngine) -> None:
        self.engine, self.max_length, self.version = engine, engine.max_length, 0
        self.calls: list[tuple[str | None, list[int], Completion]] = []

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        completion = await self.engine.generate(token_ids, sampling, session)
        self.calls.append((session, token_ids, completion))
        return completion

    def release(self, session: str) -> None:
        self.engine.release(session)


@pytest.fixture(scope="module")
def model():
    return create_tiny_model(SHAPE, 0)


def requests(count: int, env: str = "talk", **sampling: Any) -> list[EpisodeRequest]:
    settings = Sampling(**{"max_tokens": 200, **sampling})
    tasks = Talk().source
    return [
        EpisodeRequest(f"{env}/{i}", env, tasks.task(i % 16), f"{i // 4}", seed=i, sampling=settings)
        for i in range(count)
    ]


def play(model, make=Talk, count: int = 8, slots: int = 8, **rollout: Any) -> list[Episode]:
    network, tokenizer = model
    engine = TorchEngine(network, tokenizer, slots=slots, max_length=700)
    with Rollout(engine, {"talk": Arena.build("talk", make, tokenizer)}, **rollout) as driver:
        return driver.run(requests(count))


def without_clock(episodes: list[Episode]) -> list[Episode]:
    return [replace(episode, seconds=0.0) for episode in episodes]


def test_trajectories_are_exactly_what_the_engine_consumed_and_produced(model) -> None:
    network, tokenizer = model
    engine = Recorder(TorchEngine(network, tokenizer, slots=8, max_length=700))
    with Rollout(engine, {"talk": Arena.build("talk", Talk, tokenizer)}) as driver:
        episodes = driver.run(requests(6))
    for episode in episodes:
        calls = [(tokens, completion) for session, tokens, completion in engine.calls if session == episode.id]
        (trajectory,) = episode.trajectories
        assert len(calls) == len(trajectory.steps)
        for (tokens, completion), step in zip(calls, trajectory.steps, strict=True):
            assert tuple(tokens) == trajectory.token_ids[: step.start]
            assert completion.token_ids == trajectory.token_ids[step.start : step.end]
            assert completion.logprobs == trajectory.logprobs[step.start : step.end]
        sampled = {position for step in trajectory.steps for position in range(step.start, step.end)}
        assert [i for i, masked in enumerate(trajectory.mask) if masked] == sorted(sampled)
        assert all(
            (version == 0) == masked for version, masked in zip(trajectory.versions, trajectory.mask, strict=True)
        )
        assert trajectory.steps[-1].end == len(trajectory.token_ids)


def test_rewards_sit_on_the_step_that_earned_them_and_the_messages_can_be_read(model) -> None:
    for episode in play(model):
        if not episode.terminated:
            continue
        (trajectory,) = episode.trajectories
        assert [step.reward for step in trajectory.steps] == [0.0, 0.0, episode.reward]
        assert [m["role"] for m in episode.messages] == ["user", "assistant"] * 3
        assert episode.verdict is not None and episode.verdict.value == episode.reward


@pytest.mark.parametrize("settings", [{"concurrency": 1}, {"concurrency": 3, "slots": 8}, {"concurrency": 64}])
def test_episodes_come_in_the_order_asked_and_do_not_depend_on_their_company(model, settings) -> None:
    episodes = play(model, count=24, **settings)
    assert [episode.id for episode in episodes] == [f"talk/{i}" for i in range(24)]
    assert without_clock(episodes) == without_clock(play(model, count=24, slots=32, concurrency=24))


@pytest.mark.parametrize(("fail", "says"), [("infrastructure", "the grader is away"), ("bug", "KeyError")])
def test_a_failure_of_the_environment_is_an_episode_without_reward_and_harms_no_other(model, fail, says) -> None:
    whole, broken = play(model), play(model, lambda: Talk(fail))
    failed = broken[3]
    if whole[3].truncated:
        pytest.fail("the third episode must reach its environment for this test to mean something")
    assert failed.reward is None and failed.verdict is None
    assert says in (failed.error or "") and failed.stop_reason == "error"
    assert not failed.terminated and not failed.truncated
    assert without_clock(broken[:3] + broken[4:]) == without_clock(whole[:3] + whole[4:])


def test_an_environment_that_hangs_is_an_error_after_its_deadline(model) -> None:
    gate = threading.Event()
    try:
        episodes = play(model, lambda: Talk(gate=gate), step_deadline_s=0.3)
    finally:
        gate.set()
    assert "longer than 0.3 s" in (episodes[3].error or "")
    assert all(episode.error is None for i, episode in enumerate(episodes) if i != 3)


def test_cancelling_closes_the_environments_and_frees_the_slots(model) -> None:
    network, tokenizer = model
    engine = TorchEngine(network, tokenizer, slots=8, max_length=700)
    made: list[Talk] = []

    def make() -> Talk:
        made.append(Talk())
        return made[-1]

    rollout = Rollout(engine, {"talk": Arena.build("talk", make, tokenizer)})

    async def interrupt() -> None:
        task = asyncio.create_task(rollout.play(requests(8)))
        while engine.generated_tokens < 20:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    rollout.await_(interrupt())
    again = rollout.run(requests(8))
    rollout.close()
    assert [e.error for e in again] == [None] * 8
    assert all(env.closed for env in made)


def test_a_turn_that_reaches_its_limit_is_truncated_and_pays_nothing(model) -> None:
    network, tokenizer = model
    engine = TorchEngine(network, tokenizer, slots=8, max_length=40)
    with Rollout(engine, {"talk": Arena.build("talk", Talk, tokenizer)}) as driver:
        short = driver.run(requests(4, max_tokens=3))
        long = driver.run(requests(8))
    ends = {episode.stop_reason for episode in short if episode.truncated}
    assert ends == {"length"}
    assert {episode.stop_reason for episode in long if episode.truncated} <= {"context"}
    assert all(episode.reward == 0.0 for episode in short + long if episode.truncated)
    assert all(len(t.token_ids) <= 40 for episode in long for t in episode.trajectories)


def test_a_template_that_rewrites_history_gives_a_trajectory_for_each_turn(model) -> None:
    template = QWEN25_TEMPLATE.replace(
        "+ message['content'] + '<|im_end|>\\n' }}", "+ message['content'] | trim + '<|im_end|>\\n' }}"
    )
    tokenizer = byte_tokenizer(template)
    network, _ = create_tiny_model(SHAPE.model_copy(update={"tags": tuple(f"<{i}>" for i in range(400))}), 0)
    engine = TorchEngine(network, tokenizer, slots=8, max_length=700)
    arena = Arena.build("talk", Talk, tokenizer, on_rewrite="segment")
    assert not arena.renderer.append_only
    with Rollout(engine, {"talk": arena}) as driver:
        episodes = driver.run(requests(4, max_tokens=400))
    turns = [sum(m["role"] == "assistant" for m in episode.messages) for episode in episodes]
    assert [len(episode.trajectories) for episode in episodes] == turns
    assert max(turns) > 1


def test_two_arenas_share_one_engine(model) -> None:
    network, tokenizer = model
    engine = TorchEngine(network, tokenizer, slots=8, max_length=700)
    arenas = {
        "talk": Arena.build("talk", Talk, tokenizer),
        "math": Arena.build("math", lambda: WordMath(system_prompt=""), tokenizer),
    }
    with Rollout(engine, arenas) as driver:
        math = [replace(r, env="math", id=f"m{r.id}", task=arenas["math"].env.source.task(0)) for r in requests(3)]
        episodes = driver.run([*requests(3), *math])
    assert [episode.env for episode in episodes] == ["talk"] * 3 + ["math"] * 3
    assert {e.verdict.outcome for e in episodes if e.verdict} <= {Outcome.CORRECT, Outcome.WRONG}


def test_episodes_and_trajectories_survive_json(model) -> None:
    import json

    for episode in play(model, count=4):
        again = Episode.from_json(json.loads(json.dumps(episode.to_json())))
        assert again == episode
        assert Trajectory.from_json(json.loads(json.dumps(again.trajectories[0].to_json()))) == again.trajectories[0]

"""Rollouts: every episode asked for comes back in order, token for token as the engine had it, whatever goes wrong."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bigram import chain, drifting_model, writing_model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sandbox import gone
from twins import byte_tokenizer

from ludus.agents.config import TinyModel
from ludus.agents.engine import Completion, Sampling
from ludus.agents.model import character_tokenizer, create_tiny_model
from ludus.agents.renderer import TemplateError
from ludus.agents.rollout import Arena, EpisodeRequest, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode, Trajectory
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.envs.tool import tool
from ludus.verifiers.verdict import InfrastructureError, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENIZER = character_tokenizer()
END = TOKENIZER.eos_token_id


class Echo(TextEnv):
    """Asks `rounds` times and pays the share of even characters in the last answer; some tasks make it fail.

    data: rounds, and perhaps fault = [what, turn] with turn 0 for reset; nap_s: how long each step takes.
    """

    def __init__(self, log: list[str] | None = None, unblock: threading.Event | None = None, **options: Any) -> None:
        super().__init__(ListSource([Task("t", "?", "")]), **options)
        self.log = [] if log is None else log
        self.unblock = unblock or threading.Event()
        self.log.append("made")

    def reset(self, **arguments: Any) -> Any:
        result = super().reset(**arguments)
        self.stumble(0)
        return result

    def step(self, action: str) -> Any:
        self.stumble(self.turn + 1)
        return super().step(action)

    def stumble(self, turn: int) -> None:
        assert self.task is not None
        time.sleep(self.task.data.get("nap_s", 0.0))
        what, when = self.task.data.get("fault", (None, None))
        if when != turn:
            return
        if what == "hang":
            self.unblock.wait()
        elif what == "infrastructure":
            raise InfrastructureError("the sandbox is gone")
        elif what == "bug":
            raise KeyError("lost")
        elif what == "timeout":
            raise TimeoutError("the grader did not answer")
        elif what == "iteration":
            next(iter(()))

    def respond(self, task: Task, action: str) -> str | None:
        return f"{len(action)} more" if self.turn < task.data.get("rounds", 1) else None

    def verify(self, task: Task, response: str) -> Verdict:
        if task.data.get("fault") == ["verdict", self.turn]:
            return Verdict.error("the grader failed")
        even = sum(ord(letter) % 2 == 0 for letter in response)
        return Verdict.correct("all even") if even == len(response) else Verdict.wrong("odd")

    def rewards(self, task: Task, verdict: Verdict) -> dict[str, float]:
        return {"correct": verdict.reward, "turns": float(self.turn)}

    def close(self) -> None:
        self.log.append("closed")


@dataclass
class Recording:
    """A real engine that notes what went in and what came out."""

    engine: TorchEngine
    calls: list[tuple[str | None, list[int], Sampling, Completion]] = field(default_factory=list)

    @property
    def version(self) -> int:
        return self.engine.version

    @property
    def max_length(self) -> int:
        return self.engine.max_length

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        asked = list(token_ids)
        completion = await self.engine.generate(token_ids, sampling, session)
        self.calls.append((session, asked, sampling, completion))
        return completion

    def release(self, session: str) -> None:
        self.engine.release(session)


@pytest.fixture(scope="module")
def drifting() -> PreTrainedModel:
    """Ends each turn after four characters on average."""
    return drifting_model(TOKENIZER, end=0.25)


@pytest.fixture(scope="module")
def attending() -> PreTrainedModel:
    """A random transformer, which never ends a turn by itself; stop sequences do."""
    shape = TinyModel(hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64, initializer_range=0.2)
    return create_tiny_model(shape, 0)[0]


def task(index: int, rounds: int = 2, **data: Any) -> Task:
    return Task(f"task-{index}", f"question {index}?", "", {"rounds": rounds, **data})


def requests(tasks: Sequence[Task], env: str = "echo", **sampling: Any) -> list[EpisodeRequest]:
    settings_ = Sampling(**{"max_tokens": 30, **sampling})
    return [EpisodeRequest(f"{env}/{i}", env, t, f"g{i // 4}", 1000 + i, settings_) for i, t in enumerate(tasks)]


def rollout_of(engine: Any, make: Callable[[], TextEnv] = Echo, **options: Any) -> Rollout:
    return Rollout(engine, {"echo": Arena.build("echo", make, TOKENIZER)}, **options)


def play(model: PreTrainedModel, tasks: Sequence[Task], make: Callable[[], TextEnv] = Echo, **options: Any) -> Any:
    sampling = options.pop("sampling", {})
    max_length = options.pop("max_length", 400)
    with rollout_of(TorchEngine(model, TOKENIZER, slots=16, max_length=max_length), make, **options) as rollout:
        return rollout.run(requests(tasks, **sampling))


def plain(episode: Episode) -> dict[str, Any]:
    """Everything but how long it took."""
    return replace(episode, seconds=0.0, verify_seconds=0.0).to_json()


# Token for token


@settings(max_examples=10)
@given(
    rounds=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    stop=st.sampled_from([(), ("a", "7"), ("e", "0", "x")]),
    top_p=st.sampled_from([1.0, 0.9]),
    seed=st.integers(0, 100),
)
def test_trajectories_are_what_the_engine_consumed_and_produced(
    drifting: PreTrainedModel, rounds: list[int], stop: tuple[str, ...], top_p: float, seed: int
) -> None:
    engine = Recording(TorchEngine(drifting, TOKENIZER, slots=16, max_length=400))
    asked = [replace(r, seed=seed + i) for i, r in enumerate(requests([task(i, n) for i, n in enumerate(rounds)]))]
    asked = [replace(r, sampling=replace(r.sampling, stop=stop, top_p=top_p)) for r in asked]
    with rollout_of(engine, concurrency=7) as rollout:
        episodes = rollout.run(asked)
    assert [episode.id for episode in episodes] == [request.id for request in asked]
    for episode in episodes:
        (trajectory,) = episode.trajectories
        calls = [call for call in engine.calls if call[0] == episode.id]
        assert len(calls) == len(trajectory.steps)
        sampled: set[int] = set()
        for step, (_, prompt, _, completion) in zip(trajectory.steps, calls, strict=True):
            assert trajectory.token_ids[: step.start] == tuple(prompt)
            assert trajectory.token_ids[step.start : step.end] == completion.token_ids
            assert trajectory.logprobs[step.start : step.end] == completion.logprobs
            assert set(trajectory.versions[step.start : step.end]) == {completion.version}
            assert trajectory.kept is None or trajectory.kept[step.start : step.end] == completion.kept
            sampled |= set(range(step.start, step.end))
        assert {i for i, mask in enumerate(trajectory.mask) if mask} == sampled
        assert trajectory.steps[-1].end == len(trajectory.token_ids), "nothing follows the last turn"
        for i in set(range(len(trajectory.token_ids))) - sampled:
            assert (trajectory.logprobs[i], trajectory.versions[i]) == (0.0, -1)
            assert trajectory.kept is None or trajectory.kept[i] is None
        assert (trajectory.kept is None) == (top_p == 1.0)


def test_the_tokens_read_as_the_template_writes_the_messages(drifting: PreTrainedModel) -> None:
    for episode in play(drifting, [task(i, 3) for i in range(6)]):
        whole = TOKENIZER.apply_chat_template([dict(m) for m in episode.messages], tokenize=False)
        tokens = episode.trajectories[0].token_ids
        assert TOKENIZER.decode(tokens) == whole if tokens[-1] == END else whole.removesuffix("<|end|>")
        assert [m["role"] for m in episode.messages] == ["user", "assistant"] * 3


def test_the_end_of_a_turn_is_trained_on_only_where_it_was_sampled() -> None:
    """Greedy: "ab<|end|>" after a question that ends with "?", and "cde" up to the stop sequence "e" after "2 more"."""
    model = writing_model(TOKENIZER, {**chain(ids("abX")), **chain(ids("cdef"))} | opened_by("<|assistant|>", "a"))
    episodes = play(model, [task(0, 2)], sampling={"temperature": 0.0, "stop": ("b",)})
    trajectory = episodes[0].trajectories[0]
    first = trajectory.steps[0]
    assert TOKENIZER.decode(trajectory.token_ids[first.start : first.end]) == "ab"
    assert trajectory.token_ids[first.end] == END and not trajectory.mask[first.end], "added, since not sampled"
    assert TOKENIZER.decode(trajectory.token_ids[first.end :]).startswith("<|end|><|user|>2 more<|end|><|assistant|>")
    episodes = play(model, [task(0, 2)], sampling={"temperature": 0.0, "stop": ("z",)})
    trajectory = episodes[0].trajectories[0]
    for step in trajectory.steps:
        assert trajectory.token_ids[step.end - 1] == END and trajectory.mask[step.end - 1]
        assert trajectory.token_ids[step.start : step.end].count(END) == 1
    assert list(trajectory.token_ids).count(END) == 4, "two messages of the user, two of the policy: none twice"


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def opened_by(role: str, letter: str) -> dict[int, int]:
    return {TOKENIZER.convert_tokens_to_ids(role): ids(letter)[0]}


def test_rewards_sit_on_the_step_that_earned_them(drifting: PreTrainedModel) -> None:
    episodes = play(drifting, [task(i, 1 + i % 3) for i in range(24)])
    assert {0.0, 1.0} == {episode.reward for episode in episodes}
    for i, episode in enumerate(episodes):
        (trajectory,) = episode.trajectories
        assert [step.reward for step in trajectory.steps[:-1]] == [0.0] * (i % 3)
        assert trajectory.steps[-1].reward == episode.reward == episode.verdict.reward
        assert trajectory.steps[-1].rewards == episode.rewards == {"correct": episode.reward, "turns": 1.0 + i % 3}
        assert (episode.terminated, episode.truncated, episode.error) == (True, False, None)
        assert (episode.task_id, episode.group, episode.seed) == (f"task-{i}", f"g{i // 4}", 1000 + i)


def test_each_turn_of_an_episode_samples_with_a_seed_of_its_own(drifting: PreTrainedModel) -> None:
    engine = Recording(TorchEngine(drifting, TOKENIZER, max_length=400))
    with rollout_of(engine) as rollout:
        rollout.run(requests([task(i, 3) for i in range(8)]))
    seeds = [sampling.seed for _, _, sampling, _ in engine.calls]
    assert len(seeds) == len(set(seeds)) == 24


def test_the_same_seeds_give_the_same_episodes_at_any_concurrency(attending: PreTrainedModel) -> None:
    """Environments take random naps, so that turns arrive in another order each time."""
    rng = random.Random(0)

    def run(concurrency: int) -> list[dict[str, Any]]:
        tasks = [task(i, 1 + i % 4, nap_s=rng.random() * 0.004) for i in range(40)]
        stop = tuple("0123456789abcdefghijklmnop")
        episodes = play(attending, tasks, concurrency=concurrency, sampling={"stop": stop, "max_tokens": 25})
        return [plain(episode) for episode in episodes]

    one, eight, many = run(1), run(8), run(64)
    assert one == eight == many
    assert len({str(row["trajectories"]) for row in one}) == 40


def test_episodes_survive_json(drifting: PreTrainedModel) -> None:
    import json

    for episode in play(drifting, [task(i, 2, fault=["bug", i]) for i in range(4)], sampling={"top_p": 0.9}):
        assert Episode.from_json(json.loads(json.dumps(episode.to_json()))) == episode


def test_a_trajectory_whose_parts_differ_in_length_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Trajectory((1, 2), (True,), (0.0, 0.0), (0, 0))


# Several environments


@tool
def shout(text: str) -> str:
    """Say it in capitals.

    Args:
        text: what to say.
    """
    return text.upper()


class Shouting(Echo):
    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__(log, tools=(shout,), dialect="tag")


def test_several_arenas_share_one_run_and_their_episodes_do_not_mix(drifting: PreTrainedModel) -> None:
    engine = TorchEngine(drifting, TOKENIZER, max_length=400)
    arenas = {
        "plain": Arena.build("plain", Echo, TOKENIZER),
        "loud": Arena.build("loud", Shouting, TOKENIZER),
    }
    tasks = [task(i, 2) for i in range(8)]
    asked = [r for pair in zip(requests(tasks, "plain"), requests(tasks, "loud"), strict=True) for r in pair]
    with Rollout(engine, arenas, concurrency=5) as rollout:
        episodes = rollout.run(asked)
    assert [(e.id, e.env) for e in episodes] == [(r.id, r.env) for r in asked]
    assert [plain(e) for e in episodes if e.env == "plain"] == [
        {**plain(e), "env": "plain", "id": e.id.replace("loud", "plain")} for e in episodes if e.env == "loud"
    ], "same tasks and seeds, and no tool was called"


def test_tool_calls_are_answered_in_the_conversation() -> None:
    tokenizer = character_tokenizer(("<shout>", "</shout>"))
    path = tokenizer.encode("<shout>hey</shout>", add_special_tokens=False)
    follows = {**chain(path), tokenizer.convert_tokens_to_ids("<|assistant|>"): path[0]}
    engine = TorchEngine(writing_model(tokenizer, follows), tokenizer, max_length=300)
    arena = Arena.build("loud", Shouting, tokenizer)
    with Rollout(engine, {"loud": arena}) as rollout:
        (episode,) = rollout.run(requests([task(0)], "loud", temperature=0.0))
    assert [m["role"] for m in episode.messages] == ["user", *["assistant", "tool"] * 7, "assistant"]
    assert {m["content"] for m in episode.messages if m["role"] == "tool"} == {"HEY"}
    assert (episode.truncated, episode.stop_reason, episode.reward) == (True, "max_turns", 0.0)


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (["infrastructure", 0], "the sandbox is gone"),
        (["infrastructure", 2], "the sandbox is gone"),
        (["bug", 0], "the environment raised KeyError: 'lost'"),
        (["bug", 1], "the environment raised KeyError: 'lost'"),
        (["verdict", 2], "the grader failed"),
        (["timeout", 1], "the environment raised TimeoutError: the grader did not answer"),
        (["iteration", 1], "the environment raised StopIteration"),
    ],
)
def test_a_failure_is_an_episode_without_a_reward_and_harms_no_other(
    drifting: PreTrainedModel, fault: list[Any], says: str
) -> None:
    healthy = [task(i, 2) for i in range(12)]
    failing = [task(i, 2, fault=fault) if i % 3 == 1 else healthy[i] for i in range(12)]
    expected = play(drifting, healthy, concurrency=4)
    for i, episode in enumerate(play(drifting, failing, concurrency=4, step_deadline_s=20.0)):
        if i % 3 == 1:
            assert episode.reward is None
            assert says in episode.error
            assert (episode.terminated, episode.truncated, episode.stop_reason) == (False, False, "error")
            assert (episode.id, episode.task_id) == (f"echo/{i}", f"task-{i}")
        else:
            assert plain(episode) == plain(expected[i])


def test_an_environment_that_takes_too_long_is_given_up_and_harms_no_other(drifting: PreTrainedModel) -> None:
    """As many of them hang as episodes are in flight."""
    log: list[str] = []
    unblock = threading.Event()
    tasks = [task(i, 2, fault=["hang", i % 3]) if i < 4 else task(i, 2) for i in range(12)]
    try:
        episodes = play(
            drifting, tasks, lambda: Echo(log, unblock), concurrency=4, step_deadline_s=4.0
        )  # fmt: skip
    finally:
        unblock.set()
    expected = play(drifting, [task(i, 2) for i in range(12)])
    assert [episode.error for episode in episodes[:4]] == ["the environment took longer than 4 s"] * 4
    assert all(episode.reward is None for episode in episodes[:4])
    assert [plain(e) for e in episodes[4:]] == [plain(e) for e in expected[4:]]
    assert gone(lambda: Counter(log)["made"] != Counter(log)["closed"]), log


HANGING = """
import sys, threading
sys.path.insert(0, {tests!r})
import test_rollout as t
model = t.drifting_model(t.TOKENIZER, end=0.25)
(episode,) = t.play(model, [t.task(0, 2, fault=["hang", 1])], step_deadline_s=0.2)
print(episode.error)
"""


def test_an_environment_that_hangs_does_not_keep_the_process_alive() -> None:
    code = HANGING.format(tests=str(__file__).rsplit("/", 1)[0])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "the environment took longer than 0.2 s\n"), done.stderr


def test_an_environment_that_cannot_be_made_fails_its_episode_alone(drifting: PreTrainedModel) -> None:
    made = []

    def make() -> TextEnv:
        made.append(1)
        if len(made) == 3:
            raise OSError("no more sandboxes")
        return Echo()

    episodes = play(drifting, [task(i, 2) for i in range(8)], make, concurrency=4)
    failed = [episode for episode in episodes if episode.error]
    assert len(episodes) == 8 and len(failed) == 1
    assert "no more sandboxes" in failed[0].error and failed[0].reward is None


def test_cancelling_closes_the_environments_and_frees_the_engine(drifting: PreTrainedModel) -> None:
    log: list[str] = []
    engine = TorchEngine(drifting, TOKENIZER, max_length=400)
    rollout = rollout_of(engine, lambda: Echo(log), concurrency=6)
    done: list[Episode] = []

    async def cancelled_in_the_middle() -> None:
        playing = asyncio.ensure_future(
            rollout.play(requests([task(i, 50, nap_s=0.001) for i in range(12)]), done.append)
        )
        while sum(entry == "made" for entry in log) < 6 or not engine.generated_tokens:
            await asyncio.sleep(0)
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        assert playing.cancelled()

    rollout.await_(cancelled_in_the_middle())
    assert gone(lambda: Counter(log) != {"made": 6, "closed": 6}), "not only when the rollout is closed"
    episodes = rollout.run(requests([task(i, 2) for i in range(4)]))
    assert [plain(e) for e in episodes] == [plain(e) for e in play(drifting, [task(i, 2) for i in range(4)])]
    rollout.close()
    assert gone(lambda: Counter(log)["made"] != Counter(log)["closed"]), log


def test_interrupting_closes_the_environments(drifting: PreTrainedModel) -> None:
    """Ctrl-C, which arrives while episodes are being played."""
    log: list[str] = []
    done: list[Episode] = []

    def interrupt(episode: Episode) -> None:
        done.append(episode)
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)

    with rollout_of(TorchEngine(drifting, TOKENIZER, max_length=400), lambda: Echo(log), concurrency=4) as rollout:
        with pytest.raises(KeyboardInterrupt):
            rollout.run(requests([task(i, 2) for i in range(40)]), interrupt)
        assert len(done) < 40
    assert gone(lambda: Counter(log)["made"] != Counter(log)["closed"]), log
    assert Counter(log)["made"] >= 4


def test_many_episodes_leave_nothing_in_the_engine(drifting: PreTrainedModel) -> None:
    engine = TorchEngine(drifting, TOKENIZER, slots=16, max_length=400)
    tasks = [task(i, 3, fault=["bug", i % 4]) if i % 5 == 0 else task(i, 3) for i in range(200)]
    with rollout_of(engine, concurrency=40) as rollout:
        episodes = rollout.run(requests(tasks))
    assert sum(episode.error is not None for episode in episodes) == 40
    assert not engine._sessions and not engine._owner
    assert sorted(engine._free) == list(range(engine.slots))


def test_environments_are_reused_and_not_made_for_every_episode(drifting: PreTrainedModel) -> None:
    log: list[str] = []
    play(drifting, [task(i, 2) for i in range(40)], lambda: Echo(log), concurrency=5)
    assert Counter(log) == {"made": 5, "closed": 5}


def test_a_turn_that_is_cut_truncates_the_episode(drifting: PreTrainedModel) -> None:
    (episode,) = play(drifting, [task(0, 40)], sampling={"max_tokens": 1})
    assert (episode.truncated, episode.stop_reason, episode.reward) == (True, "length", 0.0)
    (episode,) = play(drifting, [task(0, 90)], lambda: Echo(max_turns=100), max_length=150)
    assert (episode.truncated, episode.stop_reason, episode.reward) == (True, "context", 0.0)
    (trajectory,) = episode.trajectories
    assert trajectory.steps[-1].end == len(trajectory.token_ids) <= 150


def test_a_prompt_that_does_not_fit_truncates_the_episode_before_its_first_turn(drifting: PreTrainedModel) -> None:
    (episode,) = play(drifting, [Task("long", "x" * 200, "")], max_length=100)
    assert (episode.truncated, episode.stop_reason, episode.reward) == (True, "context", 0.0)
    assert episode.trajectories == ()


def test_the_environment_may_truncate(drifting: PreTrainedModel) -> None:
    (episode,) = play(drifting, [task(0, 9)], lambda: Echo(max_turns=2))
    assert (episode.terminated, episode.truncated, episode.stop_reason) == (False, True, "max_turns")
    assert len(episode.trajectories[0].steps) == 2


# Templates that rewrite history

FORGETTING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{{ m['content'] | replace('a', '') if m['role'] == 'assistant' else m['content'] }}{{ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def test_segments_hold_each_turn_as_the_engine_saw_it() -> None:
    """The template leaves every "a" of an earlier turn out: each turn is a trajectory of its own."""
    tokenizer = byte_tokenizer(FORGETTING)
    engine = Recording(TorchEngine(drifting_bytes(tokenizer), tokenizer, max_length=400))
    arena = Arena.build("echo", Echo, tokenizer, on_rewrite="segment")
    with Rollout(engine, {"echo": arena}, concurrency=3) as rollout:
        episodes = rollout.run(requests([task(i, 3) for i in range(6)]))
    for episode in episodes:
        assert len(episode.trajectories) == 3
        calls = [call for call in engine.calls if call[0] == episode.id]
        for n, (trajectory, (_, prompt, _, completion)) in enumerate(zip(episode.trajectories, calls, strict=True)):
            assert trajectory.token_ids == (*prompt, *completion.token_ids)
            assert trajectory.mask == (False,) * len(prompt) + (True,) * len(completion.token_ids)
            text = tokenizer.apply_chat_template(
                [dict(m) for m in episode.messages[: 2 * n + 1]], tokenize=False, add_generation_prompt=True
            )
            assert tokenizer.decode(prompt) == text
            (step,) = trajectory.steps
            assert step.reward == (episode.reward if n == 2 else 0.0)


def drifting_bytes(tokenizer: Any) -> PreTrainedModel:
    """Letters a to f in any order, and the end of the turn now and then."""
    import torch
    from bigram import bigram_model

    logits = torch.full((len(tokenizer), len(tokenizer)), -30.0)
    letters = [tokenizer.encode(letter)[0] for letter in "abcdef"]
    logits[:, letters] = torch.randn(len(tokenizer), 6, generator=torch.Generator().manual_seed(0))
    logits[:, tokenizer.eos_token_id] = 0.5
    return bigram_model(logits)


def test_a_rewrite_that_only_a_finished_episode_shows_is_one_error() -> None:
    tokenizer = byte_tokenizer(FORGETTING.replace("replace('a', '')", "replace('Dea', 'alive')"))
    model = writing_model(tokenizer, chain([tokenizer.encode(letter)[0] for letter in "\nDea"]))
    engine = TorchEngine(model, tokenizer, max_length=300)
    with (
        Rollout(engine, {"echo": Arena.build("echo", Echo, tokenizer)}) as rollout,
        pytest.raises(TemplateError, match=r"where 'Dea.*it later has 'alive"),
    ):
        rollout.run(requests([task(i, 2) for i in range(3)], temperature=0.0))


def test_an_env_s_own_randomness_is_seeded_by_the_episode(drifting: PreTrainedModel) -> None:
    class Dice(Echo):
        def respond(self, task: Task, action: str) -> str | None:
            return f"{self.np_random.integers(10**9)}" if self.turn < 3 else None

    first, again = (play(drifting, [task(i) for i in range(5)], Dice, concurrency=n) for n in (1, 5))
    assert [plain(e) for e in first] == [plain(e) for e in again]
    said = [m["content"] for e in first for m in e.messages[2:] if m["role"] == "user"]
    assert len(set(said)) == len(said) == 10
    assert np.all([len(e.messages) == 6 for e in first])


def test_only_the_step_that_judges_counts_as_verification_also_where_judging_fails(drifting: PreTrainedModel) -> None:
    """Each step naps; of four rounds only the last one judges. One that breaks before does not count."""
    naps = [task(0, 4, nap_s=0.1), task(1, 1, nap_s=0.1, fault=["verdict", 1]), task(2, 1, fault=["infrastructure", 1])]
    judged, unjudged, broken = play(drifting, naps)
    assert judged.verdict is not None and 0.1 <= judged.verify_seconds <= judged.seconds - 0.3
    assert unjudged.error == "the grader failed" and unjudged.verify_seconds >= 0.1
    assert broken.error == "the sandbox is gone" and broken.verify_seconds == 0

"""Curricula: what is chosen, what is learnt from how it went, and that a resumed run goes on as it would have."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ludus.agents.engine import Sampling
from ludus.agents.model import character_tokenizer
from ludus.agents.rollout import Arena, EpisodeRequest
from ludus.agents.trajectory import Episode
from ludus.envs.source import ListSource, ProceduralSource
from ludus.envs.task import Task
from ludus.envs.text_env import TextEnv
from ludus.trainers.config import CurriculumConfig
from ludus.trainers.curriculum import Curriculum, CurriculumError
from ludus.trainers.task_stream import TaskStream
from ludus.verifiers.verdict import Verdict

EPISODE = Episode(
    id="",
    env="e",
    task_id="",
    group="",
    seed=0,
    reward=0.0,
    rewards={},
    verdict=Verdict.wrong(""),
    terminated=True,
    truncated=False,
    error=None,
    stop_reason="answer",
    messages=(),
    trajectories=(),
)


class Three(TextEnv):
    """Tasks of three kinds, in turns."""

    def __init__(self) -> None:
        super().__init__(ListSource([Task(str(i), f"task {i}", None, {"level": i % 3}) for i in range(30)]))

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.wrong("never asked")


def curriculum(rule: str, **settings: object) -> Curriculum:
    return Curriculum(CurriculumConfig(rule=rule, **{"key": "level", **settings}))  # type: ignore[arg-type]


def stream(chosen: Curriculum | None) -> TaskStream:
    return TaskStream([(Arena.build("e", Three, character_tokenizer()), 1.0)], 3, 2, Sampling(), chosen)


def played(requests: list[EpisodeRequest], chances: dict[int, float]) -> list[Episode]:
    """Episodes that are solved as often as their level says."""
    found = []
    for request in requests:
        rng = np.random.default_rng(request.seed)
        right = rng.random() < chances[request.task.data["level"]]
        verdict = Verdict.correct("") if right else Verdict.wrong("")
        found.append(replace(EPISODE, id=request.id, group=request.group, reward=float(right), verdict=verdict))
    return found


def shares(chosen: Curriculum | None, chances: dict[int, float], steps: int = 60) -> dict[int, float]:
    """How often each level was played in the second half."""
    tasks, counts = stream(chosen), Counter[int]()
    for step in range(steps):
        requests = tasks.groups(8)
        if step >= steps // 2:
            counts.update(request.task.data["level"] for request in requests)
        tasks.learn(played(requests, chances))
    return {level: counts[level] / counts.total() for level in range(3)}


def test_a_band_plays_what_is_solved_neither_always_nor_never() -> None:
    found = shares(curriculum("band"), {0: 1.0, 1: 0.5, 2: 0.0})
    assert found[1] > 0.6 and 0 < found[0] < 0.25 and 0 < found[2] < 0.25
    plain = shares(None, {0: 1.0, 1: 0.5, 2: 0.0})
    assert all(0.25 < share < 0.42 for share in plain.values())


def test_self_paced_goes_from_the_easy_to_the_hard() -> None:
    chosen = curriculum("self_paced", reach=0.3, pace=0.01)
    tasks, chances = stream(chosen), {0: 0.95, 1: 0.6, 2: 0.2}
    halves: list[Counter[int]] = [Counter(), Counter()]
    for step in range(100):
        requests = tasks.groups(8)
        if 2 <= step < 10 or step >= 90:
            halves[step >= 90].update(request.task.data["level"] for request in requests)
        tasks.learn(played(requests, chances))
    early, late = ({level: half[level] / half.total() for level in range(3)} for half in halves)
    assert early[0] > 0.6 > late[0] and late[1] > early[1] + 0.1
    assert chosen.reach > 0.3


def test_rates_are_moving_averages_of_what_was_solved_and_errors_count_for_nothing() -> None:
    chosen = curriculum("band", memory=0.5)
    one = [replace(EPISODE, group="a", verdict=Verdict.correct(""), reward=1.0), replace(EPISODE, group="a")]
    broken = replace(EPISODE, group="a", reward=None, error="the lights went out")
    chosen.learn([*one, broken, replace(EPISODE, group="unknown")], {"a": "e/1"})
    assert chosen.rates == {"e/1": 0.5}
    chosen.learn([one[0]], {"a": "e/1"})
    assert chosen.rates == {"e/1": 0.75}
    assert chosen.curves() == {"curriculum/kinds": 1.0, "curriculum/wanted": 1.0, "solved/e/1": 0.75}
    unjudged = replace(EPISODE, group="b", verdict=None, reward=0.25)
    chosen.learn([unjudged], {"b": "e/2"})
    assert chosen.rates["e/2"] == 0.25


@given(steps=st.integers(1, 8), rule=st.sampled_from(["band", "self_paced"]))
def test_a_resumed_stream_goes_on_as_the_first_would_have(steps: int, rule: str) -> None:
    first, chances = stream(curriculum(rule)), {0: 0.9, 1: 0.5, 2: 0.1}
    for _ in range(steps):
        first.learn(played(first.groups(3), chances))
    second = stream(curriculum(rule))
    second.restore(json.loads(json.dumps(first.state())))
    for _ in range(3):
        ours, theirs = first.groups(3), second.groups(3)
        assert ours == theirs
        assert first.learn(played(ours, chances)) == second.learn(played(theirs, chances))


@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=6), rule=st.sampled_from(["band", "self_paced"]))
def test_every_kind_keeps_some_weight(rates: list[float], rule: str) -> None:
    chosen = curriculum(rule)
    chosen.rates = {str(i): rate for i, rate in enumerate(rates)}
    weights = chosen.weights([*chosen.rates, "never seen"])
    assert weights.min() >= chosen.config.outside and weights[-1] == 1


def test_without_a_key_every_task_is_a_kind() -> None:
    tasks = stream(curriculum("band", key=None))
    tasks.learn(played(tasks.groups(8), {0: 0.5, 1: 0.5, 2: 0.5}))
    assert tasks.curriculum is not None and len(tasks.curriculum.rates) == 8


def test_tasks_without_the_entry_are_named_with_what_they_have() -> None:
    with pytest.raises(CurriculumError, match=r"'template': the tasks of e have no such entry .*\(level\), or null"):
        stream(curriculum("band", key="template")).groups(1)


@pytest.mark.parametrize("settings", [{"low": 0.8, "high": 0.2}, {"candidates": 1}, {"outside": 0.0}, {"rule": "easy"}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CurriculumConfig(**{"rule": "band", "key": None, **settings})  # type: ignore[arg-type]


def test_tasks_that_never_come_again_need_a_key() -> None:
    class Endless(Three):
        def __init__(self) -> None:
            TextEnv.__init__(self, ProceduralSource(lambda rng, i: Task(str(i), f"{i}", None, {"level": 1})))

    arena = Arena.build("e", Endless, character_tokenizer())
    tasks = TaskStream([(arena, 1.0)], 3, 2, Sampling(), curriculum("band", key=None))
    with pytest.raises(CurriculumError, match=r"never asks a task twice; name an entry of its tasks' data \(level\)"):
        tasks.groups(1)

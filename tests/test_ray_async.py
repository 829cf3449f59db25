"""Asynchronous rollouts: what is played while the learner learns is never older than allowed, and learnt from once."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray_places import arenas, place
from test_ray import Said, asked, plain, pool_of, small_model, trained  # noqa: F401  a fixture
from test_rollout import TOKENIZER as ECHO_TOKENIZER
from test_rollout import requests, rollout_of, task
from test_train import SHAPE as ATTENDING

from ludus.agents.engine import Completion, Sampling, StopReason
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import EpisodeRequest, failed_episode
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode
from ludus.agents.weights import WeightFolder
from ludus.algorithm_choice import chosen_algorithm
from ludus.recipe import RecipeError, make_recipe
from ludus.trainers.algorithms import AlgorithmError
from ludus.trainers.config import PolicyConfig
from ludus.trainers.in_flight import InFlight, capacity, choose
from ludus.trainers.ray_pool import RayPool
from ludus.trainers.ray_worker import RolloutWorker, ahead
from ludus.trainers.task_stream import TaskStream

# Which groups, and when


class Lottery:
    """Plays nothing: what is handed out is done in an order that is drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.asked: dict[int, EpisodeRequest] = {}
        self.over: set[int] = set()

    def submit(self, requests: Sequence[EpisodeRequest]) -> list[int]:
        tickets = list(range(len(self.asked), len(self.asked) + len(requests)))
        self.asked |= dict(zip(tickets, requests, strict=True))
        return tickets

    def take(self, tickets: Sequence[int]) -> dict[int, Episode]:
        return {t: failed_episode(self.asked[t], "not played") for t in tickets if t in self.over}

    def wait(self, tickets: Sequence[int]) -> None:
        assert tickets, "nothing is under way, and nothing may be learnt from"
        self.over.add(self.rng.choice(list(tickets)))

    def finish_some(self) -> None:
        self.over |= {t for t in self.asked if t not in self.over and self.rng.random() < 0.4}

    def cancel(self, tickets: Sequence[int]) -> None: ...

    def status(self) -> tuple[int, int]:
        return 0, 0


def stream(group_size: int) -> TaskStream:
    return TaskStream([(arenas()["first"], 1.0)], 0, group_size, Sampling())


@settings(max_examples=60)
@given(
    batch=st.integers(1, 4), eta=st.integers(0, 3), size=st.integers(1, 3), steps=st.integers(1, 9), seed=st.integers()
)
def test_no_group_is_learnt_from_that_is_too_old(batch: int, eta: int, size: int, steps: int, seed: int) -> None:
    """Whatever order they are done in: each once and whole, as many in each step, none in vain; a resumed run too."""
    pool, tasks = Lottery(seed), stream(size)
    under_way, first, learnt = InFlight(pool, eta, steps), {}, []
    for version in range(steps):
        known = set(first)
        episodes = under_way.play(None, tasks, batch, version)  # type: ignore[arg-type]
        first |= {request.group: version for request in pool.asked.values() if request.group not in known}
        assert len(first) <= (eta + version + 1) * batch
        groups = list(dict.fromkeys(episode.group for episode in episodes))
        assert len(groups) == batch and len(episodes) == batch * size
        assert [e.id for e in episodes] == [f"{group}/{sample}" for group in groups for sample in range(size)]
        assert all(version - first[group] <= eta for group in groups)
        learnt += groups
        pool.finish_some()
        if version % 3 == 1:
            other = InFlight(pool, eta, steps)
            other.restore(under_way.state(), tasks.sampling)
            assert other.names() == under_way.names()
            under_way = other
    assert len(set(learnt)) == len(learnt) and not under_way.groups and tasks.total == steps * batch


def test_capacity_is_areals_rule() -> None:
    """Worked by hand: version 3 with 8 groups a step, 24 learnt from, 10 running; and never below 0."""
    assert capacity(2, 3, 8, 24, 10) == (2 + 3 + 1) * 8 - 34 == 14
    assert capacity(0, 0, 8, 0, 0) == 8 and capacity(0, 1, 8, 8, 9) == 0


def test_first_come_first_learnt_from_unless_others_would_come_too_late() -> None:
    assert choose([0, 0, 0, 0], done=[3, 1], wanted=2, max_staleness=1) == [3, 1]
    assert choose([1, 0, 0, 0], done=[3, 1], wanted=2, max_staleness=1) is None
    assert choose([1, 0, 0, 0], done=[3, 1, 0], wanted=2, max_staleness=1) == [0, 3]
    assert choose([1, 1, 1, 0], done=[0, 3, 1], wanted=1, max_staleness=3) == [0]
    assert choose([1, 1, 1, 0], done=[3, 0, 1], wanted=1, max_staleness=3) == [0]


# Weights that change under way


@settings(max_examples=10)
@given(every=st.integers(1, 9), top_k=st.sampled_from([0, 5]))
def test_a_greedy_episode_that_is_interrupted_is_that_in_one(every: int, top_k: int) -> None:
    """Interrupted every few ticks by the same weights: same tokens, rewards, kept sets; versions rise within turns."""
    policy = create_tiny_model(ATTENDING, 0)[0]
    asked_ = requests([task(i, 1 + i % 3) for i in range(5)], temperature=0.0, top_k=top_k, max_tokens=20)
    with rollout_of(TorchEngine(policy, ECHO_TOKENIZER, slots=16, max_length=400)) as rollout:
        whole = rollout.run(asked_)

        async def disturbed() -> list[Episode]:
            play = asyncio.ensure_future(rollout.play(asked_))
            version = 0
            while not play.done():
                for _ in range(every):
                    await asyncio.sleep(0)
                version += 1
                rollout.engine.interrupt()  # type: ignore[attr-defined]
                rollout.engine.load_weights(policy, version)  # type: ignore[attr-defined]
            return await play

        pieces = rollout.await_(disturbed())
    seen = 0
    for one, other in zip(whole, pieces, strict=True):
        first, second = plain(one), plain(other)
        for ours, theirs in zip(first["trajectories"], second["trajectories"], strict=True):
            assert ours.pop("logprobs") == pytest.approx(theirs.pop("logprobs"), abs=1e-4)
            versions = [v for v in theirs.pop("versions") if v >= 0]
            assert versions == sorted(versions) and {v for v in ours.pop("versions") if v >= 0} == {0}
            seen = max(seen, len(set(versions)))
        assert first == second
    assert seen > 1


class LateInterrupts(TorchEngine):
    """Says of what came to its last token that it was interrupted there."""

    async def generate(self, token_ids: list[int], sampling: Sampling, session: str | None = None) -> Completion:
        found = await super().generate(token_ids, sampling, session)
        return replace(found, stop_reason=StopReason.INTERRUPTED) if found.stop_reason is StopReason.LENGTH else found


def test_an_episode_that_is_interrupted_at_its_last_token_is_whole() -> None:
    """It has its tokens and its end; a pause, which nobody would go on with, it has not."""
    policy = create_tiny_model(ATTENDING, 0)[0]
    asked_ = requests([task(i, 1) for i in range(5)], max_tokens=20)
    found = []
    for kind in (TorchEngine, LateInterrupts):
        with rollout_of(kind(policy, ECHO_TOKENIZER, slots=16, max_length=400)) as rollout:
            found.append([plain(episode) for episode in rollout.run(asked_)])
    assert found[0] == found[1]
    assert any(episode["stop_reason"] == "length" for episode in found[0])


@pytest.fixture(scope="module")
def pool(model: Any, ray_cluster: Any, tmp_path_factory: Any) -> Iterator[RayPool]:
    with pool_of(model, tmp_path_factory.mktemp("weights"), Said(), concurrency=4) as found:
        yield found


@pytest.mark.ray
def test_an_episode_goes_on_under_new_weights(pool: RayPool, model: Any, tmp_path: Path) -> None:
    """Its environment waits while they come: earlier tokens stay, later ones carry the new version."""
    reached, gate = tmp_path / "reached", tmp_path / "gate"
    tickets = pool.submit(asked(1, reach=str(reached), wait_for=str(gate)))
    while not reached.exists():
        pool._raise_error()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight *= 1.1
    pool.engine.load_weights(other, 1)
    gate.touch()
    pool.wait(tickets)
    episode = pool.take(tickets)[tickets[0]]
    versions = [v for t in episode.trajectories for v in t.versions if v >= 0]
    assert versions == sorted(versions) and set(versions) == {0, 1}


@pytest.mark.ray
def test_what_is_given_up_leaves_room_and_does_not_come_back(pool: RayPool, tmp_path: Path) -> None:
    tickets = pool.submit(asked(9, wait_for=str(tmp_path / "never")))
    assert pool.status() == (4, 5)
    pool.cancel(tickets)
    assert pool.status() == (0, 0)
    assert all(episode.error is None for episode in pool.run(asked(8, "second")))
    assert pool.take(tickets) == {}


async def alone(model: Any, folder: Path) -> RolloutWorker:
    """A worker of four places in this process."""
    worker, weights = RolloutWorker(), WeightFolder(folder)
    sent = weights.send(model, 0)
    model.config.save_pretrained(sent.path.parent)
    await worker.open(pickle.dumps(place), sent, str(Path.cwd()), [], torch.get_num_threads(), 4)
    weights.close()
    return worker


def test_a_worker_keeps_nothing_of_what_is_given_up_before_it_began(model: Any, tmp_path: Path) -> None:
    """Else each of its replies would wait for episodes that nobody plays."""

    async def given_up_at_once() -> RolloutWorker:
        worker = await alone(model, tmp_path)
        await worker.submit(list(enumerate(asked(6))))
        await worker.cancel(range(6))
        await worker.collect([], 0.01)
        await worker.close()
        return worker

    worker = asyncio.run(given_up_at_once())
    assert not worker._waiting and not worker._tasks and not worker._done


def test_a_reply_that_is_full_waits_for_no_more(
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though many wait for a place."""
    monkeypatch.setattr("ludus.trainers.ray_worker.GATHER_S", 600.0)
    monkeypatch.setattr("ludus.trainers.ray_worker.INLINE_BYTES", 1)

    async def waiting_at_the_first_reply() -> int:
        worker = await alone(model, tmp_path)
        await worker.submit(list(enumerate(asked(40))))
        assert len((await worker.collect([], 30.0)).done) == 1
        found = len(worker._waiting)
        await worker.close()
        return found

    assert asyncio.run(waiting_at_the_first_reply()) > ahead(4)


# A whole run


@pytest.mark.ray
def test_an_asynchronous_run_learns_from_what_is_not_too_old(ray_cluster: Any, tmp_path: Path) -> None:
    from test_ray import RECIPE

    policy = {**RECIPE["policy"], "steps": 6}
    word_math = RECIPE["envs"][1:]
    changes = {"envs": word_math, "policy": policy, "star": None}
    _, kept, rows = trained(tmp_path / "run", changes, placement="ray_async", cpus_per_worker=0.5, max_staleness=1)
    curves = [row for row in rows if row["phase"] == "policy"]
    assert len(curves) == 6 and all(0 <= row["staleness"] <= 1 for row in curves)
    assert any(row["staleness"] > 0 for row in curves)
    assert {"in_flight", "queued"} <= curves[0].keys()
    learnt = [row["id"] for row in kept if not row["id"].startswith("eval")]
    assert len(learnt) == len(set(learnt)) == 6 * 9


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"algorithm": "dapo"}, "dapo refills groups within a step, and rollout.placement = ray_async leaves some"),
        ({"algorithm": "remax"}, "leaves episodes to the next; set rollout.placement: ray, or choose rloo"),
        ({"curriculum": {"rule": "band", "key": None}}, "unset it, or set rollout.placement: ray"),
    ],
)
def test_what_needs_all_episodes_to_end_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(AlgorithmError, match=says):
        chosen_algorithm(PolicyConfig(steps=1, **config), placement="ray_async")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"policy": None}, "rollout.placement = ray_async is for policy optimisation, and there is no section policy"),
        ({"policy": {"steps": 1, "partial_tokens": 5}}, "leave out policy.partial_tokens, and policy.max_staleness"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    from test_ray import RECIPE

    with pytest.raises(RecipeError, match=says):
        make_recipe({**RECIPE, **changes, "rollout": {"placement": "ray_async"}}, "test")

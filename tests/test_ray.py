"""Ray workers play what this process would have played, token for token."""

from __future__ import annotations

import copy
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from ray_places import SHAPE, TOKENIZER, Obedient, arenas, place
from safetensors.torch import load_file
from test_train import Notes

from ludus.agents.engine import Sampling
from ludus.agents.model import create_tiny_model
from ludus.agents.rollout import EpisodeRequest, Rollout
from ludus.agents.torch_engine import TorchEngine
from ludus.agents.trajectory import Episode
from ludus.agents.weights import WeightFolder
from ludus.envs.task import Task
from ludus.recipe import RecipeError, make_recipe
from ludus.run_folder import RunFolder
from ludus.train import train_recipe
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.config import RolloutConfig
from ludus.trainers.ray_cluster import RayCluster, RayError, import_ray
from ludus.trainers.ray_pool import LongestFirst, RayPool, _Job
from ludus.verifiers.verdict import Verdict

pytestmark = pytest.mark.ray


class Said(Notes):
    """Keeps the lines that are said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def pool_of(
    model: Any, folder: Path, said: Notes, *, workers: int = 1, concurrency: int = 16, **config: Any
) -> RayPool:
    settings = RolloutConfig(placement="ray", workers=workers, cpus_per_worker=0.5, **config)
    return RayPool(
        place, arenas(), model, config=settings, concurrency=concurrency, weights=WeightFolder(folder), show=said
    )


@pytest.fixture(scope="module", name="model")
def small_model() -> Any:
    found, _ = create_tiny_model(SHAPE, 0)
    with torch.no_grad():
        found.lm_head.weight[TOKENIZER.eos_token_id] *= 3  # so that turns end
    return found


@pytest.fixture(scope="module")
def pool(model: Any, ray_cluster: Any, tmp_path_factory: Any) -> Iterator[RayPool]:
    with pool_of(model, tmp_path_factory.mktemp("weights"), Said()) as found:
        yield found


def asked(count: int, env: str = "first", seed: int = 0, **data: Any) -> list[EpisodeRequest]:
    sampling = Sampling(max_tokens=12, top_k=20, stop=tuple("aeiou0123456789"))
    return [
        EpisodeRequest(
            f"{env}/{i}", env, Task(str(i), f"say {i}", None, data=data), f"{env}/{i // 4}", seed + i, sampling
        )
        for i in range(count)
    ]


def plain(episode: Episode) -> dict[str, Any]:
    return {**episode.to_json(), "seconds": None, "verify_seconds": None}


def in_process(model: Any, requests: list[EpisodeRequest], version: int = 0) -> list[Episode]:
    engine = TorchEngine(model, TOKENIZER, slots=32, max_length=200)
    engine.load_weights(model, version)
    with Rollout(engine, arenas(), concurrency=32) as rollout:
        return rollout.run(requests)


def test_one_worker_gives_the_episodes_of_this_process_bit_for_bit(pool: RayPool, model: Any) -> None:
    """Tokens, log-probabilities, kept sets, rewards; with more episodes than are in flight, and after new weights."""
    pool.engine.load_weights(model, 0)
    requests = asked(40) + asked(10, "second", 99)
    seen: list[str] = []
    found = pool.run(requests, lambda episode: seen.append(episode.id))
    assert [plain(e) for e in found] == [plain(e) for e in in_process(model, requests)]
    assert sorted(seen) == sorted(request.id for request in requests)
    assert pool.engine.exact and pool.engine.max_length == 200
    assert pool.engine.generated_tokens == sum(sum(t.mask) for e in found for t in e.trajectories)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight *= 1.5
    pool.engine.load_weights(other, 7)
    assert [plain(e) for e in pool.run(requests)] == [plain(e) for e in in_process(other, requests, 7)]
    assert pool.engine.version == 7


def test_one_long_episode_holds_up_nobody(pool: RayPool, model: Any, tmp_path: Path) -> None:
    """It waits for a file that is made when all others, more than are in flight, are done."""
    gate = tmp_path / "gate"
    requests = [*asked(1, wait_for=str(gate)), *asked(40, "second")]
    done: list[str] = []

    def count(episode: Episode) -> None:
        done.append(episode.id)
        if len(done) == 40:
            gate.touch()

    assert all(episode.error is None for episode in pool.run(requests, count))
    assert done[-1] == requests[0].id


def test_a_worker_plays_in_its_places_and_has_the_next_episodes_at_hand(pool: RayPool, tmp_path: Path) -> None:
    """16 places, half as many that wait in the worker, and the rest here. All play an environment of the same name."""
    gate = tmp_path / "gate"
    requests = [
        replace(
            request,
            task=replace(request.task, data={"wait_for": str(gate), "reach": str(tmp_path / f"at{i}")}),
            sampling=replace(request.sampling, max_tokens=100),  # so that each reaches its environment
        )
        for i, request in enumerate(asked(40))
    ]
    tickets = pool.submit(requests)
    began = {f"at{i}" for i in range(16)}
    deadline = time.monotonic() + 2  # below that of a step
    while {path.name for path in tmp_path.iterdir()} != began and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # in which no other begins
    assert {path.name for path in tmp_path.iterdir()} == began
    assert pool.status() == (16, 24) and len(pool._workers[0].given) == 24
    with pool._changed:
        assert pool._state_of({*tickets}).startswith("40 episodes (24 of them not begun), the oldest first/0, for")
    gate.touch()
    assert [episode.error for episode in pool.run(asked(3, "second"))] == [None] * 3  # urgent, before the 16 here
    while len(pool._done) < 40:
        pool.wait([ticket for ticket in tickets if ticket not in pool._done])
    assert [episode.id for episode in pool.take(tickets).values()] == [request.id for request in requests]
    assert pool.status() == (0, 0)


def test_only_the_newest_weights_stay(pool: RayPool, model: Any) -> None:
    for version in (8, 9, 9):
        pool.engine.load_weights(model, version)
    assert pool._serving.version == 9
    assert list(pool._serving.path.parent.parent.iterdir()) == [pool._serving.path.parent]


def test_what_is_expected_to_be_long_begins_first() -> None:
    queue = LongestFirst()
    for env, tokens in [("short", 5), ("long", 500), ("short", 7)]:
        queue.learn(env, tokens)
    for ticket, env in enumerate(["new", "short", "long", "short", "long"]):
        queue.push(_Job(ticket, asked(1, env)[0]))
    assert [queue.pop().ticket for _ in range(len(queue))] == [2, 4, 1, 3, 0]


# A whole run


class Registered(Obedient):
    """An environment that only this process has registered."""

    def verify(self, task: Task, response: str) -> Verdict:
        return Verdict.correct("short") if len(response) < 4 else Verdict.wrong("long")


RECIPE: dict[str, Any] = {
    "name": "placed",
    "seed": 3,
    "threads": 1,
    "model": {"tiny": SHAPE.model_dump(mode="json")},
    "envs": [{"name": "ludus-tests/Registered-v0"}, {"name": "ludus/WordMath-v0", "options": {"levels": [1]}}],
    "engine": {"slots": 16, "max_length": 400},
    "sampling": {"max_tokens": 8, "stop": list("aeiou0123456789")},
    "star": {"rounds": 1, "groups": 2, "group_size": 2, "steps": 1, "rationalise": False},
    "policy": {"algorithm": "dapo", "options": {"dynamic_sampling": False}, "steps": 3, "groups": 3, "group_size": 3},
    "eval": {"every": 2, "tasks": 4},
    "trajectories": {"every": 1, "episodes": 9},
}


@pytest.fixture
def registered() -> Iterator[None]:
    gymnasium.register(id="ludus-tests/Registered-v0", entry_point=Registered, disable_env_checker=True)
    yield
    del gymnasium.registry["ludus-tests/Registered-v0"]


def trained(
    folder: Path, changes: Any = None, **rollout: Any
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], list[dict[str, Any]]]:
    """The weights of a run, its stored episodes, and its curves without those of time."""
    recipe = make_recipe({**RECIPE, **(changes or {}), "rollout": rollout}, "test")
    threads = torch.get_num_threads()
    try:
        with RunFolder.create(recipe, folder) as run:
            train_recipe(recipe, run, display=Notes())  # type: ignore[arg-type]
            rows = [{k: v for k, v in row.items() if "second" not in k} for row in run.metrics()]
            kept = [plain(Episode.from_json(row)) for label in run.episode_labels() for row in run.read_episodes(label)]
    finally:
        torch.set_num_threads(threads)
    return load_file(list_checkpoints(folder / "checkpoints")[-1].path / "model.safetensors"), kept, rows


def test_a_run_by_ray_is_the_run_in_process(ray_cluster: Any, registered: None, tmp_path: Path) -> None:
    """Two environments, one of which only the script knows; STaR, policy steps and evaluations: the same bits."""
    here, kept_here, rows_here = trained(tmp_path / "here")
    there, kept_there, rows_there = trained(tmp_path / "there", placement="ray", cpus_per_worker=0.5)
    assert all(torch.equal(here[name], there[name]) for name in here)
    assert kept_here == kept_there and kept_here
    assert rows_here == rows_there


# What is refused


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workers": 2}, "workers is a setting of ray and ray_async and placement is in_process; set placement: ray"),
        ({"placement": "ray", "max_staleness": 1}, "max_staleness is a setting of ray_async and placement is ray; set"),
        ({"placement": "rya"}, "rollout.placement = 'rya' is not one of 'in_process', 'ray' or 'ray_async'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make_recipe({**RECIPE, "rollout": settings}, "test")


def test_more_workers_than_there_is_room_for_are_refused(
    ray_cluster: Any, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ludus.trainers.ray_cluster.RESERVE_S", 0.5)
    with pytest.raises(RayError, match=r"no room for rollout\.workers = 2 of 0\.5 CPU and 8 GPU each"):
        pool_of(model, tmp_path, Said(), workers=2, gpus_per_worker=8.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there_is_said_at_once(form: str) -> None:
    """Ray itself would try for minutes, and hear of no Ctrl-C."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and does not listen
        address = form.format(closed.getsockname()[1])
        cluster = object.__new__(RayCluster)
        with pytest.raises(
            RayError, match=rf"^No Ray at {address} \(.*refused\); start one with `ray start --head`, or"
        ):
            cluster._connect(address, 1, 1.0)


def test_an_old_ray_and_none_are_told_in_one_sentence(ray_cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster.ray, "__version__", "2.9.3")
    with pytest.raises(RayError, match=r"^Ray 2\.9\.3 is older than 2\.50; run: pip install --upgrade 'ludus"):
        import_ray()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayError, match=r"^Ray is not installed \(.*\); run: pip install 'ludus\[ray\]'\.$"):
        import_ray()

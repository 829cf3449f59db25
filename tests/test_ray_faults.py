"""Faults, each provoked for real: whatever dies, hangs or is full, every episode comes back once, and nothing stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray_places import SHAPE
from safetensors.torch import load_file
from test_ray import Said, asked, in_process, plain, pool_of, small_model  # noqa: F401  a fixture

from ludus.agents.rollout import EpisodeRequest
from ludus.agents.trajectory import Episode
from ludus.run_folder import read_metrics
from ludus.sandbox.errors import LudusError
from ludus.trainers.checkpoint import list_checkpoints
from ludus.trainers.ray_cluster import STORE_BYTES
from ludus.trainers.ray_pool import RayPool

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def said() -> Said:
    return Said()


@pytest.fixture(scope="module")
def its_pool(model: Any, ray_cluster: Any, said: Said, tmp_path_factory: Any) -> Iterator[RayPool]:
    folder = tmp_path_factory.mktemp("weights")
    with pool_of(model, folder, said, workers=2, concurrency=12, reply_deadline_s=5.0) as found:
        yield found
    assert not list(folder.iterdir())


@pytest.fixture
def pool(its_pool: RayPool) -> RayPool:
    """With all workers there and no loss counted, whatever an earlier test did to them."""
    its_pool.await_workers()
    for worker in its_pool._workers:
        worker.failures = 0
    return its_pool


def test_a_worker_killed_in_the_middle_of_episodes_costs_none(
    pool: RayPool,
    said: Said,
    model: Any,
    tmp_path: Path,
) -> None:
    """An environment kills the process that it is in, once: all is played again, to the same bits."""
    requests = [*asked(8), *asked(1, "second", kill=str(tmp_path / "killed")), *asked(20, "second")[1:]]
    before = {worker.info.pid for worker in pool._workers if worker.info}
    found = pool.run(requests)
    assert [plain(e) for e in found] == [plain(e) for e in in_process(model, requests)]
    line = next(line for line in said.lines if "died" in line)
    assert re.search(r"^Ray worker [01] died \(.*\); another takes its place, and \d+ episodes begin again\.$", line)
    alive = {worker.info.pid for worker in pool._workers if worker.info}
    assert len(alive & before) == 1


def test_what_kills_every_worker_comes_back_as_failed(pool: RayPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed, and never with a reward; the pool plays on."""
    monkeypatch.setattr("ludus.trainers.ray_pool.TRIES", 1)
    (episode,) = pool.run(asked(1, die=True))
    assert episode.reward is None and episode.error is not None
    assert episode.error.startswith("1 workers were lost while they played it, the last because it died (")
    assert all(episode.error is None for episode in pool.run(asked(4)))


def reaching(request: EpisodeRequest) -> EpisodeRequest:
    """With so many tokens that its first turn ends, and its environment plays."""
    return replace(request, sampling=replace(request.sampling, max_tokens=100))


def test_what_never_began_is_not_given_up_with_what_kills_workers(
    model: Any,
    ray_cluster: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two places: in one what kills, in the other what waits so long; and another episode, for which none is free."""
    monkeypatch.setattr("ludus.trainers.ray_pool.TRIES", 2)
    gate = tmp_path / "gate"
    first, second, third = (reaching(request) for request in asked(3))
    first = replace(first, task=replace(first.task, data={"die": True}))
    second = replace(second, task=replace(second.task, data={"wait_for": str(gate)}))
    with pool_of(model, tmp_path, Said(), concurrency=2) as found:
        *lost, played = found.run([first, second, third], lambda episode: gate.touch())
    assert all((episode.error or "").startswith("2 workers were lost while they played it") for episode in lost)
    assert played.error is None and played.reward is not None


def test_no_episode_is_at_hand_in_one_worker_for_which_another_has_a_place(pool: RayPool, tmp_path: Path) -> None:
    """All places of the first are taken for long; the others and what waits are played in the second meanwhile."""
    gate, long = tmp_path / "gate", range(0, 12, 2)
    requests = [
        reaching(replace(request, task=replace(request.task, data={"wait_for": str(gate)} if i in long else {})))
        for i, request in enumerate(asked(15))
    ]
    done: list[str] = []

    def count(episode: Episode) -> None:
        done.append(episode.id)
        if len(done) == 9:
            gate.touch()

    assert [episode.error for episode in pool.run(requests, count)] == [None] * 15
    assert {*done[9:]} == {requests[i].id for i in long}


def test_an_engine_that_fails_is_replaced(pool: RayPool, said: Said, model: Any, tmp_path: Path) -> None:
    requests = asked(8)
    requests[3] = replace(requests[3], id=f"fail:{tmp_path / 'failed'}")
    assert [plain(e) for e in pool.run(requests)] == [plain(e) for e in in_process(model, requests)]
    line = next(line for line in said.lines if "CUDA" in line)
    assert re.search(r"is broken \(RuntimeError: CUDA error: an illegal.*\); another takes its place, and", line)


def test_an_environment_and_a_verifier_that_hang_end_at_the_deadline(
    pool: RayPool, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the learner does not wait in silence."""
    monkeypatch.setattr("ludus.agents.waiting.SAY_AFTER_S", 1.0)
    requests = [*asked(1, wait_for="/nowhere"), *asked(1, "second", hang=True), *asked(6)[1:]]
    found = pool.run(requests)
    assert [e.error for e in found[:2]] == ["the environment took longer than 3 s"] * 2
    assert all(episode.error is None for episode in found[2:])
    late = r"2 episodes \(0 of them not begun\), the oldest (first|second)/0, for \d s on worker"
    assert re.search(rf"Waiting since \S+ \(\d+ s\) for {late}", "\n".join(said.lines))


def test_a_worker_that_does_not_answer_is_replaced_and_gets_the_new_weights(
    pool: RayPool, said: Said, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, so that it lives and says nothing, as new weights come."""
    monkeypatch.setattr("ludus.agents.waiting.SAY_AFTER_S", 1.0)
    pool.await_workers()
    worker = pool._workers[0]
    assert worker.info is not None
    os.kill(worker.info.pid, signal.SIGSTOP)
    pool.engine.load_weights(model, 40)
    lines = "\n".join(said.lines)
    assert re.search(r"Waiting since \S+ \(\d+ s\) for Ray worker 0 to load weights\.\n", lines)
    assert re.search(r"Ray worker 0 (has not answered for 6|did not load weights within 5) s; another takes its", lines)
    found = pool.run(asked(24))
    assert {v for e in found for t in e.trajectories for v in t.versions if v >= 0} == {40}


class OutOfReach:
    """A worker's handle whose next call of a name is lost on its way, as where the network fails for a moment."""

    def __init__(self, pool: RayPool, handle: Any, name: str) -> None:
        self.pool, self.handle, self.name, self.lost = pool, handle, name, None

    def __getattr__(self, name: str) -> Any:
        return self if name == self.name and self.lost is None else getattr(self.handle, name)

    def remote(self, *_: Any) -> Any:
        self.lost = self.handle.cancel.remote([])
        return self.lost

    def get(self, call: Any) -> Any:
        """What Ray says of the call that was lost, and of others what came of them."""
        if call == self.lost:
            raise self.pool._ray.exceptions.ActorUnavailableError("for a moment", None)
        return self.pool._cluster.ray.get(call)  # type: ignore[union-attr]

    def kill(self, handle: Any) -> None:
        """As Ray does, which wants its own handle."""
        self.pool._cluster.ray.kill(self.handle if handle is self else handle)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["submit", "load"])
def test_a_call_that_is_lost_costs_no_episode_and_no_weights(
    pool: RayPool, said: Said, model: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Nobody knows whether it arrived, so the worker is replaced."""
    pool.await_workers()
    worker = pool._workers[0]
    handle = OutOfReach(pool, worker.handle, name)
    ray = SimpleNamespace(**{**vars(pool._ray), "get": handle.get, "kill": handle.kill})
    monkeypatch.setattr(pool, "_ray", ray)
    monkeypatch.setattr(worker, "handle", handle)
    version = pool.engine.version + 1
    pool.engine.load_weights(model, version)
    tickets = pool.submit(asked(12))
    deadline = time.monotonic() + 60
    while pool._workers[0] is worker:
        assert time.monotonic() < deadline, "it was not replaced"
        time.sleep(0.05)
    found: dict[int, Any] = {}
    while len(found) < 12:
        pool.wait([ticket for ticket in tickets if ticket not in found])
        found |= pool.take(tickets)
    assert {v for e in found.values() for t in e.trajectories for v in t.versions if v >= 0} == {version}
    assert handle.lost is not None and any("for a moment" in line for line in said.lines)


def test_a_full_object_store_stops_nothing(pool: RayPool, ray_cluster: Any, model: Any) -> None:
    """Episodes and weights do not pass through it."""
    kept = [ray_cluster.ray.put(np.zeros(2**20)) for _ in range(STORE_BYTES // 2**23 + 2)]
    requests, version = asked(30), pool.engine.version
    found = pool.run(requests)
    pool.engine.load_weights(model, version + 1)
    assert [plain(e) for e in found] == [plain(e) for e in in_process(model, requests, version)]
    del kept


def test_weights_that_change_on_their_way_end_the_run(pool: RayPool, model: Any, monkeypatch: Any) -> None:
    """And the workers go on serving what they served."""
    send = pool._weights.send
    name = "model.norm.weight"
    monkeypatch.setattr(pool._weights, "send", lambda *a: replace(s := send(*a), digests={**s.digests, name: "0" * 64}))
    with pytest.raises(LudusError, match=r"does not serve the weights of version 60: 1 of \d+ tensors arrived"):
        pool.engine.load_weights(model, 60)


# Ctrl-C

RECIPE = f"""
name: small
seed: 3
threads: 1
model:
  tiny: {{hidden_size: {SHAPE.hidden_size}, layers: 1, heads: 2, kv_heads: 1, intermediate_size: 64}}
envs:
  - {{name: ludus/WordMath-v0, options: {{system_prompt: "", levels: [1]}}}}
engine: {{slots: 16, max_length: 256}}
sampling: {{max_tokens: 8}}
rollout: {{placement: ray, cpus_per_worker: 0.5}}
policy: {{algorithm: grpo, steps: 500, groups: 3, group_size: 3}}
eval: {{every: 1000, tasks: 4}}
checkpoint: {{every: 1}}
"""


def left_over(mark: str) -> list[str]:
    """Processes that have the mark in their environment, as all have that come of one that has it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["Memory: ", "grpo: "])
def test_ctrl_c_ends_everything_and_the_run_can_go_on(ray_cluster: Any, phase: str, tmp_path: Path) -> None:
    """As Ray starts, and as the policy learns; to the whole group of processes, as a terminal sends it."""
    (tmp_path / "small.yaml").write_text(RECIPE)
    mark = uuid.uuid4().hex
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LUDUS_TEST_MARK": mark}
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ludus", "train"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "small.yaml"), "--out", str(run)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if phase in line:
            break
    while phase == "grpo: " and process.poll() is None and not list_checkpoints(run / "checkpoints"):
        time.sleep(0.01)
    if phase == "grpo: ":  # what is looked for below is there until then
        assert left_over(mark) and list(Path("/dev/shm").glob(f"ludus-weights-{process.pid}-*"))
    os.killpg(process.pid, signal.SIGINT)
    said += process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert said.endswith(f"interrupted; go on with: ludus train --resume {run}\n")
    assert "Traceback" not in said
    assert not left_over(mark) and not list(Path("/dev/shm").glob(f"ludus-weights-{process.pid}-*"))
    if phase == "grpo: ":
        done = list_checkpoints(run / "checkpoints")[-1].step
        text = (run / "recipe.yaml").read_text()
        text = text.replace("steps: 500\n", f"steps: {done + 1}\n").replace("worker: 0.5\n", "worker: 1.0\n")
        (run / "recipe.yaml").write_text(text.replace("placement: ray\n", "placement: in_process\n"))
        resumed = subprocess.run([*command, "--resume", str(run)], capture_output=True, text=True, env=environment)
        assert resumed.returncode == 0, resumed.stderr
        newest = list_checkpoints(run / "checkpoints")[-1]
        assert newest.step == done + 1 and load_file(newest.path / "model.safetensors")
        assert not left_over(mark)


PRESSED = """
import os, signal, sys
from functools import reduce
from importlib import import_module

where, _, path = sys.argv[1].partition(":")
*classes, name = path.split(".")
place = reduce(getattr, classes, import_module(where))
original, left = getattr(place, name), int(sys.argv[2])

def pressed(*args, **options):
    global left
    left -= 1
    if left == 0:
        print("pressed", file=sys.stderr, flush=True)
        os.kill(0, signal.SIGINT)  # to the whole group of processes
    return original(*args, **options)

if __name__ == "__main__":
    from ludus.cli import main

    setattr(place, name, pressed)
    main(sys.argv[3:])
"""
MOMENTS = {
    "demonstrations": ("ludus.trainers.sft:sft_step", 2),
    "evaluation": ("ludus.trainers.ray_pool:RayPool.wait", 1),
    "weights": ("ludus.trainers.ray_pool:RayPool._loaded", 1),
    "checkpoint of the demonstrations": ("ludus.trainers.checkpoint:_fsync", 3),
    "rollout": ("ludus.trainers.policy:PolicyTrainer._account", 1),
    "step": ("ludus.trainers.policy:PolicyTrainer._optimise", 2),
    "report": ("ludus.train:write_report", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_leaves_nothing_and_the_run_can_go_on(
    ray_cluster: Any, moment: str, tmp_path: Path
) -> None:
    """Pressed as a function is called, so that what it is in the middle of is certain."""
    (tmp_path / "small.yaml").write_text(RECIPE.replace("steps: 500", "steps: 2") + "sft: {steps: 3, batch_size: 4}\n")
    (tmp_path / "pressed.py").write_text(PRESSED)
    mark = uuid.uuid4().hex
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LUDUS_TEST_MARK": mark}
    place, times = MOMENTS[moment]
    process = subprocess.Popen(
        [sys.executable, "pressed.py", place, str(times), "train", "small.yaml", "--out", "run"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        cwd=tmp_path,
    )  # fmt: skip
    said = process.communicate(timeout=180)[1]
    assert process.returncode == 130, said
    assert said.endswith("interrupted; go on with: ludus train --resume run\n") and "pressed\n" in said
    assert "Traceback" not in said
    assert not left_over(mark) and not list(Path("/dev/shm").glob(f"ludus-weights-{process.pid}-*"))
    assert not list((tmp_path / "run").rglob("*.partial"))
    text = (tmp_path / "run" / "recipe.yaml").read_text().replace("worker: 0.5\n", "worker: 1.0\n")
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("placement: ray\n", "placement: in_process\n"))
    command = [sys.executable, "-m", "ludus", "train", "--resume", "run"]
    resumed = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    rows = [(row["phase"], row["step"]) for row in read_metrics(tmp_path / "run") if row["phase"] != "eval"]
    assert rows == [("sft", 1), ("sft", 2), ("sft", 3), ("policy", 1), ("policy", 2)]
    assert not left_over(mark)

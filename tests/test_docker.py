"""The Docker sandbox: attacks, what each defence holds, and that no container is left, however Ludus ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_sandbox import gone, more, settle
from typer.testing import CliRunner

from ludus.cli import app
from ludus.sandbox import Limits, Result, SandboxError, Status, check_sandbox, open_sandbox
from ludus.sandbox.attacks import ATTACKS
from ludus.sandbox.check import LIMITS
from ludus.sandbox.docker_engine import DEFENCES, LABEL, Docker, _engines, _owner, docker_client
from ludus.sandbox.docker_image import image_name, make_image
from ludus.sandbox.limits import MIB

pytestmark = pytest.mark.docker

ATTACK = {attack.name: attack for attack in ATTACKS}
HELD_BY = {
    ("network",): ["TCP to the host", "socket of the host without a file"],
    ("user",): ["passwords and keys of the host"],
    ("user", "read-only root"): ["the root folder"],
    ("ipc",): ["shared memory of the host"],
    ("capabilities",): ["capabilities"],
    ("memory",): ["memory of many processes"],
    ("memory", "processes"): ["fork bomb"],
    ("bounded disk",): ["full disk"],
    ("seccomp",): ["watching another process"],
    ("seccomp", "no new privileges"): ["capabilities"],
}
"""What gets through where these defences are taken away, and does not where the last of them is put back."""


@pytest.fixture(scope="module")
def low(docker: Docker) -> Iterator[Docker]:
    """With containers ready that have the room of the attacks."""
    with Docker(LIMITS) as sandbox:
        yield sandbox


def containers(client: Any) -> list[dict[str, Any]]:
    return list(client.api.containers(all=True, filters={"label": LABEL}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_docker_holds_every_attack(low: Docker) -> None:
    report = check_sandbox(low)
    assert len(report.rows) > 80
    assert report.passed, str(report)


@pytest.mark.parametrize(("defences", "attack"), [(some, name) for some, names in HELD_BY.items() for name in names])
def test_without_its_defence_an_attack_succeeds_and_is_noticed(
    docker: Docker, defences: tuple[str, ...], attack: str
) -> None:
    with Docker(LIMITS, pool=0, _without=defences) as weak:
        assert not check_sandbox(weak, [ATTACK[attack]]).passed
    with Docker(LIMITS, pool=0, _without=defences[:-1]) as enough:
        assert check_sandbox(enough, [ATTACK[attack]]).passed


def test_each_defence_is_proven_somewhere() -> None:
    assert {defences[-1] for defences in HELD_BY} == set(DEFENCES)


def test_a_container_that_is_ready_serves_the_next_run_and_each_serves_one(docker: Docker) -> None:
    names = set()
    for _ in range(3):
        with docker.open_session() as session:
            names.add(session._place._name)  # type: ignore[attr-defined]
            assert session.exec(["ls"]).stdout == ""
            session.write_file("left", "x")
    assert len(names) == 3


def test_trusted_programs_share_a_container_and_find_nothing_of_each_other(docker: Docker) -> None:
    def trusted(command: str, **options: Any) -> Result:
        with sandbox.start(["sh", "-c", command], trusted=True, **options) as process:
            return process.finish()

    def kept() -> set[str]:
        return {session._place._name for session in sandbox._kept}  # type: ignore[attr-defined]

    look = "ls -A . /tmp /dev/shm; set -- /proc/[0-9]*; echo $#"
    with Docker(pool=0) as sandbox:
        clean = trusted(look)
        (name,) = kept()
        assert trusted("cat a; (setsid sleep 60 &); touch b /tmp/c /dev/shm/d", files={"a": "x"}).stdout == "x"
        assert trusted(look).stdout == clean.stdout
        assert trusted("sleep 60", limits=Limits(wall_s=0.2)).status is Status.TIMEOUT
        assert trusted("exec 0<&-; kill -9 $$").status is Status.KILLED
        assert trusted(look).stdout == clean.stdout and kept() == {name}
        with sandbox.open_session() as session:  # nobody else comes into it
            assert session._place._name != name  # type: ignore[attr-defined]
        room = Limits(disk_bytes=32 * MIB)
        assert trusted(look, limits=room).ok and len(kept()) == 2 and name in kept()
        assert trusted("mkdir closed && touch closed/a && chmod 0 closed").ok and name not in kept()
        assert trusted(look).stdout == clean.stdout
        for size in range(10):
            assert trusted("true", limits=Limits(disk_bytes=(33 + size) * MIB)).ok
        assert len(kept()) == 8
        client = docker_client()
        names = kept()
    assert not names & {one["Names"][0].strip("/") for one in containers(client)}


def test_programs_that_take_the_memory_of_the_keeper_are_told_as_memory(docker: Docker) -> None:
    program = """
    head -c 15000000 /dev/zero > /tmp/fill
    head -c 15000000 /dev/zero > /dev/shm/fill
    for i in $(seq 180); do
      (echo 0 > /proc/self/oom_score_adj; x=$(head -c 300000 /dev/zero | tr '\\0' x); sleep 60) &
    done
    wait
    """
    room = Limits(memory_bytes=16 * MIB, disk_bytes=32 * MIB, processes=400, wall_s=60)
    assert docker.run(["sh", "-c", program], limits=room).status is Status.MEMORY


def test_a_container_that_is_removed_from_outside_is_a_failure_of_the_sandbox(docker: Docker) -> None:
    results = []
    with docker.open_session() as session:
        thread = threading.Thread(target=lambda: results.append(session.exec(["sleep", "60"])))
        thread.start()
        time.sleep(0.5)
        docker._client.api.remove_container(session._place._name, force=True)  # type: ignore[attr-defined]
        thread.join(30)
        assert results[0].status is Status.FAILED and "The session ended" in results[0].reason
        with pytest.raises(SandboxError, match="could not read"):
            session.read_file("a")


def test_a_container_that_was_lost_while_it_waited_is_not_handed_out(docker: Docker) -> None:
    with Docker(pool=1) as sandbox:
        assert gone(lambda: not sandbox._ready)
        name = sandbox._ready[0]._place._name  # type: ignore[attr-defined]
        docker._client.api.remove_container(name, force=True)
        assert gone(lambda: not sandbox._ready[0].over)
        assert sandbox.run(["echo", "on"]).stdout == "on\n"


FORKS = """
import atexit, os
from ludus.sandbox.docker_engine import Docker

with Docker(pool=0) as sandbox, sandbox.open_session() as session:
    child = os.fork()
    if child == 0:
        atexit._run_exitfuncs()
        os._exit(0)
    print(os.waitpid(child, 0) == (child, 0), session.exec(["echo", "on"]).stdout)
"""


def test_a_forked_child_that_ends_leaves_its_parents_containers_alone(docker: Docker) -> None:
    """In a process of its own, for the child runs all functions that its parent has for its exit, as Ray's."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True on\n\n"), done.stderr


def test_an_image_whose_python_does_not_answer_leaves_no_container(docker: Docker) -> None:
    with Docker(pool=0) as sandbox:
        settings = sandbox._settings(sandbox.limits) | {"command": ["sh", "-c", "exit 3"]}
        sandbox._settings = lambda limits: settings  # type: ignore[method-assign]
        with pytest.raises(SandboxError, match="session did not start"):
            sandbox.run(["true"])
    assert gone(lambda: [row for row in containers(docker._client) if settings["name"] in row["Names"][0]])


def test_a_hundred_runs_leave_no_container_descriptor_thread_or_mount(docker: Docker) -> None:
    def standing() -> tuple[int, ...]:
        return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/mountinfo").read_text().splitlines())

    def unkept() -> int:
        """Containers of this process that none of its sandboxes keeps."""
        mine = [row for row in containers(docker._client) if row["Labels"][LABEL].startswith(f"{_owner()}-")]
        return len(mine) - sum(len(engine._open) for engine in list(_engines))

    with Docker(pool=2) as sandbox:
        sandbox.run(["true"])
    settle()
    threads, before = threading.active_count(), standing()
    with Docker(pool=2) as sandbox:
        for number in range(100):
            limits = Limits(wall_s=0.05) if number % 5 == 0 else None
            assert sandbox.run(["sh", "-c", "sleep 60 & sleep 0.1"], limits=limits).status is not Status.FAILED
    assert gone(lambda: more(standing(), before)), (before, standing())
    assert gone(lambda: threading.active_count() > threads)
    assert gone(lambda: unkept() > 0)


@pytest.mark.parametrize("moment", ["running", "created"])
def test_a_killed_parent_leaves_no_container(docker: Docker, moment: str) -> None:
    stop = "" if moment == "running" else "type(sandbox._client.api).start = lambda *a: os.kill(os.getpid(), 9)"
    program = f"""
import os
from ludus.sandbox.docker_engine import Docker
sandbox = Docker(pool=0)
{stop}
with sandbox.open_session() as session:
    print(session._place._name, flush=True)
    session.exec(["sh", "-c", "sleep 500 & sleep 500"])
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        if moment == "running":
            assert parent.stdout is not None
            name = parent.stdout.readline().strip()
            assert any(f"/{name}" in row["Names"] for row in containers(docker._client))
    finally:
        if moment == "running":
            parent.send_signal(signal.SIGKILL)
        parent.communicate()
    owned = f"/{parent.pid}-"
    if moment == "created":
        assert [row["State"] for row in containers(docker._client) if owned in row["Labels"][LABEL]] == ["created"]
        Docker(pool=0).close()
    assert gone(lambda: [row for row in containers(docker._client) if owned in row["Labels"][LABEL]])


def test_containers_of_others_are_left_alone(docker: Docker) -> None:
    settings = docker._settings(docker.limits) | {"labels": {LABEL: "another machine/1/1-1-1"}}
    made = docker._client.api.create_container(**settings)
    try:
        Docker(pool=0).close()
        assert docker._client.api.inspect_container(made["Id"])
    finally:
        docker._client.api.remove_container(made["Id"], force=True)


def test_what_is_missing_is_told_with_what_to_do(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match="no image no-such-image:1; pull or build it"):
        open_sandbox("docker", image="no-such-image:1")
    monkeypatch.setattr("ludus.sandbox.docker_engine.image_name", lambda: "ludus-sandbox:none")
    with pytest.raises(SandboxError, match="make it with `ludus docker-image`"):
        open_sandbox("docker")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(SandboxError, match="No Docker engine answers; start one"):
        open_sandbox("docker")
    result = CliRunner().invoke(app, ["docker-image"])
    assert result.exit_code != 0 and "No Docker engine answers" in f"{result.output}{result.exception}"


def test_an_image_without_what_a_keeper_needs_is_told(docker: Docker) -> None:
    with pytest.raises(SandboxError, match="Docker could not start a container"):
        Docker(pool=0, cpus=100_000).run(["true"])


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"image": 5}, "image = 5 must be a name"),
        ({"image": "Bad Name!!"}, "takes no image 'Bad Name!!'.*correct it"),
        ({"runtime": 5}, "runtime = 5 must be a name"),
        ({"runtime": "rnc"}, r"no runtime 'rnc'. Did you mean 'runc'\?"),
    ],
)
def test_options_that_the_engine_does_not_know_are_told(docker: Docker, option: dict[str, Any], says: str) -> None:
    with pytest.raises(SandboxError, match=says):
        Docker(pool=0, **option)


def test_the_image_is_made_once(docker: Docker) -> None:
    result = CliRunner().invoke(app, ["docker-image"])
    assert result.exit_code == 0 and image_name() in result.output
    before = docker_client().images.get(image_name()).id
    assert make_image(docker_client()) == image_name()
    assert docker_client().images.get(image_name()).id == before


def test_programs_run_as_a_user_without_rights_on_a_read_only_system(docker: Docker) -> None:
    program = "id -u; touch /x /usr/x; cat /proc/self/status | grep -E 'CapBnd|NoNewPrivs|Seccomp:'"
    result = docker.run(["sh", "-c", program])
    assert result.stdout.split() == ["1000", "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert result.stderr.count("Read-only file system") == 2

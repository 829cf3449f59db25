"""Docker: programs in containers of a Docker engine.

Invariant: a container ends when whoever keeps it is gone, and the engine then removes it: the first process of each is
a keeper that ends with its input. So a killed Ludus leaves no container behind, but for one that was made and not yet
started; those are found by their label and removed by the next.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from .backend import Sandbox
from .bubblewrap_command import USER_ID, WORK
from .descriptors import write_all
from .docker_image import image_name
from .errors import SandboxError, did_you_mean
from .job import Job, check_room, checked_limits
from .keeper_session import CHANNEL_BYTES, KeeperSession, keeper_command
from .limits import LONGEST_S, Limits
from .result import Result, Status
from .start_time import start_time

LABEL = "ludus.owner"
DEFENCES: dict[str, dict[str, Any]] = {
    "network": {"network_mode": "host"},
    "read-only root": {"read_only": False},
    "ipc": {"ipc_mode": "host"},
    "no new privileges": {"security_opt": []},
    "capabilities": {"cap_drop": [], "cap_add": ["ALL"]},
    "memory": {"mem_limit": 0, "memswap_limit": 0},
    "processes": {"pids_limit": 0},
    "bounded disk": {"tmpfs": {"/tmp": "rw,exec,mode=1777"}},
    "user": {},
    "seccomp": {},
}
"""What can be taken away, one at a time, to prove that `check_sandbox` notices, and what is asked for instead."""
_NAMES = {"image": "python:3.12", "runtime": "runsc"}
_MOST_KEPT = 8
"""Containers that are kept for trusted programs."""
_STDOUT = 1
_TELL_S = 3.0
"""How far what the engine tells of one end may lie apart."""
_GONE_S = 20.0
"""How long the engine may take to remove what has ended."""


class Docker(Sandbox):
    """Runs each program in a container of its own: no network, a read-only root, no capabilities, another user.

    limits: of every run that brings none of its own. image: by default the one that `ludus docker-image` makes; it must
    have a python3. pool: how many containers are kept ready for the next run with the same room. cpus: processors that
    a container may use. runtime: of the engine, such as "runsc". Raises SandboxError, with what to do, where the SDK,
    the engine or the image is missing.
    """

    name = "docker"
    isolates = True

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        image: str | None = None,
        pool: int = 1,
        cpus: float = 1.0,
        runtime: str | None = None,
        _without: Collection[str] = (),
    ) -> None:
        if isinstance(pool, bool) or not isinstance(pool, int) or pool < 0:
            raise SandboxError(f"pool = {pool!r} must be 0 or more containers.")
        if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0.01 <= cpus <= 1e6:
            raise SandboxError(f"cpus = {cpus!r} must be a number of processors from 0.01 on.")
        for name, value in (("image", image), ("runtime", runtime)):
            if not isinstance(value, str | None):
                raise SandboxError(f"{name} = {value!r:.100} must be a name, such as {_NAMES[name]!r}.")
        self.limits = limits or Limits()
        self._client = docker_client()
        self._image, self._pool_size, self._cpus, self._runtime = image or image_name(), pool, cpus, runtime
        self._without = frozenset(_without)
        self._require_image()
        self._require_runtime()
        self._lock = threading.Condition()
        self._ready: list[KeeperSession] = []
        self._kept: list[KeeperSession] = []
        self._open: set[KeeperSession] = set()
        self._making = 0
        self._closed = False
        reap_orphans(self._client)
        _engines.add(self)
        self._refill()

    def execute(self, job: Job) -> Result:
        """See `Sandbox.execute`. Raises SandboxError where the engine makes no container, too."""
        check_room(job)
        with self._emptied(job.limits) if job.trusted else self.open_session(job.limits) as session:
            for path, content in job.files.items():
                session.write_file(path, content)
            return session.execute(replace(job, files={}))

    def open_session(self, limits: Limits | None = None) -> KeeperSession:
        """See `Sandbox.open_session`."""
        limits = checked_limits(limits or self.limits)
        with self._lock:
            if self._closed:
                raise SandboxError("The sandbox was closed; open another one.")
            session = None
            while session is None and self._ready and _room(limits) == _room(self.limits):
                session = self._ready.pop()
                session = None if session.over else session  # the engine has lost it
        if session is None:
            session = self._make(limits)
        self._refill()
        session.limits = limits
        return session

    def close(self) -> None:
        """End everything that runs; more than once is once."""
        with self._lock:
            self._closed = True
            sessions = list(self._open)
        for session in sessions:
            session.close()
        with self._lock:
            self._lock.wait_for(lambda: not self._making, _GONE_S)
        _engines.discard(self)
        with contextlib.suppress(Exception):
            wait_until_removed(self._client, f"{_owner()}-{id(self):x}")
        self._client.close()

    @contextlib.contextmanager
    def _emptied(self, limits: Limits) -> Iterator[KeeperSession]:
        """A container in which only trusted programs have run, and nothing of them is left."""
        with self._lock:
            session = next((one for one in self._kept if _room(one.limits) == _room(limits)), None)
            if session is not None:
                self._kept.remove(session)
        if session is not None and session.over:  # the engine has lost it
            session.close()
            session = None
        session = session or self.open_session(limits)
        session.limits = limits
        thrown: KeeperSession | None = session
        try:
            yield session
            with contextlib.suppress(SandboxError):  # else it is thrown away
                session.empty()
                with self._lock:
                    if not self._closed:
                        self._kept.append(session)
                        thrown = self._kept.pop(0) if len(self._kept) > _MOST_KEPT else None
        finally:
            if thrown is not None:
                thrown.close()

    def _refill(self) -> None:
        """Make containers for the next runs, in the background."""
        with self._lock:
            missing = self._pool_size - len(self._ready) - self._making
            if self._closed or missing <= 0:
                return
            self._making += missing
        for _ in range(missing):
            threading.Thread(target=self._make_ready, daemon=True).start()

    def _make_ready(self) -> None:
        session = None
        try:
            with contextlib.suppress(SandboxError):  # who needs one hears of it
                session = self._make(self.limits)
        finally:
            with self._lock:
                self._making -= 1
                if session is not None:
                    self._ready.append(session)
                self._lock.notify_all()

    def _make(self, limits: Limits) -> KeeperSession:
        import docker.errors

        try:
            place = Container(self._client.api, self._settings(limits))
        except (docker.errors.DockerException, OSError) as error:
            raise SandboxError(f"Docker could not start a container: {error}") from error
        session = KeeperSession(place, limits, confine="seccomp" not in self._without, closed=self._open.discard)
        with self._lock:
            self._open.add(session)
            closed = self._closed
        if closed:
            session.close()
            raise SandboxError("The sandbox was closed; open another one.")
        return session

    def _settings(self, limits: Limits) -> dict[str, Any]:
        """How a container is made, in the words of the engine's HTTP interface."""
        shared = limits.disk_bytes // 4
        memory = limits.memory_bytes + limits.disk_bytes  # what lies in its folders counts as memory, too
        settings = {
            "auto_remove": True,
            "network_mode": "none",
            "ipc_mode": "private",
            "read_only": True,
            "tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={limits.disk_bytes - shared}"},
            "shm_size": shared,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "mem_limit": memory,
            "memswap_limit": memory,
            "pids_limit": limits.processes + 1,
            "nano_cpus": int(self._cpus * 1e9),
            "ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "memlock", "Soft": 65536, "Hard": 65536}],
            "log_config": {"Type": "none", "Config": {}},
            "runtime": self._runtime,
        }
        for defence in self._without:
            settings |= DEFENCES[defence]
        path = "/usr/local/bin:/usr/bin:/bin"
        return {
            "image": self._image,
            "command": keeper_command(WORK),
            "name": f"ludus-{secrets.token_hex(8)}",
            "hostname": "sandbox",
            "user": "0" if "user" in self._without else f"{USER_ID}:{USER_ID}",
            "stdin_open": True,
            "working_dir": "/",
            "environment": {"PATH": path, "HOME": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8", "USER": "player"},
            "labels": {LABEL: f"{_owner()}-{id(self):x}"},
            "host_config": self._client.api.create_host_config(**settings),
        }

    def _require_image(self) -> None:
        import docker.errors

        try:
            self._client.images.get(self._image)
        except docker.errors.ImageNotFound:
            fix = "make it with `ludus docker-image`" if self._image == image_name() else "pull or build it"
            raise SandboxError(f"The Docker engine has no image {self._image}; {fix}.") from None
        except docker.errors.APIError as error:
            said = str(error.explanation or error).rstrip(".")
            raise SandboxError(f"The Docker engine takes no image {self._image!r:.100} ({said}); correct it.") from None

    def _require_runtime(self) -> None:
        """Names with a dot or a slash are containerd's, which are not listed."""
        if self._runtime and not set("./") & set(self._runtime):
            known = self._client.info().get("Runtimes") or {}
            if known and self._runtime not in known:
                hint = did_you_mean(self._runtime, known)
                raise SandboxError(f"The Docker engine has no runtime {self._runtime!r:.100}.{hint}")


class Container:
    """A started container whose first process is a keeper; see `Place`. settings: for the SDK's `create_container`."""

    def __init__(self, api: Any, settings: dict[str, Any]) -> None:
        self._api, self._name = api, settings["name"]
        self._buffer, self._errors = bytearray(), bytearray()
        self._lock = threading.Lock()
        self._ended = False
        api.create_container(**settings)
        try:
            stream = api.attach_socket(self._name, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            self._stream = stream
            self._socket: socket.socket = getattr(stream, "_sock", stream)
            self._socket.settimeout(LONGEST_S)  # and so it does not block
            api.start(self._name)
        except BaseException:
            self._remove()
            raise

    def send_line(self, line: bytes, timeout_s: float | None = None) -> bool:
        """See `Place.send_line`."""
        fd = self._socket.fileno()
        return fd != -1 and write_all(fd, line + b"\n", timeout_s)

    def receive_line(self, timeout_s: float) -> bytes | None:
        """See `Place.receive_line`."""
        self._socket.settimeout(timeout_s)
        seen = 0
        while self._buffer.find(b"\n", seen) < 0:
            seen = len(self._buffer)
            try:
                kind, size = struct.unpack(">BxxxL", self._exactly(8))
                payload = self._exactly(size)
            except TimeoutError:
                return None
            except (OSError, EOFError):
                self._ended = True
                return None
            if kind == _STDOUT:
                self._buffer += payload
                if len(self._buffer) > CHANNEL_BYTES:
                    return None
            else:
                self._errors = (self._errors + payload)[-4096:]
        line, _, self._buffer = self._buffer.partition(b"\n")
        return bytes(line)

    def end_input(self) -> None:
        """See `Place.end_input`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait(self, timeout_s: float) -> bool:
        """See `Place.wait`."""
        return self._ended

    def oom_kills(self) -> int:
        """The keeper counts them."""
        return 0

    def finish(self) -> Result:
        """See `Place.finish`."""
        said = self._errors.decode("utf-8", "backslashreplace")
        if self._ran_out():
            return Result(Status.MEMORY, None, "", said, reason="The programs of the container took all of its memory.")
        return Result(Status.FAILED, None, "", said, reason=f"The container ended. {said}".strip())

    def _ran_out(self) -> bool:
        """Whether the engine tells that it ended because there was no memory left, for the keeper neither."""
        import docker.errors

        out_at = died_at = None
        with contextlib.suppress(docker.errors.APIError, OSError):
            until = int(time.time() + _TELL_S)
            told = self._api.events(since=0, until=until, filters={"container": [self._name]}, decode=True)
            with contextlib.closing(told):
                for event in told:
                    if event["Action"] == "oom":
                        out_at = event["time"]
                    elif event["Action"] == "die":
                        died_at = event["time"]
                    if out_at is not None and died_at is not None:  # they come in either order
                        return abs(died_at - out_at) <= _TELL_S
        return False

    def close(self) -> None:
        """See `Place.close`."""
        with self._lock:
            if self._socket.fileno() == -1:
                return
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # first: the engine may be waiting to pass on what was said
            if not self._ended:
                self._remove()
            self._stream.close()
            self._socket.close()

    def _remove(self) -> None:
        import docker.errors

        with contextlib.suppress(docker.errors.APIError, OSError):
            self._api.remove_container(self._name, force=True)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(min(size - len(data), 1 << 16))
            if not chunk:
                raise EOFError
            data += chunk
        return data


def docker_client() -> Any:
    """The SDK's client of the engine that the environment names. SandboxError where there is no SDK, or no engine."""
    try:
        import docker
    except ModuleNotFoundError:
        raise SandboxError("Docker needs its SDK; `pip install 'ludus[docker]'`.") from None
    try:
        # The SDK keeps connections by address, and each container has its own.
        options = docker.utils.kwargs_from_env()
        client = docker.DockerClient(timeout=120, num_pools=4, max_pool_size=64, **options)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise SandboxError(
            f"No Docker engine answers; start one (`dockerd`, Docker Desktop) or set DOCKER_HOST. ({error})"
        ) from None
    return client


def reap_orphans(client: Any) -> None:
    """Remove what a killed Ludus on this machine has left behind."""
    import docker.errors

    machine = _machine()
    for row in client.api.containers(all=True, filters={"label": LABEL}):
        owner, _, rest = row["Labels"].get(LABEL, "").rpartition("/")
        pid, _, number = rest.partition("-")
        if owner == machine and start_time(pid) != number.partition("-")[0]:
            with contextlib.suppress(docker.errors.APIError):
                client.api.remove_container(row["Id"], force=True)


def wait_until_removed(client: Any, owner: str) -> None:
    """Until the engine has removed the containers of an owner, which have ended; those that have not are removed."""
    deadline = time.monotonic() + _GONE_S
    while rows := client.api.containers(all=True, filters={"label": f"{LABEL}={owner}"}):
        if time.monotonic() > deadline:
            for row in rows:
                client.api.remove_container(row["Id"], force=True)
            return
        time.sleep(0.05)


def _machine() -> str:
    """This machine since it was started, and its space of process ids."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text().strip() if boot.exists() else socket.gethostname()
    space = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return f"{name}/{space}"


def _owner() -> str:
    return f"{_machine()}/{os.getpid()}-{start_time(os.getpid())}"


def _room(limits: Limits) -> tuple[int, int, int]:
    """What is settled when a container is made."""
    return limits.memory_bytes, limits.disk_bytes, limits.processes


_engines: set[Docker] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_engines.clear)  # they are the parent's


@atexit.register
def _close_all() -> None:
    for engine in list(_engines):
        with contextlib.suppress(Exception):
            engine.close()

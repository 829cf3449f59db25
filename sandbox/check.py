"""check_sandbox: the contract of a Sandbox as a suite that anyone runs on their own.

Invariant: after each attack the host is looked at from outside (processes, files, mounts, listeners), and another
program has run well. What an attack says of itself only counts against the sandbox.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .attack import PRELUDE, Attack
from .attacks import ATTACKS
from .backend import Sandbox
from .check_report import CheckReport, CheckRow
from .errors import SandboxError
from .limits import MIB, Limits
from .result import Result, Status

LIMITS = Limits(
    wall_s=4.0,
    cpu_s=2.0,
    memory_bytes=128 * MIB,
    disk_bytes=16 * MIB,
    file_bytes=8 * MIB,
    output_bytes=256 * 1024,
    processes=32,
    open_files=64,
)
"""Low, so that attacks are soon over."""
LATE_S = 15.0
"""How long after its time a program may come back: on a loaded machine a container takes seconds to come and to go."""
LOOK_S = 0.03
"""A process that was just started has no command line for a moment."""
_FOLDERS = ("/var/lib", "/var/log", "/etc/ssh", "/boot", "/srv")
"""Folders of the host that no program needs."""
LINGER_S = 3.0
"""How long the kernel may take to clear away what was ended."""


def check_sandbox(sandbox: Sandbox, attacks: Sequence[Attack] = ATTACKS, *, name: str | None = None) -> CheckReport:
    """Whether a sandbox keeps its contract: no attack gets out, takes more than it may, or leaves anything behind.

    sandbox: an open one, on this machine. attacks: which of them; the default is all. name: for the report.
    Raises SandboxError where the object is no sandbox, or says that it does not isolate.
    """
    if isinstance(sandbox, type) or not isinstance(sandbox, Sandbox):
        raise SandboxError(f"{sandbox!r:.100} is no sandbox; give an open one, such as open_sandbox('bubblewrap').")
    if not sandbox.isolates:
        raise SandboxError(f"The sandbox {sandbox.name!r} isolates nothing, and attacks would reach this machine.")
    rows = [_honest(sandbox)]
    if rows[0].status == "passed":
        with Host() as host:
            found = {attack: attack_row(sandbox, attack, host) for attack in attacks if not attack.idle}
        idle = [attack for attack in attacks if attack.idle]
        with ThreadPoolExecutor(max(len(idle), 1)) as pool:
            found |= zip(idle, pool.map(lambda attack: _by_itself(sandbox, attack), idle), strict=True)
        rows += [found[attack] for attack in attacks]
    return CheckReport(name or sandbox.name, tuple(rows))


def _by_itself(sandbox: Sandbox, attack: Attack) -> CheckRow:
    with Host() as host:
        return attack_row(sandbox, attack, host)


def _honest(sandbox: Sandbox) -> CheckRow:
    """Whether a program that does nothing wrong runs as it should."""
    program = "import sys; print(sys.stdin.read() + open('folder/file').read()); sys.exit(3)"
    result = sandbox.run(["python3", "-c", program], stdin="in", files={"folder/file": "file"}, limits=LIMITS)
    if (result.status, result.exit_code, result.stdout) == (Status.EXITED, 3, "infile\n"):
        return CheckRow(
            "an honest program", "passed", "It gets its input and files, and its output and exit code are told."
        )
    fix = "A program must find `files` in its folder and `stdin` as its input; attacks tell nothing before it does."
    return CheckRow("an honest program", "failed", "It does not run as it should.", fix, str(result)[:500])


def attack_row(sandbox: Sandbox, attack: Attack, host: Host) -> CheckRow:
    """What came of one attack."""
    host.watch()
    mark = f"{host.token}-{secrets.token_hex(4)}"
    started = time.monotonic()
    try:
        result = sandbox.run(["python3", "-c", PRELUDE + attack.program, mark], stdin=host.told(), limits=LIMITS)
    except Exception as error:
        return CheckRow(
            attack.name, "failed", f"run raised {type(error).__name__}.", "Tell it as a Result.", str(error)
        )
    wall_s = time.monotonic() - started
    found = _wrong(attack, result, wall_s) or host.changed(mark) or _next_run(sandbox)
    if found:
        return CheckRow(attack.name, "failed", *found, example=_shown(result))
    return CheckRow(attack.name, "passed", f"It got nowhere ({result.status.value}).")


def _wrong(attack: Attack, result: Result, wall_s: float) -> tuple[str, str] | None:
    escapes = [line for line in result.stdout.splitlines() if line.startswith("ESCAPED")]
    if escapes:
        return f"It succeeded: {escapes[0].removeprefix('ESCAPED: ')[:200]}.", "Close this way."
    if wall_s > LIMITS.wall_s + LATE_S:
        return f"It came back after {wall_s:.1f} s.", f"End programs after limits.wall_s = {LIMITS.wall_s:g} s."
    if result.status not in attack.ends:
        ends = " or ".join(status.value for status in attack.ends)
        return f"It ended as {result.status.value} and not as {ends}.", "Tell apart how programs end."
    if result.exit_code == 1 and "Traceback" in result.stderr and "MemoryError" not in result.stderr:
        return "It could not be carried out.", "Give programs a Python 3.11 or later, and what its library needs."
    return None


def _next_run(sandbox: Sandbox) -> tuple[str, str] | None:
    """Whether a program that comes after the attack runs, in an empty folder."""
    program = "import os; print(6 * 7, os.listdir('.'), os.listdir('/tmp'), os.listdir('/dev/shm'))"
    result = sandbox.run(["python3", "-c", program], limits=LIMITS)
    if result.ok and result.stdout.startswith("42 ") and "left" not in result.stdout:
        return None
    return "The next program does not run as it should.", f"Give each run a fresh start ({_shown(result)})."


def _shown(result: Result) -> str:
    return f"{result.status.value}, exit code {result.exit_code}, {result.reason} {result.stderr[-300:]}".strip()


class Host:
    """What attacks try to reach on this machine, and what is looked at afterwards."""

    def __init__(self) -> None:
        self.token = f"ludus-check-{secrets.token_hex(8)}"
        self.sentinel_mark = f"ludus-sentinel-{secrets.token_hex(8)}"

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        try:
            self._open(self._stack)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self, stack: contextlib.ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ludus-check-")))
        self.secret = self.folder / "secret"
        self.secret.write_text(self.token)
        self.secret.chmod(0o644)
        self.folder.chmod(0o777)
        os.environ["LUDUS_CHECK_SECRET"] = self.token
        stack.callback(os.environ.pop, "LUDUS_CHECK_SECRET", None)
        self.listener = stack.enter_context(_Listener(self.folder / "socket", self.token))
        self._start_sentinel()
        stack.callback(self._end_sentinel)
        self.shm_key = secrets.randbelow(2**30) + 1
        segment = _libc().shmget(self.shm_key, 4096, 0o1666)  # IPC_CREAT and rights for all
        if segment >= 0:
            stack.callback(_libc().shmctl, segment, 0, None)  # IPC_RMID

    def told(self) -> str:
        """What an attack is told of this machine, as JSON."""
        ports = {
            "tcp_port": self.listener.tcp_port,
            "tcp6_port": self.listener.tcp6_port,
            "udp_port": self.listener.udp_port,
        }
        places = {"secret": str(self.secret), "folder": str(self.folder), "unix_path": str(self.folder / "socket")}
        rest: dict[str, Any] = {"abstract": self.token, "shm_key": self.shm_key, "sentinel": self.sentinel.pid}
        rest["sentinel_mark"] = self.sentinel_mark
        rest["folders"] = {
            name: [os.stat(name).st_dev, os.stat(name).st_ino] for name in _FOLDERS if os.path.isdir(name)
        }
        return json.dumps({**ports, **places, **rest, "token": self.token, "limits": asdict(LIMITS)})

    def watch(self) -> None:
        """Remember how things stand before an attack."""
        self.listener.calls()
        if self.sentinel.poll() is not None:
            self._start_sentinel()
        for left in set(os.listdir(self.folder)) - {"secret", "socket"}:
            (self.folder / left).unlink()
        self._mounts = _mounts()

    def changed(self, mark: str) -> tuple[str, str] | None:
        """What an attack has changed or left behind; mark: stands in the command line of all its processes."""
        deadline = time.monotonic() + LINGER_S
        time.sleep(LOOK_S)
        while (left := _processes(mark)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left:
            _kill_all(left)
            return f"{len(left)} of its processes outlived it.", "End the whole process tree, whatever it did to hide."
        if calls := self.listener.calls():
            return f"It reached a listener of this machine ({calls[0]}).", "Take its network away."
        if not self._sentinel_answers():
            return "It ended or stopped a process of this machine.", "Give it process ids of its own."
        if self.secret.read_text() != self.token or set(os.listdir(self.folder)) != {"secret", "socket"}:
            return "It changed files of this machine.", "Show it no folder of the host that it can write."
        while _mounts() != self._mounts and time.monotonic() < deadline:
            time.sleep(0.02)
        if _mounts() != self._mounts:
            return "It left a mount behind.", "Make mounts in a namespace that ends with it."
        return None

    def _start_sentinel(self) -> None:
        program = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line), sys.stdout.flush()"
        command = [sys.executable, "-c", program, self.sentinel_mark]
        self.sentinel = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def _sentinel_answers(self) -> bool:
        """Whether the process that attacks try to end is there; one that was just killed is not gone at once."""
        assert self.sentinel.stdin is not None and self.sentinel.stdout is not None
        with contextlib.suppress(OSError):
            self.sentinel.stdin.write(b"?\n")
            ready, _, _ = select.select([self.sentinel.stdout], [], [], LINGER_S)
            return bool(ready) and bool(self.sentinel.stdout.read(1 << 16))
        return False

    def _end_sentinel(self) -> None:
        self.sentinel.kill()
        self.sentinel.communicate()


class _Listener:
    """Waits for TCP, UDP and Unix connections on this machine's loopback; the kernel keeps them until they are read."""

    def __init__(self, path: Path, abstract: str) -> None:
        self._sockets = {"UDP": socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "TCP": socket.socket()}
        self._sockets["Unix"] = socket.socket(socket.AF_UNIX)
        for name in ("UDP", "TCP"):
            self._sockets[name].bind(("127.0.0.1", 0))
        self._sockets["Unix"].bind(str(path))
        path.chmod(0o777)
        if sys.platform == "linux":
            self._sockets["abstract Unix"] = socket.socket(socket.AF_UNIX)
            self._sockets["abstract Unix"].bind(f"\0{abstract}")
        self.tcp6_port = 9
        with contextlib.suppress(OSError):  # a machine without IPv6
            self._sockets["TCP over IPv6"] = socket.socket(socket.AF_INET6)
            self._sockets["TCP over IPv6"].bind(("::1", 0))
            self.tcp6_port = self._sockets["TCP over IPv6"].getsockname()[1]
        self.tcp_port = self._sockets["TCP"].getsockname()[1]
        self.udp_port = self._sockets["UDP"].getsockname()[1]

    def __enter__(self) -> Self:
        for name, one in self._sockets.items():
            one.setblocking(False)
            if name != "UDP":
                with contextlib.suppress(OSError):
                    one.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets.values():
            one.close()

    def calls(self) -> list[str]:
        """What has come since the last time, by the name of the socket."""
        found = []
        for name, one in self._sockets.items():
            with contextlib.suppress(OSError):
                while True:
                    if name == "UDP":
                        one.recvfrom(1000)
                    else:
                        one.accept()[0].close()
                    found.append(name)
        return found


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _mounts() -> list[str]:
    """The mounts of this machine, without those of the containers that an engine keeps ready, which it names."""
    with contextlib.suppress(OSError):
        places = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        return sorted(place for place in places if not re.search("[0-9a-f]{12}", place))
    return []


def _processes(mark: str) -> list[int]:
    """Processes of this machine in whose command line a text stands, but for this one."""
    found = []
    for folder in _numbered(Path("/proc")):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def _numbered(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (one for one in folder.iterdir() if one.name.isdecimal())


def _kill_all(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, 9)

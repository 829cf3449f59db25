"""A sandbox behind a server keeps the contract of a sandbox, and what a client leaves behind is ended."""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import test_sandbox
import test_session
from test_sandbox import gone, more, processes, settle

from ludus.envs.errors import ToolError
from ludus.envs.session_env import SessionEnv
from ludus.envs.source import ListSource
from ludus.envs.task import Task
from ludus.sandbox import Limits, Result, Sandbox, SandboxError, Session, Status, check_sandbox, open_sandbox
from ludus.sandbox.attacks import ATTACKS
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.interpreter import PythonInterpreter
from ludus.sandbox.remote import Remote
from ludus.sandbox.server import MOST, SandboxServer, serve_sandbox
from ludus.sandbox.wire import MOST_BODY, PROTOCOL
from ludus.verifiers import CodeVerifier, Outcome, Verdict

pytestmark = pytest.mark.bubblewrap

MIB = 2**20
TOKEN = "a-token-that-nobody-guesses"
ATTACKED_BY = [
    "secret file of the host",
    "environment of the host",
    "TCP to the host",
    "ending a process of the host",
    "mounting",
    "a user namespace",
    "fork bomb",
    "memory of its own",
    "endless output",
    "endless sleep",
    "daemon",
    "bytes that are no text",
]


@pytest.fixture(scope="module")
def server(bubblewrap: Bubblewrap) -> Iterator[SandboxServer]:
    with serve_sandbox(bubblewrap, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def remote(server: SandboxServer) -> Iterator[Sandbox]:
    with open_sandbox("remote", url=server.url, token=TOKEN) as remote:
        yield remote


@pytest.fixture
def sandbox(remote: Sandbox) -> Sandbox:
    return remote


@pytest.fixture
def session(remote: Sandbox) -> Iterator[Session]:
    with remote.open_session() as session:
        yield session


@pytest.fixture
def isolated(remote: Sandbox) -> Iterator[Session]:
    with remote.open_session(Limits(wall_s=5, memory_bytes=128 * MIB)) as session:
        yield session


@pytest.fixture
def serving(bubblewrap: Bubblewrap) -> Iterator[Callable[..., SandboxServer]]:
    """Starts servers of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve_sandbox(bubblewrap, token=TOKEN, **options))


def connect(server: SandboxServer, **options: Any) -> Sandbox:
    return open_sandbox("remote", url=server.url, token=TOKEN, **options)


def status(server: SandboxServer) -> dict[str, Any]:
    return answer(server, "GET", "/status")[1]


def answer(
    server: SandboxServer, method: str, path: str, body: bytes | None = None, **head: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", **head})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


# --- the contract of a sandbox and of a session: what the other back ends keep, this one keeps --------------------

FIXTURES = {"sandbox", "session", "isolated", "path", "argv"}
globals().update(
    {
        name: claim
        for module in (test_sandbox, test_session)
        for name, claim in vars(module).items()
        if name.startswith("test_") and {*inspect.signature(claim).parameters} <= FIXTURES
        if FIXTURES & {*inspect.signature(claim).parameters}
    }
)


def test_attacks_get_nowhere(remote: Sandbox) -> None:
    report = check_sandbox(remote, [attack for attack in ATTACKS if attack.name in ATTACKED_BY])
    assert len(report.rows) == len(ATTACKED_BY) + 1
    assert report.passed, str(report)


def test_an_interpreter_keeps_its_names_over_http(remote: Sandbox) -> None:
    with remote.open_session(Limits(wall_s=3.0)) as session:
        python = PythonInterpreter(session)
        assert python.run("x = 41").ok and python.run("x + 1").output == "42\n"
        assert "ZeroDivisionError" in python.run("1 / 0").output
        late = python.run("while True: pass")
        assert not late.ok and "more than 3 s" in late.output
        assert "NameError" in python.run("x").output
        assert "exit code 3" in python.run("import os; os._exit(3)").output
        assert python.run("6 * 7").output == "42\n"
        python.close()


def test_programs_are_judged_over_http(remote: Sandbox) -> None:
    verifier = CodeVerifier(remote, limits=Limits(wall_s=5, cpu_s=5))
    check = "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(-1, 1) == 0\n"
    tests = {"entry_point": "add", "check": check}
    assert verifier.verify(tests, "```python\ndef add(a, b):\n    return a + b\n```").outcome is Outcome.CORRECT
    assert verifier.verify(tests, "```python\ndef add(a, b):\n    return a - b\n```").outcome is Outcome.WRONG
    assert verifier.verify(tests, "```python\nimport os; os._exit(0)\n```").outcome is Outcome.WRONG


def test_an_environment_works_in_a_session_over_http(remote: Sandbox) -> None:
    class Copying(SessionEnv):
        def prepare(self, task: Task, session: Session) -> None:
            session.write_file("in", "42")

        def verify(self, task: Task, response: str) -> Verdict:
            return Verdict.correct("It is there.") if self.read_file("in") == "42" else Verdict.wrong("It is not.")

    env = Copying(ListSource([Task("copy", "x", None)]), sandbox=remote)
    env.reset(options={"index": 0})
    assert env.execute(["cp", "in", "out"]).ok
    assert env.read_file("out") == "42" and env.list_files() == ["in", "out"]
    with pytest.raises(ToolError, match="larger than 1 bytes"):
        env.read_file("out", most=1)
    env.close()


def test_a_session_whose_programs_took_all_its_memory_says_so(serving: Callable[..., SandboxServer]) -> None:
    """As on this machine: what an agent does to its own session is its affair, and no failure of the sandbox."""
    server = serving(idle_s=6.0)
    limits = Limits(memory_bytes=64 * MIB, disk_bytes=256 * MIB, file_bytes=256 * MIB)
    with connect(server) as remote, remote.open_session(limits) as session:
        assert session.ended is None
        session.exec(["sh", "-c", "(sleep 0.3; head -c 150M /dev/zero > /tmp/full) > /dev/null 2>&1 &"])
        time.sleep(2.2)  # the server has looked in between whether anybody uses it
        with pytest.raises(SandboxError, match="more than 67108864 bytes of memory"):
            for _ in range(100):  # at once, but on a machine with much else to do
                session.list_files()
                time.sleep(0.2)
        assert session.over and session.ended is Status.MEMORY
        assert session.exec(["true"]).status is Status.MEMORY


def test_many_threads_share_a_remote_sandbox(remote: Sandbox) -> None:
    threads = [in_thread(lambda number=number: remote.run(["echo", str(number)]).stdout) for number in range(24)]
    for number, (thread, outputs) in enumerate(threads):
        thread.join(60)
        assert outputs == [f"{number}\n"]


def test_lines_come_in_order_also_when_the_program_ends_before_they_are_read(remote: Sandbox) -> None:
    for _ in range(5):
        with remote.start(["sh", "-c", "read x; seq 200; printf rest"]) as process:
            assert process.send_line(b"go")
            lines = [process.receive_line(20) for _ in range(200)]
            assert lines == [b"%d" % number for number in range(1, 201)]
            assert process.receive_line(0.5) is None
            assert process.finish().ok


def test_a_program_that_starts_at_once_is_talked_to_at_once(session: Session) -> None:
    for _ in range(40):
        with session.start(["cat"]) as process:
            assert process.send_line(b"a", 5) and process.receive_line(5) == b"a"


def test_a_wait_longer_than_one_request_is_no_matter(remote: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ludus.sandbox.served.POLL_S", 0.3)
    monkeypatch.setattr("ludus.sandbox.remote.POLL_S", 0.2)
    assert remote.run(["sh", "-c", "sleep 1.5; echo on"]).stdout == "on\n"
    with remote.start(["sh", "-c", "sleep 1.5; echo on; cat > /dev/null"]) as process:
        assert process.receive_line(20) == b"on"
        assert process.finish().ok


# --- who may, and how much -----------------------------------------------------------------------------------------


def test_a_wrong_token_and_none_are_told_with_the_fix(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUDUS_SANDBOX_TOKEN", raising=False)
    for wrong in ("another-token-of-this-length", TOKEN + "x", TOKEN[:-1]):
        with pytest.raises(SandboxError, match="set LUDUS_SANDBOX_TOKEN to the same"):
            Remote(url=server.url, token=wrong)
    with pytest.raises(SandboxError, match=r"needs a token.*make one with"):
        Remote(url=server.url)
    for odd in ("short", "a-token-with\r\nHost: other", "a token with spaces in it"):
        with pytest.raises(SandboxError, match="visible ASCII"):
            Remote(url=server.url, token=odd)
    for head in ({}, {"Authorization": ""}, {"Authorization": TOKEN}, {"Authorization": "Basic " + TOKEN}):
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
        connection.request("POST", "/programs", b"x" * 5 * MIB, head)
        assert connection.getresponse().status == 401
        connection.close()


def test_more_than_the_server_allows_is_refused_and_not_lowered(serving: Callable[..., SandboxServer]) -> None:
    server = serving(limits=Limits(wall_s=2, memory_bytes=64 * MIB))
    with connect(server) as remote:
        assert (remote.limits.wall_s, remote.limits.memory_bytes) == (2, 64 * MIB)
        assert remote.run(["echo", "on"]).stdout == "on\n"
        for way in (remote.run, remote.start):
            with pytest.raises(SandboxError, match=r"wall_s = 3 is above the 2\.?0? that the sandbox server allows"):
                way(["true"], limits=Limits(wall_s=3, memory_bytes=64 * MIB))
        with pytest.raises(SandboxError, match="memory_bytes"):
            remote.open_session(Limits(wall_s=2))
        with remote.open_session() as session, pytest.raises(SandboxError, match="cpu_s"):
            session.exec(["true"], limits=session.limits.but(cpu_s=11))
    with pytest.raises(SandboxError, match="wall_s = 5"):
        connect(server, limits=Limits(wall_s=5, memory_bytes=64 * MIB))


def test_too_many_sessions_are_refused_until_one_is_closed(serving: Callable[..., SandboxServer]) -> None:
    server = serving(most_sessions=2)
    with connect(server) as remote:
        first, second = remote.open_session(), remote.open_session()
        with pytest.raises(SandboxError, match="2 sessions open"):
            remote.open_session()
        first.close()
        with remote.open_session() as third:
            assert third.exec(["echo", "on"]).stdout == "on\n"
        assert second.exec(["echo", "on"]).stdout == "on\n"
    assert status(server)["sessions"] == 0


# --- what is left behind -------------------------------------------------------------------------------------------


def test_a_session_that_nobody_uses_is_closed_and_one_in_use_is_not(serving: Callable[..., SandboxServer]) -> None:
    server, mark, room = serving(idle_s=3.0), f"66.{os.getpid()}", Limits(wall_s=60)
    with connect(server) as remote:
        idle, busy, talking = (remote.open_session() for _ in range(3))
        process = talking.start(["cat"], limits=room)
        idle.exec(["sh", "-c", f"sleep {mark} &", mark])
        assert busy.exec(["sh", "-c", "sleep 5; echo on"], limits=room).stdout == "on\n"
        assert gone(lambda: processes(mark))
        assert process.send_line(b"on") and process.receive_line(20) == b"on"
        process.close()
        assert not idle.over
        with pytest.raises(SandboxError, match="nobody used it for 3 s; open another"):
            idle.list_files()
        assert idle.over
        assert idle.exec(["true"]).status is Status.FAILED
        assert gone(lambda: status(server)["sessions"])


@pytest.mark.parametrize("way", ["run", "start", "exec"])
def test_a_client_that_is_killed_leaves_no_program(serving: Callable[..., SandboxServer], way: str) -> None:
    server, mark = serving(), f"{600 + len(way)}.{os.getpid()}"
    calls = {
        "run": f"sandbox.run(['sleep', '{mark}'], limits=Limits(wall_s=500))",
        "start": f"sandbox.start(['sleep', '{mark}'], limits=Limits(wall_s=500)).receive_line(500)",
        "exec": f"sandbox.open_session().exec(['sleep', '{mark}'], limits=Limits(wall_s=500))",
    }
    program = f"from ludus.sandbox import *\nsandbox = open_sandbox('remote')\n{calls[way]}"
    environment = {**os.environ, "LUDUS_SANDBOX_URL": server.url, "LUDUS_SANDBOX_TOKEN": TOKEN}
    client = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        assert gone(lambda: not processes(mark, "sleep"), within_s=60)
    finally:
        client.kill()
        client.wait()
    assert gone(lambda: processes(mark), within_s=10)
    assert gone(lambda: status(server)["programs"])


def test_a_program_for_whose_end_nobody_waits_is_ended(
    serving: Callable[..., SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ludus.sandbox.served.LEASE_S", 0.5)
    server, mark = serving(idle_s=1.0), f"68.{os.getpid()}"
    body = {"program": "ab", "argv": ["sleep", mark], "stdin": None, "limits": {"wall_s": 500}}
    assert answer(server, "POST", "/programs", json.dumps(body).encode()) == (200, {"ended": False, "started": True})
    assert gone(lambda: processes(mark))
    assert gone(lambda: answer(server, "POST", "/programs/ab/wait", b"{}")[0] != 404)


def test_a_client_that_ends_well_closes_its_sessions(serving: Callable[..., SandboxServer]) -> None:
    server = serving()
    program = "from ludus.sandbox import *\nopen_sandbox('remote').open_session().exec(['true'])"
    environment = {**os.environ, "LUDUS_SANDBOX_URL": server.url, "LUDUS_SANDBOX_TOKEN": TOKEN}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert status(server)["sessions"] == 0


def test_closing_the_remote_sandbox_ends_what_it_runs_and_no_more(server: SandboxServer, remote: Sandbox) -> None:
    mark = f"69.{os.getpid()}"
    sandbox = connect(server)
    session = sandbox.open_session()
    thread, results = in_thread(lambda: sandbox.run(["sleep", mark], limits=Limits(wall_s=500)))
    assert gone(lambda: not processes(mark, "sleep"))
    sandbox.close()
    sandbox.close()
    thread.join(30)
    assert results[0].status is Status.FAILED and "closed" in results[0].reason
    assert gone(lambda: processes(mark))
    for way in (sandbox.run, sandbox.start, session.exec):
        with pytest.raises(SandboxError, match="closed"):
            way(["true"])
    assert remote.run(["echo", "on"]).stdout == "on\n"


def test_closing_the_server_ends_everything_and_clients_are_told(bubblewrap: Bubblewrap) -> None:
    mark = f"71.{os.getpid()}"
    server = serve_sandbox(bubblewrap, token=TOKEN)
    remote = connect(server)
    session = remote.open_session()
    runs = [
        in_thread(lambda: remote.run(["sleep", mark], limits=Limits(wall_s=500))),
        in_thread(lambda: session.exec(["sleep", mark], limits=Limits(wall_s=500))),
    ]
    process = remote.start(["sleep", mark], limits=Limits(wall_s=500))
    assert gone(lambda: len(processes(mark, "sleep")) < 3 or status(server)["programs"] != 3)
    server.close()
    server.close()
    assert gone(lambda: processes(mark))
    for thread, results in runs:
        thread.join(30)
        assert results[0].status is Status.FAILED and "closed" in results[0].reason, results
    assert process.receive_line(1) is None and process.finish().status is Status.FAILED
    with pytest.raises(SandboxError, match=r"No sandbox server answers.*ludus sandbox-server"):
        remote.run(["true"])
    with pytest.raises(SandboxError, match="No sandbox server answers"):
        session.read_file("a")
    assert session.over
    remote.close()
    assert bubblewrap.run(["echo", "on"]).stdout == "on\n"


def test_a_server_that_is_killed_is_a_failure_and_not_a_wrong_program() -> None:
    mark = f"72.{os.getpid()}"
    with command_server() as (process, url), open_sandbox("remote", url=url, token=TOKEN) as remote:
        thread, results = in_thread(lambda: remote.run(["sleep", mark], limits=Limits(wall_s=500)))
        assert gone(lambda: not processes(mark, "sleep"))
        process.kill()
        thread.join(30)
        assert results[0].status is Status.FAILED and "is gone" in results[0].reason
        assert gone(lambda: processes(mark))


def test_hundreds_of_calls_leave_no_thread_or_descriptor(serving: Callable[..., SandboxServer]) -> None:
    server = serving()

    def once(remote: Sandbox) -> None:
        remote.run(["true"])
        with remote.start(["cat"]) as process:
            process.send_line(b"a")
            process.receive_line(10)
        with remote.open_session() as session:
            session.write_file("a", "b")

    def standing() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    with connect(server) as remote:
        once(remote)
        assert gone(lambda: status(server)["programs"])
        settle()
        time.sleep(0.5)
        before = standing()
        for _ in range(40):
            once(remote)
        assert gone(lambda: more(standing(), before)), (before, standing())
        assert gone(lambda: status(server)["programs"] or status(server)["sessions"])


# --- what is no request --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/programs", b"{", 400),
        ("POST", "/programs", b"[" * 100_000, 400),
        ("POST", "/programs", b"\xff\xfe", 400),
        ("POST", "/programs", b"[]", 400),
        ("POST", "/programs", b"null", 400),
        ("POST", "/programs", b"{}", 400),
        ("POST", "/programs", b'{"program": "../x"}', 400),
        ("POST", "/programs", b'{"program": "a"}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": 5}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["\\ud800"]}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "stdin": "?"}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "stdin": 5}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "files": []}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "files": {"../a": ""}}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "limits": {"self": 1}}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "limits": {"wall": 1}}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "limits": {"wall_s": NaN}}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "limits": {"wall_s": 1e400}}', 422),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "session": 5}', 400),
        ("POST", "/programs", b'{"program": "a", "argv": ["true"], "session": "b", "stdin": ""}', 410),
        ("POST", "/programs/ab/wait", b"{}", 404),
        ("POST", "/programs/ab/receive", b'{"timeout_s": 1}', 404),
        ("POST", "/programs/ab/fly", b"{}", 404),
        ("POST", "/programs/../../etc/passwd", b"{}", 404),
        ("POST", "/sessions", b'{"limits": 5}', 422),
        ("POST", "/sessions/ab/read", b'{"path": "a"}', 410),
        ("POST", "/sessions/ab/write", b'{"path": "a", "data": 5}', 422),
        ("POST", "/sessions/ab/send", b"{}", 404),
        ("POST", "/", b"{}", 404),
        ("POST", "/%00%ff", b"{}", 404),
        ("POST", "/" + "a" * 70_000, b"{}", 414),
        ("GET", "/programs", None, 404),
        ("GET", "/../status", None, 404),
        ("PUT", "/programs", b"{}", 405),
        ("DELETE", "/sessions/ab", None, 405),
        ("FLY", "/", None, 405),
    ],
)
def test_a_request_that_makes_no_sense_is_answered(
    server: SandboxServer, method: str, path: str, body: bytes | None, code: int
) -> None:
    told, sentence = answer(server, method, path, body)
    assert told == code and sentence["error"], sentence
    assert status(server)["protocol"] == PROTOCOL


def test_a_session_is_asked_in_vain_for_what_it_cannot(server: SandboxServer) -> None:
    number = answer(server, "POST", "/sessions", b"{}")[1]["session"]
    for call, body in {"read": {}, "write": {"data": "", "path": 5}}.items():
        assert answer(server, "POST", f"/sessions/{number}/{call}", json.dumps(body).encode())[0] == 400
    assert answer(server, "POST", f"/sessions/{number}/read", b'{"path": "/etc/passwd"}')[0] == 422
    assert answer(server, "POST", f"/sessions/{number}/list", b"{}") == (200, {"paths": []})
    assert answer(server, "POST", f"/sessions/{number}/close", b"{}") == (200, {})


def raw(server: SandboxServer, data: bytes) -> bytes:
    """What the server says to it; nothing where it hangs up on what is no request."""
    place = urlsplit(server.url)
    said = b""
    with (
        socket.create_connection((place.hostname, place.port), timeout=30) as connection,
        contextlib.suppress(OSError),
    ):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(1 << 16):
            said += chunk
    return said


def test_garbage_on_the_line_is_answered_and_the_server_goes_on(server: SandboxServer) -> None:
    head = f"POST /programs HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    for data, code in {
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n": 400,
        b"hello\r\n\r\n": 400,
        b"GET /status HTTP/9.9\r\n\r\n": 400,
        b"GET /status HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n": 431,
        head + b"\r\n": 411,
        head + b"Content-Length: -1\r\n\r\n": 411,
        head + b"Content-Length: many\r\n\r\n": 411,
        head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 411,
        head + f"Content-Length: {MOST_BODY + 1}\r\n\r\n".encode() + b"x" * MIB: 413,
        head + b"Content-Length: 999999999999999999999\r\n\r\n": 411,
        head + b"Content-Length: 50\r\n\r\n{}": 400,
        b"\0" * 100_000: 414,
        b"GET " + b"a" * 100_000: 414,
    }.items():
        said = raw(server, data)
        found = re.match(rb"HTTP/1\.[01] (\d{3}) ", said)
        assert found is not None and int(found[1]) == code, (data[:100], said[:200])
    for data in (b"", b"\r\n", os.urandom(10_000)):
        raw(server, data)
    assert status(server)["protocol"] == PROTOCOL


def connected(server: SandboxServer) -> socket.socket:
    place = urlsplit(server.url)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def test_a_client_that_never_ends_its_head_is_hung_up_on(
    serving: Callable[..., SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ludus.sandbox.server._HEAD_S", 0.5)
    server, started = serving(), time.monotonic()
    with connected(server) as slow, pytest.raises(OSError):
        slow.sendall(b"POST /programs HTTP/1.1\r\nX: ")
        while time.monotonic() < started + 8:
            time.sleep(0.1)
            slow.sendall(b"x")
    assert time.monotonic() < started + 5


def test_clients_without_a_token_make_room_for_those_with_one(
    serving: Callable[..., SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ludus.sandbox.server._STRANGERS", 8)
    server, before = serving(), threading.active_count()
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(connected(server)) for _ in range(40)]
        for stranger in strangers:
            with contextlib.suppress(OSError):
                stranger.sendall(b"POST /programs HTTP/1.1\r\nX: ")
        assert status(server)["programs"] == 0
        assert threading.active_count() <= before + 12
        assert strangers[0].recv(1) == b""
        with connect(server) as remote:
            threads = [in_thread(lambda: remote.run(["echo", "on"]).stdout) for _ in range(24)]
            for thread, outputs in threads:
                thread.join(60)
                assert outputs == ["on\n"]


def test_a_server_without_descriptors_does_not_spin(
    serving: Callable[..., SandboxServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def none_left(server: Any) -> Any:
        tried.append(time.monotonic())
        raise OSError(24, "Too many open files")

    server = serving()
    with monkeypatch.context() as patch:
        patch.setattr("socketserver.TCPServer.get_request", none_left)
        with connected(server):
            time.sleep(0.6)
    assert 2 <= len(tried) < 20
    assert status(server)["protocol"] == PROTOCOL


def test_more_than_fits_into_a_request_is_told_before_it_is_sent(remote: Sandbox) -> None:
    with pytest.raises(SandboxError, match="too many for a sandbox server"):
        remote.run(["true"], stdin=b"x" * MOST_BODY)


# --- where it comes from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "localhost:8675", "ftp://host", "http://", "http://host:port", "http://a\nb"])
def test_an_address_that_is_none_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUDUS_SANDBOX_URL", raising=False)
    with pytest.raises(SandboxError, match="as http://host:8675"):
        Remote(url=url, token=TOKEN)


def test_an_address_and_a_token_of_another_kind_are_told() -> None:
    url: Any
    for url in (5, b"http://host", ["http://host"]):
        with pytest.raises(SandboxError, match="must be a text, such as 'http://host:8675'"):
            Remote(url=url, token=TOKEN)
    token: Any
    for token in (5, b"a" * 20, ["a"] * 20):
        with pytest.raises(SandboxError, match="visible ASCII"):
            Remote(url="http://127.0.0.1:9", token=token)


def test_what_is_no_sandbox_server_is_told(server: SandboxServer) -> None:
    with pytest.raises(SandboxError, match="No sandbox server answers"):
        Remote(url="http://127.0.0.1:9", token=TOKEN)
    with pytest.raises(SandboxError, match="GET /status"):
        Remote(url=server.url + "/elsewhere", token=TOKEN)


def test_auto_takes_the_remote_sandbox_where_there_is_no_other(
    server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.delenv("LUDUS_SANDBOX_URL", raising=False)
    with pytest.raises(SandboxError, match="remote: No sandbox server is named; set LUDUS_SANDBOX_URL"):
        open_sandbox("auto")
    monkeypatch.setenv("LUDUS_SANDBOX_URL", server.url)
    monkeypatch.setenv("LUDUS_SANDBOX_TOKEN", TOKEN)
    with open_sandbox("auto") as sandbox:
        assert sandbox.name == "remote" and sandbox.isolates
        assert sandbox.run(["echo", "on"]).stdout == "on\n"


def test_what_isolates_nothing_does_not_isolate_from_afar() -> None:
    with open_sandbox("plain") as plain, serve_sandbox(plain, token=TOKEN) as server, connect(server) as remote:
        assert not remote.isolates


@contextlib.contextmanager
def command_server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`ludus sandbox-server` as a process, and its address."""
    command = [sys.executable, "-m", "ludus", "sandbox-server", "--sandbox", "bubblewrap", "--port", "0", *arguments]
    environment = {**os.environ, "LUDUS_SANDBOX_TOKEN": TOKEN}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_until_it_is_interrupted() -> None:
    with command_server("--limit", "wall_s=7") as (process, url):
        with open_sandbox("remote", url=url, token=TOKEN) as remote:
            assert remote.run(["echo", "on"]).stdout == "on\n"
            with pytest.raises(SandboxError, match="wall_s = 8 is above the 7"):
                remote.run(["true"], limits=Limits(wall_s=8))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_the_command_refuses_to_start_without_a_token() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LUDUS_SANDBOX_TOKEN"}
    command = [sys.executable, "-m", "ludus", "sandbox-server"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and "export LUDUS_SANDBOX_TOKEN=" in result.stderr


def test_a_port_in_use_is_told(server: SandboxServer, bubblewrap: Bubblewrap) -> None:
    port = urlsplit(server.url).port
    with pytest.raises(SandboxError, match=f"port {port} is in use"):
        serve_sandbox(bubblewrap, port=port or 0, token=TOKEN)
    with pytest.raises(SandboxError, match="choose an address of this machine"):
        serve_sandbox(bubblewrap, host="203.0.113.1", token=TOKEN)
    assert MOST.wall_s > 0


def test_a_result_has_all_that_the_sandbox_told(remote: Sandbox) -> None:
    result = remote.run(["sh", "-c", "printf out; printf err >&2; exit 3"])
    assert isinstance(result, Result) and (result.stdout, result.stderr, result.exit_code) == ("out", "err", 3)
    assert result.usage.cpu_s is not None or result.usage.wall_s > 0

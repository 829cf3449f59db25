"""A session keeps files and processes over several programs, and nothing of it is left when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_sandbox import gone, more, processes, settle

from ludus.sandbox import (
    Limits,
    Result,
    Sandbox,
    SandboxError,
    Session,
    Status,
    check_sandbox,
    open_sandbox,
)
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.job import Job
from ludus.sandbox.keeper import Keeper
from ludus.sandbox.keeper_session import KeeperSession

MIB = 2**20


@pytest.fixture(
    params=[
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
        pytest.param("docker", marks=pytest.mark.docker),
        "plain",
    ]
)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return open_sandbox("plain") if request.param == "plain" else request.getfixturevalue(request.param)


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("bubblewrap", "docker")])
def isolated(request: pytest.FixtureRequest) -> Iterator[Session]:
    with request.getfixturevalue(request.param).open_session(Limits(wall_s=5, memory_bytes=128 * MIB)) as session:
        yield session


@pytest.fixture
def kept(isolated: Session) -> KeeperSession:
    assert isinstance(isolated, KeeperSession)
    return isolated


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[Session]:
    with sandbox.open_session() as session:
        yield session


def python(session: Session, program: str, **options: object) -> Result:
    return session.exec(["python3", "-c", program], **options)  # type: ignore[arg-type]


# --- what stays -----------------------------------------------------------------------------------------------------


def test_files_stay_from_program_to_program_and_go_both_ways(session: Session) -> None:
    session.write_file("folder/in.txt", "né")
    result = python(session, "print(open('folder/in.txt').read()); open('out', 'wb').write(bytes(range(256)))")
    assert result.ok and result.stdout == "né\n"
    assert session.read_file("out") == bytes(range(256))
    session.write_file("out", b"shorter")
    assert session.exec(["cat", "out"]).stdout == "shorter"
    session.write_file("empty", "")
    assert session.read_file("empty") == b""


def test_each_session_has_a_folder_of_its_own(sandbox: Sandbox) -> None:
    with sandbox.open_session() as first, sandbox.open_session() as second:
        first.write_file("a", "1")
        assert second.exec(["ls"]).stdout == ""
        assert sandbox.run(["ls"]).stdout == ""
        assert first.exec(["ls"]).stdout == "a\n"


def test_what_is_left_running_lives_until_the_session_is_closed(sandbox: Sandbox) -> None:
    mark = f"70.{os.getpid()}"
    with sandbox.open_session() as session:
        started = time.monotonic()
        assert session.exec(["sh", "-c", f"sleep {mark} & echo on", mark]).stdout == "on\n"
        assert time.monotonic() - started < 60
        assert gone(lambda: not processes(mark, "sleep"))  # until it is there
    assert sandbox.name == "plain" or gone(lambda: processes(mark))
    for left in processes(mark):  # plain promises nothing
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(left), signal.SIGKILL)


def test_an_interpreter_keeps_its_state_over_several_lines(session: Session) -> None:
    with session.start(["python3", "-i", "-q", "-u"]) as interpreter:
        for line in (b"x = 41", b"x += 1", b"print(x)"):
            assert interpreter.send_line(line)
        assert interpreter.receive_line(20) == b"42"
        session.write_file("later", "there")
        interpreter.send_line(b"print(open('later').read())")
        assert interpreter.receive_line(20) == b"there"


def test_lines_that_were_read_do_not_count_as_output(session: Session) -> None:
    limits = Limits(output_bytes=10_000)
    with session.start(["cat"], limits=limits) as process:
        for number in range(300):
            process.send_line(b"%d" % number + b"x" * 1000)
            assert process.receive_line(20) == b"%d" % number + b"x" * 1000
        assert process.finish().ok


@given(content=st.binary(max_size=300_000))
def test_any_bytes_come_back(plain_session: Session, content: bytes) -> None:
    plain_session.write_file("bytes", content)
    assert plain_session.read_file("bytes") == content
    assert plain_session.exec(["sh", "-c", "cat > copy"], stdin=content).ok
    assert plain_session.read_file("copy") == content


@pytest.fixture(scope="module")
def plain_session() -> Iterator[Session]:
    with open_sandbox("plain") as sandbox, sandbox.open_session() as session:
        yield session


# --- how programs end -----------------------------------------------------------------------------------------------


def test_input_output_and_the_end_are_told(session: Session) -> None:
    result = python(
        session, "import sys, os; os.write(2, b'e\\xff'); print(len(sys.stdin.read())); sys.exit(3)", stdin="x" * MIB
    )
    assert (result.status, result.exit_code, result.stdout, result.stderr) == (Status.EXITED, 3, f"{MIB}\n", "e\\xff")
    assert result.usage.cpu_s is not None and result.usage.memory_bytes is not None
    assert session.exec(["no-such-program"]).exit_code == 127
    signalled = python(session, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert (signalled.status, signalled.exit_code) == (Status.KILLED, 128 + signal.SIGTERM)


def test_time_processor_time_and_output_have_ends_and_the_session_goes_on(session: Session) -> None:
    mark = f"80.{os.getpid()}"
    late = session.exec(["sh", "-c", f"sleep {mark} & sleep {mark}; true", mark], limits=Limits(wall_s=0.5))
    assert late.status is Status.TIMEOUT and "0.5 s" in late.reason
    assert gone(lambda: processes(mark))
    assert python(session, "while True: pass", limits=Limits(cpu_s=1)).status is Status.TIMEOUT
    much = python(session, "while True: print('x' * 1000)", limits=Limits(output_bytes=5_000))
    assert much.status is Status.OUTPUT and much.stdout.endswith("[cut: more than 5000 bytes of output]\n")
    assert session.exec(["echo", "still here"]).stdout == "still here\n"


def test_many_programs_run_at_once_in_one_session(session: Session) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(5):
            result = session.exec(["cat"], stdin=str(number) * 100_000)
            if result.stdout != str(number) * 100_000:
                wrong.append(result.status)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong


def test_cancelling_ends_the_program_and_not_the_session(session: Session) -> None:
    mark = f"90.{os.getpid()}"

    async def work() -> None:
        task = asyncio.create_task(session.exec_async(["sleep", mark]))
        assert await asyncio.to_thread(gone, lambda: not processes(mark, "sleep"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(lambda: processes(mark))
        assert (await session.exec_async(["echo", "on"])).stdout == "on\n"

    asyncio.run(work())


def test_memory_that_runs_out_is_told_and_the_session_goes_on(isolated: Session) -> None:
    eat = (
        "import os\nfor _ in range(3):\n    os.fork()\nx = bytearray(b'x') * (60 * 2**20)\nimport time; time.sleep(20)"
    )
    result = python(isolated, "x = bytearray(b'x') * (400 * 2**20)")
    assert result.status is Status.MEMORY or "MemoryError" in result.stderr
    assert python(isolated, eat).status in (Status.MEMORY, Status.TIMEOUT)
    assert gone(lambda: isolated.exec(["echo", "on"]).stdout != "on\n", within_s=30)


@pytest.mark.bubblewrap
def test_a_program_of_a_session_may_have_as_many_processes_as_are_allowed(bubblewrap: Bubblewrap) -> None:
    """Itself among them, as in a run."""
    count = (
        "import os, time\nmade = 0\ntry:\n    while os.fork():\n        made += 1\n"
        "    else:\n        time.sleep(3)\n        os._exit(0)\nexcept OSError:\n    print(made + 1)"
    )
    room = Limits(processes=8, wall_s=20)
    with bubblewrap.open_session(room) as session:
        inside = session.exec(["python3", "-c", count]).stdout
    assert (inside, bubblewrap.run(["python3", "-c", count], limits=room).stdout) == ("8\n", "8\n")


# --- closing --------------------------------------------------------------------------------------------------------


def test_a_closed_session_says_so_and_ends_what_runs(sandbox: Sandbox) -> None:
    mark, results = f"75.{os.getpid()}", []
    session = sandbox.open_session()
    thread = threading.Thread(target=lambda: results.append(session.exec(["sleep", mark])))
    thread.start()
    assert gone(lambda: not processes(mark, "sleep"))
    session.close()
    session.close()
    thread.join(30)
    assert results[0].status is Status.FAILED and "closed" in results[0].reason
    assert gone(lambda: processes(mark))
    for way in (lambda: session.exec(["true"]), lambda: session.read_file("a"), lambda: session.start(["true"])):
        with pytest.raises(SandboxError, match="session was closed"):
            way()


def test_closing_the_sandbox_ends_its_sessions() -> None:
    sandbox = open_sandbox("plain")
    session = sandbox.open_session()
    sandbox.close()
    assert session.exec(["true"]).status is Status.FAILED
    with pytest.raises(SandboxError, match="closed"):
        sandbox.open_session()


@pytest.mark.bubblewrap
def test_a_session_ends_with_a_parent_that_is_killed(bubblewrap: Bubblewrap) -> None:
    mark = f"85.{os.getpid()}"
    program = f"""
from ludus.sandbox import open_sandbox
session = open_sandbox("bubblewrap").open_session()
session.exec(["sh", "-c", "sleep {mark} & echo", "{mark}"])
session.exec(["sleep", "{mark}"])
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert gone(lambda: len(processes(mark, "sleep")) < 2, within_s=60)
    finally:
        parent.kill()
        parent.wait()
    assert gone(lambda: processes(mark))


@pytest.mark.bubblewrap
def test_a_hundred_sessions_leave_no_descriptor_thread_or_process(bubblewrap: Bubblewrap) -> None:
    mark = f"95.{os.getpid()}"

    def once() -> None:
        with bubblewrap.open_session() as session:
            session.write_file("a", "b")
            session.exec(["sh", "-c", f"sleep {mark} &", mark])

    def standing() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    once()
    settle()
    before = standing()
    for _ in range(100):
        once()
    assert gone(lambda: more(standing(), before)), (before, standing())
    assert gone(lambda: processes(mark))


# --- what programs try ----------------------------------------------------------------------------------------------


def test_the_keeper_cannot_be_ended_or_looked_into(isolated: Session) -> None:
    program = """
import os, signal
for name in ("KILL", "STOP", "TERM", "INT", "CHLD", "HUP", "PIPE", "XCPU"):
    os.kill(1, getattr(signal, "SIG" + name))
for name in ("fd/0", "fd/3", "mem", "environ", "maps", "syscall", "stack"):
    try:
        open("/proc/1/" + name, "rb").read(1)
        print("opened", name)
    except OSError:
        pass
"""
    result = python(isolated, program)
    assert result.ok and result.stdout == "", result
    assert isolated.exec(["echo", "on"]).stdout == "on\n"


def test_files_that_are_none_are_told_in_a_sentence(isolated: Session) -> None:
    isolated.exec(
        ["sh", "-c", "mkfifo pipe; mkdir folder; ln -s /dev/zero zero; ln -s loop loop; truncate -s 1T sparse"]
    )
    for path, word in {
        "nothing": "No such file",
        "pipe": "no file",
        "folder": "",
        "zero": "no file",
        "loop": "",
    }.items():
        with pytest.raises(SandboxError, match=f"cannot read '{path}'.*{word}"):
            isolated.read_file(path)
    for path in ("folder", "pipe", "nothing\0", "../up", "/etc/passwd"):
        with pytest.raises(SandboxError):
            isolated.write_file(path, "x")
    with pytest.raises(SandboxError, match=r"cannot write 'big'.*No space"):
        isolated.write_file("big", b"x" * (80 * MIB))
    assert isolated.exec(["echo", "on"]).stdout == "on\n"


def test_a_program_whose_first_thread_has_ended_is_ended_in_time(isolated: Session) -> None:
    hide = "import ctypes, threading, time, platform\nthreading.Thread(target=time.sleep, args=(100,)).start()\n"
    hide += "ctypes.CDLL(None).syscall(60 if platform.machine() == 'x86_64' else 93, 0)"
    result = python(isolated, hide, limits=Limits(wall_s=1))
    assert result.status is Status.TIMEOUT and result.usage.wall_s < 5
    assert isolated.exec(["echo", "on"]).stdout == "on\n"


def test_the_keeper_keeps_its_limits_and_its_turn(isolated: Session) -> None:
    program = """
import os, resource
for change in (
    lambda: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0)),
    lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3)),
    lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    lambda: os.sched_setaffinity(1, {0}),
    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
):
    try:
        change()
        print("changed")
    except PermissionError:
        pass
resource.prlimit(0, resource.RLIMIT_CORE, (0, 0))
os.nice(1)
"""
    result = python(isolated, program)
    assert result.ok and result.stdout == "", result
    assert isolated.exec(["echo", "on"]).stdout == "on\n"


def test_input_that_nobody_reads_and_output_beyond_all_bounds_hold_nobody_up(isolated: Session) -> None:
    much = b"x" * (40 * MIB)
    late = isolated.exec(["sleep", "60"], stdin=much, limits=Limits(wall_s=1))
    assert late.status is Status.TIMEOUT and late.usage.wall_s < 5
    assert isolated.exec(["cat"], stdin=much).status is Status.OUTPUT
    assert isolated.exec(["cat", "/dev/zero"], stdin=much).status is Status.OUTPUT
    assert isolated.exec(["wc", "-c"], stdin=much, limits=Limits(wall_s=60)).stdout.split() == [str(len(much))]
    assert isolated.exec(["head", "-c", "3"], stdin=much).stdout == "xxx"


def test_an_exit_code_is_no_signal(isolated: Session) -> None:
    for code in (137, 152, 255):
        result = isolated.exec(["sh", "-c", f"exit {code}"])
        assert (result.status, result.exit_code) == (Status.EXITED, code)


def test_files_are_listed_whatever_their_names_and_wherever_links_lead(isolated: Session) -> None:
    isolated.exec(
        ["sh", "-c", "mkdir -p a/b c; echo x > a/b/f; ln -s / root; ln -s a link; mkfifo p; echo > 'two words'"]
    )
    assert isolated.list_files() == ["a/b/f", "link", "p", "root", "two words"]
    isolated.exec(["python3", "-c", "for i in range(10_001): open(f'f{i}', 'w')"])
    with pytest.raises(SandboxError, match="more than 10000 files"):
        isolated.list_files()


def test_a_folder_that_cannot_be_looked_into_is_an_error_of_the_listing(isolated: Session) -> None:
    isolated.exec(["sh", "-c", "mkdir -p a/hidden; echo x > a/hidden/f; chmod 000 a/hidden"])
    with pytest.raises(SandboxError, match=r"the folder 'a/hidden/' cannot be listed \(Permission denied\)"):
        isolated.list_files()
    assert isolated.exec(["chmod", "700", "a/hidden"]).ok and isolated.list_files() == ["a/hidden/f"]


def test_no_more_of_a_folder_is_looked_at_than_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    monkeypatch.chdir(tmp_path)
    looked, said, scandir = [], [], os.scandir

    @contextlib.contextmanager
    def spy(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            yield (looked.append(entry) or entry for entry in entries)

    monkeypatch.setattr(os, "scandir", spy)
    keeper = SimpleNamespace(say=lambda number, **answer: said.append(answer))
    Keeper.do_list(keeper, 1, most=9)  # type: ignore[arg-type]
    assert said == [{"error": "there are more than 9 files or folders"}] and len(looked) == 10


def test_no_more_of_a_file_is_read_than_is_asked_for(isolated: Session) -> None:
    isolated.exec(["sh", "-c", "printf 12345 > five; ln -s /proc/self/maps endless"])
    assert isolated.read_file("five", most=5) == b"12345"
    for path, most in (("five", 4), ("endless", 100)):
        with pytest.raises(SandboxError, match=f"cannot read '{path}': it is larger than {most} bytes"):
            isolated.read_file(path, most=most)


def test_a_folder_that_was_moved_away_is_made_anew(isolated: Session) -> None:
    assert isolated.exec(["sh", "-c", "mv /tmp/work /tmp/gone"]).ok
    isolated.write_file("new", "x")
    assert isolated.exec(["ls"]).stdout == "new\n"


def test_a_session_that_was_emptied_is_as_it_was_at_first(kept: KeeperSession) -> None:
    before = python(kept, _LOOK)
    shell = kept.start(["sh", "-c", "sleep 61 & (setsid sleep 62 &); echo ready; exec sleep 63"])
    assert shell.receive_line(5) == b"ready"
    left = "mkdir -p /tmp/a/b /dev/shm/c && touch /tmp/.hidden /dev/shm/d a && ln -s / /tmp/link && ln -s . /tmp/a/link"
    assert kept.exec(["sh", "-c", left + " && mkfifo /tmp/p && rm -r $PWD && ln -s /dev/shm /tmp/work"]).ok
    kept.empty()
    assert shell.finish().status is Status.KILLED
    after = python(kept, _LOOK)
    assert before.ok and before.stdout == after.stdout
    kept.write_file("a", "again")
    assert kept.exec(["cat", "/tmp/work/a"]).stdout == "again"


_LOOK = """
import os
print(sorted(name for name in os.listdir("/proc") if name.isdecimal() and name not in (str(os.getpid()), "self")))
print([(folder, sorted(names), sorted(files)) for top in ("/tmp", "/dev/shm") for folder, names, files in os.walk(top)])
print(open("/proc/sysvipc/shm").read())
"""


def test_a_session_that_cannot_be_emptied_says_so(kept: KeeperSession) -> None:
    kept.write_file("closed/a", "")
    assert kept.exec(["chmod", "0", "closed"]).ok
    with pytest.raises(SandboxError, match="cannot be emptied"):
        kept.empty()
    assert kept.exec(["chmod", "700", "closed"]).ok
    kept.empty()
    shared = "import ctypes; assert ctypes.CDLL(None).shmget(5, 4096, 0o1666) >= 0"  # 0o1000 is IPC_CREAT
    assert python(kept, shared).ok
    with pytest.raises(SandboxError, match="sysvipc/shm tells"):
        kept.empty()
    with open_sandbox("plain") as plain, plain.open_session() as session:
        assert isinstance(session, KeeperSession)
        with pytest.raises(SandboxError, match="only the first process"):
            session.empty()


def test_many_failed_readings_cost_the_keeper_nothing(isolated: Session) -> None:
    isolated.exec(["mkdir", "folder"])
    for _ in range(600):
        with pytest.raises(SandboxError):
            isolated.read_file("folder")
    assert isolated.exec(["echo", "on"]).stdout == "on\n"
    with pytest.raises(SandboxError, match="too long a path"):
        isolated.write_file("a/" * 1_500 + "x", "x")


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_a_keeper_that_is_stuck_holds_nobody_up(bubblewrap: Bubblewrap, monkeypatch: pytest.MonkeyPatch) -> None:
    session = bubblewrap.open_session(Limits(wall_s=1))
    monkeypatch.setattr("ludus.sandbox.keeper_session._ANSWER_S", 4.0)
    mark = f"65.{os.getpid()}"
    thread = threading.Thread(target=session.exec, args=(["sleep", mark],), kwargs={"limits": Limits(wall_s=50)})
    thread.start()
    assert gone(lambda: not processes(mark, "sleep"))
    (program,) = processes(mark, "sleep")
    parent = int(Path("/proc", program, "stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGSTOP)  # from outside; nothing inside can
    started = time.monotonic()
    result = session.exec(["true"], stdin=b"x" * MIB)
    session.close()
    thread.join(30)
    assert result.status is Status.FAILED and time.monotonic() - started < 60
    assert gone(lambda: processes(mark))


@pytest.mark.bubblewrap
def test_more_descriptors_than_select_knows_are_no_hindrance(bubblewrap: Bubblewrap) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    kept = []
    try:
        kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_500)]
        assert bubblewrap.run(["echo", "on"]).stdout == "on\n"
        with bubblewrap.open_session() as session:
            assert session.exec(["echo", "on"]).stdout == "on\n"
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_session_full_of_processes_says_so_and_recovers(isolated: Session) -> None:
    bomb = """
import os, time
while True:
    try:
        os.fork() or time.sleep(30)
    except OSError:
        time.sleep(30)
"""
    assert python(isolated, bomb, limits=Limits(wall_s=2)).status is Status.TIMEOUT
    assert gone(lambda: isolated.exec(["echo", "on"]).stdout != "on\n", within_s=30)


class InSessions(Sandbox):
    """A sandbox each of whose runs is a session of another one."""

    isolates, name = True, "sessions"

    def __init__(self, inner: Sandbox) -> None:
        self.inner, self.limits = inner, inner.limits

    def execute(self, job: Job) -> Result:
        with self.inner.open_session(job.limits) as session:
            for path, content in job.files.items():
                session.write_file(path, content)
            return session.execute(replace(job, files={}))

    def close(self) -> None:
        pass


@pytest.mark.bubblewrap
@pytest.mark.slow
def test_no_attack_gets_through_from_a_session(bubblewrap: Bubblewrap) -> None:
    report = check_sandbox(InSessions(bubblewrap))
    assert report.passed, str(report)

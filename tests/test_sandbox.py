"""What a program in a sandbox gets, how its end is told, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ludus.sandbox import Cancellation, Limits, Result, Sandbox, SandboxError, Status, open_sandbox
from ludus.sandbox.bubblewrap import Bubblewrap
from ludus.sandbox.bubblewrap_command import bubblewrap_command
from ludus.sandbox.descriptors import Descriptors
from ludus.sandbox.docker_engine import _engines
from ludus.sandbox.namespace import _mark_of, reap_orphans

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


def python(sandbox: Sandbox, program: str, **options: object) -> Result:
    return sandbox.run(["python3", "-c", program], **options)  # type: ignore[arg-type]


# --- what it gets, and what is told ---------------------------------------------------------------------------------


def test_a_program_gets_its_input_and_files_and_its_end_is_told(sandbox: Sandbox) -> None:
    files = {"folder/data.txt": "né", "bytes": b"\x00\xff"}
    program = (
        "import sys; print(sys.stdin.read(), open('folder/data.txt').read(), open('bytes','rb').read()); sys.exit(3)"
    )
    result = python(sandbox, program, stdin="in", files=files)
    assert (result.status, result.exit_code, result.ok) == (Status.EXITED, 3, False)
    assert result.stdout == "in né b'\\x00\\xff'\n"
    assert result.usage.wall_s > 0


def test_output_and_complaints_are_apart_and_no_text_is_lost(sandbox: Sandbox) -> None:
    result = python(sandbox, "import os; os.write(1, b'out\\xff\\x00'); os.write(2, b'err')")
    assert (result.stdout, result.stderr, result.ok) == ("out\\xff\x00", "err", True)


def test_a_megabyte_of_input_and_of_output_passes(sandbox: Sandbox) -> None:
    result = sandbox.run(["cat"], stdin=b"x" * MIB, limits=Limits(output_bytes=MIB))
    assert result.ok and result.stdout == "x" * MIB


def test_too_much_output_ends_the_program_and_is_cut_at_the_limit(sandbox: Sandbox) -> None:
    result = python(sandbox, "while True: print('x' * 1000)", limits=Limits(output_bytes=5_000))
    assert (result.status, result.exit_code) == (Status.OUTPUT, None)
    kept, mark = result.stdout[:5_000], result.stdout[5_000:]
    assert set(kept) == {"x", "\n"} and mark == "\n[cut: more than 5000 bytes of output]\n"


def test_a_program_that_goes_on_is_ended_at_its_time(sandbox: Sandbox) -> None:
    result = sandbox.run(["sleep", "60"], limits=Limits(wall_s=0.3))
    assert (result.status, result.exit_code) == (Status.TIMEOUT, None)
    assert "0.3 s" in result.reason


def test_a_signal_of_its_own_is_told_apart(sandbox: Sandbox) -> None:
    result = python(sandbox, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (result.status, result.exit_code) == (Status.KILLED, 128 + signal.SIGSEGV)


def test_a_program_that_is_not_there_is_127_as_in_a_shell(sandbox: Sandbox) -> None:
    result = sandbox.run(["no-such-program"])
    assert (result.status, result.exit_code, result.stderr) == (Status.EXITED, 127, "no-such-program: not found\n")


def test_a_child_that_keeps_the_output_open_holds_nobody_up(sandbox: Sandbox) -> None:
    program = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\nprint('done')"
    result = python(sandbox, program, limits=Limits(wall_s=20))
    assert result.ok and result.stdout.startswith("done\n") and result.usage.wall_s < 15


def test_each_run_has_a_folder_of_its_own(sandbox: Sandbox) -> None:
    assert python(sandbox, "open('left', 'w')").ok
    assert python(sandbox, "import os; print(os.path.exists('left'))").stdout == "False\n"


# --- talking to a program ------------------------------------------------------------------------------------------


def test_a_program_is_talked_to_line_by_line_and_its_end_is_told(sandbox: Sandbox) -> None:
    program = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nsys.exit(5)"
    with sandbox.start(["python3", "-c", program]) as process:
        for word in (b"abc", b"", "né".encode()):
            assert process.send_line(word)
            assert process.receive_line(20) == word.decode()[::-1].encode()
        assert process.receive_line(0.01) is None
        assert process.send_line(b"not read")
        result = process.finish()
    assert (result.status, result.exit_code, result.stdout) == (Status.EXITED, 5, "daer ton\n")


def test_a_program_that_takes_or_says_nothing_holds_nobody_up(sandbox: Sandbox) -> None:
    with sandbox.start(["sleep", "60"], limits=Limits(wall_s=0.5)) as process:
        assert process.receive_line(0.01) is None
        process.send_line(b"x" * 10 * MIB)  # at the longest until its time is over
        assert process.receive_line(20) is None
        assert process.finish().status is Status.TIMEOUT


def test_a_program_that_is_left_is_ended(sandbox: Sandbox) -> None:
    with sandbox.start(["sleep", "60"]) as process:
        pass
    assert process.finish().status is Status.FAILED
    assert not process.send_line(b"x")


# --- cancelling and closing -----------------------------------------------------------------------------------------


def test_a_cancelled_task_ends_its_program_first(sandbox: Sandbox) -> None:
    async def cancelled() -> float:
        started = time.monotonic()
        task = asyncio.create_task(sandbox.run_async(["sleep", "60"]))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - started

    assert asyncio.run(cancelled()) < 20


def test_a_run_that_was_cancelled_before_it_began_ends_at_once(sandbox: Sandbox) -> None:
    cancellation = Cancellation()
    cancellation.cancel()
    result = sandbox.run(["sleep", "60"], cancellation=cancellation)
    assert (result.status, result.reason) == (Status.FAILED, "The run was cancelled.")
    cancellation.close()


@pytest.mark.parametrize("name", ["bubblewrap", "plain"])
def test_closing_ends_what_runs_and_nothing_runs_afterwards(name: str, bubblewrap: Bubblewrap) -> None:
    sandbox, mark, results = open_sandbox(name), f"60.{os.getpid()}", []
    thread = threading.Thread(target=lambda: results.append(sandbox.run(["sleep", mark], limits=Limits(wall_s=50))))
    thread.start()
    assert gone(lambda: not processes(mark, "sleep"))  # until it is there
    sandbox.close()
    sandbox.close()
    thread.join(30)
    assert results[0].status is Status.FAILED and "closed" in results[0].reason
    for way in (sandbox.run, sandbox.start):
        with pytest.raises(SandboxError, match="closed"):
            way(["true"])


def test_many_threads_share_a_sandbox(bubblewrap: Bubblewrap) -> None:
    outputs: dict[int, str] = {}

    def run(number: int) -> None:
        outputs[number] = bubblewrap.run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == {number: f"{number}\n" for number in range(32)}


# --- nothing is left ------------------------------------------------------------------------------------------------


def processes(mark: str, running: str = "") -> list[str]:
    """Those with an argument that is the mark. running: which program they must have become, if any; what starts one in
    a sandbox has its arguments, too."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            marked = mark.encode() in (folder / "cmdline").read_bytes().split(b"\0")
            if marked and running in ("", (folder / "comm").read_text().strip()):
                found.append(folder.name)
    return found


def gone(found: Callable[[], object], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while found() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not found()


def more(after: Iterable[int], before: Iterable[int]) -> bool:
    return any(a > b for a, b in zip(after, before, strict=True))


def settle() -> None:
    """Wait until no open Docker sandbox is making a container, as each does in the background, and what nobody uses any
    more is gone."""
    assert gone(lambda: any(engine._making for engine in list(_engines)), within_s=60)
    gc.collect()


@pytest.mark.parametrize("without", [(), ("end with parent",)])
def test_a_program_ends_with_a_parent_that_is_killed_by_a_defence_of_its_own(
    bubblewrap: Bubblewrap, without: tuple[str, ...]
) -> None:
    mark = f"ludus-orphan-{os.getpid()}-{len(without)}"
    program = f"""
from ludus.sandbox import Limits
from ludus.sandbox.bubblewrap import Bubblewrap
inner = "import os, time; os.fork(); os.setsid() if os.getpid() > 2 else 0; time.sleep(500)"
Bubblewrap(_without={without!r}).run(["python3", "-c", inner, {mark!r}], limits=Limits(wall_s=500))
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert gone(lambda: len(processes(mark, "python3")) < 2, within_s=60)  # the program and its child
        assert len(processes(mark)) >= 4  # bubblewrap and its head, too
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(lambda: processes(mark), within_s=2 if without else 20) is not bool(without)
    for left in processes(mark):
        with contextlib.suppress(ProcessLookupError):  # it ends with the head, which was killed before it
            os.kill(int(left), signal.SIGKILL)
    assert gone(lambda: processes(mark))


@pytest.mark.parametrize("moment", ["_find_head", "confine", "release"])
def test_a_parent_killed_while_it_starts_a_program_leaves_none_running(bubblewrap: Bubblewrap, moment: str) -> None:
    mark = f"{500 + len(moment)}.{os.getpid()}"
    program = f"""
import os, signal
from ludus.sandbox import namespace
from ludus.sandbox.bubblewrap import Bubblewrap
sandbox = Bubblewrap()
setattr(namespace.Namespace, {moment!r}, lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL))
sandbox.run(["sleep", {mark!r}])
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    gone(lambda: processes(mark), within_s=1)

    def left() -> list[str]:
        assert not processes(mark, "sleep")
        Bubblewrap().close()  # reaps a bubblewrap that never got so far, as soon as it is one
        return processes(mark)

    assert gone(left)


@pytest.mark.parametrize("since", ["", "1"])
def test_what_is_left_of_a_process_whose_number_was_given_again_is_ended(since: str) -> None:
    """since: when its owner began, if that is not this process."""
    mark = _mark_of(os.getpid()).split("-")
    mark[-2] = since or mark[-2]
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(500)", "-".join(mark)])
    try:
        assert gone(lambda: str(left.pid) not in processes("-".join(mark)))
        reap_orphans()
        assert gone(lambda: left.poll() is None, within_s=20 if since else 0.5) is bool(since)
    finally:
        left.kill()
        left.wait()


def test_three_hundred_runs_leave_no_process_descriptor_or_cgroup(bubblewrap: Bubblewrap) -> None:
    def standing() -> tuple[int, int, int]:
        cgroups = sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"ludus-{os.getpid()}-*"))
        return len(os.listdir("/proc/self/fd")), cgroups, len(Path("/proc/self/mountinfo").read_text().splitlines())

    mark = f"ludus-many-{os.getpid()}"
    bubblewrap.run(["true"])
    settle()
    before = standing()
    for number in range(300):
        if number % 3 == 0:
            bubblewrap.run(["sh", "-c", "sleep 60 & sleep 60", mark], limits=Limits(wall_s=0.01))
        else:
            bubblewrap.run(["sh", "-c", "sleep 60 &", mark])
    # A run removes what the one before it could not remove yet.
    assert gone(lambda: bubblewrap.run(["true"]) and more(standing(), before)), (before, standing())
    assert gone(lambda: processes(mark))


# --- what cannot be asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"wall_s": 1e9}, "wall_s"),
        ({"file_bytes": 2**63}, "file_bytes"),
        ({"wall_s": 0}, "wall_s"),
        ({"wall_s": float("inf")}, "wall_s"),
        ({"wall_s": "5"}, "wall_s"),
        ({"memory_bytes": 1000}, "16 MiB"),
        ({"memory_bytes": 1e9}, "whole number"),
        ({"processes": -1}, "processes"),
        ({"open_files": 3}, "open_files"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, object], word: str) -> None:
    with pytest.raises(SandboxError, match=word):
        Limits(**limits)  # type: ignore[arg-type]


def test_an_unknown_limit_or_sandbox_is_told_with_the_nearest() -> None:
    with pytest.raises(SandboxError, match="Did you mean 'wall_s'"):
        Limits().but(wall=3)
    with pytest.raises(SandboxError, match="Did you mean 'bubblewrap'"):
        open_sandbox("bubblewarp")
    with pytest.raises(SandboxError, match="Limits"):
        open_sandbox("plain", limits=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", ".", "a\0b", "\ud800"])
def test_a_file_outside_the_folder_is_refused(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(SandboxError, match="must be a path inside"):
        sandbox.run(["true"], files={path: "x"})


@pytest.mark.parametrize("argv", ["echo hi", [], ["echo", 5], ["echo", "a\0b"], ["echo", "\ud800"], [""]])
def test_arguments_that_are_none_are_refused(sandbox: Sandbox, argv: object) -> None:
    for way in (sandbox.run, sandbox.start):
        with pytest.raises(SandboxError, match="argv"):
            way(argv)  # type: ignore[arg-type]


def test_a_path_that_is_a_file_and_a_folder_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="'a' is a file and cannot hold 'a/b'"):
        sandbox.run(["true"], files={"a/b": "x", "a": "y"})


def test_files_larger_than_the_disk_are_refused(bubblewrap: Bubblewrap) -> None:
    with pytest.raises(SandboxError, match="disk_bytes"):
        bubblewrap.run(["true"], files={"big": b"x" * 2 * MIB}, limits=Limits(disk_bytes=MIB))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"argv": ["true", "x" * 300_000]}, "one of 300000 bytes.*by files or stdin"),
        ({"files": {"a/" + "x" * 300: ""}}, "a name of over 255 bytes"),
        ({"files": {"é" * 200: ""}}, "a name of over 255 bytes"),
        ({"cancellation": 5}, "must be a Cancellation"),
    ],
)
def test_what_no_program_can_be_given_is_told_with_the_fix(
    bubblewrap: Bubblewrap, option: dict[str, Any], says: str
) -> None:
    with pytest.raises(SandboxError, match=says):
        bubblewrap.run(**{"argv": ["true"], **option})


def test_limits_that_no_sandbox_can_keep_are_told(bubblewrap: Bubblewrap) -> None:
    with pytest.raises(SandboxError, match="disk_bytes = 1 is below 4 KiB"):
        Limits(disk_bytes=1)
    with pytest.raises(SandboxError, match="processes = 4000001 must be above 0 and at most 4000000"):
        Limits(processes=4_000_001)
    for extreme in (Limits(disk_bytes=4096), Limits(processes=4_000_000), Limits(open_files=2**60)):
        assert bubblewrap.run(["true"], limits=extreme).ok
        with bubblewrap.open_session(extreme) as session:
            assert session.exec(["true"]).ok


def test_more_folders_can_be_read_and_not_written(bubblewrap: Bubblewrap, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("seen")
    with Bubblewrap(read_only=[tmp_path]) as sandbox:
        assert sandbox.run(["cat", str(tmp_path / "data")]).stdout == "seen"
        assert not sandbox.run(["touch", str(tmp_path / "new")]).ok
    assert not bubblewrap.run(["cat", str(tmp_path / "data")]).ok
    with pytest.raises(SandboxError, match="is not there"):
        Bubblewrap(read_only=[tmp_path / "missing"])


def test_without_the_command_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        open_sandbox("bubblewrap")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(SandboxError, match=r"No sandbox can be opened here.*bubblewrap: .*docker: "):
        open_sandbox("auto")


@pytest.mark.bubblewrap
def test_ludus_itself_is_not_to_be_seen(tmp_path: Path) -> None:
    """Its environments hold solutions; an installed one lies in a folder that programs may read."""
    package = Path(bubblewrap_command.__code__.co_filename).resolve().parents[1]
    with Bubblewrap(read_only=[package.parent]) as sandbox:
        listed = sandbox.run(["ls", "-A", str(package)])
        assert (listed.status, listed.stdout) == (Status.EXITED, "")
        assert package.name in sandbox.run(["ls", "-A", str(package.parent)]).stdout
        assert "Read-only" in sandbox.run(["touch", str(package / "made")]).stderr


@pytest.mark.bubblewrap
@pytest.mark.parametrize("code", [255, 200, 152])
def test_an_exit_code_that_no_signal_gives_is_an_exit_code(bubblewrap: Bubblewrap, code: int) -> None:
    result = bubblewrap.run(["sh", "-c", f"exit {code}"])
    if code == 152:  # bubblewrap tells no difference to SIGXCPU's, but the time was not used up
        assert (result.status, result.exit_code) == (Status.KILLED, 152)
    else:
        assert (result.status, result.exit_code) == (Status.EXITED, code)


@pytest.mark.bubblewrap
def test_a_wait_that_is_interrupted_leaves_nothing_behind(bubblewrap: Bubblewrap) -> None:
    bubblewrap.run(["true"])
    settle()
    before = len(os.listdir("/proc/self/fd"))
    armed, interrupted = False, 0

    def interrupt(*_: object) -> None:
        nonlocal armed, interrupted
        if armed:
            armed, interrupted = False, interrupted + 1
            raise KeyboardInterrupt

    kept = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for number in range(40):
            after_s = 0.0003 + 0.0004 * number
            timer = threading.Timer(after_s, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
            armed = True
            try:
                timer.start()
                bubblewrap.run(["true"])
                armed = False
            except KeyboardInterrupt:
                pass
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, kept)
    assert interrupted
    assert bubblewrap.run(["true"]).ok
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_closing_descriptors_goes_on_where_it_is_interrupted() -> None:
    class Interrupting(int):
        armed = False

        def __hash__(self) -> int:
            armed, Interrupting.armed = Interrupting.armed, False
            if armed:
                raise KeyboardInterrupt
            return super().__hash__()

    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    with pytest.raises(KeyboardInterrupt), Descriptors() as owned:
        for number, fd in enumerate(fds):
            owned.own(Interrupting(fd) if number == 2 else fd)
        Interrupting.armed = True
        owned.close(*owned._open)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"argv": (word for word in ["true"])}, "must be a list of texts"),
        ({"files": {1: "a"}}, "must be contents by path"),
        ({"files": ["a"]}, "must be contents by path"),
        ({"stdin": 5}, "must be text or bytes, not int"),
        ({"limits": {"wall_s": 5}}, "must be Limits"),
    ],
)
def test_what_no_program_can_be_given_is_told_in_one_sentence(given: dict[str, object], says: str) -> None:
    with open_sandbox("plain") as sandbox, pytest.raises(SandboxError, match=says):
        sandbox.run(**{"argv": ["true"], **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        (["bubblewrap"], {}, "must be a name"),
        ("bubblewrap", {"read_only": "/etc"}, "must be a list of folders"),
        ("bubblewrap", {"read_only": 5}, "must be a list of folders"),
        ("bubblewrap", {"read_only": [5]}, "must be a list of folders"),
        ("docker", {"cpus": 0}, "must be a number of processors"),
        ("docker", {"cpus": "x"}, "must be a number of processors"),
        ("docker", {"pool": -1}, "must be 0 or more"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_sentence(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(SandboxError, match=says):
        open_sandbox(name, **options)

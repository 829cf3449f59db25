"""What a program in a sandbox gets, how its end is told, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ludus.sandbox import Cancellation, Limits, Result, Sandbox, SandboxError, Status, open_sandbox
from ludus.sandbox.bubblewrap import Bubblewrap

MIB = 2**20


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return request.getfixturevalue("bubblewrap") if request.param == "bubblewrap" else open_sandbox("plain")


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
        result = process.finish()
    assert (result.status, result.exit_code, result.stdout) == (Status.EXITED, 5, "cba\n\nén\n")


def test_a_program_that_takes_or_says_nothing_holds_nobody_up(sandbox: Sandbox) -> None:
    with sandbox.start(["sleep", "60"], limits=Limits(wall_s=0.5)) as process:
        assert process.receive_line(0.01) is None
        assert not process.send_line(b"x" * 10 * MIB)  # until its time is over
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
    sandbox = open_sandbox(name)
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(sandbox.run(["sleep", "60"], limits=Limits(wall_s=50))))
    thread.start()
    time.sleep(0.3)
    sandbox.close()
    sandbox.close()
    thread.join(30)
    assert results[0].status is Status.FAILED and "closed" in results[0].reason
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run(["true"])


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


def processes(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def gone(found: Callable[[], object], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while found() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not found()


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
        deadline = time.monotonic() + 60
        while len(processes(mark)) < 4 and time.monotonic() < deadline:  # bubblewrap, its head, program and child
            time.sleep(0.05)
        assert len(processes(mark)) >= 4
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(lambda: processes(mark), within_s=2 if without else 20) is not bool(without)
    for left in processes(mark):
        os.kill(int(left), signal.SIGKILL)
    assert gone(lambda: processes(mark))


@pytest.mark.parametrize("moment", ["_find_head", "confine", "release"])
def test_a_parent_killed_while_it_starts_a_program_leaves_none_running(bubblewrap: Bubblewrap, moment: str) -> None:
    mark = f"ludus-early-{os.getpid()}-{moment}"
    program = f"""
import os, signal
from ludus.sandbox import namespace
from ludus.sandbox.bubblewrap import Bubblewrap
sandbox = Bubblewrap()
setattr(namespace.Namespace, {moment!r}, lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL))
sandbox.run(["sleep", "500", {mark!r}])
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    gone(lambda: processes(mark), within_s=1)
    assert not [pid for pid in processes(mark) if os.readlink(f"/proc/{pid}/exe").endswith("sleep")]
    Bubblewrap().close()  # reaps a bubblewrap that never got so far
    assert gone(lambda: processes(mark))


def test_three_hundred_runs_leave_no_process_descriptor_or_cgroup(bubblewrap: Bubblewrap) -> None:
    def standing() -> tuple[int, int, int]:
        cgroups = sum(1 for _ in Path("/sys/fs/cgroup").rglob(f"ludus-{os.getpid()}-*"))
        return len(os.listdir("/proc/self/fd")), cgroups, len(Path("/proc/self/mountinfo").read_text().splitlines())

    mark = f"ludus-many-{os.getpid()}"
    bubblewrap.run(["true"])
    before = standing()
    for number in range(300):
        if number % 3 == 0:
            bubblewrap.run(["sh", "-c", "sleep 60 & sleep 60", mark], limits=Limits(wall_s=0.01))
        else:
            bubblewrap.run(["sh", "-c", "sleep 60 &", mark])
    assert standing() == before
    assert gone(lambda: processes(mark))


# --- what cannot be asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "word"),
    [
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


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", ".", "a\0b"])
def test_a_file_outside_the_folder_is_refused(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(SandboxError, match="must be a path inside"):
        sandbox.run(["true"], files={path: "x"})


@pytest.mark.parametrize("argv", ["echo hi", [], ["echo", 5], ["echo", "a\0b"]])
def test_arguments_that_are_none_are_refused(sandbox: Sandbox, argv: object) -> None:
    with pytest.raises(SandboxError, match="argv"):
        sandbox.run(argv)  # type: ignore[arg-type]


def test_files_larger_than_the_disk_are_refused(bubblewrap: Bubblewrap) -> None:
    with pytest.raises(SandboxError, match="disk_bytes"):
        bubblewrap.run(["true"], files={"big": b"x" * 2 * MIB}, limits=Limits(disk_bytes=MIB))


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
    with pytest.raises(SandboxError, match="No sandbox can be opened here"):
        open_sandbox("auto")

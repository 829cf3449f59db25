"""DaemonThreads: calls run at once, threads are used again, and one that hangs is in nobody's way."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from test_sandbox import gone

from ludus.agents.daemon_threads import DaemonThreads


@pytest.fixture
def threads() -> Iterator[DaemonThreads]:
    found = DaemonThreads("test-daemons")
    yield found
    found.close()
    assert gone(alive)


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test-daemons"]


def test_results_and_errors_come_back(threads: DaemonThreads) -> None:
    assert threads.submit(lambda: 6 * 7).result(10) == 42
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 // 0).result(10)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit).result(10)


def test_one_after_the_other_needs_one_thread_and_many_at_once_as_many(threads: DaemonThreads) -> None:
    assert len({threads.submit(threading.get_ident).result(10) for _ in range(20)}) == 1
    together = threading.Barrier(8)
    for future in [threads.submit(together.wait) for _ in range(8)]:
        future.result(10)
    assert len(alive()) == 8


def test_one_that_hangs_takes_no_place_and_ends_after_closing(threads: DaemonThreads) -> None:
    free = threading.Event()
    hanging = threads.submit(free.wait)
    assert threads.submit(lambda: "on").result(10) == "on"
    threads.close()
    free.set()
    assert hanging.result(10) is True


def test_a_hanging_call_lets_the_process_end() -> None:
    program = (
        "import threading\nfrom ludus.agents.daemon_threads import DaemonThreads\n"
        "DaemonThreads('d').submit(threading.Event().wait)\nprint('end')"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).stdout == b"end\n"

"""Process: a program in a sandbox that is talked to while it runs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .descriptors import write_all
from .job import Running
from .result import Result
from .supervise import Cancellation


class Process:
    """Lines go in and come out, until the program ends or its limits are reached.

    execute: runs the program to its end and returns its result; what it raises before the program runs is raised here,
    too. One thread at a time may send and receive.
    """

    def __init__(self, execute: Callable[[Cancellation, Callable[[Running], None]], Result]) -> None:
        self._cancellation = Cancellation()
        self._running: Running | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(execute,), daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self.finish()

    def send_line(self, line: bytes, timeout_s: float | None = None) -> bool:
        """Send a line, to which its end is added; whether the program was still there to take it, within a time if
        there is one."""
        return self._running is not None and self._running.input.write(line + b"\n", timeout_s)

    def receive_line(self, timeout_s: float) -> bytes | None:
        """The next line of its output; None where none has come in time, or none will come."""
        return None if self._running is None else self._running.output.read_line(timeout_s)

    def end_input(self) -> None:
        """No line will be sent any more; more than once is once."""
        if self._running is not None:
            self._running.input.close()

    def oom_kills(self) -> int:
        """How many of its processes the kernel has ended for want of memory, as far as that is known."""
        return 0 if self._running is None else self._running.oom_kills()

    def finish(self) -> Result:
        """End its input, and wait until it has ended, at the latest when its time is over; the result has the output
        that was not read."""
        self.end_input()
        self._thread.join()
        self._cancellation.close()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def wait(self, timeout_s: float) -> bool:
        """Whether it ends within a time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it; more than once is once."""
        self._cancellation.cancel()
        with contextlib.suppress(Exception):
            self.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, execute: Callable[[Cancellation, Callable[[Running], None]], Result]) -> None:
        try:
            self._result = execute(self._cancellation, self._begin)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def _begin(self, running: Running) -> None:
        self._running = running
        self._ready.set()


class PipeInput:
    """A pipe to a program's standard input. fd: its end to write to, which is closed here."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd: int | None = fd
        self._lock = threading.Lock()

    def write(self, data: bytes, timeout_s: float | None = None) -> bool:
        """See `Input.write`."""
        with self._lock:
            return self._fd is not None and write_all(self._fd, data, timeout_s)

    def close(self) -> None:
        """See `Input.close`."""
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                os.close(fd)

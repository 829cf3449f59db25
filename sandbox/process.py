"""Process: a program in a sandbox that is talked to while it runs."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .output import Output
from .result import Result
from .supervise import Cancellation

Started = Callable[[int, Output], None]
"""Called once the program runs, with a descriptor to write its input to, which is the callee's now, and its output."""


class Process:
    """Lines go in and come out, until the program ends or its limits are reached.

    execute: runs the program to its end and returns its result. One thread at a time may send and receive.
    """

    def __init__(self, execute: Callable[[Cancellation, Started], Result]) -> None:
        self._cancellation = Cancellation()
        self._stdin: int | None = None
        self._stdout: Output | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(execute,), daemon=True)
        self._thread.start()
        self._ready.wait()

    def send_line(self, line: bytes) -> bool:
        """Send a line, to which its end is added; whether the program was still there to take it."""
        if self._stdin is None:
            return False
        data = line + b"\n"
        try:
            while data:
                data = data[os.write(self._stdin, data) :]
        except OSError:
            return False
        return True

    def receive_line(self, timeout_s: float) -> bytes | None:
        """The next line of its output; None where none has come in time, or none will come."""
        return None if self._stdout is None else self._stdout.read_line(timeout_s)

    def finish(self) -> Result:
        """End its input, and wait until it has ended, at the latest when its time is over."""
        self._close_input()
        self._thread.join()
        self._cancellation.close()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

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

    def _work(self, execute: Callable[[Cancellation, Started], Result]) -> None:
        try:
            self._result = execute(self._cancellation, self._begin)
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def _begin(self, stdin: int, stdout: Output) -> None:
        self._stdin, self._stdout = stdin, stdout
        self._ready.set()

    def _close_input(self) -> None:
        if self._stdin is not None:
            with contextlib.suppress(OSError):
                os.close(self._stdin)
            self._stdin = None

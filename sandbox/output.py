"""Output: what a program writes, kept while it runs."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time

_CHUNK_BYTES = 1 << 16


class Output:
    """What comes from one descriptor, up to a limit; one byte more is kept, as a sign, and the rest is thrown away.

    One thread drains it, another may read lines from it meanwhile; a line that was read is no longer kept.
    """

    def __init__(self, fd: int, limit_bytes: int) -> None:
        self.fd = fd
        self.limit_bytes = limit_bytes
        self._kept = bytearray()
        self._searched = 0
        self._ended = False
        self._changed = threading.Condition()
        os.set_blocking(fd, False)

    @property
    def too_much(self) -> bool:
        """Whether more is there than the limit."""
        return len(self._kept) > self.limit_bytes

    def drain(self) -> bool:
        """Keep what is there now; whether more may come."""
        try:
            chunk = os.read(self.fd, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            chunk = b""
        with self._changed:
            self._kept += chunk[: max(self.limit_bytes + 1 - len(self._kept), 0)]
            self._ended |= not chunk
            self._changed.notify_all()
        return bool(chunk)

    def finish(self) -> None:
        """Keep what is still in the pipe; nothing comes after that."""
        with selectors.DefaultSelector() as selector, contextlib.suppress(ValueError, OSError):
            selector.register(self.fd, selectors.EVENT_READ)
            while not self.too_much and selector.select(0) and self.drain():
                pass
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def read_line(self, timeout_s: float) -> bytes | None:
        """The next line, without its end; None where none has come in time, and none will come after the last."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (end := self._kept.find(b"\n", self._searched)) == -1:
                self._searched = len(self._kept)
                if self._ended or not self._changed.wait(max(deadline - time.monotonic(), 0)):
                    return None
            line = bytes(self._kept[:end])
            del self._kept[: end + 1]
            self._searched = 0
            return line

    def text(self) -> str:
        """All of it as text; bytes that are no UTF-8 as \\xff, and a mark where it was cut."""
        text = bytes(self._kept[: self.limit_bytes]).decode("utf-8", errors="backslashreplace")
        return f"{text}\n[cut: more than {self.limit_bytes} bytes of output]\n" if self.too_much else text

"""Nobody waits in silence: after some seconds a line says what for, and since when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

SAY_AFTER_S = 5.0
"""Seconds of waiting after which a line says what for, and again after twice as many."""
POLL_S = 0.5


class Waiting:
    """Since when somebody waits, and when to say so again."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._clock = datetime.now()
        self._say_at = SAY_AFTER_S

    def line(self, what: Callable[[], str]) -> str | None:
        """What to say now, if anything."""
        waited = time.monotonic() - self._since
        if waited < self._say_at:
            return None
        self._say_at = 2 * waited
        return f"Waiting since {self._clock:%H:%M:%S} ({waited:.0f} s) for {what()}."


@contextmanager
def told(note: Callable[[str], None], what: str) -> Iterator[None]:
    """For a call that does not come back for a while: say what it is, from another thread, until it does."""
    waiting, ended = Waiting(), threading.Event()

    def tell() -> None:
        while not ended.wait(POLL_S):
            line = waiting.line(lambda: what)
            if line is not None:
                note(line)

    thread = threading.Thread(target=tell, name="ludus-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

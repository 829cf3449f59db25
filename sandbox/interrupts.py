"""Ctrl-C that waits for what must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupted_afterwards(insist: int = 3) -> Iterator[None]:
    """Ctrl-C within takes effect at the end, or at once where it is pressed for the `insist`th time.

    Only the main thread hears of Ctrl-C; in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = 0

    def note(number: int, frame: object) -> None:
        nonlocal came
        came += 1
        if came >= insist:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt

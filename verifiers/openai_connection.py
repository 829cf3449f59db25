"""Connection: a client of the official openai SDK and the event loop that it lives on.

Invariant: a call returns when its time is over, or at most GRACE_S later. A time-out per read is no help against a
server that sends a byte now and then; a request on an event loop can be cancelled wherever it waits.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from .completer import Completion, CompletionError
from .errors import VerifierError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

GRACE_S = 2.0
"""How long a cancelled call may take to end."""
NO_KEY = "none"
"""The SDK insists on a key; servers that need none do not look at it."""


class Connection:
    """A client of the SDK and a thread with the event loop that it lives on, started at the first call."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._settings = (base_url, api_key)
        self._lock = threading.Lock()
        self._running: tuple[int, asyncio.AbstractEventLoop, AsyncOpenAI, Callable[[], object]] | None = None

    def __reduce__(self) -> tuple[type[Connection], tuple[str, str]]:
        return type(self), self._settings

    def run(self, make: Callable[[AsyncOpenAI], Coroutine[Any, Any, Completion]], timeout_s: float) -> Completion:
        """Run the coroutine that `make` makes of the client, from a thread that may wait."""
        with self._lock:
            loop, client = self._start()
            future = asyncio.run_coroutine_threadsafe(make(client), loop)
        try:
            return future.result(timeout_s + GRACE_S)
        except TimeoutError:
            raise CompletionError(f"The endpoint {self._settings[0]} gave no answer in {timeout_s:.3g} s.") from None
        except CancelledError:
            raise CompletionError(f"The completer of {self._settings[0]} was closed while it was asked.") from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel what is under way and end the connections. A later call opens new ones."""
        with self._lock:
            if self._running is not None:
                self._running[3]()
            self._running = None

    def _start(self) -> tuple[asyncio.AbstractEventLoop, AsyncOpenAI]:
        """The lock is held."""
        process = os.getpid()
        # A process forked from this one has the object and not the thread.
        if self._running is None or self._running[0] != process:
            base_url, api_key = self._settings
            loop = asyncio.new_event_loop()
            client = open_client(base_url, api_key)
            threading.Thread(target=_serve, args=(loop,), name="ludus-completer", daemon=True).start()
            self._running = (process, loop, client, weakref.finalize(self, _stop, process, loop, client))
        return self._running[1], self._running[2]


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _stop(process: int, loop: asyncio.AbstractEventLoop, client: AsyncOpenAI) -> None:
    """Cancel what is under way, end the connections, then the loop and its thread. Returns at once."""

    async def shut() -> None:
        try:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await client.close()
        finally:
            loop.stop()

    if process == os.getpid():
        asyncio.run_coroutine_threadsafe(shut(), loop)


def open_client(base_url: str, api_key: str) -> AsyncOpenAI:
    """A client for the event loop that runs it. It tries nothing again by itself, and sends the key there alone."""
    client: AsyncOpenAI = load_sdk().AsyncOpenAI(base_url=base_url, api_key=api_key or NO_KEY, max_retries=0)
    return client


def load_sdk() -> Any:
    """The official SDK, or a sentence that says how to install it."""
    try:
        import openai
    except ImportError:
        raise VerifierError(
            "A model behind an endpoint needs the openai package; install it with: pip install 'ludus[judge]'"
        ) from None
    return openai

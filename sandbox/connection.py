"""Connection: calls to a sandbox server, each over a connection of its own.

Invariant: a call is sent at most once; only where the server could not be reached is it tried again.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .errors import SandboxError
from .result import Status
from .supervise import Cancellation
from .wire import MOST_BODY, checked_token

if TYPE_CHECKING:
    from http.client import HTTPConnection

ANSWER_S = 60.0
"""How long an answer may take beyond what the call itself waits for."""
CANCELLED_S = 30.0
"""How long a program may take to end that was cancelled."""
_CONNECT_S = 10.0
_AGAIN_S = (0.1, 0.3, 0.6)
_LOOK_S = 0.2


class Unreachable(SandboxError):
    """The server could not be reached, and so has done nothing."""


class Broken(SandboxError):
    """The call was sent, and no answer came that could be read; it may have been done."""


class Refused(SandboxError):
    """The server has answered that it does not do it. over: whether the session that was asked for has ended; ended:
    how, where that is known."""

    def __init__(self, text: str, *, over: bool = False, ended: Status | None = None) -> None:
        super().__init__(text)
        self.over, self.ended = over, ended


class Connection:
    """Where a sandbox server is, and how to ask it; any thread may. SandboxError where url or token can be none."""

    def __init__(self, url: str, token: str | None) -> None:
        if not isinstance(url, str):
            raise SandboxError(f"url = {url!r:.100} must be a text, such as 'http://host:8675'.")
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host = ""
        if not self._host or parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable():
            raise SandboxError(f"{url!r:.200} is no address of a sandbox server; it must be as http://host:8675.")
        self.url, self._scheme, self._above = url, parts.scheme, parts.path.rstrip("/")
        self._head = {"Authorization": f"Bearer {checked_token(token)}", "Content-Type": "application/json"}

    def get(self, path: str) -> dict[str, Any]:
        """What stands at a path. Raises as `call` does."""
        return self._ask("GET", path, None, ANSWER_S, (), lambda: None)

    def call(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        waits_s: float = 0.0,
        interrupts: Sequence[Cancellation] = (),
        interrupt: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """The answer to a call. waits_s: how long the call itself waits. interrupt: called from time to time once one
        of the interrupts has come, until the answer is there. Raises Unreachable, Broken or Refused, and SandboxError
        where the body is too large.
        """
        data = json.dumps(body or {}).encode("ascii")
        if len(data) > MOST_BODY:
            raise SandboxError(f"{len(data)} bytes are too many for a sandbox server, which takes {MOST_BODY} at once.")
        return self._ask("POST", path, data, waits_s + ANSWER_S, interrupts, interrupt)

    def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None,
        timeout_s: float,
        interrupts: Sequence[Cancellation],
        interrupt: Callable[[], object],
    ) -> dict[str, Any]:
        from http.client import HTTPException

        connection = self._connected()
        try:
            # What is refused early has its answer, though not all was sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, self._above + path, data, self._head)
            assert connection.sock is not None
            _wait(connection.sock, timeout_s, interrupts, interrupt)
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, HTTPException) as error:
            why = str(error) or type(error).__name__
            raise Broken(f"The sandbox server at {self.url} is gone ({why}); see whether it still runs.") from error
        finally:
            connection.close()
        try:
            answer = json.loads(text)
            if status == 200:
                return dict(answer)
            sentence, over = str(answer["error"]), answer.get("over") is True
            ended = None if answer.get("ended") is None else Status(answer["ended"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Broken(
                f"What answers at {self.url} (HTTP {status}) is no sandbox server; put the address right."
            ) from None
        if status >= 500:
            raise Broken(sentence)
        raise Refused(sentence, over=over, ended=ended)

    def _connected(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        kind = HTTPSConnection if self._scheme == "https" else HTTPConnection
        for pause_s in (*_AGAIN_S, None):
            connection = kind(self._host, self._port, timeout=_CONNECT_S)
            try:
                connection.connect()
                assert connection.sock is not None
                connection.sock.settimeout(ANSWER_S)
                return connection
            except OSError as error:
                connection.close()
                if pause_s is None or not isinstance(error, ConnectionRefusedError):
                    raise Unreachable(
                        f"No sandbox server answers at {self.url} ({error}); start one with `ludus sandbox-server`, or "
                        "set LUDUS_SANDBOX_URL to where one is."
                    ) from error
                time.sleep(pause_s)
        raise AssertionError


def _wait(
    sock: socket.socket, timeout_s: float, interrupts: Sequence[Cancellation], interrupt: Callable[[], object]
) -> None:
    """Until an answer begins. TimeoutError where none does."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    for one in interrupts:
        poll.register(one.fileno(), select.POLLIN)
    deadline, interrupted = time.monotonic() + timeout_s, False
    while True:
        left_s = deadline - time.monotonic()
        ready = [fd for fd, _ in poll.poll(1000 * max(min(left_s, _LOOK_S) if interrupted else left_s, 0))]
        if sock.fileno() in ready:
            return
        if left_s <= 0:
            raise TimeoutError(f"no answer for {timeout_s:g} s")
        if ready:
            interrupted, deadline = True, min(deadline, time.monotonic() + CANCELLED_S)
            for one in interrupts:
                poll.unregister(one.fileno())
        if interrupted:
            interrupt()

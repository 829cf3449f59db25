"""SandboxServer: a sandbox for other machines, over HTTP; `wire` has the calls.

Invariant: nothing is read of a request, but its head, before its token was found right; who has not shown one holds a
bounded number of connections for a bounded time; and whatever a request holds, it is answered, and the server goes on.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import re
import select
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from .backend import Sandbox
from .errors import SandboxError
from .limits import LONGEST_S, MIB, Limits
from .served import Refusal, Served
from .wire import MOST_BODY, checked_token

MOST = Limits(
    wall_s=LONGEST_S,
    cpu_s=3_600.0,
    memory_bytes=8_192 * MIB,
    disk_bytes=2_048 * MIB,
    file_bytes=2_048 * MIB,
    output_bytes=16 * MIB,
    processes=1_024,
    open_files=4_096,
)
"""The most that `ludus sandbox-server` allows where nothing else is said. The time by the clock has hardly a bound, for
an interpreter lives as long as its session; what nobody waits for is ended sooner."""
_SILENT_S = 30.0
"""How long a client may take over a part of its request."""
_HEAD_S = 10.0
"""How long a client may take until its token was seen."""
_STRANGERS = 128
"""Connections at one time whose token was not seen; for a newer one the oldest is closed."""
_SOON_S = 0.5
"""How long each of them has nonetheless, so that many clients at once are no trouble."""
_AGAIN_S = 0.1
"""After which a connection is accepted where there was no descriptor left for it."""
_LINGER_S = 2.0
_CLOSE_S = 5.0
_CALL = re.compile(r"/(programs|sessions)(?:/([0-9a-f]{1,64})/([a-z_]+))?")


def serve_sandbox(
    sandbox: Sandbox,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None,
    limits: Limits = MOST,
    idle_s: float = 600.0,
    most_sessions: int = 64,
) -> SandboxServer:
    """Let other machines run programs in a sandbox, which stays the caller's to close.

    host, port: where the server listens; port 0 takes a free one. token: what clients must show; it travels as it is,
    so what is no trusted network needs TLS in front. limits: the most that a program may ask for; more is refused.
    idle_s: after which a session that nobody uses is closed. most_sessions: that are open at one time. Raises
    SandboxError, with what to do, where it cannot listen.
    """
    if not idle_s > 0 or most_sessions < 1:
        raise SandboxError(f"idle_s = {idle_s} and most_sessions = {most_sessions} must be above 0.")
    return SandboxServer(host, port, checked_token(token), Served(sandbox, limits, idle_s, most_sessions))


class SandboxServer:
    """A server that runs, in threads of its own, until it is closed. url: for `open_sandbox("remote", url=…)`."""

    def __init__(self, host: str, port: int, token: str, served: Served) -> None:
        self._served = served
        try:
            self._http = _Http(host, port, token, served)
        except (OSError, OverflowError) as error:
            served.close()
            raise SandboxError(_why_not(host, port, error)) from None
        name = socket.gethostname() if host in ("", "0.0.0.0", "::") else host
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="ludus-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all programs and sessions, and answer nobody any more; more than once is once."""
        self._served.close()
        self._http.wait_until_answered(_CLOSE_S)
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Until it is closed."""
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, token: str, served: Served) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.token, self.served = token.encode("ascii"), served
        self._changed = threading.Condition()
        self._requests = 0
        self._strangers: dict[Any, float] = {}  # since when, in time.monotonic(); the oldest first
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without asking for the name of the address, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def get_request(self) -> tuple[Any, Any]:
        """A new connection. One that cannot be taken stays, so that the next try would come at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_AGAIN_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; who connected long ago and has not said who he is makes room."""
        with self._changed:
            if len(self._strangers) >= _STRANGERS:
                oldest_s = time.monotonic() - next(iter(self._strangers.values()))
                if not self._changed.wait_for(lambda: len(self._strangers) < _STRANGERS, max(_SOON_S - oldest_s, 0)):
                    self._hang_up(next(iter(self._strangers)))
            self._strangers[request] = time.monotonic()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.know(request)
            raise

    def service_actions(self) -> None:
        """Hang up on those who take too long; called several times a second."""
        until = time.monotonic() - _HEAD_S
        with self._changed:
            for request in [request for request, since in self._strangers.items() if since < until]:
                self._hang_up(request)

    def know(self, request: Any) -> None:
        """Whoever is connected there has shown the token, or is gone."""
        with self._changed:
            self._strangers.pop(request, None)
            self._changed.notify_all()

    def _hang_up(self, request: Any) -> None:
        """The thread that reads from it then finds its end."""
        del self._strangers[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Count what is under way."""
        with self._changed:
            self._requests += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.know(request)
            with self._changed:
                self._requests -= 1
                self._changed.notify_all()

    def wait_until_answered(self, timeout_s: float) -> None:
        """Until no request is under way, or a time is over."""
        with self._changed:
            self._changed.wait_for(lambda: not self._requests, timeout_s)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error."""
        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f"sandbox server: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    server_version = "ludus"
    timeout = _SILENT_S
    disable_nagle_algorithm = True
    unread = True

    def do_GET(self) -> None:
        """Tell how the server stands."""
        self._answer(lambda: self._get())

    def do_POST(self) -> None:
        """Do what is asked for."""
        self._answer(lambda: self._post())

    def _answer(self, work: Callable[[], dict[str, Any]]) -> None:
        self.close_connection = True
        try:
            self._check_token()
            status, answer = 200, work()
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal), "over": refusal.over, "ended": refusal.ended}
        except SandboxError as error:
            status, answer = 422, {"error": str(error)}
        except OSError as error:
            if self._gone():
                return
            status, answer = 500, {"error": f"The sandbox server failed: {error}"}
        except Exception as error:
            status, answer = 500, {"error": f"The sandbox server failed: {type(error).__name__}: {error}"}
        self._say(status, answer)

    def _check_token(self) -> None:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.server.token)
        if kind.lower() != "bearer" or not right:
            raise Refusal(401, "The token is not that of the sandbox server; set LUDUS_SANDBOX_TOKEN to the same.")
        self.server.know(self.connection)

    def _get(self) -> dict[str, Any]:
        if self.path != "/status":
            raise Refusal(404, "There is only GET /status; the calls are POST.")
        return self.server.served.status()

    def _post(self) -> dict[str, Any]:
        match, served = _CALL.fullmatch(self.path), self.server.served
        if match is None:
            raise Refusal(404, f"There is no call {self.path[:100]!r}.")
        what, number, call = match.groups()
        body = self._body()
        if number is None:
            return served.start(body, self._gone) if what == "programs" else served.open_session(body, self._gone)
        calls: dict[tuple[str, str], Callable[[], dict[str, Any]]] = {
            ("programs", "wait"): lambda: served.wait(number, self._gone),
            ("programs", "send"): lambda: served.send(number, body),
            ("programs", "receive"): lambda: served.receive(number, body),
            ("programs", "end_input"): lambda: served.end_input(number),
            ("programs", "cancel"): lambda: served.cancel(number),
            ("sessions", "write"): lambda: served.write(number, body),
            ("sessions", "read"): lambda: served.read(number, body),
            ("sessions", "list"): lambda: served.list(number),
            ("sessions", "close"): lambda: served.close_session(number),
        }
        if (what, call) not in calls:
            raise Refusal(404, f"There is no call {self.path[:100]!r}.")
        return calls[what, call]()

    def _body(self) -> dict[str, Any]:
        told = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,15}", told):
            raise Refusal(411, "A request needs a body, and a Content-Length.")
        if int(told) > MOST_BODY:
            raise Refusal(413, f"A request of {told} bytes is above {MOST_BODY}; send less at once.")
        try:
            data = self.rfile.read(int(told))
        except TimeoutError:
            raise Refusal(408, f"Nothing more of the request came for {_SILENT_S:g} s.") from None
        if len(data) < int(told):
            raise Refusal(400, "The request ended within its body.")
        self.unread = False
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            raise Refusal(400, "The body is no JSON.") from None
        if not isinstance(body, dict):
            raise Refusal(400, "The body must be a JSON object.")
        return body

    def _gone(self) -> bool:
        """Whether the client has closed the connection."""
        try:
            poll = select.poll()
            poll.register(self.connection, select.POLLIN)
            return bool(poll.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _say(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode("ascii")
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        )
        self.connection.settimeout(_SILENT_S)
        self.connection.sendall(head.encode("ascii") + data)
        if self.unread:
            self._linger()

    def _linger(self) -> None:
        """Read what still comes, for a while; to close with something unread would take the answer back."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_S)
            deadline = time.monotonic() + _LINGER_S
            while time.monotonic() < deadline and self.connection.recv(1 << 16):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses; a method that there is not is the client's fault, as all of it."""
        self.close_connection = True
        status = code if 400 <= code < 500 else 405 if code == 501 else 400
        with contextlib.suppress(OSError):
            self._say(status, {"error": f"This is no request to a sandbox server: {message or code}."})

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def _why_not(host: str, port: int, error: Exception) -> str:
    """Why a server cannot listen, with what to do."""
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"The port {port} is in use; choose another with --port, 0 for any that is free."
    if number == errno.EACCES:
        return f"The port {port} needs more rights; choose one above 1023 with --port."
    return f"The sandbox server cannot listen at {host!r} ({error}); choose an address of this machine with --host."

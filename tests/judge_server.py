"""A server that answers, as a judge or as a policy, by a script."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler", dict], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ScriptedServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            behave = self.server.script[min(len(self.server.requests), len(self.server.script) - 1)]
            self.server.requests.append(request)
            self.server.times.append(time.monotonic())
            self.server.keys.append(self.headers.get("Authorization"))
        with contextlib.suppress(ConnectionError):
            behave(self, request)

    def send(self, status: int, body: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    """Answers request n with behaviour n, and with the last one from there on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, script: list[Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.lock = threading.Lock()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is part of the tests."""


def says(text: str, finish_reason: str = "stop") -> Behaviour:
    return replies({"content": text}, finish_reason)


def replies(
    message: dict[str, Any], finish_reason: str = "stop", usage: tuple[int, int] | None = (100, 10), **choice: Any
) -> Behaviour:
    """A chat completion. usage: tokens of prompt and answer, None where the server does not count."""

    def behave(handler: Handler, request: dict) -> None:
        said = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason, **choice}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "judge-1-2026", "choices": [said]}
        if usage is not None:
            counts = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
            whole["usage"] = {**counts, "total_tokens": sum(usage)}
        handler.send(200, json.dumps(whole))

    return behave


def check_of(request: dict) -> str:
    """What an honest judge puts under "check"."""
    return request["messages"][-1]["content"].rpartition('"check": the text ')[2][:12]


def finds(answer: str | float, **changes: Any) -> Behaviour:
    """An honest judge; `answer` is its verdict or score."""

    def behave(handler: Handler, request: dict) -> None:
        said = {"verdict": answer} if isinstance(answer, str) else {"score": answer}
        row = {"reasoning": f"I compared them: {answer}.", **said, "check": check_of(request), **changes}
        says(json.dumps(row))(handler, request)

    return behave


def fails(status: int, message: str = "no", **headers: str) -> Behaviour:
    def behave(handler: Handler, request: dict) -> None:
        handler.send(status, json.dumps({"error": {"message": message}}), **headers)

    return behave


def hangs(handler: Handler, request: dict) -> None:
    handler.server.release.wait(20)


def drips(handler: Handler, request: dict) -> None:
    """Sends a byte now and then, so that no read ever takes long."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not handler.server.release.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def hangs_up(handler: Handler, request: dict) -> None:
    handler.close_connection = True
    handler.connection.close()


def sends(body: str) -> Behaviour:
    return lambda handler, request: handler.send(200, body)


def takes_only(*formats: str | None) -> Behaviour:
    """An honest judge that refuses the other values of response_format."""

    def behave(handler: Handler, request: dict) -> None:
        asked = request.get("response_format", {}).get("type")
        (finds("correct") if asked in formats else fails(400, f"response_format {asked} is unknown"))(handler, request)

    return behave

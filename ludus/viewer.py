"""Serve a run's report on this machine only, made anew at each visit so that a run in progress can be watched."""

from __future__ import annotations

import errno
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .report import write_report
from .sandbox.errors import LudusError


class ViewerError(LudusError):
    """The report cannot be served."""


class _ReportServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, run: Path, port: int) -> None:
        self.run = run
        super().__init__(("127.0.0.1", port), _ReportHandler)


class _ReportHandler(BaseHTTPRequestHandler):
    server: _ReportServer

    def do_GET(self) -> None:
        """Answer / with the report, and nothing else."""
        if self.path.partition("?")[0] not in ("/", "/report.html"):
            self.send_error(404)
            return
        try:
            page, status = write_report(self.server.run).read_bytes(), 200
        except LudusError as error:
            page, status = str(error).encode(), 500
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if status == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each visit."""


def report_server(run: Path, port: int) -> ThreadingHTTPServer:
    """A server on loopback that answers / with the report of a run; port 0 takes a free one."""
    write_report(run)
    try:
        return _ReportServer(run, port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is in use" if error.errno == errno.EADDRINUSE else "needs more rights"
            raise ViewerError(f"port {port} {why}; choose another with --port, 0 for any that is free.") from None
        raise

"""Serve the report of a run, or of a chain and its stages, on this machine only.

It is made anew at each visit, so that what is in progress can be watched.
"""

from __future__ import annotations

import errno
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .chain_folder import ChainFolder
from .chain_report import write_chain_report
from .report import write_report
from .run_folder import CHAIN, STAGES
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
        """Answer / with the report, of a chain each stage's place with its own, and nothing else."""
        try:
            place = _places(self.server.run).get(self.path.partition("?")[0])
            if place is None:
                self.send_error(404)
                return
            page, status = write_any_report(place).read_bytes(), 200
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


def write_any_report(folder: Path) -> Path:
    """Write the report of a run, an evaluation or a chain into its folder; its path."""
    return write_chain_report(folder) if (folder / CHAIN).is_file() else write_report(folder)


def _places(folder: Path) -> dict[str, Path]:
    """What is served, by its path in an address."""
    places = {"/": folder, "/report.html": folder}
    if (folder / CHAIN).is_file():
        chain = ChainFolder(folder)
        places |= {f"/{STAGES}/{s.folder}/report.html": chain.stage(s) for s in chain.chain.stages}
    return places


def report_server(run: Path, port: int) -> ThreadingHTTPServer:
    """A server on loopback that answers / with the report of a run or a chain; port 0 takes a free one."""
    write_any_report(run)
    try:
        return _ReportServer(run, port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "is in use" if error.errno == errno.EADDRINUSE else "needs more rights"
            raise ViewerError(f"port {port} {why}; choose another with --port, 0 for any that is free.") from None
        raise

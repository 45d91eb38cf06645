"""`fastgrpo report --serve`: the page of runs that still go on, from this machine to its own browsers alone.

What would surprise: a web page of a stranger, open in the same browser, can send requests to localhost, also under a name of its own that
it lets point there. So only Host headers that say localhost are answered, only GET, and nothing but a few fixed paths exists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qsl, urlsplit

from fastgrpo.errors import InputError, SetupError
from fastgrpo.report.experiment import experiments_of
from fastgrpo.report.page import model_of, page_data, render, require_packages
from fastgrpo.report.paging import page
from fastgrpo.report.pieces import Pieces
from fastgrpo.report.subject import find_runs, is_held, read_run

ADDRESS = "127.0.0.1"
PORT = 8265
NAMES = ("localhost", "127.0.0.1")
QUIET_SECONDS = 30  # a connection that sends nothing is closed
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Shown:
    """The runs that are shown, read again only when a file of theirs has changed: pages ask often, and a run needs its cores."""

    def __init__(self, given: Sequence[str]):
        self.given, self.lock, self.seen, self.data = given, Lock(), None, {}

    def runs(self) -> list[Path]:
        return find_runs(self.given)

    def now(self) -> dict:
        with self.lock:
            seen = [mark(run) for run in self.runs()]
            if seen != self.seen:
                records = [read_run(run) for run in self.runs()]
                self.seen, self.data = seen, page_data(records, experiments_of(self.given), [], live=True)
            return self.data


def mark(run: Path) -> tuple:
    """Differs when a run has something new to show."""
    found = [run / "metrics.jsonl", run / "summary.json", run / "config.yaml", run / "logs" / "rank_0.log", run / "checkpoints"]
    stats = [path.stat() if path.exists() else None for path in found]
    return run, is_held(run / "lock"), *(stat and (stat.st_mtime_ns, stat.st_size) for stat in stats)


def make_server(given: Sequence[str], port: int) -> ThreadingHTTPServer:
    """Bound to localhost, not yet serving; port 0 takes any. Raises InputError for what is no run, SetupError for a port in use."""
    require_packages()
    shown = Shown(given)
    shown.runs()
    try:
        server = ThreadingHTTPServer((ADDRESS, port), partial(Handler, shown))
    except OSError as error:
        raise SetupError(f"port {port} of {ADDRESS} cannot be used ({error.strerror}); name another with --port, 0 takes any") from error
    server.daemon_threads = True
    return server


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    timeout = QUIET_SECONDS
    server_version, sys_version = "fastgrpo", ""

    def __init__(self, shown: Shown, *rest):
        self.shown = shown
        super().__init__(*rest)

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get_all("Host") not in [[f"{name}:{port}"] for name in NAMES]:
            self.answer(HTTPStatus.FORBIDDEN, f"this server answers to http://localhost:{port} alone")
            return
        parts = urlsplit(self.path)
        pages = {"/": self.whole, "/data.json": self.data, "/rollouts.json": self.rollouts}
        if parts.path not in pages:
            self.answer(HTTPStatus.NOT_FOUND, "there are /, /data.json and /rollouts.json")
            return
        try:
            kind, text = pages[parts.path](dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20)))
        except (InputError, ValueError) as error:
            self.answer(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:  # the run was moved away
            self.answer(HTTPStatus.GONE, f"the run cannot be read: {error.strerror}")
        else:
            self.answer(HTTPStatus.OK, text, kind)

    def whole(self, query: dict) -> tuple[str, str]:
        return "text/html", render(self.shown.now(), [])

    def data(self, query: dict) -> tuple[str, str]:
        return "application/json", json.dumps(self.shown.now(), allow_nan=False)

    def rollouts(self, query: dict) -> tuple[str, str]:
        runs, number = self.shown.runs(), query.get("run", "0")
        if number not in map(str, range(len(runs))):
            raise InputError(f"run={number!r}: there are 0 to {len(runs) - 1}")
        run = runs[int(number)]
        return "application/json", json.dumps(page(run, Pieces(run, model_of(read_run(run))), query), allow_nan=False)

    def answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code, message=None, explain=None) -> None:
        """For what is no GET, or no HTTP: in one line of text."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.answer(status, "only GET is answered" if status == HTTPStatus.METHOD_NOT_ALLOWED else status.phrase)

    def log_message(self, form: str, *arguments: object) -> None:
        """Silent: a page asks every few seconds."""

"""A reward server on this machine that does what a test tells it to, turn by turn."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers the n-th request with the n-th of `turns`, the last of them ever after; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, *turns):
        super().__init__(("127.0.0.1", 0), Handler)
        self.turns, self.seen, self.times = list(turns), [], []
        self.url = f"http://127.0.0.1:{self.server_port}/rewards"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Clients that leave in the middle are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((json.loads(body), dict(self.headers)))
        self.server.times.append(time.monotonic())
        turns = self.server.turns
        (turns.pop(0) if len(turns) > 1 else turns[0])(self)

    def answer(self, status=200, body=b"", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_): ...


def gives(*rewards):
    return lambda handler: handler.answer(body=json.dumps({"rewards": rewards}).encode())


def says(status, body=b"", **headers):
    return lambda handler: handler.answer(status, body, **headers)


def drips_its_answer(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drips_its_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        handler.wfile.write(b"a")
        time.sleep(0.1)


def floods(handler):
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"100000\r\n" + b" " * 2**20 + b"\r\n")

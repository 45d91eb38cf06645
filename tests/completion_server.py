"""A real HTTP server on this machine that answers as an OpenAI-compatible one does, for tests of the endpoint and of the command."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "served-model"


def reply(text: str, finish_reason: str = "stop", tokens: int = 5, **more) -> tuple[int, dict]:
    """A good answer; `more` joins the choice, such as stop_reason."""
    return 200, {"choices": [{"text": text, "finish_reason": finish_reason, **more}], "usage": {"completion_tokens": tokens}}


def failure(status: int, message: str = "no") -> tuple[int, dict]:
    return status, {"error": {"message": message}}


@dataclass
class Server:
    """What was asked, in order of arrival, and the most requests that were under way at once."""

    url: str = ""
    asked: list[dict] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    busiest: int = 0


class _Http(ThreadingHTTPServer):
    request_queue_size = 128  # of connections not yet taken up; with the usual 5, a burst of a client's is reset


@contextlib.contextmanager
def completion_server(
    answer: Callable[[dict], tuple[int, dict]], seconds: float = 0.0, models: tuple[str, ...] | str = (MODEL,)
) -> Iterator[Server]:
    """Serves until the block ends: `answer(request) -> (status, body)`, after `seconds`. A body of text is sent as it is."""
    server, lock, busy = Server(), threading.Lock(), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            server.keys.append(self.headers["Authorization"])
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
            self.send(200, models if isinstance(models, str) else listed)

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                server.asked.append(request)
                server.keys.append(self.headers["Authorization"])
                busy.append(1)
                server.busiest = max(server.busiest, len(busy))
            time.sleep(seconds)
            status, body = answer(request)
            if self.path.endswith("/chat/completions") and "choices" in body:
                body["choices"] = [choice | {"message": {"role": "assistant", "content": choice.pop("text")}} for choice in body["choices"]]
            with lock:
                busy.pop()
            self.send(status, body)

        def send(self, status, body):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client of a test may be killed
                raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

    http = _Http(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

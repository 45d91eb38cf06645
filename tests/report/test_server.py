"""The local server: what it answers, to whom, and that it follows a run that goes on."""

import http.client
import json
import socket
import threading

import pytest
from synthetic import add_tokenizer, step_row, write_nasty_rollouts, write_run

from fastgrpo.errors import InputError, SetupError
from fastgrpo.report.server import make_server


@pytest.fixture
def run(tmp_path):
    made = write_run(tmp_path / "run", 2, finished=False)
    add_tokenizer(made)
    write_nasty_rollouts(made / "rollouts" / "step_000001.parquet", 1)
    return made


@pytest.fixture
def port(run):
    with make_server([str(run)], 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": f"localhost:{port}"} | headers)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def raw(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_it_is_bound_to_this_machine_alone(run):
    with make_server([str(run)], 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_the_page_its_data_and_its_rollouts_are_there(port):
    status, page, headers = ask(port, "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html") and "connect-src 'self'" in page
    assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers
    data = json.loads(ask(port, "/data.json")[1])
    assert data["live"] and data["runs"][0]["said"].startswith("stopped after 2 of 2 steps")
    rows = json.loads(ask(port, "/rollouts.json?run=0&reward=none")[1])["rows"]
    assert [row["text"] for row in rows] == ["nobody could grade this"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "localhost", "localhost:1", "127.0.0.1.evil.example:{port}", ""])
def test_other_hosts_are_refused(port, host):
    status, text, _ = ask(port, "/data.json", Host=host.format(port=port))
    assert status == 403 and "answers to http://localhost" in text


def test_two_host_headers_or_none_are_refused(port):
    good = f"Host: localhost:{port}\r\n".encode()
    assert raw(port, b"GET /data.json HTTP/1.1\r\n" + good + b"Host: evil.example\r\n\r\n").startswith(b"HTTP/1.0 403")
    assert raw(port, b"GET /data.json HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 403")
    assert raw(port, b"GET /data.json HTTP/1.1\r\n" + good + b"\r\n").startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
def test_only_get_is_answered(port, method):
    assert ask(port, "/", method)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/../config.yaml",
        "/config.yaml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/rollouts.json/../../config.yaml",
        "/assets/main.js",
        "/data.json/",
    ],
)
def test_nothing_but_its_own_paths_exists(port, path):
    assert ask(port, path)[0] == 404


@pytest.mark.parametrize(
    "query", ["run=1", "run=-1", "run=../x", "first=x", "reward=%00", "cursor=.", "&".join(f"a{i}=" for i in range(30))]
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(port, query):
    status, text, _ = ask(port, f"/rollouts.json?{query}")
    assert status == 400 and len(text.splitlines()) == 1


def test_what_is_no_http_does_not_end_it(port):
    raw(port, b"\x00\xff nonsense\r\n\r\n")
    assert ask(port, "/data.json")[0] == 200


def test_a_run_that_goes_on_is_followed(run, port):
    def steps() -> int:
        return len(next(c for c in json.loads(ask(port, "/data.json")[1])["charts"] if c["id"] == "reward")["lines"][0]["x"])

    assert steps() == 2
    with (run / "metrics.jsonl").open("a") as file:
        import random

        file.write(json.dumps(step_row(3, random.Random(0))) + "\n" + '{"step": 4, "rew')
    write_nasty_rollouts(run / "rollouts" / "step_000003.parquet", 3)
    assert steps() == 3
    assert json.loads(ask(port, "/rollouts.json")[1])["rows"][0]["step"] == 3


def test_a_run_that_was_moved_away_is_said_and_others_go_on(run, port):
    run.rename(run.with_name("moved"))
    status, text, _ = ask(port, "/data.json")
    assert status == 400 and "no such directory" in text


def test_a_port_in_use_and_what_is_no_run_are_refused(run, port, tmp_path):
    with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1 cannot be used .*--port"):
        make_server([str(run)], port)
    with pytest.raises(InputError, match="no such directory"):
        make_server([str(tmp_path / "missing")], 0)

"""A reward server that answers, fails, stalls, floods or lies: rewards or a reason within the deadline, never a reward of 0 instead."""

import contextlib
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from reward_server import Server, drips_its_answer, drips_its_headers, floods, gives, says

from fastgrpo.errors import InputError
from fastgrpo.rewards import remote
from fastgrpo.rewards.functions import Unscorable, columns
from fastgrpo.rewards.remote import Remote
from fastgrpo.types import Prompt, Rollout

PROMPT = Prompt("p", (1,), "4", "What is 2 + 2?", {"answer": "4"})
GROUP = (Rollout((7, 8), (-1.0, -1.0), "stop", "four\ud800"), Rollout((9,), (-1.0,), "length", "4"))


@pytest.fixture
def call():
    """`call(*turns)` starts a server and returns (the scores of GROUP, the server, the seconds it took)."""
    with contextlib.ExitStack() as stack:

        def call(*turns, deadline=5.0):
            server = Server(*turns)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            client = stack.enter_context(contextlib.closing(Remote(server.url, deadline)))
            start = time.monotonic()
            scores = client.scores(client.submit(columns(PROMPT, GROUP)), len(GROUP))
            return scores, server, time.monotonic() - start

        yield call


def only(scores):
    """The one reason why no response has a reward."""
    assert len(scores) == len(GROUP) and all(isinstance(score, Unscorable) for score in scores)
    (reason,) = {score.reason for score in scores}
    return reason


def test_a_group_is_one_post_of_json_and_its_rewards_come_back(call, monkeypatch):
    monkeypatch.setenv(remote.TOKEN_VARIABLE, "secret")
    scores, server, _ = call(gives(1, -0.5))
    assert scores == [1.0, -0.5]
    ((sent, headers),) = server.seen
    assert sent == {
        "prompts": ["What is 2 + 2?"] * 2,
        "completions": ["four\ud800", "4"],
        "truncated": [False, True],
        "answer": ["4"] * 2,
    }
    assert headers["Authorization"] == "Bearer secret" and headers["Content-Type"] == "application/json"


def test_without_a_token_none_is_sent(call, monkeypatch):
    monkeypatch.delenv(remote.TOKEN_VARIABLE, raising=False)
    assert "Authorization" not in call(gives(1, 0))[1].seen[0][1]


def test_a_server_that_fails_is_asked_again_after_growing_waits(call, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.1)
    scores, server, _ = call(says(500), says(503), says(502), gives(1, 0))
    assert scores == [1.0, 0.0]
    waits = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    assert all(least <= wait < least + 1 for least, wait in zip((0.1, 0.2, 0.4), waits, strict=True)), waits


def test_a_busy_server_is_given_the_time_it_asks_for(call, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    scores, server, _ = call(says(429, Retry_After="1"), gives(1, 0))
    assert scores == [1.0, 0.0] and 1 <= server.times[1] - server.times[0] < 2


def test_retry_after_is_read_as_seconds_or_as_a_date():
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(timezone.utc) - timedelta(seconds=30), usegmt=True)
    assert 28 < remote._retry_after(soon) <= 30
    assert [remote._retry_after(text) for text in ("7", past, "", "soon", "-3", "\u0661")] == [7, 0, 0, 0, 0, 0]


def test_a_deadline_that_passes_between_tries_names_the_last_failure(call):
    scores, _, seconds = call(says(503), deadline=0.8)
    assert only(scores) == "no rewards within 0.8 s; last: HTTP 503" and seconds < 2
    scores, server, seconds = call(says(429, Retry_After="3600"), deadline=0.3)
    assert "HTTP 429" in only(scores) and seconds < 1 and len(server.seen) == 1


@pytest.mark.parametrize("stalls", [lambda handler: time.sleep(20), drips_its_answer, drips_its_headers])
def test_a_server_that_hangs_or_drips_is_left_at_the_deadline(call, stalls):
    scores, _, seconds = call(stalls, deadline=0.5)
    assert "no rewards within 0.5 s" in only(scores) and seconds < 1.5


def test_a_refused_connection_is_tried_until_the_deadline():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    with contextlib.closing(Remote(url, 0.8)) as client:
        reason = only(client.scores(client.submit(columns(PROMPT, GROUP)), 2))
    assert "no rewards within 0.8 s; last: ConnectError" in reason


def test_a_connection_cut_in_the_middle_is_tried_again(call, monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)

    def cut(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    assert call(cut, gives(1, 0))[0] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (floods, "the answer is longer than 16 MiB"),
        (says(200, b"<html>"), "the answer is not JSON"),
        (says(200, b""), "the answer is not JSON"),
        (says(200, b"\xff\xfe\x00"), "the answer is not JSON"),
        (says(200, b"[" * 100_000), "the answer is not JSON"),
        (says(200, b"[1, 0]"), 'the answer is not a JSON object with "rewards"'),
        (says(200, b'{"reward": [1, 0]}'), 'the answer is not a JSON object with "rewards"'),
        (gives(1), "returned 1 rewards for 2 responses"),
        (says(200, b'{"rewards": 1}'), "returned int instead of a list of 2 rewards"),
        (says(200, b'{"rewards": [NaN, NaN]}'), "returned nan as a reward"),
        (says(404), "HTTP 404"),
        (says(401, b"secret"), "HTTP 401"),
        (says(204), "HTTP 204"),
        (says(307, Location="http://127.0.0.1:1/"), "HTTP 307"),
    ],
)
def test_an_answer_that_is_none_leaves_the_group_without_rewards_at_once(call, turn, reason):
    scores, server, seconds = call(turn, deadline=20.0)
    assert only(scores) == reason
    assert len(server.seen) == 1 and seconds < 10


def test_an_answer_without_end_costs_little_memory(call):
    tracemalloc.start()
    try:
        assert "longer than 16 MiB" in only(call(floods, deadline=30.0)[0])
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_one_null_costs_only_its_own_response(call):
    scores, _, _ = call(gives(None, 1))
    assert isinstance(scores[0], Unscorable) and scores[1] == 1.0


def test_many_groups_are_asked_for_at_the_same_time_but_not_all(call, monkeypatch):
    monkeypatch.setattr(remote, "MAX_CALLS", 4)
    running, most, lock = 0, 0, threading.Lock()

    def slow(handler):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.2)
        with lock:
            running -= 1
        gives(1, 0)(handler)

    with Server(slow) as server, contextlib.closing(Remote(server.url, 5.0)) as client:
        with ThreadPoolExecutor(8) as threads:
            futures = list(threads.map(lambda _: client.submit(columns(PROMPT, GROUP)), range(16)))
        assert [client.scores(future, 2) for future in futures] == [[1.0, 0.0]] * 16
        server.shutdown()
    assert most == 4


def test_close_ends_a_call_that_hangs(call):
    with Server(lambda handler: time.sleep(20)) as server:
        client = Remote(server.url, 60.0)
        future = client.submit(columns(PROMPT, GROUP))
        while not server.seen:
            time.sleep(0.01)
        start = time.monotonic()
        client.close()
        assert time.monotonic() - start < 2
        assert "Cancelled" in only(client.scores(future, 2))
        client.close()
        server.shutdown()


def test_the_token_is_in_no_reason_and_no_log(call, monkeypatch, caplog):
    monkeypatch.setenv(remote.TOKEN_VARIABLE, "secret\n")  # as a file of one line is read
    with caplog.at_level("DEBUG"):
        scores, server, _ = call(says(401))
        assert server.seen[0][1]["Authorization"] == "Bearer secret"
        assert "secret" not in only(scores)
        for unusable in ("secret\nX: 1", "secret\u00e9"):  # the HTTP library would quote it in its error
            monkeypatch.setenv(remote.TOKEN_VARIABLE, unusable)
            with pytest.raises(InputError, match=remote.TOKEN_VARIABLE) as error:
                Remote(server.url, 1.0)
            assert "secret" not in str(error.value)
    assert "secret" not in caplog.text

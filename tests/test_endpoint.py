"""Sampling from a server, against a real one on this machine: every response in its place, retries, stop strings, and clear failures."""

import socket
import time

import pytest
from completion_server import MODEL, completion_server, failure, reply

from fastgrpo.errors import InputError, SetupError
from fastgrpo.rollout.endpoint import KEY_VARIABLE, EndpointSampler
from fastgrpo.types import Completion, Prompt, Sampling

PROMPTS = [Prompt(f"p{i}", (), "1", text=f"question {i}") for i in range(6)]
TAG = "</answer>"


def seeds(prompts, n):
    return [[100 * i + j for j in range(n)] for i in range(prompts)]


def echo(request):
    return reply(f"{request['prompt']} / {request['seed']}", tokens=request["seed"] + 1)


def one(answer, stop=(), **options) -> Completion:
    """The only response of a server that answers so."""
    with completion_server(answer) as server:
        return EndpointSampler(server.url, MODEL, **options).generate(PROMPTS[:1], 1, Sampling(0.0, 8, stop), [[1]])[0][0]


def test_every_response_is_asked_for_once_and_comes_in_its_place():
    heard = {}
    with completion_server(echo, seconds=0.02) as server:
        groups = EndpointSampler(server.url, MODEL, concurrency=3).generate(
            PROMPTS, 2, Sampling(0.7, 8), seeds(6, 2), on_finished=lambda i, j, response: heard.update({(i, j): response})
        )
    assert groups == [tuple(Completion(f"question {i} / {100 * i + j}", 100 * i + j + 1, "stop") for j in range(2)) for i in range(6)]
    assert heard == {(i, j): groups[i][j] for i in range(6) for j in range(2)}
    assert len(server.asked) == 12 and server.busiest == 3
    settings = {"model": MODEL, "max_tokens": 8, "temperature": 0.7, "top_p": 1.0}
    assert all(settings.items() <= request.items() and "stop" not in request for request in server.asked)


def test_a_chat_gets_the_prompt_as_the_users_message():
    with completion_server(lambda request: reply(request["messages"][0]["content"].upper())) as server:
        groups = EndpointSampler(server.url, MODEL, chat=True).generate(PROMPTS[:2], 1, Sampling(0.0, 8), seeds(2, 1))
    assert [group[0].text for group in groups] == ["QUESTION 0", "QUESTION 1"]
    assert server.asked[0]["messages"][0]["role"] == "user" and "prompt" not in server.asked[0]


def test_a_busy_or_failing_server_is_asked_again():
    failures = [429, 500]

    def answer(request):
        return failure(failures.pop()) if failures else reply("at last")

    with completion_server(answer) as server:
        ((response,),) = EndpointSampler(server.url, MODEL).generate(PROMPTS[:1], 1, Sampling(0.0, 8), [[1]])
    assert response.text == "at last" and len(server.asked) == 3


def test_a_failure_for_good_keeps_what_was_answered():
    heard = []

    def answer(request):
        return failure(500, "out of order") if request["prompt"] == "question 4" else echo(request)

    with completion_server(answer) as server, pytest.raises(SetupError, match=r"InternalServerError.*out of order.*is kept"):
        EndpointSampler(server.url, MODEL, concurrency=1, retries=0).generate(
            PROMPTS, 1, Sampling(0.0, 8), seeds(6, 1), on_finished=lambda i, j, response: heard.append(i)
        )
    assert heard == [0, 1, 2, 3] and len(server.asked) == 5  # and nothing more is asked of a broken server


def test_so_many_failures_as_are_allowed_leave_holes():
    def answer(request):
        return failure(400, "too long") if request["prompt"] in ("question 1", "question 4") else echo(request)

    with completion_server(answer) as server:
        sampler = EndpointSampler(server.url, MODEL, concurrency=1, retries=0)
        sampler.failures_allowed = 2
        groups = sampler.generate(PROMPTS, 1, Sampling(0.0, 8), seeds(6, 1))
        assert [len(group) for group in groups] == [1, 0, 1, 1, 0, 1] and len(server.asked) == 6
        sampler.failures_allowed = 1
        with pytest.raises(SetupError, match="too long"):
            sampler.generate(PROMPTS, 1, Sampling(0.0, 8), seeds(6, 1))
        assert len(server.asked) == 6 + 5


def test_responses_on_their_way_are_kept_when_another_fails():
    heard = []

    def answer(request):
        if request["prompt"] == "question 0":
            return failure(400, "too long")
        time.sleep(0.3)
        return echo(request)

    with completion_server(answer) as server, pytest.raises(SetupError, match="too long"):
        EndpointSampler(server.url, MODEL).generate(
            PROMPTS, 1, Sampling(0.0, 8), seeds(6, 1), on_finished=lambda i, j, response: heard.append(i)
        )
    assert sorted(heard) == [1, 2, 3, 4, 5]


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "sk-very-secret")
    with completion_server(lambda request: failure(401, "wrong key sk-very-secret")) as server:
        started = time.monotonic()
        with pytest.raises(SetupError, match=f"AuthenticationError.*{KEY_VARIABLE}") as refused:
            EndpointSampler(server.url, MODEL).generate(PROMPTS[:1], 1, Sampling(0.0, 8), [[1]])
    assert server.keys == ["Bearer sk-very-secret"] and time.monotonic() - started < 3  # not retried
    assert "secret" not in str(refused.value) and "(the key)" in str(refused.value)


@pytest.mark.parametrize("chat", [False, True])
def test_the_stop_string_that_ended_a_response_is_in_it_once(chat):
    cases = [  # what the server sends, what it says of the reason, the whole response
        ("<answer>4", {"stop_reason": TAG}, f"<answer>4{TAG}"),
        ("it ended by itself", {"stop_reason": None}, "it ended by itself"),
        ("it ended by itself", {"stop_reason": 151643}, "it ended by itself"),
        ("<answer>4", {}, f"<answer>4{TAG}"),
        (f"<answer>4{TAG}", {"stop_reason": TAG}, f"<answer>4{TAG}"),
        (f"<answer>4{TAG}", {}, f"<answer>4{TAG}"),
    ]
    with completion_server(lambda request: reply(cases[request["seed"]][0], **cases[request["seed"]][1])) as server:
        sampler = EndpointSampler(server.url, MODEL, chat=chat)
        groups = sampler.generate(PROMPTS, 1, Sampling(0.0, 8, (TAG,)), [[i] for i in range(6)])
    assert [group[0].text for group in groups] == [whole for _, _, whole in cases]
    assert all(request["stop"] == [TAG] for request in server.asked)


def test_where_several_stop_strings_are_possible_none_is_made_up():
    assert one(lambda request: reply("four"), stop=(TAG, "END")).text == "four"
    assert one(lambda request: reply("four", stop_reason="END"), stop=(TAG, "END")).text == "fourEND"


def test_a_response_cut_at_the_budget_is_truncated_and_gets_no_stop_string():
    cut = one(lambda request: reply("so far", "length", tokens=8), stop=(TAG,))
    assert cut == Completion("so far", 8, "length") and cut.truncated


def test_text_that_no_file_can_hold_is_made_harmless():
    assert one(lambda request: reply("half \ud800 pair")).text == "half ? pair"


def test_a_server_that_counts_no_tokens_is_refused():
    with pytest.raises(InputError, match=r"does not report usage\.completion_tokens"):
        one(lambda request: (200, {"choices": [{"text": "4", "finish_reason": "stop"}]}))


def test_a_page_that_is_no_answer_is_refused():
    for chat in (False, True):
        with pytest.raises(SetupError, match=r"gave no completion but '<html>.*must be an OpenAI-compatible server"):
            one(lambda request: (200, "<html>Welcome</html>"), chat=chat)
    with completion_server(echo, models="<html>Welcome</html>") as server, pytest.raises(SetupError, match="must be an OpenAI"):
        EndpointSampler(server.url).model_name()


def test_the_servers_first_model_is_taken_or_the_named_one_must_exist():
    with completion_server(echo, models=("first", "second")) as server:
        assert EndpointSampler(server.url).model_name() == "first"
        assert EndpointSampler(server.url, "second").model_name() == "second"
        with pytest.raises(InputError, match="has no model 'third'; it lists first, second"):
            EndpointSampler(server.url, "third").model_name()


def test_a_server_that_is_not_there_is_noticed_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(SetupError, match="APIConnectionError"):
        EndpointSampler(url).model_name()
    assert time.monotonic() - started < 5

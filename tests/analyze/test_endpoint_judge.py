"""A language model as judge: a real server on this machine that fails, is slow, talks nonsense. All is counted, nothing asked twice."""

import json
import time

import pytest
from completion_server import MODEL, completion_server, failure, reply

from fastgrpo.accuracy import Prediction
from fastgrpo.analyze.answering import ANSWERING
from fastgrpo.analyze.endpoint_judge import KEY_VARIABLE, SHOWN_CHARS, EndpointJudge, parse_category, request
from fastgrpo.analyze.judge import Verdict
from fastgrpo.analyze.reflection import REFLECTION
from fastgrpo.errors import InputError, SetupError

FOUR = (0, 1, 2, 3)


def responses(texts) -> list[Prediction]:
    return [Prediction("set", "a", i, "1 + 1?", "2", text, 5, "stop", True, "ok", False) for i, text in enumerate(texts)]


def judge(server, directory, **options) -> EndpointJudge:
    found = EndpointJudge(server.url, "", directory / "judge.jsonl", **{"retries": 0, **options})
    found.open()
    return found


def content(asked) -> str:
    return asked["messages"][0]["content"]


@pytest.mark.parametrize("answer", ["2", " 2\n", "2.", "**2**", "Category 2", "category: 2.", '"2"', "(2)", "[2]"])
def test_a_lone_digit_is_a_category(answer):
    assert parse_category(answer, FOUR) == 2


@pytest.mark.parametrize("answer", ["12.", "2.5", "-2", "1/2", "22", "4", "²", "", "two", "2 or 3", "2, because", "not 2", "2\n1", "{2}x"])
def test_anything_else_is_none(answer):
    assert parse_category(answer, FOUR) is None


def test_a_judge_reads_the_question_the_text_and_the_categories_and_long_texts_lose_their_middle():
    whole = request(REFLECTION, "1 + 1?", "It is {2}.")
    assert "<question>\n1 + 1?\n</question>" in whole and "<text>\nIt is {2}.\n</text>" in whole and whole.endswith("0, 1, 2, 3.")
    cut = request(ANSWERING, "1 + 1?", "a" * SHOWN_CHARS + "b" * SHOWN_CHARS)
    assert len(cut) < SHOWN_CHARS + 1500 and f"[... {SHOWN_CHARS} characters left out ...]" in cut
    assert cut.count("aaaa") == cut.count("bbbb")


def test_each_response_is_judged_once_and_kept(tmp_path):
    def answer(asked):
        status, body = reply(str(int(content(asked).split("<text>\n")[1][0])))
        return status, body | {"usage": {"completion_tokens": 2, "prompt_tokens": 100}}

    with completion_server(answer, seconds=0.02) as server:
        first = judge(server, tmp_path, concurrency=3, prices=(1.0, 10.0))
        found = first.judge(REFLECTION, responses(["0", "1", "2", "3", "2", "2"]))  # three are the same request
        assert [verdict.category for verdict in found] == [0, 1, 2, 3, 2, 2]
        assert len(server.asked) == 4 and server.busiest == 3
        assert (server.asked[0]["temperature"], server.asked[0]["model"]) == (0.0, MODEL)
        account = {"judge": MODEL, "requests": 4, "requests_now": 4, "prompt_tokens": 400, "completion_tokens": 8, "cost": 0.00048}
        assert first.account() == account
        again = judge(server, tmp_path)
        assert again.judge(REFLECTION, responses(["3", "0", "2"])) == [Verdict(3), Verdict(0), Verdict(2)]
        assert len(server.asked) == 4 and again.account() == account | {"requests_now": 0, "cost": None}
        assert again.judge(ANSWERING, responses(["1"])) == [Verdict(1)] and len(server.asked) == 5  # another task is another question


def test_nonsense_is_asked_again_once_and_then_counted_for_good(tmp_path):
    def answer(asked):
        text, reminded = content(asked).split("<text>\n")[1], "Write one digit" in content(asked)
        return reply("2" if text.startswith("later") and reminded else "12." if text.startswith(("later", "never")) else "1")

    with completion_server(answer) as server:
        found = judge(server, tmp_path).judge(REFLECTION, responses(["later", "never", "now"]))
        assert found == [Verdict(2), Verdict(None, "unparsed"), Verdict(1)] and len(server.asked) == 5
        assert judge(server, tmp_path).judge(REFLECTION, responses(["later", "never", "now"])) == found and len(server.asked) == 5


def test_failures_timeouts_and_pages_are_counted_and_only_they_are_asked_again(tmp_path):
    broken = True

    def answer(asked):
        text = content(asked).split("<text>\n")[1]
        if broken and text.startswith("slow"):
            time.sleep(1.0)
        if broken and text.startswith("down"):
            return failure(500)
        if broken and text.startswith("page"):
            return 200, "<html>maintenance</html>"
        return reply("1")

    texts = ["fine", "slow", "down", "page", "good"]
    with completion_server(answer) as server:
        found = judge(server, tmp_path, timeout=0.4).judge(ANSWERING, responses(texts))
        failed = Verdict(None, "failed")
        assert found == [Verdict(1), failed, failed, failed, Verdict(1)]
        broken = False
        server.asked.clear()
        assert judge(server, tmp_path).judge(ANSWERING, responses(texts)) == [Verdict(1)] * 5
        assert sorted(content(asked).split("<text>\n")[1][:4] for asked in server.asked) == ["down", "page", "slow"]


def test_a_request_that_fails_is_tried_again(tmp_path):
    failures = [429, 500]

    def answer(asked):
        return failure(failures.pop()) if failures else reply("1")

    with completion_server(answer) as server:
        assert judge(server, tmp_path, retries=3).judge(ANSWERING, responses(["one"])) == [Verdict(1)] and len(server.asked) == 3


def test_a_judge_that_is_down_is_given_up_and_goes_on_where_it_stopped(tmp_path):
    lives = 20

    def answer(asked):
        nonlocal lives
        lives -= 1
        return reply("0") if lives >= 0 else failure(503, "out of order")

    texts = [f"text {i}" for i in range(60)]
    with completion_server(answer) as server:
        with pytest.raises(SetupError, match=rf"out of order.*{KEY_VARIABLE}.*is kept"):
            judge(server, tmp_path, concurrency=1).judge(ANSWERING, responses(texts))
        assert len(server.asked) == 20 + 11  # ten may fail, and the eleventh is the end
        with (tmp_path / "judge.jsonl").open("a") as file:
            file.write('{"key": "torn')  # as a killed process leaves it
        lives = 10**6
        server.asked.clear()
        assert judge(server, tmp_path).judge(ANSWERING, responses(texts)) == [Verdict(0)] * 60 and len(server.asked) == 40
    rows = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 60


def test_another_model_judges_anew(tmp_path):
    with completion_server(lambda asked: reply("1"), models=("one", "two")) as server:
        for model in ("one", "two", "one"):
            found = EndpointJudge(server.url, model, tmp_path / "judge.jsonl")
            found.open()
            assert found.judge(ANSWERING, responses(["text"])) == [Verdict(1)] and found.account()["requests"] == 1
        assert [asked["model"] for asked in server.asked] == ["one", "two"]


def test_the_key_is_the_judges_own_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "sk-very-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-model")
    with completion_server(lambda asked: reply("1 sk-very-secret")) as server:
        judge(server, tmp_path).judge(ANSWERING, responses(["text"]))
    assert set(server.keys) == {"Bearer sk-very-secret"}
    assert all("sk-very" not in path.read_text() for path in tmp_path.iterdir())


def test_what_is_no_judge_is_refused_at_the_door(tmp_path):
    with completion_server(lambda asked: reply("1")) as server, pytest.raises(InputError, match="has no model 'other'"):
        EndpointJudge(server.url, "other", tmp_path / "judge.jsonl")
    with pytest.raises(SetupError, match="failed"):
        EndpointJudge("http://127.0.0.1:9/v1", "", tmp_path / "judge.jsonl")

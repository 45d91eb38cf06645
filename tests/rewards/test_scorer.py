"""The reward of a response as the trainer gets it: which parts are added up, what happens when one is missing, and when groups go out."""

import contextlib
import random
import threading

import pytest
from reward_server import Server, gives

from fastgrpo.rewards import Grader, Scorer
from fastgrpo.types import Grade, Prompt, Rollout

PROMPTS = [Prompt(f"p{i}", (1,), str(i), f"What is {i}?", {"answer": str(i), "level": i}) for i in range(4)]
SOURCE = """
def length(completions):
    return [len(completion) for completion in completions]
def level(level, completions):
    return level
def picky(completions):
    return [None if "7" in completion else 1.0 for completion in completions]
def broken(completions):
    raise KeyError("gone")
def slow(completions):
    import time
    time.sleep(60)
def verifier(completions):
    return [5.0] * len(completions)
def url(completions):
    return [6.0] * len(completions)
"""


def response(text, finish="stop"):
    return Rollout((1,), (-1.0,), finish, text)


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "fast", workers=1) as grader:
        yield grader


@pytest.fixture
def scorer(grader, tmp_path):
    """`scorer("length", "verifier", weights=...)` makes one whose functions stand in one file."""
    file = tmp_path / "rewards.py"
    file.write_text(SOURCE)
    with contextlib.ExitStack() as stack:

        def make(*names, url="", weights=(), samples=2, **settings):
            functions = [name if name == "verifier" else f"{file}:{name.removeprefix('own ')}" for name in names]
            return stack.enter_context(Scorer(grader, functions, url, weights, samples, **settings))

        yield make


def grades(scorer, *texts, prompt=PROMPTS[1]):
    for j, text in enumerate(texts):
        scorer.submit(0, j, prompt, response(text))
    results = scorer.results()
    return [results[0, j] for j in range(len(texts))]


def test_without_functions_and_url_the_verifier_decides_alone(scorer):
    assert grades(scorer(), r"\boxed{1}", "1") == [Grade(1.0, True, "ok"), Grade(0.0, False, "ok")]
    assert grades(scorer(samples=1), r"\boxed{9^{9^{9^9}}}") == [Grade(0.0, True, "unparsable")]


def test_a_function_alone_replaces_the_verifier_but_not_the_look_at_the_form(scorer, grader):
    assert grades(scorer("length"), r"\boxed{1}", "1") == [
        Grade(9.0, True, "ok", {"length": 9.0}),
        Grade(1.0, False, "ok", {"length": 1.0}),
    ]


def test_rewards_are_added_up_with_their_weights(scorer):
    first, second = grades(scorer("verifier", "length", "level", weights=(2.0, 0.5, -1.0)), r"\boxed{1}", "no")
    assert first == Grade(2 + 4.5 - 1, True, "ok", {"verifier": 1.0, "length": 9.0, "level": 1.0})
    assert second == Grade(0 + 1 - 1, False, "ok", {"verifier": 0.0, "length": 2.0, "level": 1.0})
    assert grades(scorer("verifier", "length", samples=1), r"\boxed{1}")[0].reward == 10.0


def test_the_verifiers_status_stays_beside_other_rewards(scorer):
    (grade,) = grades(scorer("verifier", "length", samples=1), r"\boxed{9^{9^{9^9}}}")
    assert grade == Grade(19.0, True, "unparsable", {"verifier": 0.0, "length": 19.0})


def test_one_part_without_a_reward_leaves_the_response_without_one(scorer):
    said = []
    made = scorer("verifier", "picky", say=said.append)
    assert grades(made, r"\boxed{1}", r"\boxed{7}") == [
        Grade(2.0, True, "ok", {"verifier": 1.0, "picky": 1.0}),
        Grade(None, True, "unscorable", {"verifier": 0.0, "picky": None}),
    ]
    assert made.reasons == {"reward picky: returned None": 1} and len(said) == 1


def test_a_failure_is_told_once_and_counted_ever_after(scorer):
    said = []
    made = scorer("broken", "slow", deadline=0.3, say=said.append)
    for _ in range(2):
        assert grades(made, "1", "2") == [Grade(None, False, "unscorable", {"broken": None, "slow": None})] * 2
    (broken, slow), counts = made.reasons, list(made.reasons.values())
    assert counts == [4, 4]
    assert "KeyError: 'gone' at rewards.py:9: raise KeyError" in broken and "no result within 0.3 s" in slow
    assert [message in line for message, line in zip((broken, slow), said, strict=True)] == [True, True]


def test_failures_that_all_differ_fill_no_log(scorer, monkeypatch):
    monkeypatch.setattr("fastgrpo.rewards.scorer.MAX_KINDS", 3)
    said = []
    made = scorer("picky", say=said.append, samples=1)
    for number in range(10):
        made._note("picky", type("Failure", (), {"kind": str(number), "reason": str(number)}))
    assert len(said) == 4 and sum(made.reasons.values()) == 10


def test_parts_of_one_name_are_told_apart(scorer):
    made = scorer("verifier", "length", "length", "own verifier", "own url", "verifier", weights=(1, 2, 3, 4, 5, 6), samples=1)
    (grade,) = grades(made, r"\boxed{1}")
    assert grade.parts == {"verifier": 1.0, "length": 9.0, "length_2": 9.0, "verifier_2": 5.0, "url_2": 6.0, "verifier_3": 1.0}
    assert grade.reward == 1 + 18 + 27 + 20 + 30 + 6


def test_responses_come_in_any_order_from_any_thread_and_go_back_under_their_keys(scorer):
    made = scorer("verifier", "level", "length", samples=8)
    keys = [(i, j) for i in range(4) for j in range(8)]
    random.Random(0).shuffle(keys)

    def submit(some):
        for i, j in some:
            made.submit(i, j, PROMPTS[i], response(rf"\boxed{{{i}}}" + " " * j if j % 2 else "no" + " " * j))

    for _ in range(2):
        threads = [threading.Thread(target=submit, args=(keys[start::4],)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results = made.results()
        assert results.keys() == set(keys)
        for (i, j), grade in results.items():
            assert grade.parts == {"verifier": float(j % 2), "level": i, "length": (9.0 if j % 2 else 2.0) + j}


def test_a_group_goes_out_when_its_last_response_is_there(scorer):
    made = scorer("length")
    made.submit(3, 1, PROMPTS[3], response("second"))
    assert made._calls == {}
    made.submit(3, 0, PROMPTS[3], response("first"))
    assert made._calls[3]["length"].result(20) == [5.0, 6.0]  # in the order of the group, before anyone asks for results
    assert made.results()[3, 1].reward == 6.0


def test_a_response_is_submitted_once_and_groups_are_complete(scorer):
    made = scorer("length")
    made.submit(0, 0, PROMPTS[0], response("1"))
    for i, j in ((0, 0), (1, 2), (1, -1)):
        with pytest.raises(ValueError, match=f"response {j} to prompt {i}"):
            made.submit(i, j, PROMPTS[i], response("1"))
    with pytest.raises(ValueError, match="prompt 0 has 1 of 2 responses"):
        made.results()
    assert grades(made, "1", "22")[1].reward == 2.0


def test_weights_of_another_number_are_refused(grader):
    with pytest.raises(ValueError, match="1 weights for 2 rewards"):
        Scorer(grader, ["verifier"], "http://localhost/", (1.0,), 2)


def test_a_server_is_a_part_named_url(scorer):
    with Server(gives(1.5)) as server:
        made = scorer("verifier", "own url", url=server.url, weights=(1, 1, 10), samples=1)
        assert grades(made, r"\boxed{1}")[0] == Grade(1 + 6 + 15, True, "ok", {"verifier": 1.0, "url_2": 6.0, "url": 1.5})
        assert grades(scorer(url=server.url, samples=1), "no")[0] == Grade(1.5, False, "ok", {"url": 1.5})
        assert [sent["answer"] for sent, _ in server.seen] == [["1"], ["1"]]
        server.shutdown()

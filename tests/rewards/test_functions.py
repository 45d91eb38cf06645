"""Reward functions of the user's own: what they are given, what may come back, and that every failure is told and none becomes a 0."""

import contextlib
import math
import time

import numpy as np
import pytest

from fastgrpo.errors import InputError
from fastgrpo.rewards import require_rewards
from fastgrpo.rewards.functions import Functions, Unscorable, columns, read_rewards
from fastgrpo.types import Prompt, Rollout

PROMPT = Prompt("p", (1,), "4", "What is 2 + 2?", {"answer": "4", "level": 3, "problem": "What is 2 + 2?"})
GROUP = (
    Rollout((7, 8), (-1.0, -1.0), "stop", "four"),
    Rollout((9,), (-1.0,), "length", "4"),
    Rollout((9, 9, 9), (-1.0,) * 3, "stop", "4!"),
)


@pytest.fixture
def run(tmp_path):
    """Writes a file of functions; `run(name, times=1)` returns the scores of GROUP, of each call in turn for more than one."""
    with contextlib.ExitStack() as stack:

        def run(source, name="f", times=1, deadline=20.0, check=True):
            file = tmp_path / "rewards.py"
            file.write_text(source)
            functions = stack.enter_context(contextlib.closing(Functions([f"{file}:{name}"], deadline, workers=1)))
            if check:
                functions.check()
            futures = [functions.submit(f"{file}:{name}", columns(PROMPT, GROUP)) for _ in range(times)]
            scores = [functions.scores(future, len(GROUP)) for future in futures]
            return scores if times > 1 else scores[0]

        yield run


def only(scores):
    """The one reason why no response of a group has a reward."""
    assert len(scores) == len(GROUP) and len(set(scores)) == 1
    return scores[0].reason


def test_a_function_written_for_trl_gets_questions_texts_and_columns(run):
    source = """
def f(prompts, completions, answer, **kwargs):
    assert prompts == ["What is 2 + 2?"] * 3 and answer == ["4"] * 3 and kwargs["level"] == [3] * 3
    assert sorted(kwargs) == ["completion_ids", "level", "problem", "truncated"]
    return [float(completion == gold) for completion, gold in zip(completions, answer)]
"""
    assert run(source) == [0.0, 1.0, 0.0]


def test_a_function_gets_only_what_its_signature_names(run):
    source = """
def f(completion_ids, truncated, level, threshold=2):
    return [len(ids) + cut * 10 + (l > threshold) * 100 for ids, cut, l in zip(completion_ids, truncated, level)]
"""
    assert run(source) == [102.0, 111.0, 103.0]


def test_answer_is_the_gold_unless_a_column_has_that_name():
    assert columns(Prompt("p", (1,), "4", "?", {"solution": "4"}), GROUP)["answer"] == ["4"] * 3
    assert columns(Prompt("p", (1,), "4", "?", {"solution": "4", "answer": "long"}), GROUP)["answer"] == ["long"] * 3


def test_async_functions_and_callable_objects_work(run):
    source = """
import asyncio
async def one(completion):
    await asyncio.sleep(0.3)
    return len(completion)
async def f(completions):
    return await asyncio.gather(*map(one, completions))
class Rule:
    def __call__(self, completions):
        return [2] * len(completions)
g = Rule()
"""
    assert run(source) == [4.0, 1.0, 2.0]
    assert run(source, "g") == [2.0, 2.0, 2.0]


def test_a_file_is_imported_once_for_each_worker_with_its_neighbours_and_without_torch(run, tmp_path):
    (tmp_path / "neighbour.py").write_text("BASE = 5\n")
    source = """
import os, sys
from neighbour import BASE
calls = 0
def f(completions):
    global calls
    calls += 1
    print("flood" * 10000)
    return [BASE + calls, "torch" in sys.modules, os.environ["CUDA_VISIBLE_DEVICES"] == ""]
"""
    assert run(source, times=3) == [[6.0, 0.0, 1.0], [7.0, 0.0, 1.0], [8.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return completions[0]['answer']", "TypeError: string indices must be integers.* at rewards.py:3: return completions"),
        ("return [1 / 0 for _ in completions]", "ZeroDivisionError: division by zero at rewards.py:3"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("return 1.0", "returned float instead of a list of 3 rewards"),
        ("return 'yes'", "returned str instead of a list"),
        ("return None", "returned NoneType instead of a list"),
        ("return {0: 1.0}", "returned dict instead of a list"),
        ("return [1.0]", "returned 1 rewards for 3 responses"),
        ("return [1.0] * 4", "returned 4 rewards for 3 responses"),
        ("return [None] * 3", "returned None"),
        ("return [float('nan')] * 3", "returned nan"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "division by zero"),
        ("import time; time.sleep(60)", "no result within 0.5 s"),
        ("while True: print('flood' * 100)", "no result within 0.5 s"),
    ],
)
def test_what_goes_wrong_with_a_call_leaves_the_group_without_rewards_and_the_next_call_works(run, tmp_path, body, reason):
    source = f"""
def once(completions):
    {body}
def f(completions):
    import os
    if os.path.exists({str(tmp_path / "second")!r}):
        return [1] * len(completions)
    open({str(tmp_path / "second")!r}, "w").close()
    return once(completions)
"""
    first, second = run(source, times=2, deadline=0.5)
    (why,) = {score.reason for score in first}
    assert __import__("re").search(reason, why), why
    assert len(first) == 3 and second == [1.0] * 3


def test_one_bad_reward_costs_only_its_own_response():
    bad = [None, float("nan"), float("inf"), -math.inf, "1.0", [1.0], {}, 1j, 10**400, np.array([1.0, 2.0]), object]
    scores = read_rewards([0.5, *bad, -1], len(bad) + 2)
    assert (scores[0], scores[-1]) == (0.5, -1.0)
    assert all(isinstance(score, Unscorable) for score in scores[1:-1])
    assert read_rewards(["1"], 1) == [Unscorable("returned str", "returned str '1' as a reward")]


def test_numbers_of_all_kinds_become_floats_and_minus_zero_becomes_zero():
    given = [True, 2, np.float32(0.5), np.int64(3), np.bool_(True), np.array(4.0), -0.0]
    scores = read_rewards(given, len(given))
    assert scores == [1.0, 2.0, 0.5, 3.0, 1.0, 4.0, 0.0]
    assert all(type(score) is float for score in scores) and math.copysign(1, scores[-1]) == 1


@pytest.mark.parametrize("make", [tuple, list, np.array, lambda rewards: __import__("torch").tensor(rewards)])
def test_lists_tuples_and_one_dimensional_arrays_are_rewards(make):
    assert read_rewards(make([1.0, 0.0, 0.5]), 3) == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("shape", [(), (1, 3), (3, 1), (2,)])
def test_arrays_of_another_shape_are_not_broadcast(shape):
    assert all(isinstance(score, Unscorable) for score in read_rewards(np.ones(shape), 3))


def test_what_cannot_travel_to_a_worker_is_told(tmp_path):
    (tmp_path / "rewards.py").write_text("def f(completions): return [1] * len(completions)")
    function = f"{tmp_path}/rewards.py:f"
    with contextlib.closing(Functions([function], 5, workers=1)) as functions:
        future = functions.submit(function, columns(Prompt("p", (1,), "4", "", {"stream": (n for n in ())}), GROUP))
        assert "cannot be sent" in only(functions.scores(future, 3))
        assert functions.scores(functions.submit(function, columns(PROMPT, GROUP)), 3) == [1.0] * 3


def test_the_import_of_a_file_does_not_count_against_the_first_deadline(run):
    assert run("import time\ntime.sleep(0.8)\ndef f(completions): return [1] * 3", deadline=0.4, check=False) == [1.0] * 3


def test_a_file_that_breaks_after_the_check_is_told_with_each_call(run):
    assert "RuntimeError: no key at rewards.py:1" in only(run("raise RuntimeError('no key')", check=False))


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("def g(): ...", ":f", "has no f"),
        ("f = 7", ":f", "f is int, not a function"),
        (
            "import nothing_of_this_name",
            ":f",
            "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_this_name'.*rewards.py:1",
        ),
        ("def f(:", ":f", "cannot be imported: SyntaxError.*rewards.py:1"),
        ("import os; os._exit(1)", ":f", "cannot be imported: .*exit code 1"),
        ("def f(): ...", "", "write FILE.py:NAME"),
        ("def f(): ...", ":f()", "write FILE.py:NAME"),
    ],
)
def test_a_function_that_cannot_be_called_is_an_input_error_of_one_line(tmp_path, source, name, message):
    (tmp_path / "rewards.py").write_text(source)
    with pytest.raises(InputError, match=message) as error:
        require_rewards(["verifier", f"{tmp_path}/rewards.py{name}"], "")
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_url_that_is_none_are_input_errors(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*/none.py"):
        require_rewards([f"{tmp_path}/none.py:f"], "")
    for url in ("ftp://host/rewards", "localhost:8000", "http://", "rewards"):
        with pytest.raises(InputError, match=r"reward\.url"):
            require_rewards([], url)
    require_rewards(["verifier"], "http://localhost:8000/rewards")


def test_calls_of_several_groups_run_at_the_same_time(tmp_path):
    (tmp_path / "rewards.py").write_text("import time\ndef f(completions):\n    time.sleep(0.5)\n    return [1] * len(completions)")
    function = f"{tmp_path}/rewards.py:f"
    with contextlib.closing(Functions([function], 5, workers=8)) as functions:
        functions.check()
        start = time.monotonic()
        futures = [functions.submit(function, columns(PROMPT, GROUP)) for _ in range(8)]
        assert [functions.scores(future, 3) for future in futures] == [[1.0] * 3] * 8
        assert time.monotonic() - start < 3  # one after the other: 4 s

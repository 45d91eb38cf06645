"""The pool grades in parallel, kills what overruns its deadline, survives the death of workers, and leaves no process behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fastgrpo.errors import SetupError
from fastgrpo.rewards import Grader, pool
from fastgrpo.types import Grade

ROOT = Path(__file__).parents[2]
HANGING = r"\boxed{7^{300000000}}"  # Math-Verify computes all its digits
HALF = r"\frac{1}{2}"
HOSTILE = [
    HANGING,
    r"\boxed{99999999!}",
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{" + r"\frac{1}{" * 500 + "2" + "}" * 501,
    r"\boxed{" + "1" * 100_000 + "}",
    r"\boxed{" + "(" * 390 + "}",
    r"\boxed{}}}{{{",
    "\\boxed{\x00\x1b[2J\ud800}",
    "\\boxed{" * 1000,
    r"\boxed{__import__('os')._exit(3)}",
]
RIGHT = [(r"\boxed{2x+1}", "1+2x"), (r"\boxed{7}", "7"), (r"\boxed{\{3,2,1\}}", r"\{1,2,3\}"), (r"\boxed{\frac24}", HALF)]
GOOD = Grade(1.0, True, "ok")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children():
    return {child.pid for child in multiprocessing.active_children()}


def wait_until_taken_up(grader):
    while not all(pending.future.running() for pending in grader._pending.values()):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "math_verify", workers=2) as grader:
        yield grader


def test_right_answers_among_hostile_ones_all_score_and_the_pool_stays_good(grader):
    items = [item for text in HOSTILE for item in [(text, HALF), *RIGHT]]
    grades = grader.grade(items)
    hostile = grades[:: len(RIGHT) + 1]
    assert [grade for position, grade in enumerate(grades) if position % (len(RIGHT) + 1)] == [GOOD] * (len(HOSTILE) * len(RIGHT))
    assert all(grade.reward == 0.0 for grade in hostile)
    assert hostile[:2] == [Grade(0.0, True, "timeout")] * 2
    assert [grade.status for grade in hostile[3:5]] == ["unparsable", "unparsable"]
    assert hostile[8] == Grade(0.0, False, "ok")
    assert grader.grade(RIGHT) == [GOOD] * len(RIGHT)


def test_submissions_from_several_threads_come_back_under_their_keys(grader):
    def submit(offset):
        for number in range(offset, 200, 4):
            grader.submit(("group", number), rf"\boxed{{{number}+x}}" if number % 10 == 0 else rf"\boxed{{{number}}}", f"x+{number}")

    threads = [threading.Thread(target=submit, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    grades = grader.results()
    assert {key for key, grade in grades.items() if grade.reward == 1.0} == {("group", number) for number in range(0, 200, 10)}
    assert len(grades) == 200
    assert grader.results() == {}


def test_form_is_reported_apart_from_reward(grader):
    texts = [r"\boxed{4}", r"\boxed{5}", "4", r"\boxed{4"]
    assert grader.grade((text, "4") for text in texts) == [
        GOOD,
        Grade(0.0, True, "ok"),
        Grade(0.0, False, "ok"),
        Grade(0.0, False, "ok"),
    ]


def test_workers_have_limits_and_no_torch(grader):
    grader.grade(RIGHT)
    look = "[(r := __import__('resource')).getrlimit(r.RLIMIT_AS)[0], r.getrlimit(r.RLIMIT_CORE)[0], 'torch' in __import__('sys').modules]"
    assert grader._pool.schedule(eval, args=(look,)).result() == [pool.WORKER_MEMORY, 0, False]


def test_a_key_is_used_once_and_grade_does_not_mix_with_submissions(grader):
    grader.submit("key", r"\boxed{4}", "4")
    with pytest.raises(ValueError, match="collect results"):
        grader.submit("key", r"\boxed{4}", "4")
    with pytest.raises(ValueError, match="1 submissions wait"):
        grader.grade([])
    assert grader.results() == {"key": GOOD}


def test_plain_numbers_never_start_a_process():
    with Grader("answer_tag", "fast") as grader:
        grades = grader.grade((f"</think> <answer>{number}</answer>", str(number % 500)) for number in range(1000))
        assert sum(grade.reward for grade in grades) == 500
        assert grader._pool is None


def test_starting_a_worker_does_not_count_against_the_first_deadline():
    deadline = 0.25  # seconds; importing sympy and Math-Verify takes longer
    with Grader("boxed", "math_verify", deadline=deadline, workers=1) as grader:
        start = time.monotonic()
        assert grader.grade([(r"\boxed{2x+1}", "1+2x")]) == [GOOD]
        assert time.monotonic() - start > deadline


def test_the_answer_that_kills_its_worker_is_a_crash_and_the_next_one_is_graded():
    others = children()
    with Grader("boxed", "math_verify", deadline=30, workers=1) as grader:
        grader.submit("hangs", HANGING, HALF)
        wait_until_taken_up(grader)
        (worker,) = children() - others
        grader.submit("right", r"\boxed{2x+1}", "1+2x")
        os.kill(worker, signal.SIGKILL)
        assert grader.results() == {"hangs": Grade(0.0, True, "crash"), "right": GOOD}
        (worker,) = children() - others
        os.kill(worker, signal.SIGKILL)  # idle: no answer is to blame, the pool is rebuilt
        time.sleep(0.5)
        assert grader.grade(RIGHT) == [GOOD] * len(RIGHT)


def test_close_kills_a_hanging_worker_at_once():
    others = children()
    grader = Grader("boxed", "math_verify", deadline=60, workers=2)
    grader.submit("hangs", HANGING, HALF)
    wait_until_taken_up(grader)
    workers = children() - others
    assert len(workers) == 2
    start = time.monotonic()
    grader.close()
    assert time.monotonic() - start < 2
    assert children() == others
    assert not any(alive(worker) for worker in workers)
    grader.close()


def test_a_script_whose_workers_cannot_start_is_told_so(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text('from fastgrpo.rewards import Grader\nGrader("boxed", "fast", workers=1).grade([(r"\\boxed{x+1}", "1+x")])\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 1
    assert SetupError.__name__ in done.stderr and "__main__" in done.stderr


@pytest.mark.parametrize("settings", [{"form": "fbox"}, {"verifier": "exact"}, {"deadline": 0}, {"deadline": float("nan")}, {"workers": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        Grader(**{"form": "boxed", "verifier": "fast", **settings})

"""The pool grades in parallel, kills what overruns its deadline, survives the death of workers, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes_seen import alive, children, gone

from fastgrpo.rewards import Grader, pool
from fastgrpo.types import Grade

ROOT = Path(__file__).parents[2]
HANGING = r"\boxed{\int_0^1 \frac{\sin(x)^5 e^{x^2}}{\sqrt{1+x^7}} dx}"  # sympy searches a closed form for minutes
HALF = r"\frac{1}{2}"
RIGHT = [(r"\boxed{2x+1}", "1+2x"), (r"\boxed{7}", "7"), (r"\boxed{\{3,2,1\}}", r"\{1,2,3\}"), (r"\boxed{\frac24}", HALF)]
GOOD = Grade(1.0, True, "ok")


def wait_until_taken_up(grader):
    while not all(pending.future.running() for pending in grader._pending.values()):
        time.sleep(0.01)


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "math_verify", workers=2) as grader:
        yield grader


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
    limits = "[__import__('resource').getrlimit(getattr(__import__('resource'), f'RLIMIT_{name}'))[0] for name in ('AS', 'CORE', 'NPROC')]"
    rest = "[name in __import__('sys').modules for name in ('torch', 'sympy')] + [__import__('os').environ['CUDA_VISIBLE_DEVICES']]"
    seen = grader._processes.schedule(5, eval, f"{limits} + {rest}").result()
    assert seen == [pool.WORKER_MEMORY, 0, 0, False, True, ""]


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
        assert grader._processes is None


def test_starting_workers_does_not_count_against_the_first_deadline():
    deadline = 0.1  # seconds; importing sympy and Math-Verify takes longer
    with Grader("boxed", "math_verify", deadline=deadline, workers=1) as grader:
        start = time.monotonic()
        assert grader.grade([(r"\boxed{2x+1}", "1+2x")]) == [GOOD]
        assert time.monotonic() - start > deadline


def test_the_answer_that_kills_its_worker_is_a_crash_and_the_next_one_is_graded():
    others = children()
    with Grader("boxed", "math_verify", deadline=30, workers=1) as grader:
        grader.submit("hangs", HANGING, HALF)
        wait_until_taken_up(grader)
        (nursery,) = children() - others
        (process,) = children(nursery)
        grader.submit("right", r"\boxed{2x+1}", "1+2x")
        os.kill(process, signal.SIGKILL)
        assert grader.results() == {"hangs": Grade(0.0, True, "crash"), "right": GOOD}
        (process,) = children(nursery)
        os.kill(process, signal.SIGKILL)  # idle: no answer is to blame
        assert gone([process])
        assert grader.grade(RIGHT) == [GOOD] * len(RIGHT)


def test_a_killed_nursery_is_replaced_and_takes_its_workers_with_it():
    others = children()
    with Grader("boxed", "fast", workers=2) as grader:
        assert grader.grade(RIGHT[:2]) == [GOOD] * 2
        (nursery,) = children() - others
        workers = children(nursery)
        os.kill(nursery, signal.SIGKILL)
        assert gone(workers | {nursery})
        assert grader.grade(RIGHT[:2] * 4) == [GOOD] * 8
    assert gone(children() - others)


def test_close_kills_a_hanging_worker_at_once():
    others = children()
    grader = Grader("boxed", "math_verify", deadline=60, workers=2)
    grader.submit("hangs", HANGING, HALF)
    wait_until_taken_up(grader)
    (nursery,) = children() - others
    workers = children(nursery)
    start = time.monotonic()
    grader.close()
    assert time.monotonic() - start < 2
    assert len(workers) >= 1 and gone(workers | {nursery}, seconds=0)
    grader.close()
    assert grader.grade(RIGHT[:1]) == [GOOD]
    grader.close()


def test_workers_die_with_the_program_that_was_killed(tmp_path):
    script = tmp_path / "unguarded.py"  # no `if __name__ == "__main__"` either: workers do not import it
    script.write_text(
        "import sys, time\nfrom fastgrpo.rewards import Grader\n"
        "grader = Grader('boxed', 'math_verify', deadline=60, workers=1)\n"
        "print(grader.grade([(r'\\boxed{x+1}', '1+x')])[0].reward, flush=True)\n"
        f"grader.submit('hangs', r{HANGING!r}, '7')\ntime.sleep(60)\n".replace("\\\\", "\\")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout.readline() == "1.0\n"
        (nursery,) = children(program.pid)
        workers = children(nursery)
        assert workers and all(map(alive, workers))
        program.kill()
        assert gone(workers | {nursery})


@pytest.mark.parametrize(("compat", "rewards"), [(False, [1.0, 0.0, 1.0]), (True, [0.0, 1.0, 0.0])])
def test_compat_reaches_the_worker_the_cheap_decision_and_the_form(compat, rewards):
    by_worker, by_decision, by_form = "55\N{DEGREE SIGN}", "3e-10", "4</answer> x"  # where the paper's grader differs from ours
    with Grader("answer_tag", "fast", workers=1, compat=compat) as grader:
        items = [(f"</think> <answer>{text}</answer>", gold) for text, gold in ((by_worker, "55"), (by_decision, "0"), (by_form, "4"))]
        assert [grade.reward for grade in grader.grade(items)] == rewards


@pytest.mark.parametrize("settings", [{"form": "fbox"}, {"verifier": "exact"}, {"deadline": 0}, {"deadline": float("nan")}, {"workers": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        Grader(**{"form": "boxed", "verifier": "fast", **settings})

"""Worker processes: a task that hangs, dies, forks, floods or eats memory costs itself and its worker, nobody else."""

import os
import threading
import time

import pytest
from processes_seen import children, gone

from fastgrpo.errors import SetupError
from fastgrpo.rewards import worker
from fastgrpo.rewards.nursery import TaskFailed, TaskTimeout, WorkerDied
from fastgrpo.rewards.processes import TASKS_PER_WORKER, Processes


def plain(workers=1):
    """Workers that import nothing."""
    return Processes(workers, f"{worker.__name__}:prepare_nothing", (len, ((),)))


def test_a_process_that_cannot_start_is_a_setup_error_with_its_reason(monkeypatch):
    broken = Processes(1, "fastgrpo.rewards.worker:prepare_backwards", (len, ((),)))
    with pytest.raises(SetupError, match="has no attribute 'prepare_backwards'"):
        broken.schedule(5, len, ()).result()
    broken.close()
    broken = Processes(1, f"{worker.__name__}:prepare_nothing", (int, ("seven",)))
    with pytest.raises(SetupError, match="seven"):
        broken.schedule(5, len, ()).result()
    broken.close()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("__import__('os')._exit(3)", "exit code 3"),
        ("__import__('ctypes').string_at(0)", "SIGSEGV"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "SIGKILL"),
        ("__import__('os').abort()", "SIGABRT"),
    ],
)
def test_a_task_that_ends_its_process_is_told_how_and_the_next_one_runs(code, how):
    tasks = plain()
    try:
        doomed, next_one = tasks.schedule(20, eval, code), tasks.schedule(20, len, (1, 2))
        with pytest.raises(WorkerDied, match=how):
            doomed.result()
        assert next_one.result() == 2
    finally:
        tasks.close()


def test_memory_beyond_the_limit_is_an_error_of_the_task_alone():
    limited = Processes(1, f"{worker.__name__}:prepare_nothing", (worker.limit, (2**28, 60)))
    try:
        with pytest.raises(TaskFailed, match="MemoryError"):
            limited.schedule(20, bytearray, 2**30).result()
        assert len(limited.schedule(20, bytearray, 2**20).result()) == 2**20
    finally:
        limited.close()


SLEEP, EXIT = "__import__('time').sleep(60)", "__import__('os')._exit(0)"  # an end to it, should it outlive the test
FORKS = f"[__import__('os').fork() or ({SLEEP}, {EXIT}) for _ in range(20)] and {SLEEP}"


@pytest.mark.parametrize("ends_by", ["deadline", "close"])
def test_processes_that_a_task_started_die_with_its_worker(ends_by):
    others, tasks = children(), plain()
    try:
        bomb = tasks.schedule(1 if ends_by == "deadline" else 60, eval, FORKS)
        while not (children() - others and any(len(children(process)) >= 20 for process in children(*(children() - others)))):
            time.sleep(0.01)
        (nursery,) = children() - others
        (process,) = children(nursery)
        forked = children(process)
        if ends_by == "close":
            tasks.close()
        with pytest.raises(TaskTimeout if ends_by == "deadline" else WorkerDied):
            bomb.result()
        assert gone({process, *forked})
    finally:
        tasks.close()


def test_workers_are_renewed_and_several_run_at_once():
    tasks = plain(workers=2)
    try:
        pids = [future.result() for future in [tasks.schedule(20, os.getpid) for _ in range(2 * TASKS_PER_WORKER + 2)]]
        assert len(set(pids)) >= 3 and os.getpid() not in pids
        start = time.monotonic()
        assert [future.result() for future in [tasks.schedule(20, time.sleep, 0.5) for _ in range(2)]] == [None, None]
        assert time.monotonic() - start < 0.9
    finally:
        tasks.close()


def test_what_a_task_prints_reaches_no_terminal(capfd):
    tasks = plain()
    try:
        assert (
            tasks.schedule(20, eval, "[print('flood' * 1000) or __import__('os').write(2, b'flood') for _ in range(1000)] and 7").result()
            == 7
        )
    finally:
        tasks.close()
    assert capfd.readouterr() == ("", "")


def test_a_stopped_worker_overruns_its_deadline_like_a_hanging_one():
    tasks = plain()
    try:
        with pytest.raises(TaskTimeout):
            tasks.schedule(0.5, eval, "__import__('os').kill(__import__('os').getpid(), 19)").result()
        with pytest.raises(TaskFailed, match="cannot be sent"):
            tasks.schedule(5, len, threading.Lock()).result()
        assert tasks.schedule(5, len, ()).result() == 0
    finally:
        tasks.close()

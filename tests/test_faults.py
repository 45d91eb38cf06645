"""Faults happen at their point, step and rank and nowhere else, and never without the variable."""

import signal
import subprocess
import sys
import time

import pytest

from fastgrpo.faults import VARIABLE, InjectedFault, fault


@pytest.fixture
def plan(monkeypatch):
    """Sets the plan and this process's rank."""

    def to(plans: str, rank: str = "0") -> None:
        monkeypatch.setenv(VARIABLE, plans)
        monkeypatch.setenv("RANK", rank)

    return to


@pytest.mark.parametrize("point", ["sample", "grade", "learn", "save", "evaluate"])
def test_nothing_happens_without_the_variable(point, monkeypatch):
    for text in (None, ""):
        monkeypatch.delenv(VARIABLE, raising=False)
        if text is not None:
            monkeypatch.setenv(VARIABLE, text)
        assert fault(point, 1) is False


@pytest.mark.parametrize(
    ("plans", "hit"),
    [
        ("learn@3:1:nan", True),
        ("learn@*:1:nan", True),
        ("learn@3:*:nan", True),
        ("learn@*:*:nan", True),
        ("learn@2:1:nan", False),
        ("learn@33:1:nan", False),
        ("learn@3:0:nan", False),
        ("learn@3:11:nan", False),
        ("sample@3:1:nan", False),
        ("sample@3:1:raise,learn@2:*:kill,learn@3:1:nan", True),
    ],
)
def test_a_plan_strikes_at_its_point_step_and_rank_alone(plans, hit, plan):
    plan(plans, rank="1")
    assert fault("learn", 3) is hit


def test_a_process_without_a_rank_is_rank_0(plan, monkeypatch):
    plan("learn@3:0:nan")
    monkeypatch.delenv("RANK")
    assert fault("learn", 3)


def test_raise_raises_and_names_the_plan(plan):
    plan("grade@2:*:raise")
    with pytest.raises(InjectedFault, match="grade@2"):
        fault("grade", 2)


@pytest.mark.parametrize("text", ["learn", "learn@3", "learn@3:0", "learn@3:0:explode", "lern@3:0:nan", "learn@x:0:nan", "learn@3:0:nan,"])
def test_a_plan_that_cannot_be_read_is_an_error_at_the_first_point_passed(text, plan):
    plan(text)
    with pytest.raises(ValueError, match=f"{VARIABLE}: .* is not of the form"):
        fault("evaluate", 1)


def child(plans: str) -> subprocess.Popen:
    code = "from fastgrpo.faults import fault; print('before', flush=True); fault('save', 1); print('after', flush=True)"
    return subprocess.Popen([sys.executable, "-c", code], env={VARIABLE: plans, "PYTHONPATH": ":".join(sys.path)}, stdout=subprocess.PIPE)


def test_kill_ends_the_process_where_it_stands():
    process = child("save@1:0:kill")
    assert process.communicate(timeout=60)[0] == b"before\n"
    assert process.returncode == -signal.SIGKILL


def test_slow_goes_on_after_a_while(plan, monkeypatch):
    plan("save@1:0:slow")
    monkeypatch.setattr("fastgrpo.faults.SLOW", 0.2)
    started = time.monotonic()
    assert fault("save", 1) is False
    assert time.monotonic() - started >= 0.2


def test_hang_neither_ends_nor_goes_on():
    with child("save@1:0:hang") as process:
        assert process.stdout.readline() == b"before\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        process.kill()
        assert process.stdout.read() == b""

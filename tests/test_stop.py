"""Signals and deadlines are answered at the next point where a run can be saved, on all ranks; a second signal ends at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from fastgrpo import stop as stop_module
from fastgrpo.errors import Preempted
from fastgrpo.ranks import Ranks
from fastgrpo.stop import SIGNALS, Stop


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that tests set."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(stop_module, "time", clock)
    return clock


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_answered_at_the_next_point(number, capfd):
    before = signal.getsignal(number)
    with Stop() as stop:
        stop.require_more(Ranks(), 0.0)
        os.kill(os.getpid(), number)
        with pytest.raises(Preempted, match=number.name):
            stop.require_more(Ranks(), 0.0)
    assert signal.getsignal(number) is before
    assert f"fastgrpo: {number.name}: saving at the end of this phase" in capfd.readouterr().err


def test_what_a_launcher_sends_twice_is_one_signal():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == "SIGTERM"


@pytest.mark.parametrize(
    ("second", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1), (signal.SIGINT, "interrupted")]
)
def test_a_second_signal_ends_at_once(second, code):
    program = f"""
import os, time
from fastgrpo.stop import Stop
with Stop():
    os.kill(os.getpid(), {int(signal.SIGTERM)})
    time.sleep(1.1)
    try:
        os.kill(os.getpid(), {int(second)})
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert code in (done.returncode, done.stdout.strip())


def test_a_signal_that_is_ignored_stays_so():
    """As with Ctrl-C for a job in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal == ""
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_signals_are_left_alone():
    def enter():
        with Stop() as stop:
            stop.require_more(Ranks(), 0.0)
        passed.append(True)

    passed, thread = [], threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert passed


def test_one_rank_that_was_told_stops_all(monkeypatch):
    monkeypatch.setattr(Ranks, "gather", lambda self, mine: [mine, "SIGUSR1"])
    with pytest.raises(Preempted, match="SIGUSR1"):
        Stop().require_more(Ranks(0, 2), 0.0)


def test_before_a_deadline_there_is_time_for_the_longest_stretch_and_a_save(clock):
    stop = Stop(before=100.0)
    for now in (10.0, 30.0, 45.0):  # the longest stretch so far is 20
        clock.now = 100.0 + now
        stop.require_more(Ranks(), 8.0)
    clock.now = 100.0 + 100.0 - 1.25 * 28.0 - 5.0 - 0.1
    stop.longest = 20.0
    stop.last_point = clock.now
    stop.require_more(Ranks(), 8.0)
    clock.now += 0.2
    with pytest.raises(Preempted, match=r"checkpoint\.before is near"):
        stop.require_more(Ranks(), 8.0)


def test_without_a_deadline_any_time_is_early(clock):
    stop = Stop()
    clock.now += 1e9
    stop.require_more(Ranks(), 1e9)

"""A directory has one owner: another is told who, and a lock ends with its process, however that ends."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fastgrpo.errors import InputError
from fastgrpo.lock import Lock

HOLD = """
import subprocess, sys, time
from pathlib import Path
from fastgrpo.lock import Lock
lock = Lock(Path(sys.argv[1]))
subprocess.Popen(["sleep", "3"])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock, and has a child that outlives it."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_owner_is_named(path, holder):
    with pytest.raises(InputError, match=rf'is in use by .*"process": {holder.pid}, "host": .*: wait for it, end it, or choose another'):
        Lock(path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_is_free(path, holder, number):
    os.kill(holder.pid, number)
    holder.wait()
    Lock(path).close()


def test_what_a_dead_process_left_holds_nobody_off_and_is_replaced(path):
    path.write_text(json.dumps({"process": 1, "host": "elsewhere", "since": "2020-01-01 00:00:00, long ago, in many more words than now"}))
    lock = Lock(path)
    owner = json.loads(path.read_text())
    assert owner["process"] == os.getpid() and owner["since"].startswith(time.strftime("%Y-%m-"))
    lock.close()


def test_within_a_process_it_excludes_as_well_until_closed(path):
    lock = Lock(path)
    with pytest.raises(InputError, match=f'"process": {os.getpid()}'):
        Lock(path)
    lock.close()
    Lock(path).close()

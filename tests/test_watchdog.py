"""A process that stands still is ended with the name of what it was doing, in a phase or outside of one."""

import subprocess
import sys

import pytest

PROGRAM = """
import time
from fastgrpo import watchdog
watchdog.OUTSIDE = 1.0
with watchdog.Watchdog(3, 0.4) as dog:
    {body}
print("done")
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("dog.stage('loading the model'); time.sleep(60)", "rank 3 hangs: the phase 'loading the model' has taken 1 s, and may take 1"),
        ("with dog.phase('sample'): time.sleep(60)", "rank 3 hangs: the phase 'sample' has taken"),
        ("with dog.phase('sample'): pass\n    time.sleep(60)", "rank 3 hangs: the phase 'between phases' has taken"),
        ("with dog.phase('sample'): time.sleep(0.2)\n    dog.stage('saving'); time.sleep(0.7)", ""),
    ],
)
def test_what_takes_too_long_is_ended_and_named(body, words):
    program = PROGRAM.format(body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == ((1, "") if words else (0, "done\n"))
    assert words in done.stderr and ('File "<string>"' in done.stderr or not words)

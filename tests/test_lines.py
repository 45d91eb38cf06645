"""Lines are appended in order, once each; a full disk delays them, and what a killed process left of one is no line."""

import json
import resource
import subprocess
import sys

import pytest

from fastgrpo.lines import Lines, cut_lines, read_lines


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def steps(path) -> list[int]:
    return [row["step"] for row in read_lines(path)]


def test_lines_are_there_at_once_and_in_order(path):
    lines = Lines(path)
    for step in range(3):
        assert lines.append({"step": step, "text": "a\nb\r\u2028"}) is None
        assert steps(path) == list(range(step + 1))
    again = Lines(path)  # after a restart
    again.append({"step": 3})
    assert steps(path) == [0, 1, 2, 3]


def test_a_full_disk_delays_lines_and_neither_loses_nor_doubles_any(path, monkeypatch):
    lines = Lines(path)
    monkeypatch.setenv("FASTGRPO_FAULTS", "metrics@2:0:full,metrics@3:0:full")
    failed = [lines.append({"step": step}) is not None for step in range(1, 6)]
    assert failed == [False, True, True, False, False]
    assert steps(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("ends", ["flush", "close"])
def test_what_waits_is_tried_again_before_a_checkpoint_and_at_the_end(path, monkeypatch, ends):
    lines = Lines(path)
    monkeypatch.setenv("FASTGRPO_FAULTS", "metrics@*:*:full")
    assert "No space left" in str(lines.append({"step": 1}))
    assert steps(path) == []
    getattr(lines, ends)()
    assert steps(path) == [1]


class Narrow:
    """A file that takes a few bytes at a time, and after some fails for once: a disk that fills up."""

    def __init__(self, file):
        self.file, self.left = file, 25

    def write(self, content: bytes) -> int:
        taken, self.left = min(7, len(content), self.left), self.left - min(7, len(content))
        if taken <= 0:
            self.left = 1000
            raise OSError(28, "No space left on device")
        return self.file.write(content[:taken])

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()


def test_a_disk_that_takes_only_a_part_gets_the_rest_later(path):
    lines = Lines(path)
    lines.file = Narrow(lines.file)
    for step in range(1, 7):
        lines.append({"step": step})
        assert steps(path) == list(range(1, len(steps(path)) + 1))  # whole lines, in order, whatever is on the disk
    for _ in range(40):
        lines.flush()
    assert path.read_text() == "".join(json.dumps({"step": step}) + "\n" for step in range(1, 7))


def test_a_limit_of_the_system_on_the_file_behaves_the_same(path):
    code = f"""
import resource, signal
from pathlib import Path
from fastgrpo.lines import Lines
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lines = Lines(Path({str(path)!r}))
resource.setrlimit(resource.RLIMIT_FSIZE, (30, resource.RLIM_INFINITY))
print([lines.append({{"step": step}}) is not None for step in range(1, 5)])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(lines.append({{"step": 5}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[False, False, True, True]", "None"], done.stderr
    assert steps(path) == [1, 2, 3, 4, 5]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # that was another process


def test_a_torn_last_line_is_no_line(path):
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert steps(path) == [1, 2]


@pytest.mark.parametrize(("rows", "left"), [(0, []), (1, [1]), (2, [1, 2]), (9, [1, 2])])
def test_cutting_keeps_whole_lines_and_says_how_many(path, tmp_path, rows, left):
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    for into in (tmp_path / "other.jsonl", path):
        assert cut_lines(path, rows, into) == len(left)
        assert steps(into) == left
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "other.jsonl"]


def test_without_a_file_there_are_no_lines(path):
    assert cut_lines(path, 3, path) == 0 and path.read_bytes() == b""

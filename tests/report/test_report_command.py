"""`fastgrpo report` and `fastgrpo compare` from the command line, also where a run is no run."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from synthetic import write_rollouts, write_run


def fastgrpo(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "fastgrpo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "160"})


@pytest.fixture
def run(tmp_path):
    made = write_run(tmp_path / "run", 3, finished=False)
    write_rollouts(made / "rollouts" / "step_000001.parquet", 1, 8)
    return made


def test_a_report_lies_in_its_run_or_where_it_is_asked_for(run, tmp_path):
    done = fastgrpo("report", run)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(rf"{re.escape(str(run))}/report\.html: 1 run, 8 of 8 responses, \d\.\d MB\n", done.stdout)
    assert fastgrpo("report", run, "--out", tmp_path / "new" / "page.html").returncode == 0
    assert (tmp_path / "new" / "page.html").read_text().startswith("<!doctype html>")


def test_compare_in_the_terminal_and_as_json(run, tmp_path):
    other = write_run(tmp_path / "other", 3, settings=("loss.type=grpo",))
    done = fastgrpo("compare", run, other)
    assert done.returncode == 0 and re.search(r"loss\.type +dr_grpo +grpo", done.stdout)
    assert "Reward: mean" in done.stdout and "intervals overlap" in done.stdout
    found = json.loads(fastgrpo("compare", run, other, "--json").stdout)
    assert [each["name"] for each in found["runs"]] == ["run", "other"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "missing"), "missing: no such directory"),
        (("report", "."), ". is no run but holds some: name one or more of run"),
        (("compare", "run", "missing"), "missing: no such directory"),
        (("compare", "run", "run"), "the same run"),
        (("report", "run", "--serve", "--out", "x.html"), "--out goes without --serve"),
        (("report", "run", "--port", "1"), "--port goes with --serve alone"),
    ],
)
def test_what_makes_no_sense_ends_with_one_line_and_2(run, monkeypatch, arguments, words):
    monkeypatch.chdir(run.parent)
    done = fastgrpo(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_serve_says_where_and_ends_with_ctrl_c(run):
    command = [sys.executable, "-m", "fastgrpo", "report", str(run), "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        url = re.match(r"(http://localhost:\d+) shows", process.stdout.readline())[1]
        assert json.load(urllib.request.urlopen(f"{url}/data.json", timeout=30))["live"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == ""

"""Trackers that are missing, raise, die, hang, crawl, or print: the run is told once, loses no time and no number of its own.

A stand-in package in the place of trackio misbehaves in ways that no real one can be made to; MLflow's own client meets bad servers.
"""

import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from outcomes import differences, outcome
from test_trainer import SMALL, Silent, easy_reward, letter_problems

from fastgrpo import trackers
from fastgrpo.config import load_config
from fastgrpo.errors import SetupError
from fastgrpo.launch import launch
from fastgrpo.trackers import mirror
from fastgrpo.trackers.mirror import Mirrors
from fastgrpo.trackers.process import hidden

__all__ = ["easy_reward", "letter_problems"]
PACKAGE = """
import os, sys, time, warnings
class Run:
    def log(self, numbers, step):
        print("noise")
        {log}
    def finish(self):
        {finish}
def init(**settings):
    {init}
    return Run()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a package into the place of trackio; parts of it are given as code."""

    def write(first="", init="pass", log="pass", finish="pass"):
        folder = tmp_path / "packages"
        folder.mkdir(exist_ok=True)
        (folder / "trackio.py").write_text(first + PACKAGE.format(init=init, log=log, finish=finish))
        monkeypatch.syspath_prepend(folder)

    monkeypatch.setattr(mirror, "CLOSING_SECONDS", 3.0)
    monkeypatch.setattr(mirror, "PAUSE_SECONDS", 0.2)
    return write


def shown(names, home, rows=3, failed=False):
    """What is said of `rows` rows, and the seconds that they and the end took."""
    said, seconds = [], []
    mirrors = Mirrors(names, home)
    mirrors.require_usable()
    home.mkdir(exist_ok=True)
    mirrors.start("run", {"lr": 1.0}, 0)
    for step in range(rows):
        started = time.monotonic()
        mirrors.row({"step": step, "reward": 0.5}, said.append)
        seconds.append(time.monotonic() - started)
    started = time.monotonic()
    mirrors.close(failed, said.append)
    return said, max(seconds), time.monotonic() - started


def test_a_tracker_that_is_not_installed_is_refused_with_the_line_to_install_it(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r'names wandb, which is not installed: pip install "fastgrpo\[wandb\]"$'):
        launch(load_config("tiny", ["log.trackers=[wandb]"]), Silent())


def test_a_tracker_that_cannot_be_imported_is_refused_before_anything_is_written(tmp_path, tiny_model_dir, letter_problems, stand_in):
    stand_in(first="raise ImportError('protobuf is too old')")
    settings = [*SMALL, f"model={tiny_model_dir}", f"data.train={letter_problems}", "data.eval=[]", f"run_dir={tmp_path / 'run'}"]
    with pytest.raises(SetupError, match=r"names trackio, which cannot be used: ImportError: protobuf is too old. .*pip install"):
        launch(load_config("tiny", [*settings, "log.trackers=trackio"]), Silent())
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupError, match="it has no key: run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline"):
        Mirrors(["wandb"], tmp_path / "trackers").require_usable()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"init": "raise OSError('no server')"}, ["cannot start: OSError: no server", "may lack 3 rows"]),
        ({"log": "raise ValueError('500')"}, ["refused a row: ValueError: 500", "may lack 3 rows"]),
        ({"log": "warnings.warn('it is lost')"}, ["refused a row: RuntimeError: it is lost", "may lack 3 rows"]),
        ({"log": "warnings.warn('in old age', DeprecationWarning)"}, []),
        ({"log": "os._exit(7)"}, ["its process ended with code 7", "may lack 3 rows"]),
        ({"log": "os.kill(os.getpid(), 9)"}, ["its process ended with code -9", "may lack 3 rows"]),
        ({"log": "sys.exit('enough')"}, ["refused a row: SystemExit: enough", "may lack 3 rows"]),
        ({"log": "time.sleep(1e6)"}, ["did not end in time and was left", "may lack"]),
        ({"init": "time.sleep(1e6)"}, ["did not end in time and was left", "may lack 3 rows"]),
        ({"finish": "time.sleep(1e6)"}, ["did not end in time and was left"]),
        ({"finish": "raise ValueError('late')"}, ["did not end well: ValueError: late"]),
        ({}, []),
    ],
)
def test_each_fault_is_said_once_and_keeps_nobody_waiting(fault, words, tmp_path, stand_in, capfd):
    stand_in(**fault)
    said, longest, closing = shown(["trackio"], tmp_path / "trackers")
    assert len(said) == len(words) and all(word in line for word, line in zip(words, said, strict=True)), said
    assert all(line.startswith("WARNING: the tracker trackio ") for line in said)
    assert longest < 0.5 and closing < 10
    assert capfd.readouterr() == ("", "")


def test_a_start_that_fails_at_first_loses_no_row(tmp_path, stand_in):
    stand_in(
        init="open(os.environ['TRACKIO_DIR'] + '.tries', 'a').write('x')\n    "
        "if os.path.getsize(os.environ['TRACKIO_DIR'] + '.tries') < 3: raise OSError('not yet')",
        log="open(os.environ['TRACKIO_DIR'] + '.rows', 'a').write(f'{step} {numbers}|')",
    )
    mirrors, said = Mirrors(["trackio"], tmp_path), []
    mirrors.require_usable()
    mirrors.start("run", {}, 0)
    for step in range(3):
        mirrors.row({"step": step, "reward": step / 4}, said.append)
    until = time.monotonic() + 20
    while not (tmp_path / "trackio.rows").exists() and time.monotonic() < until:
        time.sleep(0.05)
    mirrors.close(False, said.append)
    assert (tmp_path / "trackio.rows").read_text() == "0 {'reward': 0.0}|1 {'reward': 0.25}|2 {'reward': 0.5}|"
    (line,) = said
    assert "cannot start: OSError: not yet" in line


def test_a_run_that_failed_does_not_wait_long(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(mirror, "CLOSING_SECONDS", 60.0)
    monkeypatch.setattr(mirror, "STOPPING_SECONDS", 1.0)
    stand_in(finish="time.sleep(1e6)")
    said, _, closing = shown(["trackio"], tmp_path / "trackers", failed=True)
    assert "did not end in time" in said[0] and closing < 10


def test_more_rows_than_may_wait_are_left_out_and_counted(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(mirror, "WAITING_ROWS", 5)
    stand_in(init="time.sleep(1e6)")
    said, longest, _ = shown(["trackio"], tmp_path / "trackers", rows=20)
    assert "is too slow: 5 rows wait for it" in said[0] and "may lack 20 rows" in said[-1] and len(said) == 3 and longest < 0.5


@pytest.mark.slow  # 8 s
def test_a_run_under_a_hanging_tracker_is_the_run_without_it(tmp_path, tiny_model_dir, letter_problems, easy_reward, stand_in):
    stand_in(log="time.sleep(1e6)")
    found = []
    for name, chosen in (("plain", "[]"), ("tracked", "trackio")):
        settings = [*SMALL, f"model={tiny_model_dir}", f"data.train={letter_problems}", "data.eval=[]", f"run_dir={tmp_path / name}"]
        launch(load_config("tiny", [*settings, f"log.trackers={chosen}"]), Silent())
        found.append(outcome(tmp_path / name))
    assert differences(*found) == []
    assert "did not end in time and was left" in (tmp_path / "tracked" / "logs" / "rank_0.log").read_text()


class Failing(BaseHTTPRequestHandler):
    """Answers with 500, or, where the server's `hangs` is set, never."""

    def do_POST(self):
        self.server.asked += 1
        if self.server.hangs:
            time.sleep(60)
        self.send_error(500)

    do_GET = do_POST

    def log_message(self, *_): ...


@pytest.mark.slow  # 6 s
@pytest.mark.parametrize("hangs", [False, pytest.param(True, marks=pytest.mark.long)])
def test_mlflow_whose_server_fails_or_hangs_costs_nothing_but_its_rows(hangs, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "CLOSING_SECONDS", 4.0)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Failing) as server:
        server.daemon_threads, server.block_on_close, server.hangs, server.asked = True, False, hangs, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:planted@127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        said, longest, closing = shown(["mlflow"], tmp_path / "trackers")
        server.shutdown()
    assert server.asked and longest < 0.5 and closing < 15
    assert ("did not end in time" if hangs else "cannot start: MlflowException") in said[0] and "may lack 3 rows" in said[-1]
    assert len(said) == 2 and "planted" not in json.dumps(said)


def test_what_trackers_say_holds_no_key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "planted-key")
    assert hidden("401 for planted-key at https://me:pass@host/x") == "401 for (WANDB_API_KEY) at https://host/x"


def test_no_process_is_left_behind(tmp_path, stand_in):
    stand_in(log="open(os.environ['TRACKIO_DIR'] + '.pid', 'w').write(str(os.getpid())); time.sleep(1e6)")
    mirrors = Mirrors(["trackio"], tmp_path)
    mirrors.require_usable()
    mirrors.start("run", {}, 0)
    mirrors.row({"step": 0, "reward": 1.0}, print)
    until = time.monotonic() + 20
    while not ((tmp_path / "trackio.pid").exists() and (tmp_path / "trackio.pid").read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    mirrors.close(False, lambda text: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "trackio.pid").read_text()), 0)


def test_the_tracker_of_a_killed_run_finishes_what_it_was_given_and_ends(tmp_path, stand_in):
    stand_in(
        first="import os; place = os.environ['TRACKIO_DIR']",
        log="open(place + '.begun', 'w'); time.sleep(0.3); open(place + '.rows', 'a').write(f'{step}|')",
        finish="open(os.environ['TRACKIO_DIR'] + '.end', 'w').write(str(os.getpid()))",
    )
    code = (
        f"import sys, os, time; sys.path[:] = {sys.path!r}\n"
        "from pathlib import Path\n"
        "from fastgrpo.trackers.mirror import Mirrors\n"
        f"mirrors = Mirrors(['trackio'], Path({str(tmp_path)!r}))\n"
        "mirrors.require_usable(); mirrors.start('run', {}, 0); mirrors.row({'step': 7, 'reward': 1.0}, print)\n"
        f"while not os.path.exists({str(tmp_path / 'trackio.begun')!r}): time.sleep(0.02)\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    until = time.monotonic() + 20
    while not ((tmp_path / "trackio.end").exists() and (tmp_path / "trackio.end").read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / "trackio.rows").read_text() == "7|"
    pid = int((tmp_path / "trackio.end").read_text())
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()

"""A run that was interrupted and resumed ends as one that was not: weights, optimizer state, rows, responses, evaluations, pointers."""

import itertools
import os
import time

import pytest
from outcomes import differences, outcome
from resuming import rows, runs, undisturbed
from rich.console import Console
from test_trainer import easy_reward

from fastgrpo.checkpoint import steps
from fastgrpo.display import TRAINING, PlainDisplay
from fastgrpo.errors import HealthError, Preempted, SetupError
from fastgrpo.faults import InjectedFault
from fastgrpo.manifest import flaw

__all__ = ["easy_reward", "runs", "undisturbed"]

CRASHES = ["sample@5", "grade@4", "learn@5", "evaluate@4", "evaluate@6", "save@6", "write@14", "learn@2", "evaluate@0"]


def saved(directory) -> list[int]:
    return [step for step, _ in steps(directory / "checkpoints")]


@pytest.mark.parametrize("point", CRASHES)
def test_after_a_crash(runs, undisturbed, point):
    """The last crash is before any checkpoint: the run starts over in its directory."""
    with pytest.raises(InjectedFault):
        runs("run", faults=f"{point}:0:raise")
    told = runs("run", resume="auto")
    assert ("starts over" in told) == (point == "evaluate@0")
    assert differences(undisturbed, outcome(runs / "run")) == []


@pytest.mark.parametrize(
    "point", ["evaluate@0", "sample@1", "sample@4", "grade@5", "learn@4", "evaluate@4", "save@3", "learn@6", "evaluate@6"]
)
def test_a_signal_in_any_phase_saves_once_and_ends_with_75(runs, undisturbed, point):
    name, step = point.split("@")
    with pytest.raises(Preempted, match="SIGTERM") as told:
        runs("run", faults=f"{point}:0:stop")
    assert told.value.exit_code == 75
    done = int(step) - (name in ("sample", "grade"))
    assert saved(runs / "run")[0] == done and flaw(runs / "run" / "checkpoints" / "latest") is None
    assert (runs / "run" / "checkpoints" / "latest").readlink().name == f"step_{done}"
    assert not (runs / "run" / "summary.json").exists()
    runs("run", resume="auto")
    assert differences(undisturbed, outcome(runs / "run")) == []


def test_again_and_again(runs, undisturbed):
    with pytest.raises(Preempted):
        runs("run", faults="learn@1:0:stop")
    for step in (2, 3, 4, 5, 6):
        with pytest.raises(Preempted):
            runs("run", resume="auto", faults=f"learn@{step}:0:stop")
    assert len(rows(runs / "run")) == 9 and saved(runs / "run")[:2] == [6, 5]
    runs("run", resume="auto")
    assert differences(undisturbed, outcome(runs / "run")) == []


def test_a_deadline_is_met_with_a_checkpoint(runs, monkeypatch):
    monkeypatch.setattr("fastgrpo.stop.SPARE_SECONDS", 0.0)
    started = time.monotonic()
    with pytest.raises(Preempted, match=r"checkpoint\.before is near"):
        runs("run", "checkpoint.before=3", "steps=1000", "eval.every=0")
    assert time.monotonic() - started < 3.5
    assert saved(runs / "run")[0] == rows(runs / "run")[-1]["step"] > 1


def test_a_torn_last_line_and_files_of_later_steps_are_mended(runs, undisturbed):
    with pytest.raises(InjectedFault):
        runs("run", faults="learn@6:0:raise")
    with (runs / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "upda')
    (runs / "run" / "metrics.jsonl.tmp").write_text("half")
    (runs / "run" / "rollouts" / "step_000006.parquet").write_bytes(b"PAR1half")
    (runs / "run" / "evals" / "step_000099.parquet").write_bytes(b"PAR1half")
    runs("run", resume="auto")
    assert differences(undisturbed, outcome(runs / "run")) == []


def test_lost_rows_are_told_of_and_nothing_is_doubled(runs):
    with pytest.raises(InjectedFault):
        runs("run", faults="learn@4:0:raise")
    metrics = runs / "run" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:2]))  # as a loss of power can leave it
    assert "holds only 2 of the 5 rows" in runs("run", "steps=5", resume="auto")
    (runs / "run" / "metrics.jsonl").open("a").write('{"step": 6}\n')
    runs("run", resume="auto")
    found = [(row["step"], "evaluation" in row) for row in rows(runs / "run")]
    assert found == sorted(set(found), key=lambda pair: (pair[0], pair[1])) and found[-1] == (6, True)


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_jump_of_the_clock_changes_nothing(runs, undisturbed, monkeypatch, jump):
    honest, count = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: honest() + jump * (next(count) % 2))
    runs("run")
    assert differences(undisturbed, outcome(runs / "run")) == []
    assert all(seconds >= 0 for row in rows(runs / "run") for seconds in row["seconds"].values())


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_not_the_run(runs, undisturbed):
    told = runs("run", "checkpoint.best=none", faults="metrics@3:0:full,write@2:0:full,rollouts@4:0:full")
    assert "WARNING: step 3: a checkpoint cannot be written" in told and "lines wait in memory" in told
    assert saved(runs / "run") == [6]
    found = outcome(runs / "run")
    assert found["weights"] == undisturbed["weights"] and len(found["rows"]) == len(undisturbed["rows"])
    assert len(found["rollouts"]) == 5


def test_the_last_checkpoint_has_to_be_written(runs):
    with pytest.raises(SetupError, match=r"a checkpoint cannot be written: .*No space left"):
        runs("run", "checkpoint.best=none", "checkpoint.every=0", faults="write@*:0:full")
    assert os.listdir(runs / "run" / "checkpoints") == []


def test_counts_of_health_go_on(runs):
    """Two of three updates in a row without a finite gradient were before the interruption."""
    one = ("updates_per_rollout=1", "checkpoint.every=1", "health.skipped_updates=3")
    with pytest.raises(Preempted):
        runs("run", *one, faults="learn@1:0:nan,learn@2:0:nan,grade@3:0:stop")
    with pytest.raises(HealthError, match="3 updates in a row had no finite gradient"):
        runs("run", *one, resume="auto", faults="learn@3:0:nan")


def test_the_time_left_is_told_by_the_steps_of_this_process(monkeypatch):
    display, clock = PlainDisplay(Console(), TRAINING), iter([0.0, 60.0, 120.0])
    monkeypatch.setattr("fastgrpo.display.time.monotonic", lambda: next(clock))
    display.begin("tiny", 104)
    display.phase("sample")
    assert [display.time_left(step) for step in (101, 102)] == ["3:00", "2:00"]

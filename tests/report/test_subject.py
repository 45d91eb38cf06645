"""What a directory is, and what is left of a run that goes on, failed, or was torn."""

import json
from pathlib import Path

import pytest
from synthetic import write_run

from fastgrpo.errors import InputError
from fastgrpo.lock import Lock
from fastgrpo.report.subject import find_runs, read_run


def test_the_state_of_a_run_follows_from_its_lock_its_summary_and_its_log(tmp_path):
    run = write_run(tmp_path / "run", 3, finished=False)
    lock = Lock(run / "lock")
    assert (read_run(run).state, read_run(run).said) == ("running", "running: 3 of 3 steps are done")
    lock.close()
    (run / "logs" / "rank_0.log").write_text("1.00 s  stopped: HealthError: step 3: nothing\n2.00 s  later\n")
    assert (read_run(run).state, read_run(run).said) == ("stopped", "stopped after 3 of 3 steps: HealthError: step 3: nothing")
    (run / "summary.json").write_text('{"steps": 3}')
    assert (read_run(run).state, read_run(run).said) == ("finished", "finished: 3 of 3 steps")


def test_a_run_of_another_machine_may_still_go_on(tmp_path):
    run = write_run(tmp_path / "run", 3, finished=False)
    (run / "lock").write_text('{"host": "far.example"}')
    assert (
        read_run(run).said == "stopped after 3 of 3 steps: it left no reason, or still runs on far.example, which cannot be seen from here"
    )


def test_looking_at_a_run_does_not_keep_it_from_going_on(tmp_path):
    run = write_run(tmp_path / "run", 1)
    read_run(run)
    Lock(run / "lock").close()


def test_a_run_that_failed_before_its_first_step_is_empty_and_says_why(tmp_path):
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("")
    (run / "logs" / "rank_0.log").write_text("0.1 s  stopped: SetupError: no space\n")
    found = read_run(run)
    assert found.state == "empty" and found.said == "stopped after 0 steps: SetupError: no space"
    assert found.rows == [] and found.notes == ("config.yaml is missing or empty: the run stopped before it was written",)


def test_torn_and_broken_lines_are_left_out_and_numbers_that_are_not_finite_become_none(tmp_path):
    run = write_run(tmp_path / "run", 2)
    lines = [
        '{"step": 1, "reward": NaN, "updates": [{"grad_norm": Infinity}]}',
        "{broken",
        "[1]",
        '{"step": 2, "reward": 0.5}',
        '{"step": 3',
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    found = read_run(run)
    assert found.rows == [{"step": 1, "reward": None, "updates": [{"grad_norm": None}]}, {"step": 2, "reward": 0.5}]
    assert found.notes == ("metrics.jsonl: 2 lines are no JSON object and left out, the first is line 2",)


def test_what_is_no_run_is_refused_with_what_it_is(tmp_path):
    write_run(tmp_path / "runs" / "one", 1)
    evaluation, empty = tmp_path / "evals", tmp_path / "empty"
    for path in (evaluation, empty):
        path.mkdir()
    (evaluation / "protocol.json").write_text('{"model": "x"}')
    for path, words in (
        (tmp_path / "missing", "no such directory"),
        (tmp_path / "runs" / "one" / "config.yaml", "is a file"),
        (evaluation, "holds an evaluation or analysis, not a run"),
        (tmp_path / "runs", "is no run but holds some: name one or more of one"),
        (empty, "neither config.yaml nor metrics.jsonl"),
    ):
        with pytest.raises(InputError, match=words):
            find_runs([str(path)])


def test_an_experiment_stands_for_its_runs_and_no_run_comes_twice(tmp_path):
    (tmp_path / "protocol.json").write_text(json.dumps({"experiment": "bias"}))
    with pytest.raises(InputError, match="without runs yet"):
        find_runs([str(tmp_path)])
    runs = [write_run(tmp_path / "runs" / name, 1) for name in ("grpo-0", "dr_grpo-0")]
    assert sorted(find_runs([str(tmp_path), str(runs[0])])) == sorted(runs)
    assert find_runs([str(runs[0]), str(Path(runs[0]) / ".")]) == [runs[0]]

"""`fastgrpo experiment`: real runs from the command to the figure, gone on with and never repeated; the paper's runs as files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastgrpo.config import load_config
from fastgrpo.errors import FastgrpoError, InputError
from fastgrpo.experiments.collect import curve, value
from fastgrpo.experiments.definition import Experiment, Measure, load_experiment, names
from fastgrpo.experiments.figure import mean_curves
from fastgrpo.experiments.runs import command
from fastgrpo.experiments.scale_paper import write_paper
from fastgrpo.experiments.scale_toy import planned, toy_settings

ROWS = [
    {"step": 0, "evaluation": {"greedy": {"set": {"accuracy": 0.1}}}},
    {"step": 1, "length_wrong": 10.0},
    {"step": 2, "length_wrong": None},
    {"step": 3, "length_wrong": 30.0},
    {"step": 3, "evaluation": {"greedy": {"set": {"accuracy": 0.7}}, "sampled": {"set": {"accuracy": 0.6}}}},
]


def experiment(*arguments: object) -> subprocess.CompletedProcess:
    given = [sys.executable, "-m", "fastgrpo", "experiment", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_measure_is_a_mean_over_the_last_steps_or_the_last_evaluation():
    assert value(Measure(label="", column="length_wrong", last=2), ROWS) == 30.0  # a step without wrong answers has no length of them
    assert value(Measure(label="", column="length_wrong", last=3), ROWS) == 20.0
    assert value(Measure(label="", column="accuracy", set="set"), ROWS) == 0.7
    assert curve(Measure(label="", column="accuracy", set="set"), ROWS) == [(0, 0.1), (3, 0.7)]
    assert value(Measure(label="", column="accuracy", set="other"), ROWS) is None


def test_a_mean_curve_is_over_the_seeds_that_have_the_step():
    curves = {"an-arm-0": [(1, 1.0), (2, None)], "an-arm-1": [(1, 3.0), (2, 5.0)], "other-0": [(1, 7.0)]}
    assert mean_curves(curves) == {"an-arm": [(1, 2.0), (2, 5.0)], "other": [(1, 7.0)]}


@pytest.mark.parametrize("name", names())
def test_every_arm_is_a_valid_run_at_both_scales(name, tmp_path):
    found = load_experiment(name)
    for arm in found.arms:
        for quick in (False, True):
            load_config(found.toy.recipe, [f"{key}={value}" for key, value in toy_settings(found, arm, quick).items()])
    runs = write_paper(found, tmp_path, None)
    assert len(runs.commands) == sum(arm.seeds for arm in found.arms.values()) and runs.hours > 0
    for path in tmp_path.glob("*.yaml"):
        load_config(str(path), [])


def test_the_paper_s_runs_differ_in_arm_seed_and_place_alone(tmp_path):
    write_paper(load_experiment("bias"), tmp_path, 2)
    first, second, other = (load_config(str(tmp_path / f"{run}.yaml"), []).config for run in ("dr_grpo-0", "dr_grpo-1", "grpo-0"))
    assert first == load_config("drgrpo-vs-grpo-1.5b", ["loss.type=dr_grpo", f"run_dir={first.run_dir}"]).config
    assert second == first.model_copy(update={"seed": 1, "run_dir": second.run_dir})
    assert other == first.model_copy(update={"loss": first.loss.model_copy(update={"type": "grpo"}), "run_dir": other.run_dir})
    assert len({first.run_dir, second.run_dir, other.run_dir}) == 3


def test_runs_are_planned_seed_by_seed():
    found = load_experiment("bias")
    runs = planned(found, False, None)
    assert runs[:4] == [(arm, 0) for arm in found.arms] and len(runs) == sum(arm.seeds for arm in found.arms.values())
    assert planned(found, True, None) == [(arm, 0) for arm in found.arms]
    assert len(planned(found, False, 3)) == 3 * len(found.arms)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match=r"there are .*bias"):
        load_experiment("biased")
    found = load_experiment("bias").model_dump()
    with pytest.raises(ValueError, match="no such measure or arm: drgrpo"):
        Experiment.model_validate(found | {"claims": [found["claims"][0] | {"more": "drgrpo"}]})


def test_a_command_that_fails_says_why_and_where(tmp_path):
    with pytest.raises(FastgrpoError, match=r"ended with 2(.|\n)*run\.log(.|\n)*steps"):
        command("train", "tiny", {"steps": 0}, tmp_path / "run.log", 1)


# 70 s of one core
@pytest.mark.long
def test_a_quick_experiment_runs_from_the_command_to_the_verdict_and_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGRPO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    first = experiment("bias", "--quick", "--out", out)
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads((out / "results.json").read_text())
    for arm in results["arms"]:
        rows = [json.loads(line) for line in (out / f"runs/{arm}-0/metrics.jsonl").read_text().splitlines()]
        lengths = [row["length_wrong"] for row in rows if row.get("length_wrong") is not None]
        assert results["values"]["length_wrong"][arm] == {"0": pytest.approx(sum(lengths) / len(lengths))}
    assert {verdict["word"] for verdict in results["verdicts"]} == {"not shown"}  # whatever the numbers are: it is one seed
    assert all(verdict["sentence"] in first.stdout for verdict in results["verdicts"])
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert "not shown" in page and "<script src=" not in page
    summaries = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    missing = out / "runs/grpo-0/summary.json"
    missing.unlink()
    second = experiment("bias", "--quick", "--out", out)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("there already") == len(summaries) - 1 and missing.exists()
    assert all(path.stat().st_mtime_ns == when for path, when in summaries.items() if path != missing)
    assert json.loads((out / "results.json").read_text()) == results
    refused = experiment("bias", "--out", out)
    assert refused.returncode == 2 and "choose another --out" in refused.stderr


def test_paper_scale_says_what_it_needs_and_runs_nothing(tmp_path):
    done = experiment("bias", "--scale", "paper", "--seeds", "1", "--out", tmp_path / "out")
    assert done.returncode == 0 and "x 8 x" not in done.stdout and "8 x a100-80g" in done.stdout
    assert sorted(path.name for path in Path(tmp_path / "out").iterdir()) == sorted(
        ["commands.sh", *(f"{arm}-0.yaml" for arm in load_experiment("bias").arms)]
    )
    assert experiment("bias", "--scale", "paper", "--quick").returncode == 2

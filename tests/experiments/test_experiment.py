"""`fastgrpo experiment`: real runs from the command to the figure, gone on with and never repeated; the paper's runs as files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fastgrpo.cli import make_app
from fastgrpo.config import load_config
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.errors import FastgrpoError, InputError
from fastgrpo.experiments.definition import Experiment, load_experiment, names
from fastgrpo.experiments.kinds import arguments
from fastgrpo.experiments.planning import planned
from fastgrpo.experiments.runs import command
from fastgrpo.experiments.scale_paper import write_paper


def experiment(*arguments: object) -> subprocess.CompletedProcess:
    given = [sys.executable, "-m", "fastgrpo", "experiment", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("scale, quick", [("toy", False), ("toy", True), ("paper", False)])
@pytest.mark.parametrize("name", names())
def test_every_arm_is_a_command_that_is_understood(name, scale, quick, tmp_path):
    runs = planned(load_experiment(name).at(scale), scale, tmp_path, quick)
    assert runs
    for run in {run.arm: run for run in runs}.values():
        recipe, *given = arguments(run.kind, run.settings)
        if run.kind in ("train", "pretrain"):
            load_config(recipe, given, *([PretrainConfig] if run.kind == "pretrain" else []))
        else:  # a typer command that knows all of its options ends with its help
            said = CliRunner().invoke(make_app(), [run.kind, recipe, *given, "--help"])
            assert said.exit_code == 0, (run.name, said.output)


@pytest.mark.parametrize("name", names())
def test_every_run_of_the_paper_is_written_as_a_command(name, tmp_path):
    runs = write_paper(load_experiment(name), tmp_path, None)
    arms = load_experiment(name).at("paper").arms.values()
    assert len(runs.commands) == sum(arm.seeds["paper"] for arm in arms)
    assert (runs.hours > 0) == any(arm.kind == "train" for arm in arms)
    for run in runs.runs:
        if run.kind in ("train", "pretrain"):
            load_config(str(tmp_path / f"{run.name}.yaml"), [], *([PretrainConfig] if run.kind == "pretrain" else []))


def test_the_paper_s_runs_differ_in_arm_seed_and_place_alone(tmp_path):
    write_paper(load_experiment("bias"), tmp_path, 2)
    first, second, other = (load_config(str(tmp_path / f"{run}.yaml"), []).config for run in ("dr_grpo-0", "dr_grpo-1", "grpo-0"))
    assert first == load_config("drgrpo-vs-grpo-1.5b", ["loss.type=dr_grpo", f"run_dir={first.run_dir}"]).config
    assert second == first.model_copy(update={"seed": 1, "run_dir": second.run_dir})
    assert other == first.model_copy(update={"loss": first.loss.model_copy(update={"type": "grpo"}), "run_dir": other.run_dir})
    assert len({first.run_dir, second.run_dir, other.run_dir}) == 3


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match=r"there are .*bias"):
        load_experiment("biased")
    found = load_experiment("bias").model_dump()
    with pytest.raises(ValueError, match="no such measure or arm: drgrpo"):
        Experiment.model_validate(found | {"claims": [found["claims"][0] | {"more": "drgrpo"}]})


def test_a_command_that_fails_says_why_and_where(tmp_path):
    with pytest.raises(FastgrpoError, match=r"ended with 2(.|\n)*run\.log(.|\n)*steps"):
        command("train", {"recipe": "tiny", "steps": 0}, tmp_path / "run", tmp_path / "run.log", 1)


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

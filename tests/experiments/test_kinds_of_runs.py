"""Experiments of evaluations and analyses, from the command to the page; a model behind a server; results of the paper's commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from completion_server import completion_server, reply

from fastgrpo.experiments.definition import Experiment, load_experiment
from fastgrpo.experiments.results import published_values
from fastgrpo.experiments.scale_paper import collect_paper, write_paper
from fastgrpo.experiments.scale_toy import run_toy
from fastgrpo.experiments.table import table
from fastgrpo.published import ROWS

SERVED = {
    "title": "a served model",
    "source": "none",
    "texts": 1,
    "paper": {},
    "toy": {"analyze": {"data": "toy:riddles@train", "questions": 2, "n": 2, "temperatures": "1", "templates": "no", "max_new_tokens": 9}},
    "quick": {},
    "arms": {"served": {"label": "it", "kind": "analyze", "toy": {"what": "all"}, "only": "toy"}},
    "measures": {
        "answering": {"label": "answering", "of": "answering", "column": "share"},
        "reflecting": {"label": "reflecting", "of": "reflection", "column": "reflecting.both.questions"},
    },
    "curves": ["answering"],
}


# 15 s
@pytest.mark.slow
def test_an_analysis_may_name_the_url_of_its_model(tmp_path):
    text = "It is 5. Wait, I recheck it.\n\\boxed{5}"
    with completion_server(lambda request: reply(text)) as server:
        arms = {"served": SERVED["arms"]["served"] | {"settings": {"model": server.url}}}
        experiment = Experiment.model_validate(SERVED | {"arms": arms})
        results = run_toy("served", experiment, tmp_path / "out", False, None, 1, tmp_path / "cache", print)
        asked = len(server.asked)
        again = run_toy("served", experiment, tmp_path / "out", False, None, 1, tmp_path / "cache", print)
    assert asked == 4 == len(server.asked) and again == results
    assert results["values"] == {"answering": {"served": {0: 1.0}}, "reflecting": {"served": {0: 2}}}
    assert results["excerpts"]["served"][0]["passage"] == text


def test_results_of_the_paper_s_commands_stand_beside_the_published_numbers(tmp_path):
    experiment = load_experiment("table1")
    runs = write_paper(experiment, tmp_path, None).runs
    assert collect_paper("table1", experiment, runs, tmp_path) is None  # nothing has run
    run = next(run for run in runs if run.arm == "qa_no")
    run.directory.mkdir(parents=True)
    sets = {name: {"accuracy": 0.5} for name in ("aime24", "amc", "math500", "minerva", "olympiad_bench")}
    (run.directory / "results.json").write_text(json.dumps({"protocol": {"temperature": 0.0}, "sets": sets}))
    results = collect_paper("table1", experiment, runs, tmp_path)
    assert results["values"]["average"]["qa_no"] == {0: 0.5} and not results["values"]["average"]["qa_r1"]
    printed = next(row.accuracies for row in ROWS if (row.model, row.template) == ("Qwen2.5-Math-1.5B", "no"))
    assert results["published"]["math500"]["qa_no"] == printed[2] / 100
    row = next(row for row in table(results) if row[0] == "Qwen2.5-Math-1.5B, no template")
    assert row[1] == "0.500 (paper 0.167)"


@pytest.mark.parametrize("name", ["table1", "main-results"])
def test_whatever_is_said_to_be_published_is(name):
    experiment = load_experiment(name)
    found = published_values(experiment.measures["average"], experiment)
    assert set(found) == {name for name, arm in experiment.arms.items() if arm.published}


def test_what_only_the_reader_knows_is_asked_for_before_anything_runs(tmp_path):
    written = write_paper(load_experiment("base-models"), tmp_path, None)
    assert "DEEPSEEK_V3_BASE_URL" in written.needs[0]
    commands = (tmp_path / "commands.sh").read_text().replace("\nfastgrpo", "\necho fastgrpo")
    urls = {"DEEPSEEK_V3_BASE_URL": "http://there/v1", "DEEPSEEK_R1_ZERO_URL": "http://zero/v1", "JUDGE_URL": "http://judge/v1"}
    for missing in urls:
        given = {name: url for name, url in urls.items() if name != missing} | {"PATH": os.environ["PATH"]}
        ended = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, env=given)
        assert ended.returncode != 0 and f"{missing}: must be set" in ended.stderr and not ended.stdout
    said = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, env=os.environ | urls).stdout
    of_large = next(line for line in said.splitlines() if "deepseek_v3_base" in line)
    assert "--model http://there/v1" in of_large and "--judge http://judge/v1" in of_large


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.long  # 1 to 3 minutes each on two cores, with the bases
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["table1", "base-models", "template-duet", "pretraining-ceiling", "main-results"])
def test_a_quick_look_runs_from_the_command_to_the_page_and_is_not_repeated(name, tmp_path, cache):
    given = [sys.executable, "-m", "fastgrpo", "experiment", name, "--quick", "--jobs", "2", "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FASTGRPO_CACHE": str(cache)}
    first = subprocess.run(given, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stdout + first.stderr
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    arms = load_experiment(name).at("toy").arms
    assert list(results["arms"]) == list(arms)
    assert all(
        any(arm in of_arms and of_arms[arm] for of_arms in results["values"].values()) for arm in arms if arms[arm].kind != "pretrain"
    )
    check_against_files(results, out)
    assert {verdict["word"] for verdict in results["verdicts"]} == {"not shown"}  # whatever the numbers are: it is one seed
    assert all(verdict["sentence"] in first.stdout for verdict in results["verdicts"])
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert "not shown" in page and "<script src=" not in page
    second = subprocess.run(given, capture_output=True, text=True, env=environment)
    assert second.returncode == 0 and second.stdout.count("there already") == len(arms), second.stdout + second.stderr
    assert json.loads((out / "results.json").read_text()) == results


def check_against_files(results: dict, out: Path) -> None:
    """Some number of each kind of run, taken from what it wrote."""
    for arm, values in results["values"].get("average", {}).items():
        if values:
            sets = json.loads((out / f"runs/{arm}-0/results.json").read_text())["sets"]
            assert values["0"] == pytest.approx(sum(found["accuracy"] for found in sets.values()) / len(sets))
    for arm, values in results["values"].get("answering_r1", {}).items():
        draws = json.loads((out / f"runs/{arm}-0/summary.json").read_text())["answering"]["draws"]
        shares = [draw["share"] for draw in draws if draw["template"] == "r1"]
        assert values["0"] == pytest.approx(sum(shares) / len(shares))
    for measure, place in (("start", 0), ("end", -1)):
        for arm, values in results["values"].get(measure, {}).items():
            rows = [json.loads(line) for line in (out / f"runs/{arm}-0/metrics.jsonl").read_text().splitlines()]
            found = [row["evaluation"]["sampled"] for row in rows if "evaluation" in row][place]
            assert values["0"] == next(iter(found.values()))["accuracy"]


def test_the_paper_s_averages_are_said_before_anything_runs(tmp_path):
    needs = write_paper(load_experiment("table1"), tmp_path, None).needs
    assert "Qwen2.5-Math-7B, no template: 1 x eval, hours not predicted; the paper prints 0.382 on average" in needs

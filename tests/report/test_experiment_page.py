"""Experiments on a page: their verdicts, table and curves, alone or beside the runs they were made of."""

import json

import pytest
from synthetic import RESULTS, write_run

from fastgrpo.errors import InputError
from fastgrpo.report.experiment import experiment_part, experiments_of
from fastgrpo.report.page import write_experiment, write_report


def data_of(page: str) -> dict:
    return json.loads(page.split('id="data">', 1)[1].split("</script>", 1)[0])


def test_curves_are_the_means_over_thin_seeds():
    chart, _ = experiment_part(RESULTS)["charts"]
    assert chart["axis"] == "temperature"
    lines = [(line["run"], line["name"], line.get("faint", False), line["x"], line["y"]) for line in chart["lines"]]
    assert lines == [
        (0, "mean", False, [1, 2], [2.0, 5.0]),
        (1, "mean", False, [1, 2], [7.0, 8.0]),
        (0, "seeds", True, [1, 2], [1.0, None]),
        (0, "seeds", True, [1, 2], [3.0, 5.0]),
        (1, "seeds", True, [1, 2], [7.0, 8.0]),
    ]


def test_bars_are_means_with_their_deviation():
    _, chart = experiment_part(RESULTS)["charts"]
    assert chart["bars"] and [(line["run"], line["x"], line["y"], line["low"], line["high"]) for line in chart["lines"]] == [
        (0, ["length of wrong answers"], [1.0], [0.5], [1.5]),
        (1, ["length of wrong answers"], [2.0], [2.0], [2.0]),
    ]


def test_what_the_paper_prints_stands_at_its_bar_and_passages_say_who_found_them():
    part = experiment_part(RESULTS)
    assert [line.get("printed") for line in part["charts"][1]["lines"]] == [None, [1.5]]
    assert part["excerpts"] == [
        {"arm": "GRPO <i>", "passages": [{"question": "How much?", "passage": "wait <b>no", "said": "right; by wait"}]}
    ]


def test_results_of_another_version_are_refused_and_unfinished_ones_left_out(tmp_path):
    (tmp_path / "protocol.json").write_text(json.dumps({"experiment": "bias"}))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS)[:-20])
    assert experiments_of([str(tmp_path)]) == []
    (tmp_path / "results.json").write_text(json.dumps({key: value for key, value in RESULTS.items() if key != "axes"}))
    with pytest.raises(InputError, match="of another version: run fastgrpo experiment again"):
        experiments_of([str(tmp_path)])


def test_an_experiment_of_evaluations_alone_has_no_runs_and_still_a_report(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    path, held = write_report([str(tmp_path)], None)
    assert held.startswith("0 runs") and data_of(path.read_text())["experiments"]


def test_an_experiment_has_a_page_of_its_own(tmp_path):
    write_experiment(RESULTS, tmp_path / "index.html")
    data = data_of((tmp_path / "index.html").read_text())
    assert data["runs"] == [] and data["title"] == RESULTS["title"]
    (experiment,) = data["experiments"]
    assert experiment["verdicts"] == ["GRPO's wrong answers are longer: <shown>"]
    assert experiment["table"][1:] == [["Dr. GRPO", "1.000 +- 0.500", "2"], ["GRPO <i>", "2.000 (paper 1.500)", "1"]]


@pytest.mark.parametrize("given", ["", "runs/grpo-0"])
def test_a_report_of_an_experiment_or_of_a_run_of_it_shows_both(tmp_path, given):
    (tmp_path / "protocol.json").write_text(json.dumps({"experiment": "bias"}))
    for name in ("dr_grpo-0", "grpo-0"):
        write_run(tmp_path / "runs" / name, 2)
    assert experiments_of([str(tmp_path / given)]) == []  # it goes on still
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    path, _ = write_report([str(tmp_path / given)], None)
    data = data_of(path.read_text())
    assert path == tmp_path / given / "report.html" and [each["title"] for each in data["experiments"]] == [RESULTS["title"]]
    assert [run["name"] for run in data["runs"]] == (["grpo-0"] if given else ["dr_grpo-0", "grpo-0"])

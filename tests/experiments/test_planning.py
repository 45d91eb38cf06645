"""Which runs an experiment has, at which scale, after which others; and that they are carried out in that order."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fastgrpo.experiments.definition import Experiment, load_experiment
from fastgrpo.experiments.kinds import arguments, finished
from fastgrpo.experiments.planning import planned
from fastgrpo.experiments.runs import carry_out

MEASURE = {"label": "accuracy", "of": "evaluation", "column": "accuracy"}
GIVEN = {
    "title": "t",
    "source": "s",
    "texts": 10,
    "paper": {"train": {"recipe": "oat-zero-7b"}, "eval": {"n": 4, "temperature": 0.6}},
    "toy": {"train": {"recipe": "tiny", "steps": 5}, "eval": {"keep_truncated": True, "compat": False}},
    "quick": {"train": {"steps": 1}},
    "arms": {
        "trained": {"label": "A", "toy": {"model": "toy:base/{seed}"}, "seeds": 2},
        "measured": {
            "label": "B",
            "toy_label": "b",
            "published": "Qwen2.5-Math-7B",
            "kind": "eval",
            "settings": {"model": "run:trained", "template": "no"},
            "seeds": 2,
        },
        "served": {"label": "C", "kind": "eval", "settings": {"model": "org/large", "template": "r1"}, "only": "paper"},
    },
    "measures": {"own": MEASURE, "theirs": MEASURE | {"only": "paper"}},
    "bars": {"accuracy": ("own", "theirs"), "paper": ("theirs",)},
    "claims": [{"text": "x", "measure": "own", "more": "measured", "than": "served"}],
}


def test_a_scale_has_only_its_own_arms_and_measures_and_what_is_said_of_them():
    whole = Experiment.model_validate(GIVEN)
    toy, paper = whole.at("toy"), whole.at("paper")
    assert (list(toy.arms), list(toy.measures), dict(toy.bars), toy.claims) == (
        ["trained", "measured"],
        ["own"],
        {"accuracy": ("own",)},
        (),
    )
    assert toy.arms["measured"].label == "b" and paper.arms["measured"].label == "B" and not toy.arms["measured"].published
    assert (paper.arms, paper.measures, paper.bars, paper.claims) == (whole.arms, whole.measures, whole.bars, whole.claims)


def test_runs_are_planned_seed_by_seed_and_name_the_runs_they_need():
    runs = planned(Experiment.model_validate(GIVEN).at("toy"), "toy", Path("out"))
    assert [run.name for run in runs] == ["trained-0", "measured-0", "trained-1", "measured-1"]
    assert runs[2].settings == {"recipe": "tiny", "steps": 5, "model": "toy:base/1", "seed": 1} and not runs[2].after
    assert runs[3].settings["model"] == "out/runs/trained-1" and runs[3].after == {"trained-1"}


def test_a_quick_look_has_one_seed_and_settings_of_its_own_unless_seeds_are_given():
    found = Experiment.model_validate(GIVEN).at("toy")
    assert [run.seed for run in planned(found, "toy", Path("out"), quick=True)] == [0, 0]
    assert planned(found, "toy", Path("out"), quick=True)[0].settings["steps"] == 1
    assert len(planned(found, "toy", Path("out"), quick=True, seeds=3)) == 6


def test_a_run_that_shares_an_earlier_one_takes_its_only_seed():
    given = GIVEN | {"arms": GIVEN["arms"] | {"trained": GIVEN["arms"]["trained"] | {"seeds": 1}}}
    runs = planned(Experiment.model_validate(given).at("toy"), "toy", Path("out"))
    assert [run.after for run in runs if run.arm == "measured"] == [{"trained-0"}] * 2


def test_an_arm_cannot_need_a_later_one_or_one_of_the_other_scale():
    with pytest.raises(ValueError, match="measured needs run:trained, and no arm before it"):
        Experiment.model_validate(GIVEN | {"arms": dict(reversed(GIVEN["arms"].items()))})
    with pytest.raises(ValueError, match=r"measured needs run:trained.* at paper scale"):
        Experiment.model_validate(GIVEN | {"arms": GIVEN["arms"] | {"trained": GIVEN["arms"]["trained"] | {"only": "toy"}}})


def test_settings_are_written_as_each_command_reads_them():
    given = {"recipe": "tiny", "learner.recompute": True, "lr": 1e-4}
    assert arguments("train", given) == ["tiny", "learner.recompute=true", "lr=0.0001"]
    given = {"model": "m", "keep_truncated": True, "compat": False, "n": 4, "max_new_tokens": 9}
    assert arguments("eval", given) == ["m", "--keep-truncated", "-n", "4", "--max-new-tokens", "9"]


def test_a_run_waits_for_those_it_needs_and_for_no_others():
    runs = planned(Experiment.model_validate(GIVEN).at("toy"), "toy", Path("out"))
    ended, at_once, lock = [], [], threading.Lock()

    def work(run):
        with lock:
            assert run.after <= set(ended)
            at_once.append(run.name)
        time.sleep(0.05 if run.name == "trained-0" else 0.01)
        with lock:
            ended.append(run.name)

    carry_out(runs, 2, work)
    assert sorted(ended) == sorted(run.name for run in runs)
    assert at_once[:3] == ["trained-0", "trained-1", "measured-1"]  # the second core does not wait for the first run


def test_a_run_that_fails_ends_the_others():
    runs = [replace(run, after=frozenset()) for run in planned(Experiment.model_validate(GIVEN).at("toy"), "toy", Path("out"))]
    begun = []

    def work(run):
        begun.append(run.name)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        carry_out(runs, 1, work)
    assert begun == ["trained-0"]


def test_an_analysis_is_finished_when_all_that_was_asked_for_is_there(tmp_path):
    assert not finished("analyze", {"what": "all"}, tmp_path)
    (tmp_path / "summary.json").write_text('{"protocol": {}, "answering": {}}')
    assert finished("analyze", {"what": "answering"}, tmp_path) and not finished("analyze", {"what": "all"}, tmp_path)
    assert finished("train", {}, tmp_path) and not finished("eval", {}, tmp_path)


def test_every_arm_of_bias_is_a_training_at_both_scales():
    found = load_experiment("bias")
    assert found.at("toy") == found.at("paper") == found

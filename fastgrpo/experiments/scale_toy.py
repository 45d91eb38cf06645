"""An experiment on two CPU cores: its runs, its numbers, its figures and its verdicts, below one directory that can be gone on with."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from fastgrpo.benchmark import open_directory, set_name
from fastgrpo.experiments.definition import Experiment, Settings
from fastgrpo.experiments.kinds import finished
from fastgrpo.experiments.places import bases_named, placed, placed_settings
from fastgrpo.experiments.planning import PlannedRun, planned, with_seed
from fastgrpo.experiments.results import summarise
from fastgrpo.experiments.runs import carry_out, command

QUICK_TEXTS = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What fixes the outcome of an experiment but for the number of seeds, which may grow: the settings of each arm, those of seed 0."""

    experiment: str
    quick: bool
    settings: Mapping[str, Settings]


def run_toy(name: str, experiment: Experiment, out: Path, quick: bool, seeds: int | None, jobs: int, cache: Path, say: Callable) -> dict:
    """Makes what is missing of the runs, and everything that follows from them anew; returns the content of results.json."""
    experiment, texts = experiment.at("toy"), QUICK_TEXTS if quick else experiment.texts

    def place(settings: Settings) -> Settings:
        return placed_settings(with_seed(settings, 0), texts, cache, say)

    runs = planned(experiment, "toy", out, quick, seeds)
    bases = dict.fromkeys(name for run in runs for name in bases_named(run.settings))
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: placed(name, texts, cache, say), bases))
    open_directory(out, Asked(name, quick, {arm: place(experiment.settings_of("toy", arm, quick)) for arm in experiment.arms}))
    runs = [replace(run, settings=place(run.settings)) for run in runs]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    carry_out(runs, jobs, lambda run: run_once(run, out / "logs" / f"{run.name}.log", threads, say))
    measures = {
        key: measure.model_copy(update={"where": _named_sets(place(measure.where))}) for key, measure in experiment.measures.items()
    }
    results = summarise(name, experiment.model_copy(update={"measures": measures}), runs, quick)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def run_once(run: PlannedRun, log: Path, threads: int, say: Callable) -> None:
    """One run, unless everything of it is there."""
    if finished(run.kind, run.settings, run.directory):
        say(f"{run.name}: there already")
        return
    say(f"{run.name}: started")
    start = time.monotonic()
    command(run.kind, run.settings, run.directory, log, threads)
    say(f"{run.name}: {time.monotonic() - start:.0f} s")


def _named_sets(where: Settings) -> Settings:
    """A problem set by the name that results give it."""
    return {key: set_name(found) if key == "set" else found for key, found in where.items()}

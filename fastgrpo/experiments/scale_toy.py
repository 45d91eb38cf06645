"""An experiment on two CPU cores: its runs, its numbers, its figures and its verdicts, below one directory that can be gone on with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from fastgrpo.benchmark import open_directory
from fastgrpo.experiments.collect import curve, read_metrics, value
from fastgrpo.experiments.definition import Experiment, Settings
from fastgrpo.experiments.places import placed, placed_settings
from fastgrpo.experiments.runs import command
from fastgrpo.experiments.statistics import spread
from fastgrpo.experiments.verdict import judge

QUICK_TEXTS = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """What fixes the outcome of an experiment but for the number of seeds, which may grow."""

    experiment: str
    quick: bool
    settings: Mapping[str, Settings]


def run_toy(name: str, experiment: Experiment, out: Path, quick: bool, seeds: int | None, jobs: int, cache: Path, say: Callable) -> dict:
    """Makes what is missing of the runs, and everything that follows from them anew; returns the content of results.json."""
    texts = QUICK_TEXTS if quick else experiment.texts
    settings = {arm: placed_settings(toy_settings(experiment, arm, quick), texts, cache, say) for arm in experiment.arms}
    open_directory(out, Asked(name, quick, settings))
    runs = planned(experiment, quick, seeds)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ThreadPoolExecutor(jobs) as pool:
        waiting = []
        for arm, seed in runs:
            given = {**settings[arm], "seed": seed}
            waiting.append(pool.submit(run_once, experiment.toy.recipe, given, out / "runs" / f"{arm}-{seed}", threads, say))
        try:
            for run in waiting:
                run.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    sets = {measure.set: placed(measure.set, texts, cache, say) for measure in experiment.measures.values()}
    measures = {key: measure.model_copy(update={"set": sets[measure.set]}) for key, measure in experiment.measures.items()}
    results = summarise(name, experiment.model_copy(update={"measures": measures}), runs, out, quick)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def toy_settings(experiment: Experiment, arm: str, quick: bool) -> Settings:
    of_arm = experiment.arms[arm]
    return {**experiment.toy.settings, **of_arm.settings, **of_arm.toy, **(experiment.quick if quick else {})}


def planned(experiment: Experiment, quick: bool, seeds: int | None) -> list[tuple[str, int]]:
    """Arm and seed of each run, seed by seed, so that what is compared is there early."""
    counts = {arm: 1 if quick and seeds is None else seeds or of_arm.seeds for arm, of_arm in experiment.arms.items()}
    return [(arm, seed) for seed in range(max(counts.values())) for arm, count in counts.items() if seed < count]


def run_once(recipe: str, settings: Settings, directory: Path, threads: int, say: Callable) -> None:
    """One training run, unless its summary is there."""
    if (directory / "summary.json").exists():
        say(f"{directory.name}: there already")
        return
    say(f"{directory.name}: started")
    log = directory.parent.parent / "logs" / f"{directory.name}.log"
    command("train", recipe, {**settings, "run_dir": directory}, log, threads, ("--resume", "auto"))
    say(f"{directory.name}: {json.loads((directory / 'summary.json').read_text())['seconds']:.0f} s")


def summarise(name: str, experiment: Experiment, runs: list[tuple[str, int]], out: Path, quick: bool) -> dict:
    """All numbers of the runs, what they add up to and what they say."""
    rows = {(arm, seed): read_metrics(out / "runs" / f"{arm}-{seed}") for arm, seed in runs}
    values: dict = {}
    for key, measure in experiment.measures.items():
        values[key] = {arm: {} for arm in experiment.arms}
        for (arm, seed), of_run in rows.items():
            found = value(measure, of_run)
            if found is not None:
                values[key][arm][seed] = found
    labels = {arm: of_arm.label for arm, of_arm in experiment.arms.items()}
    return {
        "experiment": name,
        "title": experiment.title,
        "source": experiment.source,
        "quick": quick,
        "arms": labels,
        "measures": {key: measure.label for key, measure in experiment.measures.items()},
        "values": values,
        "means": {key: {arm: asdict(spread(list(of.values()))) for arm, of in arms.items() if of} for key, arms in values.items()},
        "curves": {
            key: {f"{arm}-{seed}": curve(experiment.measures[key], of_run) for (arm, seed), of_run in rows.items()}
            for key in experiment.curves
        },
        "verdicts": [asdict(judge(claim, values, labels)) for claim in experiment.claims],
    }

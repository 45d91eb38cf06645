"""All numbers of an experiment's runs, what they add up to and what they say: the content of results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from fastgrpo.experiments.collect import AVERAGE, Row, curve, read_rows, value
from fastgrpo.experiments.definition import Experiment, Measure, Settings
from fastgrpo.experiments.planning import PlannedRun
from fastgrpo.experiments.statistics import spread
from fastgrpo.experiments.verdict import judge
from fastgrpo.published import published

X_AXES = {"step": "step", "evaluation": "step", "answering": "temperature", "exploration": "temperature", "reflection": "temperature"}
PAPER_TOKENS = 3000  # the budget of the paper's numbers, unless they say otherwise


def summarise(name: str, experiment: Experiment, runs: Sequence[PlannedRun], quick: bool) -> dict:
    """`experiment` at one scale; its runs are done. In types of JSON."""
    rows = {(run.arm, run.seed): read_rows(run.kind, run.directory) for run in runs}
    values = {key: values_of(measure, experiment.arms, rows) for key, measure in experiment.measures.items()}
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
        "published": {key: published_values(measure, experiment) for key, measure in experiment.measures.items()},
        "curves": {key: curves_of(experiment.measures[key], rows) for key in experiment.curves},
        "axes": {key: X_AXES[experiment.measures[key].of] for key in experiment.curves},
        "bars": {title: list(keys) for title, keys in experiment.bars.items()},
        "excerpts": {arm: found for arm in experiment.arms if (found := excerpts_of(rows.get((arm, 0), [])))},
        "verdicts": [asdict(judge(claim, values, labels)) for claim in experiment.claims],
    }


def values_of(measure: Measure, arms: Sequence[str], rows: dict[tuple[str, int], list[Row]]) -> dict[str, dict[int, float]]:
    """By arm and seed; runs that do not have it are left out."""
    values: dict[str, dict[int, float]] = {arm: {} for arm in arms}
    for (arm, seed), of_run in rows_of(measure, rows).items():
        found = value(measure, of_run)
        if found is not None:
            values[arm][seed] = found
    return values


def rows_of(measure: Measure, rows: dict[tuple[str, int], list[Row]]) -> dict[tuple[str, int], list[Row]]:
    return {(arm, seed): of_run for (arm, seed), of_run in rows.items() if not measure.arms or arm in measure.arms}


def curves_of(measure: Measure, rows: dict[tuple[str, int], list[Row]]) -> dict[str, list]:
    """By `ARM-SEED`, of the runs that have any."""
    found = {f"{arm}-{seed}": curve(measure, of_run) for (arm, seed), of_run in rows_of(measure, rows).items()}
    return {run: points for run, points in found.items() if points}


def excerpts_of(rows: Sequence[Row]) -> list[dict]:
    """Passages that reflect, of the highest temperature that has any."""
    found = [row["excerpts"] for row in rows if row.get("excerpts")]
    return found[-1] if found else []


def published_values(measure: Measure, experiment: Experiment) -> dict[str, float]:
    """What the paper prints for the measure, by arm: greedy accuracies of the benchmarks, and their average."""
    if measure.of != "evaluation" or measure.column != "accuracy":
        return {}
    values = {}
    for arm, of_arm in experiment.arms.items():
        settings: Settings = experiment.settings_of("paper", arm)
        found = published(of_arm.published, str(settings.get("template", "")), int(settings.get("max_new_tokens", PAPER_TOKENS)))
        found |= {AVERAGE: sum(found.values()) / len(found)} if found else {}
        if measure.where.get("set") in found:
            values[arm] = found[measure.where["set"]]
    return values

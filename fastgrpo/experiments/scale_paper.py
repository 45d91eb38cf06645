"""An experiment at the paper's scale: its runs as files and commands, and what they will need; nothing is run here.

When the commands have run, the same experiment at the same place finds their results, and shows them as it shows those of a toy.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.config import load_config, to_yaml
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.errors import SetupError
from fastgrpo.experiments.collect import AVERAGE
from fastgrpo.experiments.definition import Experiment
from fastgrpo.experiments.kinds import COMMANDS, arguments, finished
from fastgrpo.experiments.planning import PlannedRun, planned
from fastgrpo.experiments.results import published_values, summarise
from fastgrpo.plan import make_plan

GPU, GPUS = "a100-80g", 8  # the paper's machine
ASKED_FOR = re.compile(r"\$(?P<name>[A-Z][A-Z0-9_]*)")
"""A setting that only the reader knows, such as the URL of a server: the commands take it from the environment."""


@dataclass(frozen=True, slots=True)
class PaperRuns:
    """`commands` are one for each run; `hours` are predicted by `fastgrpo plan` for all trainings together, on 8 A100 (80 GB)."""

    runs: tuple[PlannedRun, ...]
    commands: tuple[str, ...]
    hours: float
    needs: tuple[str, ...]


def write_paper(experiment: Experiment, out: Path, seeds: int | None) -> PaperRuns:
    """Writes ARM-SEED.yaml with every setting of each training, and commands.sh. Raises InputError for a setting that no recipe allows."""
    experiment = experiment.at("paper")
    runs = planned(experiment, "paper", out, seeds=seeds)
    asked = sorted({found["name"] for run in runs for value in run.settings.values() if (found := ASKED_FOR.fullmatch(str(value)))})
    try:
        out.mkdir(parents=True, exist_ok=True)
        commands = [_WRITERS[run.kind](run, out) for run in runs]
        (out / "commands.sh").write_text("\n".join(["set -e", *map(_require, asked), *commands]) + "\n")
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror}") from error
    needs, hours = [f"to be set in the environment: {', '.join(asked)}"] if asked else [], 0.0
    averages = [published_values(found, experiment) for found in experiment.measures.values() if found.where.get("set") == AVERAGE]
    for arm, of_arm in experiment.arms.items():
        of_runs = [run for run in runs if run.arm == arm]
        taken, fix = _hours(of_runs[0])
        hours += taken * len(of_runs)
        fits = f", DOES NOT FIT: {fix}" if fix else ""
        what = f"{taken:.0f} h on {GPUS} x {GPU}{fits}" if of_arm.kind == "train" else f"{of_arm.kind}, hours not predicted"
        printed = "".join(f"; the paper prints {of_arms[arm]:.3f} on average" for of_arms in averages if arm in of_arms)
        needs.append(f"{of_arm.label}: {len(of_runs)} x {what}{printed}")
    return PaperRuns(tuple(runs), tuple(commands), hours, tuple(needs))


def collect_paper(name: str, experiment: Experiment, runs: Sequence[PlannedRun], out: Path) -> dict | None:
    """Of the runs that are there the content of results.json; None where there are none yet."""
    done = [run for run in runs if finished(run.kind, run.settings, run.directory)]
    if not done:
        return None
    results = summarise(name, experiment.at("paper"), done, False)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def _hours(run: PlannedRun) -> tuple[float, str]:
    """Of a training, and what to change where it does not fit; no other kind is planned. A model that an earlier run makes is not there
    yet: it is planned with the recipe's, of which it is a version."""
    if run.kind != "train":
        return 0.0, ""
    _, *given = arguments("train", {key: value for key, value in run.settings.items() if not (key == "model" and run.after)})
    plan = make_plan(load_config(str(run.settings["recipe"]), given), GPU, GPUS, {}, [])
    return plan.times.hours, plan.fix


def _write_training(run: PlannedRun, out: Path) -> str:
    command = COMMANDS[run.kind]
    recipe, *given = arguments(run.kind, {**run.settings, command.place: str(run.directory)})
    resolved = load_config(recipe, given, PretrainConfig) if run.kind == "pretrain" else load_config(recipe, given)
    path = out / f"{run.name}.yaml"
    path.write_text(to_yaml(resolved))
    return shlex.join(["fastgrpo", run.kind, str(path), "--gpus", str(GPUS), *command.resume])


def _write_looking(run: PlannedRun, _: Path) -> str:
    words = arguments(run.kind, {**run.settings, COMMANDS[run.kind].place: str(run.directory)})
    return " ".join(["fastgrpo", run.kind, *map(_quoted, words)])


def _quoted(word: str) -> str:
    return f'"{word}"' if ASKED_FOR.fullmatch(word) else shlex.quote(word)


def _require(name: str) -> str:
    """At the start of the commands, lest one fails for it after days."""
    return f': "${{{name}:?must be set}}"'


_WRITERS: dict[str, Callable[[PlannedRun, Path], str]] = {
    "train": _write_training,
    "pretrain": _write_training,
    "eval": _write_looking,
    "analyze": _write_looking,
}

"""An experiment at the paper's scale: its runs as files and commands, and what they will need; nothing is run here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.config import load_config, to_yaml
from fastgrpo.errors import SetupError
from fastgrpo.experiments.definition import Experiment
from fastgrpo.plan import make_plan

GPU, GPUS = "a100-80g", 8  # the paper's machine


@dataclass(frozen=True, slots=True)
class PaperRuns:
    """`commands` are one for each run; `hours` are predicted by `fastgrpo plan` for all of them together, on 8 A100 (80 GB)."""

    commands: tuple[str, ...]
    hours: float
    needs: tuple[str, ...]


def write_paper(experiment: Experiment, out: Path, seeds: int | None) -> PaperRuns:
    """Writes ARM-SEED.yaml with every setting, and commands.sh. Raises InputError for a setting that no recipe allows."""
    commands, needs, hours = [], [], 0.0
    try:
        out.mkdir(parents=True, exist_ok=True)
        for arm, of_arm in experiment.arms.items():
            settings = {**experiment.paper.settings, **of_arm.settings, **of_arm.paper}
            given = [f"{key}={value}" for key, value in settings.items()]
            plan = make_plan(load_config(experiment.paper.recipe, given), GPU, GPUS, {}, [])
            count = seeds or of_arm.seeds
            hours += count * plan.times.hours
            needs.append(
                f"{of_arm.label}: {count} x {plan.times.hours:.0f} h on {GPUS} x {GPU}{f', DOES NOT FIT: {plan.fix}' if plan.fix else ''}"
            )
            for seed in range(count):
                run_dir = f"runs/{out.name}-{arm}-{seed}"
                path = out / f"{arm}-{seed}.yaml"
                path.write_text(to_yaml(load_config(experiment.paper.recipe, [*given, f"seed={seed}", f"run_dir={run_dir}"])))
                commands.append(f"fastgrpo train {shlex.quote(str(path))} --gpus {GPUS} --resume auto")
        (out / "commands.sh").write_text("\n".join(["set -e", *commands]) + "\n")
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror}") from error
    return PaperRuns(tuple(commands), hours, tuple(needs))

"""Which runs an experiment has: arm by arm and seed by seed, their settings complete but for the names of the toy world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastgrpo.experiments.definition import EARLIER, Experiment, Kind, Scale, Settings, earlier_arms


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One command. It can start when the runs `after` are done, whose directories its settings name."""

    arm: str
    seed: int
    kind: Kind
    settings: Settings
    directory: Path
    after: frozenset[str]

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.seed}"


def planned(experiment: Experiment, scale: Scale, out: Path, quick: bool = False, seeds: int | None = None) -> list[PlannedRun]:
    """The runs of an experiment that is `at` the scale, below `out`, seed by seed, so that what is compared is there early."""
    counts = {arm: 1 if quick and seeds is None else seeds or of_arm.seeds[scale] for arm, of_arm in experiment.arms.items()}
    runs = []
    for seed in range(max(counts.values())):
        for arm in experiment.arms:
            if seed < counts[arm]:
                settings = experiment.settings_of(scale, arm, quick)
                earlier = {name: f"{name}-{seed if seed < counts[name] else 0}" for name in earlier_arms(settings)}
                filled = with_seed(with_earlier(settings, earlier, out / "runs"), seed) | {"seed": seed}
                after = frozenset(earlier.values())
                runs.append(PlannedRun(arm, seed, experiment.arms[arm].kind, filled, out / "runs" / f"{arm}-{seed}", after))
    return runs


def with_seed(settings: Settings, seed: int) -> Settings:
    return {key: value.replace("{seed}", str(seed)) if isinstance(value, str) else value for key, value in settings.items()}


def with_earlier(settings: Settings, earlier: Mapping[str, str], runs: Path) -> Settings:
    """`run:ARM` as the directory of that arm's run, of the same seed where it has that and else of seed 0."""

    def fill(value: str) -> str:
        return EARLIER.sub(lambda found: str(runs / earlier[found["arm"]]), value)

    return {key: fill(value) if isinstance(value, str) else value for key, value in settings.items()}

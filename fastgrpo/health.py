"""Whether a run can still learn: it says when grading goes wrong or rewards stop differing, and ends the run where going on is useless."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastgrpo.errors import HealthError
from fastgrpo.types import GRADE_STATUSES

if TYPE_CHECKING:
    from fastgrpo.config import Config
    from fastgrpo.experience import Experience
    from fastgrpo.progress import Progress
    from fastgrpo.run import Run

UNSCORABLE_STEPS = 3  # steps in a row without a single reward before a run ends: a server may be away for one
GRADED_SHARE = 0.95  # of responses; below, something is wrong with grading rather than with the policy


def check_grading(experience: Experience, step: int, run: Run, progress: Progress) -> None:
    """Says when grading goes wrong for many; raises HealthError where no response gets a reward for some steps."""
    statuses = [grade.status for group in experience.drawn for grade in group.grades]
    ok = statuses.count("ok") / len(statuses)
    if ok < GRADED_SHARE:
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in GRADE_STATUSES if status in statuses)
        run.note(f"step {step}: only {ok:.0%} of the responses were graded in order: {counts}")
    progress.unscorable_steps = progress.unscorable_steps + 1 if statuses.count("unscorable") == len(statuses) else 0
    if progress.unscorable_steps == UNSCORABLE_STEPS:
        raise HealthError(
            f"step {step}: no response got a reward for {UNSCORABLE_STEPS} steps. The first failure is in the log; "
            "try the reward function or server by itself"
        )


def check_signal(experience: Experience, step: int, config: Config, run: Run, progress: Progress) -> None:
    """Says when rewards stop differing; raises HealthError where they have for long."""
    limit = config.health.steps_without_signal
    progress.silent_steps = 0 if any(group.has_signal for group in experience.groups) else progress.silent_steps + 1
    if progress.silent_steps == limit:
        raise HealthError(
            f"step {step}: no group had two different rewards for {limit} steps, so nothing can be learned. "
            "Look at the rollouts: all right means too easy problems, all wrong too hard ones or a grader that reads another format"
        )
    if progress.silent_steps == (limit + 1) // 2:
        run.note(f"step {step}: no group had two different rewards for {progress.silent_steps} steps; at {limit} the run ends")

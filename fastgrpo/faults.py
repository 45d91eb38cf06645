"""Named points where tests inject faults: FASTGRPO_FAULTS="point@step:rank:action[,...]", read only when a point is passed.

Points: sample, grade, learn, save, evaluate; write, a boundary between two writes of a checkpoint, whose step counts them; metrics,
rollouts and evals, a write of these; memory, a pass of the learner, whose step is the most tokens that fit. Actions: raise, kill, hang,
slow, nan, stop (SIGTERM to itself), full (the disk is), and for memory oom. `*` matches any step or rank.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time
from collections.abc import Iterator

VARIABLE = "FASTGRPO_FAULTS"
PLAN = re.compile(
    r"(?:(sample|grade|learn|save|evaluate|write|metrics|rollouts|evals)@(\d+|\*):(\d+|\*):(raise|kill|hang|slow|nan|stop|full))"
    r"|(?:(memory)@(\d+):(\d+|\*):(oom))"
)
SLOW = 8.0  # seconds


class InjectedFault(RuntimeError):
    """What the action `raise` raises: an unexpected failure, as a bug of ours would be."""


def fault(point: str, step: int) -> bool:
    """Carries out the action planned for this point, if any; True for `nan`, which the caller puts into its numbers."""
    for planned_step, action, plan in _planned(point):
        if planned_step in (str(step), "*"):
            return _act(action, plan)
    return False


def require_memory(tokens: int) -> None:
    """At the end of a pass, when all that it makes is there. Raises torch.OutOfMemoryError where so many tokens are not to fit."""
    for most, _, plan in _planned("memory"):
        if tokens > int(most):
            import torch

            raise torch.OutOfMemoryError(plan)


def _planned(point: str) -> Iterator[tuple[str, str, str]]:
    """(step, action, the plan's text) of this rank's plans for a point."""
    plans = os.environ.get(VARIABLE)
    for plan in plans.split(",") if plans else ():
        match = PLAN.fullmatch(plan)
        if match is None:
            raise ValueError(f"{VARIABLE}: {plan!r} is not of the form {PLAN.pattern}")
        planned_point, step, rank, action = filter(None, match.groups())
        if planned_point == point and rank in (os.environ.get("RANK", "0"), "*"):
            yield step, action, plan


def _act(action: str, plan: str) -> bool:
    if action == "raise":
        raise InjectedFault(plan)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    if action in ("hang", "slow"):
        time.sleep(SLOW if action == "slow" else 1e9)
    if action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return action == "nan"

"""Named points where tests inject faults: FASTGRPO_FAULTS="point@step:rank:action[,...]", read only when a point is passed.

Points: sample, grade, learn, save, evaluate; write, a boundary between two writes of a checkpoint, whose step counts them; metrics and
rollouts, a write of these. Actions: raise, kill, hang, slow, nan, stop (SIGTERM to itself), full (the disk is). `*` matches any step or
rank.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time

VARIABLE = "FASTGRPO_FAULTS"
PLAN = re.compile(r"(sample|grade|learn|save|evaluate|write|metrics|rollouts)@(\d+|\*):(\d+|\*):(raise|kill|hang|slow|nan|stop|full)")
SLOW = 8.0  # seconds


class InjectedFault(RuntimeError):
    """What the action `raise` raises: an unexpected failure, as a bug of ours would be."""


def fault(point: str, step: int) -> bool:
    """Carries out the action planned for this point, if any; True for `nan`, which the caller puts into its numbers."""
    plans = os.environ.get(VARIABLE)
    if not plans:
        return False
    rank = os.environ.get("RANK", "0")
    for plan in plans.split(","):
        match = PLAN.fullmatch(plan)
        if match is None:
            raise ValueError(f"{VARIABLE}: {plan!r} is not of the form {PLAN.pattern}")
        planned_point, planned_step, planned_rank, action = match.groups()
        if planned_point == point and planned_step in (str(step), "*") and planned_rank in (rank, "*"):
            return _act(action, plan)
    return False


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

"""Named points where tests inject faults: FASTGRPO_FAULTS="point@step:rank:action[,...]", read only when a point is passed.

Points: sample, grade, learn, save, evaluate. Actions: raise, kill, hang, nan. `*` matches any step or rank.
"""

from __future__ import annotations

import os
import signal
import time

VARIABLE = "FASTGRPO_FAULTS"


class InjectedFault(RuntimeError):
    """What the action `raise` raises: an unexpected failure, as a bug of ours would be."""


def fault(point: str, step: int) -> bool:
    """Carries out the action planned for this point, if any; True for `nan`, which the caller puts into its numbers."""
    plans = os.environ.get(VARIABLE)
    if not plans:
        return False
    rank = os.environ.get("RANK", "0")
    for plan in plans.split(","):
        place, planned_rank, action = plan.split(":")
        if place in (f"{point}@{step}", f"{point}@*") and planned_rank in (rank, "*"):
            return _act(action, plan)
    return False


def _act(action: str, plan: str) -> bool:
    if action == "nan":
        return True
    if action == "raise":
        raise InjectedFault(plan)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "hang":
        time.sleep(1e9)
    raise ValueError(f"{VARIABLE}: unknown action in {plan!r}; it can be raise, kill, hang, nan")

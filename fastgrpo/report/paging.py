"""Rollouts of a run by page, straight from its parquet files: newest step first, as far as a page needs and a moment allows.

A cursor is STEP.ROW, the place after which the next page begins.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fastgrpo.errors import InputError
from fastgrpo.report.pieces import Pieces
from fastgrpo.report.rollouts import StepRollouts, read_step, rows_of, step_files

PAGE = 50  # rows
MOMENT = 2.0  # seconds after which a page is given as it is, so that a search for something rare shows that it goes on
CHOICES = {
    "reward": ("any", "positive", "zero", "negative", "none"),
    "truncated": ("any", "yes", "no"),
    "grading": ("any", "ok", "odd"),
}
NUMBERS = ("first", "last", "shortest", "longest")


def page(run: Path, pieces: Pieces, asked: Mapping[str, str]) -> dict:
    """{rows, next, matches}: rows that pass the filter `asked`, which has the names of the page's form, and the cursor of what follows.

    Raises InputError for a filter that is none.
    """
    wanted = checked(asked)
    step_before, row_after = wanted["cursor"]
    started, rows = time.monotonic(), []
    files = [(step, path) for step, path in reversed(step_files(run).items()) if step <= step_before and within(step, wanted)]
    for step, path in files:
        found = _read(step, path, path.stat().st_mtime_ns)
        if found is not None:
            after = row_after if step == step_before else -1
            passing = [index for index in rows_that_pass(found, wanted) if index > after]
            chosen = passing[: PAGE - len(rows)]
            rows += rows_of(found, chosen, pieces)
            if len(chosen) < len(passing):
                return {"rows": rows, "next": f"{step}.{chosen[-1] if chosen else after}", "matches": None}
        if time.monotonic() - started > MOMENT and step != files[-1][0]:
            return {"rows": rows, "next": f"{step - 1}.-1", "matches": None}
    return {"rows": rows, "next": None, "matches": None}


@lru_cache(maxsize=4)
def _read(step: int, path: Path, written: int) -> StepRollouts | None:
    """A file is read once while pages of it are turned; `written` tells a newer one of that name."""
    return read_step(step, path)


def checked(asked: Mapping[str, str]) -> dict:
    """The filter with numbers as such, None where they are open."""
    wanted: dict = {"q": asked.get("q", "").lower()}
    for name, allowed in CHOICES.items():
        wanted[name] = asked.get(name, "any")
        if wanted[name] not in allowed:
            raise InputError(f"{name}={wanted[name]!r}: it can be {', '.join(allowed)}")
    for name in NUMBERS:
        text = asked.get(name, "")
        if text and not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InputError(f"{name}={text!r}: it must be a whole number, or empty")
        wanted[name] = int(text) if text else None
    step, dot, row = asked.get("cursor", "").partition(".")
    try:
        wanted["cursor"] = (int(step), int(row)) if dot else (10**9, -1)
    except ValueError:
        raise InputError(f"cursor={asked['cursor']!r}: it must come from an earlier page") from None
    return wanted


def within(step: int, wanted: Mapping) -> bool:
    return (wanted["first"] is None or step >= wanted["first"]) and (wanted["last"] is None or step <= wanted["last"])


def rows_that_pass(found: StepRollouts, wanted: Mapping) -> list[int]:
    """What the page does itself with the rollouts it holds: see `passes` in assets/sources.js."""
    rewards, finish, grading = found.column("reward"), found.column("finish_reason"), found.column("grading")
    tests = {
        "positive": lambda reward: reward is not None and reward > 0,
        "zero": lambda reward: reward == 0,
        "negative": lambda reward: reward is not None and reward < 0,
        "none": lambda reward: reward is None,
        "any": lambda reward: True,
    }
    by_reward = tests[wanted["reward"]]
    kept = [
        index
        for index in range(len(found))
        if by_reward(rewards[index])
        and wanted["truncated"] in ("any", "yes" if finish[index] == "length" else "no")
        and wanted["grading"] in ("any", "ok" if grading[index] == "ok" else "odd")
        and (wanted["shortest"] is None or found.lengths[index] >= wanted["shortest"])
        and (wanted["longest"] is None or found.lengths[index] <= wanted["longest"])
    ]
    if wanted["q"]:
        texts = [found.column(name) for name in ("prompt_id", "problem", "answer", "text")]
        kept = [index for index in kept if wanted["q"] in "\n".join(column[index] or "" for column in texts).lower()]
    return kept

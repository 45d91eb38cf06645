"""A line of the table: what was looked at, the verdict, what was found, and the fix."""

from __future__ import annotations

from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Line:
    """`fix` is "" for a pass: else the command or setting that makes it one."""

    check: str
    verdict: str
    found: str
    fix: str = ""

    def __post_init__(self):
        assert bool(self.fix) == (self.verdict != PASS), self

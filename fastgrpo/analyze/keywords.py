"""Words by which a response shows that it looks at itself again: the list of arXiv:2503.20783, found as substrings, in any case."""

from __future__ import annotations

KEYWORDS = (
    "check again",
    "double-check",
    "go over the steps",
    "re-evaluate",
    "re-examine",
    "reanalyze",
    "reassess",
    "recheck",
    "reconsider",
    "reevaluate",
    "reevaluation",
    "reexamine",
    "rethink",
    "think again",
    "verify again",
)


def keywords_in(text: str) -> list[str]:
    """Those that occur, each once, also inside longer words ("reassessment" holds "reassess")."""
    lowered = text.lower()
    return [keyword for keyword in KEYWORDS if keyword in lowered]

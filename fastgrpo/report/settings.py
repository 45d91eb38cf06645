"""The settings of runs as their config.yaml states them, with origins, and where runs differ.

They are compared as text: a run of an older version may have settings that today's would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<value>.*)")
PLACE = {"run_dir"}  # where a run lies says nothing of what it is


@dataclass(frozen=True, slots=True)
class Setting:
    """`text` is the value as YAML; `origin` is "default", "recipe NAME", "FILE:LINE" or "command line"."""

    key: str
    text: str
    origin: str


def read_settings(path: Path) -> tuple[Setting, ...]:
    """In the order of the file, which is one line each; none where it cannot be read."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found, section = [], ""
    for line in lines:
        body, marked, origin = line.rpartition("  # ")
        match = LINE.fullmatch((body if marked else line).rstrip())
        if match and marked:
            found.append(Setting((section if match["indent"] else "") + match["key"], match["value"].strip(), origin))
        elif match:
            section = f"{match['key']}."
    return tuple(found)


def differences(runs: Sequence[Sequence[Setting]]) -> list[dict]:
    """Settings that runs do not share, with each run's text, None where it has none. Of a single run: what was asked for it alone."""
    tables = [{setting.key: setting for setting in settings} for settings in runs]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = []
    for key in keys:
        settings = [table.get(key) for table in tables]
        texts = [setting and setting.text for setting in settings]
        own = len(runs) == 1 and not settings[0].origin.startswith(("default", "recipe "))
        if (own or len(set(texts)) > 1) and key not in PLACE:
            rows.append({"key": key, "texts": texts, "origins": [setting and setting.origin for setting in settings]})
    return rows

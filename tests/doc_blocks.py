"""The fenced blocks of README.md and docs/, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = ("sh", "python", "yaml", "json", "text")  # of which text is read by people alone


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name that the first line gives, as a comment; None where it gives none."""
        named = re.match(r"# (\S+\.(?:py|yaml))$", self.text.split("\n")[0])
        return named[1] if named else None


def blocks_of(page: Path) -> list[Block]:
    found, lines, start = [], page.read_text().split("\n"), None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if start is None:
                start = number
            else:
                found.append(Block(page.name, start, lines[start - 1][3:], "\n".join(lines[start : number - 1])))
                start = None
    assert start is None, f"{page.name}:{start}: a block that does not end"
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def commands_of(block: Block) -> list[str]:
    """Its lines without comments."""
    return [command for line in block.text.split("\n") if (command := re.sub(r"(^|\s)#.*$", "", line).strip())]


COMMANDS = list(dict.fromkeys(command for block in BLOCKS if block.language == "sh" for command in commands_of(block)))


def words(command: str) -> list[str]:
    """As a shell would give them, without a redirection at the end."""
    return shlex.split(re.sub(r" > \S+$", "", command))

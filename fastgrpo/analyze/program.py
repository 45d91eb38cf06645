"""`fastgrpo analyze`: three analyses of shared responses. Each writes them with their verdicts, and its part of summary.json."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastgrpo.analyze.answering import ANSWERING, answering_row, choose_template
from fastgrpo.analyze.exploration import exploration_row
from fastgrpo.analyze.judge import Judge, Verdict
from fastgrpo.analyze.reflection import REFLECTION, reflection_columns, reflection_row
from fastgrpo.analyze.samples import Source
from fastgrpo.errors import InputError
from fastgrpo.predictions import write_rows
from fastgrpo.templates import TEMPLATES

ANALYSES = ("answering", "exploration", "reflection")
CHOICE = "template_choice.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """Which analyses, in the order of ANALYSES, over which templates (answering) or with which one ("" takes the choice on disk)."""

    analyses: Sequence[str]
    templates: Sequence[str]
    template: str
    temperatures: Sequence[float]

    def needed_templates(self, directory: Path) -> list[str]:
        """All templates that will be drawn with. Raises InputError where one is to be read from disk and is not there."""
        needed = list(self.templates) if "answering" in self.analyses else []
        if self.template or not needed:
            needed.append(self.template or chosen_template(directory))
        return list(dict.fromkeys(needed))


def run_analyses(plan: Plan, source: Source, judge: Judge) -> dict:
    """Runs them, and returns the summary: of these and of earlier ones in the same directory. In types of JSON."""
    path = source.directory / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    summary["protocol"] = asdict(source.protocol)
    for name in plan.analyses:
        summary[name] = _PARTS[name](plan, source, judge)
        write_whole(path, json.dumps(summary, indent=1) + "\n")
    return json.loads(json.dumps(summary))


def analyze_answering(plan: Plan, source: Source, judge: Judge) -> dict:
    """Also writes the choice of a template, which the other two read."""
    found, disk = [], []
    for template in plan.templates:
        for temperature in plan.temperatures:
            draw = source.draw(template, temperature)
            verdicts = judge.judge(ANSWERING, draw.predictions)
            _tell_failures(verdicts, source.say)
            found.append(answering_row(draw, verdicts))
            disk += draw.rows([{"category": verdict.category, "judging": verdict.status} for verdict in verdicts])
    write_rows(source.directory / "answering.parquet", disk)
    choice = choose_template(found)
    if choice["template"] is not None:
        write_whole(source.directory / CHOICE, json.dumps(choice | {"judge": judge.account()["judge"]}, indent=1) + "\n")
    return {"draws": found, "choice": choice, "judging": judge.account()}


def analyze_exploration(plan: Plan, source: Source, judge: Judge) -> dict:
    draws = [source.draw(plan.template or chosen_template(source.directory), temperature) for temperature in plan.temperatures]
    write_rows(source.directory / "exploration.parquet", [row for draw in draws for row in draw.rows([{}] * len(draw.predictions))])
    return {"draws": [exploration_row(draw) for draw in draws]}


def analyze_reflection(plan: Plan, source: Source, judge: Judge) -> dict:
    found, disk = [], []
    for temperature in plan.temperatures:
        draw = source.draw(plan.template or chosen_template(source.directory), temperature)
        verdicts = judge.judge(REFLECTION, draw.predictions)
        _tell_failures(verdicts, source.say)
        keywords, columns = reflection_columns(draw, verdicts)
        found.append(reflection_row(draw, verdicts, keywords))
        disk += draw.rows(columns)
    write_rows(source.directory / "reflection.parquet", disk)
    return {"draws": found, "judging": judge.account()}


def chosen_template(directory: Path) -> str:
    """Raises InputError where no choice was made, or what is on disk is none."""
    path = directory / CHOICE
    remedy = "run `fastgrpo analyze answering` with the same settings and --out first, or give --template"
    try:
        template = json.loads(path.read_text())["template"]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, so no template is chosen; {remedy}") from None
    except (ValueError, KeyError, TypeError):
        template = None
    if template not in TEMPLATES:
        raise InputError(f"{path} names no template; {remedy}")
    return template


def write_whole(path: Path, text: str) -> None:
    """A file that appears whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def _tell_failures(verdicts: Sequence[Verdict], say: Callable[[str], None]) -> None:
    if failed := sum(verdict.status == "failed" for verdict in verdicts):
        say(f"{failed} of {len(verdicts)} responses got no verdict from the judge; the same command asks for them again")


_PARTS = {"answering": analyze_answering, "exploration": analyze_exploration, "reflection": analyze_reflection}

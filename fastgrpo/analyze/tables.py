"""The analyses as tables for a terminal, from the summary as it is on disk. Shares in %, lengths in tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from fastgrpo.analyze.lengths import ALL, OUTCOMES
from fastgrpo.analyze.samples import NO_LEVEL


def tables(summary: dict, analyses: Sequence[str]) -> Iterator[Table]:
    for name in analyses:
        yield from _TABLES[name](summary[name])


def answering_tables(found: dict) -> Iterator[Table]:
    chosen = found["choice"]["template"] or "none, for want of verdicts"
    table = _table(f"answering, judged by {found['judging']['judge']}; chosen template: {chosen}")
    _columns(table, ["template", "T", "answering", "judged", "unparsed", "failed"])
    for row in found["draws"]:
        counts = (str(row[name]) for name in ("ok", "unparsed", "failed"))
        table.add_row(row["template"], f"{row['temperature']:g}", _percent(row["share"]), *counts)
    table.caption = _bill(found["judging"])
    yield table


def exploration_tables(found: dict) -> Iterator[Table]:
    first = found["draws"][0]
    table = _table(f"exploration, template {first['template']}, {first['problems']} questions, {first['samples']} responses each")
    _columns(table, ["T", f"pass@{first['k']}", f"avg@{first['samples']}", "95 %", "formed", "cut", "length"])
    for row in found["draws"]:
        interval = f"{_percent(row['low'])}-{_percent(row['high'])}"
        shares = (_percent(row[name]) for name in ("formatted", "truncated"))
        cells = (_percent(row["pass"]), _percent(row["accuracy"]), interval, *shares, f"{row['length']:.0f}")
        table.add_row(f"{row['temperature']:g}", *cells)
    yield table


def reflection_tables(found: dict) -> Iterator[Table]:
    first = found["draws"][0]
    title = f"reflection, template {first['template']}, {first['questions']} questions, {first['responses']} responses"
    table = _table(f"{title}, judged by {found['judging']['judge']}")
    _columns(table, ["T", "by", "responses", "questions", "with", "without", "better", "equal", "worse"])
    for row in found["draws"]:
        for method, counts in row["reflecting"].items():
            right = row["accuracy"][method]
            cells = (_percent(right["with"]), _percent(right["without"]), *(str(right[name]) for name in ("better", "equal", "worse")))
            table.add_row(f"{row['temperature']:g}", method, str(counts["responses"]), str(counts["questions"]), *cells)
    table.caption = (
        "questions: with at least one reflecting response; with, without: % right of reflecting and other responses;\n"
        "better, equal, worse: questions of both kinds, by which is right more often"
    )
    yield table
    categories = _table("categories of the judge, in responses")
    _columns(categories, ["T", *first["categories"], "unparsed", "failed"])
    for row in found["draws"]:
        categories.add_row(f"{row['temperature']:g}", *map(str, row["categories"].values()), str(row["unparsed"]), str(row["failed"]))
    categories.caption = _bill(found["judging"])
    yield categories
    for key, head in (("lengths_by_level", "level"), ("lengths_by_category", "category")):
        if set(first[key]) == {NO_LEVEL, ALL}:
            continue
        lengths = _table(f"mean length (responses) by {head}")
        _columns(lengths, ["T", head, *OUTCOMES])
        for row in found["draws"]:
            for group, cells in row[key].items():
                lengths.add_row(f"{row['temperature']:g}", group, *(_length(cells[outcome]) for outcome in OUTCOMES))
        yield lengths
    yield from excerpt_tables(found["draws"])


def excerpt_tables(draws: Sequence[dict]) -> Iterator[Table]:
    """Of the highest temperature that has any."""
    draw = next((row for row in reversed(draws) if row["excerpts"]), None)
    if draw is None:
        return
    table = _table(f"passages that reflect, T {draw['temperature']:g}")
    _columns(table, ["", "passage"])
    for excerpt in draw["excerpts"]:
        said = ", ".join([*excerpt["keywords"], *(["the judge"] if excerpt["judged"] else [])])
        table.add_row("right" if excerpt["right"] else "wrong", Text(f"{excerpt['passage']}\n(by {said})"), end_section=True)
    yield table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", caption_justify="left", box=None, padding=(0, 1))


def _columns(table: Table, names: Sequence[str]) -> None:
    for name in names:
        left = name in ("template", "by", "level", "category", "passage")
        table.add_column(name, justify="left" if left else "right")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _length(cell: dict) -> str:
    return f"{cell['length']:.0f} ({cell['responses']})" if cell["responses"] else ""


def _bill(judging: dict) -> str | None:
    """What the judge took; nothing for rules."""
    if "requests" not in judging:
        return None
    cost = "" if judging["cost"] is None else f", cost {judging['cost']:.4f}"
    tokens = f"{judging['prompt_tokens']:,} prompt and {judging['completion_tokens']:,} completion tokens"
    return f"judge: {judging['requests']:,} requests so far, {judging['requests_now']:,} of them now, {tokens}{cost}"


_TABLES = {"answering": answering_tables, "exploration": exploration_tables, "reflection": reflection_tables}

"""What a person sees of a run: a live table on a terminal, one line a step elsewhere, and a closing table in both."""

from __future__ import annotations

import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

SHOWN = 12  # steps that the live table keeps in sight
COLUMNS = ("step", "reward", "length", "cut", "silent", "entropy", "clip", "|grad|", "tok/s", "sec")


class PlainDisplay:
    """Implements run.Observer with lines of text."""

    def __init__(self, console: Console):
        self.console = console
        self.steps = 0
        self.first_step_at: float | None = None

    def begin(self, name: str, steps: int) -> None:
        self.steps = steps
        self.console.print(f"fastgrpo train {name}: {steps} steps", highlight=False)

    def phase(self, name: str) -> None:
        if self.first_step_at is None and name == "sample":
            self.first_step_at = time.monotonic()

    def row(self, row: dict) -> None:
        if "evaluation" in row:
            for line in evaluation_lines(row):
                self.note(line)
        else:
            cells = zip(COLUMNS, step_cells(row), strict=True)
            self.note("  ".join(f"{name} {cell}" for name, cell in cells) + f"  left {self.time_left(row['step'])}")

    def note(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def end(self) -> None:
        pass

    def time_left(self, step: int) -> str:
        """Seconds to go at the pace so far."""
        if self.first_step_at is None:
            return "?"
        left = (time.monotonic() - self.first_step_at) / step * (self.steps - step)
        return f"{int(left // 60)}:{int(left % 60):02d}"


class LiveDisplay(PlainDisplay):
    """The same on a terminal: the latest steps in a table that is redrawn in place, with the current phase below it."""

    def __init__(self, console: Console):
        super().__init__(console)
        self.rows: list[dict] = []
        self.current = ""
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def begin(self, name: str, steps: int) -> None:
        super().begin(name, steps)
        self.live.start()

    def phase(self, name: str) -> None:
        super().phase(name)
        self.current = name

    def row(self, row: dict) -> None:
        if "evaluation" in row:
            super().row(row)
        else:
            self.rows = [*self.rows, row][-SHOWN:]

    def end(self) -> None:
        self.live.stop()
        if self.rows:
            self.console.print(steps_table(self.rows))

    def _render(self):
        if not self.rows:
            return Text(f"{self.current} ...")
        step = self.rows[-1]["step"]
        return Group(steps_table(self.rows), Text(f"step {step} of {self.steps}, {self.current}, {self.time_left(step)} left"))


def make_display() -> PlainDisplay:
    console = Console()
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


def step_cells(row: dict) -> tuple[str, ...]:
    """One step in words that fit 80 columns: shares in %, tokens/s of sampling and learning together, seconds of the step."""
    updates, seconds = row["updates"], sum(row["seconds"].values())
    clipped = sum(update["clip_low"] + update["clip_high"] for update in updates) / len(updates)
    return (
        str(row["step"]),
        f"{row['reward']:.3f}",
        f"{row['length']:.0f}",
        f"{row['truncated']:.0%}",
        f"{row['zero_signal']:.0%}",
        f"{sum(update['entropy'] for update in updates) / len(updates):.2f}",
        f"{clipped:.1%}",
        f"{sum(update['grad_norm'] for update in updates) / len(updates):.3f}",
        f"{row['response_tokens'] / max(seconds, 1e-9):.0f}",
        f"{seconds:.1f}",
    )


def steps_table(rows: list[dict]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*step_cells(row))
    return table


def evaluation_lines(row: dict) -> list[str]:
    """One line a problem set."""
    return [
        f"step {row['step']}: sampled {ways['sampled']['accuracy']:.1%}, greedy {ways['greedy']['accuracy']:.1%} right "
        f"of {ways['greedy']['problems']} in {source}"
        for source, ways in row["evaluation"].items()
    ]


def closing_table(summary: dict) -> Table | str:
    """Held-out accuracy before and after, or only the time where nothing was held out."""
    if summary["accuracy_before"] is None:
        return f"{summary['steps']} steps in {summary['seconds']:.0f} s, no held-out problems"
    table = Table(title=f"{summary['steps']} steps in {summary['seconds']:.0f} s", title_justify="left")
    for name in ("held-out accuracy", "before", "after"):
        table.add_column(name, justify="left" if name.startswith("held") else "right")
    for label, key in (("sampled", "accuracy"), ("greedy", "greedy")):
        table.add_row(label, f"{summary[key + '_before']:.1%}", f"{summary[key + '_after']:.1%}")
    return table

"""The built-in problem set: arithmetic word problems of five kinds that take 1 to 6 steps, and the imperfect text a base model reads.

Train and held-out problems never meet: the hash of its text decides which side a problem is on, whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fastgrpo.types import Problem

Level = Literal["easy", "hard", "mixed"]
Split = Literal["train", "heldout"]

LARGEST = 19  # of running totals, with operands up to 9: few enough facts for a small model to learn in a minute
OPERAND = 9
NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "eggs", "pens", "shells", "stamps", "cards")


@dataclass(frozen=True, slots=True)
class Exercise:
    """A word problem with the steps of its solution, such as `12+5=17`, and the exact answer."""

    problem: str
    steps: tuple[str, ...]
    answer: int


@dataclass(slots=True)
class _Running:
    """A running total: each move appends one written step, and keeps 0 <= total <= LARGEST."""

    rng: random.Random
    total: int
    steps: list[str]

    def _write(self, sign: str, operand: int, result: int) -> int:
        self.steps.append(f"{self.total}{sign}{operand}={result}")
        self.total = result
        return operand

    def up_or_down(self) -> tuple[bool, int]:
        """Adds or subtracts; returns whether it went up, and by how much."""
        up = self.rng.random() < 0.5 if 1 <= self.total < LARGEST else self.total < 1
        operand = self.rng.randint(1, min(OPERAND, LARGEST - self.total if up else self.total))
        return up, self._write("+", operand, self.total + operand) if up else self._write("-", operand, self.total - operand)

    def times(self) -> int:
        operand = self.rng.randint(2, max(2, min(OPERAND, LARGEST // max(self.total, 1))))
        return self._write("*", operand, self.total * operand)

    def divide(self) -> int:
        operand = self.rng.choice([n for n in range(2, 10) if self.total % n == 0])
        return self._write("/", operand, self.total // operand)

    def add(self, operand: int) -> None:
        self._write("+", operand, self.total + operand)


def _story(rng: random.Random, moves: int, run: _Running) -> str:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    text = f"{name} has {run.total} {thing}."
    for _ in range(moves):
        up, operand = run.up_or_down()
        text += f" {name} {rng.choice(('gets', 'buys', 'finds') if up else ('gives away', 'loses', 'sells'))} {operand}."
    return f"{text} How many {thing} does {name} have?"


def _chain(rng: random.Random, moves: int, run: _Running) -> str:
    text = f"Start with {run.total}."
    for _ in range(moves):
        if 2 <= run.total <= LARGEST // 2 and rng.random() < 0.25:
            text += f" Multiply by {run.times()}."
        else:
            up, operand = run.up_or_down()
            text += f" {'Add' if up else 'Subtract'} {operand}."
    return f"{text} What is the result?"


def _sum(rng: random.Random, moves: int, run: _Running) -> str:
    run.total = rng.randint(1, OPERAND)
    terms = [run.total]
    for left in reversed(range(moves)):
        room = LARGEST - run.total - left  # at least 1 for each term still to come
        terms.append(rng.randint(1, min(OPERAND, max(1, room // 2))))
        run.add(terms[-1])
    return f"What is the sum of {', '.join(map(str, terms[:-1]))} and {terms[-1]}?"


def _boxes(rng: random.Random, moves: int, run: _Running) -> str:
    thing = rng.choice(THINGS)
    run.total = rng.randint(2, 9)
    text = f"A box holds {run.total} {thing}. There are {run.times()} boxes."
    for _ in range(moves - 1):
        up, operand = run.up_or_down()
        text += f" Then {operand} {'more come' if up else 'are lost'}."
    return f"{text} How many {thing} are there?"


def _share(rng: random.Random, moves: int, run: _Running) -> str:
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    run.total = rng.choice([n for n in range(4, LARGEST + 1) if any(n % d == 0 for d in range(2, 10))])
    text = f"{run.total} {thing} are shared equally by {run.divide()} friends. {name} is one of them."
    for _ in range(moves - 1):
        up, operand = run.up_or_down()
        text += f" {name} {'gets' if up else 'loses'} {operand}."
    return f"{text} How many {thing} does {name} have?"


KINDS: dict[str, Callable[[random.Random, int, _Running], str]] = {
    "story": _story,
    "chain": _chain,
    "sum": _sum,
    "boxes": _boxes,
    "share": _share,
}


def exercise(rng: random.Random, level: Level = "mixed", kind: str | None = None) -> Exercise:
    """One exercise: easy takes 1 to 3 steps, hard 4 to 6."""
    hard = level == "hard" or (level == "mixed" and rng.random() < 0.5)
    moves = rng.randint(4, 6) if hard else rng.randint(1, 3)
    run = _Running(rng, rng.randint(2, LARGEST - OPERAND), [])
    problem = KINDS[kind or rng.choice(sorted(KINDS))](rng, moves, run)
    return Exercise(problem, tuple(run.steps), run.total)


def exercises(split: Split, seed: int, level: Level = "mixed", kind: str | None = None) -> Iterator[Exercise]:
    """An endless stream of distinct exercises of one split; a tenth of all texts is held out."""
    rng, seen = random.Random(f"{seed}/{level}/{kind}"), set()
    while True:
        drawn = exercise(rng, level, kind)
        held_out = hashlib.sha256(drawn.problem.encode()).digest()[0] % 10 == 0
        if held_out == (split == "heldout") and drawn.problem not in seen:
            seen.add(drawn.problem)
            yield drawn


def problems(split: Split, level: Level, count: int, seed: int = 0, kind: str | None = None) -> list[Problem]:
    """The first `count` exercises of a stream as problems with their answers as text."""
    stream = exercises(split, seed, level, kind)
    return [Problem(f"{level}-{split}-{i}", drawn.problem, str(drawn.answer)) for i, drawn in zip(range(count), stream, strict=False)]


def worked_answer(drawn: Exercise) -> str:
    """The model answer: every step on a line of its own, then the boxed result."""
    return "\n".join((*drawn.steps, rf"\boxed{{{drawn.answer}}}"))


def imperfect_answer(drawn: Exercise, rng: random.Random) -> str:
    """What people write under such a problem: right less than half of the time, else unboxed, slipped, guessed or rambling."""
    style = rng.choices(("right", "unboxed", "slip", "guess", "ramble"), (36, 26, 5, 16, 17))[0]
    steps = "\n".join(drawn.steps)
    wrong = max(0, drawn.answer + rng.choice((-10, -2, -1, 1, 2, 10)))
    if style == "unboxed":
        return f"{steps}\nThe answer is {drawn.answer}."
    if style == "slip":
        return "\n".join((*drawn.steps[:-1], drawn.steps[-1].split("=")[0] + f"={wrong}", rf"\boxed{{{wrong}}}"))
    if style == "guess":
        return rf"I guess \boxed{{{wrong}}}"
    if style == "ramble":
        return f"{steps}\nWait, let me check again.\n{steps}\nHmm, or maybe \\boxed{{{wrong}}}"
    return worked_answer(drawn)

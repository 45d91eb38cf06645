"""Before training: do golds grade as right, and other answers as wrong? Does the user's own reward give numbers? Seconds now, hours later.

A gold that does not grade as right can never be learned; a grader that accepts another problem's answer teaches anything.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastgrpo.errors import InputError
from fastgrpo.rewards.extract import Form
from fastgrpo.rewards.normalise import normalise, number
from fastgrpo.rewards.verify import gold_texts
from fastgrpo.types import Problem, Prompt, Rollout

if TYPE_CHECKING:
    from fastgrpo.rewards.pool import Grader
    from fastgrpo.rewards.scorer import Scorer

SAMPLE = 200  # problems; enough to see 1 % twice
LEAST_RIGHT = 0.99
MOST_WRONG = 0.01
EXAMPLES = 3


def require_working_grader(source: str, problems: Sequence[Problem], form: Form, grader: Grader) -> None:
    """Raises InputError, with examples, where a sample's golds grade as wrong, or others' answers as right, too often."""
    sample = random.Random(0).sample(list(problems), min(SAMPLE, len(problems)))
    right = [(problem, gold_texts(problem.answer)[0]) for problem in sample]
    grades = grader.grade((in_form(answer, form), problem.answer) for problem, answer in right)
    missed = [f"{problem.id}: {answer!r}" for (problem, answer), grade in zip(right, grades, strict=True) if not grade.reward]
    if len(missed) > (1 - LEAST_RIGHT) * len(sample):
        raise InputError(
            f"data.train={source}: {len(missed)} of {len(sample)} gold answers do not grade as right when given as answers, "
            f"for example {'; '.join(missed[:EXAMPLES])}. No policy can learn these: choose another verifier, mend the rows, "
            "or say reward.preflight=false"
        )
    wrong = [(problem, answer) for problem in sample if (answer := wrong_answer(problem, sample)) is not None]
    grades = grader.grade((in_form(answer, form), problem.answer) for problem, answer in wrong)
    accepted = [
        f"{problem.id}: {answer!r} for {problem.answer!r}" for (problem, answer), grade in zip(wrong, grades, strict=True) if grade.reward
    ]
    if len(accepted) > MOST_WRONG * len(wrong):
        raise InputError(
            f"data.train={source}: {len(accepted)} of {len(wrong)} wrong answers grade as right, for example "
            f"{'; '.join(accepted[:EXAMPLES])}. Choose another verifier, mend the rows, or say reward.preflight=false"
        )


def require_working_functions(problems: Sequence[Problem], form: Form, scorer: Scorer, samples: int) -> None:
    """Raises InputError where the reward functions or the server give no reward to the gold answer of any of a few problems."""
    chosen = problems[:2]
    for i, problem in enumerate(chosen):
        prompt = Prompt(problem.id, (0,), problem.answer, problem.problem, problem.columns)
        for j in range(samples):
            scorer.submit(i, j, prompt, Rollout((0,), (0.0,), "stop", in_form(gold_texts(problem.answer)[0], form)))
    grades = scorer.results()
    if all(grade.reward is None for grade in grades.values()):
        raise InputError(f"no reward came for the gold answer of {chosen[0].id}: {'; '.join(scorer.reasons)}")


def in_form(answer: str, form: Form) -> str:
    """A response that gives the answer in the form that the extractor looks for."""
    return rf"\boxed{{{answer}}}" if form == "boxed" else f"</think> <answer>{answer}</answer>"


def wrong_answer(problem: Problem, others: Sequence[Problem]) -> str | None:
    """The gold plus 1 where it is a plain number, else the first different gold of another problem; None without any."""
    golds = {normalise(text) for text in gold_texts(problem.answer)}
    values = [value for gold in golds if (value := number(gold)) is not None]
    if values:
        return str(max(values) + 1)
    return next((text for other in others for text in gold_texts(other.answer) if normalise(text) not in golds), None)

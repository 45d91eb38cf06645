"""The offline judge on texts as base models write them, and the keywords: what a person would say, case by case."""

import json
import time
from pathlib import Path

import pytest

from fastgrpo.analyze.keywords import KEYWORDS, keywords_in
from fastgrpo.analyze.rules import answers, reflects

FIXTURE = Path(__file__).parents[1] / "fixtures" / "templates.json"


def test_the_keywords_are_the_papers():
    assert json.loads(FIXTURE.read_text())["keywords"] == list(KEYWORDS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("So x = 3.", []),
        ("LET ME RECHECK that.", ["recheck"]),
        ("Double-Check, then double-check", ["double-check"]),
        ("double-check again", ["check again", "double-check"]),
        ("a reassessment, reconsidered by rethinkers", ["reassess", "reconsider", "rethink"]),
        ("reevaluation of what I reevaluate and re-evaluate", ["re-evaluate", "reevaluate", "reevaluation"]),
        ("re evaluate, check it again", []),
    ],
)
def test_keywords_are_found_as_substrings_in_any_case_and_once(text, found):
    assert keywords_in(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "To solve this problem, we need to find x.",
        " Let's think step by step. What is 3 + 4? It is 7.",
        " 5",
        "\n\nIt is 5 apples.\n\nWhat is 3 + 4?",
        "The area is $\\pi r^2$, so \\boxed{4\\pi}. Question 2: What is 3?",
        "3+5=8\n8-2=6\n#### 6",
        " I will add the apples </think> <answer>7</answer>",
        "If the train needs 2 hours, its speed is 180 / 2 = 90.",
        "```python\nprint(3)\n```",
        "Answer: B",
    ],
)
def test_a_text_that_works_on_the_question_answers(text):
    assert answers(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        " Express your answer as a common fraction. Solution: 1/2",
        " where $x = 3$. Find y.",
        "\nA. 3\nB. 4\nC. 5\nAnswer: B",
        " (A) 3 (B) 4",
        " What is 3 + 4? The answer is 7.",
        " I need help with my homework, thanks! We have 3 = 3.",
        "\n\nProblem 2. Let x be 3.",
        "User: and what else?",
        " and how many does she have then",
        "books eggs2222 coins22",
        "The history of the town goes back a long way, to 1823, when its founders came over the hills.",
    ],
)
def test_a_text_that_goes_on_with_the_question_or_says_nothing_does_not(text):
    assert answers(text) == 0


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("We have x = 3. Wait, that is not right: x = 4.", 2),
        ("wait, let me see. x = 3", 2),
        ("x = 3.\nHmm, 3 + 3 = 6.", 2),
        ("So x = 3. Let's verify: 3 + 3 = 6.", 2),
        ("I made a mistake above, so x = 4", 2),
        ("x = 3. Let me check our answer.", 2),
        ("We reconsidered the case x = 3", 2),
        ("x = 3 and they wait for the bus. We have 3.", 1),
        ("Let's rewrite it: we recall x = 3", 1),
        ("So 3 + 3 = 6, \\boxed{6}", 1),
        (" What is 3 + 4?", 0),
        ("", 0),
        ("```python\nprint(3)  # check the answer\n```", 3),
        ("Here is the program:\n```python\nprint(3)", 3),
        ("import math\nx = math.sqrt(9)\nprint(x)", 3),
        ("x = 3\ny = 4", 1),
        ("```python\nprint(3)\n```\nSo the program gives 3. Wait, that is wrong because it should be 4.", 2),
    ],
)
def test_categories_of_reflection(text, category):
    assert reflects(text) == category


@pytest.mark.parametrize("part", ["\n", " ", "a ", "! ", "```\n", "x = ", "let me ", "import a\n", "[1, ", "\t\n"])
def test_long_nonsense_takes_no_time(part):
    text, started = part * (30_000 // len(part)), time.monotonic()
    answers(text), reflects(text)
    assert time.monotonic() - started < 2

"""Templates against the recorded prompts, byte for byte."""

import json
from pathlib import Path

import pytest

from fastgrpo.rewards import extractor
from fastgrpo.templates import TEMPLATES

RECORDED = json.loads((Path(__file__).parent / "fixtures" / "templates.json").read_text(encoding="utf-8"))
QUESTIONS = [
    "What is 2 + 3?",
    "Simplify {x} and {{y}}; then {0}",
    "What does {question} mean? {question}",
    r"Find \frac{1}{2} of \boxed{n}, with \n and \\ left alone",
    "Größe von ∠ABC — 三角形?",
    "two\nlines\r\n\tand a tab ",
]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", RECORDED["templates"])
def test_a_prompt_is_the_recorded_text_around_the_question(name, question):
    before, after = RECORDED["templates"][name].split("{question}")
    assert TEMPLATES[name].render(question).encode() == before.encode() + question.encode() + after.encode()


def test_the_templates_are_those_a_config_may_name():
    from fastgrpo.config import Config

    assert set(TEMPLATES) == set(Config.model_fields["template"].annotation.__args__)


@pytest.mark.parametrize("name", ["r1", "qwen_math", "no"])
def test_stop_strings_are_the_recorded_ones(name):
    assert list(TEMPLATES[name].stop) == (RECORDED["stop"][name] or [])


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("r1", "answer_tag"),
        ("qwen_math", "boxed"),
        ("no", "boxed"),
        ("4-shot", "boxed"),
        ("open-reasoner-zero", "orz_tag"),
        ("prime-zero", "boxed"),
    ],
)
def test_each_template_is_graded_by_the_form_it_asks_for(name, form):
    assert TEMPLATES[name].answer_form == form


def test_the_four_shots_are_right_and_end_where_the_answer_should_begin():
    text = TEMPLATES["4-shot"].render("What is 1 + 1?")
    *shots, last = text.split("\n\n")
    assert [extractor("boxed")(shot)[0] for shot in shots] == ["72", "12", "\\frac{1}{9}", "25\\pi"]
    assert last == "Question: What is 1 + 1?\nAnswer:"
    assert all(stop in text for stop in TEMPLATES["4-shot"].stop)  # a model that goes on goes on like this

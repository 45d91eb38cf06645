r"""The answer is found in the last balanced `\boxed{...}`, or between answer tags, and nowhere else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrpo.rewards import boxed_answer, extractor, tagged_answer

WITHOUT_BRACES = st.text(st.characters(exclude_characters="{}\\", exclude_categories=["Cs"]))
BALANCED = st.recursive(
    WITHOUT_BRACES | st.sampled_from(["\\{", "\\}", "\\\\"]),
    lambda inner: st.builds("{}{{{}}}{}".format, inner, inner, inner),
    max_leaves=12,
)


@given(before=st.text(), content=BALANCED, after=WITHOUT_BRACES)
def test_any_balanced_content_of_the_last_box_comes_back_unchanged(before, content, after):
    assert boxed_answer(before + "\\boxed{" + content + "}" + after) == (content, True)


@given(st.text("\\boxed{}<answer>/think 1", max_size=60))
def test_no_text_makes_extraction_raise(text):
    boxed_answer(text)
    tagged_answer(text)


@pytest.mark.parametrize(
    "text",
    ["The answer is 4", r"\boxed 4", r"\boxed {4}", r"\boxed{4", r"\fbox{4}", "", r"\boxed{4} is the value, \boxed{", r"\boxed{4\}"],
)
def test_without_a_whole_last_box_there_is_no_answer_and_no_form(text):
    assert boxed_answer(text) == (None, False)


def test_the_last_of_several_boxes_counts():
    assert boxed_answer(r"First \boxed{4}. Wait: \boxed{\frac{1}{2}}.") == (r"\frac{1}{2}", True)


def test_an_escaped_brace_does_not_close_a_box():
    assert boxed_answer(r"\boxed{\left\{ x \right.}") == (r"\left\{ x \right.", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so </think> <answer>4</answer>", ("4", True)),
        ("so </think> <answer>4</answer> trailing text", ("4", True)),
        ("so </think> <answer>3</answer> </think> <answer>4</answer>", ("4", True)),
        ("so </think> <answer>4</answer> and then <answer>3</answer>", ("3", True)),
        (r"so </think> <answer>It is \boxed{4} cm</answer>", ("4", True)),
        (r"so </think> <answer>It is \boxed{4</answer>", (None, True)),
        (r"so \boxed{5} </think> <answer>4</answer>", ("4", True)),
        ("so </think> <answer>4</answer> <answer>5", ("5", True)),
        ("so </think><answer>4</answer>", (None, False)),
        ("so </think>\n<answer>4</answer>", (None, False)),
        ("so </think>  <answer>4</answer>", (None, False)),
        ("so </think> <answer>4", (None, False)),
        ("so <answer>4</answer>", (None, False)),
    ],
)
def test_the_answer_stands_between_the_last_tags_after_one_literal_space(text, expected):
    assert tagged_answer(text) == expected


def test_extraction_takes_linear_time_on_hostile_text():
    start = time.perf_counter()
    for text in ("\\boxed{" * 100_000, "\\boxed{" + "{" * 500_000, "\\boxed{" + "{}" * 250_000 + "}", "<answer>" * 100_000):
        boxed_answer(text)
        tagged_answer("</think> <answer></answer>" + text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("form", "text", "strict", "compat"),
    [
        ("boxed", r"\boxed{\left\{ x \right.}", (r"\left\{ x \right.", True), (None, False)),
        ("boxed", r"\boxed{4\}", (None, False), ("4\\", True)),
        ("boxed", r"\boxed{\{1, 2\}}", (r"\{1, 2\}", True), (r"\{1, 2\}", True)),
        ("answer_tag", "</think> <answer>4</answer> is it", ("4", True), ("4 is it", True)),
        ("answer_tag", r"</think> <answer>4</answer> \boxed{5}", ("4", True), ("5", True)),
        ("orz_tag", "</think>\n<answer>4</answer></answer>", ("4", True), ("4", True)),
        ("orz_tag", "<answer>4", (None, False), (None, False)),
        ("orz_tag", r"<answer>\boxed{4</answer>", (None, True), (None, True)),
    ],
)
def test_compat_counts_every_brace_and_reads_on_after_the_closing_tag(form, text, strict, compat):
    assert extractor(form)(text) == strict
    assert extractor(form, compat=True)(text) == compat


def test_extractor_names_the_forms_it_knows():
    assert extractor("boxed")(r"\boxed{1}") == ("1", True)
    assert extractor("answer_tag")(r"\boxed{1}") == (None, False)
    with pytest.raises(ValueError, match="none of 'boxed', 'answer_tag', 'orz_tag'"):
        extractor("fbox")

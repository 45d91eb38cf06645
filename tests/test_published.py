"""Published accuracies: copied right, and shown only beside what was measured in the same way."""

from dataclasses import replace

import pytest

from fastgrpo.accuracy import Prediction, measure
from fastgrpo.benchmark import Protocol, published_for
from fastgrpo.published import BENCHMARKS, ROWS, published

AVERAGES = {  # in per cent, as printed in Tables 1 and 4 of arXiv:2503.20783
    ("Qwen2.5-Math-1.5B", "4-shot", 3000): 19.7,
    ("Qwen2.5-Math-1.5B", "r1", 3000): 7.9,
    ("Qwen2.5-Math-1.5B", "qwen_math", 3000): 24.2,
    ("Qwen2.5-Math-1.5B", "no", 3000): 33.1,
    ("Qwen2.5-Math-7B", "4-shot", 3000): 23.8,
    ("Qwen2.5-Math-7B", "r1", 3000): 0.0,
    ("Qwen2.5-Math-7B", "qwen_math", 3000): 26.5,
    ("Qwen2.5-Math-7B", "no", 3000): 38.2,
    ("Qwen2.5-Math-1.5B-Oat-Zero", "qwen_math", 3000): 42.1,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "", 3000): 22.0,
    ("DeepSeek-R1-Distill-Qwen-1.5B", "", 8000): 41.5,
    ("Qwen2.5-Math-1.5B-Instruct", "", 3000): 39.8,
    ("Llama-3.2-3B", "", 3000): 3.3,
    ("FineMath-Llama-3B", "", 3000): 6.0,
    ("Llama-3.2-3B-Oat-Zero", "r1", 3000): 20.7,
    ("Llama-3.2-3B-Instruct", "", 3000): 17.1,
    ("Qwen-2.5-Math-7B-SimpleRL-Zero", "", 3000): 46.6,
    ("Eurus-2-7B-PRIME-Zero", "", 3000): 48.0,
    ("Open-Reasoner-Zero-7B", "", 3000): 43.0,
    ("Open-Reasoner-Zero-7B", "", 8000): 45.9,
    ("Qwen2.5-Math-7B-Oat-Zero", "qwen_math", 3000): 51.4,
    ("DeepSeek-R1-Distill-Qwen-7B", "", 3000): 28.5,
    ("DeepSeek-R1-Distill-Qwen-7B", "", 8000): 54.7,
    ("Qwen2.5-Math-7B-Instruct", "", 3000): 45.1,
}
SIZES = {"aime24": 30, "amc": 83, "math500": 500, "minerva": 272, "olympiad_bench": 675}
PROTOCOL = Protocol("Qwen/Qwen2.5-Math-7B", "", "no", 1, 0.0, 3000, "math_verify", 0, False, False, 0, "bfloat16")


def evaluated(**sizes: int) -> dict:
    row = Prediction("set", "", 0, "1 + 1?", "2", "", 1, "stop", False, "ok", False)
    return {name: measure([replace(row, id=str(i)) for i in range(size)]) for name, size in sizes.items()}


def test_every_row_has_the_published_average():
    assert {(row.model, row.template, row.max_new_tokens) for row in ROWS} == set(AVERAGES)
    for row in ROWS:
        average = AVERAGES[row.model, row.template, row.max_new_tokens]
        assert sum(row.accuracies) / 5 == pytest.approx(average, abs=0.1001), row  # both are rounded to 0.1
    assert set(BENCHMARKS) == set(SIZES)


def test_accuracies_are_possible_with_so_many_problems():
    """Where the paper shows one response to each problem, so a share is a whole number of them: it says aime24 20.0, not 0.2."""
    for row in ROWS:
        if row.template:
            steps = row.accuracies[0] / 100 * SIZES["aime24"]
            assert abs(steps - round(steps)) < 0.02, row


def test_a_model_is_known_by_path_and_hub_id():
    found = published("/models/sail/qwen2.5-math-7b-oat-zero/", "qwen_math", 3000)
    assert found == published("sail/Qwen2.5-Math-7B-Oat-Zero", "qwen_math", 3000)
    assert found == pytest.approx({"aime24": 0.433, "amc": 0.627, "math500": 0.8, "minerva": 0.301, "olympiad_bench": 0.41})
    assert published("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "r1", 8000)["aime24"] == pytest.approx(0.333)


@pytest.mark.parametrize("change", [{"template": "r1"}, {"model": "Qwen/Qwen2.5-Math-7B-Oat-Zero"}, {"max_new_tokens": 1024}])
def test_another_model_template_or_budget_has_other_numbers_or_none(change):
    want = published_for(PROTOCOL, evaluated(**SIZES))
    assert len(want) == 5 and published_for(replace(PROTOCOL, **change), evaluated(**SIZES)) != want


@pytest.mark.parametrize("change", [{"temperature": 0.6}, {"verifier": "fast"}, {"max_new_tokens": 1024}])
def test_numbers_measured_in_another_way_have_none_beside_them(change):
    assert published_for(replace(PROTOCOL, **change), evaluated(**SIZES)) == {}


def test_only_whole_sets_have_a_published_number_beside_them():
    sets = evaluated(aime24=30, amc=20, mine=30)
    assert published_for(PROTOCOL, sets) == {"aime24": pytest.approx(0.2)}

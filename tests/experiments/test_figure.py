"""What is drawn: bars as high as means, whiskers as long as spreads, marks where the paper's numbers are; lines that are means."""

import pytest
from matplotlib.figure import Figure

from fastgrpo.experiments.figure import arms_of, draw, draw_bars, mean_curves
from fastgrpo.experiments.page import cell, table, write_page

RESULTS = {
    "title": "t",
    "source": "s",
    "quick": False,
    "arms": {"a": "A", "b": "B", "c": "C"},
    "measures": {"easy": "Easy", "hard": "Hard", "reward": "Reward"},
    "means": {
        "easy": {"a": {"mean": 0.8, "sd": 0.1, "seeds": 2}, "b": {"mean": 0.5, "sd": None, "seeds": 1}},
        "hard": {"b": {"mean": 0.2, "sd": None, "seeds": 1}},
        "reward": {"a": {"mean": 0.3, "sd": 0.0, "seeds": 2}},
    },
    "published": {"easy": {"a": 0.7}, "hard": {}, "reward": {}},
    "curves": {"reward": {"a-0": [(1, 0.2), (2, 0.4)], "a-1": [(1, None), (2, 0.6)]}},
    "axes": {"reward": "step"},
    "bars": {"accuracy": ["easy", "hard"]},
    "excerpts": {"a": [{"question": "q < 2", "passage": "I recheck", "keywords": ["recheck"], "judged": True, "right": False}]},
    "verdicts": [{"sentence": "not shown: x"}],
}


def test_a_mean_curve_is_over_the_seeds_that_have_the_step():
    curves = {"an-arm-0": [(1, 1.0), (2, None)], "an-arm-1": [(1, 3.0), (2, 5.0)], "other-0": [(1, 7.0)]}
    assert mean_curves(curves) == {"an-arm": [(1, 2.0), (2, 5.0)], "other": [(1, 7.0)]}


def test_bars_have_the_height_of_means_and_a_place_for_each_arm_that_has_any():
    assert arms_of(RESULTS, ["easy", "hard"]) == ["a", "b"]  # c has none
    axes = Figure().subplots()
    draw_bars(axes, RESULTS, "accuracy", {"a": "red", "b": "blue", "c": "green"})
    of_a, of_b = (container.patches for container in axes.containers if hasattr(container, "patches"))
    assert [bar.get_height() for bar in of_a] == [0.8] and [bar.get_height() for bar in of_b] == [0.5, 0.2]
    assert of_a[0].get_x() + of_a[0].get_width() == pytest.approx(of_b[0].get_x())  # side by side in their group
    (whisker,) = (line for line in axes.collections if len(line.get_segments()) == 1 and line.get_label() != "in the paper")
    assert whisker.get_segments()[0][:, 1].tolist() == pytest.approx([0.7, 0.9])
    (mark,) = (line for line in axes.collections if line.get_label() == "in the paper")
    assert set(mark.get_segments()[0][:, 1]) == {0.7}


def test_figure_and_page_are_written(tmp_path):
    draw(RESULTS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    write_page(RESULTS, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert (
        "0.800 +- 0.100 (paper 0.700)" in page and "q &lt; 2" in page and "wrong; by recheck, the judge" in page and "not shown: x" in page
    )


def test_the_table_says_where_there_is_nothing():
    assert table(RESULTS)[2] == ["B", "0.500", "0.200", "-", "1"]
    assert table(RESULTS)[3] == ["C", "-", "-", "-", "0"]
    assert cell(None, 0.5) == "- (paper 0.500)"

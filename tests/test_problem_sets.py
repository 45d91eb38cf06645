"""Problem sets known by name, loaded from rows of the shape that their publishers give them."""

import pytest
from source_files import jsonl, load, refusal, saved

from fastgrpo.data import row_number
from fastgrpo.problem_sets import PRESETS


@pytest.fixture
def hub(monkeypatch):
    """Puts rows behind datasets.load_dataset; calling it gives the list of what was asked for."""
    import datasets

    def publish(rows):
        asked = []

        def load_dataset(path, name=None, split=None):
            asked.append((path, name, split))
            return datasets.Dataset.from_list(rows)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return publish


def test_the_solution_of_gsm8k_is_cut_down_to_its_result(hub):
    solution = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether <<48+24=72>>72 clips.\n#### 72"
    asked = hub(
        [{"question": "How many clips?", "answer": solution}, {"question": "How much?", "answer": "#### 1 is not all\n#### 30,000"}]
    )
    problems = load("gsm8k").problems
    assert [(p.problem, p.answer) for p in problems] == [("How many clips?", "72"), ("How much?", "30,000")]
    assert asked == [("openai/gsm8k", "main", "train")]
    assert problems[0].columns["answer"] == solution and problems[1].id == "gsm8k-2"


@pytest.mark.parametrize("answer", ["72", "so it is 72 ####", None])
def test_a_solution_of_gsm8k_without_a_result_is_skipped(answer, hub):
    hub([{"question": "a", "answer": "#### 1"}, {"question": "b", "answer": answer}])
    found = load("gsm8k_test")
    assert [row_number(p) for p in found.problems] == [1] and [row.number for row in found.skipped] == [2]


def test_big_math_has_its_own_columns_and_configuration(hub):
    asked = hub([{"prompt": "How much?", "solution": "10\\%", "source": "orca_math", "llama8b_solve_rate": 0.5, "problem": "not this"}])
    (problem,) = load("big_math").problems
    assert (problem.problem, problem.answer) == ("How much?", "10\\%")
    assert asked == [("open-r1/Big-Math-RL-Verified-Processed", "all", "train")]


def test_columns_given_for_other_sources_do_not_touch_a_name(hub):
    hub([{"problem": "q", "answer": "a"}])
    assert [p.answer for p in load("aime24", "prompt", "solution").problems] == ["a"]


@pytest.mark.parametrize(
    ("name", "split", "answer"),
    [("aime24", "aime24", "025"), ("amc", "amc", 142.0), ("math500", "math", "\\frac{1}{2}"), ("minerva", "minerva", ["9.6", "9.7"])],
)
def test_evaluation_sets_are_splits_of_one_publication(name, split, answer, hub):
    asked = hub([{"problem": "q", "answer": answer}])
    assert [p.answer for p in load(name).problems] == [answer] and asked == [("axon-rl/math-eval", None, split)]


def test_a_count_of_rows_that_differs_is_a_warning(hub):
    rows = [{"problem": f"q{i}", "answer": "1"} for i in range(30)]
    hub(rows)
    assert load("aime24").warnings == ()
    hub([*rows[:28], {"problem": "", "answer": "1"}, rows[29]])
    assert load("aime24").warnings == ()  # a skipped row is not a missing one
    hub(rows[1:])
    assert load("aime24").warnings == ("aime24: axon-rl/math-eval@aime24 has 29 rows, 30 were expected; it may have changed",)
    assert len(load("aime24").problems) == 29
    assert load("orz57k").warnings == ()  # its count is not known


def test_a_name_whose_columns_changed_says_how_to_go_on(hub):
    hub([{"text": "q", "answer": "#### 1"}])
    line = refusal("gsm8k")
    assert "no column 'question'; it has answer, text" in line and "openai/gsm8k:main@train or a file can be given" in line


def test_a_name_means_the_published_set_even_beside_a_file_or_directory_of_that_name(hub, tmp_path, monkeypatch):
    hub([{"problem": "published", "answer": "1"}])
    jsonl(tmp_path / "math12k.jsonl", [{"problem": "own", "answer": "1"}])
    (tmp_path / "math12k").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [p.problem for p in load("math12k").problems] == ["published"]
    assert [p.problem for p in load("math12k.jsonl").problems] == ["own"]
    assert "could not be loaded" in refusal("./math12k")


def test_a_directory_needs_no_slash_unless_it_is_called_like_a_set(tmp_path, monkeypatch):
    saved(tmp_path / "mine", [{"problem": "own", "answer": "1"}])
    monkeypatch.chdir(tmp_path)
    assert [p.id for p in load("mine").problems] == ["mine-1"]


def test_an_unknown_name_is_refused_with_near_ones_and_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refusal("math_12k")
    assert "math_12k is not a problem set; did you mean math12k" in line
    assert all(name in line for name in PRESETS) and "builtin:arithmetic" in line
    assert "did you mean" not in refusal("zzz")


def test_the_counts_of_the_evaluation_sets_are_the_published_ones():
    counts = {name: PRESETS[name].rows for name in ("aime24", "amc", "math500", "minerva", "olympiad_bench")}
    assert counts == {"aime24": 30, "amc": 83, "math500": 500, "minerva": 272, "olympiad_bench": 675}
    assert (PRESETS["math12k"].rows, PRESETS["math_lvl3to5"].rows, PRESETS["gsm8k"].rows) == (12_000, 8_523, 7_473)

"""The evaluation behind `fastgrpo eval`: what it writes, that it goes on where it stopped, and that protocols never mix."""

import json
from dataclasses import replace

import pyarrow.parquet
import pytest

from fastgrpo.benchmark import Protocol, open_directory, run_benchmark
from fastgrpo.errors import InputError, SetupError
from fastgrpo.rewards import Grader
from fastgrpo.types import Completion, Prompt

PROTOCOL = Protocol("Qwen/Qwen2.5-Math-7B", "", "no", 2, 1.0, 3000, "fast", 0, False, False, 0, "bfloat16")
SETS = {
    name: [Prompt(f"{name}-{i}", (1, 2), str(i % 3), f"problem {i} of {name}") for i in range(size)] for name, size in (("a", 5), ("b", 3))
}


class Dying:
    """Answers as a function of the seed; dies after `lives` responses."""

    def __init__(self, lives: int = 10**6):
        self.lives, self.drawn = lives, []

    def generate(self, prompts, n, sampling, seeds, on_finished=None):
        for i, prompt in enumerate(prompts):
            for j in range(n):
                if self.lives == 0:
                    raise KeyboardInterrupt
                self.lives -= 1
                self.drawn.append((prompt.id, seeds[i][j]))
                on_finished(i, j, Completion(rf"\boxed{{{seeds[i][j] % 3}}}", seeds[i][j] % 10 + 1, ("stop", "length")[seeds[i][j] % 2]))


@pytest.fixture(scope="module")
def grader():
    with Grader("boxed", "fast") as grader:
        yield grader


def run(directory, grader, sampler=None, protocol=PROTOCOL, sets=SETS):
    open_directory(directory, protocol)
    said = []
    try:
        return run_benchmark(protocol, sets, sampler or Dying(), grader, (), directory, said.append), said
    finally:
        grader.results()  # of the responses before a death


def files(directory) -> dict[str, object]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if "responses" not in path.name}


def test_it_writes_every_prediction_and_the_numbers(tmp_path, grader):
    outcome, said = run(tmp_path / "out", grader)
    assert said == ["a: 5 problems, 10 of 10 responses to draw", "b: 3 problems, 6 of 6 responses to draw"]
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written == json.loads(json.dumps(outcome.as_json()))
    for name, size in (("a", 5), ("b", 3)):
        rows = pyarrow.parquet.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist()
        assert len(rows) == 2 * size and {row["way"] for row in rows} == {"sampled"}
        shown = written["sets"][name]
        assert (shown["problems"], shown["samples"]) == (size, 2) and set(shown["pass_at"]) == {"1", "2"}
        assert shown["accuracy"] == pytest.approx(sum(row["right"] for row in rows) / len(rows))
        assert shown["truncated"] == pytest.approx(sum(row["finish_reason"] == "length" for row in rows) / len(rows))
        assert shown["length_max"] == max(row["length"] for row in rows)
    assert written["average"] == pytest.approx(sum(shown["accuracy"] for shown in written["sets"].values()) / 2)
    assert written["pooled"] == pytest.approx((10 * written["sets"]["a"]["accuracy"] + 6 * written["sets"]["b"]["accuracy"]) / 16)


def test_stopped_anywhere_it_ends_as_if_it_had_not_been(tmp_path, grader):
    whole = Dying()
    run(tmp_path / "whole", grader, whole)
    for lives in (1, 4, 10, 13):
        first, second, directory = Dying(lives), Dying(), tmp_path / str(lives)
        with pytest.raises(KeyboardInterrupt):
            run(directory, grader, first)
        run(directory, grader, second)
        assert sorted(first.drawn + second.drawn) == sorted(whole.drawn)  # nothing twice
        assert files(directory) == files(tmp_path / "whole")
    third = Dying(0)
    run(tmp_path / "13", grader, third)
    assert third.drawn == [] and files(tmp_path / "13") == files(tmp_path / "whole")


def test_an_edited_problem_is_drawn_again_and_no_other(tmp_path, grader):
    run(tmp_path / "out", grader)
    edited = {"a": [*SETS["a"][:4], replace(SETS["a"][4], problem="another")], "b": SETS["b"]}
    again = Dying()
    run(tmp_path / "out", grader, again, sets=edited)
    assert [id for id, _ in again.drawn] == ["a-4", "a-4"]


def test_truncated_answers_count_as_the_protocol_says(tmp_path, grader):
    strict, _ = run(tmp_path / "strict", grader)
    kept, _ = run(tmp_path / "kept", grader, protocol=replace(PROTOCOL, keep_truncated=True))
    assert sum(kept.evaluations[name].accuracy for name in SETS) > sum(strict.evaluations[name].accuracy for name in SETS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "other"), ("template", "r1"), ("n", 4), ("temperature", 0.5), ("max_new_tokens", 9), ("verifier", "math_verify"),
        ("seed", 1), ("keep_truncated", True), ("compat", True), ("limit", 3), ("dtype", "float32"),
    ],
)  # fmt: skip
def test_a_directory_belongs_to_one_protocol(name, value, tmp_path):
    open_directory(tmp_path / "out", PROTOCOL)
    open_directory(tmp_path / "out", PROTOCOL)
    with pytest.raises(InputError, match=rf"another protocol: {name}={value} \(there {getattr(PROTOCOL, name)}\); choose another --out"):
        open_directory(tmp_path / "out", replace(PROTOCOL, **{name: value}))


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="already holds other files"):
        open_directory(tmp_path, PROTOCOL)
    with pytest.raises(SetupError, match="cannot be written"):
        open_directory(tmp_path / "thesis.tex", PROTOCOL)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_several_greedy_responses_are_refused():
    with pytest.raises(InputError, match="-n 4 with temperature 0 would draw the same response 4 times"):
        replace(PROTOCOL, n=4, temperature=0.0)

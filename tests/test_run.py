"""A run directory holds what the run said, row for row, and is never shared or overwritten."""

import json
import os
import time

import pytest

from fastgrpo.errors import InputError, SetupError
from fastgrpo.ranks import Ranks
from fastgrpo.run import Run
from fastgrpo.types import Grade, Prompt, Rollout, ScoredGroup


class Listener:
    """An observer that remembers."""

    def __init__(self):
        self.phases, self.rows, self.notes = [], [], []

    def begin(self, name, steps): ...

    def phase(self, name):
        self.phases.append(name)

    def row(self, row):
        self.rows.append(row)

    def note(self, text):
        self.notes.append(text)

    def end(self): ...


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "deep" / "run", Listener())
    yield run
    run.close()


def metrics(run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]


def test_a_directory_in_use_is_refused_and_left_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("mine")
    with pytest.raises(InputError, match="already holds files; go on with --resume auto, choose another, or remove it"):
        Run(tmp_path, Listener())
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"] and (tmp_path / "metrics.jsonl").read_text() == "mine"


def test_an_empty_directory_is_used(tmp_path):
    Run(tmp_path, Listener()).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "evals", "lock", "logs", "metrics.jsonl", "rollouts"]


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_way_is_an_error_of_the_setup(name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"run_dir=.*file.* cannot be written: Not a directory"):
        Run(tmp_path / name, Listener())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_an_error_of_the_setup(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError, match="cannot be written: Permission denied"):
        Run(tmp_path / "run", Listener())


def test_rows_appear_at_once_in_order_with_the_seconds_of_their_own_phases(run):
    for _ in range(2):
        with run.phase("sample"):
            time.sleep(0.02)
    with run.phase("learn"):
        pass
    run.log_row({"step": 1, "reward": 0.5, "length_right": None})
    assert metrics(run)[0] == run.observer.rows[0]  # while the run goes on
    run.log_row({"step": 2})
    first, second = metrics(run)
    assert (first["step"], first["reward"], first["length_right"]) == (1, 0.5, None)
    assert 0.04 <= first["seconds"]["sample"] < 2 and first["seconds"]["learn"] < first["seconds"]["sample"]
    assert second == {"step": 2, "seconds": {}}
    assert run.observer.phases == ["sample", "sample", "learn"]


def test_log_lines_carry_their_second(run):
    run.log("stopped: KeyboardInterrupt")
    (line,) = (run.directory / "logs" / "rank_0.log").read_text().splitlines()
    seconds, text = line.split(" s  ")
    assert text == "stopped: KeyboardInterrupt"
    assert float(seconds) < 60


def test_a_failure_inside_is_the_last_line_of_the_log(run):
    with pytest.raises(ValueError, match="boom"), run:
        raise ValueError("boom")
    log = (run.directory / "logs" / "rank_0.log").read_text()
    assert log.endswith("stopped: ValueError: boom\n")
    assert 'raise ValueError("boom")' in log and "rank 0 stopped between phases; memory" in log


def group(identity: str, answer, texts: list[str]) -> ScoredGroup:
    rollouts = [Rollout(tuple(range(n + 1)), tuple(-0.1 * i for i in range(n + 1)), "stop", text) for n, text in enumerate(texts)]
    grades = [Grade(float(n == 0), n % 2 == 0, "ok" if n else "timeout", {"bonus": 0.5} if n else {}) for n in range(len(texts))]
    rewards = [grade.reward for grade in grades]
    return ScoredGroup(Prompt(identity, (1, 2), answer, f"{identity}?"), tuple(rollouts), tuple(grades), tuple(rewards), tuple(rewards))


def test_rollouts_read_back_row_for_row(run):
    import pyarrow.parquet

    groups = [group("a", "025", ["plain", "größer \\boxed{2}\n", ""]), group("b", ["1", 2.5], ["\x00", "</answer>"])]
    run.write_rollouts(7, groups)
    rows = pyarrow.parquet.read_table(run.directory / "rollouts" / "step_000007.parquet").to_pylist()
    expected = [
        {
            "step": 7,
            "prompt_id": one.prompt.id,
            "problem": one.prompt.problem,
            "answer": one.prompt.answer,
            "sample": j,
            "text": one.rollouts[j].text,
            "token_ids": list(one.rollouts[j].token_ids),
            "logprobs": list(one.rollouts[j].logprobs),
            "finish_reason": one.rollouts[j].finish_reason,
            "formatted": one.grades[j].formatted,
            "grading": one.grades[j].status,
            "reward": one.rewards[j],
            "rewards": json.dumps(dict(one.grades[j].parts)),
            "advantage": one.advantages[j],
        }
        for one in groups
        for j in range(len(one.rollouts))
    ]
    assert [row | {"answer": json.loads(row["answer"])} for row in rows] == expected


def test_whole_files_are_written_below_the_directory(run):
    run.write("config.yaml", "lr: 1e-6\n")
    assert (run.directory / "config.yaml").read_text() == "lr: 1e-6\n"


@pytest.mark.parametrize(
    ("of_ranks", "noted"),
    [
        ([{"sample": 1.0}, {"sample": 30.0}, {"sample": 2.0}], ["rank 1 took 30 s for sample, where 2 s are usual"]),
        ([{"grade": 2.0}, {"grade": 6.0}], []),  # some seconds more are no news
        ([{"learn": 100.0}, {"learn": 120.0}], []),
        ([{"learn": 100.0}], []),
    ],
)
def test_a_rank_that_keeps_the_others_waiting_is_noted(tmp_path, monkeypatch, of_ranks, noted):
    monkeypatch.setattr(Ranks, "gather", lambda self, mine: of_ranks)
    listener = Listener()
    with Run(tmp_path / "run", listener) as run:
        run.log_row({"step": 1})
    assert listener.notes == noted
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert row["seconds"] == {name: max(found[name] for found in of_ranks) for name in of_ranks[0]}

"""Questions about responses: what they find, what they cannot reach, and what is said of mistakes."""

import json
import math
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from in_process import in_process
from test_cli import here, refusal

from fastgrpo.accuracy import Prediction
from fastgrpo.errors import InputError
from fastgrpo.predictions import write_predictions
from fastgrpo.rollout_rows import write_rollouts
from fastgrpo.row_query import find_files, find_rows
from fastgrpo.types import Grade, Prompt, Rollout, ScoredGroup

__all__ = ["here"]
TEXT = 'first line\nsecond, "quoted" \\boxed{2}'


def group(name: str, rewards: tuple[float | None, ...]) -> ScoredGroup:
    """Responses of 1, 2, ... tokens; every second one was cut off."""
    rollouts = [
        Rollout(tuple(range(n + 1)), (-0.5,) * (n + 1), "length" if n % 2 else "stop", f"{TEXT} {name}") for n in range(len(rewards))
    ]
    grades = [Grade(reward, True, "unscorable" if reward is None else "ok") for reward in rewards]
    return ScoredGroup(Prompt(name, (1,), "2", f"{name}?"), tuple(rollouts), tuple(grades), rewards, (0.5, -0.5, 0.0, 0.0))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of steps 1, 2 and 10 with its settings, rollouts and evaluations; in step 2 nothing could be scored."""
    monkeypatch.setenv("COLUMNS", "150")
    directory = tmp_path / "my 'run'"
    for folder in ("rollouts", "evals", "checkpoints"):
        (directory / folder).mkdir(parents=True)
    (directory / "config.yaml").write_text("recipe: tiny\n")
    for step, rewards in ((1, (1.0, 0.0, 0.25, 1.0)), (2, (None,) * 4), (10, (0.0, 0.0, 1.0, math.nan))):
        write_rollouts(directory / "rollouts" / f"step_{step:06d}.parquet", step, [group("a", rewards), group("b", rewards)])
    rows = [Prediction("set", str(n), 0, "1 + 1?", "2", TEXT, 5 + n, "stop", True, "ok", n > 0) for n in range(3)]
    write_predictions(directory / "evals" / "step_000010.parquet", {"greedy": rows})
    return directory


def found(run, *arguments, step="", evaluations=False, **options):
    return find_rows(find_files(str(run), step, evaluations, print), *arguments, **options)


def test_an_expression_finds_the_rows_that_it_is_true_of(run):
    every = [row for path in sorted((run / "rollouts").iterdir()) for row in pyarrow.parquet.read_table(path).to_pylist()]
    wanted = [row for row in every if row["reward"] is not None and row["reward"] < 1 and row["finish_reason"] == "length"]
    result = found(run, "reward < 1 and truncated")
    assert len(wanted) == 4 and (result.matching, result.total) == (4, 24)
    rows = result.rows.to_pylist()
    assert [{name: row[name] for name in wanted[0]} for row in rows] == wanted
    assert all(row["truncated"] and row["length"] == len(row["token_ids"]) for row in rows)


def test_order_limit_columns_and_steps(run):
    result = found(run, order="length desc, step desc", columns=["step", "length"], limit=3)
    assert result.rows.to_pylist() == [{"step": 10, "length": 4}] * 2 + [{"step": 2, "length": 4}] and result.matching == 24
    for step, steps in (("last", {10}), ("2", {2}), ("1-2", {1, 2}), ("1, 10", {1, 10}), ("", {1, 2, 10})):
        assert {row["step"] for row in found(run, step=step).rows.to_pylist()} == steps
    assert found(run, "length > (select avg(length) from rows) -- longer than most", limit=0).matching == 12
    assert found(run, "false").rows.num_rows == 0


def test_evaluations_of_a_run_and_a_directory_of_eval_can_be_asked_too(run):
    assert [row["id"] for row in found(run, '"right"', evaluations=True).rows.to_pylist()] == ["1", "2"]
    (run / "evals" / "alone").mkdir()
    (run / "evals" / "alone" / "protocol.json").write_text("{}")
    shutil.copy(run / "evals" / "step_000010.parquet", run / "evals" / "alone" / "set.parquet")
    assert found(run / "evals" / "alone", "not \"right\" and text like '%quoted%'").matching == 1


@pytest.fixture
def tempting(run, tmp_path, monkeypatch):
    """Files that nobody may read, and the names of what must not appear."""
    (tmp_path / "secret.csv").write_text("hidden\n1\n")
    shutil.copy(run / "rollouts" / "step_000001.parquet", tmp_path / "other.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "expression",
    [
        "exists (from read_csv('secret.csv'))",
        "exists (from 'secret.csv')",
        "exists (from read_text('/etc/passwd'))",
        "exists (from read_blob('secret.csv'))",
        "exists (from glob('*'))",
        "exists (from read_parquet('other.parquet'))",
        "exists (from read_text('http://127.0.0.1:9/'))",
        "exists (from read_csv('/dev/stdin'))",
        "exists (from sqlite_scan('x.db', 'runs'))",
        "exists (from query('copy rows to ''out.csv'''))",
        "exists (from expression)",  # a variable of this process
        "true; copy rows to 'out.csv'",
        "true); copy rows to 'out.csv'; select (true",
        "true) union (select true",
        "true) from (select 1",
        "copy rows to 'out.csv'",
        "attach 'out.db' as other",
        "install httpfs",
        "load '/tmp/evil.duckdb_extension'",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "pragma enable_external_access",
        "create table other as from rows",
        "drop view rows",
        "export database 'out'",
        "getenv('HOME') is not null",
    ],
)
def test_an_expression_reaches_no_file_network_variable_or_second_statement(expression, run, tempting):
    before = sorted(tempting.rglob("*"))
    with pytest.raises(InputError, match=r"^--where "):
        found(run, expression)
    with pytest.raises(InputError, match=r"^--(where|order) "):
        found(run, "true", order=expression)
    assert sorted(tempting.rglob("*")) == before
    assert found(run).total == 24


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--where", "rewrd < 1"), "--where 'rewrd < 1': there is no column 'rewrd'; did you mean reward? the columns are step, prompt_id"),
        (("--where", "reward <"), "--where 'reward <': Parser Error: syntax error"),
        (("--where", "sum(reward) > 1"), "WHERE clause cannot contain aggregates"),
        (("--where", "cast(text as int) > 1"), "Could not convert string"),
        (("--where", "not right"), 'as a column it is written "right", in double quotes'),
        (("--order", "lenth"), "--order 'lenth': there is no column 'lenth'; did you mean length?"),
        (("--columns", "step,txt"), "--columns: there is no column 'txt'; did you mean text?"),
        (("--step", "3"), "has no step 3; it has 1 to 10"),
        (("--step", "three"), "--step three is none; it can be last, a number, or a list such as 1,5-8"),
        (("--parquet", "there.parquet"), "--parquet there.parquet exists already; name a new file"),
        (("--parquet", "no/where.parquet"), "--parquet no/where.parquet cannot be written: Failed to open"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, words, run):
    Path("there.parquet").write_text("mine")
    refused = in_process("rollouts", str(run), *arguments)
    assert words in refusal(refused, 3 if "cannot be written" in words else 2) and refused.stdout == ""


def test_what_holds_no_responses_is_told(run, tmp_path):
    for name, words in (("nowhere", "is no such directory"), (".", "is neither; give the directory of a run")):
        with pytest.raises(InputError, match=words):
            find_files(str(tmp_path / name), "", False, print)
    for path in (run / "rollouts").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no responses yet"):
        find_files(str(run), "", False, print)


def test_a_torn_file_is_left_out_and_said_or_refused_where_it_is_meant(run):
    torn = run / "rollouts" / "step_000002.parquet"
    os.truncate(torn, 100)
    said = []
    assert len(find_files(str(run), "", False, said.append)) == 2
    assert len(said) == 1 and said[0].startswith(f"WARNING: {torn} is left out, it cannot be read: ")
    with pytest.raises(InputError, match=re.escape(f"{torn} cannot be read: ")):
        find_files(str(run), "2", False, print)


def test_the_command_prints_a_table_json_whole_texts_and_writes_parquet(run):
    shown = in_process("rollouts", str(run), "--where", "reward = 0.25")
    assert shown.stderr == "2 of 24 responses\n" and len(shown.stdout.splitlines()) == 3
    assert "0.25" in shown.stdout and r"first line\nsecond" in shown.stdout
    rows = json.loads(in_process("rollouts", str(run), "--step", "last", "--order", "reward desc nulls first", "--json").stdout)
    assert len(rows) == 8 and rows[0]["reward"] is None and rows[0]["token_ids"] == [0, 1, 2, 3]  # NaN is the largest number of SQL
    long = in_process("rollouts", str(run), "--columns", "prompt_id,text", "--limit", "1", "--long")
    assert long.stdout == f"prompt_id: a\ntext: {TEXT} a\n" and long.stderr == "24 of 24 responses, 1 of them shown\n"
    written = in_process("rollouts", str(run), "--where", "truncated", "--parquet", "out.parquet")
    assert written.stdout == "" and written.stderr == "12 of 24 responses: out.parquet\n"
    assert pyarrow.parquet.read_table("out.parquet").to_pylist()[0]["text"] == f"{TEXT} a"
    nothing = in_process("rollouts", str(run), "--where", "reward > 1 and not isnan(reward)")
    assert nothing.stdout == "" and nothing.stderr == "0 of 24 responses\n"

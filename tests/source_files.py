"""Writers of problem sets for tests, one for each kind of file, and what loading one says."""

import json

import pytest

from fastgrpo.data import ProblemSet, load_problems
from fastgrpo.errors import InputError


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def array(path, rows):
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


def parquet(path, rows, **settings):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **settings)


def saved(path, rows):
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(path)


FORMATS = [(jsonl, "set.jsonl"), (array, "set.json"), (parquet, "set.parquet"), (saved, "set")]


def load(path, problem="problem", answer="answer") -> ProblemSet:
    return load_problems(str(path), problem, answer)


def refusal(path, problem="problem", answer="answer") -> str:
    """The one line that is said of a source."""
    with pytest.raises(InputError) as caught:
        load(path, problem, answer)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)

"""Predictions on disk: a journal of responses while an evaluation runs, a parquet file with a row for each graded one at its end.

A response is in the journal as soon as it ends, so a killed evaluation goes on where it stopped; grading is quick and done anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fastgrpo.accuracy import Prediction
from fastgrpo.types import Completion, Problem, Prompt, Response, SampleKey


class Journal:
    """Responses to `prompts` in a JSON-lines file; `known` are those of earlier attempts at the same problems. A torn last line is cut."""

    def __init__(self, path: Path, prompts: Sequence[Prompt | Problem]):
        self.known: dict[SampleKey, Completion] = {}
        self._problems = {prompt.id: prompt.problem for prompt in prompts}
        whole = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                if self._problems.get(row["id"]) == row["problem"]:  # an id is a row's number, and a file may have been edited
                    self.known[row["id"], row["sample"]] = Completion(row["text"], row["length"], row["finish_reason"])
                whole += len(line)
            os.truncate(path, whole)
        self._file = path.open("a", encoding="utf-8")

    def write(self, key: SampleKey, response: Response) -> None:
        row = {
            "id": key[0],
            "sample": key[1],
            "problem": self._problems[key[0]],
            "text": response.text,
            "length": response.length,
            "finish_reason": response.finish_reason,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()


def prediction_row(way: str, prediction: Prediction) -> dict:
    """A row of such a file: the prediction, and by which way it was drawn. Golds are written as JSON."""
    return {"way": way} | asdict(prediction) | {"answer": json.dumps(prediction.answer)}


def write_predictions(path: Path, predictions: Mapping[str, Sequence[Prediction]]) -> None:
    """Predictions by way of drawing."""
    write_rows(path, [prediction_row(way, row) for way, found in predictions.items() for row in found])


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """A parquet file that appears whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    unfinished = path.with_name(path.name + ".tmp")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), unfinished)
    os.replace(unfinished, path)

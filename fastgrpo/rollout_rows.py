"""The responses of a step on disk: a parquet file with a row for each, to be looked at and counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastgrpo.types import ScoredGroup


def write_rollouts(path: Path, step: int, groups: Sequence[ScoredGroup]) -> None:
    """In the order of groups and of their responses; golds and parts of a reward as JSON."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "step": step,
            "prompt_id": group.prompt.id,
            "problem": group.prompt.problem,
            "answer": json.dumps(group.prompt.answer),
            "sample": sample,
            "text": rollout.text,
            "token_ids": rollout.token_ids,
            "logprobs": rollout.logprobs,
            "finish_reason": rollout.finish_reason,
            "formatted": grade.formatted,
            "grading": grade.status,
            "reward": reward,
            "rewards": json.dumps(dict(grade.parts)),
            "advantage": advantage,
        }
        for group in groups
        for sample, (rollout, grade, reward, advantage) in enumerate(
            zip(group.rollouts, group.grades, group.rewards, group.advantages, strict=True)
        )
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)

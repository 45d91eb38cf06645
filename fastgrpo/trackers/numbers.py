"""The numbers of a row of metrics.jsonl under flat names, as trackers want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def flat_numbers(row: Mapping[str, object]) -> dict[str, float]:
    """Every number of the row but its step, as floats, by its path: `updates/0/grad_norm`, `evaluation/greedy/SET/accuracy`.

    Yes and no are 1 and 0; texts, and null, which says that there is no number, are left out.
    """
    return {name: float(value) for name, value in _leaves(row, "") if name != "step" and isinstance(value, (bool, int, float))}


def _leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        parts = enumerate(value)
    else:
        yield path, value
        return
    for name, part in parts:
        yield from _leaves(part, f"{path}/{name}" if path else str(name))

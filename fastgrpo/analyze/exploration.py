"""What a base model can find: unbiased pass@k of its responses at each temperature, with the template that makes it answer."""

from __future__ import annotations

from dataclasses import asdict

from fastgrpo.accuracy import measure
from fastgrpo.analyze.samples import Draw

K = 8


def exploration_row(draw: Draw) -> dict:
    """The evaluation of one temperature; `pass` is pass@`k`, k = 8 or all responses where there are fewer."""
    found = measure(draw.predictions)
    k = min(K, found.samples)
    return {"template": draw.template, "temperature": draw.temperature, "k": k, "pass": found.pass_at[k], **asdict(found)}

"""The row kernel over a vocabulary that is cut over ranks: each rank's four numbers a row, combined, and each rank's part of the panel."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import on_kernel  # noqa: F401  first: it skips this file in any other process
import pytest
import torch
from row_problem import assert_close, make, truth

from fastgrpo_kernels.triton_launch import RowResults, combine_shards, row_gradient, row_shard


@pytest.mark.parametrize("cuts", [(0, 1500, 3000), (0, 7, 2048, 2990, 3000)])
def test_a_vocabulary_cut_over_ranks_gives_the_same_gradient(cuts):
    p = make(rows=6, vocabulary=3000, beta=0.1)
    p.logits[0, : cuts[1]] = -torch.inf  # a rank that has nothing of this row
    p.targets[0] = 2999
    p.tokens = replace(p.tokens, old_logprobs=truth(p).logprobs.float() - 0.1)
    want = truth(p, 0.1)
    parts = [(p.logits[:, low:high], p.targets - low) for low, high in pairwise(cuts)]
    shards = combine_shards(torch.stack([row_shard(logits, targets, p.head) for logits, targets in parts]))
    panels = []
    for logits, targets in parts:
        results = RowResults.empty(6, logits.device)
        panels.append(torch.empty(logits.shape))
        row_gradient(
            logits, targets, p.head, p.tokens, p.settings, panels[-1], results,
            scale_unit=torch.ones(()), entropy_coef=0.1, shards=shards,
        )  # fmt: skip
        got = SimpleNamespace(**vars(results), panel=want.panel)
        assert_close(got, want)
    torch.testing.assert_close(torch.cat(panels, 1).double(), want.panel, rtol=3e-6, atol=3e-6)

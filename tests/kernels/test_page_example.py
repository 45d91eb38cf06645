"""The example of docs/kernels.md, as a plain PyTorch loop: it learns what its advantages ask for."""

import torch
from doc_blocks import BLOCKS


def test_the_loop_of_the_page_runs_and_raises_the_logprob_of_good_tokens():
    (example,) = (block.text for block in BLOCKS if block.page == "kernels.md" and "fused_linear_policy_loss" in block.text)
    torch.manual_seed(0)
    given = {}
    exec(example, given)
    with torch.no_grad():
        logprobs = given["head"](given["body"](given["tokens"])).log_softmax(-1)
    change = logprobs.gather(1, given["targets"][:, None])[:, 0] - given["old"]
    good = given["advantages"] > 0
    assert change[good].mean() > 0 > change[~good].mean()

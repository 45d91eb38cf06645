"""The README's example, as a plain PyTorch loop: it learns what its advantages ask for."""

import re
import textwrap
from pathlib import Path

import torch
from torch import nn

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_loop_runs_and_raises_the_logprob_of_good_tokens():
    text = README.read_text()
    example = re.search(r"^    from fastgrpo_kernels import .*?(?=\n\n(?=\S))", text, re.MULTILINE | re.DOTALL).group()
    torch.manual_seed(0)
    tokens, targets = torch.randn(12, 8), torch.arange(12)
    body, head = nn.Linear(8, 8), nn.Linear(8, 20, bias=False)
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=5.0)
    given = {"torch": torch, "body": body, "head": head, "tokens": tokens, "targets": targets, "optimizer": optimizer, "updates": 4}
    given |= {"advantages": torch.tensor([1.0, -1.0] * 6), "responses": 2, "max_new_tokens": 6}
    exec(textwrap.dedent(example), given)
    with torch.no_grad():
        change = head(body(tokens)).log_softmax(-1).gather(1, targets[:, None])[:, 0] - given["old"]
    assert change[::2].mean() > 0.05 > -0.05 > change[1::2].mean()

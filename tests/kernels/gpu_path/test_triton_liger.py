"""Against another project's kernel for the same loss, on logits: Liger's triton_grpo_loss (clip with delta, cispo, sapo, k3 KL)."""

from types import SimpleNamespace

import on_kernel  # noqa: F401  first: it skips this file in any other process
import pytest
import torch
from row_problem import head_of, make, run

from fastgrpo_kernels.objective import Tokens

liger = pytest.importorskip("liger_kernel.transformers.grpo_loss")


@pytest.mark.parametrize(("kind", "loss_type"), [("clip", "grpo"), ("cispo", "cispo"), ("sapo", "sapo")])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_loss_and_gradient_are_those_of_liger(kind, loss_type, beta):
    sequences, length, vocabulary = 3, 7, 1500  # Liger's eps_high is our 1 + clip_high in cispo
    delta = 1.4 if kind == "clip" else None
    p = make(sequences * length, vocabulary, head=head_of(0.8), kind=kind, beta=beta, delta=delta)
    advantages = torch.tensor([1.3, -0.7, 0.0])
    tokens = vars(p.tokens) | {"advantages": advantages.repeat_interleave(length)}
    p.tokens = Tokens(**tokens)
    got = run(p)

    logits = torch.zeros(sequences, length + 1, vocabulary)  # Liger's last position predicts nothing
    logits[:, :length] = p.logits.view(sequences, length, vocabulary)
    logits.requires_grad_()
    view = SimpleNamespace(**{name: value.view(sequences, length) for name, value in tokens.items()})
    losses, *_ = liger.triton_grpo_loss(
        logits, view.old_logprobs, view.ref_logprobs if beta else None, p.targets.view(sequences, length), advantages,
        temperature=0.8, beta=beta, eps_low=0.2, eps_high=1.2 if kind == "cispo" else 0.2,
        inplace=False, loss_type=loss_type, delta=delta, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
    )  # fmt: skip
    (losses * view.scale).sum().backward()
    torch.testing.assert_close(got.loss, losses.detach().flatten(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.panel, logits.grad[:, :length].reshape(-1, vocabulary), rtol=1e-5, atol=1e-6)

"""Against an independent implementation, where the objective is the same: Liger's fused linear GRPO on padded sequences."""

import pytest
import torch
from kernel_device import seeded
from kernel_problem import value_and_grads

from fastgrpo_kernels import fused_linear_policy_loss

B, L, H, V = 4, 9, 12, 37


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize(
    ("loss_type", "kind", "theirs", "ours"),
    [
        ("dr_grpo", "clip", {"max_completion_length": 20}, {"clip_low": 0.2, "clip_high": 0.3}),
        ("dr_grpo", "clip", {"max_completion_length": 20, "delta": 1.5}, {"clip_low": 0.2, "clip_high": 0.3, "delta": 1.5}),
        ("grpo", "clip", {}, {"clip_low": 0.2, "clip_high": 0.3}),
        ("bnpo", "clip", {}, {"clip_low": 0.2, "clip_high": 0.3}),
        ("sapo", "sapo", {}, {}),
        ("cispo", "cispo", {"epsilon_high": 1.3}, {"clip_high": 0.3}),  # there the bound itself, here what it is above 1
    ],
)
def test_loss_and_gradients_are_ligers(loss_type, kind, theirs, ours, beta):
    chunked_loss = pytest.importorskip("liger_kernel.chunked_loss")
    random = seeded(0)
    hidden = torch.randn(B * L, H, generator=random, dtype=torch.float64)
    weight = torch.randn(V, H, generator=random, dtype=torch.float64) / H**0.5
    targets = torch.randint(V, (B, L), generator=random)
    lengths = torch.tensor([9, 5, 7, 1])
    mask = torch.arange(L) < lengths[:, None]
    advantages = torch.tensor([1.0, -0.5, -2.0, 0.7], dtype=torch.float64)
    now = (hidden @ weight.t() / 0.8).log_softmax(1).gather(1, targets.view(-1, 1)).view(B, L)
    old, ref = (now + torch.randn(B, L, generator=random, dtype=torch.float64) / 3 for _ in range(2))
    scale = {"dr_grpo": 1 / (B * 20 + 0 * lengths), "grpo": 1 / (B * lengths), "sapo": 1 / (B * lengths)}
    scale = scale.get(loss_type, 1 / (mask.sum() + 0 * lengths)).double()

    def liger(x, w):
        settings = {"epsilon_low": 0.2, "epsilon_high": 0.3, "loss_type": loss_type, "temperature": 0.8, "beta": beta} | theirs
        loss = chunked_loss.LigerFusedLinearGRPOLoss(compiled=False, use_ref_model=True, **settings)
        inputs = {"ref_per_token_logps": ref, "old_per_token_logps": old}
        value, _ = loss(x.view(B, L, H), w, targets, mask.double(), advantages, **inputs)
        return value, value, value

    def fused(x, w):
        spread = {"advantages": advantages[:, None].expand(B, L).reshape(-1), "scale": scale[:, None].expand(B, L).reshape(-1)}
        options = {"kind": kind, "temperature": 0.8, "beta": beta, "old_logprobs": old.view(-1), "ref_logprobs": ref.view(-1)}
        return fused_linear_policy_loss(x, w, targets.view(-1), loss_mask=mask.view(-1), **spread, **options, **ours)

    want, got = value_and_grads(liger, hidden, weight), value_and_grads(fused, hidden, weight)
    for name in ("loss", "dX", "dW"):
        torch.testing.assert_close(got[name], want[name], rtol=1e-5, atol=1e-6)  # Liger computes the softmax in float32

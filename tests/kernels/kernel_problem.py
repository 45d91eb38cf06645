"""One random problem for all kernel tests, in float64, and the two ways to its loss and gradients: fused and plain."""

import torch
from kernel_device import seeded

from fastgrpo_kernels import fused_linear_policy_loss, reference

# Log-ratios well inside and well outside the clip bounds 0.8 and 1.2, so that rounding never moves a row across one.
LOG_RATIOS = torch.tensor([-0.6, -0.1, 0.0, 0.05, 0.1, 0.5], dtype=torch.float64)


def problem(tokens=40, width=12, vocabulary=37, seed=0, zero=0.0, every_term=False):
    """(head, options): head = hidden (T, H), weight (V, H), targets (T,); options are keywords of fused_linear_policy_loss."""
    random = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def choose(low, high):
        return torch.randint(low, high, (tokens,), generator=random)

    hidden, weight, targets = normal(tokens, width), normal(vocabulary, width) / width**0.5, choose(0, vocabulary)
    now = reference.token_logprobs(hidden @ weight.t(), targets, 0.8)
    options = {
        "temperature": 0.8,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "scale": normal(tokens).abs() / 10,
        "advantages": torch.where(torch.rand(tokens, generator=random) < zero, 0.0, normal(tokens)),
        "old_logprobs": now - LOG_RATIOS[choose(0, len(LOG_RATIOS))],
        "loss_mask": choose(0, 4) > 0,
    }
    if every_term:
        options |= {"delta": 1.4, "beta": 0.1, "tis_cap": 1.3, "entropy_coef": 0.02}
        options |= {"ref_logprobs": now + normal(tokens) / 2, "sampler_logprobs": options["old_logprobs"] + normal(tokens) / 2}
    return (hidden, weight, targets), options


KINDS = ("clip", "cispo", "sapo", "reinforce", "given")


def of_kind(kind, options):
    """The same problem for another kind: without the bounds that it does not read, and for given with -A as the gradient."""
    reads = {"clip": ("clip_low", "clip_high", "delta"), "cispo": ("clip_high",)}.get(kind, ())
    kept = {name: value for name, value in options.items() if name in reads or name not in ("clip_low", "clip_high", "delta")}
    if kind == "given":
        kept["grad_logprobs"] = -kept.pop("advantages")
    return kept | {"kind": kind}


def value_and_grads(function, hidden, weight, dtype=torch.float64):
    """{loss, logprobs, entropy, dX, dW} of function(hidden, weight) -> (loss, logprobs, entropy, ...)."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (hidden, weight)]
    loss, logprobs, entropy, *_ = function(*leaves)
    loss.backward()
    values = {"loss": loss.detach(), "logprobs": logprobs.detach(), "entropy": entropy.detach(), "dX": leaves[0].grad, "dW": leaves[1].grad}
    return {name: value.double() for name, value in values.items()}


def fused(head, options, dtype=torch.float64):
    hidden, weight, targets = head
    return value_and_grads(lambda x, w: fused_linear_policy_loss(x, w, targets, **options), hidden, weight, dtype)


def plain(head, options, dtype=torch.float64):
    hidden, weight, targets = head
    cast = {name: value.to(dtype) if name == "scale" else value for name, value in options.items()}
    return value_and_grads(lambda x, w: reference.policy_loss_from_logits(x @ w.t(), targets, **cast), hidden, weight, dtype)


def assert_same(got, want, tolerance):
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


def spread(want, mask):
    """The reference has rows for kept tokens only; the fused loss has all of them, zero where not kept."""
    return want | {name: torch.zeros(len(mask), dtype=torch.float64).masked_scatter(mask, want[name]) for name in ("logprobs", "entropy")}

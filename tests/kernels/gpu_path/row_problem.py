"""One random problem for the row kernel, and its answer in float64: the torch objective's closed form chained with autograd's softmax."""

from types import SimpleNamespace

import torch
from kernel_device import seeded

from fastgrpo_kernels.objective import ObjectiveSettings, Tokens, objective
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.triton_launch import Logits, RowResults, row_gradient

LOG_RATIOS = torch.tensor([-0.6, -0.1, 0.0, 0.05, 0.1, 0.5])  # away from every clip bound


def settings(kind="clip", clip_low=0.2, clip_high=0.2, delta=None, beta=0.0, tis_cap=None):
    return ObjectiveSettings(kind, clip_low, clip_high, delta, beta, tis_cap, 1.0, 1.05)


def head_of(temperature, logit_scale=1.0, softcap=None, bias=None, vocabulary=None):
    return Logits(Scaling(temperature, logit_scale, softcap), bias, vocabulary)


def make(rows=12, vocabulary=50, dtype=torch.float32, seed=0, head=None, **options):
    """Everything `row_gradient` takes, on the CPU; scale is 1/8 to 1/4, every optional per-token input is given."""
    random = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    logits = (3 * normal(rows, vocabulary)).to(dtype)
    targets = torch.randint(vocabulary, (rows,), generator=random)
    head = head or head_of(0.7)
    now = transformed(logits.double(), head).log_softmax(1).gather(1, targets[:, None]).squeeze(1).float()
    old = now - LOG_RATIOS[torch.randint(len(LOG_RATIOS), (rows,), generator=random)]
    advantages = normal(rows)
    scale = (1 + torch.rand(rows, generator=random)) / 8
    tokens = Tokens(advantages, scale, old, now + normal(rows) / 2, old + normal(rows) / 2, normal(rows))
    return SimpleNamespace(logits=logits, targets=targets, head=head, tokens=tokens, settings=settings(**options))


def transformed(logits, head):
    """z in float64, written the plain way; -inf from head.vocabulary on."""
    x = logits if head.bias is None else logits + head.bias.double()
    excluded = x == -torch.inf
    x = x * head.scaling.logit_scale
    if head.scaling.softcap is not None:
        x = head.scaling.softcap * (x / head.scaling.softcap).tanh()
    if head.vocabulary is not None:
        excluded = excluded | (torch.arange(logits.shape[1]) >= head.vocabulary)
    temperature = head.scaling.temperature
    x = x / (temperature[:, None].double() if isinstance(temperature, torch.Tensor) else temperature)
    return x.masked_fill(excluded, -torch.inf)


def truth(p, entropy_coef=0.0):
    """logprobs, entropy, loss (c,), G (c, V), flags, all in float64."""
    leaf = p.logits.double().requires_grad_()
    log_p = transformed(leaf, p.head).log_softmax(1)
    logp = log_p.gather(1, p.targets[:, None]).squeeze(1)
    entropy = -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(1)
    tokens = p.tokens.take(slice(None), torch.float64)
    terms = objective(logp.detach(), tokens, p.settings)
    (tokens.scale * (terms.gradient * logp - entropy_coef * entropy)).sum().backward()
    flags = terms.clip_low.int() + 2 * terms.clip_high.int()
    return SimpleNamespace(logprobs=logp.detach(), entropy=entropy.detach(), loss=terms.loss, panel=leaf.grad, flags=flags)


def run(p, entropy_coef=0.0, panel_dtype=torch.float32, unit=1.0, **options):
    panel = torch.full(p.logits.shape, torch.nan, dtype=panel_dtype)
    results = RowResults.empty(len(p.logits), p.logits.device)
    row_gradient(
        p.logits, p.targets, p.head, p.tokens, p.settings, panel, results,
        scale_unit=torch.tensor(unit), entropy_coef=entropy_coef, **options,
    )  # fmt: skip
    return SimpleNamespace(**vars(results), panel=panel)


def assert_close(got, want, tolerance=3e-6):
    for name in ("logprobs", "entropy", "loss", "panel"):
        value, expected = getattr(got, name).double(), getattr(want, name)
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(got.flags, want.flags)

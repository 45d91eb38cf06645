"""The tile and panel loop of the GPU path on CPU tensors, row kernel in the interpreter, against autograd on the full logits in float64."""

import on_kernel  # noqa: F401  first: it skips this file in any other process
import pytest
import torch
from kernel_device import seeded
from row_problem import settings, transformed

from fastgrpo_kernels import cuda_linear
from fastgrpo_kernels.cuda_linear import exact_products, logprobs_backward_loop, logprobs_loop, policy_loop
from fastgrpo_kernels.linear_policy_op import Gradients
from fastgrpo_kernels.objective import Tokens, objective
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.triton_launch import Logits

EVERYTHING = (True, True, True)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(cuda_linear, "TILE_ROWS", 16)
    monkeypatch.setattr(cuda_linear, "PANEL_ROWS", 32)


def problem(tokens=75, width=24, vocabulary=1100, dtype=torch.float32, seed=0):
    """hidden, weight, bias, all targets, the kept rows, Tokens of those."""
    random = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    hidden, weight, bias = normal(tokens, width).to(dtype), (normal(vocabulary, width) / width**0.5).to(dtype), normal(vocabulary).to(dtype)
    targets = torch.randint(vocabulary, (tokens,), generator=random)
    rows = torch.arange(tokens)[torch.rand(tokens, generator=random) < 0.8]
    logits = hidden.double() @ weight.double().t() + bias.double()
    now = (logits / 0.8).log_softmax(1).gather(1, targets[:, None]).squeeze(1).float()
    old = now - torch.tensor([-0.6, -0.1, 0.0, 0.1, 0.5])[torch.randint(5, (tokens,), generator=random)]
    scale = torch.full((tokens,), 1 / 7e6)
    tokens = Tokens(normal(tokens), scale, old, now + normal(tokens) / 2, None, normal(tokens))
    return hidden, weight, bias, targets, rows, tokens.take(rows, torch.float32)


def truth(hidden, weight, bias, targets, rows, tokens, objective_settings, scaling, entropy_coef, dtype=torch.float64):
    """(logprobs, entropy, dX, dW, db) from autograd in a dtype; in 16 bit that is plain PyTorch, softmax in float32."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (hidden, weight, bias)]
    logits = leaves[0][rows] @ leaves[1].t() + leaves[2]
    logits = logits if dtype == torch.float64 else logits.float()
    log_p = transformed(logits, Logits(scaling)).log_softmax(1)
    logp, entropy = log_p.gather(1, targets[rows, None]).squeeze(1), -(log_p.exp() * log_p).sum(1)
    columns = tokens.take(slice(None), logp.dtype)
    terms = objective(logp.detach(), columns, objective_settings)
    # The scale as a whole outside, so that it costs the float16 yardstick nothing.
    (columns.scale / columns.scale[0] * (terms.gradient * logp - entropy_coef * entropy)).sum().backward()
    return [logp.detach(), entropy.detach(), *(leaf.grad.double() * columns.scale[0].double() for leaf in leaves)]


def run(hidden, weight, bias, targets, rows, tokens, objective_settings, scaling, entropy_coef, wanted=EVERYTHING):
    made = Gradients.zeros(hidden, weight, bias, wanted)
    found = policy_loop(hidden, weight, bias, targets[rows], rows, tokens, objective_settings, scaling, entropy_coef, made)
    return [*found, made.hidden, made.weight, made.bias]


NAMES = ("logprobs", "entropy", "dX", "dW", "db")
PLAIN = (settings(), Scaling(0.8), 0.0)
FULL = (settings(delta=1.4, beta=0.1), Scaling(0.8, 0.9, 20.0), 0.02)


@pytest.mark.parametrize("setup", [PLAIN, FULL])
def test_float32_gives_the_float64_numbers(setup):
    p = problem()
    for name, got, want in zip(NAMES, run(*p, *setup), truth(*p, *setup), strict=True):
        assert (got - want).norm() <= 2e-6 * want.norm(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("setup", [PLAIN, FULL])
def test_the_error_is_at_most_twice_that_of_plain_pytorch(dtype, setup):
    p = problem(dtype=dtype)
    numbers = zip(NAMES, run(*p, *setup), truth(*p, *setup), truth(*p, *setup, dtype=dtype), strict=True)
    for name, got, want, ordinary in numbers:
        assert (got - want).norm() <= 2 * (ordinary - want).norm() + 1e-7 * want.norm(), name
        if name in ("dX", "dW"):
            assert (got - want).norm() <= 3e-3 * want.norm(), name
            kept = want.norm(dim=1) > 0
            cosine = (got[kept].double() * want[kept]).sum(1) / got[kept].double().norm(dim=1) / want[kept].norm(dim=1)
            assert cosine.min() >= 0.9999, name
        if name == "logprobs":
            assert (got - want).abs().max() <= 1e-4


def test_rows_that_are_not_kept_have_no_gradient_and_may_hold_garbage():
    p = problem()
    want = run(*p, *PLAIN)
    out = torch.ones(75, dtype=torch.bool)
    out[p[4]] = False
    p[0][out] = torch.nan
    got = run(*p, *PLAIN)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert (got[2][out] == 0).all()


@pytest.mark.parametrize(("tile", "panel"), [(16, 16), (16, 64), (64, 64), (512, 4096)])
def test_tile_and_panel_sizes_only_reorder_sums(monkeypatch, tile, panel):
    p = problem()
    want = run(*p, *FULL)
    monkeypatch.setattr(cuda_linear, "TILE_ROWS", tile)
    monkeypatch.setattr(cuda_linear, "PANEL_ROWS", panel)
    for name, got, expected in zip(NAMES, run(*p, *FULL), want, strict=True):
        assert (got - expected).norm() <= 1e-6 * expected.norm(), name


def test_the_weight_gradient_is_summed_over_panels_in_float32():
    """1 + many panels of 2^-9: a bfloat16 sum would stay at 1."""
    total = torch.ones(1, 1)
    for _ in range(64):
        cuda_linear.add_product(total, torch.full((1, 1), 2.0**-9, dtype=torch.bfloat16), torch.ones(1, 1, dtype=torch.bfloat16))
    assert total.item() == 1 + 64 / 512
    assert run(*problem(dtype=torch.bfloat16), *PLAIN)[3].dtype == torch.float32


def test_many_panels_cost_the_bfloat16_weight_gradient_no_accuracy():
    p = problem(tokens=400, width=8, vocabulary=40, dtype=torch.bfloat16)
    p[0].copy_(p[0][:1].expand_as(p[0]))  # one direction, so that dW grows with every panel
    p[3].fill_(3)
    tokens = Tokens(torch.ones(len(p[4])), p[5].scale, None, None, None)
    p = (*p[:5], tokens)
    got, want = run(*p, *PLAIN)[3], truth(*p, *PLAIN)[3]
    assert (got - want).norm() <= 3e-3 * want.norm()


def test_gradients_handed_in_for_log_prob_and_entropy_are_carried_through():
    hidden, weight, bias, targets, rows, tokens = problem()
    g, h = tokens.grad_logprobs * 1e-6, tokens.ref_logprobs * 1e-6
    hidden = hidden[rows]
    made = Gradients.zeros(hidden, weight, bias, EVERYTHING)
    logprobs_backward_loop(hidden, weight, bias, targets[rows], g, h, Scaling(0.8), made)
    leaves = [tensor.double().requires_grad_() for tensor in (hidden, weight, bias)]
    log_p = ((leaves[0] @ leaves[1].t() + leaves[2]) / 0.8).log_softmax(1)
    (g.double() * log_p.gather(1, targets[rows, None]).squeeze(1) - h.double() * (log_p.exp() * log_p).sum(1)).sum().backward()
    for got, leaf in zip(vars(made).values(), leaves, strict=True):
        assert (got - leaf.grad).norm() <= 2e-6 * leaf.grad.norm()


def test_log_probs_alone_are_bit_for_bit_those_of_the_update_and_of_any_other_rows():
    hidden, weight, bias, targets, rows, tokens = problem(dtype=torch.bfloat16)
    updated = run(hidden, weight, bias, targets, rows, tokens, *PLAIN)
    for logprobs, entropy in (
        logprobs_loop(hidden, weight, bias, targets, Scaling(0.8)),
        run(hidden, weight, bias, targets, torch.arange(75), tokens, *PLAIN, (False, False, False))[:2],
    ):
        assert torch.equal(logprobs[rows], updated[0]) and torch.equal(entropy[rows], updated[1])


def test_a_temperature_per_row_follows_its_row_through_the_tiles():
    p = problem()
    setup = (settings(kind="reinforce"), Scaling(torch.linspace(0.5, 2, len(p[4]))), 0.02)
    for name, got, want in zip(NAMES, run(*p, *setup), truth(*p, *setup), strict=True):
        assert (got - want).norm() <= 2e-6 * want.norm(), name


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_no_rows_or_no_scale_give_zero_gradients(scale):
    hidden, weight, bias, targets, rows, tokens = problem()
    rows = rows[: 0 if scale else 5]
    tokens = Tokens(torch.ones(len(rows)), torch.full((len(rows),), scale), None, None, None)
    got = run(hidden, weight, bias, targets, rows, tokens, *PLAIN)
    assert all((gradient == 0).all() for gradient in got[2:])


def test_only_what_is_wanted_is_made():
    hidden, weight, bias, targets, rows, tokens = problem()
    full = run(hidden, weight, bias, targets, rows, tokens, *PLAIN)[2:]
    for index in range(3):
        made = run(hidden, weight, bias, targets, rows, tokens, *PLAIN, [index == i for i in range(3)])[2:]
        assert [gradient is not None for gradient in made] == [index == i for i in range(3)]
        assert torch.equal(made[index], full[index])


def test_products_run_in_full_precision_and_the_settings_come_back():
    matmul = torch.backends.cuda.matmul
    reductions = [f"allow_{kind}_reduced_precision_reduction" for kind in ("bf16", "fp16")]
    names = ["fp32_precision", *reductions, "allow_fp16_accumulation"]
    before = [getattr(matmul, name) for name in names]
    try:
        for name, value in zip(names, ("tf32", True, True, True), strict=True):
            setattr(matmul, name, value)
        with pytest.raises(KeyError), exact_products():
            assert [getattr(matmul, name) for name in names] == ["ieee", False, False, False]
            raise KeyError
        assert [getattr(matmul, name) for name in names] == ["tf32", True, True, True]
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(matmul, name, value)

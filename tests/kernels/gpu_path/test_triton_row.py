"""The row kernel against float64, in every option and at every edge. BLOCK_V is 1024 up to a vocabulary of 1024, then 2048."""

from dataclasses import replace

import on_kernel  # noqa: F401  first: it skips this file in any other process
import pytest
import torch
from row_problem import assert_close, head_of, make, run, settings, transformed, truth

from fastgrpo_kernels import triton_launch
from fastgrpo_kernels.objective import KINDS, Tokens
from fastgrpo_kernels.row import row_gradient_, row_stats_, scale_logits_
from fastgrpo_kernels.triton_launch import RowResults, row_forward, row_gradient


@pytest.mark.parametrize("vocabulary", [1, 2, 31, 1000, 1024, 1025, 2048, 4099])
def test_every_width_of_vocabulary_gives_the_float64_numbers(vocabulary):
    p = make(rows=6, vocabulary=vocabulary, delta=1.4, beta=0.1)
    assert_close(run(p, entropy_coef=0.02), truth(p, entropy_coef=0.02))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every_term", [False, True])
def test_every_kind_of_objective_gives_the_float64_numbers(kind, every_term):
    terms = {"beta": 0.1, "tis_cap": 1.1} if every_term else {}
    p = make(rows=48, kind=kind, **terms)
    assert_close(run(p), truth(p))


def test_on_policy_rows_have_ratio_one():
    p = make()
    p.tokens = replace(p.tokens, old_logprobs=None)
    assert_close(run(p), truth(p))


@pytest.mark.parametrize("delta", [None, 1.4])
def test_clip_bounds_follow_the_sign_of_the_advantage(delta):
    p = make(rows=48, clip_low=0.3, clip_high=0.05, delta=delta)
    ratio = (truth(p).logprobs - p.tokens.old_logprobs).exp()
    got = run(p)
    gains, loses = p.tokens.advantages > 0, p.tokens.advantages < 0
    cap = torch.inf if delta is None else delta
    stopped = (gains & (ratio > 1.05)) | (loses & ((ratio < 0.7) | (ratio > cap)))
    assert stopped.any() and (got.panel.abs().sum(1) == 0).equal(stopped)
    assert got.flags.equal(2 * (gains & (ratio > 1.05)).int() + (loses & (ratio < 0.7)).int())
    assert_close(got, truth(p))


HEADS = {
    "temperature": head_of(0.3),
    "temperature per row": head_of(torch.linspace(0.3, 2.0, 12)),
    "scale": head_of(0.7, logit_scale=0.25),
    "softcap": head_of(0.7, softcap=2.0),
    "softcap and scale": head_of(1.3, logit_scale=3.0, softcap=5.0),
    "bias": head_of(0.7, bias=torch.linspace(-2, 2, 50)),
    "all": head_of(0.7, logit_scale=0.5, softcap=3.0, bias=torch.linspace(-2, 2, 50), vocabulary=41),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("entropy_coef", [0.0, 0.5])
def test_what_stands_between_logits_and_softmax_is_in_the_gradient_too(name, entropy_coef):
    p = make(head=HEADS[name])
    p.targets = p.targets.clamp(max=40)
    p.tokens = replace(p.tokens, old_logprobs=truth(p).logprobs.float() - 0.1)
    assert_close(run(p, entropy_coef), truth(p, entropy_coef))


@pytest.mark.parametrize("vocabulary", [1, 49, 1024, 1030, 3000])
def test_columns_beyond_the_vocabulary_are_not_read_and_get_no_gradient(vocabulary):
    p = make(rows=3, vocabulary=4000, head=head_of(0.7, vocabulary=vocabulary))
    p.targets = p.targets % vocabulary
    p.tokens = replace(p.tokens, old_logprobs=None)
    want = truth(p, entropy_coef=0.1)
    p.logits[:, vocabulary:] = torch.nan
    got = run(p, entropy_coef=0.1)
    assert_close(got, want)
    assert (got.panel[:, vocabulary:] == 0).all()


@pytest.mark.parametrize("excluded", [slice(0, 2050), slice(7, 2600), slice(2048, 3000)])
def test_logits_at_minus_infinity_are_as_if_they_were_not_there(excluded):
    p = make(rows=3, vocabulary=3000)
    p.logits[:, 1:] -= 500  # finite, but nothing next to a maximum of 0
    p.logits[:, excluded] = -torch.inf
    p.targets = torch.tensor([2999, 2999, 2998]) if excluded.stop < 3000 else torch.tensor([0, 1, 2047])
    p.tokens = replace(p.tokens, old_logprobs=None)
    want = truth(p, entropy_coef=0.1)
    got = run(p, entropy_coef=0.1)
    assert_close(got, want, 3e-5)  # logits of -500 are known to 3e-5
    assert (got.panel[:, excluded] == 0).all()


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_bias_of_minus_infinity_excludes_its_column_under_a_softcap_too(softcap):
    bias = torch.zeros(50)
    bias[41:] = -torch.inf
    p = make(head=head_of(0.7, softcap=softcap, bias=bias))
    p.targets = p.targets.clamp(max=40)
    p.tokens = replace(p.tokens, old_logprobs=None)
    got = run(p, entropy_coef=0.1)
    assert_close(got, truth(p, entropy_coef=0.1))
    assert (got.panel[:, 41:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("panel", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_costs_one_rounding_of_the_panel_and_nothing_else(dtype, panel):
    p = make(vocabulary=1100, dtype=dtype)
    got, want = run(p, 0.1, panel), truth(p, 0.1)
    room = {torch.float32: 3e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}[panel]
    assert ((got.panel.double() - want.panel).abs() <= room * 1.01 * want.panel.abs() + 3e-7).all()
    got.panel = want.panel
    assert_close(got, want)


def test_the_entry_of_the_target_is_formed_in_float32_before_it_is_rounded():
    p = make(rows=2)
    p.logits[torch.arange(2), p.targets] = 12.0  # p - 1 = -3e-6 and the like; a bf16 p would be exactly 1
    p.head, p.tokens = head_of(1.0), replace(p.tokens, old_logprobs=None)
    got, want = (result.panel.double()[torch.arange(2), p.targets] for result in (run(p, panel_dtype=torch.bfloat16), truth(p)))
    torch.testing.assert_close(got, want, rtol=0.01, atol=0)


def test_the_constant_part_of_the_scale_stays_out_of_the_panel():
    p = make()
    whole, relative = run(p), run(p, unit=p.tokens.scale.max().item())
    torch.testing.assert_close(relative.panel * p.tokens.scale.max(), whole.panel, rtol=1e-6, atol=0)
    p.tokens = replace(p.tokens, scale=torch.full((12,), 1 / 3e8))
    assert torch.equal(run(p, unit=1 / 3e8).panel, run(replace_scale(p, 1.0)).panel)


def replace_scale(p, scale):
    p.tokens = replace(p.tokens, scale=torch.full_like(p.tokens.scale, scale))
    return p


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tis_cap", [None, 2.0])
def test_zero_advantage_gives_exact_zeros_whatever_the_ratio_and_the_logits(kind, tis_cap):
    p = make(rows=4, kind=kind, tis_cap=tis_cap)
    old = torch.tensor([1e4, -1e4, torch.nan, 0.0])
    p.tokens = Tokens(torch.zeros(4), torch.ones(4), old, None, torch.full((4,), -1e4), torch.zeros(4))
    p.logits[3] = torch.nan
    got = run(p, panel_dtype=torch.bfloat16)
    assert (got.panel == 0).all() and (got.loss == 0).all() and (got.flags == 0).all()


@pytest.mark.parametrize("kind", ["clip", "sapo"])
def test_log_ratios_beyond_twenty_nats_are_cut_and_carry_no_gradient(kind):
    p = make(rows=4, kind=kind)
    p.tokens = replace(p.tokens, old_logprobs=truth(p).logprobs.float() + torch.tensor([30.0, -30.0, 1e4, -1e4]))
    p.tokens = replace(p.tokens, advantages=torch.tensor([1.0, -1.0, 1.0, -1.0]))
    got = run(p)
    assert (got.panel == 0).all() and got.loss.isfinite().all()
    torch.testing.assert_close(got.loss.double(), truth(p).loss, rtol=1e-5, atol=1e-12)


def test_garbage_in_some_rows_leaves_the_others_bit_for_bit():
    p = make(rows=9, vocabulary=1500)
    want = run(p, 0.1)
    p.logits[2], p.logits[5] = torch.nan, 1e4
    p.tokens.old_logprobs[5] = torch.nan
    got = run(p, 0.1)
    others = [0, 1, 3, 4, 6, 7, 8]
    for name, value in vars(want).items():
        assert torch.equal(getattr(got, name)[others], value[others]), name
    assert got.loss[2].isnan() and got.loss[5].isnan()  # a broken log-prob breaks the loss, it is not clipped away


@pytest.mark.parametrize("constant", [1e3, -1e3])
def test_a_constant_added_to_all_logits_changes_nothing(constant):
    p = make(vocabulary=1500)
    p.logits = (p.logits * 1024).round() / 1024  # so that adding the constant is exact
    want = truth(p, 0.1)
    p.logits += constant
    assert_close(run(p, 0.1), want, 3e-4)  # z = 1430 in float32 is known to 1e-4
    p.head = head_of(1.0)
    shifted = run(p, 0.1)
    p.logits -= constant
    assert_close(shifted, truth(p, 0.1), 3e-4)
    torch.testing.assert_close(shifted.entropy, run(p, 0.1).entropy, rtol=0, atol=1e-6)  # from z - m: nothing is lost


def test_the_panel_sums_to_zero_over_the_vocabulary():
    for p in (make(vocabulary=1500), make(vocabulary=1500, head=head_of(0.7, logit_scale=0.3, bias=torch.linspace(-1, 1, 1500)))):
        panel = run(p, entropy_coef=0.3).panel.double()
        assert (panel.sum(1).abs() <= 2e-6 * panel.abs().sum(1)).all()


def test_rows_may_lie_apart_and_the_panel_may_be_the_logits():
    p = make(rows=5, vocabulary=1100)
    want = run(p, 0.1)
    spaced = torch.full((10, 1300), torch.nan)
    p.logits, plain = spaced[::2, 64:1164].copy_(p.logits), p.logits
    got = run(p, 0.1)
    assert torch.equal(got.panel, want.panel) and torch.equal(got.logprobs, want.logprobs)
    p.logits = plain
    results = RowResults.empty(5, plain.device)
    row_gradient(plain, p.targets, p.head, p.tokens, p.settings, plain, results, scale_unit=torch.ones(()), entropy_coef=0.1)
    assert torch.equal(plain, want.panel) and torch.equal(results.loss, want.loss)


def test_two_runs_agree_bit_for_bit():
    p = make(vocabulary=2500, dtype=torch.bfloat16)
    first, second = (run(p, 0.1, torch.bfloat16) for _ in range(2))
    assert all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items())


def test_no_rows_launch_nothing():
    p = make(rows=0)
    assert run(p).panel.shape == (0, 50)


def test_forward_alone_gives_the_same_bits_and_the_logsumexp():
    p = make(vocabulary=2500)
    want, results = run(p), RowResults.empty(12, p.logits.device)
    row_forward(p.logits, p.targets, p.head, results)
    for name in ("logprobs", "entropy", "lse"):
        assert torch.equal(getattr(results, name), getattr(want, name)), name
    torch.testing.assert_close(results.lse.double(), transformed(p.logits.double(), p.head).logsumexp(1), rtol=1e-6, atol=0)


def test_the_torch_row_functions_give_the_same_panel():
    p = make(rows=20, vocabulary=1500, head=head_of(0.7, 0.9, 20.0), kind="given")
    got = run(p, 0.2)
    tile = p.logits.clone()
    slope = scale_logits_(tile, p.head.scaling, True)
    logp, entropy = row_stats_(tile, p.targets)
    g, h = p.tokens.scale * p.tokens.grad_logprobs, -0.2 * p.tokens.scale
    panel = row_gradient_(tile, p.targets, entropy, g, h, p.head.scaling, slope)
    for value, want in ((got.logprobs, logp), (got.entropy, entropy), (got.panel, panel)):
        torch.testing.assert_close(value, want, rtol=3e-6, atol=3e-6)


def test_the_gradient_of_the_entropy_may_be_handed_in_per_row():
    p = make(rows=5)
    assert torch.equal(run(p, grad_entropy=-0.3 * p.tokens.scale).panel, run(p, entropy_coef=0.3).panel)


def test_a_vocabulary_of_qwen_gives_the_float64_numbers():
    p = make(rows=2, vocabulary=151_936, dtype=torch.bfloat16)
    p.settings = settings(clip_high=1.0)
    assert triton_launch.block_and_warps(151_936)[0] == 4096 and 151_936 % 4096
    assert_close(run(p, 0.1), truth(p, 0.1), 5e-6)

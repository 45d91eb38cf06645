import torch
from kernel_device import seeded

from fastgrpo_kernels import reference
from fastgrpo_kernels.row import Scaling, row_gradient_, row_stats_, scale_logits_


def make(rows=9, vocabulary=50, dtype=torch.float64):
    random = seeded(1)
    logits = 3 * torch.randn(rows, vocabulary, generator=random, dtype=dtype)
    targets = torch.randint(vocabulary, (rows,), generator=random)
    g, h = torch.randn(2, rows, generator=random, dtype=dtype)
    return logits, targets, g, h


def stats(logits, targets, *scaling):
    tile = logits.clone()
    scale_logits_(tile, Scaling(*scaling), want_slope=False)
    return row_stats_(tile, targets)


def panel(logits, targets, g, h, *scaling):
    tile, scaling = logits.clone(), Scaling(*(scaling or (0.7,)))
    slope = scale_logits_(tile, scaling, want_slope=True)
    _, entropy = row_stats_(tile, targets)
    return row_gradient_(tile, targets, entropy, g, h, scaling, slope)


def test_log_prob_and_entropy_are_those_of_the_full_softmax():
    logits, targets, _, _ = make()
    logp, entropy = stats(logits, targets, 0.7)
    torch.testing.assert_close(logp, reference.token_logprobs(logits, targets, 0.7), rtol=0, atol=1e-14)
    torch.testing.assert_close(entropy, reference.token_entropy(logits, 0.7), rtol=0, atol=1e-14)


def test_the_panel_is_what_autograd_derives_from_logprob_and_entropy():
    logits, targets, g, h = make()
    leaf = logits.clone().requires_grad_()
    (g @ reference.token_logprobs(leaf, targets, 0.7) + h @ reference.token_entropy(leaf, 0.7)).backward()
    torch.testing.assert_close(panel(logits, targets, g, h), leaf.grad, rtol=0, atol=1e-14)


def test_every_row_of_the_panel_sums_to_zero():
    logits, targets, g, h = make()
    for entropy_part in (None, h):
        assert panel(logits, targets, g, entropy_part).sum(dim=1).abs().max() < 1e-14


def test_columns_at_minus_infinity_are_as_if_they_were_not_there():
    logits, targets, g, h = make()
    padded = torch.cat([logits, torch.full((len(logits), 3), -torch.inf, dtype=logits.dtype)], dim=1)
    got, want = panel(padded, targets, g, h), panel(logits, targets, g, h)
    torch.testing.assert_close(got[:, :-3], want, rtol=0, atol=1e-15)
    assert (got[:, -3:] == 0).all()
    torch.testing.assert_close(stats(padded, targets, 1.0), stats(logits, targets, 1.0), rtol=0, atol=1e-14)


def test_entropy_stays_exact_when_all_logits_are_large():
    logits, targets, _, _ = make(dtype=torch.float32)
    _, entropy = stats(logits + 4096, targets, 1.0)
    truth = reference.token_entropy((logits + 4096).double(), 1.0)
    torch.testing.assert_close(entropy.double(), truth, rtol=2e-6, atol=0)


def test_the_reference_entropy_is_finite_with_its_gradient_in_a_padded_vocabulary():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    entropy = reference.token_entropy(logits, 1.0)
    p = torch.sigmoid(torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(entropy, -(p * p.log() + (1 - p) * (1 - p).log())[None])
    entropy.sum().backward()
    assert logits.grad.isfinite().all()

"""Tokens are drawn by inverse CDF: the blocks are only a faster way to the same token, and rounding never finds one without weight."""

import pytest
import torch

from fastgrpo.rollout.choice import BLOCK, choose_tokens, uniform_numbers

LAST = 1 - 2**-53  # the largest number that is drawn


def by_definition(logits, temperature, uniforms, known):
    """The first of the known ids whose cumulative probability among them exceeds the number, and its log-prob, all in float64."""
    logprobs = (logits.double() / temperature).log_softmax(-1)
    cumulative = logprobs[:, :known].exp().cumsum(-1)
    chosen = (cumulative > uniforms[:, None] * cumulative[:, -1:]).int().argmax(-1)
    return chosen, logprobs.gather(1, chosen[:, None])[:, 0]


@pytest.mark.parametrize("vocabulary", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 1000, 151_936])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_token_and_its_logprob_are_those_of_the_definition(vocabulary, temperature):
    torch.manual_seed(vocabulary)
    rows = 8 if vocabulary > 10_000 else 64
    logits, uniforms = 4 * torch.randn(rows, vocabulary), uniform_numbers(0, rows)
    for known in {vocabulary, max(1, vocabulary - 77)}:
        chosen, logprobs = choose_tokens(logits, temperature, uniforms, known)
        expected, expected_logprobs = by_definition(logits, temperature, uniforms, known)
        assert torch.equal(chosen, expected)
        assert logprobs.dtype == torch.float32 and (logprobs.double() - expected_logprobs).abs().max() < 2e-6


@pytest.mark.parametrize("uniform", [0.0, 2**-53, 0.5, LAST])
@pytest.mark.parametrize("only", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK, 3 * BLOCK + 4])
def test_rounding_never_finds_an_id_without_weight(uniform, only):
    logits = torch.full((1, 4 * BLOCK + 9), -torch.inf)
    logits[0, [only, only + 1]] = torch.tensor([0.0, -0.3])
    chosen, logprobs = choose_tokens(logits, 1.0, torch.tensor([uniform], dtype=torch.float64), logits.shape[1])
    assert chosen.item() in (only, only + 1) and logprobs.isfinite().all()


def test_an_unknown_id_counts_in_the_logprob_and_is_never_drawn():
    logits = torch.tensor([[0.0, 0.0, 50.0]])
    for uniform, expected in ((0.0, 0), (0.49, 0), (0.51, 1), (LAST, 1)):
        chosen, logprobs = choose_tokens(logits, 1.0, torch.tensor([uniform], dtype=torch.float64), known=2)
        assert chosen.item() == expected and logprobs.item() == pytest.approx(-50)
    assert choose_tokens(logits, 0.0, torch.zeros(1, dtype=torch.float64), known=2)[0].item() == 0


def test_frequencies_follow_the_probabilities():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log().expand(20_000, 4)
    chosen, _ = choose_tokens(logits, 1.0, uniform_numbers(1, 20_000), 4)
    assert torch.allclose(chosen.bincount() / 20_000, torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.01)


def test_logits_that_are_not_numbers_give_a_logprob_that_says_so():
    chosen, logprobs = choose_tokens(torch.full((1, 300), torch.nan), 1.0, torch.tensor([0.5], dtype=torch.float64), 200)
    assert 0 <= chosen.item() < 200 and logprobs.isnan().all()

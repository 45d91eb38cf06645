"""Native sampling: the learner's own log-probs, seeds that hold whatever shares the batch, and responses that end where they should."""

import pytest
import torch

from fastgrpo.attention import ATTENTION
from fastgrpo.model import load_model, load_tokenizer, model_logprobs
from fastgrpo.packing import pack
from fastgrpo.rollout.native import NativeEngine, end_of_sequence_ids
from fastgrpo.types import Prompt, Sampling, TrainingSequence

PROMPTS = [Prompt(str(i), tuple(range(40 + i, 43 + 3 * i)), "1") for i in range(5)]  # 3 to 11 tokens


@pytest.fixture(scope="module")
def engine(tiny_model_dir):
    return NativeEngine(load_model(str(tiny_model_dir), "float32"), load_tokenizer(str(tiny_model_dir)))


def seeds(prompts, n, base=0):
    return [[base + 100 * i + j for j in range(n)] for i in range(prompts)]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_sampler_and_learner_logprobs_agree(engine, temperature):
    groups = engine.generate(PROMPTS, 4, Sampling(temperature, 24), seeds(5, 4))
    sequences = [
        TrainingSequence(prompt.token_ids, rollout.token_ids, rollout.logprobs, 1.0, 1.0)
        for prompt, group in zip(PROMPTS, groups, strict=True)
        for rollout in group
    ]
    for batch in pack(sequences, 100):
        gap = model_logprobs(engine.model, batch, temperature) - batch.sampler_logprobs
        assert gap[batch.loss_mask].abs().max() < 1e-5


def test_a_response_depends_on_its_seed_and_not_on_its_batch(engine):
    together = engine.generate(PROMPTS, 3, Sampling(1.0, 16), seeds(5, 3))
    alone = engine.generate(PROMPTS[2:3], 1, Sampling(1.0, 16), [[seeds(5, 3)[2][1]]])
    assert alone[0][0].token_ids == together[2][1].token_ids
    assert len({rollout.token_ids for group in together for rollout in group}) == 15
    other = engine.generate(PROMPTS, 3, Sampling(1.0, 16), seeds(5, 3, base=7000))
    assert all(a[0].token_ids != b[0].token_ids for a, b in zip(together, other, strict=True))


def test_first_tokens_follow_the_softmax(engine):
    """4000 draws against the model's own distribution, at a temperature that is not 1: chi-square over its 12 likeliest tokens."""
    draws, temperature = 4000, 0.8
    group = engine.generate(PROMPTS[:1], draws, Sampling(temperature, 1), seeds(1, draws))[0]
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([PROMPTS[0].token_ids]), use_cache=False).logits[0, -1, : len(engine.tokenizer)]
    expected = (logits / temperature).softmax(-1) * draws
    counts = torch.bincount(torch.tensor([rollout.token_ids[0] for rollout in group]), minlength=len(expected))
    likely = expected.topk(12).indices
    assert ((counts[likely] - expected[likely]) ** 2 / expected[likely]).sum() < 36  # 99.97 % of chi-square(12)


def test_greedy_is_what_transformers_generates(engine):
    model, tokens = engine.model, 12
    for prompt, (rollout,) in zip(PROMPTS, engine.generate(PROMPTS, 1, Sampling(0.0, tokens), seeds(5, 1)), strict=True):
        model.set_attn_implementation("sdpa")
        ids = torch.tensor([prompt.token_ids])
        unknown = list(range(len(engine.tokenizer), model.config.vocab_size))
        want = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, use_cache=True, suppress_tokens=unknown
        )
        model.set_attn_implementation(ATTENTION)
        assert list(rollout.token_ids) == want[0, ids.shape[1] :].tolist()


def test_every_response_is_announced_once_and_returned_in_order(engine):
    seen = {}
    groups = engine.generate(PROMPTS, 2, Sampling(1.0, 8), seeds(5, 2), on_finished=lambda i, j, rollout: seen.update({(i, j): rollout}))
    assert seen == {(i, j): groups[i][j] for i in range(5) for j in range(2)}


def test_a_response_ends_at_any_end_of_sequence_id_and_keeps_it(engine, monkeypatch):
    monkeypatch.setattr(engine, "eos_ids", list(range(0, 256, 8)))
    rollouts = [r for group in engine.generate(PROMPTS, 8, Sampling(1.0, 30), seeds(5, 8)) for r in group]
    for rollout in rollouts:
        ends = [token % 8 == 0 for token in rollout.token_ids]
        assert not any(ends[:-1])
        assert ends[-1] == (rollout.finish_reason == "stop")
        assert ends[-1] or len(rollout.token_ids) == 30
    assert len({rollout.finish_reason for rollout in rollouts}) == 2 or len({len(r.token_ids) for r in rollouts}) > 5


def test_several_end_of_sequence_ids_are_read_from_the_model(engine, monkeypatch):
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", [7, 9])
    assert end_of_sequence_ids(engine.model, engine.tokenizer) == [7, 9, engine.tokenizer.eos_token_id]


def test_a_response_ends_at_a_stop_string_and_keeps_it(engine):
    plain = [r for group in engine.generate(PROMPTS, 4, Sampling(1.0, 30), seeds(5, 4)) for r in group]
    stop = next(r.text[10:12] for r in plain if r.text[10:12].isascii() and len(r.text) > 14)
    stopped = [r for group in engine.generate(PROMPTS, 4, Sampling(1.0, 30, (stop,)), seeds(5, 4)) for r in group]
    assert any(stop in r.text for r in stopped)
    for before, after in zip(plain, stopped, strict=True):
        assert before.token_ids[: len(after.token_ids)] == after.token_ids
        if stop in before.text:
            assert after.finish_reason == "stop"
            assert after.text.endswith(stop)
            assert after.text.count(stop) == 1
        else:
            assert after.token_ids == before.token_ids


def test_ids_beyond_the_tokenizer_are_never_drawn(engine):
    """The model has 300 ids, its tokenizer 257."""
    group = engine.generate(PROMPTS[:1], 400, Sampling(5.0, 4), seeds(1, 400))[0]
    assert max(token for rollout in group for token in rollout.token_ids) <= 256


def test_sampling_leaves_the_global_random_state_alone(engine):
    before = torch.get_rng_state()
    engine.generate(PROMPTS, 2, Sampling(1.0, 4), seeds(5, 2))
    assert torch.equal(before, torch.get_rng_state())

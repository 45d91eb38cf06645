"""What the colocated engine draws: the native engine's tokens for the same seeds, ended where they should."""

import pytest
import torch
from colocation import CONTEXT, PROMPTS, native_learner, pairs, requires_vllm, sample, seeds, tiny_engine, tiny_model
from conftest import byte_tokenizer

from fastgrpo.errors import InputError
from fastgrpo.rollout.colocated import VllmEngine
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.rollout.parity import parity
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Prompt, Sampling

pytestmark = requires_vllm


@pytest.fixture(scope="module")
def engine():
    engine = tiny_engine(tiny_model("qwen tied"), "push")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def native(engine):
    return NativeEngine(engine.model, byte_tokenizer())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 0.0])
def test_the_same_seeds_draw_what_the_native_engine_draws(engine, native, temperature):
    groups, wanted = sample(engine, temperature), sample(native, temperature)
    for group, want in zip(groups, wanted, strict=True):
        for rollout, other in zip(group, want, strict=True):
            assert (rollout.token_ids, rollout.finish_reason, rollout.text) == (other.token_ids, other.finish_reason, other.text)
            assert torch.tensor(rollout.logprobs).sub(torch.tensor(other.logprobs)).abs().max() < 5e-5
    learner = native_learner(engine.model, temperature or 1.0)
    assert parity(learner.logprobs, pairs(groups)).largest < 5e-5


def test_first_tokens_follow_the_softmax(engine):
    """3000 draws against the model's own distribution at a temperature that is not 1: chi-square over its 12 likeliest tokens."""
    draws, temperature = 3000, 0.8
    group = sample(engine, temperature, n=draws, tokens=1, prompts=PROMPTS[:1])[0]
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([PROMPTS[0].token_ids]), use_cache=False).logits[0, -1, :257]
    expected = (logits / temperature).softmax(-1) * draws
    counts = torch.bincount(torch.tensor([rollout.token_ids[0] for rollout in group]), minlength=257)
    likely = expected.topk(12).indices
    assert ((counts[likely] - expected[likely]) ** 2 / expected[likely]).sum() < 36  # 99.97 % of chi-square(12)


def test_a_response_depends_on_its_seed_and_not_on_its_batch(engine):
    together = sample(engine)
    alone = engine.generate(PROMPTS[2:3], 1, Sampling(1.0, 16), [[seeds(PROMPTS, 3)[2][1]]])
    assert alone[0][0].token_ids == together[2][1].token_ids
    assert len({rollout.token_ids for group in together for rollout in group}) == 18


def test_every_response_is_announced_as_it_ends_and_returned_in_order(engine):
    seen, beats = {}, []

    def finished(i, j, rollout):
        seen[i, j] = rollout
        beats.append(engine.beat)

    groups = engine.generate(PROMPTS, 4, Sampling(1.0, 40, ("e", "t", "a")), seeds(PROMPTS, 4), finished)
    assert seen == {(i, j): groups[i][j] for i in range(6) for j in range(4)}
    assert len(set(beats)) > 4, "they came in one go"


def test_a_response_ends_at_any_end_of_sequence_id_and_keeps_it(engine, monkeypatch):
    monkeypatch.setattr(engine.vllm, "eos_ids", list(range(0, 256, 8)))
    rollouts = [rollout for group in sample(engine, n=8, tokens=30) for rollout in group]
    for rollout in rollouts:
        ends = [token % 8 == 0 for token in rollout.token_ids]
        assert not any(ends[:-1])
        assert ends[-1] == (rollout.finish_reason == "stop")
        assert ends[-1] or len(rollout.token_ids) == 30
    assert len({len(rollout.token_ids) for rollout in rollouts}) > 5


def test_a_response_ends_at_a_stop_string_and_keeps_it_as_in_the_native_engine(engine, native):
    plain = [rollout for group in sample(engine, n=4, tokens=30) for rollout in group]
    stop = next(rollout.text[10:12] for rollout in plain if rollout.text[10:12].isascii() and len(rollout.text) > 14)
    sampling = Sampling(1.0, 30, (stop, "never in it"))
    stopped = engine.generate(PROMPTS, 4, sampling, seeds(PROMPTS, 4))
    ended = [rollout for group in stopped for rollout in group if rollout.finish_reason == "stop" and rollout.token_ids[-1] != 256]
    assert ended and all(rollout.text.endswith(stop) for rollout in ended)
    for group, want in zip(stopped, native.generate(PROMPTS, 4, sampling, seeds(PROMPTS, 4)), strict=True):
        assert [(r.token_ids, r.finish_reason, r.text) for r in group] == [(r.token_ids, r.finish_reason, r.text) for r in want]


def test_ids_beyond_the_tokenizer_are_never_drawn_and_logprobs_stay_those_of_all_ids(engine):
    """The model has 300 ids, its tokenizer 257. A softmax over those 257 alone would be off by the log of their share."""
    groups = sample(engine, 5.0, n=60, tokens=4)
    assert max(token for group in groups for rollout in group for token in rollout.token_ids) <= 256
    assert parity(native_learner(engine.model, 5.0).logprobs, pairs(groups)).largest < 5e-5


def test_prompts_arrive_as_they_are_without_a_second_first_token(engine, monkeypatch):
    arrived = []
    add_request = engine.vllm.llm.llm_engine.add_request

    def spy(name, prompt, parameters):
        inner = add_request(name, prompt, parameters)
        arrived.append(tuple(engine.vllm.llm.llm_engine.engine_core.engine_core.scheduler.requests[inner].prompt_token_ids))
        return inner

    monkeypatch.setattr(engine.vllm.llm.llm_engine, "add_request", spy)
    sample(engine, n=1)
    assert sorted(arrived) == sorted(prompt.token_ids for prompt in PROMPTS)


def test_a_call_after_sleep_wakes_the_engine_with_the_learners_weights(engine):
    want = sample(engine)
    engine.sleep()
    engine.sleep()
    assert engine.memory.weights == "discarded"
    assert [[r.token_ids for r in group] for group in sample(engine)] == [[r.token_ids for r in group] for group in want]


def test_a_dtype_that_vllm_lacks_is_refused():
    with pytest.raises(InputError, match=r"float32 or bfloat16, not torch\.float64"):
        tiny_engine(tiny_model("qwen tied", dtype=torch.float64), "auto")


def test_a_prompt_without_room_for_its_response_is_refused_before_anything_is_sampled(engine):
    long = Prompt("p17", tuple(range(100)) * 5, "1")
    assert len(engine.generate([long], 1, Sampling(1.0, CONTEXT - 500), [[1]])[0][0].token_ids) == CONTEXT - 500
    with pytest.raises(InputError, match=rf"p17 of 500 tokens and max_new_tokens=13 exceed .* {CONTEXT} tokens"):
        engine.generate([*PROMPTS, long], 1, Sampling(1.0, 13), seeds([*PROMPTS, long], 1))
    assert not engine.vllm.llm.llm_engine.has_unfinished_requests()


def test_a_cache_too_small_and_prompts_read_in_pieces_change_no_token_and_are_counted():
    """60 blocks of 128 tokens for 24 sequences of up to 440; together the prompts exceed the 4096 tokens of one pass."""
    prompts = [Prompt(str(i), tuple((7 * k + i) % 250 for k in range(240 + i)), "1") for i in range(24)]
    model = tiny_model("qwen tied", seed=1)
    block = 2 * 2 * 1 * 32 * 4 * 128  # layers, keys and values, heads, head size, bytes, tokens
    engine = VllmEngine(model, byte_tokenizer(), VllmSettings(CONTEXT, 64, 60 * block))
    groups, wanted = (sample(one, 1.0, 1, 200, prompts=prompts) for one in (engine, NativeEngine(model, byte_tokenizer())))
    assert [group[0].token_ids for group in groups] == [group[0].token_ids for group in wanted]
    assert engine.metrics()["cache_tokens"] == 60 * 128
    assert engine.metrics()["preemptions"] > 0
    sample(engine)
    assert engine.metrics()["preemptions"] == 0
    engine.close()

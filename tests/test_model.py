"""The packed forward: sequences never see each other, and log-probs are those of the plain model."""

import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from fastgrpo.attention import ATTENTION
from fastgrpo.errors import InputError
from fastgrpo.model import load_model, load_tokenizer, model_logprobs, prepare
from fastgrpo.packing import pack, pack_one
from fastgrpo.types import TrainingSequence


def sequence(prompt, response, scale=1.0):
    return TrainingSequence(tuple(prompt), tuple(response), (-1.0,) * len(response), 1.0, scale)


A, B, C = sequence([5, 6, 7], [8, 9, 10, 11]), sequence([20], [21, 22]), sequence([30, 31, 32, 33], [34])


def test_packed_logprobs_are_those_of_each_sequence_alone(tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32")
    packed = model_logprobs(model, pack_one([A, B, C]), temperature=0.7)
    rows = []
    for s in (A, B, C):
        ids = torch.tensor([s.prompt_ids + s.response_ids])
        table = (model(input_ids=ids, use_cache=False).logits[0, :-1] / 0.7).log_softmax(-1)
        picked = table.gather(1, ids[0, 1:, None])[:, 0]
        picked[: len(s.prompt_ids) - 1] = 0
        rows.append(picked)
    assert (packed - torch.cat(rows)).abs().max() < 1e-5


def test_changing_one_sequence_leaves_the_others_bit_for_bit(tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32")
    other = sequence([99, 98, 97], [96, 95, 94, 93])
    first, second = (model_logprobs(model, pack_one([s, B, C]), 1.0) for s in (A, other))
    assert not torch.equal(first[: len(A)], second[: len(A)])
    assert torch.equal(first[len(A) :], second[len(A) :])


def test_a_pack_holds_each_sequence_once_shifted_once_without_padding():
    batches = pack([A, B, C], tokens_per_pack=8)
    assert sorted(batch.tokens for batch in batches) == [4, 8]
    assert sum(batch.tokens for batch in batches) == len(A) + len(B) + len(C)
    first = batches[0]
    assert first.input_ids.tolist() == [5, 6, 7, 8, 9, 10, 20, 21]
    assert first.targets.tolist() == [6, 7, 8, 9, 10, 11, 21, 22]
    assert first.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert first.loss_mask.tolist() == [False, False, True, True, True, True, True, True]
    assert first.cu_seqlens.tolist() == [0, 6, 8]
    assert first.max_seqlen == 6


def test_a_sequence_over_the_budget_gets_a_pack_of_its_own():
    assert [batch.cu_seqlens.tolist() for batch in pack([A, B], tokens_per_pack=3)] == [[0, 6], [0, 2]]


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is not a model: .*config\.json"):
        load_model(str(tmp_path), "float32")
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))


def test_an_architecture_whose_logits_are_no_plain_product_is_refused():
    """Cohere multiplies its logits by a constant, which log-probs from hidden states and head would miss."""
    config = CohereConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, logit_scale=0.5)
    config._attn_implementation = ATTENTION
    with pytest.raises(InputError, match="cannot be trained"):
        prepare(CohereForCausalLM(config))


@pytest.mark.parametrize("cap", ["final_logit_softcapping", "attn_logit_softcapping"])
def test_soft_capped_logits_or_scores_are_refused(cap):
    """Small logits hardly show a cap, so it is not left to a comparison of numbers."""
    caps = {"final_logit_softcapping": None, "attn_logit_softcapping": None} | {cap: 30.0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = Gemma2Config(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, **heads, **caps)
    config._attn_implementation = ATTENTION
    with pytest.raises(InputError, match=r"cannot be trained|not supported"):
        prepare(Gemma2ForCausalLM(config))


def test_a_sequence_beyond_the_sliding_window_is_refused():
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        attn_implementation=ATTENTION,
    )
    model = prepare(MistralForCausalLM(config))
    model_logprobs(model, pack_one([sequence([1] * 4, [2] * 4)]), 1.0)
    with pytest.raises(InputError, match="sliding window of 8"):
        model_logprobs(model, pack_one([sequence([1] * 9, [2] * 4)]), 1.0)

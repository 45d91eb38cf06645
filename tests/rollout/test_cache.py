"""The cache with room ahead holds what the plain one holds, through growth, repetition and rows that leave; decoding reads it uncopied."""

import torch
from torch.nn import functional as F
from transformers import DynamicCache, Qwen2Config

from fastgrpo.attention import decode_attention
from fastgrpo.rollout.cache import AHEAD, growing_cache


def test_it_holds_what_the_plain_cache_holds():
    torch.manual_seed(0)
    config = Qwen2Config(num_hidden_layers=2)
    plain, growing = DynamicCache(config=config), growing_cache(config)
    rows = 3
    for step in range(2 * AHEAD + 5):
        if step == 1:
            plain.batch_repeat_interleave(2), growing.batch_repeat_interleave(2)
            rows = 6
        if step in (7, AHEAD + 3):
            kept = torch.arange(rows)[:: 2 if step == 7 else 1][:2]
            plain.batch_select_indices(kept), growing.batch_select_indices(kept)
            rows = len(kept)
        for layer in range(2):
            keys, values = torch.randn(2, rows, 2, 4 if step == 0 else 1, 8)
            for expected, found in zip(plain.update(keys, values, layer), growing.update(keys, values, layer), strict=True):
                assert torch.equal(expected, found)
        assert plain.get_seq_length() == growing.get_seq_length() == step + 4


def test_a_token_is_written_in_place_until_the_room_is_used_up():
    growing = growing_cache(Qwen2Config(num_hidden_layers=1))
    places = set()
    for _ in range(AHEAD + 1):
        keys, _ = growing.update(*torch.randn(2, 2, 2, 1, 8), 0)
        places.add(keys.data_ptr())
    assert len(places) == 1


def test_heads_that_share_keys_attend_as_if_each_had_a_copy():
    torch.manual_seed(0)
    query, key, value = torch.randn(5, 6, 1, 8), torch.randn(5, 2, 11, 8), torch.randn(5, 2, 11, 8)
    mask = torch.rand(5, 1, 1, 11) > 0.3
    copies = (each.repeat_interleave(3, 1) for each in (key, value))
    expected = F.scaled_dot_product_attention(query, *copies, attn_mask=mask).transpose(1, 2)
    assert torch.allclose(decode_attention(query, key, value, mask, None), expected, atol=1e-6)

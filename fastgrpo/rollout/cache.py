"""Keys and values of the rows being decoded, with room ahead: a new token is written in place, where transformers copies all before it."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

AHEAD = 64  # tokens


class GrowingLayer(DynamicLayer):
    """A DynamicLayer whose `keys` and `values` (rows, kv_heads, tokens, D) are the filled part of larger tensors."""

    room = 0  # tokens that fit in behind the last

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, count = self.get_seq_length(), key_states.shape[-2]
        fresh = (key_states, value_states)
        if self.room < count:
            self.room = count + AHEAD
            self.stores = [_larger(old, new, start + self.room) for old, new in zip((self.keys, self.values), fresh, strict=True)]
        for store, new in zip(self.stores, fresh, strict=True):
            store[:, :, start : start + count] = new
        self.room -= count
        self.keys, self.values = (store[:, :, : start + count] for store in self.stores)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.room = 0

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.room = 0


def growing_cache(config) -> DynamicCache:
    """The cache that transformers makes for a model, its plain layers with room ahead."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _larger(old: Tensor, new: Tensor, tokens: int) -> Tensor:
    rows, heads, _, width = new.shape
    store = torch.empty(rows, heads, tokens, width, dtype=new.dtype, device=new.device)
    if old.numel():
        store[:, :, : old.shape[-2]] = old
    return store

"""The model: loading a Hugging Face causal LM, and the one packed forward that training, old and reference passes share.

What surprises: packs reach the model as one row of T tokens with positions that restart at 0 and no attention mask; the attention
registered here reads the sequence boundaries (cu_seqlens), so nothing is computed across sequences and no (T, T) mask exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgrpo.balance import Cost, transformer_cost
from fastgrpo.errors import InputError
from fastgrpo.types import PackedBatch
from fastgrpo_kernels import linear_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = "fastgrpo_packed"
UNSUPPORTED = ("softcap", "s_aux")  # what transformers passes for soft-capped scores and for attention sinks
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def packed_attention(
    module, query, key, value, attention_mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, sliding_window=None, **kwargs
):
    """Causal attention inside each sequence of a pack; without cu_seq_lens_q, plain SDPA with the mask given (decoding).

    query (1, heads, T, D), key and value (1, kv_heads, T, D), cu_seq_lens_q (S+1,) int32; returns (1, T, heads, D) and None.
    Raises InputError where a sliding window is shorter than a sequence, and for soft-capped scores or attention sinks: there are none here.
    """
    if any(kwargs.get(name) is not None for name in UNSUPPORTED):
        raise InputError(
            f"{type(module).__name__} needs one of {', '.join(UNSUPPORTED)}, which this attention does not compute: not supported"
        )
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if sliding_window is not None and max_length_q > sliding_window:
        raise InputError(f"sequences of {max_length_q} tokens exceed the model's sliding window of {sliding_window}; lower max_new_tokens")
    grouped = query.shape[1] != key.shape[1]
    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        rows = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        bounds = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        return varlen_attn(*rows, *bounds, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped) for q, k, v in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def register_attention() -> None:
    """Makes the packed attention known to transformers under the name ATTENTION, and silences its progress bars."""
    from transformers import AttentionInterface
    from transformers.utils import logging

    logging.disable_progress_bar()
    AttentionInterface.register(ATTENTION, packed_attention)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"model={path}: no tokenizer could be loaded from it ({_reason(error)})") from error


def load_model(path: str, dtype: str) -> PreTrainedModel:
    """A causal LM with packed attention, on the GPU if there is one, in eval mode (no dropout: log-probs must not be random).

    Raises InputError where it isn't one.
    """
    from transformers import AutoModelForCausalLM

    register_attention()
    if Path(path).exists() and not (Path(path) / "config.json").exists():
        raise InputError(f"model={path} is not a model: a Hugging Face model directory holds config.json, weights and a tokenizer")
    try:
        closed = {"trust_remote_code": False, "use_safetensors": True}  # nothing that comes with a model is ever run
        model = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[dtype], attn_implementation=ATTENTION, **closed)
    except Exception as error:
        raise InputError(f"model={path} could not be loaded as a causal language model: {_reason(error)}") from error
    return prepare(model.to("cuda" if torch.cuda.is_available() else "cpu"))


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """Checks once that a model computes what the packed forward assumes. Raises InputError for architectures that do not."""
    model.config.use_cache = False
    model.eval()
    if model.get_output_embeddings().bias is not None:
        raise InputError(f"{type(model).__name__} has a bias on its output head, which is not supported")
    ids = torch.arange(1, 8, device=model.device)
    halves = [0, 3, 7]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=part[None], use_cache=False).logits[0] for part in (ids[:3], ids[3:])])
        hidden = hidden_states(model, ids, torch.tensor([0, 1, 2, 0, 1, 2, 3]), torch.tensor(halves, dtype=torch.int32), 4)
        packed = hidden @ head_weight(model).T
    tolerance = 0.05 if model.dtype == torch.bfloat16 else 1e-3
    capped = getattr(model.config, "final_logit_softcapping", None) is not None  # too little to see in small logits
    if capped or (alone - packed).abs().max() > tolerance * alone.abs().max():
        raise InputError(
            f"{type(model).__name__} cannot be trained: its packed log-probs differ from its plain ones (attention or head unlike Llama's)"
        )
    return model


def training_cost(model: PreTrainedModel) -> Cost:
    """What a sequence costs to train on, by its length."""
    config = model.config
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return transformer_cost(sum(parameter.numel() for parameter in model.parameters()), config.num_hidden_layers, width)


def head_weight(model: nn.Module) -> Tensor:
    """The output head, (V, H); tied to the input embedding in some models."""
    return model.get_output_embeddings().weight


def hidden_states(model: nn.Module, input_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """Final hidden states (T, H) of packed tokens (T,)."""
    device = model.device
    bounds = {
        "cu_seq_lens_q": cu_seqlens.to(device),
        "cu_seq_lens_k": cu_seqlens.to(device),
        "max_length_q": max_seqlen,
        "max_length_k": max_seqlen,
    }
    rows = {"input_ids": input_ids[None].to(device), "position_ids": position_ids[None].to(device)}
    return model.base_model(**rows, **bounds, use_cache=False).last_hidden_state[0]


def kept_hidden_states(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Final hidden states (M, H) of the rows of a pack that predict response tokens: only these go through the head."""
    hidden = hidden_states(model, batch.input_ids, batch.position_ids, batch.cu_seqlens, batch.max_seqlen)
    return hidden[batch.loss_mask.to(hidden.device)]


@torch.no_grad()
def model_logprobs(model: nn.Module, batch: PackedBatch, temperature: float) -> Tensor:
    """Log-probs (T,) of a pack's targets under any model, the policy or the frozen reference; 0 outside the loss mask."""
    rows = batch.loss_mask
    targets = batch.targets[rows].to(model.device)
    kept, _ = linear_logprobs(kept_hidden_states(model, batch), head_weight(model), targets, temperature)
    logprobs = torch.zeros(batch.tokens, dtype=kept.dtype)
    logprobs[rows] = kept.to(logprobs.device)
    return logprobs


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own, which is never run here; take a model of an architecture that transformers has"
    return (str(error) or type(error).__name__).strip().splitlines()[0]

"""The model: loading a Hugging Face causal LM, and the one packed forward that training, old and reference passes share.

What surprises: packs reach the model as one row of T tokens with positions that restart at 0 and no attention mask; the attention
(fastgrpo.attention) reads the sequence boundaries (cu_seqlens), so nothing is computed across sequences and no (T, T) mask exists.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastgrpo.attention import ATTENTION, choose, register_attention, this_machine
from fastgrpo.balance import Cost, transformer_cost
from fastgrpo.errors import InputError
from fastgrpo.types import PackedBatch
from fastgrpo_kernels import linear_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id. Raises InputError where there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"model={path}: no tokenizer could be loaded from it ({_reason(error)})") from error


def load_model(path: str, dtype: str, attention: str = "auto", say: Callable[[str], None] = lambda line: None) -> PreTrainedModel:
    """A causal LM with packed attention, on the GPU if there is one, in eval mode (no dropout: log-probs must not be random).

    `attention` is a kernel of fastgrpo.attention or "auto"; `say` is told which was chosen. Raises InputError where the path holds no
    such model, or the kernel cannot be used.
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
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    choice = choose(attention, this_machine(model.device), model.dtype, head_dim(model))
    model.set_attn_implementation(choice.implementation)
    say(choice.line)
    return prepare(model)


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
    width = model.config.num_attention_heads * head_dim(model)
    return transformer_cost(sum(parameter.numel() for parameter in model.parameters()), model.config.num_hidden_layers, width)


def head_dim(model: PreTrainedModel) -> int:
    """The size of an attention head."""
    return getattr(model.config, "head_dim", None) or model.config.hidden_size // model.config.num_attention_heads


def head_weight(model: nn.Module) -> Tensor:
    """The output head, (V, H); tied to the input embedding in some models."""
    return model.get_output_embeddings().weight


def hidden_states(model: nn.Module, input_ids: Tensor, position_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
    """Final hidden states (T, H) of packed tokens (T,)."""
    device = model.device
    cuts = cu_seqlens.to("cpu" if model.config._attn_implementation == ATTENTION else device)  # where the kernel reads them
    bounds = {"cu_seq_lens_q": cuts, "cu_seq_lens_k": cuts, "max_length_q": max_seqlen, "max_length_k": max_seqlen}
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

"""Attention of packs: causal inside each sequence, nothing across; which kernel computes it is chosen once, when a model is loaded.

What surprises: the choice is the model's `attn_implementation`, a name under which the kernel is registered with transformers. Bitwise
reruns on a GPU need flash2 or flash4, whose backward pass is asked to be deterministic (slower, by how much is not measured here);
torch's kernels, varlen and sdpa, add up gradients in an order that varies unless torch.use_deterministic_algorithms is on.
None of the kernels has run on a GPU here: the adapters are tested with stand-ins of the same signatures (flash-attn 2.8, flash-attn-4
4.0.0b36, torch 2.13).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgrpo.errors import InputError

UNSUPPORTED = ("softcap", "s_aux")  # what transformers passes for soft-capped scores and for attention sinks


class Package(NamedTuple):
    name: str
    distribution: str
    module: str  # both packages are `flash_attn`, and version 2 may carry an old copy of 4: the distribution tells them apart
    pip: str


PACKAGES = {
    "flash2": Package("flash-attn 2", "flash-attn", "flash_attn.flash_attn_interface", "pip install --no-build-isolation flash-attn"),
    "flash4": Package("flash-attn 4", "flash-attn-4", "flash_attn.cute", 'pip install --pre "flash-attn-4[cu13]"'),
}
NAMES = {"flash2": "flash-attn", "flash4": "flash-attn-4", "varlen": "varlen_attn of torch", "sdpa": "SDPA sequence by sequence, torch"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice depends on besides the model. `device` is "cuda" or "cpu", `name` what people call it."""

    device: str
    name: str
    capability: tuple[int, int] = (0, 0)
    versions: Mapping[str, str] = field(default_factory=dict)  # of each kernel that can be imported
    problems: Mapping[str, str] = field(default_factory=dict)  # why another cannot be


class Choice(NamedTuple):
    implementation: str  # its name in transformers
    line: str  # for the log: what was chosen, and why


def choose(wanted: str, machine: Machine, dtype: torch.dtype, head_dim: int) -> Choice:
    """The kernel for a model: `wanted` itself, or for "auto" the first of flash2, flash4, varlen and sdpa that can be used.

    Raises InputError where the wanted one cannot be.
    """
    refused = []
    for kernel in KERNELS if wanted == "auto" else [wanted]:
        reason = refusal(kernel, machine, dtype, head_dim)
        if not reason:
            break
        refused.append(reason)
    else:
        raise InputError(f"learner.attention={wanted} cannot be used: {refused[0]}. Change that, or set learner.attention=auto")
    why = [f"{str(dtype).removeprefix('torch.')} on {machine.name}", *dict.fromkeys(refused)]
    if wanted != "auto":
        why.append("as learner.attention says")
    if machine.device == "cuda" and kernel not in PACKAGES:
        why.append("its gradients may differ in the last bits from run to run")
    return Choice(implementation(kernel), f"attention: {NAMES[kernel]} {machine.versions.get(kernel, '')} ({'; '.join(why)})")


def refusal(kernel: str, machine: Machine, dtype: torch.dtype, head_dim: int) -> str:
    """Why a kernel cannot be used; "" where it can."""
    if kernel == "sdpa":
        return ""
    major, minor = machine.capability
    if machine.device != "cuda":
        return "flash kernels need a GPU"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"flash kernels do not compute in {str(dtype).removeprefix('torch.')}"
    if major < 8:
        return f"flash kernels need compute capability 8.0, and {machine.name} has {major}.{minor}"
    if kernel == "flash4" and major not in (9, 10):
        return f"flash-attn 4 needs compute capability 9 or 10, and {machine.name} has {major}.{minor}"
    largest = 128 if kernel == "flash4" and major == 10 and head_dim != 256 else 256
    if head_dim > largest or (head_dim % 8 and kernel != "flash2"):  # which pads
        return f"{NAMES[kernel]} does not compute heads of size {head_dim}"
    return machine.problems.get(kernel, "")


def this_machine(device: torch.device) -> Machine:
    """Looks, and imports what is installed; on a CPU, where nothing of it can be used, it does not."""
    versions, problems = {"varlen": torch.__version__, "sdpa": torch.__version__}, {}
    if device.type != "cuda":
        return Machine("cpu", "the CPU", versions=versions)
    for kernel, package in PACKAGES.items():
        try:
            found = version(package.distribution)
            import_module(package.module)
            versions[kernel] = found
        except PackageNotFoundError:
            problems[kernel] = f"{package.name} is not installed ({package.pip})"
        except Exception as error:  # an extension built for another torch fails in many ways
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            problems[kernel] = f"{package.name} is installed and cannot be imported: {reason}"
    return Machine("cuda", torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device), versions, problems)


def flash2(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    """query (T, heads, D), key and value (T, kv_heads, D), bounds (S+1,) int32, `longest` of S sequences; returns (T, heads, D).

    So for all kernels.
    """
    from flash_attn.flash_attn_interface import flash_attn_varlen_func

    cuts = (bounds, bounds, longest, longest)
    return flash_attn_varlen_func(query, key, value, *cuts, softmax_scale=scale, causal=True, deterministic=True)


def flash4(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    """Its fourth argument is no bound, and it returns the log-sum-exp too."""
    from flash_attn.cute import flash_attn_varlen_func

    cuts = {"cu_seqlens_q": bounds, "cu_seqlens_k": bounds, "max_seqlen_q": longest, "max_seqlen_k": longest}
    return flash_attn_varlen_func(query, key, value, **cuts, softmax_scale=scale, causal=True, deterministic=True)[0]


def varlen(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    """A window without a past end and without a future is causal attention."""
    from torch.nn.attention.varlen import varlen_attn

    cuts, options = (bounds, bounds, longest, longest), {}
    if query.shape[1] != key.shape[1]:
        if "enable_gqa" in signature(varlen_attn).parameters:
            options = {"enable_gqa": True}
        else:  # torch before 2.13: a copy of keys and values for each head
            key, value = (rows.repeat_interleave(query.shape[1] // key.shape[1], 1) for rows in (key, value))
    return varlen_attn(query, key, value, *cuts, scale=scale, window_size=(-1, 0), **options)


def sdpa(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    """A call a sequence: for CPUs, and for float32 and float64. Bounds on the CPU spare the wait for a GPU."""
    lengths = bounds.diff().tolist()
    parts = zip(*((part.transpose(0, 1)[None] for part in rows.split(lengths)) for rows in (query, key, value)), strict=True)
    grouped = query.shape[1] != key.shape[1]
    outputs = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=grouped) for q, k, v in parts]
    return torch.cat([output[0].transpose(0, 1) for output in outputs])


KERNELS = {"flash2": flash2, "flash4": flash4, "varlen": varlen, "sdpa": sdpa}  # the order in which "auto" tries them


@torch.compiler.disable  # lengths differ from pack to pack, and the kernels are compiled already
def packed_attention(
    kernel, module, query, key, value, attention_mask, scaling=None, cu_seq_lens_q=None, max_length_q=None, sliding_window=None, **kwargs
):
    """Causal attention inside each sequence of a pack, by `kernel`; without cu_seq_lens_q, plain SDPA with the mask given (sampling).

    query (1, heads, T, D), key and value (1, kv_heads, T, D), cu_seq_lens_q (S+1,) int32; returns (1, T, heads, D) and None.
    Raises InputError where a sliding window is shorter than a sequence, and for soft-capped scores or attention sinks: there are none here.
    """
    if any(kwargs.get(name) is not None for name in UNSUPPORTED):
        raise InputError(
            f"{type(module).__name__} needs one of {', '.join(UNSUPPORTED)}, which this attention does not compute: not supported"
        )
    if cu_seq_lens_q is None and query.shape[2] == 1:
        return decode_attention(query, key, value, attention_mask, scaling), None
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    if sliding_window is not None and max_length_q > sliding_window:
        raise InputError(f"sequences of {max_length_q} tokens exceed the model's sliding window of {sliding_window}; lower max_new_tokens")
    rows = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return kernel(*rows, cu_seq_lens_q, max_length_q, scaling)[None], None


def decode_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """One token a row: query (B, heads, 1, D), key and value (B, kv_heads, L, D), mask (B, 1, 1, L) or none; returns (B, 1, heads, D).

    The heads that share keys become the queries of one head, where transformers would copy the keys for each of them.
    """
    batch, heads, _, width = query.shape
    shared = query.reshape(batch, key.shape[1], heads // key.shape[1], width)
    output = F.scaled_dot_product_attention(shared, key, value, attn_mask=mask, scale=scale)
    return output.reshape(batch, 1, heads, width)


def implementation(kernel: str) -> str:
    """The name of a kernel in transformers, which takes any with "flash" in it for one of its own."""
    return f"fastgrpo_{kernel.replace('flash', 'fa')}"


ATTENTION = implementation("sdpa")


def register_attention() -> None:
    """Makes the kernels known to transformers, and silences its progress bars."""
    from transformers import AttentionInterface
    from transformers.utils import logging

    logging.disable_progress_bar()
    for name, kernel in KERNELS.items():
        AttentionInterface.register(implementation(name), partial(packed_attention, kernel))

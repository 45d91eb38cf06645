"""Every number of the plan that no setting states: devices from their data sheets, and assumptions, each with its source.

`--assume NAME=VALUE` replaces any of them. None is fitted to the published 27 hours of the 7B recipe.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastgrpo.errors import InputError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number with its unit and where it comes from; `share` says that it lies above 0 and at most 1."""

    value: float
    unit: str
    source: str
    share: bool = False


_SHEET = "data sheet, SXM, dense"
DEVICES: dict[str, dict[str, Assumption]] = {
    name: {
        "memory": Assumption(memory, "GiB", "what the driver leaves of the card"),
        "tflops": Assumption(tflops, "TFLOP/s in bfloat16", _SHEET),
        "tflops_fp32": Assumption(fp32, "TFLOP/s in float32, without TF32", _SHEET),
        "bandwidth": Assumption(bandwidth, "GB/s of memory", _SHEET),
        "link": Assumption(link, "GB/s in one direction between two GPUs of a node", "data sheet, half of NVLink's total"),
    }
    for name, memory, tflops, fp32, bandwidth, link in (
        ("a100-80g", 79.1, 312, 19.5, 2039, 300),
        ("h100", 79.1, 989, 67, 3350, 450),
        ("h200", 139.8, 989, 67, 4800, 450),
    )
}

GENERAL: dict[str, Assumption] = {
    # the work
    "prompt_tokens": Assumption(150, "tokens", "assumed: questions of MATH with a template have 80 to 300"),
    "mean_response_tokens": Assumption(800, "tokens", "assumed, the most important guess; measure it in the first steps of a run"),
    "length_sigma": Assumption(0.6, "of log-normal lengths", "assumed: one response in eight is twice as long as the median"),
    "eval_problems": Assumption(500, "problems", "assumed of each held-out set whose size is not known"),
    "zero_signal": Assumption(0.4, "share of groups", "assumed: all right or all wrong, dropped before the model runs"),
    "imbalance": Assumption(1.05, "times", "assumed: the slowest rank over the mean; packs are not all full"),
    # arithmetic
    "mfu": Assumption(0.40, "share of tflops", "assumed for training with packed varlen attention: 0.35 to 0.45 is usual", share=True),
    "mfu_head": Assumption(0.70, "share of tflops", "assumed for head and loss: large products, one row kernel beside them", share=True),
    "mfu_prefill": Assumption(0.50, "share of tflops", "assumed for reading prompts, and for decoding where arithmetic binds", share=True),
    # decoding
    "bandwidth_share": Assumption(0.70, "share of bandwidth", "assumed for a decode step with CUDA graphs", share=True),
    "step_overhead_vllm": Assumption(0.006, "s per decode step", "assumed: scheduling and sampling on the host, not overlapped here"),
    "step_overhead_native": Assumption(0.035, "s per decode step", "assumed: some 1,000 kernel launches without CUDA graphs"),
    "sampler_bytes": Assumption(60, "bytes per logit", "counted from rollout/choice.py: log-softmax in float32, cumulated in float64"),
    # around it
    "link_share": Assumption(0.60, "share of link", "assumed for collectives of large buckets", share=True),
    "host_link": Assumption(20, "GB/s between GPU and host", "assumed: PCIe 4.0 x16 reaches 20 to 26"),
    "host_bandwidth": Assumption(20, "GB/s of host memory per GPU", "assumed: 8 ranks share two sockets in AdamW on the CPU"),
    "grading": Assumption(2, "s per step", "1,024 answers on two cores, fast verifier; most of it overlaps with generation"),
    "step_fixed": Assumption(4, "s per step", "assumed: release and wake of the KV cache, parity check, packing, logs"),
    # memory
    "context": Assumption(1.0, "GiB per GPU", "assumed: CUDA context, cuBLAS workspace and NCCL buffers"),
    "vllm": Assumption(2.0, "GiB per GPU", "assumed: CUDA graphs, the largest batch's activations, block tables; stays while it sleeps"),
    "fragmentation": Assumption(0.05, "share of memory", "assumed: kept free for what the allocator cannot use"),
    "reduce_bucket": Assumption(1e8, "elements", "learner/zero_config.py; float32, two of them under ZeRO 2"),
    "push_bucket": Assumption(2**28, "elements", "learner/deepspeed.py: whole at once while weights go to the engine under ZeRO 3"),
    "prefetch_bucket": Assumption(5e7, "elements", "DeepSpeed's default stage3_prefetch_bucket_size"),
    "live_parameters": Assumption(1e9, "elements", "DeepSpeed's default stage3_max_live_parameters, at most"),
}


def assumptions_for(device: str, given: Sequence[str], budget: int) -> dict[str, Assumption]:
    """All assumptions of a device by name, with `name=value` texts on top; `budget` is that of a response, in tokens.

    Raises InputError, one line each, for what is wrong.
    """
    if device not in DEVICES:
        names = ", ".join(DEVICES)
        raise InputError(
            f"--gpu {device}: it must be one of {names}; for another, take the nearest and --assume its memory, tflops, bandwidth"
        )
    known = {**DEVICES[device], **GENERAL}
    if budget < 2 * known["mean_response_tokens"].value:
        known["mean_response_tokens"] = Assumption(budget / 2, "tokens", "assumed: half of max_new_tokens; measure it in the first steps")
    problems = []
    for text in given:
        name, _, number = text.partition("=")
        name = name.strip()
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"the names are {', '.join(known)}"
            problems.append(f"--assume {text}: there is no assumption {name!r}; {hint}")
            continue
        value, old = _number(number), known[name]
        low_is_open = name not in ("zero_signal", "fragmentation")
        limit = 1.0 if old.share or not low_is_open else math.inf
        if value is None or not (0 <= value <= limit) or (low_is_open and value == 0) or (not low_is_open and value == 1):
            allowed = "above 0 and at most 1" if old.share else "at least 0 and below 1" if not low_is_open else "above 0"
            problems.append(f"--assume {text}: it must be a number {allowed} ({old.unit})")
            continue
        known[name] = Assumption(value, old.unit, "given", old.share)
    if problems:
        raise InputError("\n".join(problems))
    return known


def values(assumptions: Mapping[str, Assumption]) -> dict[str, float]:
    return {name: assumption.value for name, assumption in assumptions.items()}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

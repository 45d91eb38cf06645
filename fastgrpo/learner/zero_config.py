"""The settings of a DeepSpeed engine, from ours; none of its own defaults decides a result.

What surprises: one accumulation step is configured whatever the number of packs, since the learner says itself which pass is the last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from fastgrpo.errors import InputError

if TYPE_CHECKING:
    from fastgrpo.config_sections import LearnerConfig

REDUCE_BUCKET = 100_000_000  # elements; two such buffers in fp32 take 0.8 GB, a quarter of DeepSpeed's default
SMALLEST_SHARD = 0  # elements; ZeRO 3 keeps smaller parameters whole on every rank. None are: they would also miss the tests


def zero_config(settings: LearnerConfig, dtype: torch.dtype, grad_clip: float) -> dict:
    """The `config` of deepspeed.initialize for parameters of `dtype` (float32 or bfloat16).

    Raises InputError for combinations that DeepSpeed does not compute, or not exactly: see LearnerConfig.refusal.
    """
    if why := settings.refusal(str(dtype).removeprefix("torch.")):
        raise InputError(why)
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    zero = {
        "stage": settings.zero,
        "reduce_bucket_size": REDUCE_BUCKET,
        "stage3_param_persistence_threshold": SMALLEST_SHARD,
        **({"offload_optimizer": host} if settings.offload != "none" else {}),
        **({"offload_param": host} if settings.offload == "all" else {}),
    }
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0 if math.isinf(grad_clip) else grad_clip,  # 0 is off
        "bf16": {"enabled": dtype == torch.bfloat16, "check_grad_overflow": True},  # else stage 2 steps with gradients that are not finite
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its own AdamW would be compiled here, with g++
        "steps_per_print": 10**12,
    }

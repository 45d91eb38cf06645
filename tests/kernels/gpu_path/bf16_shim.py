"""Makes triton's CPU interpreter treat bf16 as a GPU does: fp32 arithmetic, round to nearest even on the way back. Without it bf16 is
computed as integers, silently wrong, and casts truncate. For the operations that the row kernel uses; triton 3.6 to 3.9.
"""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def _is_bf16(handle):
    return handle.dtype.scalar == tl.bfloat16


def _up(handle):
    return (np.asarray(handle.data).astype(np.uint32) << 16).view(np.float32) if _is_bf16(handle) else handle.data


def _down(values):
    values = np.ascontiguousarray(np.asarray(values, dtype=np.float32))
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).reshape(values.shape)


def install():
    if getattr(InterpreterBuilder, "_bf16_is_right", False):
        return
    cast, convert = InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp

    def cast_impl(self, source, target):
        is_bf16, to_bf16 = _is_bf16(source), target.scalar == tl.bfloat16
        if to_bf16 and not is_bf16:
            return TensorHandle(_down(source.data), target.scalar)
        if is_bf16 and not to_bf16:
            return TensorHandle(_up(source).astype(interpreter._get_np_dtype(target)), target.scalar)
        return cast(self, source, target)

    def create_fp_to_fp(self, source, target, rounding):
        between = {source.dtype.scalar, target.scalar} == {tl.bfloat16, tl.float32}
        return cast_impl(self, source, target) if between else convert(self, source, target, rounding)

    InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp = cast_impl, create_fp_to_fp
    InterpreterBuilder.get_bf16 = lambda self, value: TensorHandle(_down(np.array([value])), tl.bfloat16)
    InterpreterBuilder._bf16_is_right = True

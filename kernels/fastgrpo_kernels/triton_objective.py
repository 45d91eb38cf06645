"""The objective of one row on the device: loss l and its derivative g = dl/dlogp in closed form, scalar by scalar.

The same formulas as `objective.objective`, which is the definition. Comparisons with `tl.where` instead of `tl.minimum`: the latter drops
NaN on a GPU, and a broken log-prob must break the loss, not pass for a clipped one.
"""

import triton
import triton.language as tl

from fastgrpo_kernels import objective

CLIP, CISPO, SAPO, REINFORCE, GIVEN = (tl.constexpr(objective.KINDS.index(kind)) for kind in objective.KINDS)  # the constexpr KIND
MAX_LOG_RATIO, MAX_REF_GAP = tl.constexpr(objective.MAX_LOG_RATIO), tl.constexpr(objective.MAX_REF_GAP)


@triton.jit
def clamp(x, low, high):
    return tl.where(x < low, low, tl.where(x > high, high, x))


@triton.jit
def k3(d):
    """exp(d) - d - 1 >= 0; a series near 0, where the difference would cancel (eight terms: 1e-9 of the value at 1/2)."""
    series = 1 / 6 + d * (1 / 24 + d * (1 / 120 + d * (1 / 720 + d * (1 / 5040 + d * (1 / 40320 + d / 362880)))))
    return tl.where(tl.abs(d) < 0.5, d * d * (0.5 + d * series), tl.exp(d) - d - 1)


@triton.jit
def policy_term(logp, gap, a, lower, upper, cap, tau_pos, tau_neg, KIND: tl.constexpr):
    """(l, g, clipped low, clipped high) of A = a != 0 and gap = new - old; of kind given, a is g itself."""
    outside = tl.abs(gap) > MAX_LOG_RATIO  # here r no longer moves with logp
    r = tl.exp(clamp(gap, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    gains = a > 0
    high, low = r < 0, r < 0  # never
    if KIND == CLIP:
        high, low = gains & (r > upper), (a < 0) & (r < lower)
        bounded = tl.where(gains, tl.where(r > upper, upper, r), clamp(r, lower, cap))
        flat = high | low | ((a < 0) & (r > cap)) | outside
        loss, g = -a * bounded, tl.where(flat, 0.0, -a * r)
    elif KIND == CISPO:
        high = r > upper
        g = -a * tl.where(high, upper, r)
        loss = g * logp
    elif KIND == SAPO:
        tau = tl.where(gains, tau_pos, tau_neg)
        s = 1 / (1 + tl.exp(tau * (1 - r)))
        rest = 1 / (1 + tl.exp(tau * (r - 1)))  # 1 - s without cancellation
        loss, g = -4 / tau * s * a, tl.where(outside, 0.0, -4 * a * s * rest * r)
    elif KIND == REINFORCE:
        loss, g = -a * logp, -a
    else:
        loss, g = a * logp, a
    return loss, g, low, high


@triton.jit
def row_objective(
    row, logp, advantages_ptr, old_ptr, ref_ptr, sampler_ptr,
    lower, upper, cap, beta, tis_cap, tau_pos, tau_neg,
    KIND: tl.constexpr, HAS_KL: tl.constexpr, HAS_TIS: tl.constexpr,
):  # fmt: skip
    """(l, g, flags) of a row, before its scale. old_ptr None: the ratio is 1."""
    a = tl.load(advantages_ptr + row).to(tl.float32)
    old = logp
    if old_ptr is not None:
        old = tl.load(old_ptr + row).to(tl.float32)
    signal = a != 0
    loss, g, low, high = policy_term(logp, logp - old, a, lower, upper, cap, tau_pos, tau_neg, KIND)
    loss, g = tl.where(signal, loss, 0.0), tl.where(signal, g, 0.0)  # A = 0 gives 0 even where the ratio is not a number
    if HAS_TIS:
        weight = tl.exp(old - tl.load(sampler_ptr + row).to(tl.float32))
        weight = tl.where(weight > tis_cap, tis_cap, weight)
        loss, g = tl.where(signal, loss * weight, 0.0), tl.where(signal, g * weight, 0.0)
    if HAS_KL:
        gap = tl.load(ref_ptr + row).to(tl.float32) - logp
        d = clamp(gap, -MAX_REF_GAP, MAX_REF_GAP)
        kl = k3(d)
        loss += beta * kl
        g -= beta * tl.where(tl.abs(gap) > MAX_REF_GAP, 0.0, kl + d)  # exp(d) - 1
    return loss, g, tl.where(signal, low.to(tl.int32) + 2 * high.to(tl.int32), 0)  # bits: clipped from below, from above

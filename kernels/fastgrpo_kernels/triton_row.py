"""One program per row of logits: from float32 logits to log-prob, entropy, loss and the panel G = dLoss/dlogits, in two passes.

Surprising: the second pass runs backwards over the columns, because the end of the row is what the L2 cache still holds, and rows without
gradient (zero advantage, clipped) write zeros without reading. Nothing is shared between rows: no atomics, the same bits every run.

    c rows, V columns; the columns from `vocabulary` on are padding: never read, probability 0, G = 0
    logits (c, V) fp32|bf16|fp16, any row stride      targets (c,) int64      panel (c, V) fp32|bf16|fp16, may be the logits themselves
    z = softcap tanh((logit + bias) logit_scale / softcap) / temperature       (without softcap: (logit + bias) logit_scale / temperature)
    pass 1, online:  m = max z    s = sum e^(z - m)    u = sum e^(z - m) (z - m)    (u: the entropy without cancellation)
    lse = m + log s     logp = z[target] - lse     entropy = log s - u / s     l, g = dl/dlogp: see `triton_objective`
    pass 2:  G = logit_scale / temperature * (1 - tanh^2) * (g (onehot - p) - h p (z - lse + entropy)),  p = e^(z - lse),  sum_v G = 0
    g and h = dLoss/dentropy include the row's scale; onehot - p is formed in fp32, before G is rounded.

Per row of V fp32 columns and a bf16 panel: 4 V bytes read from memory, 4 V more from L2 or memory, 2 V written; 10 V where L2 does not hold
the row (1.5 MB and 0.32 us at V = 151,936 and 4.8 TB/s). About 17 V FLOPs, of which 2 V exponentials (+ 4 V with softcap). A row without
gradient: 4 V read, 2 V written. Forward only: 4 V read.
"""

import triton
import triton.language as tl

from fastgrpo_kernels.triton_objective import row_objective

# MODE: log-prob and entropy; (m, s, u, z_target) of a shard of the vocabulary; everything
FORWARD, SHARD, GRADIENT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def tanh(x):
    """To 2 ulp: near 0, where 1 - 2 / (e^2x + 1) would cancel, the polynomial of Cephes' tanhf; an infinite exponential gives 1."""
    w = x * x
    tail = (((-5.70498872745e-3 * w + 2.06390887954e-2) * w - 5.37397155531e-2) * w + 1.33314422036e-1) * w - 3.33332819422e-1
    return tl.where(w < 0.625 * 0.625, x + x * w * tail, 1 - 2 / (tl.exp(2 * x) + 1))


@triton.jit
def scaled_logits(row_ptr, bias_ptr, columns, inside, logit_scale, softcap, inv_temperature, MASKED: tl.constexpr, SOFTCAP: tl.constexpr):
    """(z, dz/dlogit without the factor logit_scale / temperature) of some columns, in fp32; z = -inf outside and where the logit is."""
    if MASKED:  # noqa: SIM108
        x = tl.load(row_ptr + columns, mask=inside, other=float("-inf")).to(tl.float32)
    else:
        x = tl.load(row_ptr + columns).to(tl.float32)
    if bias_ptr is not None:
        if MASKED:
            x += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        else:
            x += tl.load(bias_ptr + columns).to(tl.float32)
    padding = x == float("-inf")  # by the logit or by its bias
    y = x * logit_scale
    slope = 1.0
    if SOFTCAP:
        t = tanh(y / softcap)
        y = tl.where(padding, float("-inf"), softcap * t)
        slope = 1 - t * t
    return y * inv_temperature, slope


@triton.jit
def online_step(m, s, u, z):
    """(m, s, u) with the columns z taken in; columns at -inf change nothing, even before the first finite one."""
    top = tl.maximum(m, tl.max(z, axis=0))
    origin = tl.where(top == float("-inf"), 0.0, top)
    drop = tl.where(m == float("-inf"), 0.0, m - origin)  # <= 0
    e = tl.exp(z - origin)
    decay = tl.exp(drop)
    u = decay * (u + drop * s) + tl.sum(tl.where(z == float("-inf"), 0.0, e * (z - origin)), axis=0)
    s = decay * s + tl.sum(e, axis=0)
    return top, s, u


@triton.jit
def first_pass(row_ptr, bias_ptr, V, logit_scale, softcap, inv_temperature, SOFTCAP: tl.constexpr, BLOCK_V: tl.constexpr):
    """(m, s, u) of the row. All blocks but the last go without a mask, so that their loads are 16 bytes wide whatever V is."""
    lane = tl.arange(0, BLOCK_V)
    whole = V // BLOCK_V
    m, s, u = float("-inf"), 0.0, 0.0
    for block in range(whole):
        columns = block * BLOCK_V + lane
        z, _ = scaled_logits(row_ptr, bias_ptr, columns, columns < V, logit_scale, softcap, inv_temperature, False, SOFTCAP)
        m, s, u = online_step(m, s, u, z)
    if whole * BLOCK_V < V:
        columns = whole * BLOCK_V + lane
        z, _ = scaled_logits(row_ptr, bias_ptr, columns, columns < V, logit_scale, softcap, inv_temperature, True, SOFTCAP)
        m, s, u = online_step(m, s, u, z)
    return m, s, u


@triton.jit
def logits_gradient(z, slope, columns, target, lse, entropy, g, h):
    p = tl.exp(z - lse)
    towards = g * (tl.where(columns == target, 1.0, 0.0) - p)
    surprise = tl.where(z == float("-inf"), 0.0, z - lse + entropy)  # guards 0 * inf
    return slope * (towards - h * p * surprise)


@triton.jit
def second_pass(
    row_ptr, bias_ptr, panel_ptr, target, V, width, logit_scale, softcap, inv_temperature, lse, entropy, g, h,
    SOFTCAP: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    lane = tl.arange(0, BLOCK_V)
    whole = V // BLOCK_V
    for start in range((whole + 1) * BLOCK_V, width, BLOCK_V):
        columns = start + lane
        tl.store(panel_ptr + columns, tl.zeros([BLOCK_V], panel_ptr.dtype.element_ty), mask=columns < width)
    if whole * BLOCK_V < width:
        columns = whole * BLOCK_V + lane
        z, slope = scaled_logits(row_ptr, bias_ptr, columns, columns < V, logit_scale, softcap, inv_temperature, True, SOFTCAP)
        out = logits_gradient(z, slope, columns, target, lse, entropy, g, h)
        tl.store(panel_ptr + columns, out.to(panel_ptr.dtype.element_ty), mask=columns < width)
    for block in range(whole):
        columns = (whole - 1 - block) * BLOCK_V + lane
        z, slope = scaled_logits(row_ptr, bias_ptr, columns, columns < V, logit_scale, softcap, inv_temperature, False, SOFTCAP)
        out = logits_gradient(z, slope, columns, target, lse, entropy, g, h)
        tl.store(panel_ptr + columns, out.to(panel_ptr.dtype.element_ty))


@triton.jit
def store_zeros(panel_ptr, width, BLOCK_V: tl.constexpr):
    lane = tl.arange(0, BLOCK_V)
    whole = width // BLOCK_V
    zeros = tl.zeros([BLOCK_V], panel_ptr.dtype.element_ty)
    for block in range(whole):
        tl.store(panel_ptr + block * BLOCK_V + lane, zeros)
    columns = whole * BLOCK_V + lane
    tl.store(panel_ptr + columns, zeros, mask=columns < width)


@triton.jit(
    do_not_specialize=["V", "width", "shard_stride"],
    do_not_specialize_on_alignment=[
        "targets_ptr", "temperature_ptr", "advantages_ptr", "scale_ptr", "old_ptr", "ref_ptr", "sampler_ptr", "h_ptr", "shard_ptr",
        "logp_ptr", "entropy_ptr", "lse_ptr", "loss_ptr", "flags_ptr",
    ],
)  # fmt: skip
def row_kernel(
    logits_ptr, logits_stride, panel_ptr, panel_stride, targets_ptr, bias_ptr, temperature_ptr,
    advantages_ptr, scale_ptr, scale_unit_ptr, old_ptr, ref_ptr, sampler_ptr, h_ptr, shard_ptr, shard_stride,
    logp_ptr, entropy_ptr, lse_ptr, loss_ptr, flags_ptr,
    V, width, logit_scale, softcap, temperature, lower, upper, cap, beta, tis_cap, tau_pos, tau_neg, entropy_coef,
    MODE: tl.constexpr, KIND: tl.constexpr, SOFTCAP: tl.constexpr, HAS_KL: tl.constexpr, HAS_TIS: tl.constexpr, COMBINED: tl.constexpr,
    BLOCK_V: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # int64: row * stride passes 2**31 at 14,134 rows of a vocabulary of 151,936
    logits_ptr += row * logits_stride
    target = tl.load(targets_ptr + row)
    if temperature_ptr is not None:
        temperature = tl.load(temperature_ptr + row).to(tl.float32)
    inv_temperature = 1.0 / temperature
    if COMBINED:
        m, s, u = tl.load(shard_ptr + row), tl.load(shard_ptr + shard_stride + row), tl.load(shard_ptr + 2 * shard_stride + row)
        z_target = tl.load(shard_ptr + 3 * shard_stride + row)
    else:
        m, s, u = first_pass(logits_ptr, bias_ptr, V, logit_scale, softcap, inv_temperature, SOFTCAP, BLOCK_V)
        mine = (target >= 0) & (target < V)  # false where another shard of the vocabulary has the target
        z_target, _ = scaled_logits(logits_ptr, bias_ptr, target, mine, logit_scale, softcap, inv_temperature, True, SOFTCAP)
    if MODE == SHARD:
        tl.store(shard_ptr + row, m)
        tl.store(shard_ptr + shard_stride + row, s)
        tl.store(shard_ptr + 2 * shard_stride + row, u)
        tl.store(shard_ptr + 3 * shard_stride + row, z_target)  # -inf elsewhere: the maximum over the shards is the target's
    else:
        log_s = tl.log(s)
        lse = m + log_s
        logp = z_target - lse
        entropy = log_s - u / s
        tl.store(logp_ptr + row, logp)
        tl.store(entropy_ptr + row, entropy)
        tl.store(lse_ptr + row, lse)
        if MODE == GRADIENT:
            scale = tl.load(scale_ptr + row).to(tl.float32) / tl.load(scale_unit_ptr)
            loss, g, flags = row_objective(
                row, logp, advantages_ptr, old_ptr, ref_ptr, sampler_ptr,
                lower, upper, cap, beta, tis_cap, tau_pos, tau_neg, KIND, HAS_KL, HAS_TIS,
            )  # fmt: skip
            tl.store(loss_ptr + row, loss)
            tl.store(flags_ptr + row, flags)
            g *= scale
            h = -entropy_coef * scale
            if h_ptr is not None:
                h = tl.load(h_ptr + row).to(tl.float32)
            panel_ptr += row * panel_stride
            if (g == 0) & (h == 0):
                store_zeros(panel_ptr, width, BLOCK_V)
            else:
                factor = logit_scale * inv_temperature
                second_pass(
                    logits_ptr, bias_ptr, panel_ptr, target, V, width, logit_scale, softcap, inv_temperature,
                    lse, entropy, g * factor, h * factor, SOFTCAP, BLOCK_V,
                )  # fmt: skip

"""Attention by a plain float64 formula, and behind the exact signatures of the flash packages, which need a GPU to be run themselves."""

import torch


def formula(query, key, value, bounds, scale, causal=True):
    """Attention (T, heads, D) written out in float64, a sequence and then a head at a time."""
    outputs = []
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        heads = []
        for head in range(query.shape[1]):
            shared = head // (query.shape[1] // key.shape[1])
            q, k, v = query[start:end, head].double(), key[start:end, shared].double(), value[start:end, shared].double()
            scores = q @ k.T * (q.shape[1] ** -0.5 if scale is None else scale)
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
            heads.append(scores.softmax(-1) @ v)
        outputs.append(torch.stack(heads, 1))
    return torch.cat(outputs)


def kernel_call(q, k, v, bounds_q, bounds_k, longest_q, longest_k, scale, causal):
    """What a kernel does, with its demands on arguments."""
    assert bounds_q.dtype == bounds_k.dtype == torch.int32 and torch.equal(bounds_q, bounds_k)
    assert longest_q == longest_k == bounds_q.diff().max()
    assert all(rows.stride(-1) == 1 for rows in (q, k, v))
    return formula(q, k, v, bounds_q, scale, causal).to(q.dtype)


def flash2_stand_in(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False, block_table=None,
):  # fmt: skip
    assert deterministic and not dropout_p and window_size == (-1, -1) and not softcap and alibi_slopes is None
    assert not return_attn_probs and block_table is None
    return kernel_call(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal)


def flash4_stand_in(
    q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, max_seqlen_q=None, max_seqlen_k=None, min_seqlen_k=None, seqused_q=None,
    seqused_k=None, gather_kv_indices=None, page_table=None, softmax_scale=None, causal=False, window_size=(None, None),
    learnable_sink=None, softcap=0.0, num_splits=1, pack_gqa=None, deterministic=False, score_mod=None, score_mod_bwd=None,
    mask_mod=None, block_sparse_tensors=None, aux_tensors=None, aux_scalars=None, return_lse=False, scheduler_metadata=None,
    seqlen_k_per_split=None, disable_scheduler_metadata=False, gather_bwd_recompute_p=False, gather_bwd_token_chunk=None,
):  # fmt: skip
    assert deterministic and window_size == (None, None) and not softcap and num_splits == 1 and qv is None and seqused_q is None
    output = kernel_call(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, causal)
    return output, output.new_zeros(q.shape[1], q.shape[0])


def varlen_stand_in(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1), enable_gqa=False,
    seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert return_aux is None and window_size[0] == -1 and seqused_k is None and block_table is None
    assert enable_gqa or query.shape[1] == key.shape[1]
    return kernel_call(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size[1] == 0)


def varlen_of_torch_211(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    """Without grouped queries."""
    return varlen_stand_in(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


STAND_INS = {"flash2": flash2_stand_in, "flash4": flash4_stand_in, "varlen": varlen_stand_in}

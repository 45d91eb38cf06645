"""Bytes that one pack needs on the way through the model: what autograd keeps, and the workspace of the fused loss.

Letters: T tokens of the pack, M of them predict response tokens, H hidden width, I intermediate width, V vocabulary, b bytes of the
model's dtype. Counted from the Qwen2 and Llama code of transformers with this project's packed attention on a GPU.
"""

from __future__ import annotations

from fastgrpo.plan.shapes import Shape

TILE_ROWS = 512  # those of fastgrpo_kernels.cuda_linear
PANEL_ROWS = 4096


def layer_bytes(shape: Shape, b: int, T: float) -> float:
    """What one decoder layer keeps for its backward pass.

    Each of two norms: its input in float32, the normalised input, the output. Attention: queries, keys, values, output, float32
    logsumexp. MLP: gate, silu(gate), up, and their product.
    """
    norms = 2 * (4 * shape.hidden + 2 * b * shape.hidden)
    attention = b * (2 * shape.queries + 2 * shape.keys) + 4 * shape.heads
    return T * (norms + attention + 4 * b * shape.intermediate)


def kept_bytes(shape: Shape, b: int, T: float, layer: float, recompute: bool) -> float:
    """What is kept for the backward pass when the forward pass is over: `layer` bytes by each, with recompute its input."""
    final_norm = T * (4 + b) * shape.hidden
    return final_norm + shape.layers * (T * b * shape.hidden if recompute else layer)


def backward_bytes(shape: Shape, b: int, T: float, layer: float, recompute: bool) -> float:
    """Passing through one layer: gradients of its activations, and with recompute the activations themselves."""
    return T * (3 * b * shape.intermediate + b * shape.hidden) + (layer if recompute else 0)


def loss_gradient_bytes(shape: Shape, M: float, head: int) -> float:
    """dX (M, H) and dW, `head` elements, float32, made by the fused loss in the forward pass."""
    return 4 * M * shape.hidden + 4 * head


def loss_workspace_bytes(shape: Shape, b: int, M: float) -> float:
    """The kept rows, a tile of float32 logits, a panel of gradients, and the panel's own X and dX."""
    panel = min(PANEL_ROWS, -(-M // TILE_ROWS) * TILE_ROWS)
    return b * M * shape.hidden + 4 * shape.vocabulary * TILE_ROWS + b * shape.vocabulary * panel + (4 + b) * shape.hidden * panel


def cast_bytes(shape: Shape, b: int, T: float, M: float, head: int) -> float:
    """When the backward pass begins: dX and dW in the model's dtype, beside the float32 ones, and dX spread to all T rows."""
    copies = 0 if b == 4 else b * (M * shape.hidden + head)
    return copies + b * T * shape.hidden

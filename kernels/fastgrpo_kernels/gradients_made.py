"""Hands gradients that were made in the forward pass over to autograd."""

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class GradientsMade(Function):
    """apply(op, loss, row_scale, *inputs, *gradients) is the loss () with those gradients of its inputs, None where there is none.

    They are scaled in place, by the incoming gradient and by row_scale (rows,) if given, not copied: a second backward would return wrong
    ones, so it raises, naming op. Gradients leave in the dtype of their input.
    """

    @staticmethod
    def forward(ctx, op: str, loss: Tensor, row_scale: Tensor | None, *inputs_and_gradients: Tensor | None) -> Tensor:
        count = len(inputs_and_gradients) // 2
        inputs, gradients = inputs_and_gradients[:count], inputs_and_gradients[count:]
        ctx.save_for_backward(row_scale, *gradients)
        ctx.op, ctx.count, ctx.spent = op, count, False
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss: Tensor):
        if ctx.spent:
            raise RuntimeError(f"second backward through {ctx.op}: its gradients exist once, call it again")
        ctx.spent = True
        row_scale, *gradients = ctx.saved_tensors
        factor = grad_loss if row_scale is None else (row_scale * grad_loss)[:, None]
        scaled = [None if grad is None else grad.mul_(factor).to(dtype) for grad, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return None, None, None, *scaled, *(None for _ in gradients)

"""A plain PyTorch learner: AdamW on fp32 masters, gradients accumulated in the masters' precision, one process or several ranks.

Under torchrun every rank holds the whole model and its share of the packs. Gradients are summed over ranks, never averaged: the
loss carries its complete divisor already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgrpo.errors import NotFinite
from fastgrpo.faults import require_memory
from fastgrpo.learner.lora import plain_weights
from fastgrpo.learner.memory import in_parts_that_fit, logprobs_in_parts
from fastgrpo.learner.state import load_state, state_of
from fastgrpo.loss import packed_loss
from fastgrpo.metrics import merge
from fastgrpo.model import head_weight, kept_hidden_states
from fastgrpo.ranks import lost_ranks_named
from fastgrpo.types import PackedBatch

if TYPE_CHECKING:
    from fastgrpo.config import LossConfig


def adamw(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The paper's optimizer; the learning rate is set before each update."""
    return torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)


class NativeLearner:
    """Implements Learner. `lr_at(k)` is the learning rate of update k (from 0); `grad_clip` bounds the global gradient norm."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossConfig,
        temperature: float,
        lr_at: Callable[[int], float],
        grad_clip: float,
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] = adamw,
    ):
        self.model, self.loss, self.temperature = model, loss, temperature
        self.lr_at, self.grad_clip = lr_at, grad_clip
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.masters = [_master(parameter) for parameter in self.parameters]
        self.gradients = [torch.zeros_like(master) for master in self.masters]
        self.optimizer = make_optimizer(self.masters)
        self.updates, self.out_of_memory = 0, []

    def logprobs(self, packs: Sequence[PackedBatch]) -> list[Tensor]:
        """See Learner. Float32 (float64 for a float64 model), on the CPU."""
        return [logprobs_in_parts(self.model, batch, self.temperature, self.out_of_memory) for batch in packs]

    def update(self, packs: Sequence[PackedBatch]) -> tuple[list[dict[str, float]], float]:
        """See Learner."""
        return [self.backward(batch) for batch in packs], self.step()

    def backward(self, batch: PackedBatch) -> dict[str, float]:
        """Adds the gradient of one pack, part by part where the whole does not fit into memory."""
        return merge(in_parts_that_fit(batch, self._pass, self.out_of_memory))

    def take_gradients(self) -> None:
        """Adds the parameters' own gradients to the sum, and frees them."""
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            if parameter.grad is not None:
                gradient += parameter.grad
                parameter.grad = None

    def step(self) -> float:
        """The update from the gradients added since the last; their global norm before clipping.

        Raises NotFinite, and leaves the weights alone, where a gradient is not finite.
        """
        self._sum_over_ranks()
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in self.gradients]))
        if not torch.isfinite(norm):
            for gradient in self.gradients:
                gradient.zero_()
            raise NotFinite(
                f"update {self.updates}: the gradient norm is {norm.item()}; no weight was changed. Lower lr, or look at the rollouts."
            )
        factor = torch.clamp(self.grad_clip / (norm + 1e-12), max=1.0)
        for master, gradient in zip(self.masters, self.gradients, strict=True):
            master.grad = gradient * factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(self.updates)
        self.optimizer.step()
        with torch.no_grad():
            for parameter, master, gradient in zip(self.parameters, self.masters, self.gradients, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
                master.grad = None
                gradient.zero_()
        self.updates += 1
        return norm.item()

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((weight.name, weight.tensor()) for weight in plain_weights(self.model))

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """See Learner."""
        return state_of(self._named_masters(), self.optimizer)

    def load_state(self, state: Mapping[str, Tensor], updates: int) -> None:
        """See Learner."""
        load_state(self._named_masters(), self.optimizer, state)
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        self.updates = updates

    def _pass(self, batch: PackedBatch) -> dict[str, float]:
        """The forward keeps only response rows; the fused loss makes their gradients in one pass. One that fails adds nothing."""
        try:
            output = packed_loss(kept_hidden_states(self.model, batch), head_weight(self.model), batch, self.loss, self.temperature)
            output.loss.backward()
            require_memory(batch.tokens)
            self.take_gradients()
        finally:
            for parameter in self.parameters:
                parameter.grad = None
        return {"loss": output.loss.item()} | {name: value.item() for name, value in output.stats.items()}

    def _named_masters(self) -> list[tuple[str, Tensor]]:
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        return list(zip(names, self.masters, strict=True))

    def _sum_over_ranks(self) -> None:
        if dist.is_initialized() and dist.get_world_size() > 1:
            with lost_ranks_named():
                for gradient in self.gradients:
                    dist.all_reduce(gradient, op=dist.ReduceOp.SUM)


def _master(parameter: nn.Parameter) -> Tensor:
    """The parameter itself where it has at least fp32 precision, else an fp32 copy that the optimizer owns."""
    return parameter if parameter.dtype in (torch.float32, torch.float64) else parameter.detach().float()

"""The learner on DeepSpeed, ZeRO 0 to 3: what one rank would have to hold is spread over all. Nothing else imports deepspeed.

Only this file knows DeepSpeed's habits. It averages gradients over ranks, and the loss carries its complete divisor: so each loss is
taken times the number of ranks. It believes in one number of micro-batches: so each pass is told whether it is the last. It shards
weights when a module returns: so hidden states, head and loss are one module's forward.
"""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgrpo.errors import NotFinite, SetupError
from fastgrpo.learner.layout import in_engine_order
from fastgrpo.learner.lora import Weight, plain_weights
from fastgrpo.learner.memory import whole_or_not_at_all
from fastgrpo.learner.native import adamw
from fastgrpo.learner.passes import with_blanks
from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.learner.state import load_spread_state, load_state, spread_state_of, state_of
from fastgrpo.learner.zero_config import zero_config
from fastgrpo.loss import packed_loss
from fastgrpo.model import head_weight, kept_hidden_states, model_logprobs
from fastgrpo.ranks import launched_ranks
from fastgrpo.types import PackedBatch

if TYPE_CHECKING:
    from fastgrpo.config import LossConfig
    from fastgrpo.config_sections import LearnerConfig

GATHERED = 2**28  # elements of ZeRO 3's weights that are whole at once while they are handed out: 0.5 GB in bf16


class DeepSpeedLearner:
    """Implements Learner. `lr_at(k)` is the learning rate of update k (from 0); `grad_clip` bounds the global gradient norm.

    Below ZeRO 3 the model's parameters become, here and for good, slices of one flat buffer: a rollout engine that is to view them is
    built afterwards. One process without torch.distributed gets a group of its own. Raises InputError for settings that DeepSpeed
    does not compute exactly, SetupError where it is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossConfig,
        temperature: float,
        lr_at: Callable[[int], float],
        grad_clip: float,
        settings: LearnerConfig,
        make_optimizer: Callable[[list[Tensor]], torch.optim.Optimizer] = adamw,
    ):
        self.model, self.lr_at, self.grad_clip, self.settings = model, lr_at, grad_clip, settings
        config = zero_config(settings, next(model.parameters()).dtype, grad_clip)
        if settings.recompute:
            recompute_activations(model)
        self.optimizer = make_optimizer(in_engine_order(model))
        with _quiet_deepspeed() as deepspeed:
            self._gathered = deepspeed.zero.GatheredParameters
            policy = _Policy(model, loss, temperature)
            self.engine, *_ = deepspeed.initialize(model=policy, optimizer=self.optimizer, config=config)
        self.ranks = dist.get_world_size()
        self.updates, self.out_of_memory = 0, []

    def logprobs(self, packs: Sequence[PackedBatch]) -> list[Tensor]:
        """See Learner. Float32, on the CPU. Every rank calls it: under ZeRO 3 the weights come together in each pass."""
        passes, found = with_blanks(packs, self.engine.device), []
        for batch in passes:
            with torch.no_grad(), whole_or_not_at_all(batch):
                found.append(self.engine(batch, logprobs=True))
        return found[: len(packs)]

    def update(self, packs: Sequence[PackedBatch]) -> tuple[list[dict[str, float]], float]:
        """See Learner. Every rank calls it, also with no packs. Raises NotFinite, on all ranks, where a gradient is not finite."""
        passes, found = with_blanks(packs, self.engine.device), []
        for number, batch in enumerate(passes):
            self.engine.set_gradient_accumulation_boundary(number == len(passes) - 1)
            with whole_or_not_at_all(batch):
                loss, stats = self.engine(batch)
                self.engine.backward(loss * self.ranks, scale_wrt_gas=False)
            found.append({"loss": loss.detach()} | stats)
        norm = self._step()
        return [{name: value.item() for name, value in stats.items()} for stats in found[: len(packs)]], norm

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """See Learner. Under ZeRO 3 every rank iterates to the end, and a tensor is whole only until the next is asked for."""
        if self.settings.zero < 3:
            yield from ((weight.name, weight.tensor()) for weight in plain_weights(self.model))
            return
        for bucket in _buckets(plain_weights(self.model)):
            with self._gathered([part for weight in bucket for part in weight.parts]):
                yield from ((weight.name, weight.tensor()) for weight in bucket)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """See Learner."""
        if self.settings.zero == 0:
            return state_of(self._named_parameters(), self.optimizer)
        return spread_state_of(self._named_parameters(), self._masters(), self.engine)

    def load_state(self, state: Mapping[str, Tensor], updates: int) -> None:
        """See Learner."""
        if self.settings.zero == 0:
            load_state(self._named_parameters(), self.optimizer, state)
        else:
            load_spread_state(self._named_parameters(), self._masters(), self.engine, state)
            with torch.no_grad():
                self._publish_masters()
        self.updates = updates

    def _step(self) -> float:
        """The update from the gradients of all passes; their global norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr_at(self.updates)
        norm = self._whole_norm() if self.settings.zero == 0 else None  # which DeepSpeed neither reports nor checks
        if norm is None or math.isfinite(norm):
            self.engine.step()
            norm = float(self.engine.get_global_grad_norm()) if norm is None else norm
        else:
            self.engine.zero_grad()
        if not math.isfinite(norm):
            raise NotFinite(
                f"update {self.updates}: the gradient norm is not finite; no weight was changed. Lower lr, or look at the rollouts."
            )
        self.updates += 1
        return norm

    def _whole_norm(self) -> float:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])).item()

    def _named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]

    def _masters(self) -> list[Tensor]:
        """The float32 weights that the optimizer changes: this rank's part of each flat buffer, at stage 0 the parameters themselves."""
        if self.settings.zero == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        return [master for group in self.optimizer.param_groups for master in group["params"]]

    def _publish_masters(self) -> None:
        """Masters into working weights, as at the end of a step."""
        optimizer = self.engine.optimizer
        if self.settings.zero == 3:
            for number in range(len(optimizer.fp32_partitioned_groups_flat)):
                optimizer._reassign_or_swap_out_partitioned_parameters(number)
        elif self.settings.zero > 0:
            optimizer.update_lp_params()


class _Policy(nn.Module):
    """Hidden states, head and loss in one forward, so that ZeRO 3 has the head's weight gathered where the loss reads it."""

    def __init__(self, model: nn.Module, loss: LossConfig, temperature: float):
        super().__init__()
        self.model, self.loss, self.temperature = model, loss, temperature

    def forward(self, batch: PackedBatch, logprobs: bool = False) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        if logprobs:
            return model_logprobs(self.model, batch, self.temperature)
        output = packed_loss(kept_hidden_states(self.model, batch), head_weight(self.model), batch, self.loss, self.temperature)
        return output.loss, output.stats


def _buckets(weights: Iterator[Weight]) -> Iterator[list[Weight]]:
    bucket, size = [], 0
    for weight in weights:
        more = sum(part.ds_numel for part in weight.parts)  # ds_numel: a sharded parameter's own numel is 0
        if bucket and size + more > GATHERED:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += more
    yield bucket


@contextmanager
def _quiet_deepspeed() -> Iterator:
    """DeepSpeed without its log, its compiler on CPUs and most of what it leaves in the environment. Raises SetupError without it."""
    os.environ.setdefault("LOCAL_RANK", "0")  # stays: ZeRO 3 looks it up in every pass
    before = set(os.environ)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not dist.is_initialized():  # one process alone; DeepSpeed would look for MPI
        assert launched_ranks() == 1, "join_ranks() comes first"
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
            os.environ.setdefault(name, value)
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # of functions that DeepSpeed calls
    try:
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        if not torch.cuda.is_available():
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else built with g++ for a minute, to speed up gloo
        with redirect_stdout(io.StringIO()):
            yield deepspeed
    except ImportError as error:
        raise SetupError(f'learner.engine=deepspeed, but it cannot be imported ({error}): pip install "fastgrpo[deepspeed]"') from error
    finally:
        for name in set(os.environ) - before:
            del os.environ[name]

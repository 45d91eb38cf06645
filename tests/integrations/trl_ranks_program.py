"""TRL's trainer on two CPU ranks, with and without our loss: `torchrun --nproc-per-node 2 trl_ranks_program.py FOLDER ddp|zero3`.

Prints the largest differences of losses and gradient norms, relative, as JSON. `fsdp` compares the gradient of one batch, weights sharded
by fully_shard, with the whole model's: TRL's own launch of FSDP wants GPUs.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
import torch.distributed as dist
from trl_losses import inputs_of
from trl_runs import BOUNDS, make_trainer, quiet, recorded_losses, relative

from fastgrpo.integrations.trl import use_fused_loss

ZERO_3 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "zero_optimization": {"stage": 3},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
}


def trained(folder: Path, how: str) -> dict[str, float]:
    settings = {"loss_type": "grpo", "accumulation": 2, "rows": 4} | BOUNDS
    if how == "zero3":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else built with g++ for a minute
        settings["deepspeed"] = ZERO_3
    runs = []
    for prepare in (lambda trainer: trainer, use_fused_loss):
        trainer = prepare(make_trainer(folder, **settings))
        losses = recorded_losses(trainer)
        norms = [line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line]
        runs.append((torch.tensor(losses), torch.tensor(norms)))
    (want_losses, want_norms), (losses, norms) = runs
    return {"losses": relative(losses, want_losses), "norms": relative(norms, want_norms), "size": want_norms.norm().item()}


def sharded(folder: Path) -> dict[str, float]:
    from torch.distributed.fsdp import fully_shard

    gradients = []
    for shard in (False, True):
        trainer = use_fused_loss(make_trainer(folder, loss_type="grpo", **BOUNDS))
        inputs = inputs_of(trainer, {})
        if shard:
            for layer in trainer.model.model.layers:
                fully_shard(layer)
            fully_shard(trainer.model.lm_head)  # a unit of its own: within the model's forward its weight is in shards
            fully_shard(trainer.model)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        trainer.compute_loss(trainer.model, inputs).backward()
        whole = (p.grad.full_tensor() if shard else p.grad for p in trainer.model.parameters())
        gradients.append(torch.cat([gradient.double().flatten() for gradient in whole]))
    return {"gradient": relative(gradients[1], gradients[0]), "size": gradients[0].norm().item()}


if __name__ == "__main__":
    folder, how = Path(sys.argv[1]), sys.argv[2]
    with quiet():
        found = sharded(folder) if how == "fsdp" else trained(folder, how)
    if dist.get_rank() == 0:
        print("RESULT", json.dumps(found))
    dist.destroy_process_group()

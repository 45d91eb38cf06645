"""What the tests of LoRA share: a twin with adapters that already do something, and what it computes, spelled out."""

import torch

from fastgrpo.config_sections import LearnerConfig
from fastgrpo.learner.lora import with_adapters


def adapted(model, seed: int = 0, **settings):
    """The twin, its B no longer 0, so that A has a gradient and the product counts."""
    twin = with_adapters(model, LearnerConfig(**({"lora_rank": 4} | settings)), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return twin


def matrices(twin) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A (rank, in) and B (out, rank) by the name of the weight that they stand beside."""
    found = dict(twin.named_parameters())
    return {
        name.replace(".lora_A.default.", "."): (a, found[name.replace(".lora_A.", ".lora_B.")])
        for name, a in found.items()
        if ".lora_A." in name
    }


def merged(model, twin, scaling: float) -> dict[str, torch.Tensor]:
    """The weights of `model` plus what the adapters add, in float64."""
    added = matrices(twin)
    wide = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    for name, (a, b) in added.items():
        wide[name] = wide[name] + scaling * b.detach().double() @ a.detach().double()
    return wide

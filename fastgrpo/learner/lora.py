"""LoRA: y = W x + (alpha / rank) B A x, with W frozen and two small matrices trained beside it. Nothing else imports peft.

What would surprise: the module that learns is a twin of the model it was made from, and both hold the same W. So that model goes on
being what it was: the reference of a KL term, and what names the weights of an engine or a checkpoint. These get W + (alpha / rank) B A,
a new tensor each time that one is asked for. W is never written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastgrpo.errors import InputError, SetupError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fastgrpo.config_sections import LearnerConfig

ADAPTER = "default"  # peft's name of the only one
ALL = "all-linear"


def with_adapters(model: PreTrainedModel, settings: LearnerConfig, seed: int) -> PreTrainedModel:
    """A twin of the model with adapters of its dtype (a learner's masters of them are float32), which computes what the model does until
    they are trained: B is 0.

    It shares the model's parameters, which are frozen from now on. Its random A depend on the seed alone. Raises InputError for targets
    that are no linear layers of the model, or its head or embedding; SetupError without peft.
    """
    try:
        import peft
    except ImportError as error:
        raise SetupError(f'learner.lora_rank={settings.lora_rank}, but peft is missing ({error}): pip install "fastgrpo[lora]"') from error
    if settings.lora_targets != (ALL,):
        _require_linear_layers(model, settings.lora_targets)
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=ALL if settings.lora_targets == (ALL,) else list(settings.lora_targets),
        lora_dropout=0.0,  # log-probs must not be random
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=model.name_or_path,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return peft.inject_adapter_in_model(config, twin, ADAPTER).eval()


def _require_linear_layers(model: PreTrainedModel, targets: Sequence[str]) -> None:
    modules, ends = dict(model.named_modules()), (model.get_input_embeddings(), model.get_output_embeddings())
    linear = sorted({name.rpartition(".")[2] for name, module in modules.items() if isinstance(module, nn.Linear) and module not in ends})
    for target in targets:
        found = [module for name, module in modules.items() if name == target or name.endswith(f".{target}")]
        if any(module in ends for module in found):
            why = "is the output head or the input embedding, whose weight the loss or the engine reads as it is"
        elif not found or not all(isinstance(module, nn.Linear) for module in found):
            why = "names no linear layer of this model"
        else:
            continue
        raise InputError(f"learner.lora_targets: {target} {why}; it can hold {', '.join(linear)}, or be {ALL}")


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the model without adapters, under its name there, and what it is made of: W alone, or W, A and B."""

    name: str
    parts: tuple[nn.Parameter, ...]
    scaling: float = 0.0

    @torch.no_grad()
    def tensor(self) -> Tensor:
        """W itself, or W + scaling B A as a new tensor, computed in float32 at least and rounded once. All parts must be whole."""
        weight, *adapter = self.parts
        if not adapter:
            return weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        a, b = (matrix.to(wide) for matrix in adapter)
        return torch.addmm(weight.to(wide), b, a, alpha=self.scaling).to(weight.dtype)


def plain_weights(model: nn.Module) -> Iterator[Weight]:
    """Every weight of a model that may have adapters, each once, in the order and under the names of the model without them."""
    for name, parameter in model.named_parameters():
        path, _, kind = name.rpartition(".")
        if not path.endswith(".base_layer"):
            if ".lora_" not in path:
                yield Weight(name, (parameter,))
            continue
        layer = model.get_submodule(path.removesuffix(".base_layer"))
        plain = f"{path.removesuffix('.base_layer')}.{kind}"
        if kind == "weight":
            yield Weight(plain, (parameter, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight), layer.scaling[ADAPTER])
        else:
            yield Weight(plain, (parameter,))


def save_adapter(model: PreTrainedModel, directory: Path) -> None:
    """Writes the adapter alone as peft does: adapter_model.safetensors, adapter_config.json. Not under ZeRO 3: no rank has it whole."""
    import peft
    from safetensors.torch import save_file

    matrices = peft.get_peft_model_state_dict(model, adapter_name=ADAPTER)
    directory.mkdir(parents=True, exist_ok=True)
    named = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in matrices.items()}
    save_file(named, directory / "adapter_model.safetensors", {"format": "pt"})
    model.peft_config[ADAPTER].save_pretrained(directory)

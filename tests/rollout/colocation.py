"""What the tests of the colocated engine share: tiny models that vLLM's CPU attention takes, prompts longer than a block of its cache."""

import torch
from conftest import byte_tokenizer
from optional import requires

from fastgrpo.attention import ATTENTION, register_attention
from fastgrpo.config import LossConfig
from fastgrpo.learner.native import NativeLearner
from fastgrpo.model import prepare
from fastgrpo.packing import pack
from fastgrpo.types import Prompt, Sampling, TrainingSequence

requires_vllm = requires("vllm")

CONTEXT = 512
LONG = Prompt("long", tuple(7 * i % 250 for i in range(300)), "1")  # two whole blocks of 128 tokens, and a part of one
PROMPTS = [Prompt(str(i), tuple(range(40 + i, 43 + 3 * i)), "1") for i in range(5)] + [LONG]
SHAPE = {
    "vocab_size": 300,  # 43 more than the tokenizer has
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 256,
}


def tiny_model(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32):
    """A random "qwen tied", "qwen untied" or "llama" with heads of size 32; biases and norms are random too, so that each one matters."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    config_class, model_class = (LlamaConfig, LlamaForCausalLM) if kind == "llama" else (Qwen2Config, Qwen2ForCausalLM)
    config = config_class(**SHAPE, tie_word_embeddings=kind == "qwen tied")
    config._attn_implementation = ATTENTION
    register_attention()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
    return prepare(model.to(dtype))


def tiny_engine(model, weights: str, **settings):
    """The real engine on the model; 64 MiB of cache hold all that the tests sample at once."""
    from fastgrpo.rollout.colocated import VllmEngine
    from fastgrpo.rollout.vllm_settings import VllmSettings

    return VllmEngine(model, byte_tokenizer(), VllmSettings(CONTEXT, 64, 2**26, weights, **settings))


def native_learner(model, temperature: float = 1.0, lr: float = 3e-3) -> NativeLearner:
    return NativeLearner(model, LossConfig(type="dr_grpo"), temperature, lambda update: lr, grad_clip=1.0)


def seeds(prompts, n: int, base: int = 0) -> list[list[int]]:
    return [[base + 1000 * i + j for j in range(n)] for i in range(len(prompts))]


def sample(engine, temperature: float = 1.0, n: int = 3, tokens: int = 16, base: int = 0, prompts=PROMPTS):
    return engine.generate(prompts, n, Sampling(temperature, tokens), seeds(prompts, n, base))


def sequences(prompts, groups) -> list[TrainingSequence]:
    """Half of each group is pulled up, half pushed down."""
    return [
        TrainingSequence(prompt.token_ids, rollout.token_ids, rollout.logprobs, 1.0 if j % 2 else -1.0, 1e-2)
        for prompt, group in zip(prompts, groups, strict=True)
        for j, rollout in enumerate(group)
    ]


def improve(learner: NativeLearner, groups, prompts=PROMPTS) -> None:
    for batch in pack(sequences(prompts, groups), 2048):
        learner.backward(batch)
    learner.step()


def pairs(groups, prompts=PROMPTS) -> list:
    return [(prompt, rollout) for prompt, group in zip(prompts, groups, strict=True) for rollout in group]

"""A minute on the GPU before a run: the fused loss against float64, and an engine of vLLM that sleeps, wakes and draws the same again.

Written after tests/kernels/test_cuda.py and bench/rollout_memory.py. On a CPU its parts were run with `device="cpu"`; on a GPU it has
never run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastgrpo.doctor.lines import FAIL, PASS, Line
from fastgrpo.errors import SetupError

TOKENS, WIDTH, VOCABULARY = 512, 256, 32_000
CLOSEST = 1e-4  # nats: bfloat16 hidden states and weights, logits in float32
CACHE = 2**28  # bytes of KV cache, of which at least half must come back while the engine sleeps


def require_gpu() -> None:
    """Raises SetupError without one."""
    try:
        import torch
    except Exception as error:
        raise SetupError(f"--gpu-smoke needs torch, which cannot be imported ({error}); fastgrpo doctor alone says more") from error
    if not torch.cuda.is_available():
        raise SetupError("--gpu-smoke needs a GPU, and torch sees none here; without it, fastgrpo doctor says what is missing")


def smoke(vllm: bool, device: str = "cuda") -> list[Line]:
    """The lines of each probe; that of vLLM where it is installed."""
    lines = [_tried("smoke: kernel", lambda: kernel(device), "pytest tests/kernels/test_cuda.py says which operation fails")]
    if vllm:
        for weights in ("shared", "push"):
            fix = "rollout.engine=native works without it; bench/rollout_memory.py shows each phase"
            lines.append(_tried(f"smoke: vllm, {weights}", lambda weights=weights: sleep_and_wake(weights, device), fix))
    return lines


def _tried(name: str, probe: Callable[[], str], fix: str) -> Line:
    """A probe may fail in any way: that is what it is for."""
    try:
        return Line(name, PASS, probe())
    except Exception as error:
        return Line(name, FAIL, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else 'no message'}", fix)


def kernel(device: str) -> str:
    """One fused policy loss in bfloat16, twice; raises where it is far from float64 or differs from itself."""
    import torch

    from fastgrpo_kernels import fused_linear_policy_loss, reference

    random = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, device=device, generator=random).bfloat16().requires_grad_()
    weight = (torch.randn(VOCABULARY, WIDTH, device=device, generator=random) * WIDTH**-0.5).bfloat16().requires_grad_()
    targets = torch.randint(VOCABULARY, (TOKENS,), device=device, generator=random)
    advantages = torch.randn(TOKENS, device=device, generator=random)

    def once() -> Sequence[torch.Tensor]:
        hidden.grad = weight.grad = None
        out = fused_linear_policy_loss(
            *(hidden, weight, targets),
            advantages=advantages,
            denominator=float(TOKENS),
            temperature=1.0,
            clip_low=0.2,
            clip_high=0.2,
        )
        out.loss.backward()
        return out.logprobs.detach(), hidden.grad, weight.grad

    first, again = once(), once()
    if not all(torch.equal(one, other) for one, other in zip(first, again, strict=True)):
        raise RuntimeError("two runs of the fused loss differ")
    with torch.no_grad():
        wanted = reference.token_logprobs(hidden.double() @ weight.double().t(), targets, 1.0)
    error = (first[0].double() - wanted).abs().max().item()
    if not error <= CLOSEST or not all(part.isfinite().all() for part in first):
        raise RuntimeError(f"log-probs are {error:.1e} nats from float64, and {CLOSEST:.0e} is allowed")
    return f"the fused loss is within {error:.0e} nats of float64, and the same twice"


def sleep_and_wake(weights: str, device: str) -> str:
    """A small random model in vLLM; raises where sleeping frees no memory, or it draws other tokens after waking."""
    import torch

    from fastgrpo.rollout.colocated import VllmEngine
    from fastgrpo.rollout.vllm_settings import VllmSettings
    from fastgrpo.types import Prompt, Sampling

    model, tokenizer = _small_model(device)
    prompts, seeds = [Prompt(str(n), tuple(range(2 + n, 34 + n)), "") for n in range(8)], [[n] for n in range(8)]
    engine = VllmEngine(model, tokenizer, VllmSettings(256, len(prompts), CACHE, weights))
    try:
        engine.update_weights(model.named_parameters())
        first = engine.generate(prompts, 1, Sampling(1.0, 64), seeds)
        awake = _free(device)
        engine.sleep()
        freed = _free(device) - awake
        if device == "cuda" and freed < CACHE / 2:
            raise RuntimeError(f"sleeping gave back {freed / 2**20:.0f} MiB of a cache of {CACHE / 2**20:.0f} MiB")
        engine.update_weights(model.named_parameters())
        second = engine.generate(prompts, 1, Sampling(1.0, 64), seeds)
    finally:
        engine.close()
    if [group[0].token_ids for group in first] != [group[0].token_ids for group in second]:
        raise RuntimeError("after waking, the same seeds drew other tokens")
    if device == "cuda":
        torch.cuda.empty_cache()
    return f"drew, slept (level {engine.sleep_level}, {freed / 2**20:.0f} MiB given back), woke, drew the same"


def _free(device: str) -> int:
    """Bytes."""
    import torch

    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    return torch.cuda.mem_get_info()[0]


def _small_model(device: str):
    """A Qwen2 of random weights, and a tokenizer with a word for each id."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = Tokenizer(models.WordLevel({f"<{index}>": index for index in range(1024)}, unk_token="<0>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<0>", pad_token="<0>")
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval(), tokenizer

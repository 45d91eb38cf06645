"""vLLM in the learner's own process: the only file that imports it, and the only one that knows its insides.

What would surprise: vLLM never reads a checkpoint. Its weights are views of the learner's memory where that is possible, else copies.
And tokens are chosen by our own rule (see choice.py), so that no sampling default of vLLM or of a model can act, ids beyond the
tokenizer are never drawn, log-probs are those of the full softmax, and the same seeds draw what the native engine draws.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastgrpo.errors import InputError, SetupError
from fastgrpo.rollout import Weights
from fastgrpo.rollout.choice import choose_tokens, uniform_numbers
from fastgrpo.rollout.process_state import contained, prepare_environment, require_version
from fastgrpo.rollout.push import Expected, Stream
from fastgrpo.rollout.shared_weights import NotShareable, become_views, lay_out, require_same_memory
from fastgrpo.rollout.vllm_settings import VllmSettings
from fastgrpo.types import Sampling

LOAD_FORMAT = "fastgrpo"


class InProcessVllm:
    """One LLM on the learner's device, on the memory of `model` or copies of what `learned` gives. Raises SetupError without a usable vLLM.

    `weights` is "shared" or "push", `why` the reason; the KV cache holds `cache_tokens`, and in the last draw `preemptions` times a
    response lost its place in it and was computed again.
    """

    def __init__(self, model: nn.Module, learned: Weights, tokenizer, eos_ids: Sequence[int], settings: VllmSettings):
        self.model, self.learned, self.tokenizer, self.eos_ids, self.settings = model, learned, tokenizer, list(eos_ids), settings
        self.known, self.expected = len(tokenizer), Expected.of(model, learned())
        self.on_gpu, self.group_is_ours, self.at_level_one = model.device.type == "cuda", dist.is_initialized(), False
        self.preemptions, self.beat = 0, time.monotonic()  # of when the engine last came back: who waits can tell slow from stuck
        prepare_environment()
        with contained():
            require_version()
            self.weights, self.why = "push", "rollout.weights=push"
            if settings.weights != "push":
                self._share_or_say_why(lambda: lay_out(model))
            self._build()

    def draw(self, requests: Sequence[tuple[Sequence[int], int]], sampling: Sampling, take: Callable[[int, object], None]) -> None:
        """Samples one response to each (prompt ids, seed); hands (number of the request, vLLM's list of answers) to `take` as each ends.

        Where several ranks make up one engine, all call this at once, each with its own requests; a rank may have none.
        """
        first, shares = self._shares_of_ranks(list(requests))
        everyone = [request for share in shares for request in share]
        engine, parameters = self.llm.llm_engine, _sampling_parameters(sampling, self.eos_ids)
        accepted, waiting = [], engine.engine_core.engine_core.scheduler.requests
        self.temperature, self.uniforms, self.beat = sampling.temperature, {}, time.monotonic()
        try:
            for number, (ids, seed) in enumerate(everyone):
                inner = engine.add_request(str(number), {"prompt_token_ids": list(ids)}, parameters)
                self.uniforms[inner] = uniform_numbers(seed, sampling.max_new_tokens).numpy()
                accepted.append(waiting[inner])
            while engine.has_unfinished_requests():
                outputs = engine.step()
                self.beat = time.monotonic()
                for output in outputs:
                    if 0 <= (number := int(output.request_id) - first) < len(requests):
                        take(number, output.outputs)
        finally:
            self.preemptions = sum(request.num_preemptions for request in accepted)
            if engine.has_unfinished_requests():
                engine.abort_request([str(number) for number in range(len(everyone))])

    def on_any_rank(self, mine: bool) -> bool:
        """Whether it holds on any of the ranks that make up this engine."""
        return any(share == [True] for share in self._shares_of_ranks([mine])[1])

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> int:
        """Copies weights in place, checking names and shapes, and that every tensor of the engine was written. Returns the bytes."""
        model, stream = self.runner.model, Stream(weights, self.expected)
        if unwritten := dict(model.named_parameters()).keys() - model.load_weights(iter(stream)):
            raise RuntimeError(f"vLLM left weights unwritten: {', '.join(sorted(unwritten)[:5])}")
        return stream.bytes

    def require_still_shared(self) -> None:
        """Raises RuntimeError where the learner's weights no longer lie where the engine reads."""
        require_same_memory(self.runner.model, self.model)

    def reset_cache(self) -> None:
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: some request still holds keys and values of older weights")

    def sleep(self, level: int) -> None:
        """Level 0 releases the KV cache alone (1 in vLLM 0.26), 1 moves its weights to the host too, 2 discards them; a CPU only stops."""
        alone, can = level == 0 and self.on_gpu, hasattr(self.llm, "release_kv_cache_memory")
        self.at_level_one = alone and not can  # moves what is the engine's own, which shared weights are not
        self.llm.sleep(level=1 if self.at_level_one else level)
        if alone and can:
            self.llm.release_kv_cache_memory()

    def wake(self, part: Literal["weights", "kv_cache"]) -> None:
        awake = self.llm.wake_up(["weights", part] if self.at_level_one else [part])
        if part == "kv_cache" and awake is False:  # it would take requests and never answer them
            raise RuntimeError("vLLM did not wake up: a part of its memory still sleeps")

    def close(self) -> None:
        """Ends the engine, so that another can be built in this process. A process group that was there before it stays."""
        from vllm.distributed import cleanup_dist_env_and_memory, parallel_state
        from vllm.v1.engine import core

        core.cleanup_dist_env_and_memory = lambda *args, **kwargs: None  # it takes the trainer's process group down as well
        self.llm.llm_engine.engine_core.shutdown()
        core.cleanup_dist_env_and_memory = cleanup_dist_env_and_memory
        del self.llm, self.runner
        gc.unfreeze()  # vLLM froze what lived when it was built: never collected otherwise
        if self.group_is_ours:
            parallel_state.destroy_model_parallel()
            parallel_state._WORLD = None
        else:
            cleanup_dist_env_and_memory()
        gc.collect()
        self.directory.cleanup()

    def _shares_of_ranks(self, mine: list) -> tuple[int, list[list]]:
        """What each rank of this engine gave, in one order, and how many items come before mine."""
        if self.settings.tensor_parallel == 1:
            return 0, [mine]
        from vllm.distributed import get_tp_group

        group, shares = get_tp_group(), [None] * self.settings.tensor_parallel
        dist.all_gather_object(shares, mine, group=group.cpu_group)
        return sum(map(len, shares[: group.rank_in_group])), shares

    def _build(self) -> None:
        try:
            from vllm import LLM
        except Exception as error:
            raise SetupError(f"vLLM is installed but does not load: {type(error).__name__}: {error}; make install repairs it") from error

        self.directory = tempfile.TemporaryDirectory(prefix="fastgrpo-vllm-")  # config and tokenizer: there are no weights to read
        self.model.config.save_pretrained(self.directory.name)
        self.tokenizer.save_pretrained(self.directory.name)
        _register_loader(self._fill)
        settings, dtype = self.settings, self.model.dtype
        with nullcontext() if self.on_gpu else _plain_linears():
            self.llm = LLM(
                model=self.directory.name,
                load_format=LOAD_FORMAT,
                trust_remote_code=False,
                dtype=str(dtype).removeprefix("torch."),
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                max_model_len=settings.context,
                max_num_seqs=settings.sequences,
                kv_cache_memory_bytes=settings.cache_bytes,
                gpu_memory_utilization=0.01,  # sizes nothing beside cache_bytes, but a card with less of it free is refused
                tensor_parallel_size=settings.tensor_parallel,
                distributed_executor_backend="external_launcher" if self.group_is_ours and dist.get_world_size() > 1 else None,
                hf_overrides={"head_dtype": "float32"} if settings.fp32_head and dtype == torch.bfloat16 else None,
                enable_prefix_caching=True,
                enable_sleep_mode=self.on_gpu,
                enforce_eager=not self.on_gpu,
                async_scheduling=False,  # a token is chosen when the one before it is known
                seed=0,
            )
        self.runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
        if missing := [name for name in ("sampler", "input_batch", "requests") if not hasattr(self.runner, name)]:
            raise SetupError(f"this vLLM's model runner has no {', '.join(missing)}: install the version that was tested")
        self.runner.sampler, cache = self._choose, self.llm.llm_engine.vllm_config.cache_config
        self.cache_tokens = cache.num_gpu_blocks * cache.block_size

    def _fill(self, model: nn.Module) -> None:
        """Gives a new engine its weights: the learner's own memory, or copies of it."""
        if self.weights == "shared":
            self._share_or_say_why(lambda: become_views(model, self.model))
        if self.weights == "push":
            model.load_weights(iter(Stream(self.learned(), self.expected)))

    def _share_or_say_why(self, attempt: Callable[[], object]) -> None:
        try:
            if self.settings.tensor_parallel > 1:
                raise NotShareable("rollouts are tensor-parallel: each engine holds a part of every weight")
            attempt()
            self.weights, self.why = "shared", "one set of weights serves learner and engine"
        except NotShareable as error:
            if self.settings.weights == "shared":
                raise InputError(f"rollout.weights=shared is not possible: {error}; set rollout.weights=push") from error
            self.weights, self.why = "push", str(error)

    def _choose(self, logits: Tensor, sampling_metadata):
        """Stands in for vLLM's sampler: one token for each request of the batch, by its own uniform number."""
        from vllm.v1.outputs import LogprobsTensors, SamplerOutput

        names = self.runner.input_batch.req_ids[: len(logits)]
        numbers = [self.uniforms[name][len(self.runner.requests[name].output_token_ids)] for name in names]
        uniforms = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        chosen, logprobs = choose_tokens(logits.float(), self.temperature, uniforms, self.known)
        ranks, column = torch.ones_like(chosen), chosen.int()[:, None]  # nobody asks how many ids are likelier: all are of rank 1
        return SamplerOutput(column, LogprobsTensors(column, logprobs[:, None], ranks))


def _register_loader(fill: Callable[[nn.Module], None]) -> None:
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader

    class Loader(BaseModelLoader):
        def download_model(self, model_config) -> None: ...

        def load_weights(self, model: nn.Module, model_config) -> None:
            fill(model)

    register_model_loader(LOAD_FORMAT)(Loader)


@contextmanager
def _plain_linears() -> Iterator[None]:
    """Keeps a CPU engine from packing its matrices into copies, which could neither be shared nor written in place."""
    import vllm._custom_ops as operations
    from vllm.model_executor.layers import utils

    kept = operations._supports_onednn, utils.check_cpu_sgl_kernel
    operations._supports_onednn, utils.check_cpu_sgl_kernel = False, lambda *shape_and_dtype: False
    try:
        yield
    finally:
        operations._supports_onednn, utils.check_cpu_sgl_kernel = kept


def _sampling_parameters(sampling: Sampling, eos_ids: list[int]):
    """When a response ends, and that its log-probs are wanted; how tokens are drawn is `_choose`'s affair."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=1,
        temperature=1.0,
        max_tokens=sampling.max_new_tokens,
        stop_token_ids=eos_ids,
        ignore_eos=True,  # they are all in stop_token_ids
        stop=list(sampling.stop),
        include_stop_str_in_output=True,
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,  # a stop string may be one
        logprobs=0,  # of the sampled token alone
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

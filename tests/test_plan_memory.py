"""The memory table against tensor bytes: every storage that the real learner allocates is followed until it is freed.

The model is small and lives on the CPU, and multiplies no matrices: what a product holds changes no byte, and takes a minute in bfloat16.
The head takes the GPU's loop over tiles, with its products and its kernel left out, since they allocate nothing.
"""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastgrpo.attention import ATTENTION, register_attention
from fastgrpo.config import load_config
from fastgrpo.engines import with_lora
from fastgrpo.learner.native import NativeLearner
from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.model import DTYPES, prepare
from fastgrpo.packing import pack_one
from fastgrpo.plan.algebra import batch_of
from fastgrpo.plan.assumptions import assumptions_for, values
from fastgrpo.plan.memory import LEARNING, memory
from fastgrpo.plan.shapes import shape_of
from fastgrpo.types import TrainingSequence
from fastgrpo_kernels import linear_policy_op as operator

TOLERANCE = 0.15
PROMPT, RESPONSE, SEQUENCES = 64, 193, 4  # 4 x 256 tokens in a pack
PRODUCTS = {
    torch.ops.aten.mm.default: lambda left, right: left.new_zeros(left.shape[0], right.shape[1]),
    torch.ops.aten.addmm.default: lambda bias, left, right: left.new_zeros(left.shape[0], right.shape[1]),
}
LEARNERS_OWN = "weights, adapters, fp32 masters, Adam moments, gradients, accumulated"


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages alive, and their peak, overall and in the fused loss, which is looked into."""

    def __init__(self, before):
        super().__init__()
        self.seen, self.live, self.peak, self.in_loss = set(), 0, 0, 0
        self.follow(before)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "fastgrpo_kernels::linear_policy_loss" in str(function.name()):
            before, self.peak = self.peak, self.live
            with self:
                results = operator.linear_policy_op._init_fn(*args, **(kwargs or {}))
            self.in_loss, self.peak = self.peak, max(before, self.peak)
            return results
        results = PRODUCTS.get(function, function)(*args, **(kwargs or {}))
        self.follow(results)
        return results

    def follow(self, tensors) -> None:
        for tensor in tree_leaves(tensors):
            real = isinstance(tensor, torch.Tensor) and not tensor.is_meta
            if real and (storage := tensor.untyped_storage())._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())

    def forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


@pytest.fixture
def head_of_a_gpu(monkeypatch):
    pytest.importorskip("triton")
    from fastgrpo_kernels import cuda_linear

    monkeypatch.setattr(operator, "runs_on_kernel", lambda hidden: True)
    monkeypatch.setattr(cuda_linear, "product", lambda left, right, out: out.zero_())
    monkeypatch.setattr(cuda_linear, "add_product", lambda total, left, right: None)
    monkeypatch.setattr(cuda_linear, "_row_pass", lambda *arguments: [value.zero_() for value in vars(arguments[-1]).values()])


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    from transformers import Qwen2Config

    directory = tmp_path_factory.mktemp("shape")
    Qwen2Config(
        vocab_size=32_001, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2,
        tie_word_embeddings=False, use_sliding_window=False,
    ).save_pretrained(directory)  # fmt: skip
    return directory


def predicted(directory, dtype: str, recompute: bool, *lora: str) -> dict[str, dict[str, float]]:
    """Bytes by moment of learning and row, without what is no tensor."""
    lengths = [f"prompt_tokens={PROMPT}", f"mean_response_tokens={RESPONSE}", "length_sigma=1e-6"]
    assume = values(assumptions_for("a100-80g", lengths, RESPONSE))
    overrides = [f"model={directory}", f"dtype={dtype}", f"learner.recompute={str(recompute).lower()}", f"max_new_tokens={RESPONSE}"]
    config = load_config("tiny", [*overrides, *lora, f"tokens_per_pack={SEQUENCES * 256}"]).config
    rows = memory(shape_of(str(directory), {})[0], config, batch_of(config, 1, assume), assume)
    tensors = [row for row in rows if not row.name.startswith(("CUDA", "reserve"))]
    return {moment: {row.name: row.bytes[moment] for row in tensors if row.bytes.get(moment)} for moment in LEARNING}


def adamw_of_a_gpu(parameters):
    return torch.optim.AdamW(parameters, lr=0.0, foreach=True)


def measured(directory, dtype: str, recompute: bool, *lora: str) -> dict[str, float]:
    """Bytes between updates, and the peaks of the fused loss, of a whole pass, and of an update."""
    from transformers import AutoConfig, AutoModelForCausalLM

    register_attention()
    config = AutoConfig.from_pretrained(directory)
    model = prepare(AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], attn_implementation=ATTENTION))
    model = with_lora(load_config("tiny", lora).config, model)
    if recompute:
        recompute_activations(model)
    response = tuple(range(100, 100 + RESPONSE))
    batch = pack_one([TrainingSequence((5,) * PROMPT, response, (-5.0,) * RESPONSE, 1.0, 1e-3)] * SEQUENCES)
    with LiveBytes(list(model.parameters())) as live:
        settings = load_config("tiny", []).config.loss
        learner = NativeLearner(model, settings, 1.0, lambda update: 1e-6, 1.0, adamw_of_a_gpu)
        learner.step()  # without gradients: the moments exist from now on
        found = {"kept": live.live}
        live.peak = live.live
        learner.backward(batch)
        found |= {"forward": live.in_loss, "backward": live.peak}
        live.peak = live.live
        learner.step()
        found["update"] = live.peak
    return found


@pytest.mark.slow  # 3 to 6 seconds each
@pytest.mark.parametrize(
    ("dtype", "recompute", "lora"), [("bfloat16", False, 0), ("bfloat16", True, 0), ("float32", False, 0), ("bfloat16", False, 16)]
)
def test_the_table_is_near_the_bytes_of_all_tensors(model_directory, head_of_a_gpu, dtype, recompute, lora):
    pytest.importorskip("peft") if lora else None
    case = (model_directory, dtype, recompute, f"learner.lora_rank={lora}")
    want, got = measured(*case), predicted(*case)
    sums = {moment: sum(rows.values()) for moment, rows in got.items()}
    kept = sum(size for name, size in got["update"].items() if name in LEARNERS_OWN)
    assert kept == pytest.approx(want["kept"], rel=0.01)
    for moment, size in (("forward", sums["forward"]), ("backward", max(sums["forward"], sums["backward"])), ("update", sums["update"])):
        assert size == pytest.approx(want[moment], rel=TOLERANCE), moment
        assert size - kept == pytest.approx(want[moment] - want["kept"], rel=TOLERANCE), moment
    copied = 0 if recompute else torch.finfo(DTYPES[dtype]).bits // 8 * SEQUENCES * 256 * 512 * 6  # by attention on a CPU, of its output
    assert sums["forward"] + copied - kept == pytest.approx(want["forward"] - want["kept"], rel=0.01)

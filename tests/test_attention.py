"""Which kernel a machine gets, and that each is called right: stand-ins with the real signatures compute a plain float64 formula."""

import importlib
import importlib.metadata
import inspect
import sys
import types

import pytest
import torch
from attention_stand_ins import STAND_INS, formula, varlen_of_torch_211, varlen_stand_in

from fastgrpo.attention import ATTENTION, KERNELS, PACKAGES, Machine, choose, implementation, packed_attention, refusal, this_machine
from fastgrpo.errors import InputError
from fastgrpo.model import load_model, prepare

LENGTHS, HEADS, KV_HEADS, SIZE, SCALE = (3, 1, 6), 4, 2, 8, 0.2
ALL = {"flash2": "2.8.3", "flash4": "4.0.0b36", "varlen": "2.13.0", "sdpa": "2.13.0"}
TORCH = {"varlen": "2.13.0", "sdpa": "2.13.0"}
MISSING = {"flash2": "flash-attn 2 is not installed (pip)", "flash4": "flash-attn 4 is not installed (pip)"}
CPU = Machine("cpu", "the CPU", versions=TORCH)
bf16 = torch.bfloat16


def gpu(capability, versions=ALL, problems=MISSING):
    left = {kernel: problem for kernel, problem in problems.items() if kernel not in versions}
    return Machine("cuda", "a GPU", capability, versions, left)


@pytest.fixture
def stand_ins(monkeypatch):
    for module, kernel in (("flash_attn.flash_attn_interface", "flash2"), ("flash_attn.cute", "flash4")):
        fake = types.ModuleType(module)
        fake.flash_attn_varlen_func = STAND_INS[kernel]
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setitem(sys.modules, "flash_attn", types.ModuleType("flash_attn"))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_stand_in)


@pytest.mark.parametrize(
    ("machine", "dtype", "head_dim", "kernel", "why"),
    [
        (CPU, torch.float32, 64, "sdpa", "(float32 on the CPU; flash kernels need a GPU)"),
        (gpu((9, 0)), bf16, 128, "flash2", "attention: flash-attn 2.8.3 (bfloat16 on a GPU)"),
        (gpu((8, 0), {"flash4": "4", **TORCH}), bf16, 128, "varlen", "flash-attn 4 needs compute capability 9 or 10, and a GPU has 8.0"),
        (gpu((9, 0), {"flash4": "4", **TORCH}), bf16, 128, "flash4", "flash-attn 2 is not installed (pip)"),
        (gpu((10, 0), {"flash4": "4", **TORCH}), bf16, 128, "flash4", "attention: flash-attn-4 4 (bfloat16"),
        (gpu((10, 0), {"flash4": "4", **TORCH}), bf16, 192, "varlen", "flash-attn-4 does not compute heads of size 192"),
        (gpu((12, 0), {"flash4": "4", **TORCH}), bf16, 128, "varlen", "a GPU has 12.0; its gradients may differ in the last bits"),
        (gpu((9, 0), TORCH), bf16, 128, "varlen", "flash-attn 2 is not installed (pip); flash-attn 4 is not installed (pip)"),
        (gpu((9, 0)), torch.float32, 128, "sdpa", "flash kernels do not compute in float32"),
        (gpu((9, 0)), torch.float64, 128, "sdpa", "flash kernels do not compute in float64"),
        (gpu((7, 5)), torch.float16, 64, "sdpa", "flash kernels need compute capability 8.0, and a GPU has 7.5"),
        (gpu((9, 0)), bf16, 20, "flash2", "bfloat16 on a GPU)"),
        (gpu((9, 0), TORCH), bf16, 20, "sdpa", "varlen_attn of torch does not compute heads of size 20"),
        (gpu((9, 0)), bf16, 512, "sdpa", "flash-attn does not compute heads of size 512"),
    ],
)
def test_the_first_kernel_that_can_be_used_is_chosen_and_the_line_says_why(machine, dtype, head_dim, kernel, why):
    choice = choose("auto", machine, dtype, head_dim)
    assert choice.implementation == implementation(kernel)
    assert why in choice.line and choice.line.startswith("attention: ") and "  " not in choice.line


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_that_is_asked_for_is_the_one(kernel):
    choice = choose(kernel, gpu((9, 0)), bf16, 64)
    assert choice.implementation == implementation(kernel) and "as learner.attention says" in choice.line
    assert ("last bits" in choice.line) == (kernel in ("varlen", "sdpa"))


@pytest.mark.parametrize(
    ("kernel", "machine", "reason"),
    [
        ("flash2", CPU, "flash kernels need a GPU"),
        ("varlen", CPU, "flash kernels need a GPU"),
        ("flash2", gpu((9, 0), TORCH), "flash-attn 2 is not installed"),
        ("flash4", gpu((8, 9)), "needs compute capability 9 or 10"),
    ],
)
def test_a_kernel_that_is_asked_for_and_cannot_be_used_is_an_error(kernel, machine, reason):
    with pytest.raises(InputError, match=rf"learner\.attention={kernel} cannot be used: .*{reason}.*learner\.attention=auto"):
        choose(kernel, machine, bf16, 64)


def test_packages_are_told_apart_by_distribution_and_a_broken_one_is_named(monkeypatch):
    """Both are imported as flash_attn; a build for another torch fails to import."""
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))

    def importing(installed, broken=()):
        def version(distribution):
            if distribution not in installed:
                raise importlib.metadata.PackageNotFoundError(distribution)
            return "1.2"

        def import_module(name):
            if name in broken:
                raise ImportError("undefined symbol: _ZN2at\nmore")

        monkeypatch.setattr("fastgrpo.attention.version", version)
        monkeypatch.setattr("fastgrpo.attention.import_module", import_module)
        return this_machine(torch.device("cuda"))

    none = importing(())
    assert set(none.versions) == {"varlen", "sdpa"}
    assert none.problems == {kernel: f"{package.name} is not installed ({package.pip})" for kernel, package in PACKAGES.items()}
    assert set(importing({"flash-attn-4"}).versions) == {"flash4", "varlen", "sdpa"}
    assert set(importing({"flash-attn"}).versions) == {"flash2", "varlen", "sdpa"}
    broken = importing({"flash-attn"}, broken={"flash_attn.flash_attn_interface"})
    assert broken.problems["flash2"] == "flash-attn 2 is installed and cannot be imported: undefined symbol: _ZN2at"
    assert "undefined symbol" in choose("auto", broken, bf16, 64).line


def rows(dtype, device="cpu", seed=0, size=SIZE, lengths=LENGTHS):
    """query, key and value as transformers hands them over, (1, heads, T, D), and the bounds."""
    generator, tokens = torch.Generator().manual_seed(seed), sum(lengths)
    tensors = [torch.randn(1, tokens, heads, size, generator=generator, dtype=torch.float64) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return [tensor.to(device, dtype).transpose(1, 2).requires_grad_() for tensor in tensors], bounds.to(device)


def attend(kernel, tensors, bounds, lengths=LENGTHS):
    """Output (T, heads, D) and the gradients (heads, T, D) of a weighted sum of it."""
    output, _ = packed_attention(KERNELS[kernel], None, *tensors, None, SCALE, bounds, max(lengths))
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).reshape(output.shape)
    return output[0].detach(), [gradient[0] for gradient in torch.autograd.grad((output * weights).sum(), tensors)]


def truth(tensors, bounds):
    copies = [tensor.detach().cpu().double().requires_grad_() for tensor in tensors]
    output = formula(*(copy[0].transpose(0, 1) for copy in copies), bounds, SCALE)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
    return output.detach(), [gradient[0] for gradient in torch.autograd.grad((output * weights).sum(), copies)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_is_called_for_causal_grouped_attention_inside_sequences(kernel, stand_ins):
    tensors, bounds = rows(torch.float64)
    output, gradients = attend(kernel, tensors, bounds)
    want, want_gradients = truth(tensors, bounds)
    assert output.shape == want.shape and (output - want).abs().max() < 1e-12
    assert all((got - right).abs().max() < 1e-12 for got, right in zip(gradients, want_gradients, strict=True))


def test_varlen_attn_before_grouped_queries_gets_keys_and_values_for_each_head(monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_of_torch_211)
    tensors, bounds = rows(torch.float64)
    (output, gradients), (want, want_gradients) = attend("varlen", tensors, bounds), truth(tensors, bounds)
    assert (output - want).abs().max() < 1e-12
    assert all((got - right).abs().max() < 1e-12 for got, right in zip(gradients, want_gradients, strict=True))


@pytest.mark.parametrize("kernel", STAND_INS)
def test_the_stand_ins_have_the_real_signatures(kernel):
    module = {"varlen": "torch.nn.attention.varlen"}.get(kernel) or PACKAGES[kernel].module
    try:
        if kernel in PACKAGES:
            importlib.metadata.version(PACKAGES[kernel].distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{PACKAGES[kernel].name} is not installed")
    real = getattr(importlib.import_module(module), "varlen_attn" if kernel == "varlen" else "flash_attn_varlen_func")

    def parameters(function):
        return [(name, parameter.kind, parameter.default) for name, parameter in inspect.signature(function).parameters.items()]

    made_for = [STAND_INS[kernel], varlen_of_torch_211] if kernel == "varlen" else [STAND_INS[kernel]]
    assert parameters(real) in map(parameters, made_for)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_model_passes_the_check_of_loading_with_each_kernel(kernel, stand_ins, tiny_model_dir):
    model = load_model(str(tiny_model_dir), "float32")
    model.set_attn_implementation(implementation(kernel))
    prepare(model)


def test_a_kernel_that_mixes_sequences_does_not_pass_the_check_of_loading(stand_ins, tiny_model_dir, monkeypatch):
    def mixing(q, k, v, bounds, *others, **settings):
        return formula(q, k, v, bounds[[0, -1]], settings["softmax_scale"]).to(q.dtype)

    monkeypatch.setattr(sys.modules["flash_attn.flash_attn_interface"], "flash_attn_varlen_func", mixing)
    model = load_model(str(tiny_model_dir), "float32")
    model.set_attn_implementation(implementation("flash2"))
    with pytest.raises(InputError, match="packed log-probs differ"):
        prepare(model)


def test_loading_says_the_choice_once_and_refuses_what_cannot_be_used(tiny_model_dir):
    said = []
    model = load_model(str(tiny_model_dir), "float32", "auto", said.append)
    if not torch.cuda.is_available():
        version = torch.__version__
        assert said == [f"attention: SDPA sequence by sequence, torch {version} (float32 on the CPU; flash kernels need a GPU)"]
    assert model.config._attn_implementation == ATTENTION
    with pytest.raises(InputError, match=r"learner\.attention=flash2 cannot be used: flash kernels"):
        load_model(str(tiny_model_dir), "float32", "flash2")


def test_a_loaded_model_computes_with_the_kernel_that_was_chosen(stand_ins, tiny_model_dir, monkeypatch):
    monkeypatch.setattr("fastgrpo.model.this_machine", lambda device: gpu((9, 0)))
    for wanted, name in (("auto", "fastgrpo_fa2"), ("flash4", "fastgrpo_fa4"), ("sdpa", ATTENTION)):
        assert load_model(str(tiny_model_dir), "bfloat16", wanted).config._attn_implementation == name


def others_change(kernel, dtype, device, size=SIZE, lengths=LENGTHS):
    """Output and gradients of all but the first sequence, with two different first sequences."""
    tensors, bounds = rows(dtype, device, size=size, lengths=lengths)
    changed = [tensor.detach().clone() for tensor in tensors]
    for tensor in changed:
        tensor[:, :, : lengths[0]] += 1
    first, second = (attend(kernel, given, bounds, lengths) for given in (tensors, [tensor.requires_grad_() for tensor in changed]))
    assert not torch.equal(first[0][: lengths[0]], second[0][: lengths[0]])
    return [(out[lengths[0] :], [gradient[:, lengths[0] :] for gradient in gradients]) for out, gradients in (first, second)]


def test_changing_one_sequence_changes_no_bit_of_another_on_a_cpu():
    (one, one_gradients), (two, two_gradients) = others_change("sdpa", torch.float32, "cpu")
    assert torch.equal(one, two) and all(map(torch.equal, one_gradients, two_gradients))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("kernel", ["flash2", "flash4", "varlen"])
def test_a_real_kernel_is_no_worse_than_twice_sdpa_and_isolates_sequences(kernel, size):
    reason = refusal(kernel, this_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")), bf16, size)
    if reason:
        pytest.skip(reason)
    lengths = (300, 1, 77, 512)
    tensors, bounds = rows(bf16, "cuda", size=size, lengths=lengths)
    right, plain, got = truth(tensors, bounds.cpu()), attend("sdpa", tensors, bounds, lengths), attend(kernel, tensors, bounds, lengths)
    for want, reference, found in zip((right[0], *right[1]), (plain[0], *plain[1]), (got[0], *got[1]), strict=True):
        assert (found.cpu() - want).abs().max() <= 2 * (reference.cpu() - want).abs().max() + 1e-5
    (one, one_gradients), (two, two_gradients) = others_change(kernel, bf16, "cuda", size, lengths)
    assert torch.equal(one, two)
    if kernel in PACKAGES:  # the backward pass is deterministic
        assert all(map(torch.equal, one_gradients, two_gradients))
        assert all(map(torch.equal, got[1], attend(kernel, tensors, bounds, lengths)[1]))

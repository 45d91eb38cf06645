import pytest
import torch
from kernel_problem import of_kind, problem

from fastgrpo_kernels import fused_linear_policy_loss, policy_loss_from_logits, reference, tiles
from fastgrpo_kernels.logits_policy_loss import _operator


def from_head(dtype=torch.float64, **more):
    (hidden, weight, targets), options = problem(every_term=True, **more)
    return (hidden @ weight.t()).to(dtype).requires_grad_(), targets, options


def test_it_is_the_fused_loss_of_an_identity_head_in_every_output():
    logits, targets, options = from_head()
    got = policy_loss_from_logits(logits, targets, **options)
    want = fused_linear_policy_loss(logits, torch.eye(37, dtype=torch.float64), targets, **options)
    for x, y in zip(got[:3], want[:3], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-13)
    assert {name: value.item() for name, value in got.stats.items()} == pytest.approx({n: v.item() for n, v in want.stats.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_its_error_is_at_most_twice_that_of_plain_pytorch(dtype):
    logits, targets, options = from_head(dtype)
    options = of_kind("reinforce", options)
    leaves = [logits.detach().to(kind).requires_grad_() for kind in (torch.float64, dtype, dtype)]
    reference.policy_loss_from_logits(leaves[0], targets, **options)[0].backward()
    reference.policy_loss_from_logits(leaves[1], targets, **options)[0].backward()
    policy_loss_from_logits(leaves[2], targets, **options).loss.backward()
    truth, ordinary, got = (leaf.grad.double() for leaf in leaves)
    assert leaves[2].grad.dtype == dtype
    assert (got - truth).norm() <= 2 * (ordinary - truth).norm() + 1e-7 * truth.norm()


def test_a_scale_below_float16_is_lifted_by_a_loss_scaler():
    logits, targets, options = from_head(torch.float16)
    options["scale"] = options["scale"] * 1e-6
    (2**16 * policy_loss_from_logits(logits, targets, **options).loss).backward()
    want = logits.detach().double().requires_grad_()
    (2**16 * reference.policy_loss_from_logits(want, targets, **options)[0]).backward()
    torch.testing.assert_close(logits.grad.double(), want.grad, rtol=2e-2, atol=2e-6)


def test_logits_are_left_as_they_are_in_any_tiles_and_at_any_stride(monkeypatch):
    logits, targets, options = from_head(tokens=150)
    before = logits.detach().clone()
    policy_loss_from_logits(logits, targets, **options).loss.backward()
    monkeypatch.setattr(tiles, "_TILE_BYTES", 0)
    monkeypatch.setattr(tiles, "_MIN_TILE_ROWS", 16)
    strided = torch.stack([before, before], dim=2)[:, :, 0].requires_grad_()
    policy_loss_from_logits(strided, targets, **options).loss.backward()
    assert torch.equal(logits.detach(), before)
    assert torch.equal(strided.grad, logits.grad)


def test_no_kept_rows_give_zero_gradients_and_a_second_backward_raises():
    for tokens in (0, 40):
        logits, targets, options = from_head(tokens=tokens)
        options["loss_mask"] = torch.zeros(tokens, dtype=torch.bool)
        loss = policy_loss_from_logits(logits, targets, **options).loss
        loss.backward(retain_graph=True)
        assert loss == 0
        assert logits.grad.shape == logits.shape
        assert (logits.grad == 0).all()
        with pytest.raises(RuntimeError, match="second backward through policy_loss_from_logits"):
            loss.backward()


def test_without_gradients_asked_for_none_is_made():
    logits, targets, options = from_head()
    with torch.no_grad():
        assert not policy_loss_from_logits(logits, targets, **options).loss.requires_grad
    assert not policy_loss_from_logits(logits.detach(), targets, **options).loss.requires_grad


@pytest.mark.parametrize(("wanted", "expected"), [(True, 1), (False, 0)])
def test_beside_the_logits_only_their_gradient_is_as_large(monkeypatch, wanted, expected):
    monkeypatch.setattr(tiles, "_TILE_BYTES", 0)
    monkeypatch.setattr(tiles, "_MIN_TILE_ROWS", 16)
    logits, targets, options = from_head(tokens=160)

    class Large(torch.utils._python_dispatch.TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.storages, self.kept = set(), []  # what is kept alive cannot give its address to another

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.fastgrpo_kernels.policy_loss_from_logits.default:
                with self:
                    return _operator._init_fn(*args)
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= logits.untyped_storage().nbytes():
                self.kept.append(result)
                self.storages.add(result.untyped_storage().data_ptr())
            return result

    with Large() as seen:
        policy_loss_from_logits(logits.detach().requires_grad_(wanted), targets, **options)
    assert len(seen.storages - {logits.untyped_storage().data_ptr()}) == expected


@pytest.mark.parametrize("entrance", ["hidden", "logits"])
def test_backward_hands_over_the_gradient_that_forward_made_and_not_a_copy(entrance):
    class Made(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function.namespace == "fastgrpo_kernels":
                self.addresses = {tensor.data_ptr() for tensor in result}
            return result

    logits, targets, options = from_head()
    head = (logits, torch.eye(37, dtype=torch.float64)) if entrance == "hidden" else (logits,)
    with Made() as made:
        loss = (fused_linear_policy_loss if entrance == "hidden" else policy_loss_from_logits)(*head, targets, **options).loss
    loss.backward()
    assert logits.grad.data_ptr() in made.addresses

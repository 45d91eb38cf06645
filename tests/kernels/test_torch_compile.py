"""torch.compile takes every public function whole: an operator is one node to it, and gradients still come from the operator."""

import pytest
import torch
from kernel_problem import problem

from fastgrpo_kernels import fused_linear_policy_loss, linear_logprobs, policy_loss, policy_loss_from_logits


def losses():
    """(name, function of (hidden, weight) to a loss)."""
    (_, _, targets), options = problem(every_term=True)
    bias = torch.linspace(-1, 1, 37, dtype=torch.float64)
    alone = {name: value for name, value in options.items() if name not in ("temperature", "entropy_coef")}

    def from_logprobs(x, w):
        logprobs, entropy = linear_logprobs(x, w, targets, 0.8, softcap=5.0)
        return policy_loss(logprobs, **alone).loss + entropy.sum()

    return {
        "fused": lambda x, w: fused_linear_policy_loss(x, w, targets, bias=bias, **options).loss,
        "stats": lambda x, w: (
            fused_linear_policy_loss(x, w, targets, **options).loss
            * (fused_linear_policy_loss(x, w, targets, **options).stats["k3_sum"] + 1)
        ),
        "logits": lambda x, w: policy_loss_from_logits(x @ w.t(), targets, **options).loss,
        "logprobs": from_logprobs,
    }


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", ["fused", "stats", "logits", "logprobs"])
def test_compiled_whole_gives_the_same_loss_and_gradients(name, backend):
    (hidden, weight, _), _ = problem()
    function, results = losses()[name], []
    torch._dynamo.reset()
    for run in (function, torch.compile(function, backend=backend, fullgraph=True)):
        leaves = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
        loss = run(*leaves)
        loss.backward()
        results.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for x, y in zip(*results, strict=True):
        torch.testing.assert_close(y, x, rtol=0, atol=1e-13)


def operator_cases():
    (hidden, weight, targets), options = problem(tokens=6, every_term=True)
    leaf = hidden.requires_grad_()
    yield lambda: fused_linear_policy_loss(leaf, weight.requires_grad_(), targets, **options)
    yield lambda: linear_logprobs(leaf, weight, targets, 0.8)[0].sum().backward()
    yield lambda: policy_loss_from_logits((leaf @ weight.t()).detach().requires_grad_(), targets, **options)


def test_the_fakes_have_the_shapes_and_dtypes_of_the_operators():
    class Check(torch.utils._python_dispatch.TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function.namespace == "fastgrpo_kernels":
                Check.seen += 1
                with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
                    fake = function(*args)
                assert [(x.shape, x.dtype, x.stride()) for x in fake] == [(x.shape, x.dtype, x.stride()) for x in result]
            return result

    for case in operator_cases():
        with Check():
            case()
    assert Check.seen == 4

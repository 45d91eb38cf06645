"""Who takes part: each a function of a Problem that leaves dHidden and dWeight behind. Rivals are imported, never copied.

A contestant whose package is missing raises ImportError, which becomes a named skip. `three bare products` is the roofline: what
the matrix products alone cost, with no loss at all.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import torch
from problem import CLIP, Problem
from torch.nn import functional as F


def fused_policy_loss(problem: Problem) -> None:
    from fastgrpo_kernels import fused_linear_policy_loss

    fused_linear_policy_loss(
        problem.hidden,
        problem.weight,
        problem.targets,
        advantages=problem.advantages,
        old_logprobs=problem.old_logprobs,
        denominator=problem.denominator,
        temperature=1.0,
        **CLIP,
    ).loss.backward()


def eager_policy_loss(problem: Problem) -> None:
    """What a plain trainer writes: full fp32 logits, log_softmax, gather, clip."""
    logits = F.linear(problem.hidden, problem.weight).float()
    logprobs = logits.log_softmax(-1).gather(1, problem.targets[:, None])[:, 0]
    ratio = (logprobs - problem.old_logprobs).exp()
    clipped = ratio.clamp(1 - CLIP["clip_low"], 1 + CLIP["clip_high"])
    losses = -torch.minimum(ratio * problem.advantages, clipped * problem.advantages)
    (losses.sum() / problem.denominator).backward()


def compiled_policy_loss(problem: Problem) -> None:
    torch.compile(eager_policy_loss, dynamic=False)(problem)


def liger_policy_loss(problem: Problem) -> None:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    length = problem.shape.length
    sequences = problem.shape.tokens // length
    settings = {"beta": 0.0, "use_ref_model": False, "loss_type": "dr_grpo", "max_completion_length": length}
    loss = LigerFusedLinearGRPOLoss(**settings, compiled=problem.hidden.is_cuda)
    value, _ = loss(
        problem.hidden.view(sequences, length, -1),
        problem.weight,
        problem.targets.view(sequences, length),
        torch.ones(sequences, length, device=problem.hidden.device),
        problem.advantages.view(sequences, length)[:, 0].contiguous(),
        old_per_token_logps=problem.old_logprobs.view(sequences, length),
    )
    value.backward()


def fused_cross_entropy(problem: Problem) -> None:
    from fastgrpo_kernels import fused_linear_policy_loss

    ones = torch.ones_like(problem.advantages)
    fused_linear_policy_loss(
        problem.hidden, problem.weight, problem.targets, advantages=ones, denominator=problem.denominator, temperature=1.0, **CLIP
    ).loss.backward()


def torch_cross_entropy(problem: Problem) -> None:
    if not hasattr(F, "linear_cross_entropy"):
        raise ImportError(f"torch {torch.__version__} has no linear_cross_entropy")
    F.linear_cross_entropy(problem.hidden, problem.weight, problem.targets).backward()


def liger_cross_entropy(problem: Problem) -> None:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    require_gpu(problem)
    LigerFusedLinearCrossEntropyLoss(accum_dtype=torch.float32)(problem.weight, problem.hidden, problem.targets).backward()


def cce_cross_entropy(problem: Problem) -> None:
    from cut_cross_entropy import linear_cross_entropy

    require_gpu(problem)
    linear_cross_entropy(problem.hidden, problem.weight, problem.targets).backward()


def quack_cross_entropy(problem: Problem) -> None:
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    require_gpu(problem)
    chunked_linear_cross_entropy(problem.hidden, problem.weight, problem.targets).backward()


def verl_policy_loss(problem: Problem) -> None:
    """verl's kernel gives log-probs; the policy maths on them is the eager one."""
    require_gpu(problem)
    without_its_own_imports("verl", "verl.utils", "verl.utils.kernel")
    from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

    logprobs, _ = linear_cross_entropy(problem.hidden, problem.weight, problem.targets, 1.0)
    ratio = (logprobs - problem.old_logprobs).exp()
    clipped = ratio.clamp(1 - CLIP["clip_low"], 1 + CLIP["clip_high"])
    (-torch.minimum(ratio * problem.advantages, clipped * problem.advantages).sum() / problem.denominator).backward()


def bare_products(problem: Problem) -> None:
    """X W^T, G W and G^T X in the input dtype, in slices of rows so that it fits: the least that forward and backward can cost."""
    weight = problem.weight.detach()
    total = torch.zeros_like(weight)
    for hidden in problem.hidden.detach().split(4096):
        logits = hidden @ weight.T
        logits @ weight
        total.addmm_(logits.T, hidden)


def without_its_own_imports(*packages: str) -> None:
    """Makes packages importable without their __init__: verl's imports Ray, which its kernel does not need."""
    found = importlib.util.find_spec(packages[0])
    if found is None:
        raise ImportError(f"{packages[0]} is not installed")
    root = Path(found.submodule_search_locations[0]).parent
    for name in packages:
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(root.joinpath(*name.split(".")))]


def require_gpu(problem: Problem) -> None:
    if not problem.hidden.is_cuda:
        raise ImportError("this rival runs on a GPU only")


CONTESTANTS: dict[str, dict[str, Callable[[Problem], None]]] = {
    "policy loss": {
        "three bare products": bare_products,
        "fastgrpo": fused_policy_loss,
        "eager torch": eager_policy_loss,
        "torch.compile": compiled_policy_loss,
        "Liger fused GRPO": liger_policy_loss,
        "verl kernel": verl_policy_loss,
    },
    "cross-entropy": {
        "fastgrpo": fused_cross_entropy,
        "F.linear_cross_entropy": torch_cross_entropy,
        "Liger fused CE": liger_cross_entropy,
        "cut-cross-entropy": cce_cross_entropy,
        "quack": quack_cross_entropy,
    },
}

"""Three numbers on this CPU: time and extra memory of the fused loss against eager torch, in one process, taking turns.

    python bench/cpu_ratio.py [ROUNDS]

4096 tokens, width 512, vocabulary 32,000, float32. Prints medians of the ratios; the machine should have nothing else to do.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from contestants import eager_policy_loss, fused_policy_loss
from measure import peak_extra_mib
from problem import Problem, Shape, make_problem


def seconds(contestant, problem: Problem) -> float:
    problem.clear()
    start = time.perf_counter()
    contestant(problem)
    return time.perf_counter() - start


def extra_mib(contestant, problem: Problem) -> float:
    """Peak beyond the inputs and the two gradients themselves."""
    problem.clear()
    gradients = (problem.hidden.numel() + problem.weight.numel()) * problem.hidden.element_size() / 2**20
    return peak_extra_mib(lambda: contestant(problem)) - gradients


def main(rounds: int) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {rounds}")
    for silent, goal in ((0.0, 0.95), (0.4, 0.60)):
        problem = make_problem(Shape(4096, 512, 32_000, silent=silent), "cpu", torch.float32)
        seconds(fused_policy_loss, problem)
        ratios = [seconds(fused_policy_loss, problem) / seconds(eager_policy_loss, problem) for _ in range(rounds)]
        print(f"time, {silent:.0%} of the sequences at zero advantage: {statistics.median(ratios):.2f}x eager (goal {goal})")
    problem = make_problem(Shape(4096, 512, 32_000), "cpu", torch.float32)
    ratios = [extra_mib(fused_policy_loss, problem) / extra_mib(eager_policy_loss, problem) for _ in range(rounds)]
    print(f"peak extra memory: {statistics.median(ratios):.3f}x eager (goal 0.125)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)

"""A whole learning step, timed by phase: old log-probs, forward and backward, optimizer. Random weights, realistic lengths, one process.

    python bench/learning_step.py [--size toy|1.5b|7b] [--out FOLDER] [--silent SHARE] [--only NAME ...]      (and more: --help)

Everyone starts from the same weights and must arrive at the same gradient, or is marked. Tokens/s counts the tokens of all responses
without padding, whether or not a way computes them all: leaving out groups without gradient is part of being fast. A JSON file in FOLDER
is written anew after each contestant; `bench/table.py` renders it. On a CPU the times are no results.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import torch
from measure import synchronize
from step_contestants import ENTRIES, Entry
from step_problem import SIZES, StepProblem, make_model
from table import steps

from fastgrpo.errors import InputError
from fastgrpo.learner.compiled import compile_layers
from fastgrpo.learner.native import NativeLearner
from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.plan.assumptions import DEVICES

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
TOLERANCE = {torch.bfloat16: 0.05, torch.float32: 1e-3}  # of the gradient, relative: roundings, and ratios that cross a bound by them
ENTRIES_OF_A_GRADIENT = 65_536  # compared of each parameter, evenly spread
PHASES = ("old log-probs", "forward, backward", "optimizer")
PRODUCTS = ("gemm", "nvjet", "cutlass", "cublas") if GPU else ("mm", "matmul")  # in the names of kernels, or of operators on a CPU
ATTENTION = ("flash", "fmha", "attention", "attn")


class Step:
    """One contestant with its own model and learner, in a step that can be repeated."""

    def __init__(self, problem: StepProblem, entry: Entry, dtype: torch.dtype):
        self.problem = problem
        model, self.attention = make_model(problem.size.shape, DEVICE, dtype, entry.attention)
        self.learner = NativeLearner(model, problem.config.loss, 1.0, lambda update: 1e-6, 1.0)
        self.way = entry.way(problem, self.learner)
        if entry.recompute:
            recompute_activations(model)
        if entry.compiled:
            compile_layers(model)

    def gradient(self) -> tuple[float, list[torch.Tensor]]:
        """The loss and evenly spread entries of its gradient, by parameter, on the CPU; the gradient is dropped."""
        self.way.old_logprobs()
        loss = self.way.backward()
        strides = [-(-gradient.numel() // ENTRIES_OF_A_GRADIENT) for gradient in self.learner.gradients]
        sampled = [gradient.flatten()[::stride].clone().cpu() for gradient, stride in zip(self.learner.gradients, strides, strict=True)]
        self.drop()
        return loss, sampled

    def drop(self) -> None:
        for gradient in self.learner.gradients:
            gradient.zero_()

    def release(self) -> None:
        """Gives the memory back even where something still holds the model, as TRL's trainer does for a while."""
        learner = self.learner
        moments = [value for state in learner.optimizer.state.values() for value in state.values()]
        for tensor in (*learner.model.parameters(), *learner.masters, *learner.gradients, *moments):
            tensor.untyped_storage().resize_(0)

    def run(self) -> dict[str, float]:
        """Seconds of each phase."""
        seconds = {}

        @contextmanager
        def phase(name: str):
            synchronize()
            started = time.perf_counter()
            yield
            synchronize()
            seconds[name] = time.perf_counter() - started

        with phase("old log-probs"):
            self.way.old_logprobs()
        with phase("forward, backward"):
            self.way.backward()
        with phase("optimizer"):
            self.learner.step() if self.problem.size.steps else self.drop()
        return seconds


def measured(problem: StepProblem, entry: Entry, first: tuple | None, arguments: argparse.Namespace) -> tuple[dict, tuple]:
    """The line of one contestant, and (loss, gradient) at the start, which is compared with the first contestant's."""
    step = Step(problem, entry, getattr(torch, arguments.dtype))
    try:
        return measure(step, first, arguments.rounds)
    finally:
        step.release()


def measure(step: Step, first: tuple | None, rounds: int) -> tuple[dict, tuple]:
    problem, (loss, gradient) = step.problem, step.gradient()
    line = {"attention": step.attention, "loss": loss}
    if first is not None:
        apart = sum((a - b).double().square().sum() for a, b in zip(gradient, first[1], strict=True)).sqrt()
        size = sum(b.double().square().sum() for b in first[1]).sqrt()
        line |= {"gradient apart": (apart / size).item(), "loss apart": abs(loss - first[0])}
        line["same"] = line["gradient apart"] < TOLERANCE[step.learner.model.dtype]
    step.run()
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    times = [step.run() for _ in range(rounds)]
    if GPU:
        line["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    whole = statistics.median(sum(seconds.values()) for seconds in times)
    line |= {"seconds": {name: statistics.median(seconds[name] for seconds in times) for name in PHASES}}
    line |= {"tokens/s": problem.tokens / whole, "TFLOP/s": problem.flops(old_pass=True) / whole / 1e12}
    if GPU and (peak := peak_tflops()):
        line["MFU"] = line["TFLOP/s"] / peak
    line["shares"] = shares(step)
    return line, (loss, gradient)


def shares(step: Step) -> dict[str, float]:
    """Where the time of one step goes: matrix products, attention, our row kernel, and the rest, by the profiler's own times."""
    kinds = ("cuda", torch.profiler.ProfilerActivity.CUDA) if GPU else ("cpu", torch.profiler.ProfilerActivity.CPU)
    with torch.profiler.profile(activities=[kinds[1]]) as profiler:
        step.run()
        synchronize()
    total = dict.fromkeys(("products", "attention", "row kernel", "other"), 0.0)
    for event in profiler.key_averages():
        name = event.key.lower()
        if "row_kernel" in name:
            kind = "row kernel"
        elif any(word in name for word in ATTENTION):
            kind = "attention"
        else:
            kind = "products" if any(word in name for word in PRODUCTS) else "other"
        total[kind] += event.self_device_time_total if GPU else event.self_cpu_time_total
    return {kind: value / max(sum(total.values()), 1) for kind, value in total.items()}


def peak_tflops() -> float | None:
    """Of the data sheet, in bfloat16, dense."""
    name = torch.cuda.get_device_name().lower()
    return next((sheet["tflops"].value for device, sheet in DEVICES.items() if device.split("-")[0] in name), None)


def main(arguments: argparse.Namespace) -> bool:
    """Whether everyone who took part arrived at the same gradient."""
    started, problem = time.monotonic(), StepProblem(SIZES[arguments.size], arguments.silent)
    results = {
        "datetime": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine_info": {"python_version": platform.python_version(), "torch": torch.__version__},
        "device": torch.cuda.get_device_name() if GPU else "CPU: no result",
        "size": arguments.size,
        "dtype": arguments.dtype,
        "silent": arguments.silent,
        "responses": len(problem.rows),
        "tokens": problem.tokens,
        "optimizer": problem.size.steps,
        "steps": {},
    }
    first, path = None, arguments.out / f"step-{arguments.size}-{arguments.dtype}{'-silent' if arguments.silent else ''}.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or ENTRIES:
        try:
            if time.monotonic() - started > arguments.seconds:
                raise TimeoutError(f"not started: {arguments.seconds} s were over")
            line, found = measured(problem, ENTRIES[name], first, arguments)
            first = first or found
        except (ImportError, InputError, TimeoutError, torch.OutOfMemoryError) as reason:
            line = {"skipped": f"{type(reason).__name__}: {str(reason).strip().splitlines()[0]}"}
        results["steps"][name] = line
        path.write_text(json.dumps(results, indent=1))
        said = line.get("skipped") or f"{line['tokens/s']:,.0f} tokens/s"
        print(f"{time.monotonic() - started:6.0f} s  {name}: {said}", flush=True)
        gc.collect()
        if GPU:
            torch.cuda.empty_cache()
    print(steps(results))
    return all(line.get("same", True) for line in results["steps"].values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="toy")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--silent", type=float, default=0.0, help="share of groups whose rewards are all alike")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16" if GPU else "float32")
    parser.add_argument("--only", nargs="+", choices=ENTRIES, metavar="NAME", help=f"of {', '.join(ENTRIES)}")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=500.0, help="after which no other contestant is started")
    sys.exit(0 if main(parser.parse_args()) else 1)

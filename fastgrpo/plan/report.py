"""A plan as text and as JSON."""

from __future__ import annotations

from fastgrpo.plan import Plan
from fastgrpo.plan.algebra import words
from fastgrpo.plan.assumptions import GIB
from fastgrpo.plan.generation import concurrency
from fastgrpo.plan.memory import MOMENTS, total

PUBLISHED_HOURS = {("oat-zero-7b", "a100-80g", 8): 27.0}  # arXiv:2503.20783, abstract
FREE = {"seed", "run_dir"}  # settings that may differ from the recipe's without changing its hours


def lines(plan: Plan) -> list[str]:
    """For people, at most 160 characters a line."""
    config, shape = plan.resolved.config, plan.shape
    learner = f"learner {config.learner.engine}" + (f", ZeRO {config.learner.zero}" if config.learner.engine == "deepspeed" else "")
    return [
        f"{plan.resolved.name}: {config.model} on {plan.gpus} x {plan.gpu}",
        f"  {shape.parameters / 1e9:.2f} billion parameters ({plan.shape_source}); {config.dtype}, {learner}, "
        f"recompute {'on' if config.learner.recompute else 'off'}, rollouts {config.rollout.engine}",
        "",
        "A step",
        *(f"  {line}" for line in words(plan.batch, config.tokens_per_pack)),
        "",
        f"Memory of a GPU in GiB, of {plan.assumptions['memory'].value:g}",
        *(f"  {line}" for line in _memory_lines(plan)),
        "",
        "Time",
        *(f"  {line}" for line in _time_lines(plan)),
        "",
        "Assumptions, changed by --assume NAME=VALUE",
        *(f"  {name:<22}{a.value:>10g}  {a.unit}: {a.source}" for name, a in plan.assumptions.items()),
    ]


def _memory_lines(plan: Plan) -> list[str]:
    head = f"{'':<34}" + "".join(f"{moment:>12}" for moment in MOMENTS)
    table = [
        f"{row.name:<34}" + "".join(f"{_gib(row.bytes[moment]) if row.bytes.get(moment) else '-':>12}" for moment in MOMENTS)
        for row in plan.rows
    ]
    sums = total(plan.rows)
    fullest = max(sums, key=sums.__getitem__)
    free = plan.assumptions["memory"].value - sums[fullest] / GIB
    verdict = f"fits: {free:.1f} GiB free at the fullest moment, {fullest}"
    if plan.fix:
        verdict = f"DOES NOT FIT: {-free:.1f} GiB too much at the moment {fullest}; {plan.fix}"
    host = [f"and {plan.host / GIB:.0f} GiB of host memory, over all GPUs"] if plan.host else []
    return [head, *table, f"{'sum':<34}" + "".join(f"{_gib(sums[moment]):>12}" for moment in MOMENTS), *host, verdict]


def _time_lines(plan: Plan) -> list[str]:
    times, config = plan.times, plan.resolved.config
    slots = concurrency(plan.shape, config, plan.batch.prompt_tokens, plan.batch.lengths)
    prediction = f"{times.step_seconds:.0f} s a step, {times.hours:.1f} h for {times.steps} steps"
    published = published_hours(plan)
    if published:
        change = times.hours / published - 1
        deviation = f"{abs(change):.0%} {'more' if change > 0 else 'less'}"
        prediction += f"; published, by the paper's own code: {published:g} h, the prediction for this one is {deviation}"
    return [
        *(f"{name:<24}{seconds:>8.1f} s  {seconds / times.step_seconds:>4.0%}" for name, seconds in times.phases.items()),
        f"{'a step':<24}{times.step_seconds:>8.1f} s",
        prediction,
        f"{plan.hours_short:.1f} h with responses half as long, {plan.hours_long:.1f} h with twice as long; no time here is measured yet",
        f"{times.tokens_per_second_per_gpu:,.0f} response tokens/s/GPU over all, "
        f"{times.generation_tokens_per_second_per_gpu:,.0f} while generating, {slots} responses at once at most",
    ]


def published_hours(plan: Plan) -> float | None:
    """Hours that the paper reports, for its own recipe as it stands on its own machine; None for anything else."""
    name = plan.resolved.name
    changed = {key for key, origin in plan.resolved.origins.items() if origin not in ("default", f"recipe {name}")} - FREE
    return None if changed else PUBLISHED_HOURS.get((name, plan.gpu, plan.gpus))


def as_json(plan: Plan) -> dict:
    """Bytes, seconds and plain numbers, by the names of the text."""
    sums, batch = total(plan.rows), plan.batch
    return {
        "recipe": plan.resolved.name,
        "model": plan.resolved.config.model,
        "parameters": plan.shape.parameters,
        "gpu": plan.gpu,
        "gpus": plan.gpus,
        "step": {
            "responses": batch.responses,
            "updates": batch.updates,
            "responses_per_update": batch.responses // batch.updates,
            "responses_per_gpu": batch.responses / batch.gpus,
            "mean_response_tokens": batch.mean_length,
            "kept_tokens": batch.kept_tokens,
            "packs_per_update": batch.packs,
        },
        "memory": {
            "available": plan.assumptions["memory"].value * GIB,
            "rows": {row.name: dict(row.bytes) for row in plan.rows},
            "sum": sums,
            "host": plan.host,
            "fits": not plan.fix,
            "fix": plan.fix,
        },
        "time": {
            "seconds": dict(plan.times.phases),
            "seconds_per_step": plan.times.step_seconds,
            "hours": plan.times.hours,
            "hours_half_length": plan.hours_short,
            "hours_twice_length": plan.hours_long,
            "published_hours": published_hours(plan),
            "tokens_per_second_per_gpu": plan.times.tokens_per_second_per_gpu,
        },
        "assumptions": {name: {"value": a.value, "unit": a.unit, "source": a.source} for name, a in plan.assumptions.items()},
    }


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"

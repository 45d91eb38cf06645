"""The plan: amounts and memory against numbers by hand, what to change where it does not fit, and the command."""

import json
import re
import subprocess
import sys
import time

import pytest
import typer
from plan_cases import SAME_LENGTH, planned
from typer.testing import CliRunner

from fastgrpo.cli.plan import plan as command
from fastgrpo.errors import InputError
from fastgrpo.plan import activations, report
from fastgrpo.plan.assumptions import DEVICES, GENERAL, GIB
from fastgrpo.plan.lengths import response_lengths
from fastgrpo.plan.memory import total
from fastgrpo.plan.shapes import KNOWN
from fastgrpo.settings_file import TRAINING


def row(plan, name: str) -> dict[str, float]:
    return {moment: round(size) for row in plan.rows if row.name == name for moment, size in row.bytes.items()}


def test_the_amounts_of_a_step_are_those_by_hand():
    batch = planned(assume=SAME_LENGTH).batch
    assert (batch.responses, set(batch.lengths)) == (1024, {800})
    assert batch.kept_tokens == pytest.approx(0.6 * 1024 * 949)  # the last token is only a target
    assert batch.kept_response_tokens == pytest.approx(0.6 * 1024 * 800)
    assert batch.kept_squares == pytest.approx(0.6 * 1024 * 949**2)
    assert batch.packs == 1 and planned("tokens_per_pack=4096", assume=SAME_LENGTH).batch.packs == 3  # 9,110 tokens of a GPU


def test_with_a_kl_term_nothing_is_dropped():
    assert planned("loss.beta=0.01").batch.kept == 1.0


def test_the_words_say_the_algebra():
    text = "\n".join(report.lines(planned()))
    assert "128 prompts x 8 samples = 1,024 responses a step, 128 to each GPU" in text
    assert "8 updates x 128 responses = 1,024" in text


def test_lengths_have_their_mean_and_respect_the_budget():
    lengths = response_lengths(1024, 800, 0.6, 3000)
    assert sum(lengths) / 1024 == pytest.approx(800, rel=1e-3) and max(lengths) == 3000 and min(lengths) >= 1
    assert set(response_lengths(16, 5000, 0.6, 3000)) == {3000}


def test_memory_by_hand_under_zero_2_on_eight_gpus():
    plan, parameters = planned(), KNOWN["Qwen2.5-Math-7B"].parameters
    assert row(plan, "weights")["update"] == 2 * parameters
    assert row(plan, "fp32 masters")["generate"] == parameters / 2
    assert row(plan, "Adam moments")["generate"] == parameters
    assert row(plan, "gradients, accumulated")["backward"] == parameters / 2
    assert row(plan, "KV cache") == {"generate": 24 * GIB}
    assert row(plan, "engine's copy of the weights") == {}


def test_under_zero_3_everything_is_spread_and_the_engine_has_its_own_copy():
    plan, parameters = planned("learner.zero=3"), KNOWN["Qwen2.5-Math-7B"].parameters
    assert row(plan, "weights")["generate"] == pytest.approx(parameters / 4, abs=1)
    copy = row(plan, "engine's copy of the weights")
    assert copy == {"generate": 2 * parameters, "hand over": 2 * parameters}
    native = row(planned("learner.zero=3", "rollout.engine=native"), "engine's copy of the weights")
    assert native["update"] == 2 * parameters  # it cannot sleep
    halves = row(planned("learner.zero=3", "rollout.tensor_parallel=2"), "engine's copy of the weights")
    assert halves["generate"] == parameters


def test_offloading_moves_the_optimizer_to_the_host():
    plan, parameters = planned("learner.offload=optimizer"), KNOWN["Qwen2.5-Math-7B"].parameters
    assert row(plan, "Adam moments") == {} and plan.host == 16 * parameters


def test_with_lora_only_adapters_have_gradients_and_an_optimizer_and_the_model_is_its_own_reference():
    shape, rank = KNOWN["Qwen2.5-Math-7B"], 16
    plan, whole = planned("learner.lora_rank=16", "loss.beta=0.1"), planned("loss.beta=0.1")
    widths = (3584 + 3584) * 2 + (3584 + 512) * 2 + (3584 + 18_944) * 3  # q and o; k and v; gate, up and down
    adapters = rank * 28 * widths
    assert row(plan, "adapters")["generate"] == 2 * adapters
    assert row(plan, "Adam moments")["update"] == adapters and row(plan, "fp32 masters")["update"] == adapters / 2
    assert row(plan, "weights") == row(whole, "weights")
    assert row(plan, "engine's copy of the weights")["generate"] == 2 * shape.parameters
    assert row(plan, "reference model") == {} and row(whole, "reference model")
    assert row(planned("learner.lora_rank=16", "loss.beta=0.1", "learner.zero=3"), "reference model")
    attention = planned("learner.lora_rank=16", "learner.lora_targets=[q_proj, v_proj]")
    assert row(attention, "adapters")["generate"] == 2 * rank * 28 * (3584 + 3584 + 3584 + 512)
    assert plan.times.phases["optimizer"] < whole.times.phases["optimizer"] / 100
    assert (
        whole.times.phases["forward and backward"] / 2
        < plan.times.phases["forward and backward"]
        < whole.times.phases["forward and backward"]
    )


def test_recompute_and_smaller_packs_need_less_in_the_backward_pass():
    sums = [total(planned(*settings).rows)["backward"] for settings in (("learner.recompute=false",), (), ("tokens_per_pack=8192",))]
    assert sums == sorted(sums, reverse=True) and sums[0] > 1.5 * sums[1]


def test_the_head_has_the_sizes_of_the_kernels():
    pytest.importorskip("triton")
    from fastgrpo_kernels import cuda_linear

    assert (activations.TILE_ROWS, activations.PANEL_ROWS) == (cuda_linear.TILE_ROWS, cuda_linear.PANEL_ROWS)


def test_the_buckets_are_those_of_the_learner():
    from fastgrpo.learner import deepspeed, zero_config

    assert (GENERAL["reduce_bucket"].value, GENERAL["push_bucket"].value) == (zero_config.REDUCE_BUCKET, deepspeed.GATHERED)


@pytest.mark.parametrize(
    ("settings", "gpus", "memory", "words"),
    [
        (("learner.recompute=false", "tokens_per_pack=24576"), 8, 79, "set learner.recompute=true"),
        (("tokens_per_pack=98304",), 8, 79, "set tokens_per_pack=16384"),
        (("learner.engine=native",), 8, 79, "set learner.engine=deepspeed learner.zero=2"),
        (("rollout.tensor_parallel=2", "rollout.cache_gib=2.0", "tokens_per_pack=4096"), 8, 38, "set learner.zero=3"),
        (("rollout.cache_gib=60.0",), 8, 79, "set rollout.cache_gib=8"),
        (("learner.zero=3", "learner.offload=optimizer", "tokens_per_pack=4096"), 8, 32, "set rollout.cache_gib=8.0"),
        (("learner.zero=3", "learner.offload=optimizer", "rollout.cache_gib=8.0"), 8, 28, "set rollout.tensor_parallel=2"),
        ((), 1, 79, "set learner.offload=optimizer"),
        (("learner.zero=0", "dtype=float32", "tokens_per_pack=4096"), 1, 100, "set learner.zero=1 learner.offload=optimizer"),
        (("learner.recompute=false", "learner.zero=1"), 2, 79, "no one setting is enough, set learner.recompute=true"),
        (("rollout.weights=shared", "rollout.cache_gib=2.0"), 8, 20, "no one setting is enough, set tokens_per_pack=4096 learner.zero=3"),
    ],
)
def test_what_does_not_fit_says_so_with_a_fix_that_fits_and_is_allowed(settings, gpus, memory, words):
    assume = (f"memory={memory}",)
    plan = planned(*settings, gpus=gpus, assume=assume)
    assert plan.fix.startswith(words)
    assert any("DOES NOT FIT" in line and plan.fix in line for line in report.lines(plan))
    fix = re.findall(r"[a-z_.]+=\S+", plan.fix)
    assert planned(*settings, *fix, gpus=gpus, assume=assume).fix == ""


def test_what_deepspeed_does_not_compute_is_no_fix():
    fix = planned("dtype=float64", "learner.engine=native", "rollout.engine=native").fix
    assert fix.startswith("no setting makes it fit")


def test_too_few_gpus_and_hopeless_cases_say_so():
    settings = ("learner.zero=3", "learner.offload=optimizer", "tokens_per_pack=4096", "rollout.tensor_parallel=2")
    fix = planned(*settings, gpus=2, assume=("memory=17",)).fix
    assert fix == "2 are too few, take --gpus 8 and set rollout.cache_gib=2.0"
    assert planned(*settings, "rollout.cache_gib=2.0", gpus=8, assume=("memory=17",)).fix == ""
    assert planned(gpus=1, assume=("memory=4",)).fix.startswith("no setting makes it fit")


@pytest.mark.parametrize("recipe", TRAINING.names())
def test_every_recipe_has_a_plan_and_fits_eight_gpus(recipe):
    plan = planned(recipe=recipe)
    assert plan.fix == "" and plan.times.hours > 0
    assert all(len(line) <= 160 for line in report.lines(plan))


def test_the_published_hours_stand_beside_the_prediction_of_that_recipe_alone():
    text = "\n".join(report.lines(planned()))
    assert re.search(r"published, by the paper's own code: 27 h, the prediction for this one is \d+% (less|more)", text)
    others = (planned(gpus=4), planned(gpu="h100"), planned("max_new_tokens=1000"), planned("model=Qwen/Qwen2.5-1.5B"))
    for other in (*others, planned(recipe="oat-zero-7b-r1")):
        assert "published" not in "\n".join(report.lines(other))


WHERE_IT_COUNTS = {
    "host_link": "learner.offload=optimizer",
    "host_bandwidth": "learner.offload=optimizer",
    "live_parameters": "learner.zero=3",
    "prefetch_bucket": "learner.zero=3",
    "push_bucket": "learner.zero=3",
    "step_overhead_native": "rollout.engine=native",
    "tflops_fp32": "dtype=float32",
    "eval_problems": "data.eval=[mine.jsonl]",
}


@pytest.mark.parametrize("name", [*GENERAL, *DEVICES["h100"]])
def test_every_assumption_can_be_replaced_and_changes_a_plan(name):
    settings = [WHERE_IT_COUNTS[name]] if name in WHERE_IT_COUNTS else []
    plain = planned(*settings)
    value = plain.assumptions[name].value * 0.9
    other = planned(*settings, assume=(f"{name}={value}",))
    assert (other.assumptions[name].value, other.assumptions[name].source) == (value, "given")
    assert (other.times, other.rows) != (plain.times, plain.rows)


@pytest.fixture
def fastgrpo():
    app = typer.Typer()
    app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_the_command_prints_a_plan_and_the_same_as_json(fastgrpo):
    text, found = fastgrpo("oat-zero-7b", "--gpu", "h100"), json.loads(fastgrpo("oat-zero-7b", "--gpu", "h100", "--json").stdout)
    assert f"{found['time']['hours']:.1f} h for 290 steps" in text.stdout
    assert found["memory"]["fits"] and found["step"]["responses_per_update"] == 128
    assert found["memory"]["sum"]["update"] == pytest.approx(sum(row.get("update", 0) for row in found["memory"]["rows"].values()))


def test_a_strict_plan_ends_with_1_where_it_does_not_fit_and_says_why_either_way(fastgrpo):
    for arguments, code in ((["--gpus", "1"], 0), (["--gpus", "1", "--strict"], 1), (["--strict"], 0)):
        done = fastgrpo("oat-zero-7b", *arguments)
        assert (done.exit_code, "DOES NOT FIT" in done.stdout) == (code, "1" in arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["oat-zero-9b"], "no file and no recipe 'oat-zero-9b'; did you mean oat-zero-7b?"),
        (["tiny", "stepz=3"], "unknown key 'stepz'; did you mean steps?"),
        (["tiny", "--gpu", "b200"], "--gpu b200: it must be one of a100-80g, h100, h200"),
        (["tiny", "--gpus", "0"], "--gpus 0: it must be at least 1"),
        (["oat-zero-7b", "--gpus", "3", "rollout.tensor_parallel=2"], "--gpus 3 is no multiple of rollout.tensor_parallel=2"),
        (["oat-zero-7b", "--gpus", "256"], "--gpus 256: a step has 128 prompts"),
        (["tiny", "model=a/b"], "model=a/b: its shape is not known here"),
        (["tiny", "--assume", "mfuu=0.4"], "there is no assumption 'mfuu'; did you mean mfu?"),
        (["tiny", "--assume", "mfu=40"], "--assume mfu=40: it must be a number above 0 and at most 1 (share of tflops)"),
        (["tiny", "--assume", "zero_signal=1"], "it must be a number at least 0 and below 1"),
        (["tiny", "--assume", "grading=nan"], "it must be a number above 0 (s per step)"),
    ],
)
def test_a_wrong_input_is_told_in_one_line(fastgrpo, arguments, words):
    error = fastgrpo(*arguments).exception
    assert isinstance(error, InputError) and error.exit_code == 2
    assert words in str(error) and "\n" not in str(error)


def test_a_plan_takes_less_than_a_second_and_neither_torch_nor_transformers():
    code = (
        "import sys; from fastgrpo.cli.plan import plan; plan(['oat-zero-7b'], 'a100-80g', 8, None, *[None] * 6, False, False);"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1

"""DeepSpeed's learner against the naive formula, in bfloat16, and what it does beside computing: in processes of its own, over gloo."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from forked_ranks import run_ranks
from optional import requires
from rollout.colocation import requires_vllm

from fastgrpo.config import load_config
from fastgrpo.config_sections import LearnerConfig
from fastgrpo.errors import InputError
from fastgrpo.learner.recompute import recompute_activations
from fastgrpo.learner.zero_config import zero_config
from fastgrpo.model import load_model
from fastgrpo.plan.algebra import batch_of
from fastgrpo.plan.assumptions import assumptions_for, values
from fastgrpo.plan.memory import memory, total
from fastgrpo.plan.shapes import shape_of

HERE = Path(__file__).parent
requires_deepspeed = requires("deepspeed")


@pytest.fixture(scope="module")
def untied_model_dir(tiny_model_dir, tmp_path_factory) -> Path:
    """The tiny model's shape with a head of its own."""
    from transformers import AutoConfig, Qwen2ForCausalLM

    directory, config = tmp_path_factory.mktemp("untied_model"), AutoConfig.from_pretrained(tiny_model_dir)
    config.tie_word_embeddings = False
    with torch.random.fork_rng():
        torch.manual_seed(1)
        Qwen2ForCausalLM(config).save_pretrained(directory)
    return directory


def start(ranks: int, program: str, *arguments) -> subprocess.CompletedProcess:
    done = run_ranks(ranks, HERE / program, *arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@requires_deepspeed
@pytest.mark.slow  # 70 s with 2 ranks on two busy cores; 35 s with one, 85 s with 4
@pytest.mark.parametrize("ranks", [2, *(pytest.param(ranks, marks=pytest.mark.long) for ranks in (1, 4))])
def test_any_zero_stage_cut_and_number_of_ranks_gives_the_naive_update_and_planted_bugs_are_seen(
    tiny_model_dir, untied_model_dir, tmp_path, ranks
):
    start(ranks, "exactness_program.py", tiny_model_dir, untied_model_dir, tmp_path / "errors.json")
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert len(errors["honest"]) >= 8 and len(errors["planted"]) >= 5 and len(errors["adamw"]) == 4
    for case, found in errors["honest"].items():
        assert max(found.values()) <= 1e-5, case
    assert max(errors["adamw"].values()) <= 1e-4
    for bug, found in errors["planted"].items():
        assert min(found.values()) > 1e-3, bug


@requires_deepspeed
@pytest.mark.slow  # 40 s on two busy cores; all of it 130 s
@pytest.mark.parametrize("extent", ["some", pytest.param("all", marks=pytest.mark.long)])
def test_two_ranks_clip_stop_restore_push_and_share_alike(tiny_model_dir, untied_model_dir, extent):
    done = start(2, "mechanics_program.py", tiny_model_dir, untied_model_dir, extent)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "OMP_NUM_THREADS" not in line and line.strip("* ")]
    assert said == ["all checked"], "DeepSpeed should be quiet"


@requires_deepspeed
@requires_vllm
@pytest.mark.slow  # 15 to 30 s each
@pytest.mark.parametrize(("zero", "weights"), [pytest.param(2, "shared", marks=pytest.mark.long), (3, "push")])
def test_the_real_engine_has_the_weights_of_every_update(zero, weights):
    assert "all checked" in start(2, "engine_program.py", zero, weights).stdout


@requires_deepspeed
@requires_vllm
@pytest.mark.long  # 15 to 40 s: three engines are built
def test_an_engine_that_failed_is_built_again_from_spread_weights():
    assert "all checked" in start(1, "rebuild_program.py").stdout


@requires_deepspeed
@pytest.mark.long  # 60 s
def test_bfloat16_adds_up_gradients_and_small_updates_in_float32(tiny_model_dir, tmp_path):
    start(2, "precision_program.py", tiny_model_dir, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["copy without masters"] < 0.5
    for zero in (1, 2, 3):
        of = found[f"zero {zero}"]
        lost = found["bfloat16 accumulation"] - of["one batch"]
        assert of["16 packs"] <= of["one batch"] + lost / 4 <= 1.1 * of["one batch"]
        assert abs(of["moved"] - 1) < 1e-3 and of["off"] < 1e-3


@pytest.fixture(scope="module")
def wide_model_dir(tmp_path_factory) -> tuple[Path, int]:
    """A model in bfloat16 that outweighs what DeepSpeed holds beside it; and its number of parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    directory = tmp_path_factory.mktemp("wide_model")
    config = Qwen2Config(
        vocab_size=1000, hidden_size=512, intermediate_size=2048, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2,
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = Qwen2ForCausalLM(config).bfloat16()
    model.save_pretrained(directory)
    return directory, sum(parameter.numel() for parameter in model.parameters())


LEARNERS = re.compile("weights|fp32 masters|Adam|gradients|bucket")


def planned_bytes(directory: Path, zero: int) -> dict[str, float]:
    """Bytes of the learner's own rows of the plan on two ranks, whose buckets are those of the program."""
    assume = values(assumptions_for("a100-80g", ["reduce_bucket=1e6"], 2))
    given = [f"model={directory}", "dtype=bfloat16", "learner.engine=deepspeed", f"learner.zero={zero}"]
    config = load_config("tiny", given).config
    rows = [row for row in memory(shape_of(str(directory), {})[0], config, batch_of(config, 2, assume), assume) if LEARNERS.match(row.name)]
    sums = total(rows)
    return {"kept": sums["generate"], "passes": max(sums["forward"], sums["backward"]), "update": sums["update"]}


@requires_deepspeed
@pytest.mark.long  # 20 to 50 s
def test_two_ranks_need_the_memory_of_the_plan_and_hold_no_copy_of_the_model_before_it_is_spread(wide_model_dir, tmp_path):
    directory, parameters = wide_model_dir
    start(2, "memory_program.py", directory, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["loading"] < parameters  # a copy in bfloat16 takes twice as much
    for zero in (1, 2, 3):
        for moment, size in planned_bytes(directory, zero).items():
            assert size == pytest.approx(found[f"zero {zero}, {moment}"], rel=0.02), (zero, moment)


@pytest.mark.parametrize(
    ("settings", "dtype", "message"),
    [
        ({"zero": 1}, torch.float64, "float32 or bfloat16, not in float64: set dtype, or learner.engine=native"),
        ({"zero": 0}, torch.bfloat16, "set learner.zero=1, or learner.engine=native"),
        ({"zero": 0, "offload": "optimizer"}, torch.float32, "learner.offload=optimizer needs learner.zero of 1 to 3, and zero is 0"),
        ({"zero": 2, "offload": "all"}, torch.bfloat16, "needs learner.zero=3, and zero is 2"),
    ],
)
def test_settings_that_deepspeed_does_not_compute_exactly_are_refused(settings, dtype, message):
    with pytest.raises(InputError, match=message):
        zero_config(LearnerConfig(**settings), dtype, 1.0)


def test_recomputed_layers_run_twice_and_keep_dropout_off(tiny_model_dir):
    model, runs = load_model(str(tiny_model_dir), "float32"), []
    recompute_activations(model)
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
        assert not any(module.training for module in layer.modules() if module is not layer)
    loss = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False).logits.sum()
    assert len(runs) == 2
    loss.backward()
    assert len(runs) == 4


@requires_deepspeed
@pytest.mark.long  # 20 to 40 s
def test_adapters_are_trained_exactly_at_every_zero_stage_and_handed_out_merged(tiny_model_dir):
    pytest.importorskip("peft")
    assert "all checked" in start(2, "lora_program.py", tiny_model_dir).stdout

"""TRL's real GRPOTrainer with our loss: the same losses, gradients, metrics, samples and weights as without it, in less memory."""

import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from optional import requires

from fastgrpo.errors import InputError, SetupError

pytestmark = [requires("trl"), pytest.mark.slow]  # importing trl alone takes 20 s here
ROOT = Path(__file__).parents[2]
TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo")
BOUNDS = {"epsilon": 0.02, "epsilon_high": 0.03}  # tight enough to clip
KL = {"beta": 0.1, "use_bias_correction_kl": False}
BONUS = {"entropy_coef": 0.02}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[bool, Path]:
    """A tiny model each, by whether embeddings and head are tied."""
    from trl_runs import save_model

    return {tied: save_model(tmp_path_factory.mktemp("tied" if tied else "untied"), tied) for tied in (True, False)}


def settings_of(loss_type: str) -> dict:
    return {"loss_type": loss_type} | ({"epsilon_high": 1.02} if loss_type == "cispo" else {} if loss_type == "sapo" else BOUNDS)


LOSSES = [  # (loss_type, settings of TRL, what is special in the batch): every pair of neighbours among kinds, terms and weights
    *((name, {}, {}) for name in TYPES),
    *((name, {}, {"on_policy": True, "vllm": "token"}) for name in TYPES),
    ("grpo", {"delta": 1.4}, {"vllm": "token", "tools": True}),
    ("grpo", KL, {"per_token": True}),
    ("grpo", BONUS, {"vllm": "sequence"}),
    ("grpo", {"temperature": 0.7}, {"tools": True, "softcap": True}),
    ("bnpo", BONUS | {"delta": 1.2}, {"tools": True}),
    ("dr_grpo", KL | {"temperature": 1.3}, {"vllm": "sequence", "tools": True}),
    ("dapo", BONUS, {"per_token": True, "on_policy": True}),
    ("dapo", KL, {"eval": True}),
    ("luspo", KL, {"on_policy": True}),
    ("cispo", KL, {"tools": True, "vllm": "token"}),
    ("cispo", BONUS, {"bias": True}),
    ("sapo", KL | {"sapo_temperature_neg": 1.5, "sapo_temperature_pos": 0.8}, {"vllm": "token"}),
    ("sapo", BONUS, {"eval": True}),
    ("grpo", {"importance_sampling_level": "sequence"}, {"vllm": "sequence"}),
    ("luspo", {"importance_sampling_level": "sequence", "delta": 1.4}, {}),
    ("grpo", {"beta": 0.1}, {"tools": True}),  # TRL's default KL, corrected by the ratio
]


def trainers(folder: Path, case: dict, loss: str = "fused", **settings):
    """Two trainers around equal models, the second with our loss."""
    from trl_runs import make_trainer

    from fastgrpo.integrations.trl import use_fused_loss

    found = []
    for _ in range(2):
        before = None
        if case.get("softcap"):
            before = {"final_logit_softcapping": 2.0, "logit_scale": 0.5}
        found.append(make_trainer(folder, change=before, head_bias=case.get("bias", False), **settings))
    return found[0], use_fused_loss(found[1], loss)


def assert_same_outcome(plain, fused, case: dict) -> None:
    from trl_losses import inputs_of, outcome
    from trl_runs import relative

    inputs = inputs_of(plain, case)
    inputs_of(fused, case)  # for its settings
    loss, gradient, metrics = outcome(plain, inputs, not case.get("eval"))
    got_loss, got_gradient, got_metrics = outcome(fused, inputs, not case.get("eval"))
    assert abs(got_loss - loss) <= 1e-5 * max(abs(loss), 1e-3)
    assert gradient.norm() > 0 and relative(got_gradient, gradient) <= 1e-5
    assert got_metrics.keys() == metrics.keys() and "entropy" in metrics
    for name, values in metrics.items():
        assert got_metrics[name] == pytest.approx(values, rel=1e-5, abs=1e-6, nan_ok=True), name


@pytest.mark.parametrize(("loss_type", "settings", "case"), LOSSES)
def test_loss_gradient_and_metrics_are_those_of_trl(folders, loss_type, settings, case):
    plain, fused = trainers(folders[bool(case.get("tools"))], case, **(settings_of(loss_type) | settings))
    assert_same_outcome(plain, fused, case)


def test_under_autocast_the_loss_is_that_of_trl_but_for_rounding(folders):
    from trl_losses import inputs_of, outcome
    from trl_runs import relative

    plain, fused = trainers(folders[False], {}, loss_type="dr_grpo", bf16=True)
    inputs = inputs_of(plain, {})
    loss, gradient, _ = outcome(plain, inputs)
    got_loss, got_gradient, _ = outcome(fused, inputs)
    assert got_loss == pytest.approx(loss, rel=0.05) and relative(got_gradient, gradient) <= 0.05
    assert relative(got_gradient, gradient) > 0  # bfloat16 logits there, float32 here


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "vespo"},
        {"loss_type": "grpo", "top_entropy_quantile": 0.4},
        {"loss_type": "dapo", "off_policy_mask_threshold": 0.05},
        {"loss_type": "grpo", "beta": 0.1, "entropy_coef": 0.1, "delta": 1.1},
    ],
)
def test_trl_computes_any_of_its_losses_on_fused_logprobs(folders, settings):
    assert_same_outcome(*trainers(folders[True], {}, loss="trl", **settings), {"tools": True})


RUNS = [  # (loss_type, tied, accumulation, settings): each pair of values once
    ("grpo", True, 4, KL),
    ("bnpo", False, 1, BONUS),
    ("dr_grpo", True, 1, {"delta": 1.05, "temperature": 0.8}),
    ("dapo", False, 4, {"num_iterations": 1, "steps_per_generation": 8, "mask_truncated_completions": True}),
    ("cispo", True, 4, BONUS),
    ("sapo", False, 1, {"num_iterations": 3}),
    ("grpo", False, 1, {"importance_sampling_level": "sequence"}),
]


def assert_same_training(folder: Path, loss_type: str, accumulation: int, **settings) -> None:
    from trl_runs import assert_same_run, recorded_run

    plain, fused = trainers(folder, {}, accumulation=accumulation, **(settings_of(loss_type) | settings))
    assert_same_run(recorded_run(fused), recorded_run(plain))


@pytest.mark.parametrize(("loss_type", "tied", "accumulation", "settings"), RUNS)
def test_five_steps_sample_the_same_tokens_and_end_at_the_same_weights(folders, loss_type, tied, accumulation, settings):
    assert_same_training(folders[tied], loss_type, accumulation, **settings)


@pytest.mark.long
@pytest.mark.parametrize(("loss_type", "tied", "accumulation"), list(itertools.product(TYPES, (True, False), (1, 4))))
def test_five_steps_of_every_loss_type_tied_and_untied_with_and_without_accumulation(folders, loss_type, tied, accumulation):
    for settings in ({}, KL):
        assert_same_training(folders[tied], loss_type, accumulation, **settings)


def test_adapters_are_trained_as_trl_trains_them_and_the_reference_is_the_model_without(folders):
    peft = pytest.importorskip("peft")
    from trl_runs import assert_same_run, recorded_run

    adapter = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    plain, fused = trainers(folders[True], {}, accumulation=2, peft_config=adapter, **(settings_of("grpo") | KL))
    assert plain.ref_model is None
    assert_same_run(recorded_run(fused), recorded_run(plain))


def test_the_loss_phase_takes_a_quarter_of_trls_memory_at_a_vocabulary_of_32k(tmp_path):
    from trl_runs import make_trainer, save_model

    from fastgrpo.integrations.trl import use_fused_loss

    spec = importlib.util.spec_from_file_location("measure", ROOT / "bench" / "measure.py")
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    folder, rows, length = save_model(tmp_path, tied=True, vocabulary=32_000), 4, 256
    ids = torch.randint(2, 32_000, (rows, length), generator=torch.Generator().manual_seed(0))
    inputs = {"prompt_ids": ids[:, :8], "completion_ids": ids, "advantages": torch.tensor([1.0, -1.0, 0.5, -0.5])}
    inputs |= {"prompt_mask": torch.ones_like(ids[:, :8]), "completion_mask": torch.ones_like(ids)}
    peaks = []
    for prepare in (lambda trainer: trainer, use_fused_loss):
        trainer = prepare(make_trainer(folder, samples=2, rows=rows, loss_type="dr_grpo"))
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        peaks.append(measure.peak_extra_mib(lambda trainer=trainer: trainer.compute_loss(trainer.model, inputs).backward()))
    assert peaks[1] * 4 <= peaks[0], peaks


@pytest.mark.long  # 20 s each of imports, and of two runs
@pytest.mark.parametrize(("how", "compared"), [("ddp", ("losses", "norms")), ("zero3", ("losses", "norms")), ("fsdp", ("gradient",))])
def test_two_ranks_train_the_same_with_replicas_and_shards(folders, how, compared):
    if how == "zero3":
        pytest.importorskip("deepspeed")
    program = Path(__file__).with_name("trl_ranks_program.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", str(program), str(folders[False]), how]
    paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found = json.loads(lines[0].removeprefix("RESULT "))
    assert found["size"] > 0 and all(found[name] <= 1e-5 for name in compared), found


REFUSED = [
    ({"loss_type": "vespo"}, "loss_type='vespo'"),
    ({"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2"),
    ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold=0.5"),
    ({"use_adaptive_entropy": True}, "use_adaptive_entropy=True"),
    ({"use_liger_kernel": True}, "use_liger_kernel=True"),
    (KL | BONUS, "entropy_coef=0.02"),
    ({"loss_type": "cispo"}, "epsilon_high=0.2"),
    ({"delta": 1.1}, "delta=1.1 must exceed"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_is_not_computed_is_refused_before_training(folders, settings, message):
    from trl_runs import make_trainer

    from fastgrpo.integrations.trl import use_fused_loss

    with pytest.raises(InputError, match=message):
        use_fused_loss(make_trainer(folders[True], **settings))


def test_other_trainers_heads_and_versions_are_refused(folders, monkeypatch):
    from trl_runs import make_trainer

    from fastgrpo.integrations.trl import use_fused_loss

    trainer = make_trainer(folders[True])
    with pytest.raises(InputError, match="loss='liger' is unknown"):
        use_fused_loss(trainer, "liger")
    with pytest.raises(InputError, match=r"takes a trl\.GRPOTrainer, got Linear"):
        use_fused_loss(torch.nn.Linear(1, 1))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.17.0")
    with pytest.raises(SetupError, match=r"trl 1\.17\.0 is installed, this was made for 1\.16"):
        use_fused_loss(trainer)
    monkeypatch.undo()
    with pytest.raises(InputError, match="once"):
        use_fused_loss(use_fused_loss(trainer))

    other = make_trainer(folders[True])
    other.__class__ = type("Mine", (type(other),), {"_compute_loss": lambda self, model, inputs: math.nan})
    with pytest.raises(InputError, match="Mine has a _compute_loss of its own"):
        use_fused_loss(other)
    headless = make_trainer(folders[False])
    headless.model.lm_head = torch.nn.Sequential(headless.model.lm_head)
    with pytest.raises(InputError, match=r"head is a Sequential"):
        use_fused_loss(headless)

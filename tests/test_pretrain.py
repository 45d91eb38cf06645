"""`fastgrpo pretrain`: the gradient of plain cross-entropy over any packs and ranks, resumed bit for bit, learning, a model to go on."""

import json
from pathlib import Path

import pytest
import torch
from exactness import float64_model, relative
from forked_ranks import run_ranks
from optional import requires
from outcomes import differences, outcome, rows
from pretrain_program import gradients_of
from test_cli import fastgrpo
from test_trainer import Silent, easy_reward, letter_problems
from test_trainer import run as train
from torch.nn import functional as F

from fastgrpo.config import load_config
from fastgrpo.config_pretrain import PretrainConfig
from fastgrpo.errors import HealthError, InputError, Preempted
from fastgrpo.faults import InjectedFault
from fastgrpo.launch_pretraining import launch_pretraining
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.ranks import Ranks
from fastgrpo.texts import load_texts, worked_texts
from fastgrpo.windows import draw_updates, make_windows

__all__ = ["easy_reward", "letter_problems"]
TESTS = Path(__file__).parent


@pytest.fixture
def settings(tmp_path, tiny_model_dir):
    """Ten updates over three epochs of 30 texts, one of them longer than two windows."""
    texts = [{"problem": f"{n} and {n} is", "answer": f"{2 * n}" + " or so" * (40 if n == 8 else n % 5)} for n in range(30)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    source = tmp_path / "texts.jsonl"
    given = [f"model={tiny_model_dir}", f"data.train={source}", f"data.eval={source}", 'data.separator=" "', "epochs=3"]
    return [*given, "context=100", "tokens_per_update=300", "lr=1e-3", "warmup=2", "checkpoint.every=2", "eval.every=3"]


@pytest.fixture
def run(tmp_path, settings, monkeypatch):
    """Runs it into the directory of that name; gives back the summary and the directory."""

    def start(name, *own, resume="never", faults=""):
        monkeypatch.setenv("FASTGRPO_FAULTS", faults)
        resolved = load_config("tiny-text", [*settings, f"run_dir={tmp_path / name}", *own], PretrainConfig)
        return launch_pretraining(resolved, Silent(), resume)

    return start


def written_out(settings, model) -> tuple[torch.Tensor, float]:
    """Gradient and loss of the first update: mean cross-entropy over all its tokens, each window alone through the plain model."""
    config = load_config("tiny-text", settings, PretrainConfig).config
    texts = load_texts(config.data.train[0], config.data).texts
    windows = make_windows(texts, load_tokenizer(config.model), config.context, Ranks())
    updates = config.epochs * windows.predicted // config.tokens_per_update
    chosen = [windows[window] for window in next(draw_updates(windows.lengths, config.epochs, config.seed, updates))]
    model.set_attn_implementation("sdpa")
    logits = torch.cat([model(input_ids=torch.tensor([ids[:-1]]), use_cache=False).logits[0] for ids in chosen])
    loss = F.cross_entropy(logits, torch.tensor([token for ids in chosen for token in ids[1:]]))
    loss.backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()]), loss.item()


def test_the_gradient_is_that_of_plain_cross_entropy_whatever_the_packs(settings, tmp_path, tiny_model_dir):
    want, loss = written_out(settings, float64_model(tiny_model_dir))
    for budget in (1, 64, 4096):
        found = gradients_of([*settings, f"run_dir={tmp_path / str(budget)}", f"tokens_per_pack={budget}"])
        assert relative(found[0], want) <= 1e-12
        first = next(row for row in rows(tmp_path / str(budget)) if row.get("step") == 1)
        assert first["loss"] == pytest.approx(loss, rel=1e-12) and first["grad_norm"] == pytest.approx(want.norm().item(), rel=1e-12)


@pytest.mark.slow  # 12 s
def test_the_gradients_of_two_ranks_are_those_of_one(settings, tmp_path, tiny_model_dir):
    alone = gradients_of([*settings, f"run_dir={tmp_path / 'alone'}"])
    own = [f"run_dir={tmp_path / 'two'}", "tokens_per_pack=80"]
    done = run_ranks(2, TESTS / "pretrain_program.py", tmp_path / "found.pt", *settings, *own)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "found.pt")
    assert relative(found[0], written_out(settings, float64_model(tiny_model_dir))[0]) <= 1e-12
    assert max(relative(mine, theirs) for mine, theirs in zip(found, alone, strict=True)) <= 1e-10  # later ones went through Adam
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "alone"), rel=1e-10)


def losses(directory: Path) -> list[float]:
    """Of updates, and of texts held out where they were measured."""
    return [found["loss"] for row in rows(directory) for found in row.get("evaluation", {"": row}).values()]


def test_a_run_says_what_it_did(run):
    summary, directory = run("run")
    steps = [row for row in rows(directory) if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, summary["steps"] + 1))
    assert sum(row["tokens"] for row in steps) == summary["tokens"] and summary["tokens"] / summary["steps"] >= 300
    assert [row["step"] for row in rows(directory) if "evaluation" in row] == [0, 3, 6, 9, summary["steps"]] == [0, 3, 6, 9, 10]
    assert steps[0]["lr"] == 5e-4 and steps[1]["lr"] > steps[-1]["lr"] > 0
    assert json.loads((directory / "summary.json").read_text()) == summary
    assert "1 of 30 texts are longer than context=100 and were cut" in (directory / "logs" / "rank_0.log").read_text()


def comparable(directory):
    """Without the speed."""
    found = outcome(directory)
    return found | {"rows": [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found["rows"]]}


@pytest.mark.parametrize("fault", ["learn@1:0:raise", "learn@4:0:raise", "save@4:0:raise", "evaluate@6:0:raise", "learn@5:0:stop"])
def test_a_resumed_run_ends_as_one_that_was_never_interrupted(run, fault):
    _, undisturbed = run("undisturbed")
    with pytest.raises(Preempted if "stop" in fault else InjectedFault):
        run("run", faults=fault)
    _, directory = run("run", resume="auto")
    assert differences(comparable(undisturbed), comparable(directory)) == []


def test_other_texts_or_settings_are_another_run(run, tmp_path):
    run("run")
    with pytest.raises(InputError, match=r"epochs: 3 -> 4"):
        run("run", "epochs=4", resume="auto")
    (tmp_path / "texts.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(InputError, match=r"texts\.jsonl changed since"):
        run("run", resume="auto")


def test_a_gradient_that_is_not_finite_is_skipped_and_too_many_end_the_run(run):
    _, directory = run("run", faults="learn@2:0:nan")
    skipped = next(row for row in rows(directory) if row.get("skipped"))
    assert (skipped["step"], skipped["loss"]) == (2, None)
    with pytest.raises(HealthError, match="3 updates in a row"):
        run("other", faults="learn@*:0:nan")


def test_passes_that_do_not_fit_are_made_in_parts(run):
    _, whole = run("whole", "epochs=1")
    _, parts = run("parts", "epochs=1", faults="memory@150:0:oom")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4) and any("out_of_memory" in row for row in rows(parts))


def test_it_learns_and_reinforcement_learning_goes_on_from_it(run, tmp_path, tiny_model_dir, letter_problems, easy_reward):
    """Measured on exercises that are not those it reads."""
    for split, count in (("train", 600), ("heldout", 60)):
        texts = [{"text": "".join(text)} for text in worked_texts(split, "\n")[:count]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    own = (f"data.train={tmp_path / 'train.jsonl'}", f"data.eval={tmp_path / 'heldout.jsonl'}", "epochs=1", "tokens_per_update=4096")
    summary, directory = run("run", *own, "context=256", "eval.every=0", "checkpoint.every=0", "lr=1e-2")
    (before,), (after,) = summary["loss_before"].values(), summary["loss_after"].values()
    assert before > 6 and after < 3
    model = load_model(str(directory / "checkpoints" / "latest"), "float32")
    assert not torch.equal(model.lm_head.weight, load_model(str(tiny_model_dir), "float32").lm_head.weight)
    train(tmp_path, directory / "checkpoints" / "latest", letter_problems, "steps=1", name="rl")
    assert (tmp_path / "rl" / "summary.json").exists()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("context=2000", "context=2000 exceeds the model's context of 1024"),
        ("data.answer=solution", "no column 'solution'; it has answer, problem"),
        ("model=/no/such/dir", "model=/no/such/dir: no such directory"),
    ],
)
def test_what_cannot_be_used_is_told_before_a_run_directory_exists(run, tmp_path, own, words):
    with pytest.raises(InputError, match=words):
        run("run", own, "tokens_per_update=4000")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # 25 s on two busy cores
@pytest.mark.parametrize(
    "engine",
    [
        (),
        pytest.param(("learner.engine=deepspeed", "learner.zero=3"), marks=[pytest.mark.long, requires("deepspeed")]),
    ],
    ids=["native", "zero3"],
)
def test_the_command_on_two_ranks(settings, tmp_path, run, engine):
    _, one = run("one")
    done = fastgrpo("pretrain", "tiny-text", *settings, f"run_dir={tmp_path / 'two'}", "--gpus", "2", *engine)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(one), rel=1e-4)
    assert sorted(path.name for path in (tmp_path / "two" / "logs").iterdir()) == ["rank_0.log", "rank_1.log"]

"""Runs of TRL's real GRPOTrainer on a tiny model on the CPU, with everything recorded that must be the same with and without our loss."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TrainerCallback, set_seed

WORDS, PROMPTS, STEPS, SEED = 24, 24, 5, 3
LEARNING_RATE = 1e-3
BOUNDS = {"epsilon": 0.02, "epsilon_high": 0.03}  # tight enough to clip
SPENT = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")


def save_model(folder: Path, tied: bool, vocabulary: int = WORDS, hidden: int = 32) -> Path:
    """A random Qwen2 of two layers and a tokenizer of words `w2`, `w3`, ..., where `<end>` is 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<end>": 0, "<unknown>": 1} | {f"w{index}": index for index in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def half_are_even(completion_ids, prompts, **columns) -> list[float]:
    """The share of even tokens; the same for all responses to a prompt that begins with w2: a third of the groups has no signal."""
    pairs = zip(completion_ids, prompts, strict=True)
    return [0.5 if prompt.startswith("w2 ") else sum(token % 2 == 0 for token in ids) / len(ids) for ids, prompt in pairs]


def make_model(folder: Path, change: dict | None = None, head_bias: bool = False) -> Qwen2ForCausalLM:
    """change: attributes of the configuration, as of an architecture that scales its logits."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, value in (change or {}).items():
        setattr(model.config, name, value)
    if head_bias:
        model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, len(model.lm_head.weight)))
    return model


def make_trainer(
    folder: Path,
    accumulation: int = 1,
    samples: int = 4,
    rows: int = 8,
    budget: int = 12,
    peft_config=None,
    change: dict | None = None,
    head_bias: bool = False,
    **settings,
):
    """A GRPOTrainer of `rows` responses a micro-batch, `samples` a prompt; settings are GRPOConfig's."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    prompts = [" ".join([f"w{2 + index % 3}", *(f"w{2 + index % 20}" for _ in range(1 + index % 4))]) for index in range(PROMPTS)]
    defaults = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": accumulation,
        "num_generations": samples,
        "max_completion_length": budget,
        "max_steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "num_iterations": 2,  # so that ratios leave 1
        "seed": SEED,
    }
    with quiet():
        return GRPOTrainer(
            model=make_model(folder, change, head_bias),
            reward_funcs=half_are_even,
            args=GRPOConfig(**(defaults | settings)),
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
            peft_config=peft_config,
        )


@contextlib.contextmanager
def quiet():
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Recorded:
    """tokens and losses a micro-batch each, gradients an optimizer step each, deltas of the trained weights, metrics a log line each."""

    tokens: list[list[list[int]]]
    losses: list[float]
    gradients: list[torch.Tensor]
    deltas: torch.Tensor
    metrics: list[dict[str, float]]


def recorded_run(trainer) -> Recorded:
    tokens, losses, gradients = [], [], []
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]

    def flat(tensors) -> torch.Tensor:
        return torch.cat([tensor.detach().double().flatten() for tensor in tensors])

    class Gradients(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **others):
            gradients.append(flat(torch.zeros_like(p) if p.grad is None else p.grad for p in trained))

    generate, step = trainer._generate_and_score_completions, trainer.training_step

    def recording_generate(inputs):
        batch = generate(inputs)
        tokens.append((batch["completion_ids"] * batch["completion_mask"]).tolist())
        return batch

    def recording_step(*arguments):
        losses.append(step(*arguments).item())
        return torch.tensor(losses[-1])

    trainer._generate_and_score_completions, trainer.training_step = recording_generate, recording_step
    trainer.add_callback(Gradients())
    before = flat(trained)
    set_seed(SEED)
    with quiet():
        trainer.train()
    metrics = [{name: value for name, value in line.items() if name not in SPENT} for line in trainer.state.log_history[:-1]]
    return Recorded(tokens, losses, gradients, flat(trained) - before, metrics)


def recorded_losses(trainer) -> list[float]:
    """Trains, and returns the losses alone: of this rank's micro-batches."""
    losses, step = [], trainer.training_step

    def recording_step(*arguments):
        losses.append(step(*arguments).item())
        return torch.tensor(losses[-1])

    trainer.training_step = recording_step
    set_seed(SEED + trainer.args.process_index)
    with quiet():
        trainer.train()
    return losses


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


def assert_same_run(got: Recorded, want: Recorded) -> None:
    assert got.tokens == want.tokens
    largest = max(map(abs, want.losses))
    assert max(abs(a - b) for a, b in zip(got.losses, want.losses, strict=True)) <= 1e-5 * largest
    assert len(got.gradients) == len(want.gradients) == STEPS and largest > 0
    for a, b in zip(got.gradients, want.gradients, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()  # both 0 where no group had a signal
    assert want.deltas.abs().max() > LEARNING_RATE and relative(got.deltas, want.deltas) <= 1e-4
    assert len(got.metrics) == len(want.metrics)
    for a, b in zip(got.metrics, want.metrics, strict=True):
        assert a.keys() == b.keys()
        for name in b:
            assert abs(a[name] - b[name]) <= 1e-5 * max(1.0, abs(b[name])), name

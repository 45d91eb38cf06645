"""The small base model of the `tiny` recipe: made on first use from question-answer text, which it reads once in the given order."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.arithmetic import exercises, imperfect_answer
from fastgrpo.schedule import learning_rate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class BaseRecipe:
    """The built-in base model: a Qwen2 of 0.5 M parameters and the text it reads once, about a minute on two CPU cores."""

    texts: int = 20_000
    texts_per_update: int = 16
    lr: float = 3e-3
    warmup: int = 20
    vocabulary: int = 512
    hidden: int = 96
    intermediate: int = 288
    layers: int = 4
    heads: int = 3
    kv_heads: int = 3
    initializer_range: float = 0.09  # about 1 / sqrt(hidden); with the usual 0.02 a minute is too short to learn to add
    seed: int = 0


def base_model_directory(cache: Path, say: Callable[[str], None], recipe: BaseRecipe | None = None) -> Path:
    """The directory of the built-in base model, made on first use. The key is the text it reads and its settings."""
    recipe = recipe or BaseRecipe()
    corpus = question_answer_texts(recipe.texts, recipe.seed)
    key = hashlib.sha256(json.dumps([asdict(recipe), corpus]).encode()).hexdigest()[:16]
    directory = cache / f"base-{key}"
    if (directory / "config.json").exists():
        say(f"base model: {directory} (from the cache)")
        return directory
    say(f"base model: made once from {recipe.texts} question-answer texts, about a minute")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=cache) as scratch:
        unfinished = Path(scratch) / directory.name
        _make_base(unfinished, corpus, recipe, say)
        try:
            os.rename(unfinished, directory)
        except OSError:  # another process was first: the key says that its model is the same
            if not (directory / "config.json").exists():
                raise
    return directory


def question_answer_texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Questions of the train split, each with an answer that is right less than half of the time."""
    rng = random.Random(seed)
    return [(drawn.problem, imperfect_answer(drawn, rng)) for drawn in islice(exercises("train", seed), count)]


def _make_base(directory: Path, corpus: Sequence[tuple[str, str]], recipe: BaseRecipe, say: Callable[[str], None]) -> None:
    from fastgrpo.windows import encode

    model, tokenizer = untrained(directory, corpus, recipe)
    train_on_text(model, list(encode(corpus, tokenizer)), recipe, say)
    model.save_pretrained(directory)


def untrained(directory: Path, corpus: Sequence[tuple[str, str]], recipe: BaseRecipe):
    """A model that has read nothing, and the tokenizer of its corpus; of the model only the config is written to `directory`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from fastgrpo.attention import ATTENTION, register_attention
    from fastgrpo.model import load_tokenizer, prepare

    config = Qwen2Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        initializer_range=recipe.initializer_range,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=0,  # END, the first of the tokenizer
        pad_token_id=0,
        bos_token_id=None,
    )
    config.save_pretrained(directory)
    _make_tokenizer(corpus[: len(corpus) // 10], recipe.vocabulary).save_pretrained(directory)
    tokenizer = load_tokenizer(str(directory))  # as everyone will load it: its class follows from the model's config
    register_attention()
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        config._attn_implementation = ATTENTION
        model = prepare(Qwen2ForCausalLM(config))
    return model, tokenizer


def train_on_text(model, encoded: Sequence[Sequence[int]], recipe: BaseRecipe, say: Callable[[str], None]) -> None:
    """One pass over tokenised texts in their order."""
    from fastgrpo.config_pretrain import PretrainConfig
    from fastgrpo.learner.native import NativeLearner
    from fastgrpo.packing import pack
    from fastgrpo.windows import text_sequences

    count = recipe.texts_per_update
    lr_at = learning_rate(recipe.lr, recipe.warmup, "linear", math.ceil(len(encoded) / count))
    learner = NativeLearner(model, PretrainConfig.loss, PretrainConfig.temperature, lr_at, grad_clip=1.0)
    for start in range(0, len(encoded), count):
        learner.update(pack(text_sequences(encoded[start : start + count]), tokens_per_pack=8192))
        if learner.updates % 200 == 0:
            say(f"base model: {learner.updates * count} of {len(encoded)} texts")


def _make_tokenizer(corpus: Sequence[tuple[str, str]], vocabulary: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer that keeps digits apart and `\\boxed{` together; any text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 1, initial_alphabet=alphabet, special_tokens=[END], show_progress=False)
    tokenizer.train_from_iterator((text for pair in corpus for text in pair), trainer)
    tokenizer.add_tokens(["\\boxed{"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)

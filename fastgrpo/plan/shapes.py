"""The shape of a model: what memory and time depend on. From a table of known models, a local config.json, or given by hand.

What would surprise: a model that is not on this disk is known by its name, so `./models/Llama-3.2-3B-NuminaQA`, which does not exist
yet, has the shape of Llama-3.2-3B. Nothing is downloaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

from fastgrpo.errors import InputError


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of Llama's kind: RMSNorm, gated MLP, grouped-query attention. Widths in elements; qkv_bias 1 where q, k, v have one."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: int
    qkv_bias: int

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        attention = 2 * self.hidden * self.queries + 2 * self.hidden * self.keys + self.qkv_bias * (self.queries + 2 * self.keys)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        """Of one (V, H) matrix: the output head, or the input embedding."""
        return self.vocabulary * self.hidden

    @property
    def body_parameters(self) -> int:
        """Everything that every token passes through: without head and embedding."""
        return self.layers * self.layer_parameters + self.hidden

    @property
    def parameters(self) -> int:
        return self.body_parameters + self.head_parameters * (1 if self.tied else 2)


KNOWN = {  # from each model's config.json on the Hub; builtin:base is made by fastgrpo.base_model
    "Qwen2.5-Math-1.5B": Shape(1536, 8960, 28, 12, 2, 128, 151_936, 1, 1),
    "Qwen2.5-Math-7B": Shape(3584, 18_944, 28, 28, 4, 128, 152_064, 0, 1),
    "Qwen2.5-1.5B": Shape(1536, 8960, 28, 12, 2, 128, 151_936, 1, 1),
    "Qwen2.5-7B": Shape(3584, 18_944, 28, 28, 4, 128, 152_064, 0, 1),
    "Llama-3.2-3B": Shape(3072, 8192, 28, 24, 8, 128, 128_256, 1, 0),
    "FineMath-Llama-3B": Shape(3072, 8192, 28, 24, 8, 128, 128_256, 1, 0),  # Llama-3.2-3B, pretrained further
    "Llama-3.1-8B": Shape(4096, 14_336, 32, 32, 8, 128, 128_256, 0, 0),
    "builtin:base": Shape(96, 288, 4, 3, 3, 32, 512, 1, 1),
}
NAMES = tuple(field.name for field in fields(Shape))
_CONFIG_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def shape_of(model: str, given: dict[str, int]) -> tuple[Shape, str]:
    """The shape of a model and where it is from, in words. `given` holds fields of Shape that win over everything else.

    Raises InputError, in one line, where the shape is not known: the answer is a local config.json or the missing fields.
    """
    found, source = _lookup(model)
    if given:
        source = f"{source}, with {', '.join(f'{name} {value}' for name, value in given.items())} as given" if found else "as given"
        found = {**found, **given}
        found.setdefault("head_dim", found.get("hidden", 0) // found.get("heads", 1))
        found.setdefault("kv_heads", found.get("heads"))
        found = {"tied": 0, "qkv_bias": 0, **found}
    missing = [name for name in NAMES if not found.get(name) and name not in ("tied", "qkv_bias")]
    if missing:
        options = " ".join(f"--{name.replace('_', '-')} N" for name in missing if name not in ("head_dim", "kv_heads"))
        raise InputError(
            f"model={model}: its shape is not known here, and plan looks nothing up on the Hub; "
            f"give a directory with its config.json, or {options}; known are {', '.join(KNOWN)}"
        )
    return Shape(**{name: found[name] for name in NAMES}), source


def _lookup(model: str) -> tuple[dict[str, int], str]:
    if Path(model).is_dir():
        return _from_config(Path(model) / "config.json"), f"{model}/config.json"
    name = PurePosixPath(model).name.lower()
    for known in sorted(KNOWN, key=len, reverse=True):
        if name == known.lower() or name.startswith(f"{known.lower()}-"):
            return {field: getattr(KNOWN[known], field) for field in NAMES}, f"that of {known}, by its name"
    return {}, ""


def _from_config(path: Path) -> dict[str, int]:
    try:
        config = json.loads(path.read_text())
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object")
        hidden, intermediate, layers, heads, vocabulary = (int(config[key]) for key in _CONFIG_KEYS)
        return {
            "hidden": hidden,
            "intermediate": intermediate,
            "layers": layers,
            "heads": heads,
            "kv_heads": config.get("num_key_value_heads") or heads,
            "head_dim": config.get("head_dim") or hidden // heads,
            "vocabulary": vocabulary,
            "tied": int(config.get("tie_word_embeddings", False)),
            "qkv_bias": int(config.get("attention_bias", config.get("model_type") == "qwen2")),
        }
    except KeyError as error:
        raise InputError(f"{path} has no {error.args[0]}: it must be the config.json of a Llama or Qwen2 model") from error
    except (OSError, ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path} cannot be read as a model's config.json: {getattr(error, 'strerror', None) or error}") from error

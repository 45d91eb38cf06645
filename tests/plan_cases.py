"""Plans for tests: of a recipe with some settings, on some GPUs, under some assumptions."""

from fastgrpo.config import load_config
from fastgrpo.plan import make_plan

SAME_LENGTH = ("length_sigma=1e-9", "mean_response_tokens=800", "prompt_tokens=150", "zero_signal=0.4")


def planned(*settings: str, recipe: str = "oat-zero-7b", gpu: str = "a100-80g", gpus: int = 8, assume: tuple[str, ...] = ()):
    return make_plan(load_config(recipe, settings), gpu, gpus, {}, assume)

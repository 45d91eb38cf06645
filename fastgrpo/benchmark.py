"""`fastgrpo eval`: a model, a run or a server on problem sets; accuracies beside the published ones, every prediction kept.

All is written below one directory, named after what was measured: the same command goes on where it stopped, another protocol is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fastgrpo.accuracy import Evaluation, average, measure, pooled
from fastgrpo.errors import InputError, SetupError
from fastgrpo.evaluate import evaluate
from fastgrpo.predictions import Journal, write_predictions
from fastgrpo.problem_sets import PRESETS
from fastgrpo.published import published
from fastgrpo.types import Prompt, Sampling

if TYPE_CHECKING:
    from fastgrpo.rewards import Grader
    from fastgrpo.rollout import Sampler


@dataclass(frozen=True, slots=True)
class Protocol:
    """What fixes the outcome of an evaluation. `temperature` 0 is greedy; truncated answers are wrong unless `keep_truncated`.

    `weights` tells a directory's weights from later ones; it and `dtype` are "" for a server.
    """

    model: str
    weights: str
    template: str
    n: int
    temperature: float
    max_new_tokens: int
    verifier: str
    seed: int
    keep_truncated: bool
    compat: bool
    limit: int
    dtype: str

    def __post_init__(self):
        if self.n > 1 and self.temperature == 0:
            raise InputError(f"-n {self.n} with temperature 0 would draw the same response {self.n} times; set --temperature, or -n 1")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The evaluation of each problem set, by name, with the published accuracy where the protocol is the paper's."""

    protocol: Protocol
    evaluations: Mapping[str, Evaluation]
    published: Mapping[str, float]

    def as_json(self) -> dict:
        return {
            "protocol": asdict(self.protocol),
            "sets": {name: asdict(evaluation) for name, evaluation in self.evaluations.items()},
            "average": average(self.evaluations),
            "pooled": pooled(self.evaluations),
            "published": dict(self.published),
        }


def run_benchmark(
    protocol: Protocol,
    sets: Mapping[str, Sequence[Prompt]],
    sampler: Sampler,
    grader: Grader,
    stop: tuple[str, ...],
    directory: Path,
    say: Callable[[str], None],
) -> Outcome:
    """Evaluates each set and writes SET.parquet and results.json below the open `directory`; `say` hears one line a set."""
    sampling, evaluations = Sampling(protocol.temperature, protocol.max_new_tokens, stop), {}
    for name, prompts in sets.items():
        with Journal(directory / f"{name}.responses.jsonl", prompts) as journal:
            wanted = len(prompts) * protocol.n
            say(f"{name}: {len(prompts)} problems, {wanted - len(journal.known)} of {wanted} responses to draw")
            predictions = evaluate(
                *(sampler, grader, name, prompts, protocol.n, sampling, protocol.seed),
                keep_truncated=protocol.keep_truncated,
                known=journal.known,
                on_response=journal.write,
            )
        write_predictions(directory / f"{name}.parquet", {"greedy" if protocol.temperature == 0 else "sampled": predictions})
        evaluations[name] = measure(predictions)
    outcome = Outcome(protocol, evaluations, published_for(protocol, evaluations))
    (directory / "results.json").write_text(json.dumps(outcome.as_json(), indent=1) + "\n")
    return outcome


def set_name(source: str) -> str:
    """The short name of a problem set: a name as it is, a file by its stem, org/name@split without its owner."""
    return PurePosixPath(source).name.split(".")[0].replace(":", "-")


def published_for(protocol: Protocol, evaluations: Mapping[str, Evaluation]) -> dict[str, float]:
    """Published accuracies by set, where ours are measured in the same way: greedy, Math-Verify, the published budget, the whole set."""
    if protocol.temperature or protocol.verifier != "math_verify":
        return {}
    found = published(protocol.model, protocol.template, protocol.max_new_tokens)
    whole = {name for name, evaluation in evaluations.items() if name in found and evaluation.problems == PRESETS[name].rows}
    return {name: share for name, share in found.items() if name in whole}


def open_directory(directory: Path, protocol) -> None:
    """Makes the directory, or checks that what is in it was measured in the same way. Raises InputError where not.

    `protocol` is any dataclass of plain values, such as Protocol.
    """
    path = directory / "protocol.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            earlier, now = json.loads(path.read_text()), asdict(protocol)
            different = [f"{key}={now[key]} (there {earlier.get(key)})" for key in now if earlier.get(key) != now[key]]
            if different:
                raise InputError(f"{directory} holds results of another protocol: {', '.join(different)}; choose another --out")
        elif any(directory.iterdir()):
            raise InputError(f"{directory} already holds other files; choose another --out")
        else:
            path.write_text(json.dumps(asdict(protocol), indent=1) + "\n")
    except OSError as error:
        raise SetupError(f"{directory} cannot be written: {error.strerror}") from error

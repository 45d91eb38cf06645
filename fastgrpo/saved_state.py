"""The trainer's tensors in the files of a checkpoint: written in parts that fit into memory, read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fastgrpo.errors import HealthError
from fastgrpo.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 4 << 30  # of a file, and of host memory that writing it takes
RANDOM = "random/rank_{}"


class SavedState(Mapping):
    """The tensors below a checkpoint's folder `trainer`, by name. They are read from disk when asked for."""

    def __init__(self, folder: Path):
        from safetensors import safe_open

        files = [safe_open(path, "pt") for path in sorted(folder.glob("state-*.safetensors"))]
        self._file_of = {name: file for file in files for name in file.keys()}  # noqa: SIM118

    def trained(self) -> Mapping[str, Tensor]:
        """Without the states of random generators: what a learner has given."""
        trained = SavedState.__new__(SavedState)
        trained._file_of = {name: file for name, file in self._file_of.items() if not name.startswith("random/")}
        return trained

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def shards(state: Iterable[tuple[str, Tensor]], here: bool) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Names of files and copies of the tensors for each; without tensors on ranks that only take part, where `here` is false."""
    number, shard, size = 0, {}, 0
    for name, tensor in state:
        if here:
            shard[name] = tensor.detach().to("cpu", copy=True).contiguous()
        size += tensor.nbytes
        if size >= SHARD_BYTES:
            yield f"state-{number:05d}.safetensors", shard
            number, shard, size = number + 1, {}, 0
    if size:
        yield f"state-{number:05d}.safetensors", shard


def save_shard(shard: Mapping[str, Tensor], path: Path) -> None:
    """Raises HealthError where a tensor is not finite: what cannot be gone on from is not kept."""
    from safetensors.torch import save_file

    require_finite(shard.items())
    save_file(dict(shard), path)


def require_finite(tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        if not all(bound.isfinite() for bound in tensor.aminmax()):
            raise HealthError(f"{name} is not finite; no checkpoint was made of it. Resume from the last one, with a lower lr")


def random_states(ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """The states of torch's generators, of every rank. Nothing of ours draws from them; a model or reward of the user's own may."""
    import torch

    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    for rank, state in enumerate(ranks.gather(torch.cat([torch.get_rng_state(), *cuda]))):
        yield RANDOM.format(rank), state


def seed_random_state(seed: int, ranks: Ranks) -> None:
    """torch begins with other numbers in each process."""
    import torch

    torch.manual_seed(seed + 1_000_003 * ranks.rank)


def restore_random_state(state: Mapping[str, Tensor], ranks: Ranks) -> None:
    """This rank's, where there was such a rank."""
    import torch

    saved = state.get(RANDOM.format(ranks.rank))
    if saved is not None:
        size = torch.get_rng_state().numel()
        torch.set_rng_state(saved[:size])
        if torch.cuda.is_available() and saved.numel() > size:
            torch.cuda.set_rng_state(saved[size:])

"""What is known of a machine: plain data, so that a problem can be planted by changing one field. Sizes in GiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgrpo.attention import Machine


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    capability: tuple[int, int]
    total: float
    free: float


@dataclass(frozen=True, slots=True)
class Disk:
    """Where files of one kind go: `path` is the nearest directory that exists."""

    use: str
    path: str
    free: float
    inodes: int | None  # free ones; None where the file system has no such limit
    writable: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """`versions` of the installed distributions, by name; `supported` are the ranges of this package's own metadata, and `vllm_needs`
    those of the installed vLLM's. A limit of None is none. `torch_error` and `cuda_error` say why one cannot be used; "" is no error.
    """

    system: str
    python: tuple[int, int, int]
    cores: int
    root: bool
    versions: Mapping[str, str]
    supported: Mapping[str, str]
    vllm_needs: Mapping[str, str]
    torch_error: str
    torch_cuda: str | None
    cuda_error: str
    driver: str | None
    driver_cuda: tuple[int, int] | None
    gpus: tuple[Gpu, ...]
    nccl: str | None
    no_peer_access: tuple[tuple[int, int], ...]
    infiniband: bool
    shared_memory: float | None
    memory: float
    disks: tuple[Disk, ...]
    open_files: int | None
    processes: int | None
    locked_memory: float | None
    address_space: float | None
    worker_error: str
    environment: Mapping[str, str]
    attention: Machine | None

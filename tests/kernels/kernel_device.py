"""Where the kernel tests compute: on the CPU, or in a process with KERNEL_TESTS_ON=cuda on the GPU, there all tests alike.

Tensors that tests make without naming a device are made there (conftest.py); so random numbers must be drawn there, too.
"""

import os

import torch

DEVICE = os.environ.get("KERNEL_TESTS_ON", "cpu")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cuda" if DEVICE == "cuda" else "cpu").manual_seed(seed)

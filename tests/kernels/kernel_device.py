"""Where the kernel tests compute: on the CPU, or in a process with KERNEL_TESTS_ON=cuda on the GPU, there all tests alike.

Importing this puts all tensors there that tests make without naming a device, so random numbers must be drawn there, too. Test files that
make tensors while they are imported import it first.
"""

import os

import torch

DEVICE = os.environ.get("KERNEL_TESTS_ON", "cpu")
if DEVICE != "cpu":
    torch.set_default_device(DEVICE)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator("cuda" if DEVICE == "cuda" else "cpu").manual_seed(seed)

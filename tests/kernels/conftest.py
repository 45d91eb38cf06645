"""Puts all tensors of the kernel tests on the GPU in a process that asks for it; see kernel_device.py."""

import torch
from kernel_device import DEVICE

if DEVICE != "cpu":
    torch.set_default_device(DEVICE)

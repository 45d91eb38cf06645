"""The line about memory tells what the process holds, and never hides the failure that it is printed for."""

import re

import torch

from fastgrpo.memory import memory_line


def gib(line):
    return [float(number) for number in re.findall(r"[\d.]+(?= GiB| reserved| free|$)", line)]


def test_resident_memory_and_its_peak_follow_what_is_held():
    before = gib(memory_line())[0]
    held = torch.ones(2**28)  # 1 GiB
    during = gib(memory_line())
    assert 0.9 < during[0] - before < 1.2 and during[1] >= during[0]
    del held
    now, peak = gib(memory_line())
    assert now < during[0] - 0.9 and peak > during[1] - 0.05  # the kernel counts by processor and adds up late: some MiB off


def test_a_gpu_that_cannot_be_read_is_said_and_nothing_is_raised(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)

    def broken():
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert memory_line().endswith("at its peak; GPU memory cannot be read: CUDA error: an illegal memory access")


def test_the_memory_of_a_gpu_is_told_as_torch_reports_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    for name, value in (("mem_get_info", (2**30, 4 * 2**30)), ("memory_allocated", 2**29), ("memory_reserved", 2 * 2**30)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert memory_line().endswith("; GPU: 0.50 GiB allocated, 2.00 reserved, 1.00 free of 4.00")

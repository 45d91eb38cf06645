"""The row kernel compiled for sm_80, sm_90 and sm_100 without a GPU, from the launcher's own arguments, by the JIT's own rules.

Registers a thread of the plain training kernel at 256 threads, sm_80, sm_90, sm_100: 64, 59, 40 with triton 3.7.1 (four to six programs a
multiprocessor), 80 on sm_90 with 3.9 (three). With every option 80, 80, 74.
"""

import os
import re

import pytest
import torch

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("triton was imported as an interpreter", allow_module_level=True)

from compiled import compile_for, recorded, specialize

from fastgrpo_kernels.objective import KINDS, ObjectiveSettings, Tokens
from fastgrpo_kernels.row import Scaling
from fastgrpo_kernels.triton_launch import Logits, RowResults, row_forward, row_gradient, row_shard
from fastgrpo_kernels.triton_row import row_kernel

ARCHITECTURES = (80, 90, 100)
VOCABULARIES = (1000, 32_000, 128_256, 151_936, 262_144)


def settings(kind="clip", **options):
    return ObjectiveSettings(**({"kind": kind, "clip_low": 0.2, "clip_high": 0.2, "delta": None, "beta": 0.0, "tis_cap": None,
                                 "tau_pos": 1.0, "tau_neg": 1.05} | options))  # fmt: skip


def tensors(rows, vocabulary, offset=0):
    """(logits fp32, panel bf16, targets, Tokens, results), laid out as `cuda_linear` does; offset: where per-row tensors begin."""
    logits, panel = (torch.empty(rows, -(-vocabulary // 16) * 16, dtype=dtype)[:, :vocabulary] for dtype in (torch.float32, torch.bfloat16))
    columns = Tokens(*(torch.zeros(rows + offset)[offset:] for _ in range(6)))
    return logits, panel, torch.zeros(rows + offset, dtype=torch.int64)[offset:], columns, RowResults.empty(rows, logits.device)


def training(monkeypatch, vocabulary, rows=2, offset=0, head=None, objective=None, entropy_coef=0.0):
    logits, panel, targets, tokens, results = tensors(rows, vocabulary, offset)
    head = head or Logits(Scaling(0.7))
    (arguments,) = recorded(
        monkeypatch,
        lambda: row_gradient(
            logits, targets, head, tokens, objective or settings(), panel, results, scale_unit=torch.ones(()), entropy_coef=entropy_coef
        ),
    )
    return arguments


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_compile_training_kernel_fits_the_registers_and_reads_sixteen_bytes_at_a_time(monkeypatch, arch, vocabulary):
    made = compile_for(row_kernel, training(monkeypatch, vocabulary), arch)
    assert made.spills == 0 and made.registers <= 80 and made.shared <= 1024
    wide, narrow = made.ptx.count("ld.global.v4.b32"), len(re.findall(r"(?m)^\s*ld\.global\.b32", made.ptx))
    assert wide >= 8 and narrow <= 8  # four a block and pass; the row's own numbers
    assert made.ptx.count("st.global.v4.b32") >= 2
    assert "atom" not in made.ptx and "red.global" not in made.ptx


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_compile_every_option_without_spills(monkeypatch, arch, kind):
    head = Logits(Scaling(torch.ones(2), 0.5, 30.0), torch.zeros(151_936), 151_900)
    made = compile_for(row_kernel, training(monkeypatch, 151_936, head=head, objective=settings(kind, beta=0.1, tis_cap=2.0)), arch)
    assert made.spills == 0 and made.registers <= 96 and made.shared <= 1024


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("run", ["forward", "shard"])
def test_compile_first_pass_alone_writes_no_panel(monkeypatch, arch, run):
    logits, _, targets, _, results = tensors(2, 151_936)
    head = Logits(Scaling(0.7))
    launches = {"forward": lambda: row_forward(logits, targets, head, results), "shard": lambda: row_shard(logits, targets, head)}
    made = compile_for(row_kernel, recorded(monkeypatch, launches[run])[0], arch)
    assert made.spills == 0 and made.registers <= 80 and made.shared <= 1024
    assert made.ptx.count("st.global") <= 4 and "st.global.v4" not in made.ptx


def test_compile_rows_are_addressed_in_64_bits(monkeypatch):
    ir = compile_for(row_kernel, training(monkeypatch, 151_936), 90).ttir
    row = re.search(r"(%\w+) = arith\.extsi %\w+ : i32 to i64", ir)
    assert row, "the program id is not widened"
    strides = re.findall(r"(%\w+) = arith\.muli (%\w+), %\w+ : (i\d+)", ir)
    by_row = [width for _, factor, width in strides if factor.split("_")[0] == row[1].split("_")[0]]
    assert len(by_row) >= 2 and set(by_row) == {"i64"}  # into the logits and into the panel


def test_compile_nothing_anew_when_rows_vocabulary_or_any_number_change(monkeypatch):
    def key(vocabulary=151_936, **options):
        return specialize(row_kernel, training(monkeypatch, vocabulary, **options), 90)[0]

    keys = {
        key(),
        key(rows=1),
        key(rows=3, offset=1),
        key(vocabulary=151_937),
        key(vocabulary=100_001),
        key(vocabulary=128_256),
        key(head=Logits(Scaling(1.0))),
        key(head=Logits(Scaling(2.0, 16.0))),
        key(head=Logits(Scaling(0.7), vocabulary=151_643)),
        key(objective=settings(clip_low=0.0, clip_high=1.0, delta=5.0)),
        key(entropy_coef=1.0),
    }
    assert len(keys) == 1


def test_compile_the_key_does_tell_kernels_apart(monkeypatch):
    arguments = [training(monkeypatch, 151_936), training(monkeypatch, 151_936, objective=settings("sapo")), training(monkeypatch, 1000)]
    assert len({specialize(row_kernel, argument, 90)[0] for argument in arguments}) == 3

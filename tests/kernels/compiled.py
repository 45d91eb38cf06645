"""What triton would compile for a launch, without a GPU: the launcher's own arguments, the JIT's own key and compiler, and ptxas's report.

Only in a process in which TRITON_INTERPRET was not set when triton was imported.
"""

import contextlib
import io
import re
from typing import NamedTuple

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from fastgrpo_kernels import triton_launch


class Recorder:
    """Stands in for a kernel and keeps the keyword arguments of each launch."""

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        return lambda **arguments: self.launches.append(arguments)


def recorded(monkeypatch, launch):
    """The arguments of every launch that `launch()` makes."""
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(triton_launch, "row_kernel", recorder)
        launch()
    return recorder.launches


class Compiled(NamedTuple):
    registers: int
    spills: int
    shared: int
    ptx: str
    ttir: str


def specialize(kernel, arguments, arch):
    """(key, source, options): the key is what the JIT looks a compiled kernel up by."""
    backend = make_backend(GPUTarget("cuda", arch, 32))
    bound, specialization, options = create_function_from_signature(kernel.signature, kernel.params, backend)(**arguments)
    key = str(specialization) + str(options)
    options, signature, constexprs, attrs = kernel._pack_args(backend, arguments, bound, specialization, options)
    return key, ASTSource(kernel, signature, constexprs, attrs), options


def compile_for(kernel, arguments, arch):
    _, source, options = specialize(kernel, arguments, arch)
    log = io.StringIO()
    with knobs.compilation.scope(), knobs.nvidia.scope(), contextlib.redirect_stdout(log):
        knobs.compilation.always_compile = True  # what the cache holds comes without a report
        knobs.nvidia.dump_ptxas_log = True
        result = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options.__dict__)

    def last(pattern):
        return int(re.findall(pattern, log.getvalue())[-1])

    spills = last(r"(\d+) bytes spill stores") + last(r"(\d+) bytes spill loads")
    return Compiled(last(r"Used (\d+) registers"), spills, result.metadata.shared, result.asm["ptx"], result.asm["ttir"])

"""Imported first by every test file here: skips it unless the row kernel can run, in triton's CPU interpreter or on a GPU.

Neither can be switched on in a running process: `test_interpreter.py` and `test_on_cuda.py` start one. The interpreter's bf16 is put
right here.
"""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))  # kernel_problem, kernel_device
from kernel_device import DEVICE

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    import bf16_shim

    bf16_shim.install()
elif DEVICE != "cuda":
    pytest.skip("run by test_interpreter.py and, where there is a GPU, test_on_cuda.py", allow_module_level=True)

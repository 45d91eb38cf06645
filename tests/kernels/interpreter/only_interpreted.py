"""Imported first by every test file here: skips it unless triton's CPU interpreter is on, and makes bf16 right in it.

The interpreter cannot be switched on in a running process; `test_interpreter.py` starts one for this folder.
"""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run by test_interpreter.py, in a process with TRITON_INTERPRET=1", allow_module_level=True)

sys.path.append(str(Path(__file__).parent.parent))  # kernel_problem

import bf16_shim

bf16_shim.install()

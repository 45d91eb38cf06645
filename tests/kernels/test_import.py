import subprocess
import sys


def test_importing_the_package_imports_no_triton():
    program = "import sys, fastgrpo_kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

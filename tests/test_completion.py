"""Completion as the shells ask for it: each shell's own script is sourced and completes, where the shell is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs = {shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed") for shell in ("bash", "zsh", "fish")}


@pytest.fixture
def shell(tmp_path):
    """Runs a script in a shell in which `fastgrpo` is a command; gives what it printed."""
    command = tmp_path / "bin" / "fastgrpo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fastgrpo "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
        "HOME": str(tmp_path),
    }

    def run(name: str, script: str) -> str:
        done = subprocess.run([name, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fastgrpo conf", {"config"}),
        ("fastgrpo train oat-zero-1", {"oat-zero-1.5b", "oat-zero-1.5b-r1"}),
        ("fastgrpo train tiny sampling.", {"sampling.refill="}),
        ("fastgrpo config sch", {"schema"}),
        ("fastgrpo train --allow", {"--allow-changes"}),
    ],
)
@needs["bash"]
def test_bash_completes_commands_recipes_keys_and_options(shell, words, expected):
    script = f"""eval "$(fastgrpo --show-completion)"
        COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _fastgrpo_completion fastgrpo
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    assert set(shell("bash", script).split()) == expected


@needs["fish"]
def test_fish_completes(shell):
    script = 'fastgrpo --show-completion | source; complete --do-complete "fastgrpo train oat-zero-1"'
    assert {line.split()[0] for line in shell("fish", script).splitlines()} == {"oat-zero-1.5b", "oat-zero-1.5b-r1"}


@needs["zsh"]
def test_zsh_takes_the_script_and_is_answered(shell):
    script = """autoload -U compinit; compinit -u -D; eval "$(fastgrpo --show-completion)"; print $_comps[fastgrpo]
        env _TYPER_COMPLETE_ARGS="fastgrpo train oat-zero-1" _FASTGRPO_COMPLETE=complete_zsh fastgrpo"""
    answer = shell("zsh", script)
    assert answer.startswith("_fastgrpo_completion") and "oat-zero-1.5b-r1" in answer and "oat-zero-7b" not in answer

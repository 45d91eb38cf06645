"""--json: every command that prints a result prints it as one JSON document on stdout, and all else to stderr."""

import json

import pytest
import typer
from in_process import in_process
from test_cli import here
from test_trainer import SMALL, letter_problems

from fastgrpo.cli import make_app

__all__ = ["here", "letter_problems"]
OTHERWISE = {"init", "config schema", "report"}  # write a file, are JSON already, or make a page


def commands(group: typer.Typer, prefix: str = ""):
    for name, command in typer.main.get_command(group).commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {sub}", found) for sub, found in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("name", "command"), list(commands(make_app())), ids=lambda part: part if isinstance(part, str) else "")
def test_every_command_with_a_result_takes_json(name, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options or name in OTHERWISE


def test_settings_are_printed_with_their_origins():
    found = json.loads(in_process("config", "show", "tiny", "lr=3e-5", "--json").stdout)
    assert found["lr"] == {"value": 3e-5, "origin": "command line"} and found["data.eval"]["value"] == ["builtin:arithmetic@heldout"]
    assert json.loads(in_process("config", "show", "tiny-text", "--json").stdout)["epochs"]["origin"] == "recipe tiny-text"


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_a_run_prints_its_summary_and_talks_on_stderr(command, tiny_model_dir, letter_problems, tmp_path):
    settings = [*SMALL, "data.eval=[]", f"data.train={letter_problems}", "steps=1"] if command == "train" else ["tiny-text", "context=64"]
    settings += [] if command == "train" else [f"data.train=[{letter_problems}]", "data.eval=[]", "tokens_per_update=64", "epochs=1"]
    done = in_process(command, *settings, f"model={tiny_model_dir}", "run_dir=run", "--json")
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text()) | {"run_dir": "run"}
    assert "step 1" in done.stderr


def test_an_experiment_at_the_papers_scale_prints_what_it_wrote():
    done = in_process("experiment", "bias", "--scale", "paper", "--json")
    found = json.loads(done.stdout)
    assert found["out"] == "experiments/bias-paper" and found["runs"] > 0 and "run them with" in done.stderr

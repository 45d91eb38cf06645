"""The command line as a person meets it: quick to answer, and every mistake is one clear line with its exit code."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from in_process import Finished, in_process
from typer.main import get_command

from fastgrpo.cli import asked_for, make_app

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "FASTGRPO_FAULTS")} | {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}",
    "COLUMNS": "200",
}
SMALL = ("prompts_per_step=2", "samples_per_prompt=2", "updates_per_rollout=1", "max_new_tokens=4", "data.eval=[]", "run_dir=run")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=120)


def fastgrpo(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return python("-m", "fastgrpo", *arguments, **environment)


def train_here(*arguments: str) -> Finished:
    """`fastgrpo train` in this process, which has loaded torch before."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WORLD_SIZE", "RANK", "FASTGRPO_FAULTS"):
            patch.delenv(name, raising=False)
        return in_process("train", *arguments)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, with a cache of its own: no test may make or find the user's base model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ENVIRONMENT, "FASTGRPO_CACHE", str(tmp_path / "cache"))


def refusal(finished: subprocess.CompletedProcess | Finished, code: int) -> str:
    """The one line on stderr of a command that ended with `code`."""
    assert finished.returncode == code, finished.stderr
    (line,) = finished.stderr.splitlines()
    assert line.startswith("fastgrpo: ") and "Traceback" not in finished.stdout
    return line


@pytest.mark.alone
@pytest.mark.parametrize("arguments", [("-m", "fastgrpo", "--help"), ("-c", "import fastgrpo"), ("-m", "fastgrpo", "config", "show")])
def test_it_answers_at_once_and_without_torch(arguments):
    seconds = [1.0]
    while min(seconds) >= 0.5 and len(seconds) < 30:  # a busy machine, or a busy neighbour of a virtual one, takes longer at times
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
    imported = {line.rpartition("|")[2].strip() for line in python("-X", "importtime", *arguments).stderr.splitlines()}
    assert "fastgrpo" in imported and not {"torch", "transformers", "datasets"} & imported


def described(command) -> tuple:
    parameters = [(parameter.name, parameter.opts, parameter.default, getattr(parameter, "help", None)) for parameter in command.params]
    return command.name, command.help, parameters, [described(each) for each in getattr(command, "commands", {}).values()]


def test_one_command_alone_is_the_same_as_among_all():
    assert asked_for(["--local_rank=0", "train", "tiny"]) == "train" and asked_for(["config", "show"]) == "config"
    assert asked_for(["--help"]) is asked_for(["trian"]) is asked_for([]) is None
    together = get_command(make_app()).commands
    for name, command in together.items():
        (alone,) = get_command(make_app(name)).commands.values()
        assert described(alone) == described(command)


def test_help_names_the_commands():
    finished = fastgrpo("--help")
    assert finished.returncode == 0 and "train" in finished.stdout and "config" in finished.stdout


def test_numbers_with_an_exponent_are_numbers_in_a_file():
    Path("mine.yaml").write_text("recipe: tiny\nlr: 1e-6\nloss:\n  beta: 1e-3\n")
    finished = fastgrpo("config", "show", "mine.yaml", "steps=3")
    shown = yaml.safe_load(finished.stdout.replace("1e-06", "1.0e-06"))
    assert finished.returncode == 0 and finished.stderr == ""
    assert (shown["lr"], shown["loss"]["beta"], shown["steps"]) == (1e-6, 1e-3, 3)
    assert "# mine.yaml:2" in finished.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lrr=1", "unknown key 'lrr'; did you mean lr?"),
        ("steps=many", "steps is 'many'; it must be a whole number"),
        ("samples_per_prompt=1", "a group of 1 has no baseline"),
        ("temperature=0", "it needs a temperature"),
        ("nosuch", "no file and no recipe 'nosuch'; the recipes are: "),
    ],
)
@pytest.mark.parametrize("command", [("train",), ("config", "show")])
def test_a_wrong_setting_is_one_line(command, setting, words):
    assert words in refusal(fastgrpo(*command, setting), 2)
    assert os.listdir() == []


def test_every_wrong_setting_has_its_line():
    finished = fastgrpo("train", "lrr=1", "steps=many", "temperature=0")
    assert finished.returncode == 2
    assert len(finished.stderr.splitlines()) == 3 and all(line.startswith("fastgrpo: ") for line in finished.stderr.splitlines())


@pytest.mark.parametrize(
    ("setting", "code", "words"),
    [
        ("data.train=missing.jsonl", 2, "missing.jsonl: no such file"),
        ("data.eval=missing.parquet", 2, "missing.parquet: no such file"),
        ("data.train=missing", 2, "missing is not a problem set; known by name are math12k"),
        ("data.train=empty.jsonl", 2, "empty.jsonl has no rows"),
        ("data.train=bad.jsonl", 2, "bad.jsonl: none of its 1 rows can be used: line 1: not valid JSON"),
        ("data.train=columns.jsonl", 2, "no column 'problem'; it has gold, question"),
        ("data.train=builtin:algebra@train", 2, "it can be builtin:arithmetic"),
        ("model=folder", 2, "model=folder is not a Hugging Face model directory: it lacks weights, a tokenizer; it can be builtin:base"),
        ("model=empty.jsonl", 2, "model=empty.jsonl is not a Hugging Face model directory: it lacks config.json, weights, a tokenizer;"),
        ("model=/no/such/dir", 2, "model=/no/such/dir: no such directory"),
        ("model=builtin:huge", 2, "model=builtin:huge does not exist; it can be builtin:base"),
        ("run_dir=used", 2, "run_dir=used already holds files"),
        ("run_dir=empty.jsonl/run", 3, "run_dir=empty.jsonl/run cannot be written: Not a directory"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(setting, code, words):
    Path("empty.jsonl").write_text("")
    Path("bad.jsonl").write_text("{")
    Path("columns.jsonl").write_text('{"question": "1 + 1?", "gold": "2"}\n')
    Path("folder").mkdir()
    Path("folder", "config.json").write_text("{}")
    Path("used").mkdir()
    Path("used", "metrics.jsonl").write_text("")
    started = time.monotonic()
    assert words in refusal(fastgrpo("train", setting), code)
    assert time.monotonic() - started < 10  # no base model was trained first
    assert set(os.listdir()) <= {"bad.jsonl", "cache", "columns.jsonl", "empty.jsonl", "folder", "used"}
    assert os.listdir("used") == ["metrics.jsonl"] and not (Path("cache").exists() and os.listdir("cache"))


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE"),
        ({"FASTGRPO_CACHE": "file/cache"}, "file/cache cannot be made: Not a directory; set FASTGRPO_CACHE"),
    ],
)
def test_an_environment_that_does_not_do_is_an_error_of_the_setup(variables, words):
    Path("file").write_text("")
    assert words in refusal(fastgrpo("train", **variables), 3)
    assert set(os.listdir()) <= {"file", "cache"}


def test_prompts_that_are_all_too_long_are_refused(tiny_model_dir):
    line = refusal(train_here(f"model={tiny_model_dir}", "max_prompt_tokens=3", *SMALL), 2)
    assert "every prompt is longer than max_prompt_tokens=3" in line


def test_a_model_that_cannot_be_loaded_is_refused(tiny_model_dir):
    shutil.copytree(tiny_model_dir, "torn")
    os.truncate("torn/model.safetensors", 1000)
    for model, words in (
        ("torn", "could not be loaded as a causal language model"),
        ("nobody/nothing", "no tokenizer could be loaded from it"),
    ):
        line = refusal(train_here(f"model={model}", *SMALL, f"run_dir={model}-run"), 2)
        assert f"model={model}" in line and words in line
        assert not Path(f"{model}-run").exists()


def test_a_run_that_cannot_learn_ends_with_4_and_keeps_what_it_wrote(tiny_model_dir):
    finished = train_here(f"model={tiny_model_dir}", "steps=3", "health.steps_without_signal=2", *SMALL)
    assert finished.returncode == 4 and finished.stderr.splitlines()[-1].startswith("fastgrpo: step 2: no group had two different rewards")
    assert "Traceback" not in finished.stderr
    rows = [json.loads(line) for line in Path("run", "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "updates" in row] == [1, 2]
    assert sorted(os.listdir("run/rollouts")) == ["step_000001.parquet", "step_000002.parquet"]


@pytest.mark.slow  # 6 s
def test_ctrl_c_asks_for_a_save_and_a_second_one_ends_at_once_with_130(tiny_model_dir):
    command = [sys.executable, "-m", "fastgrpo", "train", f"model={tiny_model_dir}", *SMALL]
    environment = ENVIRONMENT | {"FASTGRPO_FAULTS": "sample@1:*:hang"}
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}  # shells make background jobs deaf to it
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **heard) as process:
        log, deadline = Path("run", "logs", "rank_0.log"), time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2)  # into the hanging phase
        process.send_signal(signal.SIGINT)
        try:
            assert "SIGINT: saving at the end of this phase; Ctrl-C again ends at once" in process.stderr.readline()
            time.sleep(1.2)  # what comes within a second is the same signal
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130 and errors.splitlines()[-1].startswith("fastgrpo: interrupted") and "Traceback" not in errors

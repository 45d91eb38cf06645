"""README.md and docs/: every command is run here, on a tiny model and in a directory of its own, or checked to be one that exists.

A new command is run unless a table below says why it cannot be: APART in a process of its own and by `make test-long`, or CHECKED.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from completion_server import completion_server, reply
from doc_blocks import BLOCKS, COMMANDS, LANGUAGES, PAGES, ROOT, words
from typer.main import get_command
from typer.testing import CliRunner

from fastgrpo import base_model
from fastgrpo.cli import make_app
from fastgrpo.cli.runs import resolve
from fastgrpo.config import load_config
from fastgrpo.config_kind import kind_of
from fastgrpo.errors import FastgrpoError

GPUS = "needs 8 GPUs, and models and sets from the Hub"
HUB = "needs a model or a set from the Hub"
SERVER = "needs a server; tests of rewards/test_remote.py and test_analyze_command.py have one"
CHECKED = {
    "make train": "makes .venv and trains for minutes; test_learning.py trains the same",
    "make test": "would run this test",
    "fastgrpo experiment bias --jobs 2": "takes many minutes; experiments/test_experiment.py runs it with --quick",
    'pip install -e ".[train]"': "changes the environment",
    'pip install -e ".[vllm]"': "changes the environment",
    "fastgrpo --install-completion": "changes the shell of whoever runs it; test_completion.py shows what it installs",
    "fastgrpo train oat-zero-7b --gpus 8": GPUS,
    "fastgrpo train oat-zero-7b --gpus 8 --nodes 2 --node 0 --meet 10.0.0.1:29400": GPUS,
    "torchrun --nproc-per-node=8 -m fastgrpo train oat-zero-7b": GPUS,
    "deepspeed --hostfile hosts --no_ssh --node_rank 0 --master_addr 10.0.0.1 --module fastgrpo train oat-zero-7b": GPUS,
    "fastgrpo pretrain llama-3.2-3b-numinaqa --gpus 8": GPUS,
    "fastgrpo train oat-zero-3b model=RUN/checkpoints/latest": GPUS,
    "fastgrpo doctor oat-zero-7b --gpu-smoke": "needs a GPU",
    "fastgrpo export runs/mine exported --push ORG/NAME": "uploads to the Hub; test_export.py has a stand-in for it",
    "fastgrpo report runs/mine --serve": "serves until Ctrl-C; tests of report/ ask such a server",
    "fastgrpo eval Qwen/Qwen2.5-Math-1.5B --template no": HUB,
    "fastgrpo analyze all --model Qwen/Qwen2.5-Math-1.5B --data math12k": HUB,
    "fastgrpo analyze all --model http://localhost:8000/v1 --judge https://HOST/v1 --judge-model NAME": SERVER,
    "fastgrpo train tiny reward.url=http://localhost:8000/score": SERVER,
    "pytest tests/test_exactness.py": "is run by make test",
    "pytest tests/learner tests/test_exactness_ranks.py": "is run by make test",
    "bash bench/on_gpu.sh all OUT": "needs a GPU",
    "python bench/carry.py pack rivals": "packs gigabytes; test_bench.py packs less",
}
APART = {  # command: what makes it small
    "fastgrpo train tiny --gpus 2": (),
    "fastgrpo train tiny learner.engine=deepspeed learner.zero=2": (),
    "fastgrpo train tiny rollout.engine=vllm rollout.cache_gib=0.25": (),
    "fastgrpo eval runs/mine --engine vllm": (
        "--benchmarks",
        "test.jsonl",
        "--max-new-tokens",
        "4",
        "--cache-gib",
        "0.1",
        "--dtype",
        "float32",
    ),
    "fastgrpo train tiny learner.compile=true learner.recompute=true": (),
    "python bench/cpu_ratio.py": ("1",),
    "python bench/bench_step.py --repeats 2": ("--race", "toy", "--repeats", "1"),
}
RUN = [command for command in COMMANDS if command not in CHECKED and command not in APART]
SMALL = {  # what makes the others small, after their own settings
    "train": [
        *("steps=1", "prompts_per_step=2", "samples_per_prompt=2", "updates_per_rollout=1", "max_new_tokens=4", "max_prompt_tokens=900"),
        *("eval.ways=greedy", "data.eval=test.jsonl"),
    ],
    "pretrain": ["epochs=1", "data.train=book.txt", "data.eval=[]", "context=64", "tokens_per_update=512"],
    "eval": ["--max-new-tokens", "4"],
    "analyze": ["--max-new-tokens", "4"],
}
VERDICTS = {"doctor": {0, 3}}  # this machine may lack what a recipe needs; all others must end with 0


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model_dir):
    """A directory with all that the pages name: a model, problem sets, texts, the files of named blocks, and a run of one step.

    The built-in base model is in its cache, but a random one that took no minute to make.
    """
    here = tmp_path_factory.mktemp("world")
    patch = pytest.MonkeyPatch()
    patch.setattr(base_model, "_make_base", lambda directory, *_: shutil.copytree(tiny_model_dir, directory))
    base_model.base_model_directory(here / "cache", lambda text: None)
    patch.undo()
    shutil.copytree(tiny_model_dir, here / "PATH")
    (here / "tests").symlink_to(ROOT / "tests")
    rows = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n), "solution": f"{n} + {n} = {2 * n}"} for n in range(3, 15)]
    for name, part in (("problems", rows), ("train", rows[:8]), ("test", rows[8:]), ("my_set", rows[8:])):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (here / "texts.jsonl").write_text(json.dumps({"text": "Two and two are four. " * 20}) + "\n")
    (here / "book.txt").write_text("Three and three are six. " * 40)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), here / "problems.parquet")
    for block in BLOCKS:
        if block.file:
            (here / block.file).write_text(block.text + "\n")
    patch.chdir(here)
    patch.setenv("FASTGRPO_CACHE", str(here / "cache"))
    assert invoke("fastgrpo train tiny run_dir=runs/mine") == 0
    shutil.copytree("runs/mine", "runs/other")
    patch.undo()
    return here


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A copy of the world as the working directory."""
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTGRPO_CACHE", str(tmp_path / "here" / "cache"))
    return tmp_path / "here"


def invoke(command: str) -> int:
    """The exit code of a command, made small."""
    _, *arguments = words(command)
    arguments += SMALL.get(arguments[0], ())
    if "--out" in arguments and (out := Path(arguments[arguments.index("--out") + 1])).is_file():
        out.unlink()  # the pages write it, and then use it
    done = CliRunner().invoke(make_app(), arguments)
    if isinstance(done.exception, FastgrpoError):
        print(done.exception)
        return done.exception.exit_code
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(done.output)
    return done.exit_code


@pytest.mark.slow  # together about a minute
@pytest.mark.parametrize("command", RUN)
def test_a_command_of_the_pages_does_what_it_says(here, command):
    with completion_server(lambda request: reply(r"\boxed{6}")) as server:
        assert invoke(command.replace("http://localhost:8000/v1", server.url)) in VERDICTS.get(words(command)[1], {0})


@pytest.mark.long  # minutes: bases and runs of an experiment, compiled layers, engines
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("command", APART)
def test_a_command_that_needs_a_process_of_its_own_does_what_it_says(here, command):
    program, *arguments = words(command)
    if program == "fastgrpo":
        program = [sys.executable, "-m", "fastgrpo"]
        arguments += [*SMALL.get(arguments[0], ())] if arguments[0] == "train" else []
    else:
        program, arguments = [sys.executable], [str(ROOT / arguments[0])]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    done = subprocess.run([*program, *arguments, *APART[command]], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("command", [*CHECKED, *(command for command in APART if command.startswith("fastgrpo"))])
def test_a_command_that_is_not_run_exists(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    program, *arguments = words(command)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", Path("Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extra = re.search(r"\[(\w+)]", arguments[-1])[1]
        assert re.search(rf"^{extra} = \[", Path("pyproject.toml").read_text(), re.MULTILINE)
    elif program in ("pytest", "bash", "python"):
        assert all(Path(path).exists() for path in arguments if "/" in path)
    else:
        require_command(arguments[arguments.index("fastgrpo") + 1 :] if program != "fastgrpo" else arguments)


def require_command(arguments: list[str]) -> None:
    """Raises where the command, an option of it, a recipe or a setting does not exist, or a value is not allowed."""
    command = get_command(make_app())
    name = arguments[0]
    if name.startswith("--"):
        assert name in {option for parameter in command.params for option in parameter.opts}
        return
    while name in getattr(command, "commands", {}):
        command, arguments = command.commands[name], arguments[1:]
        name = arguments[0] if arguments else ""
    assert not getattr(command, "commands", None), f"no such command: {name}"
    given = command.make_context("fastgrpo", list(arguments)).params
    if "settings" in given:
        resolve(given["settings"], kind_of(given["settings"][0]))


@pytest.mark.parametrize(
    "arguments",
    ["trian tiny", "train tiny --gpu 8", "train oat-zero-8b", "train tiny rolout.engine=vllm", "eval x --step", "train tiny lr=fast"],
)
def test_the_check_sees_what_does_not_exist(arguments):
    with pytest.raises(Exception, match=r"(?i)no such|no file|unknown key|requires|must be"):
        require_command(arguments.split())


def test_every_command_that_is_not_run_is_still_on_a_page():
    assert {*CHECKED, *APART} <= set(COMMANDS)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_says_what_it_is_and_is_that(block, here):
    assert block.language in LANGUAGES
    if block.language == "python":
        exec(compile(block.text, f"{block.page}:{block.line}", "exec"), {})
    elif block.language == "yaml":
        load_config(block.file, [], kind_of(block.file))
    elif block.language == "json":
        assert {"problem", "answer"} <= json.loads(block.text).keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_command_outside_fences_and_no_dead_link(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"\n\n    \S", text), "an indented block: fence it, with its language"
    for target in re.findall(r"]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for path in re.findall(r"`pytest ([^`]+)`", text):
        assert all((ROOT / name).exists() for name in path.split() if name.startswith("tests")), path
    for command in re.findall(r"`fastgrpo ([a-z]+ ?[^`=]*)`", text):
        assert command.split()[0] in get_command(make_app()).commands, command

"""`fastgrpo sample`: what is streamed is what the engine draws, a run brings its own way of asking, and a verdict is training's."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from completion_server import completion_server, reply
from in_process import in_process
from test_cli import ENVIRONMENT, here, refusal

from fastgrpo.evaluate import request_seed
from fastgrpo.launch_sampling import TextStream
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.rollout.native import NativeEngine
from fastgrpo.types import Prompt, Sampling

__all__ = ["here"]


@pytest.fixture(scope="module")
def engine(tiny_model_dir):
    return NativeEngine(load_model(str(tiny_model_dir), "float32"), load_tokenizer(str(tiny_model_dir)))


def test_every_token_is_heard_once_in_order_whatever_shares_the_batch(engine):
    prompts = [Prompt(str(i), tuple(range(40, 44 + i)), "1") for i in range(4)]
    heard, ended = {}, []

    def on_token(i, j, token):
        heard.setdefault((i, j), []).append(token)

    found = engine.generate(
        prompts,
        3,
        Sampling(1.0, 40),
        [[7 * i + j for j in range(3)] for i in range(4)],
        lambda i, j, rollout: ended.append((len(heard[i, j]), rollout.length)),
        on_token,
    )
    assert heard == {(i, j): list(rollout.token_ids) for i, group in enumerate(found) for j, rollout in enumerate(group)}
    assert len({rollout.length for group in found for rollout in group}) > 1 and all(a == b for a, b in ended)


@pytest.mark.parametrize("text", ["plain", "größer ≤ 3 🎉!", "\n\t\\boxed{2}", "cut \N{PARTY POPPER}"])
def test_pieces_are_whole_characters_and_together_the_response(engine, text):
    pieces, ids = [], engine.tokenizer(text)["input_ids"]
    stream = TextStream(engine.tokenizer, pieces.append)
    for token in ids:
        stream.put(token)
    assert len(pieces) == len(text) and "".join(pieces) == text  # one token is a byte
    stream.put(engine.tokenizer.eos_token_id)
    stream.end(text)
    assert "".join(pieces) == text
    cut = TextStream(engine.tokenizer, pieces.append)
    for token in ids[:-1]:
        cut.put(token)
    pieces.clear()
    whole = engine.tokenizer.decode(ids[:-1], skip_special_tokens=True)
    cut.end(whole)
    assert whole.endswith("".join(pieces))


@pytest.fixture
def run(tiny_model_dir):
    """A run directory, as far as sampling looks at it; trained by template r1 in float32."""
    for step in (5, 10):
        shutil.copytree(tiny_model_dir, f"run/checkpoints/step_{step}")
    os.symlink("step_5", "run/checkpoints/best")
    os.symlink("step_10", "run/checkpoints/latest")
    Path("run/config.yaml").write_text("recipe: tiny\ntemplate: r1\nmax_new_tokens: 30\ntemperature: 0.9\n")
    return "run"


def test_a_run_answers_as_it_was_trained_with_the_tokens_that_the_engine_gives_for_the_seed(run, engine):
    shown = in_process("sample", run, "--prompt", "1 + 1?", "--seed", "3", "-n", "2")
    assert shown.returncode == 0, shown.stderr
    assert "checkpoints/step_5, template r1, temperature 0.9, at most 30 tokens" in shown.stderr
    assert "User: 1 + 1?\nAssistant: <think>" in shown.stderr and "User: " not in shown.stdout
    rows = [
        json.loads(line) for line in in_process("sample", run, "--prompt", "1 + 1?", "--seed", "3", "-n", "2", "--json").stdout.splitlines()
    ]
    prompt = Prompt("p", tuple(engine.tokenizer(rows[0]["prompt"])["input_ids"]), "")
    for number, row in enumerate(rows):
        ((wanted,),) = engine.generate([prompt], 1, Sampling(0.9, 30, ("</answer>",)), [[request_seed(3, "sample", number)]])
        assert (row["response"], row["length"], row["finish_reason"]) == (wanted.text, wanted.length, wanted.finish_reason)
    assert shown.stdout == "".join(row["response"] + "\n" for row in rows) and rows[0]["response"] != rows[1]["response"]


def test_a_problem_can_be_piped_in_and_is_graded_against_its_answer(run):
    options = ("--template", "no", "--answer", "7", "--json", "--step", "10")
    done = in_process("sample", run, *options, typed="\n3 + 4?\n")
    assert "step_10, template no" in done.stderr
    row = json.loads(done.stdout)
    assert (row["problem"], row["right"], row["truncated"]) == ("3 + 4?", False, row["finish_reason"] == "length")


@pytest.mark.parametrize(
    ("text", "reason", "right"), [(r"\boxed{7}", "stop", True), (r"\boxed{8}", "stop", False), (r"\boxed{7}", "length", False)]
)
def test_a_server_is_asked_too_and_its_verdicts_are_those_of_training(text, reason, right):
    with completion_server(lambda _: reply(text, reason)) as server:
        done = in_process("sample", server.url, "--template", "no", "--prompt", "3 + 4?", "--answer", "7", "--temperature", "0.5", "--json")
    row = json.loads(done.stdout)
    assert (row["response"], row["right"], row["formatted"]) == (text, right, True)
    assert (server.asked[0]["prompt"], server.asked[0]["temperature"], server.asked[0]["max_tokens"]) == ("3 + 4?", 0.5, 3000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("MODEL", "--prompt", "x"), "--template is needed: qwen_math, r1, no"),
        (("MODEL", "--prompt", "x", "--template", "r2"), "--template 'r2' does not exist"),
        (("MODEL", "--prompt", " ", "--template", "no"), "--prompt is empty"),
        (("MODEL", "--prompt", "x", "--template", "no", "--dtype", "int8"), "--dtype 'int8' does not exist; it can be float32"),
        (("MODEL", "--prompt", "x", "--template", "no", "--step", "5"), "--step 5 needs a run directory"),
        (("nowhere", "--prompt", "x", "--template", "no"), "nowhere: no such directory"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, words, tiny_model_dir):
    assert words in refusal(in_process("sample", *(part.replace("MODEL", str(tiny_model_dir)) for part in arguments)), 2)


def test_what_outgrows_the_context_is_told_and_an_empty_pipe_too(tiny_model_dir):
    long = in_process("sample", str(tiny_model_dir), "--template", "no", "--prompt", "x" * 100)
    assert "the prompt has 100 tokens, and --max-new-tokens 3000 more exceed the model's context of 1024" in long.stderr.splitlines()[-1]
    done = in_process("sample", str(tiny_model_dir), "--template", "no", typed=" \n")
    assert done.returncode == 2 and "nothing came through the pipe" in done.stderr.splitlines()[-1]


@pytest.mark.slow  # 6 s
def test_at_a_terminal_problem_after_problem_is_answered(run):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fastgrpo", "sample", run, "--max-new-tokens", "5"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT, start_new_session=True) as process:
        os.close(theirs)
        seen = ""

        def wait_for(text: str, count: int) -> None:
            nonlocal seen
            until = time.monotonic() + 60
            while seen.count(text) < count and time.monotonic() < until:
                if select.select([ours], [], [], 0.2)[0]:
                    seen += os.read(ours, 4096).decode(errors="replace")
            assert seen.count(text) >= count, seen

        wait_for("problem> ", 1)
        os.write(ours, b"1 + 1?\n")
        wait_for("problem> ", 2)
        os.write(ours, b"\n2 + 2?\n")
        wait_for("problem> ", 4)
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    os.close(ours)
    assert "User: 1 + 1?" in seen and "User: 2 + 2?" in seen and seen.count("5 tokens, cut off") == 2

"""`fastgrpo eval` as a person meets it: on a tiny random model, on a run, and on a server of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from completion_server import MODEL, completion_server, reply
from in_process import Finished, in_process

ROOT = Path(__file__).parents[1]
SIZES = {"aime24": 30, "amc": 83, "math500": 500, "minerva": 272, "olympiad_bench": 675}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory) -> dict[str, str]:
    """Five files of made-up problems, named and as long as the benchmarks are."""
    directory = tmp_path_factory.mktemp("benchmarks")
    for name, size in SIZES.items():
        rows = [{"problem": f"{i} mod 3 {'in words ' * (i % 3)}?", "answer": i % 3} for i in range(size)]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(directory / f"{name}.jsonl") for name in SIZES}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "RANK", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("FASTGRPO_CACHE", str(tmp_path / "cache")), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)


def evaluate(*arguments) -> Finished:
    return in_process("eval", *arguments)


def results(finished: Finished) -> dict:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def refusal(finished: Finished, code: int = 2) -> str:
    assert finished.returncode == code and finished.stdout == "", finished.stderr
    (line,) = finished.stderr.splitlines()
    assert line.startswith("fastgrpo: ")
    return line


def rows(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


def kept(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name.endswith((".parquet", ".json"))}


@pytest.mark.slow  # 12 s
def test_a_model_on_all_five_benchmarks_and_a_second_time(tiny_model_dir, benchmarks):
    arguments = (tiny_model_dir, "--template", "no", "--benchmarks", ",".join(benchmarks.values()), "--max-new-tokens", 8)
    arguments += ("--dtype", "float32", "--out", "out")
    found = results(evaluate(*arguments, "--json"))
    assert {name: shown["problems"] for name, shown in found["sets"].items()} == SIZES
    for name, shown in found["sets"].items():
        predictions = rows(Path("out", f"{name}.parquet"))
        assert len(predictions) == SIZES[name] and {row["way"] for row in predictions} == {"greedy"}
        assert shown["accuracy"] == sum(row["right"] for row in predictions) / SIZES[name]
        assert 0 <= shown["low"] <= shown["accuracy"] < shown["high"] <= 1
        assert 0 < shown["length"] <= shown["length_max"] <= 8 and sum(shown["grading"].values()) == SIZES[name]
        assert shown["truncated"] == sum(row["finish_reason"] == "length" for row in predictions) / SIZES[name] > 0
    assert found == json.loads(Path("out", "results.json").read_text())
    before = kept(Path("out"))
    again = evaluate(*arguments)
    assert again.returncode == 0 and again.stderr == ""
    assert all(f"{name}: {size} problems, 0 of {size} responses to draw" in again.stdout for name, size in SIZES.items())
    assert all(word in again.stdout for word in ("average", "95 %", "pooled", "1560"))
    assert " paper " not in again.stdout and kept(Path("out")) == before
    assert "max_new_tokens=9 (there 8); choose another --out" in refusal(evaluate(*arguments, "--max-new-tokens", 9))
    assert "seed=1 (there 0)" in refusal(evaluate(*arguments, "--seed", 1)) and kept(Path("out")) == before


@pytest.mark.slow  # 12 s
def test_a_run_is_measured_at_its_best_with_its_own_template(tiny_model_dir, benchmarks):
    for step in (5, 10):
        shutil.copytree(tiny_model_dir, f"run/checkpoints/step_{step}")
    os.symlink("step_5", "run/checkpoints/best")
    os.symlink("step_10", "run/checkpoints/latest")
    Path("run/config.yaml").write_text("recipe: tiny\ntemplate: r1\n")
    arguments = ("run", "--benchmarks", benchmarks["amc"], "--limit", 3, "--max-new-tokens", 2, "--json")
    best = results(evaluate(*arguments))["protocol"]
    assert best["model"].endswith("run/checkpoints/step_5") and best["template"] == "r1"
    named = results(evaluate(*arguments, "--step", 10, "--template", "no"))["protocol"]
    assert named["model"].endswith("run/checkpoints/step_10") and named["template"] == "no"
    assert sorted(os.listdir("run/evals")) == ["step_10-no-greedy-2-first3", "step_5-r1-greedy-2-first3"]
    assert len(rows(Path("run/evals/step_5-r1-greedy-2-first3/amc.parquet"))) == 3


def dice(request) -> tuple[int, dict]:
    """Right one time in three, truncated one time in eight, by the request's seed alone."""
    seed = request["seed"]
    return reply(rf"\boxed{{{seed % 3}}}", "length" if seed % 8 == 0 else "stop", tokens=seed % 100 + 1)


@pytest.mark.slow  # 12 s
def test_killed_and_started_again_it_asks_a_server_only_for_what_is_missing(benchmarks):
    options = ("--template", "no", "--benchmarks", f"{benchmarks['aime24']},{benchmarks['amc']}", "-n", 4, "--temperature", 1, "--json")
    with completion_server(dice) as server:
        whole = results(evaluate(server.url, *options, "--out", "whole"))
    asked = {(request["prompt"], request["seed"]) for request in server.asked}
    assert len(asked) == len(server.asked) == 4 * (30 + 83)
    with completion_server(dice, seconds=0.02) as slow:
        command = [sys.executable, "-m", "fastgrpo", "eval", slow.url, *map(str, options), "--out", "out", "--concurrency", "4"]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, env=environment, **quiet) as process:
            deadline = time.monotonic() + 60
            while len(slow.asked) < 200 and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        time.sleep(0.5)  # the last requests of the dead client
        known = sum(file.read_bytes().count(b"\n") for file in Path("out").glob("*.responses.jsonl"))
        assert slow.busiest == 4
        assert 190 <= len(slow.asked) - 10 <= known <= len(slow.asked) < 400 and not Path("out", "results.json").exists()
        slow.asked.clear()
        assert results(evaluate(slow.url, *options, "--out", "out")) == whole
        assert len(slow.asked) == 452 - known
        assert kept(Path("out")) == kept(Path("whole"))
        slow.asked.clear()
        assert results(evaluate(slow.url, *options, "--out", "out")) == whole and slow.asked == []


@pytest.mark.slow  # 6 s
def test_a_server_gives_the_numbers_that_its_responses_have(benchmarks):
    with completion_server(dice) as server:
        arguments = (server.url, "--template", "r1", "--benchmarks", benchmarks["aime24"], "-n", 4, "--temperature", 0.5, "--chat")
        tagless = results(evaluate(*arguments, "--json"))
        for request in server.asked:
            assert (request["temperature"], request["stop"]) == (0.5, ["</answer>"]) and request["messages"][0]["content"].endswith(
                "<think>"
            )
        boxed = results(evaluate(*(str(part).replace("r1", "no") for part in arguments), "--max-new-tokens", 100, "--json"))
    assert tagless["sets"]["aime24"]["formatted"] == 0 and tagless["protocol"]["model"] == MODEL
    shown = boxed["sets"]["aime24"]
    seeds = [request["seed"] for request in server.asked[120:]]
    assert {request["max_tokens"] for request in server.asked[120:]} == {100} and len(seeds) == 120
    assert shown["truncated"] == pytest.approx(sum(seed % 8 == 0 for seed in seeds) / 120) and shown["formatted"] == 1
    assert shown["length"] == pytest.approx(sum(seed % 100 + 1 for seed in seeds) / 120)
    predictions = rows(Path("evals", f"{MODEL}-no-n4-t0.5-100", "aime24.parquet"))
    right = [sum(row["right"] for row in predictions if row["id"] == f"aime24.jsonl-{i}") for i in range(1, 31)]
    assert shown["accuracy"] == pytest.approx(sum(right) / 120) and 0.1 < shown["accuracy"] < 0.5
    assert shown["pass_at"]["4"] == pytest.approx(sum(count > 0 for count in right) / 30)
    pairs = [1 - (4 - count) * (3 - count) / 12 for count in right]  # of two samples without replacement at least one is right
    assert shown["pass_at"]["2"] == pytest.approx(sum(pairs) / 30)
    assert all(row["right"] == (row["text"] == rf"\boxed{{{row['answer']}}}" and row["finish_reason"] == "stop") for row in predictions)


def test_published_numbers_stand_beside_a_server_of_that_model(benchmarks):
    with completion_server(dice, models=("Qwen/Qwen2.5-Math-1.5B",)) as server:
        finished = evaluate(server.url, "--template", "no", "--benchmarks", benchmarks["aime24"])
    assert finished.returncode == 0 and " paper " in finished.stdout and " 16.7 " in finished.stdout
    assert "predictions and results: evals/Qwen2.5-Math-1.5B-no-greedy-3000" in finished.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--template", "r2"), "--template 'r2' does not exist; it can be qwen_math, r1, no, 4-shot"),
        (("--template", ""), "--template is needed: qwen_math, r1, no"),
        (("--verifier", "slow"), "--verifier 'slow' does not exist; it can be fast, math_verify"),
        (("--dtype", "int8"), "--dtype 'int8' does not exist; it can be float32, bfloat16"),
        (("--benchmarks", ","), "--benchmarks names no problem set"),
        (("--benchmarks", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--benchmarks", "a/x.jsonl,b/x.jsonl"), "--benchmarks names two sets 'x'"),
        (("-n", "3"), "-n 3 with temperature 0 would draw the same response 3 times"),
        (("--step", "5"), "--step 5 needs a run directory"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(change, words, tiny_model_dir):
    for directory in ("a", "b"):
        os.mkdir(directory)
        Path(directory, "x.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    assert words in refusal(evaluate(tiny_model_dir, "--template", "no", "--benchmarks", "a/x.jsonl", *change))
    assert sorted(os.listdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [("missing/here/model", 2, "no such directory"), ("http://127.0.0.1:9/v1", 3, "http://127.0.0.1:9/v1 failed: APIConnectionError")],
)
def test_a_model_that_is_not_there_is_refused_in_one_line(model, code, words, benchmarks):
    assert words in refusal(evaluate(model, "--template", "no", "--benchmarks", benchmarks["aime24"]), code)
    assert os.listdir() == []


@pytest.mark.slow  # 13 s
def test_a_checkpoint_by_itself_gives_what_training_measured(tiny_model_dir, benchmarks):
    settings = ("steps=1", "prompts_per_step=2", "samples_per_prompt=2", "updates_per_rollout=1", "max_new_tokens=8", "template=qwen_math")
    settings += (f"data.train={benchmarks['amc']}", f"data.eval=[{benchmarks['aime24']}]", "dtype=float32", "seed=7", "run_dir=run")
    assert in_process("train", f"model={tiny_model_dir}", *settings).returncode == 0
    measured = rows(Path("run/evals/step_000001.parquet"))
    for way, temperature in (("sampled", 1), ("greedy", 0)):
        options = (
            "--benchmarks",
            benchmarks["aime24"],
            "--temperature",
            temperature,
            "--max-new-tokens",
            8,
            "--seed",
            7,
            "--verifier",
            "fast",
        )
        assert results(evaluate("run", *options, "--dtype", "float32", "--out", way, "--json"))["sets"]["aime24"]["problems"] == 30
        want = [(row["id"], row["text"], row["length"], row["right"]) for row in measured if row["way"] == way]
        assert len(want) == 30
        assert [(row["id"], row["text"], row["length"], row["right"]) for row in rows(Path(way, "aime24.parquet"))] == want

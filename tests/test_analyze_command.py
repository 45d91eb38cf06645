"""`fastgrpo analyze` as a person meets it: on the built-in base model, and on servers of this machine."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from completion_server import MODEL, completion_server, failure, reply
from in_process import Finished, in_process

from fastgrpo.arithmetic import problems

ROOT = Path(__file__).parents[1]
KEYS = ("OPENAI_API_KEY", "JUDGE_API_KEY", "WORLD_SIZE", "RANK")
FILES = {"answering.parquet", "exploration.parquet", "reflection.parquet", "summary.json", "template_choice.json", "protocol.json"}


@pytest.fixture(autouse=True)
def questions(tmp_path, monkeypatch) -> Path:
    """A file of six questions with levels, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    rows = [{"problem": p.problem, "answer": p.answer, "level": i % 2} for i, p in enumerate(problems("heldout", "easy", 6))]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def analyze(*arguments, **environment) -> Finished:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return in_process("analyze", *arguments)


def summary(finished: Finished) -> dict:
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def rows(name: str) -> list[dict]:
    return pyarrow.parquet.read_table(Path("out", f"{name}.parquet")).to_pylist()


def kept() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").iterdir()}


@pytest.mark.slow  # 20 s, and a minute where the base model is not in the cache
def test_all_three_on_the_built_in_model_agree_with_their_files_and_are_not_done_again():
    arguments = ("--model", "builtin:base", "--data", "questions.jsonl", "--questions", 5, "-n", 3, "--max-new-tokens", 24)
    arguments += ("--temperatures", "0.6,1", "--dtype", "float32", "--out", "out")
    found = summary(analyze("all", *arguments, "--json"))
    assert found == json.loads(Path("out", "summary.json").read_text())
    assert {path.name for path in Path("out").iterdir() if "responses" not in path.name} == FILES
    answering, choice = rows("answering"), json.loads(Path("out", "template_choice.json").read_text())
    assert len(answering) == 3 * 2 * 5 * 3
    for row in found["answering"]["draws"]:
        mine = [r for r in answering if (r["template"], r["temperature"]) == (row["template"], row["temperature"])]
        assert len(mine) == row["ok"] == 15 and row["answering"] == sum(r["category"] for r in mine)
    shares = {t: sum(r["category"] for r in answering if r["template"] == t) / 30 for t in ("no", "r1", "qwen_math")}
    assert choice["shares"] == shares and choice["template"] == max(shares, key=shares.get) and choice["judge"] == "rules"
    for row in found["exploration"]["draws"]:
        mine = [r for r in rows("exploration") if r["temperature"] == row["temperature"]]
        solved = {r["id"] for r in mine if r["right"]}
        assert {r["template"] for r in mine} == {choice["template"]} and row["pass"] == len(solved) / 5 and row["k"] == 3
    for row in found["reflection"]["draws"]:
        mine = [r for r in rows("reflection") if r["temperature"] == row["temperature"]]
        both = [r for r in mine if r["category"] == 2 and r["keywords"]]
        assert row["reflecting"]["both"] == {"responses": len(both), "questions": len({r["id"] for r in both})}
        assert set(row["lengths_by_level"]) == {"0", "1", "all"}
    before = kept()
    again = analyze("all", *arguments)
    assert again.returncode == 0 and again.stderr == "" and kept() == before
    assert again.stdout.count(": 0 of 15 responses to draw") == 10 and "base model" not in again.stdout  # which is not even loaded
    assert all(word in again.stdout for word in ("chosen template", "pass@3", "keywords", "by level", "by category"))
    assert "n=4 (there 3)" in analyze("answering", *arguments, "-n", 4).stderr


def base(request) -> tuple[int, dict]:
    """A base model that answers with the template r1 only, and reflects one time in two."""
    if "<think>" not in request["prompt"]:
        return reply(" What is 3 + 4?")
    return reply("x = 1. Let me RECHECK, wait." if request["seed"] % 2 else "x = 1</think> <answer>1</answer>")


def judge(request) -> tuple[int, dict]:
    """Sometimes down, sometimes nonsense, else a rough verdict."""
    content = request["messages"][0]["content"]
    text, four = content.split("<text>\n")[1], "0, 1, 2, 3." in content
    if "1 + 3?" in content:
        return failure(500)
    if "1 + 2?" in content:
        return reply("12.")
    return reply(str(2 if four and "RECHECK" in text else int("x =" in text)))


@pytest.mark.slow  # 12 s
def test_a_server_judged_by_another_server_step_by_step(questions):
    questions.write_text("".join(json.dumps({"problem": f"1 + {i}?", "answer": str(1 + i)}) + "\n" for i in range(6)))
    keys = {"OPENAI_API_KEY": "sk-model", "JUDGE_API_KEY": "sk-judge"}
    with completion_server(base) as model, completion_server(judge, models=("judge",)) as judging:
        arguments = ("--model", model.url, "--data", "questions.jsonl", "-n", 2, "--temperatures", "0.6", "--out", "out", "--json")
        arguments += ("--judge", judging.url, "--judge-retries", 0, "--judge-prices", "1,2")
        early = analyze("exploration", *arguments, **keys)
        assert early.returncode == 2 and "template_choice.json does not exist" in early.stderr and "give --template" in early.stderr
        answering = summary(analyze("answering", *arguments, **keys))["answering"]
        assert [(row["share"], row["ok"], row["unparsed"], row["failed"]) for row in answering["draws"]] == [
            (0, 8, 2, 2),
            (1, 8, 2, 2),
            (0, 8, 2, 2),
        ]
        assert answering["choice"]["template"] == "r1" and answering["judging"]["judge"] == "judge"
        assert answering["judging"]["completion_tokens"] == 5 * answering["judging"]["requests"] > 0 < answering["judging"]["cost"]
        asked, drawn = len(judging.asked), len(model.asked)
        assert drawn == 3 * 6 * 2
        found = summary(analyze("reflection", *arguments, **keys))
        assert found["answering"] == answering and len(model.asked) == drawn  # the responses are those of before
        (row,) = found["reflection"]["draws"]
        reflecting = [r for r in rows("reflection") if "RECHECK" in r["text"]]
        assert row["reflecting"]["keywords"]["responses"] == len(reflecting) > 0
        assert row["reflecting"]["both"]["responses"] == sum(r["category"] == 2 for r in reflecting)
        assert (row["unparsed"], row["failed"]) == (2, 2) and len(judging.asked) > asked
        asked = len(judging.asked)
        summary(analyze("reflection", *arguments, **keys))
        failed = {r["text"] for r in rows("reflection") if r["judging"] == "failed"}
        assert len(judging.asked) - asked == len(failed)
        assert set(model.keys) == {"Bearer sk-model"} and set(judging.keys) == {"Bearer sk-judge"}
        assert found["protocol"]["model"] == MODEL and not any(b"sk-" in content for content in kept().values())


@pytest.mark.slow  # 7 s
def test_killed_while_it_judges_it_asks_only_for_what_is_missing():
    with completion_server(base) as model, completion_server(lambda _: reply("1"), seconds=0.03) as judging:
        arguments = ["answering", "--model", model.url, "--data", "builtin:arithmetic@heldout", "--questions", "60", "-n", "1"]
        arguments += ["--templates", "no", "--temperatures", "1", "--judge", judging.url, "--judge-concurrency", "4", "--out", "out"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
        with subprocess.Popen([sys.executable, "-m", "fastgrpo", "analyze", *arguments], env=environment, **quiet) as process:
            deadline = time.monotonic() + 60
            while len(judging.asked) < 20 and time.monotonic() < deadline:
                time.sleep(0.005)
            process.kill()
        time.sleep(0.3)  # the last requests of the dead client
        known = Path("out", "judge.jsonl").read_bytes().count(b"\n")
        assert 16 <= known <= len(judging.asked) <= known + 8 < 60 and not Path("out", "answering.parquet").exists()
        judging.asked.clear()
        found = summary(analyze(*arguments, "--json"))["answering"]
        assert len(judging.asked) == found["judging"]["requests_now"] == 60 - known and len(model.asked) == 60
        assert found["draws"][0]["answering"] == found["judging"]["requests"] == 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"what": "everything"}, "'everything' does not exist; it can be answering, exploration, reflection, all"),
        ({"--templates": "no,r2"}, "--templates 'r2' does not exist; it can be qwen_math, r1"),
        ({"--templates": ","}, "--templates names none"),
        ({"--template": "r2"}, "--template 'r2' does not exist"),
        ({"--temperatures": "0.6;1"}, "--temperatures '0.6;1' must be numbers from 0 on"),
        ({"--temperatures": "nan"}, "--temperatures 'nan' must be numbers from 0 on"),
        ({"--temperatures": "0,1"}, "-n 8 with temperature 0 would draw the same response 8 times"),
        ({"--data": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"--model": "nowhere"}, "model=nowhere: no such directory"),
        ({"--verifier": "slow"}, "--verifier 'slow' does not exist"),
        ({"--judge": "gpt"}, "--judge 'gpt' is no judge; it can be rules, or the URL"),
        ({"--judge-model": "gpt"}, "give --judge URL as well"),
        ({"--judge": "http://127.0.0.1:9", "--judge-prices": "1"}, "--judge-prices '1' must be two numbers"),
        ({"what": "reflection"}, "out/template_choice.json does not exist, so no template is chosen"),
    ],
)
def test_what_cannot_be_analysed_is_refused_in_one_line(change, words, monkeypatch):
    from fastgrpo.cli import make_app
    from fastgrpo.errors import InputError

    options = {"what": "all", "--model": "builtin:base", "--data": "questions.jsonl", "--out": "out"} | change
    arguments = ["analyze", options.pop("what"), *(part for pair in options.items() for part in pair)]
    with pytest.raises(InputError) as refused:
        make_app()(arguments, standalone_mode=False)
    assert words in str(refused.value) and "\n" not in str(refused.value)

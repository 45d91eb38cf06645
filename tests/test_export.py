"""Export: the same policy, a card that says what the run's files say, and a push that can lose nothing."""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from in_process import in_process
from outcomes import rows
from safetensors.torch import load_file
from test_cli import fastgrpo, here, refusal
from test_trainer import SMALL, Silent

from fastgrpo.config import load_config
from fastgrpo.errors import InputError
from fastgrpo.export import export
from fastgrpo.launch import launch
from fastgrpo.model import load_model, load_tokenizer

__all__ = ["here"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model_dir) -> Path:
    """Two steps, each saved; evaluated before and after them."""
    folder = tmp_path_factory.mktemp("exported")
    problems = folder / "letters.jsonl"
    problems.write_text("\n".join(json.dumps({"problem": f"The letter {letter}", "answer": letter}) for letter in "abcdef"))
    settings = [*SMALL, f"model={tiny_model_dir}", f"data.train={problems}", f"data.eval={problems}", f"run_dir={folder / 'run'}"]
    launch(load_config("tiny", [*settings, "checkpoint.every=1", "template=r1", "max_prompt_tokens=900"]), Silent())
    return folder / "run"


@pytest.mark.parametrize(("name", "step"), [("", 2), ("@latest", 2), ("@1", 1)])
def test_an_export_is_the_policy_of_the_checkpoint_without_the_trainer(name, step, run, tmp_path):
    exported = export(f"{run}{name}", tmp_path / "out")
    there = run / "checkpoints" / f"step_{step}"
    assert exported.step == step and exported.dtype == "float32"
    files = {path.name for path in there.iterdir() if path.is_file()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | {"README.md"}
    assert all((tmp_path / "out" / name).read_bytes() == (there / name).read_bytes() for name in files)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype_is_each_weight_rounded_once(dtype, run, tmp_path):
    export(str(run), tmp_path / "out", dtype)
    there, here = (load_file(folder / "model.safetensors") for folder in (run / "checkpoints" / "latest", tmp_path / "out"))
    assert there.keys() == here.keys()
    assert all(torch.equal(here[name], there[name].to(getattr(torch, dtype))) for name in there)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    if dtype == "bfloat16":
        model = load_model(str(tmp_path / "out"), "bfloat16")
        assert model.dtype == torch.bfloat16 and load_tokenizer(str(tmp_path / "out"))("a")["input_ids"] == [
            load_tokenizer(str(run / "checkpoints" / "latest"))("a")["input_ids"][0]
        ]


def test_a_weight_beyond_the_range_is_refused_and_nothing_is_left(run, tmp_path):
    from safetensors.torch import save_file

    from fastgrpo.manifest import MANIFEST, seal

    shutil.copytree(run, tmp_path / "run", symlinks=True)
    file = tmp_path / "run" / "checkpoints" / "step_2" / "model.safetensors"
    weights = load_file(file)
    next(iter(weights.values())).view(-1)[0] = 1e5
    save_file(weights, file, {"format": "pt"})
    (file.parent / MANIFEST).unlink()
    seal(file.parent)
    with pytest.raises(InputError, match=r"--dtype float16: .* has weights beyond its range; take bfloat16 or float32"):
        export(str(tmp_path / "run"), tmp_path / "out", "float16")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_the_card_says_what_was_measured_and_by_which_settings(run, tmp_path):
    export(str(run), tmp_path / "my-model", "bfloat16")
    card = (tmp_path / "my-model" / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["fastgrpo", "reinforcement-learning"],
    }
    assert "trained by Dr. GRPO" in body and "after step 2, in bfloat16" in body and "ended by `</answer>`" in body
    before, after = (row["evaluation"] for row in rows(run) if "evaluation" in row)
    (name,) = after["greedy"]
    for way, sets in after.items():
        one, low, high = (f"{100 * sets[name][key]:.1f}" for key in ("accuracy", "low", "high"))
        earlier = f"{100 * before[way][name]['accuracy']:.1f}"
        assert f"| letters.jsonl | 6 | {way} | {one} % | {low} - {high} % | {earlier} % |" in body
    steps = [row for row in rows(run) if "updates" in row]
    assert f"| reward | {steps[0]['reward']:.4g} | {steps[1]['reward']:.4g} |" in body
    settings = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert settings["loss.type"] == "dr_grpo" and settings["lr"] == 1e-3 and settings["data.train"] == "letters.jsonl"
    assert str(run.parent) not in card and "run_dir" not in settings


def test_the_prompt_of_the_card_is_the_template(run, tmp_path):
    from fastgrpo.templates import TEMPLATES

    export(str(run), tmp_path / "out")
    line = next(line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if line.startswith("prompt = "))
    scope = {"question": "1 + 1?"}
    exec(line, scope)
    assert scope["prompt"] == TEMPLATES["r1"].render("1 + 1?")


def test_of_a_step_that_nobody_measured_the_card_says_so_and_evaluations_by_eval_are_added(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    export(f"{tmp_path / 'run'}@1", tmp_path / "bare")
    assert "Nothing was measured of this step." in (tmp_path / "bare" / "README.md").read_text()
    protocol = {"template": "no", "n": 4, "temperature": 0.6, "max_new_tokens": 50, "verifier": "fast", "keep_truncated": False}
    for step in (1, 2):
        folder = tmp_path / "run" / "evals" / f"by-hand-{step}"
        folder.mkdir()
        found = {"aime24": {"problems": 30, "accuracy": step / 10, "low": 0.04, "high": 0.21}}
        model = str(tmp_path / "run" / "checkpoints" / f"step_{step}")
        (folder / "results.json").write_text(json.dumps({"protocol": protocol | {"model": model}, "sets": found}))
    export(f"{tmp_path / 'run'}@1", tmp_path / "measured")
    card = (tmp_path / "measured" / "README.md").read_text()
    assert "| aime24 | 30 | temperature 0.6, 4 responses | 10.0 % | 4.0 - 21.0 % |" in card and "20.0 %" not in card


@pytest.mark.parametrize(
    ("given", "out", "options", "code", "words"),
    [
        ("RUN", "used", (), 2, "used already holds files: name a new directory, or empty it"),
        ("RUN", "used/file", (), 2, "used/file is a file: name a new directory"),
        ("RUN@7", "new", (), 2, "has no checkpoint step_7; it has latest, step_1, step_2"),
        ("used", "new", (), 2, "used is not a Hugging Face model directory"),
        ("nowhere", "new", (), 2, "nowhere: no such directory"),
        ("MODEL", "new", (), 2, "is no run: give the directory of a run"),
        ("RUN", "new", ("--dtype", "int8"), 2, "--dtype 'int8' does not exist; it can be float32, bfloat16, float16"),
        ("RUN", "new", ("--push", "name"), 2, "--push 'name' is no name on the Hub"),
        ("RUN", "new", ("--public",), 2, "--public goes with --push"),
        ("RUN", "new", ("--push", "org/name"), 3, "put it into the environment variable HF_TOKEN"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line(given, out, options, code, words, run, tiny_model_dir, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    os.mkdir("used")
    Path("used/file").write_text("mine")
    given = given.replace("RUN", str(run)).replace("MODEL", str(tiny_model_dir))
    assert words in refusal(in_process("export", given, out, *options), code)
    assert os.listdir() == ["used"] and Path("used/file").read_text() == "mine"


def test_a_checkpoint_that_is_not_whole_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    os.truncate(tmp_path / "run" / "checkpoints" / "step_2" / "model.safetensors", 1000)
    with pytest.raises(InputError, match=r"step_2 cannot be exported: model.safetensors has 1000 bytes instead of"):
        export(str(tmp_path / "run"), tmp_path / "out")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload of small files needs; `works` says whether commits do."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"http://127.0.0.1:{self.server.server_address[1]}/org/name"
        answer: dict = {}
        if self.path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            answer = {"url": address, "id": "org/name"}
        elif "/preupload/" in self.path:
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]}
        elif "/commit/" in self.path:
            if not self.server.works:
                return self.send_error(403)
            self.server.files |= {row["value"]["path"] for row in map(json.loads, body.splitlines()) if row["key"] == "file"}
            answer = {"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/commit/{'0' * 40}"}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.server.tokens.add(self.headers.get("Authorization"))
        return self.wfile.write(data)

    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_): ...


@pytest.mark.slow  # 6 s
@pytest.mark.parametrize("works", [True, False])
def test_an_export_is_pushed_and_a_push_that_fails_loses_nothing(works, run):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.works, server.files, server.created, server.tokens = works, set(), None, set()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        surroundings = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_planted", "HF_HUB_OFFLINE": "0", "no_proxy": "127.0.0.1"}
        done = fastgrpo("export", str(run), "out", "--push", "org/name", "--json", **surroundings)
        server.shutdown()
    files = {path.name for path in Path("out").iterdir()}
    assert {"model.safetensors", "README.md", "config.json"} <= files and "hf_planted" not in done.stdout + done.stderr
    assert server.created["visibility"] == "private" and "Bearer hf_planted" in server.tokens
    if works:
        assert json.loads(done.stdout)["hub"] == f"{address}/org/name" and server.files == files
    else:
        assert done.returncode == 3 and "out was exported, but pushing it to org/name failed" in done.stderr.splitlines()[-1]


def test_a_hub_that_is_away_is_said_soon_and_the_export_stays(run):
    surroundings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_planted"}
    done = fastgrpo("export", str(run), "out", "--push", "org/name", **surroundings)
    assert done.returncode == 3 and "pushing it to org/name failed" in done.stderr and Path("out/model.safetensors").exists()

"""Closed by default: no code of others is run, no secret is kept, and a run writes into its own directory alone."""

import ast
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import torch
import yaml
from completion_server import completion_server, failure, reply
from rewards.reward_server import Server
from safetensors.torch import save_file
from test_trainer import letter_problems, run

from fastgrpo import hub
from fastgrpo.config import load_config
from fastgrpo.errors import InputError, SetupError
from fastgrpo.launch_evaluation import EvaluationRequest, launch_evaluation
from fastgrpo.model import load_model, load_tokenizer
from fastgrpo.model_source import find_subject, require_model
from fastgrpo.rewards import require_rewards
from fastgrpo.saved_state import SavedState
from fastgrpo.settings_file import _Loader

__all__ = ["letter_problems"]
ROOT = Path(__file__).parents[1]
SECRETS = {name: f"planted-{name.lower()}-0123456789" for name in ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "FASTGRPO_REWARD_TOKEN")}


def calls() -> list[tuple[str, str, dict[str, object]]]:
    """Every call in the sources: (file, dotted name, its keywords as far as they are constants)."""
    found = []
    for path in (path for folder in ("fastgrpo", "kernels", "bench") for path in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        closed = {"trust_remote_code": False, "use_safetensors": True}
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            keywords = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
            if any(k.arg is None and isinstance(k.value, ast.Name) and k.value.id == "closed" for k in node.keywords):
                keywords |= closed
            found.append((path.name, ast.unparse(node.func), keywords))
    return found


def test_no_call_reads_pickles_or_runs_what_comes_with_a_model():
    loads = [(name, keywords) for _, name, keywords in calls() if name.endswith(".from_pretrained")]
    assert len(loads) >= 2 and all(keywords.get("trust_remote_code") is False for _, keywords in loads)
    assert all(keywords.get("use_safetensors") is True for name, keywords in loads if "Model" in name)
    for file, name, keywords in calls():
        assert keywords.get("trust_remote_code") is not True, file
        assert name != "torch.load" or keywords.get("weights_only") is True, file
        assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "yaml.unsafe_load", "yaml.full_load"), file
    assert issubclass(_Loader, yaml.SafeLoader)


@pytest.fixture
def marker(tmp_path) -> Path:
    """What hostile files create once they are run."""
    return tmp_path / "it-ran"


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def copied(model: Path, into: Path, **config) -> Path:
    shutil.copytree(model, into)
    (into / "config.json").write_text(json.dumps(json.loads((into / "config.json").read_text()) | config))
    return into


def test_a_model_that_needs_code_of_its_own_is_refused_and_the_code_not_run(tiny_model_dir, tmp_path, marker):
    code = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    model = copied(tiny_model_dir, tmp_path / "model", model_type="own", architectures=["OwnModel"], auto_map=code)
    (model / "own.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    require_model(str(model))
    load_tokenizer(str(model))
    with pytest.raises(InputError, match="it needs Python code of its own, which is never run"):
        load_model(str(model), "float32")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.pth"])
def test_pickled_weights_are_refused_with_how_to_convert_them_and_never_read(tiny_model_dir, tmp_path, marker, name):
    model = copied(tiny_model_dir, tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(InputError, match=rf"holds its weights only as {name}, .*python -c .*save_pretrained"):
        require_model(str(model))
    with pytest.raises(InputError, match="could not be loaded as a causal language model"):
        load_model(str(model), "float32")
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(model / name, weights_only=True)
    pickle.loads((model / name).read_bytes())
    assert marker.exists()


def test_a_checkpoints_state_is_read_from_safetensors_alone(tmp_path, marker):
    save_file({"master/a": torch.ones(2)}, tmp_path / "state-00000.safetensors")
    for name in ("state-00001.bin", "state-00002.pt", "optimizer.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Hostile(marker)))
    assert list(SavedState(tmp_path)) == ["master/a"]
    (tmp_path / "state-00003.safetensors").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(Exception, match=r"(?i)header"):
        SavedState(tmp_path)
    assert not marker.exists()


def text_of(path: Path) -> str:
    raw = path.read_bytes().decode("latin-1")
    return raw if path.suffix != ".parquet" else raw + json.dumps(pyarrow.parquet.read_table(path).to_pylist())


def assert_clean(directory: Path, *texts: str) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert files
    for secret in SECRETS.values():
        assert not [path for path in files if secret in text_of(path)]
        assert not [text for text in texts if secret in text]


def rewards(handler):
    handler.answer(body=json.dumps({"rewards": [0, 1, 0, 1]}).encode())


def test_a_run_keeps_no_secret_and_its_files_have_the_rights_that_the_umask_leaves(
    tmp_path, tiny_model_dir, letter_problems, monkeypatch, capfd
):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FASTGRPO_FAULTS", "learn@1:0:nan")  # so that there is a dump, too
    mask = os.umask(0o027)
    try:
        with Server(rewards) as server:
            settings = (f"reward.url={server.url}", f"data.eval={letter_problems}", "health.skipped_updates=9", "checkpoint.every=1")
            _, _, directory = run(tmp_path, tiny_model_dir, letter_problems, *settings)
            server.shutdown()
    finally:
        os.umask(mask)
    assert server.seen[0][1]["Authorization"] == f"Bearer {SECRETS['FASTGRPO_REWARD_TOKEN']}"
    assert_clean(directory, *capfd.readouterr())
    assert list(directory.glob("dumps/*")) and list(directory.glob("rollouts/*")) and list(directory.glob("checkpoints/step_2/trainer/*"))
    rights = {path: path.stat().st_mode & 0o777 for path in directory.rglob("*")}
    assert {oct(mode) for path, mode in rights.items() if path.is_dir()} == {"0o750"}
    assert {oct(mode) for path, mode in rights.items() if path.is_file()} == {"0o640"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", letter_problems.name}


def request(url: str, problems: Path) -> EvaluationRequest:
    return EvaluationRequest(
        model=url,
        benchmarks=(str(problems),),
        template="no",
        n=1,
        temperature=0.0,
        max_new_tokens=8,
        verifier="fast",
        keep_truncated=False,
        compat=False,
        step="",
        seed=0,
        limit=0,
        problem="problem",
        answer="answer",
        dtype="float32",
        engine="native",
        cache_gib=1.0,
        served_model="",
        chat=False,
        concurrency=4,
        out=None,
    )


def test_an_evaluation_keeps_no_key_and_a_servers_name_leads_nowhere_else(tmp_path, letter_problems, monkeypatch, capfd):
    """The server calls its model ../../up, and repeats the key where it fails."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    key, said = SECRETS["OPENAI_API_KEY"], []
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with completion_server(lambda _: reply("1"), models=("../../up",)) as server:
        _, directory = launch_evaluation(request(server.url, letter_problems), said.append)
    assert server.keys[0] == f"Bearer {key}"
    assert directory.resolve() == tmp_path / "here" / "evals" / "up-no-greedy-8"
    with (
        completion_server(lambda _: failure(401, f"wrong key {key}"), models=("other",)) as server,
        pytest.raises(SetupError, match="wrong key") as error,
    ):
        launch_evaluation(request(server.url, letter_problems), said.append)
    assert_clean(tmp_path / "here", *said, str(error.value), *capfd.readouterr())
    assert {path.name for path in tmp_path.iterdir()} == {"here", letter_problems.name}


def test_a_url_with_a_password_in_it_is_refused_without_repeating_it():
    with pytest.raises(InputError, match=r"reward.url holds a name or password.*FASTGRPO_REWARD_TOKEN") as error:
        require_rewards((), "https://me:hidden@example.org/score")
    assert "hidden" not in str(error.value)
    with pytest.raises(InputError, match="OPENAI_API_KEY") as error:
        find_subject("https://me:hidden@example.org/v1", "")
    assert "hidden" not in str(error.value)


def test_a_run_directory_does_not_lead_upwards(tmp_path):
    (tmp_path / "my.yaml").write_text("recipe: tiny\nrun_dir: runs/../../elsewhere\n")
    with pytest.raises(InputError, match=r"my.yaml:2: run_dir is 'runs/../../elsewhere'; it must not lead upwards"):
        load_config(str(tmp_path / "my.yaml"), [])
    assert load_config("tiny", ["run_dir=runs/a..b"]).config.run_dir == "runs/a..b"


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_where_the_hub_does_not_answer_the_cache_alone_is_used(monkeypatch, unused_port):
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        hub.offline_without_hub()
        assert "HF_HUB_OFFLINE" not in os.environ
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port}")
    hub.offline_without_hub()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.slow  # 10 s
def test_a_model_on_a_hub_that_cannot_be_reached_is_told_in_one_line_and_soon(tmp_path, letter_problems, unused_port):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE" and "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{unused_port}", "HF_HOME": str(tmp_path / "cache")}
    environment |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    command = [sys.executable, "-m", "fastgrpo", "train", "tiny", "model=org/name", f"data.train={letter_problems}", "data.eval=[]"]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastgrpo: model=org/name") and time.monotonic() - started < 40

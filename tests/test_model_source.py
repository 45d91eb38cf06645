"""What `fastgrpo eval` is given: a server, a run with its checkpoints, or a model."""

import pytest

from fastgrpo.errors import InputError
from fastgrpo.model_source import Subject, cache_directory, find_subject, model_directory, weights_stamp


@pytest.fixture
def run(tmp_path):
    """A run directory with three checkpoints."""
    directory = tmp_path / "run"
    for step in (5, 10, 15):
        (directory / "checkpoints" / f"step_{step}").mkdir(parents=True)
        (directory / "checkpoints" / f"step_{step}" / "config.json").write_text("{}")
    (directory / "config.yaml").write_text("")
    (directory / "checkpoints" / "latest").symlink_to("step_15")
    return directory


def chosen(run, step="") -> str:
    subject = find_subject(str(run), step)
    assert subject.run == run and subject.url == ""
    return subject.path.removeprefix(str(run.resolve() / "checkpoints") + "/")


def test_a_runs_best_checkpoint_is_taken_or_else_its_latest(run):
    assert chosen(run) == "step_15"
    (run / "checkpoints" / "best").symlink_to("step_10")
    assert chosen(run) == "step_10"


def test_a_step_is_taken_where_it_is_named(run):
    (run / "checkpoints" / "best").symlink_to("step_10")
    assert [chosen(run, step) for step in ("5", "best", "latest")] == ["step_5", "step_10", "step_15"]


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(run):
    with pytest.raises(InputError, match="has no checkpoint step_7; it has latest, step_10, step_15, step_5"):
        find_subject(str(run), "7")
    with pytest.raises(InputError, match="has no checkpoint best; it has"):
        find_subject(str(run), "best")


def test_a_checkpoint_by_its_own_path_is_a_model(tiny_model_dir):
    assert find_subject(str(tiny_model_dir), "") == Subject(path=str(tiny_model_dir))
    assert find_subject("Qwen/Qwen2.5-Math-1.5B", "") == Subject(path="Qwen/Qwen2.5-Math-1.5B")
    assert model_directory(str(tiny_model_dir), print) == str(tiny_model_dir)


def test_a_url_is_a_server():
    assert find_subject("http://localhost:8000/v1", "") == Subject(url="http://localhost:8000/v1")


def test_a_step_of_what_is_no_run_is_refused(tiny_model_dir):
    for given in (str(tiny_model_dir), "https://localhost/v1", "Qwen/Qwen2.5-Math-1.5B"):
        with pytest.raises(InputError, match="--step 5 needs a run directory"):
            find_subject(given, "5")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("builtin:huge", "does not exist"),
        ("no/such/directory/here", "no such directory"),
        ("empty", "it lacks config.json, weights, a tok"),
    ],
)
def test_what_is_no_model_is_refused(given, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=words):
        find_subject(given, "")


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGRPO_CACHE", str(tmp_path / "mine"))
    assert cache_directory() == tmp_path / "mine" and cache_directory().is_dir()
    monkeypatch.delenv("FASTGRPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "fastgrpo"


def test_the_stamp_of_weights_changes_with_them(tmp_path):
    assert weights_stamp("org/name") == weights_stamp(str(tmp_path)) == ""
    (tmp_path / "model.safetensors").write_bytes(b"1")
    first = weights_stamp(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert weights_stamp(str(tmp_path)) == first != ""
    (tmp_path / "model.safetensors").write_bytes(b"12")
    assert weights_stamp(str(tmp_path)) != first

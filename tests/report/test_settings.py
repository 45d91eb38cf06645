"""Settings as a run wrote them, and where runs differ."""

from fastgrpo.config import load_config, to_yaml
from fastgrpo.report.settings import differences, read_settings

ODD = ("data.eval=[builtin:arithmetic@heldout, 'b  # c']", "lr=2e-6", "loss.beta=0.5")


def settings(tmp_path, *given):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(load_config("tiny", list(given))))
    return read_settings(path)


def test_every_setting_is_read_with_its_origin(tmp_path):
    resolved = load_config("tiny", list(ODD))
    found = {setting.key: setting for setting in settings(tmp_path, *ODD)}
    assert {key: setting.origin for key, setting in found.items()} == dict(resolved.origins)
    assert found["lr"].text == "2.0e-06" and found["data.eval"].text == "['builtin:arithmetic@heldout', 'b  # c']"


def test_runs_differ_in_what_differs_and_not_in_their_place(tmp_path):
    first, second = settings(tmp_path, "lr=1e-4", "run_dir=a"), settings(tmp_path, "lr=2e-6", "loss.type=grpo", "run_dir=b")
    rows = differences([first, second, first])
    assert {row["key"]: row["texts"] for row in rows} == {
        "lr": ["0.0001", "2.0e-06", "0.0001"],
        "loss.type": ["dr_grpo", "grpo", "dr_grpo"],
    }


def test_a_setting_that_one_run_lacks_is_a_difference(tmp_path):
    found = settings(tmp_path)
    (row,) = differences([found, [setting for setting in found if setting.key != "loss.delta"]])
    assert (row["key"], row["texts"]) == ("loss.delta", ["null", None])


def test_a_single_run_shows_what_was_asked_for_it_alone(tmp_path):
    assert [row["key"] for row in differences([settings(tmp_path, *ODD)])] == ["data.eval", "loss.beta", "lr"]
    assert differences([settings(tmp_path)]) == []


def test_no_file_has_no_settings(tmp_path):
    assert read_settings(tmp_path / "missing") == ()

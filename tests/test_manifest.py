"""A sealed directory is told apart from one with any file missing, cut short or changed, and the flaw names the file."""

import json

import pytest

from fastgrpo.manifest import MANIFEST, flaw, seal


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "trainer" / "state").write_bytes(b"\0" * 1000)
    (tmp_path / "empty").touch()
    seal(tmp_path)
    return tmp_path


def test_a_whole_directory_has_no_flaw_wherever_it_is_moved(sealed):
    assert flaw(sealed) is None
    assert flaw(sealed.rename(sealed.with_name("moved"))) is None


def test_any_flipped_bit_is_found(sealed):
    for name, at in (("weights", 0), ("weights", 10239), ("trainer/state", 517)):
        content = bytearray((sealed / name).read_bytes())
        content[at] ^= 1
        (sealed / name).write_bytes(content)
        assert flaw(sealed) == f"{name} is corrupted"
        content[at] ^= 1
        (sealed / name).write_bytes(content)
    assert flaw(sealed) is None


def test_a_file_cut_short_or_grown_or_gone_is_named(sealed):
    weights = sealed / "weights"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert flaw(sealed) == "weights has 10239 bytes instead of 10240"
    weights.write_bytes(content + b"\0")
    assert flaw(sealed) == "weights has 10241 bytes instead of 10240"
    weights.unlink()
    assert flaw(sealed) == "weights is missing"
    weights.mkdir()
    assert flaw(sealed) == "weights is missing"


def test_a_file_that_the_disk_cannot_read_is_a_flaw(sealed, monkeypatch):
    def broken(path):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fastgrpo.manifest.sha256", broken)
    assert flaw(sealed) == "empty is corrupted"


def test_without_its_manifest_nothing_is_trusted(sealed):
    (sealed / MANIFEST).unlink()
    assert flaw(sealed) == "trainer/manifest.json is missing"


@pytest.mark.parametrize(
    "content",
    [b"", b'{"files": {"weights": {"by', b"[]", b"null", b'{"files": []}', b'{"files": {"weights": 3}}', b"\xff\xfe", b'{"x": 1}'],
)
def test_a_manifest_that_makes_no_sense_is_a_flaw(sealed, content):
    (sealed / MANIFEST).write_bytes(content)
    assert flaw(sealed).startswith("trainer/manifest.json cannot be read (")


def test_a_manifest_lists_every_other_file_and_what_is_added_later_does_not_matter(sealed):
    assert set(json.loads((sealed / MANIFEST).read_text())["files"]) == {"empty", "trainer/state", "weights"}
    (sealed / "notes.txt").write_text("mine")
    assert flaw(sealed) is None

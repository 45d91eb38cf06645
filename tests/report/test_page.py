"""The page in itself: what it embeds cannot get out, it allows itself no request, and none of its code parses HTML."""

import base64
import hashlib
import html.parser
import json
import os
import re
from importlib import resources
from pathlib import Path

import pytest
import setuptools
from synthetic import NASTY, add_tokenizer, write_nasty_rollouts, write_run

from fastgrpo.errors import SetupError
from fastgrpo.report.page import SCRIPTS, asset, embedded, write_report

ROOT = Path(__file__).parents[2]


class Scripts(html.parser.HTMLParser):
    """The script elements of a page, and all other start tags, as an HTML parser finds them."""

    def __init__(self, page: str):
        super().__init__()
        self.scripts, self.tags, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append((dict(attributes), ""))
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("page") / "<b>run<script>", 3, settings=(f"data.eval=[{json.dumps(NASTY[0])}]",))
    add_tokenizer(run)
    write_nasty_rollouts(run / "rollouts" / "step_000001.parquet", 1)
    (run / "logs" / "rank_0.log").write_text(NASTY[0] + "\n" + NASTY[2])
    (run / "summary.json").unlink()
    path, _ = write_report([str(run)], None)
    assert path == run / "report.html" and not list(run.glob("*.tmp"))
    return path.read_text()


def test_data_that_would_end_its_element_cannot(page):
    found = Scripts(page)
    kinds = [attributes.get("id") or attributes.get("data-run") for attributes, _ in found.scripts]
    assert kinds == ["data", "plotly", "0", None]
    data = json.loads(found.scripts[0][1])
    assert data["runs"][0]["name"] == "<b>run<script>" and data["runs"][0]["log"].startswith(NASTY[0])
    assert {tag for tag, _ in found.tags} <= {
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "a",
        "header",
        "main",
        "noscript",
        "p",
        "script",
    }


@pytest.mark.parametrize("text", ["</script>", "<!--", "<script", "\u2028\u2029", "</SCRIPT ", *NASTY])
def test_embedded_data_has_no_markup_and_comes_back_as_it_was(text):
    assert "<" not in embedded({"a": [text]}) and embedded([text]).isascii()
    assert json.loads(embedded({text: [text]})) == {text: [text]}


def test_the_page_allows_itself_its_own_scripts_and_no_request(page):
    found = Scripts(page)
    (policy,) = [attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    own = base64.b64encode(hashlib.sha256(found.scripts[-1][1].encode()).digest()).decode()
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert f"'sha256-{own}'" in rules["script-src"] and "unsafe" not in rules["script-src"]
    outside = [value for _, attributes in found.tags for name, value in attributes.items() if name in ("src", "href")]
    assert sorted(outside) == ["#main", "data:,"]


def test_no_code_of_the_page_parses_html_or_runs_text():
    for name in SCRIPTS:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|setAttribute\(.on", asset(name)
        ), name


def test_every_asset_is_part_of_the_package_and_used(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {})
    assert "report/assets/*" in given["package_data"]["fastgrpo"]
    names = {entry.name for entry in resources.files("fastgrpo.report").joinpath("assets").iterdir()}
    assert names == {*SCRIPTS, "page.css", "page.html"}


def test_a_directory_whose_name_is_no_utf_8_has_a_page_too(tmp_path):
    run = write_run(tmp_path / os.fsdecode(b"run\xff"), 1)
    path, _ = write_report([str(run)], None)
    assert "<title>run? - fastgrpo" in path.read_text()


def test_a_place_that_cannot_be_written_is_an_error_of_the_setup(tmp_path):
    run = write_run(tmp_path / "run", 1)
    with pytest.raises(SetupError, match=r"cannot be written: (.*); name another place with --out"):
        write_report([str(run)], run / "config.yaml" / "report.html")

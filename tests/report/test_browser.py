"""The page in a real headless Chromium: it draws, filters, follows, obeys keys, asks nobody for anything, and runs nothing of a run.

All of it needs chromium and chromedriver; where they are missing, the skip says so. The whole file takes 50 s of one core.
"""

import json
import os
import random
import re
import subprocess
import sys
import threading

import pytest
from chromium import console, open_chromium, requests, screen, wait_until
from synthetic import RESULTS, add_tokenizer, step_row, write_nasty_rollouts, write_run

from fastgrpo.report.page import write_experiment, write_report
from fastgrpo.report.paging import page
from fastgrpo.report.pieces import Pieces
from fastgrpo.report.server import make_server

pytestmark = pytest.mark.slow
READY = "document.documentElement.dataset.ready"
FIRST_VIEW = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
FILTERS = (
    {},
    {"q": "BOXED{1"},
    {"q": "window.hacked"},
    {"first": "2", "last": "3"},
    {"reward": "positive"},
    {"reward": "zero"},
    {"reward": "negative"},
    {"reward": "none"},
    {"truncated": "yes", "reward": "zero"},
    {"grading": "odd"},
    {"shortest": "90", "longest": "120"},
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with open_chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = write_run(tmp_path_factory.mktemp("browser") / "<i>run", 4, 40, settings=("template=qwen_math",))
    add_tokenizer(made)
    write_nasty_rollouts(made / "rollouts" / "step_000005.parquet", 5)
    return made


def view(chromium, url: str) -> None:
    """Opens a page, waits until it is ready, and sees that nothing went wrong and nothing else was asked for."""
    chromium.get("about:blank")
    console(chromium), requests(chromium)  # of the page before
    chromium.get(url)
    wait_until(chromium, READY, 60)
    assert console(chromium) == []
    asked = requests(chromium)
    assert asked == [url] or (url.startswith("http") and all(each.startswith(url) for each in asked))


def view_report(chromium, *runs) -> None:
    path, _ = write_report([str(run) for run in runs], None)
    view(chromium, path.as_uri())


def draw_all(chromium) -> list[str]:
    """Scrolls along the page until every chart is drawn; those that hold no line."""
    for plot in chromium.find_elements("class name", "plot"):
        chromium.execute_script("arguments[0].scrollIntoView()", plot)
        wait_until(chromium, f"document.querySelector('#{plot.find_element('xpath', '..').get_attribute('id')} .plot').dataset.drawn")
    figures = "[...document.querySelectorAll('figure')]"
    return chromium.execute_script(f"return {figures}.filter(f => !f.querySelector('.scatterlayer path, .barlayer path')).map(f => f.id)")


def filtered(chromium, **asked: str) -> str:
    """Sets the filter as a user does, and gives what the page then says of it."""
    chromium.execute_script(
        "const form = document.querySelector('form.filter'); form.reset();"
        "for (const [name, value] of Object.entries(arguments[0])) form.elements[name].value = value;"
        "document.querySelector('[role=status]').textContent = ''; form.dispatchEvent(new Event('input', {bubbles: true}))",
        asked,
    )
    wait_until(chromium, "/found|match/.test(document.querySelector('[role=status]').textContent)")
    return chromium.execute_script("return document.querySelector('[role=status]').textContent")


def listed(chromium, place: int) -> str:
    """Clicks a rollout of the list; the text of what is then shown in full."""
    chromium.execute_script("document.querySelectorAll('.list button')[arguments[0]].click()", place)
    return chromium.execute_script("return document.querySelector('.browser article').textContent")


def test_texts_of_a_run_are_shown_and_nothing_of_them_runs(chromium, run):
    view_report(chromium, run)
    assert filtered(chromium, first="5").startswith("8 match")
    chromium.execute_script("document.querySelector('input[value=none]').click()")  # a mark would stand for a token without text
    markup, emoji, control = (listed(chromium, place) for place in range(3))
    assert markup.count("<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>") == 3  # problem, gold, response
    assert "\U0001f468\u200d\U0001f469\u200d\U0001f467 and \u4e2d\u6587, LaTeX $\\frac{1}{2}$ \\boxed{5} &amp; &lt;b&gt;" in emoji
    assert control.count("control \\x00 \\x07 \\x1b[31mred\\x1b[0m \\x7f \\u202eover\\u202c \\u2028 end\\x0d\n\ttab") == 3
    assert "<|im_start|>user\nemoji" in emoji and chromium.execute_script("return window.hacked") is None
    assert chromium.title == "<i>run - fastgrpo" and "<i>run" in chromium.execute_script("return document.querySelector('h1').textContent")
    assert draw_all(chromium) == [] and console(chromium) == [] and requests(chromium) == []


def test_even_markup_that_got_into_the_page_could_not_run_or_load(chromium, run):
    view_report(chromium, run)
    chromium.execute_async_script(
        "document.body.insertAdjacentHTML('beforeend', \"<img src='http://localhost:9/x' onerror='window.hacked = 1'>\");"
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "fetch('http://localhost:9/').catch(() => {}); setTimeout(arguments[0], 500)"
    )
    assert chromium.execute_script("return window.hacked") is None
    assert any("Content Security Policy" in line for line in console(chromium))


def test_the_page_and_the_server_filter_alike(chromium, run):
    view_report(chromium, run)
    for asked in FILTERS:
        expected, cursor = 0, ""
        while cursor is not None:
            found = page(run, Pieces(run, ""), asked | {"cursor": cursor})
            expected, cursor = expected + len(found["rows"]), found["next"]
        assert re.match(rf"{expected} match", filtered(chromium, **asked)), asked


def test_tokens_are_shaded_and_told_and_lists_grow(chromium, run):
    view_report(chromium, run)
    assert filtered(chromium).startswith("168 match, 50 listed")
    chromium.execute_script("document.querySelector('.more button').click()")
    wait_until(chromium, "document.querySelectorAll('.list li:not(.more)').length === 100")
    listed(chromium, 0)
    tokens = chromium.find_elements("class name", "token")
    assert len(tokens) > 5 and any("rgba" in token.get_attribute("style") for token in tokens)
    chromium.execute_script("arguments[0].click()", tokens[2])
    assert re.search(r"token 3 of \d+: -[\d.]+ nats, probability", chromium.find_element("css selector", ".browser article").text)
    chromium.execute_script("document.querySelector('input[value=advantage]').click()")
    assert chromium.execute_script("return document.querySelectorAll('.response span').length") == 1


def test_keys_are_enough(chromium, run):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(chromium).send_keys(*keys).perform()

    def focused(expression: str):
        return chromium.execute_script(f"return document.activeElement.{expression}")

    view_report(chromium, run)
    press(Keys.TAB)
    assert focused("className") == "skip"
    press("/")
    assert focused("name") == "q"
    press("boxed")
    wait_until(chromium, "document.querySelector('[role=status]').textContent.startsWith('161 match')")
    chromium.execute_script("document.querySelector('.list button').focus()")
    press(Keys.ARROW_DOWN, "j", Keys.ARROW_UP)
    assert chromium.execute_script("return [...document.querySelectorAll('.list button')].indexOf(document.activeElement)") == 1
    assert focused("getAttribute('aria-current')") == "true"
    legend = chromium.find_element("css selector", "#chart-lengths .legend button")
    chromium.execute_script("arguments[0].focus()", legend)
    press(Keys.SPACE)
    assert legend.get_attribute("aria-pressed") == "false"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_system_s_colours_are_followed(chromium, run):
    def grounds() -> tuple[int, int]:
        """Brightness of the page and of a chart's numbers, 0 to 765."""
        colours = chromium.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, document.querySelector('.xtick text').style.fill]"
        )
        return tuple(sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)

    try:
        screen(chromium, 360, 740)
        view_report(chromium, run)
        assert draw_all(chromium) == []
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
        ground, ink = grounds()
        assert ground > 700 and ink < 400
        screen(chromium, 360, 740, dark=True)
        wait_until(chromium, "document.documentElement.dataset.theme === 'dark'")
        ground, ink = grounds()
        assert ground < 100 and ink > 400
    finally:
        screen(chromium)


def test_500_steps_of_1024_responses_are_one_small_quick_page(chromium, tmp_path):
    run = write_run(tmp_path / "large", 500, 1024)
    add_tokenizer(run)
    path, held = write_report([str(run)], None)
    assert path.stat().st_size < 15_000_000 and re.search(r"1 run, \d,\d{3} of 512,000 responses", held)
    view(chromium, path.as_uri())
    if chromium.execute_script(FIRST_VIEW) >= 2000:  # other work may have held the machine up
        view(chromium, path.as_uri())
    assert chromium.execute_script(FIRST_VIEW) < 2000
    assert draw_all(chromium) == []
    assert "of 512,000 responses, from 500 steps" in chromium.find_element("id", "held").text
    assert filtered(chromium, first="250", last="250", truncated="no") != filtered(chromium, first="250", last="250")
    assert int(filtered(chromium, first="250", last="250").split()[0]) == 8


def test_a_run_that_goes_on_is_followed_live(chromium, tmp_path):
    run = write_run(tmp_path / "live", 2, 60, finished=False)
    add_tokenizer(run)
    with make_server([str(run)], 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            view(chromium, f"http://localhost:{server.server_address[1]}/")
            assert filtered(chromium).startswith("50 found so far")
            assert filtered(chromium, last="1", q="boxed{1}").startswith("1 found")
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(step_row(3, random.Random(0))) + "\n")
            wait_until(chromium, "/after 3 of 2 steps/.test(document.querySelector('#overview').textContent)", 20)
            wait_until(chromium, "Math.max(...document.querySelector('#chart-reward .plot').data[0].x) === 3", 20)
            assert console(chromium) == []
        finally:
            server.shutdown()
            thread.join()


def test_an_experiment_is_drawn(chromium, tmp_path):
    write_experiment(RESULTS, tmp_path / "index.html")
    view(chromium, (tmp_path / "index.html").as_uri())
    assert draw_all(chromium) == [] and "GRPO's wrong answers are longer: <shown>" in chromium.find_element("id", "main").text


def test_a_real_run_and_one_that_failed_early_have_pages_without_errors(chromium, tiny_model_dir, tmp_path):
    small = ("prompts_per_step=2", "samples_per_prompt=2", "updates_per_rollout=1", "max_new_tokens=8", "data.eval=[]", "steps=2")
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fastgrpo", "train", f"model={tiny_model_dir}", *small, f"run_dir={run}"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "FASTGRPO_CACHE": str(tmp_path / "cache")})
    view_report(chromium, run)
    assert draw_all(chromium) == [] and "finished: 2 of 2 steps" in chromium.find_element("id", "overview").text
    assert filtered(chromium).startswith("8 match") and len(chromium.find_elements("class name", "token")) > 0
    empty = tmp_path / "empty"
    (empty / "logs").mkdir(parents=True)
    (empty / "metrics.jsonl").write_text("")
    (empty / "logs" / "rank_0.log").write_text("0.1 s  stopped: SetupError: no space\n")
    view_report(chromium, empty)
    text = chromium.find_element("id", "main").text
    assert "stopped after 0 steps: SetupError: no space" in text and "No step was finished" in text
    view_report(chromium, run, empty)
    assert draw_all(chromium) == []

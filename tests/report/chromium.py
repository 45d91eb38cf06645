"""A real headless Chromium for tests, watched for console errors and requests; where there is none the skip says so."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> tuple[str, str]:
    """Browser and driver. Skips the test where either is missing, or selenium is."""
    pytest.importorskip("selenium", reason="selenium is not installed: no test in a browser")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with its driver here (Debian: apt-get install chromium chromium-driver): no test in a browser")
    return browser, driver


@contextlib.contextmanager
def open_chromium(profile: Path) -> Iterator:
    """A driver of a fresh browser, with its console and its network traffic recorded."""
    browser, driver = find_chromium()
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=Service(driver))
    try:
        screen(chromium)
        chromium.set_script_timeout(30)
        chromium.get("about:blank")
        requests(chromium)  # of the browser's own first page
        yield chromium
    finally:
        chromium.quit()


def screen(chromium, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    """The size of the window, a phone's where it is narrow, and the colours that the system asks for."""
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_until(chromium, condition: str, seconds: float = 30) -> None:
    """Until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chromium, seconds, poll_frequency=0.1).until(lambda _: chromium.execute_script(f"return Boolean({condition})"), condition)


def console(chromium) -> list[str]:
    """What the page's console got since the last call, but for what is only told."""
    return [entry["message"] for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(chromium) -> list[str]:
    """The URLs that were asked for since the last call, without those that the page holds itself."""
    events = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith(("data:", "blob:"))]

"""A headless Chromium, controlled with Selenium."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
HANG_GUARD_SECONDS = 60


@contextmanager
def headless_chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start a browser with an empty profile in the folder `profile`. Skip the test if none is installed."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no browser; install one with apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield browser
    finally:
        browser.quit()


def look(browser: webdriver.Chrome, width: int = 1200, height: int = 800, theme: str = "light") -> None:
    """Set the window size in pixels, and the system theme, "light" or "dark"."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def console(browser: webdriver.Chrome) -> list[str]:
    """Return the console messages since the last call: errors, warnings, refused scripts, missing files."""
    return [entry["message"] for entry in browser.get_log("browser")]


def expect(value: Callable[[], object], expected: object) -> None:
    """Wait until `value()` equals `expected`, and fail with the last value after HANG_GUARD_SECONDS.

    A browser handles pointer events, styles, storage and navigation in other processes: their effect comes with a delay,
    which is long on a busy machine.
    """
    deadline = time.monotonic() + HANG_GUARD_SECONDS
    while True:
        try:
            found = value()
        except WebDriverException as error:  # an element that is not there yet, or no longer
            found = error
        if found == expected or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    assert found == expected

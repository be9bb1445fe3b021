"""A real Chromium for tests, and axe-core to judge a page by; `make test-long` installs both where it can."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

AXE = Path(sys.prefix, "axe", "axe.min.js")
PATIENCE = 20  # seconds until what is waited for must be there
_FLAGS = (
    "--headless=new",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing else has an address
)
_AXE = """
const [done] = arguments;
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => done(violations.map(
  ({id, impact, nodes}) => `${impact} ${id}: ${nodes.map(({html}) => html).slice(0, 3).join(" | ")}`)));
"""


def lacking(what: str) -> NoReturn:
    """Skip the test where something cannot be installed; where it must be there, fail."""
    reason = f"needs {what}: `make test-long` installs it as root on Debian"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def chromium() -> Iterator[Browser]:
    """A browser until the end of the tests."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        lacking("chromium and chromium-driver")
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(running)
    finally:
        running.quit()


class Browser:
    """A browser with a page in it; elements are named by CSS selectors."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def look(self, *, width: int = 1280, theme: Literal["light", "dark"] = "light") -> None:
        """Be a screen of this width (CSS pixels) whose user likes this theme."""
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, url: str, ready: str = "h1") -> None:
        """Load the page anew, and wait for the element `ready`."""
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(url)
        self.wait(lambda: self.all(ready))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        (found,) = self.all(selector)
        return found

    def texts(self, selector: str) -> list[str]:
        """Texts of all such elements, at one moment."""
        found = self.run("return [...document.querySelectorAll(arguments[0])].map((n) => n.innerText)", selector)
        return [str(text) for text in found]

    def text(self, selector: str) -> str:
        (found,) = self.texts(selector)
        return found

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until it is true."""
        WebDriverWait(self.driver, PATIENCE, poll_frequency=0.02).until(lambda _: condition())

    def downloads(self, folder: Path) -> None:
        """Put what is downloaded into a folder."""
        asked = {"behavior": "allow", "downloadPath": str(folder), "eventsEnabled": False}
        self.driver.execute_cdp_cmd("Browser.setDownloadBehavior", asked)

    def has(self, file: Path) -> bool:
        """Tell whether a file was downloaded: its name is there before its bytes."""
        return file.is_file() and file.stat().st_size > 0

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, where the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def hash(self) -> str:
        """The part of the address that names a view."""
        return urlsplit(self.driver.current_url).fragment

    def complaints(self) -> list[str]:
        """What the console has been told since the last call, but for mere information."""
        return [entry["message"] for entry in self._log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def _log(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return found

    def barriers(self) -> list[str]:
        """What axe-core finds, be it serious or minor."""
        if not AXE.is_file():
            lacking("axe-core")
        self.run(AXE.read_text(encoding="utf-8"))
        return [str(violation) for violation in self.driver.execute_async_script(_AXE)]

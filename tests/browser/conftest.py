"""A browser: Chromium from the system's packages, or the one that Playwright has got, without a window."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"


@dataclass
class Opened:
    """A page in the browser, and what it did that it should not.

    :ivar wrong: console messages, errors, dialogs, and requests for anything but the page itself
    """

    page: "playwright.Page"
    wrong: list[str] = field(default_factory=list)

    def go(self, path: Path, fragment: str = "") -> "playwright.Page":
        """Opens a file, or goes to another part of it."""
        self.page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        self.page.on("request", self._requested(path.as_uri()))
        self.page.goto(path.as_uri() + fragment)
        return self.page

    def _requested(self, own: str) -> "playwright.Callable[[playwright.Request], None]":
        def see(request: "playwright.Request") -> None:
            if not request.url.startswith(("data:image/", own)):
                self.wrong.append(f"request: {request.url}")

        return see


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"there is no Chromium: apt-get install chromium, or playwright install chromium ({error})")
        yield started
        started.close()


@pytest.fixture
def opened(browser: "playwright.Browser") -> Iterator[Opened]:
    """A page of 1280×900 pixels, which did nothing wrong when the test ends."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    found = Opened(page)
    yield found
    assert found.wrong == []
    page.close()

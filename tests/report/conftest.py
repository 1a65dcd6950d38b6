"""A headless Chromium for the tests of both pages, without network.

Where Chromium or playwright is missing these tests are skipped; ACTFOCUS_REQUIRE_BROWSER=1 (CI sets it) makes
that an error.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actfocus.report.viewer.collect import page_data
from actfocus.report.viewer.page import render_page
from tests.report.viewer.runs import Record, small_step, write_run

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def missing(reason: str) -> None:
    if os.environ.get("ACTFOCUS_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    if path is None:
        missing("no chromium: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("no playwright: pip install playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield chromium
        chromium.close()


class Viewer:
    """One tab, with all that it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        page.on("console", self._hear)
        page.set_default_timeout(10_000)

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, url: str) -> "Viewer":
        self.page.goto(url)
        return self

    def shows(self, step: int, number: int | str) -> None:
        self.page.wait_for_selector(f'#trajectory[data-shown="{step}/{number}"]')

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def texts(self, selector: str) -> list[str]:
        return list(self.page.eval_on_selector_all(selector, "all => all.map((one) => one.textContent)"))

    def classes(self, selector: str = ".message.reply .t") -> list[str]:
        return list(self.page.eval_on_selector_all(selector, "all => all.map((one) => one.className)"))


@pytest.fixture
def open_viewer(browser: Any) -> Iterator[Callable[..., Viewer]]:
    """Open a page in a tab of its own; at the end of the test none may have complained."""
    contexts, viewers = [], []

    def open_viewer(url: str, *, width: int = 1400, offline: bool = True, scheme: str = "light") -> Viewer:
        size = {"width": width, "height": 900}
        context = browser.new_context(offline=offline, color_scheme=scheme, viewport=size)
        contexts.append(context)
        viewers.append(Viewer(context.new_page()))
        return viewers[-1].open(url)

    yield open_viewer
    for context in contexts:
        context.close()
    assert [viewer.complaints for viewer in viewers if viewer.complaints] == []


@pytest.fixture(scope="session")
def write_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Write the page of a run with these steps, and return its address."""

    def write(steps: dict[int, list[Record]], **options: Any) -> str:
        folder = tmp_path_factory.mktemp("run")
        data = page_data(write_run(folder / "r", steps, **options), limit=10_000)
        path = folder / "view.html"
        path.write_text(render_page(data), encoding="utf-8")
        return path.as_uri()

    return write


@pytest.fixture(scope="session")
def small(write_page: Callable[..., str]) -> str:
    """Three steps of two groups of three."""
    return write_page({step: small_step(step) for step in (1, 2, 3)})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {1: small_step(1)})

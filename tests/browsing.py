"""A real Chromium before the pages of a real short run. `tests/oni/conftest.py` offers what is a fixture here."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import inspected_store
import pytest
from inspected_store import caption_id
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

ROOT = Path(__file__).parents[1]

SETTINGS = (
    *("--config", ROOT / "configs" / "quickstart.yaml", "--total-env-steps", 30_000, "--env.num-envs", 32),
    *("--annotator.backend.kind", "scripted", "--annotator.backend.options", "helpful_pattern", "key|open|unlock|pick"),
    *("--annotator.deterministic", "--log.every-updates", 1, "--seed", 3),
)


def chromium() -> str:
    """Returns where Chromium is. Without one these tests cannot run, which CI must not hide."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    reason = "no Chromium: `apt-get install chromium` (Debian, Ubuntu) makes these tests run"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the directory of a run of some thousand steps, made once for all processes of the tests."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "inspected"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done").exists():
            command = [sys.executable, "-m", "oni.cli.main", "train", "--run-dir", shared / "run", *SETTINGS]
            subprocess.run([*map(str, command)], check=True, timeout=280, capture_output=True)
            (shared / "done").touch()
    return shared / "run"


class Served:
    """A run that `oni inspect` shows, in a process of its own."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.store = run / "annotations.sqlite"
        command = [sys.executable, "-m", "oni.cli.main", "inspect", str(run)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def caption(self, text: bytes) -> str:
        """Returns the address of the page about a caption."""
        return f"{self.url}caption/{caption_id(self.store, text)}"

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yields that run, with hostile captions put into a copy of its store."""
    run = tmp_path_factory.mktemp("served") / "run"
    shutil.copytree(trained, run)
    inspected_store.fill(run / "annotations.sqlite")
    inspected_store.add_comparisons(run / "annotations.sqlite")
    found = Served(run)
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yields a browser without a window."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    path = chromium()
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=arguments)
        yield found
        found.close()


class Watch:
    """Notes what no page may do."""

    def __init__(self, context: BrowserContext) -> None:
        self.faults: list[str] = []
        context.on("request", lambda request: self._request(request.url))
        context.on("dialog", lambda dialog: (self.faults.append(f"dialog {dialog.message}"), dialog.dismiss()))
        context.on("weberror", lambda error: self.faults.append(f"error {error.error}"))
        context.on("console", self._console)

    def _request(self, url: str) -> None:
        parts = urlparse(url)
        if parts.scheme not in ("data", "file") and parts.hostname != "127.0.0.1":
            self.faults.append(f"request {url}")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.text}")


Opener = Callable[..., Page]
"""Opens an address; what else it is given goes to the browser's context."""


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    """Returns a function that opens a page in a context of its own; at the end nothing may have gone wrong in any."""
    opened: list[tuple[BrowserContext, Watch]] = []

    def open_page(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(15_000)
        opened.append((context, Watch(context)))
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context, _ in opened:
        context.close()
    assert [fault for _, watch in opened for fault in watch.faults] == []


def first_words(page: Page) -> str:
    """Returns the heading of a page."""
    return page.locator("h1").inner_text()

"""A real browser and the real application, with all its servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from devservers.processes import wait_until
from lab.servers import Lab
from tests.browser.visitor import Visitor
from tests.support.programs import path_of_chromium

APPLICATION = "tests.browser.application:create_app()"

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

expect.set_options(timeout=20_000)  # milliseconds: a busy machine may let a page wait

JAPANESE = {"Accept-Language": "ja"}  # also for the requests beside the page, which do not know the locale


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    chromium = path_of_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder through which held requests are let go."""
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="package")
def one_lab(gates: Path) -> Iterator[Lab]:
    """All servers, started once, and ended with the folder: each worker looks after them five times a second.

    Every test waits for that.
    """
    settings = {"LAB_LOOKS": 0.2, "GATES": str(gates)}
    with Lab(workers=2, settings=settings, application=APPLICATION) as lab:
        yield lab


@pytest.fixture
def lab(browser: Browser, one_lab: Lab) -> Iterator[Lab]:
    """The lab with everything running and noticed by both workers, and again so after the test."""
    yield one_lab
    for name in one_lab.servers:
        one_lab.act(name, "start")


@pytest.fixture
def visitor(browser: Browser, lab: Lab) -> Iterator[Visitor]:
    """Yield a visitor with a Japanese browser, on the page; both workers are well."""
    size: ViewportSize = {"width": 1280, "height": 1100}
    with browser.new_context(viewport=size, locale="ja-JP", extra_http_headers=JAPANESE) as context:
        visitor = Visitor(context.new_page(), lab.url)
        wait_until(lambda: visitor.seen_by_all(lambda panel: panel["level"] == 0 and panel["logins"]), "level 0")
        context.clear_cookies()
        visitor.open()
        yield visitor

"""The README's pictures of the demo: ``python -m tools.pictures`` takes them anew, with the system's Chromium."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from lab.servers import Lab
from tests.browser.conftest import FLAGS
from tests.browser.visitor import Visitor
from tests.support.programs import path_of_chromium

IMAGES = Path(__file__).parent.parent / "docs" / "images"

PHRASES = ("こんにちは", "駅はどこですか", "さようなら")


def _translate(visitor: Visitor, number: int) -> None:
    visitor.translate(PHRASES[number])
    visitor.page.wait_for_function("n => document.querySelectorAll('#history .answer').length === n", arg=number + 1)


def _take(page: Page, level: int) -> None:
    page.screenshot(path=IMAGES / f"level-{level}.png")
    print(IMAGES / f"level-{level}.png")


def main() -> None:
    """Start the demo, work in it, stop its Valkey servers, work on."""
    with Lab(workers=2, aws=True) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path_of_chromium(), args=FLAGS)
        visitor = Visitor(browser.new_page(viewport={"width": 1280, "height": 1440}), lab.url)
        visitor.open()
        visitor.sees_level(0)
        visitor.sign_in()
        visitor.page.select_option("#source_lang", "ja")
        visitor.page.select_option("#target_lang", "en")
        for number in (0, 1):
            _translate(visitor, number)
        visitor.page.wait_for_selector("#aws-metrics tr:has-text('ActiveSessions')", timeout=90_000)
        _take(visitor.page, 0)
        for server in ("primary", "replica"):
            visitor.switch(server, "stop", "stopped")
        visitor.sees_level(2)
        _translate(visitor, 2)
        visitor.page.wait_for_selector("#aws-messages .pill", timeout=90_000)
        _take(visitor.page, 2)
        browser.close()


if __name__ == "__main__":
    main()

"""The status page in a real browser: in an outage and without one, in light and dark, on a screen and on a phone."""

from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ViewportSize, expect

from lab.servers import Lab
from tests.browser.visitor import Visitor

SCREEN: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
GROUNDS = {"light": "rgb(244, 245, 250)", "dark": "rgb(18, 20, 31)"}


def test_the_status_page_works_without_javascript(browser: Browser, lab: Lab) -> None:
    """All of it is in the page and a style sheet of the same host; links are reached by the tab key and followed by
    return."""
    with browser.new_context(java_script_enabled=False, viewport=SCREEN) as context:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{lab.url}/healthz/status?minutes=60")
        expect(page.get_by_role("img")).to_have_count(4)
        for _ in range(page.get_by_role("link").count()):
            page.keyboard.press("Tab")
            if page.get_by_role("link", name="The last ten minutes").evaluate("link => link.matches(':focus')"):
                break
        page.keyboard.press("Enter")
        expect(page.locator("#hour")).to_have_text("The last ten minutes")
        assert all(url.startswith(f"{lab.url}/healthz/status") for url in asked), asked


@pytest.mark.parametrize(("level", "scheme", "size"), [(0, "dark", SCREEN), (2, "light", PHONE)])
def test_the_status_page_can_be_used_by_all(
    browser: Browser, visitor: Visitor, lab: Lab, level: int, scheme: Literal["light", "dark"], size: ViewportSize
) -> None:
    """It has its colours, fits, names everything, and asks the browser for nothing that its own policy forbids."""
    if level:
        visitor.switch("primary", "stop", "stopped")
        visitor.switch("replica", "stop", "stopped")
        visitor.agreed(level)
    with browser.new_context(color_scheme=scheme, viewport=size) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{lab.url}/healthz/status?minutes=60")
        page.get_by_role("link", name="The last ten minutes").click()
        expect(page.locator("#hour")).to_have_text("The last ten minutes")
        expect(page.locator("#now")).to_contain_text(f"Level {level}")
        expect(page.get_by_role("img")).to_have_count(4)
        expect(page.locator("body")).to_have_css("background-color", GROUNDS[scheme])  # the style is a second request
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if size is SCREEN:
            assert page.locator(".wide").evaluate("table => table.scrollWidth <= table.clientWidth"), "the table is cut"
        assert complaints == []
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

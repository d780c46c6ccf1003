"""The page "Your devices", as a user with several browsers sees it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from example_app.texts import TEXTS
from lab.servers import Lab
from tests.browser.conftest import JAPANESE
from tests.browser.visitor import Visitor, violations

PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 "
    "Mobile/15E148 Safari/604.1"
)
LAPTOP = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:130.0) Gecko/20100101 Firefox/130.0"

MakeVisitor = Callable[..., Visitor]


@pytest.fixture
def another(browser: Browser, lab: Lab, visitor: Visitor) -> Iterator[MakeVisitor]:
    """Yield a factory of further browsers with cookies of their own, on the page; all servers run."""
    with ExitStack() as stack:

        def make(user_agent: str | None = None, locale: str = "en-US") -> Visitor:
            headers = JAPANESE if locale == "ja-JP" else {"Accept-Language": "en"}
            context = browser.new_context(user_agent=user_agent, locale=locale, extra_http_headers=headers)
            made = Visitor(stack.enter_context(context).new_page(), lab.url)
            made.open()
            return made

        yield make


def lose_redis(visitor: Visitor) -> None:
    """Level 2, noticed by both workers."""
    for server in ("primary", "replica"):
        visitor.switch(server, "stop", "stopped")
    visitor.agreed(2)


def test_a_user_ends_the_other_devices(visitor: Visitor, another: MakeVisitor, tmp_path: Path) -> None:
    """One, then all others, in an outage. Each browser is told once, in its own language; the one that ended them goes
    on."""
    laptop, phone, tablet = another(LAPTOP), another(PHONE, "ja-JP"), another()
    page = laptop.page
    devices = page.locator("#devices li")
    for each in (laptop, phone, tablet):
        each.sign_in()
        expect(each.page.locator("#user")).to_be_visible()
        if each is laptop:  # the other tests have the same user
            laptop.press("#to-devices")
            if page.locator("#others").count():
                laptop.press("#others")
            expect(devices).to_have_count(1)
    lose_redis(visitor)

    page.reload()
    expect(page.locator("h1")).to_have_text(TEXTS["en"]["devices"])
    expect(devices.filter(has_text="Mobile Safari, iOS")).to_have_count(1)
    expect(devices.filter(has=page.locator("#mine"))).to_contain_text("Firefox, Windows")
    expect(page.locator("#mine")).to_have_text(TEXTS["en"]["device_mine"])
    assert violations(page) == ""
    page.screenshot(path=tmp_path / "devices-en.png", full_page=True)
    phone.page.set_viewport_size({"width": 390, "height": 844})
    phone.page.emulate_media(color_scheme="dark")
    phone.page.goto(f"{phone.url}/devices")
    phone.page.wait_for_function("document.documentElement?.scrollWidth <= window.innerWidth")
    expect(phone.page.locator("h1")).to_have_text(TEXTS["jp"]["devices"])
    assert violations(phone.page) == ""
    phone.page.screenshot(path=tmp_path / "devices-jp.png", full_page=True)

    devices.filter(has_text="Mobile Safari, iOS").locator("button").click()
    expect(devices.filter(has_text="Mobile Safari, iOS")).to_have_count(0)
    phone.page.reload()
    expect(phone.page.locator("#displaced")).to_have_text(TEXTS["jp"]["displaced"])
    assert violations(phone.page) == ""
    phone.page.screenshot(path=tmp_path / "displaced-jp.png", full_page=True)
    phone.page.reload()
    expect(phone.page.locator("#sign-in")).to_be_visible()
    expect(phone.page.locator("#displaced")).to_have_count(0)

    page.click("#others")
    expect(devices).to_have_count(1)
    expect(page.locator("#others")).to_have_count(0)
    tablet.open()
    expect(tablet.page.locator("#displaced")).to_have_text(TEXTS["en"]["displaced"])
    assert laptop.agreed(2)["user"] == "hanako"
    assert phone.agreed(2)["user"] is None


def test_a_visitor_has_no_devices(visitor: Visitor) -> None:
    visitor.page.goto(f"{visitor.url}/devices")
    expect(visitor.page.locator("#sign-in")).to_be_visible()

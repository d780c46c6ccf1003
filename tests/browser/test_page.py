"""The example application in a real browser, while its servers come and go."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from example_app.texts import TEXTS
from lab.servers import Lab
from lab.texts import NOW, PANEL
from tests.browser.visitor import Visitor, violations

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return the folder for screenshots: the one in the docs only if asked, so that a test run changes no file."""
    if os.environ.get("UPDATE_SCREENSHOTS") != "1":
        return tmp_path
    IMAGES.mkdir(parents=True, exist_ok=True)
    return IMAGES


def test_an_outage_as_a_visitor_sees_it(visitor: Visitor, images: Path) -> None:
    """Signed in, working and nothing flickers through the loss of all of Redis; a sign-out in it is for ever."""
    visitor.sign_in()
    visitor.translate("こんにちは")
    visitor.translate("駅はどこですか")
    expect(visitor.page.locator("#history .answer")).to_have_text(["Where is the station?", "Hello"])
    assert visitor.agreed(0) == {"user": "hanako", "level": 0, "lang": "jp", "usage_count": 2, "history_length": 2}
    visitor.page.screenshot(path=images / "level-0.png", full_page=True)

    visitor.switch("primary", "stop", "stopped")
    visitor.sees_level(1)
    assert visitor.agreed(1) == {"user": "hanako", "level": 1, "lang": "jp", "usage_count": 2, "history_length": 2}
    visitor.page.click("#language")
    expect(visitor.page.locator("html")).to_have_attribute("lang", "en")
    assert visitor.agreed(1)["lang"] == "en"

    visitor.switch("replica", "stop", "stopped")
    visitor.sees_level(2)
    visitor.translate("さようなら")
    expected = {"user": "hanako", "level": 2, "lang": "en", "usage_count": 3, "history_length": 3}
    assert visitor.agreed(2) == expected
    assert reload_until_all_answered(visitor, at_least=6) == {
        ("花子 Hanako", "en", ("Goodbye", "Where is the station?", "Hello"), "3")
    }
    assert visitor.agreed(2) == expected
    visitor.press("#language")
    visitor.page.screenshot(path=images / "level-2.png", full_page=True)

    cookies = visitor.page.context.cookies()
    visitor.page.click("#logout")
    expect(visitor.page.locator("#sign-in")).to_be_visible()
    assert visitor.agreed(2)["user"] is None
    visitor.switch("primary", "start", "running")
    visitor.switch("replica", "start", "running")
    visitor.sees_level(0)
    assert visitor.agreed(0)["user"] is None
    visitor.page.context.clear_cookies()
    visitor.page.context.add_cookies([{k: v for k, v in cookie.items() if k != "expires"} for cookie in cookies])  # type: ignore[misc]
    assert visitor.agreed(0)["user"] is None
    visitor.open()
    expect(visitor.page.locator("#sign-in")).to_be_visible()


def reload_until_all_answered(visitor: Visitor, at_least: int) -> set[tuple[object, ...]]:
    """Reload so often, and until every worker has rendered the page; returns all that the page ever showed."""
    workers, shown = set(), set()
    for count in range(1, 10 * at_least):
        visitor.page.reload()
        workers.add(visitor.worker())
        shown.add(visitor.looks())
        if count >= at_least and workers == set(visitor.by_worker()):
            return shown
    raise AssertionError(f"only {workers} rendered the page")


def test_nobody_can_sign_in_without_the_database(visitor: Visitor) -> None:
    """A friendly 503 that says when to try again, in the visitor's language; with the database it works again."""
    visitor.switch("database", "stop", "stopped")
    visitor.waits_for_logins(False)
    with visitor.page.expect_response("**/login") as refused:
        visitor.sign_in()
    assert refused.value.status == 503
    assert int(refused.value.headers["retry-after"]) > 0
    expect(visitor.page.locator("#refused")).to_contain_text("現在この操作はできません")
    visitor.page.click("#language")
    expect(visitor.page.locator("#no-logins")).to_contain_text("Signing in is not possible right now")
    visitor.switch("database", "start", "running")
    visitor.waits_for_logins(True)
    visitor.sign_in()
    expect(visitor.page.locator("#user")).to_be_visible()


def test_without_any_store_the_page_still_works(visitor: Visitor) -> None:
    """Level 4: a user who was just confirmed stays signed in, what is switched off says so, translating works."""
    visitor.sign_in()
    visitor.translate("こんにちは")
    visitor.agreed(0)
    for server in ("primary", "replica", "database"):
        visitor.switch(server, "stop", "stopped")
    visitor.sees_level(4)
    visitor.agreed(4)
    visitor.open()
    expect(visitor.page.locator("#engine-off")).to_be_visible()
    expect(visitor.page.locator("#early-access button")).to_be_disabled()
    expect(visitor.page.locator("#history li")).to_have_count(0)
    visitor.translate("さようなら")
    expect(visitor.page.locator("#history .answer")).to_have_text(["Goodbye"])
    assert visitor.page.reload().request.method == "GET"  # type: ignore[union-attr]
    expect(visitor.page.locator("#history .answer")).to_have_text(["Goodbye"])
    assert violations(visitor.page) == ""


def test_every_link_of_the_page_leads_to_a_page(visitor: Visitor) -> None:
    """The status page, too, which shows figures that a browser can show."""
    visitor.sign_in()
    links = {str(link.get_attribute("href")) for link in visitor.page.locator("a[href]").all()}
    for link in sorted(link for link in links if not link.startswith("#")):
        answer = visitor.page.request.get(visitor.url + link)
        assert (link, answer.status, answer.headers["content-type"].partition(";")[0]) == (link, 200, "text/html")


def test_the_tour(visitor: Visitor) -> None:
    """Its five steps lead from level 0 to 3 and back; a switch that was pressed by keyboard keeps the focus."""
    page = visitor.page
    step = page.locator('.tour [aria-current="step"]')
    texts = PANEL["jp"]
    expect(step).to_have_text(texts["tour_0"])
    visitor.sign_in()
    visitor.translate("ありがとう")
    expect(page.locator("#history .answer")).to_have_text(["Thank you"])
    expect(step).to_have_text(texts["tour_1"])
    expect(page.locator(".worker")).to_have_count(2)
    expect(page.locator('[data-feature="ui_settings"]')).to_contain_text(NOW["jp"]["primary"])
    assert violations(page) == ""
    stop = page.locator('[data-server="primary"] [data-action="stop"] button')
    stop.focus()
    page.keyboard.press("Enter")
    expect(page.locator('[data-server="primary"] [data-action="start"] button')).to_be_focused()
    visitor.agreed(1)
    expect(step).to_have_text(texts["tour_2"])
    expect(page.locator('[data-feature="ui_settings"]')).to_contain_text(NOW["jp"]["level_1_default_value"])
    visitor.switch("replica", "stop", "stopped")
    visitor.agreed(2)
    expect(step).to_have_text(texts["tour_3"])
    expect(page.locator('[data-feature="ui_settings"]')).to_contain_text(NOW["jp"]["default_value"])
    page.click("button[value=dark]")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.click('[data-action="age"] button')
    visitor.agreed(3)
    expect(step).to_have_text(texts["tour_4"])
    expect(page.locator('[data-feature="translation_state"]')).to_contain_text(NOW["jp"]["disable_feature"])
    visitor.translate("さようなら")
    expect(page.locator("#history .answer")).to_have_text(["Goodbye"])
    expect(page.get_by_text(TEXTS["jp"]["history_off"])).to_have_count(1)
    for server in ("primary", "replica"):
        visitor.switch(server, "start", "running")
    visitor.agreed(0)
    visitor.open()
    expect(page.locator("#history .answer")).to_have_text(["Thank you"])


def test_switches_work_without_javascript(browser: Browser, lab: Lab) -> None:
    """They are forms."""
    with browser.new_context(java_script_enabled=False) as context:
        visitor = Visitor(context.new_page(), lab.url)
        visitor.open()
        visitor.switch("replica", "stop", "stopped")
        visitor.switch("replica", "start", "running")


def test_a_switch_cannot_be_pressed_from_another_site(visitor: Visitor, lab: Lab) -> None:
    """Without the form's token nothing is stopped."""
    answer = visitor.page.request.post(f"{lab.url}/lab/primary/stop")
    assert answer.status == 400
    assert lab.primary.running


def test_the_page_fits_a_phone(visitor: Visitor) -> None:
    """390 pixels wide, nothing to be scrolled sideways; it begins in the theme of the system, and offers the other."""
    visitor.page.set_viewport_size({"width": 390, "height": 844})
    visitor.page.emulate_media(color_scheme="dark")
    visitor.sign_in()
    expect(visitor.page.get_by_role("button", name=TEXTS["jp"]["dark"])).to_be_hidden()
    for theme in ("light", "dark"):
        visitor.page.click(f"button[value={theme}]")
        expect(visitor.page.locator("html")).to_have_attribute("data-theme", theme)
    visitor.translate("お会いできて嬉しいです")
    # Asked again where the page is just being replaced and has nothing in it.
    visitor.page.wait_for_function("document.documentElement?.scrollWidth <= window.innerWidth")
    assert visitor.page.evaluate("window.innerWidth") == 390
    expect(visitor.page.locator(".badge")).to_be_in_viewport()
    expect(visitor.page.locator(".badge")).to_have_text("レベル 0")
    assert violations(visitor.page) == ""

"""A visitor with a browser: what the visitor does and sees."""

from collections.abc import Callable
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from devservers.processes import wait_until
from example_app.users import DEMO_PASSWORDS

WORKERS = 2

Answer = dict[str, Any]


def violations(page: Page) -> str:
    """Return axe's report of what a screen reader or a keyboard cannot use; empty if there is nothing."""
    found = Axe().run(page)
    return found.generate_report() if found.violations_count else ""


class Visitor:
    """One browser tab on the page, with the verbs of the stories."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self) -> None:
        """Go to the page."""
        self.page.goto(self.url)

    def another_tab(self) -> "Visitor":
        """A second tab of the same browser, on the same page."""
        visitor = Visitor(self.page.context.new_page(), self.url)
        visitor.open()
        return visitor

    def sign_in(self, user: str = "hanako") -> None:
        """Send the sign-in form."""
        self.page.fill("#username", user)
        self.page.fill("#password", DEMO_PASSWORDS[user])
        self.press("#sign-in button")

    def translate(self, text: str) -> None:
        """Send the translation form."""
        self.page.fill("#input_text", text)
        self.press("#translate button")

    def press(self, selector: str) -> None:
        """Press a button or link and wait for the page that follows: what is done before that page is there would be
        done on the one that is about to go, and a second form would be sent in the place of the first."""
        with self.page.expect_navigation():
            self.page.click(selector)

    def switch(self, server: str, action: str, state: str) -> None:
        """Press a switch of the outage lab and wait until the panel shows that it worked."""
        self.page.click(f'[data-server="{server}"] [data-action="{action}"] button')
        expect(self.page.locator(f'[data-server="{server}"]')).to_have_attribute("data-is", state)

    def sees_level(self, level: int) -> None:
        """Wait until the panel shows this level, without a reload."""
        expect(self.page.locator("#lab")).to_have_attribute("data-level", str(level), timeout=10_000)

    def looks(self) -> tuple[Any, ...]:
        """Return the session as the page shows it: user, language, history, counter."""
        page = self.page
        return (
            page.locator("#user").inner_text(),
            page.locator("html").get_attribute("lang"),
            tuple(page.locator("#history .answer").all_inner_texts()),
            page.locator("#usage-count").inner_text(),
        )

    def worker(self) -> int:
        """The worker that rendered the page (or answered the last poll)."""
        return int(self.page.locator('[data-show="pid"]').inner_text())

    def get(self, path: str) -> Answer:
        """A request with this browser's cookies, beside the page."""
        answer: Answer = self.page.request.get(self.url + path).json()
        return answer

    def by_worker(self, path: str = "/whoami") -> dict[int, Answer]:
        """Return the answer of each worker, by process id."""
        answers: dict[int, Answer] = {}

        def ask() -> bool:
            answer = self.get(path)
            answers[answer.pop("pid")] = answer
            return len(answers) == WORKERS

        wait_until(ask, f"{path} of {WORKERS} workers")
        return answers

    def seen_by_all(self, condition: Callable[[Answer], bool], path: str = "/lab/state") -> bool:
        """Return whether the condition holds for the answers of all workers."""
        return all(condition(answer) for answer in self.by_worker(path).values())

    def waits_for_logins(self, possible: bool) -> None:
        """Wait until every worker knows whether it can sign anybody in."""
        wait_until(lambda: self.seen_by_all(lambda panel: panel["logins"] is possible), f"logins: {possible}")

    def agreed(self, level: int) -> Answer:
        """Wait until every worker is at ``level``, and return the answer of ``/whoami``, which must be the same
        everywhere."""
        wait_until(lambda: self.seen_by_all(lambda me: bool(me["level"] == level), "/whoami"), f"level {level}")
        first, *others = self.by_worker().values()
        assert all(other == first for other in others), (first, others)
        return first

"""The shop of the tutorial, as its reader follows it, and the pages that work with it."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devservers.processes import free_port, wait_until
from devservers.servers import Valkey
from flask_langpont_session.testing import configure, outage

from .console import follow
from .pages import ROOT, Block, blocks_of
from .serving import Browser, environment, running

DOCS = ROOT / "docs"
TUTORIAL, SHOP = DOCS / "tutorial" / "shop.md", DOCS / "tutorial" / "shop.py"

ABOUT_THE_SHOP = [
    DOCS / "keys.md",
    *(DOCS / "how-to" / f"{name}.md" for name in ("test", "revoke", "data-is-gone", "remove")),
]
"""Pages whose commands are run beside the shop. Where they are about hanako, hanako is signed in there."""


@dataclass(frozen=True)
class Shop:
    """The shop, served.

    :param variables: the environment of its commands.
    """

    folder: Path
    valkey: Valkey
    variables: dict[str, str]
    port: int


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Yield a shop that was set up by the commands of the tutorial; its Valkey comes back empty, as that of the
    tutorial does."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_bytes(SHOP.read_bytes())
    with Valkey(folder / "valkey", appendonly=False) as valkey:
        variables = environment(folder, FLASK_LANGPONT_SESSION_REDIS_URL=valkey.url)
        follow(consoles(TUTORIAL, "init-db")[0], folder, variables)
        command = ["-m", "flask", "--app", "shop", "run", "--port", str(port := free_port())]
        assert consoles(TUTORIAL, "flask --app shop run")
        with running(command, folder, port, variables):
            yield Shop(folder, valkey, variables, port)


def consoles(page: Path, text: str) -> list[Block]:
    """The blocks of a terminal that have this text."""
    return [block for block in blocks_of(page, "console") if text in block.text]


def test_the_pieces_of_the_tutorial_are_its_file() -> None:
    """A reader who copies all pieces in their order has the file."""
    pieces = "".join(block.text for block in blocks_of(TUTORIAL))
    assert _filled_lines(pieces) == _filled_lines(SHOP.read_text(encoding="utf-8"))


def _filled_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_the_cart_survives(shop: Shop) -> None:
    """The cart is there step by step, as the tutorial says."""
    browser = Browser(shop.port)
    assert "Hello visitor. The session is at level 0" in browser.get()
    browser.post("/add", item="sencha")
    assert "Hello kenji" in browser.post("/sign-in", name="kenji")
    assert "1 x matcha" in (page := browser.post("/add", item="matcha")) and "1 x sencha" in page
    shop.valkey.stop()
    page = browser.post("/add", item="matcha")
    assert "Hello kenji. The session is at level 2" in page and "2 x matcha" in page and "1 x sencha" in page
    follow(consoles(TUTORIAL, "unreachable")[0], shop.folder, shop.variables)
    other = Browser(shop.port)
    other.post("/sign-in", name="yuki")
    other.post("/add", item="sencha")
    assert "Hello visitor" in (page := other.post("/sign-out")) and "x sencha" not in page
    assert "Hello yuki. The session is at level 2" in (page := other.post("/sign-in", name="yuki"))
    assert "x sencha" not in page
    shop.valkey.start()
    wait_until(lambda: "at level 0" in browser.get(), "level 0")
    assert "2 x matcha" in (page := browser.get()) and "1 x sencha" in page
    assert "You ordered: {'sencha': 1, 'matcha': 2}" in browser.post("/order").replace("&#39;", "'")
    assert "x matcha" not in browser.get()


@pytest.mark.parametrize("durable", [[], ["cart"]], ids=["cart in Redis", "cart in the database"])
@pytest.mark.parametrize("level", [3, 4])
def test_an_order_that_nothing_keeps_leaves_the_cart(
    level: int, durable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cart is removed after the order is kept: at level 3 the database can keep the removal and not the order."""
    monkeypatch.setenv("FLASK_LANGPONT_SESSION_DURABLE_KEYS", json.dumps(durable))
    app = runpy.run_path(str(SHOP))["app"]
    configure(app)
    client = app.test_client()
    client.post("/sign-in", data={"name": "hanako"})
    client.post("/add", data={"item": "sencha"})
    with outage(app, level):
        assert "Thank you" not in client.post("/order").text
    assert "1 x sencha" in client.get("/").text


def test_the_commands_of_the_tutorial_print_what_it_shows(tmp_path: Path) -> None:
    """Commands that need no server print what the page shows; the story runs the others."""
    (tmp_path / "shop.py").write_bytes(SHOP.read_bytes())
    [explain] = consoles(TUTORIAL, "explain cart")
    follow(explain, tmp_path, environment(tmp_path))


@pytest.mark.parametrize("page", ABOUT_THE_SHOP, ids=lambda page: page.stem)
def test_a_how_to_prints_what_it_shows(page: Path, shop: Shop) -> None:
    """Commands and tests of a how-to work on the shop."""
    if consoles(page, "hanako"):
        Browser(shop.port).post("/sign-in", name="hanako")
    for block in blocks_of(page):
        if "from shop import app\n" in block.text:
            (shop.folder / "test_shop.py").write_text(block.text)
    for block in blocks_of(page, "console"):
        if block.reason is None:
            follow(block, shop.folder, shop.variables)


def test_every_command_is_run_by_a_test_or_says_why_not() -> None:
    """The pages are those that belong to the site."""
    translated = {DOCS / "ja" / page.name for page in (TUTORIAL, DOCS / "keys.md")}  # their blocks are the same
    run = {TUTORIAL, *ABOUT_THE_SHOP, *translated}
    new = [page for folder in ("tutorial", "ja", "reference") for page in (DOCS / folder).glob("*.md")]
    for page in {DOCS / "index.md", *new} - run:
        assert all(block.reason for block in blocks_of(page, "console")), page
    for page in run | set(new):
        assert "\n  ```" not in page.read_text(encoding="utf-8"), f"{page}: a block that is indented is not found"

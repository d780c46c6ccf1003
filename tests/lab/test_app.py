"""The example application without a browser: its texts, its translator, and every page at every level."""

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import cast
from urllib.parse import urlencode

import fakeredis
import pytest

from devservers.processes import LONG, free_port, wait_until
from devservers.web import PROJECT
from example_app.app import create_app
from example_app.phrasebook import LANGUAGES, PHRASES, translate
from example_app.texts import TEXTS
from example_app.users import DEMO_PASSWORDS
from flask_langpont_session import LangPontSession
from flask_langpont_session.policy.levels import Behaviour
from flask_langpont_session.session import mapping
from lab.servers import Lab
from lab.texts import CHARTS, FEATURES, LEGENDS, LEVELS, NOW, PANEL, STATES


def test_both_languages_say_everything() -> None:
    """A text that exists in one of them only would be an empty place on the page."""
    for table in (TEXTS, PANEL, STATES, FEATURES, NOW, CHARTS, LEGENDS):
        assert set(table["en"]) == set(table["jp"])
    assert set(NOW["en"]) >= set(Behaviour)
    assert len(LEVELS["en"]) == len(LEVELS["jp"]) == 5


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase["en"])
def test_every_phrase_translates_into_every_language(phrase: dict[str, str]) -> None:
    """Each phrase translates back into its own language, too."""
    for target in LANGUAGES:
        assert translate(phrase["ja"], "ja", target).text == phrase[target]


@pytest.mark.parametrize("text", ["hello", " HELLO! ", "Ｈｅｌｌｏ。"])
def test_width_case_and_punctuation_make_no_other_phrase(text: str) -> None:
    """People do not type as the book prints."""
    assert translate(text, "en", "ja").text == "こんにちは"


def test_a_voiced_sound_makes_another_word() -> None:
    """が is not か, although Unicode can write one as the other with a mark."""
    assert translate("ありかとうこさいます", "ja", "en").text is None


def test_the_nearest_phrase_is_named() -> None:
    """A user who gets another phrase than asked for is told which."""
    found = translate("駅はどこ", "ja", "en", "nearest")
    assert (found.text, found.phrase) == ("Where is the station?", "駅はどこですか")
    assert translate("駅はどこ", "ja", "en", "exact").text is None
    assert translate("xyzzy", "en", "ja", "nearest").text is None


def test_the_example_needs_no_lab(tmp_path: Path) -> None:
    """It can be copied as it is: its page is whole in an application without servers, panel and switches."""
    settings = {
        "SECRET_KEY": "k" * 32, "LANGPONT_SESSION_JOURNAL": str(tmp_path / "journal.sqlite3"),
        "LANGPONT_SESSION_DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
        "LANGPONT_SESSION_REDIS_URL": f"redis://127.0.0.1:{free_port()}",
    }  # fmt: skip
    environment = os.environ | {f"FLASK_{name}": value for name, value in settings.items()}
    shutil.copytree(PROJECT / "example_app", tmp_path / "example_app")
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count('name="username"'), done.stdout.count("<aside")) == (1, 0)


def test_other_devices_are_signed_out_with_a_password_that_was_entered_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the password was entered long ago, it is asked for. Entered again, it gives the session another id."""
    app = create_app(
        {
            "TESTING": True, "SECRET_KEY": "k" * 32, "WTF_CSRF_ENABLED": False,
            "LANGPONT_SESSION_REDIS_URL": fakeredis.FakeRedis(),
            "LANGPONT_SESSION_DATABASE_URL": f"sqlite:///{tmp_path / 'sessions.sqlite3'}",
        }
    )  # fmt: skip
    extension = cast(LangPontSession, app.session_interface)
    extension.create_tables(app)
    mine, other = app.test_client(), app.test_client()
    for client in (mine, other):
        sign_in = {"username": "hanako", "password": DEMO_PASSWORDS["hanako"]}
        assert client.post("/login", data=sign_in).status_code == 303
    before = mine.get_cookie("langpont")
    monkeypatch.setattr(mapping, "is_recent", lambda row, max_age: False)
    for password in ("", "wrong"):
        asked = mine.post("/devices", data={"password": password})
        assert (asked.status_code, asked.text.count('name="password"')) == (401, 1)
        assert (TEXTS["en"]["wrong"] in asked.text) == (password == "wrong"), "the page says why it asks again"
        assert other.get("/devices").status_code == 200
    assert mine.get_cookie("langpont") == before
    assert mine.post("/devices", data={"password": DEMO_PASSWORDS["hanako"]}).status_code == 303
    assert mine.get_cookie("langpont") != before
    assert (mine.get("/devices").status_code, other.get("/devices").status_code) == (200, 303)
    extension.close(app)


def test_the_example_stays_small() -> None:
    """Code and templates together are as much as a person reads before copying them."""
    files = [*(PROJECT / "example_app").glob("*.py"), *(PROJECT / "example_app/templates").iterdir()]
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= 600


ALONE = """
import sys
from example_app.app import create_app
app = create_app()
app.config["TESTING"] = True
print(app.test_client().get("/").text)
assert not {"lab", "devservers"} & set(sys.modules)
"""


class Client:
    """A visitor with cookies and without a browser."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.path = "/"
        """Where the last answer came from, redirects followed."""
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str = "/") -> tuple[int, str]:
        return self._open(path, None)

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form of the page; redirects are followed."""
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', self.get()[1])
        assert token
        return self._open(path, urlencode({"csrf_token": token[1], **fields}).encode())

    def sign_in(self, user: str) -> tuple[int, str]:
        return self.post("/login", username=user, password=DEMO_PASSWORDS[user])

    def _open(self, path: str, data: bytes | None) -> tuple[int, str]:
        try:
            with self._opener.open(self.url + path, data, timeout=30) as answer:
                self.path = answer.url.removeprefix(self.url)
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(workers=1) as lab:
        yield lab


def test_every_page_at_every_level(lab: Lab) -> None:
    """No level breaks a page; which users may be signed in at which level is what the table says."""
    try:
        user, admin, nobody = (Client(lab.url) for _ in range(3))
        assert user.sign_in("hanako")[0] == admin.sign_in("admin")[0] == 200
        steps = {0: None, 1: lab.primary, 2: lab.replica, 3: None, 4: lab.database}
        for level, lost in steps.items():
            if lost:
                lost.kill()
            if level == 3:
                lab.age()
            wait_until(lambda level=level: f'data-level="{level}"' in user.get()[1], f"level {level}")  # type: ignore[misc]
            for client in (user, admin, nobody):
                assert {
                    client.get(path)[0] for path in ("/", "/login", "/whoami", "/lab/state", "/slow?seconds=0")
                } == {200}
            assert 'lang="ja"' in user.post("/language", lang="jp")[1], level
            for theme in ("light", "dark"):
                assert f'data-theme="{theme}"' in user.post("/theme", theme=theme)[1], level
            status, page = user.post("/translate", input_text="Hello", source_lang="en", target_lang="ja")
            assert (status, "こんにちは</p>" in page) == (200, True), level
            assert "こんにちは</p>" in user.get(user.path)[1], "a reload shows it again, and sends nothing"
            assert ("input_text=Hello" in user.path) == (level > 2)
            page = user.get()[1]
            assert 'id="user"' in page
            assert ('class="answer"' in page) == (level < 3), "what is switched off shows nothing"
            assert (TEXTS["jp"]["no_rights"] in page) == (level == 4)
            assert ('id="user"' in admin.get()[1]) == (level < 4), "no store can confirm an admin at level 4"
        assert 'id="unverified"' in admin.get()[1]
        assert nobody.sign_in("hanako")[0] == 503
        assert 'id="user"' not in user.post("/logout")[1]
    finally:
        for server in lab.servers.values():
            server.start()
        wait_until(lambda: 'data-level="0"' in Client(lab.url).get()[1], "level 0")


def test_a_wrong_password_is_refused(lab: Lab) -> None:
    """A wrong password stores nothing."""
    client = Client(lab.url)
    status, page = client.post("/login", username="hanako", password="wrong")
    assert status == 401 and 'role="alert"' in page
    assert '"user":null' in client.get("/whoami")[1]
    assert client.post("/lab/primary/explode")[0] == client.post("/lab/web/stop")[0] == 404

"""An application under test: away from the developer's files, patient, and without a server if need be."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_login import FlaskLoginClient, LoginManager, UserMixin, current_user

from devservers.processes import wait_until
from devservers.servers import Valkey
from flask_langpont_session import LangPontSession, session
from flask_langpont_session.config.checks import PREFIX
from flask_langpont_session.extension import state_of
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.testing import app_config, closing_applications, configure, outage

from .conftest import add_views
from .leftover_threads import threads

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

Make = Callable[..., Flask]


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    with closing_applications():
        yield


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """The instance folder of the developer."""
    return tmp_path / "instance"


@pytest.fixture
def make(instance: Path) -> Make:
    """Return a factory of applications that are not set up yet; `config` without the prefix, but for Flask's own."""

    def make(**config: Any) -> Flask:
        app = Flask("app", instance_path=str(instance))
        for key, value in {"SECRET_KEY": "test key of the test suite, 32+ bytes", **config}.items():
            app.config[key if key in ("SECRET_KEY", "TESTING", "DEBUG") else PREFIX + key] = value
        add_views(app)
        return app

    return make


def without_a_server() -> dict[str, Any]:
    return {"REDIS_URL": fakeredis.FakeRedis(server=fakeredis.FakeServer())}


def file_of(app: Flask) -> str:
    return state_of(app).backend.database.engine.url.database or ""


def signs_in(app: Flask) -> bool:
    client: Any = app.test_client()
    is_in = client.post("/login/7").status_code == 200
    return is_in and bool(client.get("/who").json == {"user": "7", "level": 0, "lang": None})


# -- TESTING -----------------------------------------------------------------------------------------------------------


def test_the_developers_files_are_left_alone(make: Make, instance: Path) -> None:
    """Neither the database nor the journal of the instance folder is made, read or written."""
    app = make(TESTING=True, **without_a_server())
    LangPontSession(app)
    assert signs_in(app)
    assert not instance.exists()
    assert state_of(app).backend.journal.file.path is None


def test_testing_may_be_set_after_the_extension(make: Make, instance: Path) -> None:
    """TESTING may be set as Flask's own documentation has it: ``app = create_app()``, then
    ``app.config.update(TESTING=True)``."""
    app = make(REDIS_URL="redis://localhost:1/0", DATABASE_URL=None)
    LangPontSession(app)
    assert file_of(app).startswith(str(instance))
    others = threads()
    app.config.update(TESTING=True, **{PREFIX + key: value for key, value in without_a_server().items()})
    assert signs_in(app)
    assert not file_of(app).startswith(str(instance))
    assert not (instance / "langpont_session.sqlite3").exists()
    assert app.test_client().get("/healthz").json["database"] == "ok"  # type: ignore[index]
    # One application runs, and not two.
    assert [thread.name for thread in threads() - others].count("langpont-session-monitor") == 1


def test_every_application_has_a_database_of_its_own(make: Make) -> None:
    """The file of each application's database goes with the application."""
    files = []
    for _ in range(2):
        app = make(TESTING=True, **without_a_server())
        LangPontSession(app)
        assert signs_in(app)
        assert len(state_of(app).backend.database.sessions_of("7")) == 1
        files.append(Path(file_of(app)))
        assert files[-1].exists()
    del app
    gc.collect()
    assert files[0] != files[1]
    wait_until(lambda: gc.collect() >= 0 and not any(file.parent.exists() for file in files), "the files are gone")


@pytest.mark.parametrize(
    "places",
    [
        {"DATABASE_URL": "sqlite://"},
        {"DATABASE_URL": "sqlite:///:memory:"},
        {"DATABASE_URL": sa.create_engine("sqlite://", poolclass=sa.StaticPool)},
    ],
    ids=["URL", "memory", "engine"],
)
def test_sqlite_in_memory_will_do(make: Make, places: dict[str, Any]) -> None:
    """A temporary file stands for it: requests and threads would each have a database of their own."""
    app = make(TESTING=True, **without_a_server(), **places)
    LangPontSession(app)
    assert signs_in(app)
    assert Path(file_of(app)).is_file()


def test_redis_may_be_anywhere(make: Make) -> None:
    """Redis may be that of a job of CI: elsewhere SQLite would not do for it."""
    app = make(TESTING=True, REDIS_URL="redis://redis.internal:6379/0")
    LangPontSession(app)
    assert state_of(app).settings.database_url


def test_what_is_configured_is_kept(make: Make, tmp_path: Path) -> None:
    """Places and time-outs; what is given together still fits together."""
    url, journal = f"sqlite:///{tmp_path / 'given.sqlite3'}", tmp_path / "journal.sqlite3"
    app = make(TESTING=True, DATABASE_URL=url, JOURNAL=journal, REQUEST_BUDGET=0.3, **without_a_server())
    LangPontSession(app)
    settings = state_of(app).settings
    assert (settings.database_url, settings.journal, settings.request_budget) == (url, journal, 0.3)
    assert (settings.redis_timeout, settings.database_timeout) == (0.3, 0.25)


def test_a_busy_machine_does_not_refuse_the_first_sign_in(make: Make, tmp_path: Path) -> None:
    """Another process has the lock of the database for longer than any request waits elsewhere."""
    file = tmp_path / "busy.sqlite3"
    app = make(TESTING=True, DATABASE_URL=f"sqlite:///{file}", **without_a_server())
    LangPontSession(app).create_tables(app)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(2.0, lambda: other.execute("ROLLBACK"))
        release.start()
        assert signs_in(app)
        release.join()


# -- configure ---------------------------------------------------------------------------------------------------------


PRODUCTION = {
    "REDIS_URL": "rediss://cache.internal:6379/0",
    "DATABASE_URL": "postgresql+psycopg://u@db.internal/app",
    "REQUEST_BUDGET": 0.3,
    "METRICS": ["prometheus", "emf"],
    "METRICS_URL": "/metrics",
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_application_is_configured_before_or_after_it_is_set_up(make: Make, instance: Path, when: str) -> None:
    """One module with an ``app`` in it that is set up where it is made is as common as a factory."""
    app = make(**PRODUCTION)
    if when == "before":
        configure(app)
    LangPontSession(app)
    if when == "after":
        configure(app)
    assert app.testing
    assert signs_in(app)
    assert app.test_client().get("/healthz/ready").status_code == 200
    assert not (instance / "langpont_session.sqlite3").exists()
    assert state_of(app).settings.request_budget > 1


def test_a_server_may_be_given(make: Make, primary: Valkey) -> None:
    """Two applications on one server do not see each other's sessions."""
    apps = [make(), make()]
    for app in apps:
        configure(app, primary.url)
        LangPontSession(app)
        assert signs_in(app)
        assert isinstance(state_of(app).backend.primary, RedisStore)
    assert state_of(apps[0]).settings.key_prefix != state_of(apps[1]).settings.key_prefix
    with primary.client() as client:
        keys = [key.decode() if isinstance(key, bytes) else key for key in client.keys("*")]
    assert keys
    assert all(key.startswith("test:") for key in keys)


def test_a_configuration_of_production_may_be_put_under_it(make: Make) -> None:
    """A factory may put a configuration of production under what its test hands over."""
    app = make(**PRODUCTION)
    app.config.update(app_config())
    LangPontSession(app)
    assert signs_in(app)


# -- outages -----------------------------------------------------------------------------------------------------------


def test_a_cart_is_kept_at_all_levels_by_two_lines(make: Make) -> None:
    """The example of docs/configuration.md: shown and changed at each level, and merged afterwards."""
    app = make()
    configure(app)
    app.config[PREFIX + "PRESET"] = "application"
    [example] = [
        part for part in DOCS.read_text(encoding="utf-8").split("```python\n") if part.count("_BEHAVIOURS") == 1
    ]
    exec(example.partition("```")[0], {"app": app})
    LangPontSession(app)

    @app.post("/add/<item>")
    def add(item: str) -> dict[str, Any]:
        session.setdefault("cart", []).append(item)
        return {"cart": session["cart"]}

    client: Any = app.test_client()
    cart: list[str] = []
    for level in (0, 2, 4, 0):
        with outage(app, level) if level else nullcontext():
            cart.append(f"at {level}")
            assert client.post(f"/add/at {level}").json == {"cart": cart}


# -- test clients ------------------------------------------------------------------------------------------------------


class User(UserMixin):  # type: ignore[misc]
    """A user with the id 7."""

    id = "7"


@pytest.fixture
def login_app(make: Make) -> Flask:
    app = make()
    configure(app)
    LangPontSession(app)
    manager = LoginManager(app)
    manager.user_loader(lambda user_id: User() if user_id == "7" else None)
    app.add_url_rule("/me", view_func=lambda: current_user.get_id() or "nobody")
    return app


@pytest.mark.parametrize("fresh", [True, False])
def test_flask_logins_client(login_app: Flask, fresh: bool) -> None:
    """Signs in before the first request."""
    login_app.test_client_class = FlaskLoginClient
    with login_app.test_client(user=User(), fresh_login=fresh) as client:
        with client.session_transaction() as session:
            assert session["_fresh"] is fresh
        assert client.get("/me").text == "7"
    assert login_app.test_client().get("/me").text == "nobody"

"""Small stand-ins for what a part of the package talks to, so that the part can be tested by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flask import Flask

from flask_langpont_session.config.settings import Settings, load_settings
from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.metrics.recorder import Recorder
from flask_langpont_session.policy.copies import CategoryCopy
from flask_langpont_session.policy.health import DATABASE, READ, WRITE
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.leases import Life
from flask_langpont_session.policy.levels import Behaviour
from flask_langpont_session.policy.loaded import CategoryState, Loaded, Verdict
from flask_langpont_session.policy.plans import Plan, Saved
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.session.context import SessionContext
from flask_langpont_session.session.mapping import Session

FAR = 4_000_000_000_000
LIFE = Life(1_000_000, 9_000_000)


def settings_in(folder: Path, **config: Any) -> Settings:
    """The settings of an application under test.

    :param config: without the prefix.
    """
    app = Flask("app", instance_path=str(folder))
    app.testing = True
    app.config.update({f"LANGPONT_SESSION_{name}": value for name, value in config.items()})
    return load_settings(app)


@dataclass
class Scope:
    """A request's way through the stores, as far as a session asks for it."""

    level: int = 0
    lost: set[tuple[str, str]] = field(default_factory=set)

    def can(self, store: str, way: str) -> bool:
        return (store, way) not in self.lost


class Repository:
    """Gives what a test has put there, and notes what it is told.

    :ivar stored: digest → category → key → value.
    :ivar rows: digest → row, of sessions that are signed in.
    :ivar plans: what was to be saved.
    :ivar loads: how often a session was loaded; `more`: which categories were loaded beside.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.table = settings.table
        self.recorder = Recorder()
        self.scope = Scope()
        self.stored: dict[str, dict[str, dict[str, Any]]] = {}
        self.rows: dict[str, AuthRow] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.plans: list[Plan] = []
        self.loads: list[str] = []
        self.more: list[str] = []
        self.refusals: list[tuple[str, str | None, str]] = []
        self.outcome = Saved(stored=True)
        self.refuses = False
        self.backend = self.reads = self.line = self.saves = self.row_writes = self.fallback = self.reports = self

    def has(self, sid: SessionId, **categories: Mapping[str, Any]) -> SessionId:
        """A session with this data."""
        self.stored[sid.digest] = {name: dict(data) for name, data in categories.items()}
        if sid.kind == SIGNED_IN:
            payload = {key: encode(key, value) for key, value in categories.get("auth", {}).items()}
            self.rows[sid.digest] = AuthRow(sid.digest, "7", 1, True, payload, 0, 1, FAR, FAR, 1)
        return sid

    def begin(self, budget: float | None = None, digest: str | None = None) -> Scope:
        return self.scope

    def placed(self, mint: Callable[[], SessionId]) -> SessionId:
        return mint()

    def behaviour(self, feature: Any, kind: str, level: int) -> Behaviour:
        return self.settings.behaviour(feature.priority, level)

    # Without a question the line knows nothing.
    def read(self, sid: SessionId, life: Life) -> None:
        return None

    def load(self, sid: SessionId, scope: Scope, life: Life, *, fresh: bool = False, on_line: bool = True) -> Loaded:
        self.loads.append(sid.digest)
        verdict = self.verdicts.get(sid.digest, Verdict.VALID if sid.kind == SIGNED_IN else Verdict.ANONYMOUS)
        row = self.rows.get(sid.digest) if verdict is Verdict.VALID else None
        loaded = Loaded(verdict, row=row)
        for name in self.table.loaded_together:
            self._fill(loaded, sid, name)
        return loaded

    def load_more(
        self, sid: SessionId, scope: Scope, life: Life, loaded: Loaded, category: str, *, fresh: bool = False
    ) -> None:
        self.more.append(category)
        self._fill(loaded, sid, category)

    def _fill(self, loaded: Loaded, sid: SessionId, name: str) -> None:
        is_withheld = name == "auth" and loaded.verdict in (Verdict.DEAD, Verdict.UNVERIFIABLE)
        data = {} if is_withheld else self.stored.get(sid.digest, {}).get(name, {})
        shown = {key: encode(key, value) for key, value in data.items()}
        loaded.categories[name] = CategoryState.of(CategoryCopy(1, shown), "primary")

    def save(self, plan: Plan, scope: Scope) -> Saved:
        if self.refuses and (plan.grants or (plan.is_new and plan.target and plan.target.kind == SIGNED_IN)):
            raise self.refused()
        self.plans.append(plan)
        return self.outcome

    def refused(self, key: str = "") -> GrantRefused:
        return GrantRefused()

    def rejected(self, category: str, key: str | None, reason: str) -> None:
        self.refusals.append((category, key, reason))

    def lose_database(self) -> None:
        """Mark the database as lost for reads and writes."""
        self.scope.lost |= {(DATABASE, READ), (DATABASE, WRITE)}


@dataclass
class Maker:
    """A factory of sessions over a repository, with numbered ids.

    :ivar minted: ids that were made.
    :ivar forgotten: how often a cached CSRF token had to go.
    """

    repository: Repository
    minted: list[SessionId] = field(default_factory=list)
    forgotten: int = 0
    used: list[str] = field(default_factory=list)

    def sid(self, name: str, kind: str = "a", *, permanent: bool = False) -> SessionId:
        """An id that a cookie may bring."""
        return SessionId(name, kind, permanent, 1, b"secret")

    def session(self, cookie: SessionId | None = None) -> Session:
        """Return the session of one request."""
        return Session(self.context, cookie)

    @property
    def context(self) -> SessionContext:
        return SessionContext(
            cast(Any, self.repository),
            cookie=lambda request: request,  # a request is its cookie
            mint=self._mint,
            life=lambda permanent: LIFE,
            on_new_id=self._forget,
            on_use=self.used.append,
        )

    def _mint(self, kind: str, permanent: bool) -> SessionId:
        self.minted.append(self.sid(f"new-{len(self.minted) + 1}", kind, permanent=permanent))
        return self.minted[-1]

    def _forget(self) -> None:
        self.forgotten += 1

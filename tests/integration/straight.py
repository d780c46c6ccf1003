"""Two applications of which one has no straight line, and requests that are drawn for both."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import redis
from flask import Flask, Response, flash, get_flashed_messages, jsonify, request, stream_with_context
from flask import session as current
from flask_login import current_user, login_fresh, login_user, logout_user

from devservers.processes import LONG, wait_until
from flask_langpont_session.policy.categories import AUTH

from .conftest import parts
from .forms_site import User

SPARED = ("load", "probe")
"""Operations of which the straight line has fewer, or that are none of a request."""

DIGEST_LENGTH = 43

session: Any = current

# -- what a view does --------------------------------------------------------------------------------------------------

Step = tuple[str, Any]
"""The name of one of :data:`STEPS`, and what it is told."""


def _append(key: str) -> Any:
    session.setdefault(key, []).append(len(session[key]))
    return session[key]


def _nest(key: str) -> Any:
    value = session.setdefault(key, {"a": {}})
    value.setdefault("a", {})["b"] = len(str(value))
    return value


def _delete(key: str) -> None:
    del session[key]


def _assign(told: Sequence[Any]) -> None:
    session[told[0]] = told[1]


def _become_permanent(value: bool) -> bool:
    session.permanent = value
    return bool(session.permanent)


def _be_modified(_: Any) -> bool:
    session.modified = True
    return bool(session.modified)


def _sign_in(user: str) -> None:
    session["_user_id"] = user
    session["user_role"] = "user"


def _login(user: str) -> Any:
    login_user(User(user))
    return current_user.get_id()


def _shown(mapping: Mapping[str, Any]) -> Any:
    return sorted((key, repr(value)) for key, value in mapping.items() if key not in ("_id", "csrf_token"))


STEPS: Mapping[str, Callable[[Any], Any]] = {
    "get": lambda key: session.get(key),
    "item": lambda key: session[key],
    "in": lambda key: key in session,
    "pop": lambda key: session.pop(key, "nothing"),
    "set default": lambda key: session.setdefault(key, "default"),
    "assign": _assign,
    "update": lambda told: session.update(told),
    "delete": _delete,
    "clear": lambda _: session.clear(),
    "length": lambda _: len(session),
    "all": lambda _: _shown(session),
    "keys": lambda _: sorted(set(session) - {"_id", "csrf_token"}),
    "join": lambda told: _shown(session | told),
    "copy": lambda _: _shown(copy.copy(session)),
    "truth": lambda _: bool(session),
    "increment": lambda by: session.increment("usage_count", by),
    "append": _append,
    "nest": _nest,
    "flash": lambda text: flash(text),
    "flashes": lambda _: get_flashed_messages(),
    "token": lambda _: len(session["csrf_token"]),
    "permanent": _become_permanent,
    "is permanent": lambda _: session.permanent,
    "level": lambda _: session.level,
    "available": lambda feature: session.available(feature),
    "flush": lambda _: session.flush(),
    "fresh": lambda category: session.fresh(category),
    "modified": _be_modified,
    "is modified": lambda _: session.modified,
    "category": lambda name: _shown(session.category(name)),
    "no text": lambda key: [session.get(key), key in session],
    "regenerate": lambda _: session.regenerate(),
    "confirm": lambda _: session.confirm(),
    "sign in": _sign_in,
    "sign out": lambda _: session.sign_out(),
    "facts": lambda _: [session.new, session.ended, session.digest is None, session.unverified, repr(session)],
    "authenticated": lambda _: session.authenticated_at is None,
    "explain": lambda _: [repr(one) for one in session.explain()],
    "login": _login,
    "logout": lambda _: logout_user(),
    "current user": lambda _: [current_user.get_id(), login_fresh()],
    "transient": lambda _: [session.get("_remember"), "_remember_seconds" in session],
}


def _take(steps: Mapping[str, Callable[[Any], Any]], step: Sequence[Any]) -> Any:
    try:
        return steps[step[0]](step[1])
    except Exception as error:  # of any class: what a view is told is compared
        return f"{type(error).__name__}: {error}"


def _add_views(app: Flask, steps: Mapping[str, Callable[[Any], Any]]) -> None:
    @app.post("/steps")
    def take() -> Response:
        return jsonify([_take(steps, step) for step in request.get_json()])

    @app.post("/stream/<int:first>")
    def stream(first: int) -> Response:
        told = request.get_json()
        begun = [_take(steps, step) for step in told[:first]]

        def rest() -> Iterator[str]:
            yield repr(begun)
            for step in told[first:]:
                yield repr(_take(steps, step))

        return Response(stream_with_context(rest()))


# -- the two applications ----------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The part of a response that is not random.

    :param cookies: the attributes of each that is set.
    :param caches: Vary and Cache-Control.
    """

    status: int
    body: str
    cookies: list[str]
    caches: list[str | None]


@dataclass
class Share:
    """The number of times that the straight line was asked, and that it was taken."""

    asked: int = 0
    taken: int = 0

    def __iadd__(self, found: object) -> Share:
        self.asked += 1
        self.taken += found is not None
        return self


@dataclass
class Site:
    """An application and its browsers.

    :ivar reads: of those that the straight line was asked for; `changes`: likewise.
    """

    app: Flask
    reads: Share = field(default_factory=Share)
    changes: Share = field(default_factory=Share)
    browsers: dict[str, Any] = field(default_factory=dict)
    _before: Mapping[str, int] = field(default_factory=dict)
    _used: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.steps = dict(STEPS)
        _add_views(self.app, self.steps)

    def note_use(self, patch: pytest.MonkeyPatch) -> None:
        """Count what the figure of active sessions is told."""
        in_use = parts(self.app).backend.reports.in_use
        if in_use is None:
            return
        served, ended = in_use.served, in_use.ended

        def noted_served(digest: str, life_ms: int) -> None:
            self._used[f"served for {round(life_ms / 60_000)} min"] += 1
            served(digest, life_ms)

        def noted_ended(digest: str) -> None:
            self._used["ended"] += 1
            ended(digest)

        patch.setattr(in_use, "served", noted_served)
        patch.setattr(in_use, "ended", noted_ended)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Count what takes the straight line."""
        repository = parts(self.app).repository
        read, write = repository.line.read, repository.plain_changes.write

        def watched_read(*arguments: Any, **options: Any) -> Any:
            found = read(*arguments, **options)
            self.reads += found
            return found

        def watched_write(*arguments: Any, **options: Any) -> Any:
            found = write(*arguments, **options)
            self.changes += found
            return found

        patch.setattr(repository.line, "read", watched_read)
        patch.setattr(repository.plain_changes, "write", watched_write)

    def leave_line(self, patch: pytest.MonkeyPatch) -> None:
        """Let everything go the long way."""
        repository = parts(self.app).repository
        patch.setattr(repository.line, "read", lambda *_, **__: None)
        patch.setattr(repository.plain_changes, "write", lambda *_, **__: None)

    def begin_count(self) -> None:
        """Forget what was counted until now."""
        self.reads, self.changes = Share(), Share()
        self._before = self._recorded()
        self._used.clear()

    def browser(self, name: str) -> Any:
        return self.browsers.setdefault(name, self.app.test_client())

    def ask(self, name: str, steps: Sequence[Step], stream: int | None = None) -> Answer:
        """Let a browser ask for a page.

        :param stream: how many steps are taken before the response begins; None: it is no stream.
        """
        response = self.browser(name).post("/steps" if stream is None else f"/stream/{stream}", json=steps)
        cookies = [_attributes(cookie) for cookie in response.headers.getlist("Set-Cookie")]
        caches = [response.headers.get(header) for header in ("Vary", "Cache-Control")]
        return Answer(response.status_code, response.get_data(as_text=True), cookies, caches)

    def value(self, name: str, key: str) -> Any:
        """Return what a browser is shown of a key."""
        return json.loads(self.ask(name, [("get", key)]).body)[0]

    def take_cookie(self, name: str, other: Site) -> None:
        """Let a browser of this site send the cookie of another site's first browser."""
        self.browser(name).set_cookie("session", other.browser("one").get_cookie("session").value)

    def wait_until_near(self, name: str) -> None:
        """Wait until a read of a browser's session asks nothing."""

        def is_near() -> bool:
            self.begin_count()
            self.ask(name, [("get", "lang")])
            return self.reads.taken == 1

        wait_until(is_near, "a read that asks nothing")

    def counts(self) -> Mapping[str, int]:
        """Return what was recorded of requests since the count began: all but how long it took, and what the straight
        line does not ask."""
        recorded = self._recorded()
        return {
            seen: more for seen, number in recorded.items() if (more := number - self._before.get(seen, 0))
        } | self._used

    def saves(self) -> int:
        """Return how often Redis was sent a change since the count began."""
        return sum(n for seen, n in self.counts().items() if "name='save'" in seen and "source='primary'" in seen)

    def _recorded(self) -> Mapping[str, int]:
        recorder = parts(self.app).recorder
        found: dict[object, int] = dict(recorder.counters().items())
        found |= recorder.losses().items()
        found |= {seen: series.count for seen, series in recorder.series().items() if seen.name not in SPARED}
        found |= {of: sum(sizes.values()) for of, sizes in recorder.amounts().items() if of.name == "payload"}
        return {str(name): number for name, number in found.items() if name != "near_cache_hits"}


def _attributes(cookie: str) -> str:
    """Return the name and the attributes of a Set-Cookie, without the value and the date."""
    first, *rest = cookie.split("; ")
    name, _, value = first.partition("=")
    shown = ["Expires" if one.startswith("Expires=") else one for one in rest]
    return "; ".join([name, "a value" if value else "none", *shown])


class Record(NamedTuple):
    """The record that Redis has of one category of one session.

    :param life: seconds that it lives on, -1 for ever.
    """

    category: str
    fields: list[tuple[str, str]]
    life: float


def records(site: Site) -> list[Record]:
    """Return what Redis has of an application's sessions, decrypted, without the names of the sessions."""
    state, found = parts(site.app), []
    with redis.Redis.from_url(str(state.settings.redis_url), decode_responses=True) as client:
        for key in client.scan_iter():
            category, digest = key.split(":")[1], key.partition("{")[2].rstrip("}")
            if category in state.settings.table.categories and len(digest) == DIGEST_LENGTH:
                fields = [(name, "") for name in client.hkeys(key) if name.startswith("@")]
                shown = {name: repr(value) for name, value in _fields(site, category, digest).items() if name != "_id"}
                found.append(Record(category, sorted([*fields, *shown.items()]), client.pttl(key) / 1000))
    return sorted(found)


def _fields(site: Site, category: str, digest: str) -> Mapping[str, bytes]:
    primary = parts(site.app).backend.primary
    if category != AUTH:
        [copy] = primary.copies([(digest, category)], timeout=LONG)
        return copy.fields
    [answer] = primary.auths([digest], timeout=LONG)
    row = answer.auth and answer.auth.row
    return row.payload if row else {}

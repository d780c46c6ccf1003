"""One drill after the other: what each feature gets before, during and after an outage of this process.

All of it is one thread, which makes requests, waits, and compares. In turn:

1. *Well before.* It waits until the monitor has looked once, every store is used, and nothing is left in the journal:
   else what is seen would be of another outage. That takes a moment, or no drill is made.
2. *Begin.* Each feature gets a value, and is read, once: what the table promises at level 0. If a store is lost
   meanwhile, no drill is made either.
3. *Noticed.* The fault begins. Requests that meet it are made, one after the other, until the breaker of the store is
   open and the level is the expected one. They are what users meet first, so the slowest of them is told.
4. *Rounds.* Each round reads and writes every feature once, as the table promises at that level; the next begins a
   second later, so that a long drill is no load. At least one is made, however short the drill is to be, because each
   feature is to be seen. Then a sign-in and a sign-out are tried, once, because both change what there is.
5. *Well again.* The fault ends, and it waits as at first. What waited in the journal is merged by then: each feature is
   read once more and has to show what was kept last, and nothing that was not kept.

A feature's first broken promise is noted and the rest goes on, so that one drill finds all of them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flask import Flask

from ...config.settings import Settings
from ...policy.categories import Feature
from ...policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE
from ...policy.levels import Kept
from ...policy.rows import AuthRow, ChangedRows, Position
from ...recovery.monitor import Monitor
from ...request.repository import SessionRepository
from ...session.mapping import Session
from ...stores.backend import Backend
from ...stores.redis.commands import Commands
from .faults import Fault, Faults
from .promises import (
    MARK,
    Promise,
    Seen,
    broken_by_reading,
    broken_by_writing,
    key_of,
    promise,
    user_key_of,
)
from .visits import Browser

PATIENCE = 60.0
"""Seconds that it is waited for an outage to be noticed, and to be over."""

READY = 5.0
"""Seconds that it is waited for the stores to be well before."""

_PACE = 1.0
"""Seconds from one round over all features to the next."""


class NotWell(Exception):
    """The outage was not noticed, or does not end."""


class NotReady(NotWell):
    """There is an outage already: no drill was made."""


class Parts(NamedTuple):
    """The parts of the application's copy."""

    app: Flask
    backend: Backend
    repository: SessionRepository
    monitor: Monitor


@dataclass
class Amounts:
    """The times of one kind of request, in seconds, and the places where its data was from, or went to."""

    seconds: list[float] = field(default_factory=list)
    places: dict[str, None] = field(default_factory=dict)

    def note(self, seconds: float, place: object) -> None:
        """Add a request."""
        self.seconds.append(seconds)
        self.places[str(place)] = None


@dataclass
class Track:
    """The record of one feature in a drill.

    :param key: that is written; None: it is only read.
    :param stored: what was stored last.
    :ivar problem: the first that was not as promised.
    """

    feature: Feature
    key: str | None
    promised: Promise
    stored: Any = None
    before: Amounts = field(default_factory=Amounts)
    shown: Amounts = field(default_factory=Amounts)
    written: Amounts = field(default_factory=Amounts)
    after: Amounts = field(default_factory=Amounts)
    problem: str | None = None

    def blame(self, problem: str | None) -> None:
        """Note what is wrong, unless something was wrong before."""
        self.problem = self.problem or problem


@dataclass
class Outcome:
    """The result of one drill.

    :param level: of this process in the outage.
    :param noticed: seconds until it was there; `slowest`: of the requests meanwhile.
    :param over: seconds from the end of the fault until nothing waited any more.
    :param signing: what signing in and out came to: a sentence each, and whether it was as promised.
    """

    fault: Fault
    level: int
    tracks: Sequence[Track]
    noticed: float = 0.0
    slowest: float = 0.0
    over: float = 0.0
    signing: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @property
    def is_as_promised(self) -> bool:
        """Return whether every feature got what the table promises."""
        return all(ok for _, ok in self.signing.values()) and not any(track.problem for track in self.tracks)


class Drill:
    """Makes drills with a copy of the application's parts, which are for it alone.

    :param undisturbed: see :class:`.Browser`.
    :ivar user: that its sessions are of.
    """

    def __init__(
        self, parts: Parts, faults: Faults, undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._app, self._backend, self._repository, self._monitor = parts
        self._settings: Settings = self._backend.settings
        self._health = self._backend.health
        self._faults = faults
        self._undisturbed = undisturbed
        self.user = f"{MARK}-{secrets.token_hex(6)}"
        self._user_key = user_key_of(self._settings)
        self._browsers: list[Browser] = []
        self._keep_to_own_rows()

    def _keep_to_own_rows(self) -> None:
        """Have the database name only the drill's own rows as changed. After an outage a worker tells Redis of all rows
        that changed meanwhile, but those of other users are their workers' business: for them there was no outage."""
        database, user = self._backend.database, self.user

        def changed_since(ms_ago: int, after: Position | None = None, limit: int = 200) -> ChangedRows:
            rows: list[AuthRow] = database.sessions_of(user)
            return ChangedRows(rows, None)

        database.changed_since = changed_since  # type: ignore[method-assign]

    # -- one drill -----------------------------------------------------------------------------------------------------

    def run(self, fault: Fault, seconds: float, used: Container[str] = ()) -> Outcome:
        """Make one drill: before, during, and after.

        :param seconds: that the outage lasts once it was noticed, or as long as one round takes.
        :param used: names of the features that are tried; empty: all are.
        :raises NotReady: the stores are not well before, or one is lost before the fault begins.
        :raises NotWell: nor afterwards; or the outage was not noticed.
        """
        try:
            self._wait_until_well("before the drill", READY)
        except NotWell as error:
            raise NotReady(str(error)) from None
        level = self._level_of(fault)
        outcome = Outcome(fault, level, list(self._tracks(fault, level, used)))
        reader, leaver = self._signed_in(), self._signed_in()
        for track in outcome.tracks:
            self._begin(reader, track)
        self._faults.begin(fault)
        try:
            self._wait_until_noticed(outcome, reader)
            self._rounds(outcome, reader, seconds)
            self._sign_in_and_out(outcome, leaver)
        finally:
            self._faults.end()
        outcome.over = self._wait_until_well("after the drill")
        for track in outcome.tracks:
            self._end(reader, track)
        is_out = self._user_of(leaver) is None
        said, was_out = outcome.signing["sign-out"]
        outcome.signing["sign-out"] = said if is_out else "the session is back", was_out and is_out
        return outcome

    def _level_of(self, fault: Fault) -> int:
        if fault is Fault.DATABASE_DOWN:
            return 0
        has_replica = REPLICA in self._backend.redis and bool(self._backend.redis[REPLICA].endpoints)
        return 1 if has_replica else 2

    def _tracks(self, fault: Fault, level: int, used: Container[str]) -> Iterator[Track]:
        for feature in self._settings.table.features.values():
            if used and feature.name not in used:
                continue
            has_database = fault is not Fault.DATABASE_DOWN
            promised = promise(self._settings, feature, level, has_database=has_database)
            yield Track(feature, key_of(self._settings, feature), promised)

    def _begin(self, reader: Browser, track: Track) -> None:
        well, level = promise(self._settings, track.feature, 0), 0
        if track.key is not None:
            track.stored = f"{MARK} {secrets.token_hex(4)}"
            level, place, _ = self._write(reader, track, track.stored)
            track.blame(broken_by_writing(place, well))
        seen, took = self._read(reader, track)
        if level or seen.level:
            raise NotReady("a store was lost before the outage of the drill began; see `flask langpont status`")
        if track.key is None:
            track.stored = seen.value
        track.before.note(took, seen.source)
        track.blame(broken_by_reading(seen, well, 0, track.stored, None))

    def _rounds(self, outcome: Outcome, reader: Browser, seconds: float) -> None:
        """Make rounds, one at least; the last begins when `seconds` are over."""
        end = time.monotonic() + seconds
        while True:
            next_at = time.monotonic() + _PACE
            for track in outcome.tracks:
                self._during(reader, track, outcome)
            if time.monotonic() >= end:
                return
            time.sleep(max(0.0, min(next_at, end) - time.monotonic()))  # one look at a time, evenly spread

    def _during(self, reader: Browser, track: Track, outcome: Outcome) -> None:
        seen, took = self._read(reader, track)
        track.shown.note(took, seen.source if track.promised.is_shown else "default")
        default = None if track.key is None else self._settings.defaults.get(track.key)
        track.blame(broken_by_reading(seen, track.promised, outcome.level, track.stored, default))
        if track.key is None:
            return
        value = f"{MARK} {secrets.token_hex(4)}"
        _, place, took = self._write(reader, track, value)
        track.written.note(took, place)
        track.blame(broken_by_writing(place, track.promised))
        if place is not Kept.NOWHERE:
            track.stored = value

    def _end(self, reader: Browser, track: Track) -> None:
        seen, took = self._read(reader, track)
        track.after.note(took, seen.source)
        well = promise(self._settings, track.feature, 0)
        problem = broken_by_reading(seen, well, 0, track.stored, None)
        track.blame(problem and f"afterwards: {problem}")

    # -- requests ------------------------------------------------------------------------------------------------------

    def _browser(self) -> Browser:
        browser = Browser(self._app, self._undisturbed)
        self._browsers.append(browser)
        return browser

    def _signed_in(self) -> Browser:
        browser = self._browser()
        if self._sign_in(browser) != 200:
            raise NotReady("no user can be signed in; see `flask langpont status`")
        return browser

    def _sign_in(self, browser: Browser) -> int:
        def sign_in(session: Session) -> None:
            session[self._user_key] = self.user

        return browser.visit(sign_in).status

    def _user_of(self, browser: Browser) -> Any:
        return browser.visit(lambda session: session.get(self._user_key)).result

    def _read(self, browser: Browser, track: Track) -> tuple[Seen, float]:
        name, key = track.feature.name, track.key or track.feature.keys[0]

        def read(session: Session) -> tuple[Seen, float]:
            began = time.perf_counter()
            value, user = session.get(key), session.get(self._user_key)
            took = time.perf_counter() - began
            source = next(report.source for report in session.explain() if report.feature == name)
            if user != self.user:
                track.blame(f"the user is {user!r}")
            return Seen(session.level, value, source, session.available(name)), took

        seen, took = browser.visit(read).result
        return seen, took

    def _write(self, browser: Browser, track: Track, value: str) -> tuple[int, Kept | None, float]:
        """Write a value. Return the level of the request at its beginning, where the value is, and how long it took."""

        def write(session: Session) -> tuple[int, Session]:
            level = session.level
            session[track.key or ""] = value
            return level, session

        (level, session), took, _ = browser.visit(write)
        return level, session.kept.get(track.feature.category), took

    def _sign_in_and_out(self, outcome: Outcome, leaver: Browser) -> None:
        """Sign in and out during the outage. A sign-in without the database is refused; signing out always works."""
        browser = self._browser()
        status, expected = self._sign_in(browser), 503 if outcome.fault is Fault.DATABASE_DOWN else 200
        is_in = self._user_of(browser) == self.user
        said = {200: "works" if is_in else "is forgotten", 503: "is refused (503)"}.get(status, f"status {status}")
        outcome.signing["sign-in"] = said, status == expected and is_in is (expected == 200)
        leaver.visit(lambda session: session.sign_out())
        is_out = self._user_of(leaver) is None
        outcome.signing["sign-out"] = "works" if is_out else "the user is still signed in", is_out

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _wait_until_noticed(self, outcome: Outcome, reader: Browser) -> None:
        """Make requests with hardly a pause until the outage is noticed, which is by them. Of several shards, until it
        is on the one on which the reader's session lies."""
        began, shard = time.monotonic(), self._health.locate(reader.visit(lambda session: session.digest).result)
        while not self._is_noticed(outcome, shard):
            if time.monotonic() - began > PATIENCE:
                raise NotWell(f"the outage was not noticed within {PATIENCE:g} s")
            outcome.slowest = max(outcome.slowest, self._stir(reader, outcome.fault))
            time.sleep(0.01)  # the monitor of this process, which is to notice it, has the processor meanwhile
        outcome.noticed = time.monotonic() - began

    def _stir(self, reader: Browser, fault: Fault) -> float:
        """Make a request that meets the fault. Return how long it took."""

        def write(session: Session) -> None:
            session[MARK] = secrets.token_hex(4)

        def sign_in(session: Session) -> None:
            session[self._user_key] = self.user

        return self._browser().visit(sign_in).took if fault is Fault.DATABASE_DOWN else reader.visit(write).took

    def _is_noticed(self, outcome: Outcome, shard: str) -> bool:
        store = DATABASE if outcome.fault is Fault.DATABASE_DOWN else f"{PRIMARY}{shard}"
        is_lost = {(store, READ), (store, WRITE)} <= self._health.open_stores()
        return is_lost and self._health.snapshot(shard).level == outcome.level

    def _wait_until_well(self, when: str, patience: float = PATIENCE) -> float:
        """Wait until requests use every store, and nothing waits. Return after how many seconds. No request is made
        meanwhile: the monitor notices that a store is back."""
        began = time.monotonic()
        self._monitor.ensure_started()
        while not self._monitor.has_looked or self._health.open_stores() or self._backend.journal.waiting().entries:
            if time.monotonic() - began > patience:
                lost = ", ".join(sorted(self._health.lost_stores)) or "the journal"
                raise NotWell(f"{when} not all is well: {lost}; see `flask langpont status`")
            time.sleep(0.01)  # health has no event for it, and this is a command of its own
        return time.monotonic() - began

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """End the sessions of the drills, and leave nothing of them: their cookies were sent to nothing else.

        :raises NotWell: not all stores answer. What is left ends by itself, as sessions that are not used do.
        :raises StoreError: likewise.
        """
        self._faults.end()
        if not self._browsers:
            return
        self._wait_until_well("at the end")
        self._repository.revocations.revoke_user(self.user, self._repository.begin(PATIENCE))
        self._wait_until_well("at the end")
        self._monitor.stop()  # which may be about to tell Redis again what has changed
        self._wait_for_the_database()
        key_of, names = Commands(self._backend.primary.prefix).key, self._settings.table.categories
        # The rows, too: of a request that was given up half way no browser knows the session.
        rows = {row.digest for row in self._backend.database.sessions_of(self.user, PATIENCE)}
        for digest in sorted(rows.union(*(browser.digests for browser in self._browsers))):
            keys = [key_of(name, digest, shadow) for name in names for shadow in (False, True)]
            self._backend.primary.run_commands([("DEL", key) for key in keys], timeout=PATIENCE)
        self._backend.database.upkeep.erase(self.user)

    def _wait_for_the_database(self) -> None:
        """Wait until the database has done, in a thread of its own, what a request asked for that did not wait for it
        any more: a new row would stay."""
        began = time.monotonic()
        while self._backend.database.calls.requests.busy:
            if time.monotonic() - began > PATIENCE:
                raise NotWell(f"the database has not answered within {PATIENCE:g} s")
            time.sleep(0.01)  # a command of its own may look again and again: nothing tells when a call has ended

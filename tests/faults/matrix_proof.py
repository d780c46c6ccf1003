"""The proof of a row of the fault matrix: visitors before, during and after the fault, and what no visitor may see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from devservers.processes import LONG, wait_until
from flask_langpont_session.events import StoreLost
from flask_langpont_session.metrics.losses import Cause
from tests.integration.behind import is_home, outcomes
from tests.integration.conftest import parts

from .matrix import KEPT, REFUSED, Row
from .matrix_faults import PASSWORDS, Evidence
from .matrix_site import DEFAULT_THEME, SECRET_KEY, Answer, Site, Visitor
from .matrix_sql_faults import is_live

ROUNDS = 5
"""Requests of each thread once the level is reached."""

KEEPS_NOTHING = 3
"""From this level on a write of priority high lasts for its request (I19)."""

HANG_SECONDS = 20.0
"""A request that takes longer hangs. No figure: the machine may be busy."""

_FINE = frozenset({"ok", "miss", "refused", "local"})
"""Outcomes of calls that are no failures of a store. ``local``: our own limits, which a busy machine reaches."""


@dataclass
class Proof:
    """One row on one site.

    :param readers: look and write all the time, each in a thread of its own. The last one is anonymous.
    :param leaver: signs out during the fault; `newcomer` signs in.
    """

    row: Row
    site: Site

    def __post_init__(self) -> None:
        self.readers = [Visitor(self.site), Visitor(self.site), Visitor(self.site, is_user=False)]
        self.leaver = Visitor(self.site)
        self.newcomer = Visitor(self.site)
        self.visitors = [*self.readers, self.leaver, self.newcomer]
        self.counted_before = 0  # additions until the fault
        self.dropped: set[str] = set()  # texts written at a level that keeps nothing
        self.is_rewritten = False  # what was lost is there again, since all is well

    # -- the parts in their order ----------------------------------------------------------------------------------

    def run(self) -> None:
        """All of it. Raises AssertionError for whatever is not as the row says."""
        for visitor in (*self.readers, self.leaver):
            visitor.arrive()
        self.site.pair.catch_up()
        # Nor is anything given back to Redis from here on that the fault takes or damages.
        wait_until(lambda: parts(self.site.app).monitor.has_looked, "a monitor that has looked once")
        wait_until(lambda: not parts(self.site.app).monitor.recovery.gives_back, "copies given back")
        self.counted_before = sum(reader.counted for reader in self.readers)
        with self.row.cause(self.site) as evidence:
            self.look_on(evidence)
            self.act()
            self.look_at_level()
            assert evidence() >= self.row.bites, "the fault never happened"
        wait_until(lambda: is_home(self.site.app), "everything home")
        self.look_back()

    def look_on(self, evidence: Evidence) -> None:
        """Readers come and go until the level is reached, and then some more."""
        all_met = threading.Barrier(len(self.readers), action=self._note_calls)
        reached = partial(self._has_bitten, evidence) if self.row.flickers else self._is_reached
        Together([partial(self._visit, reader, all_met, reached) for reader in self.readers]).run()
        self._assert_little_was_paid()

    def _visit(self, reader: Visitor, all_met: threading.Barrier, reached: Callable[[], bool]) -> None:
        try:
            wait_until(lambda: self._meets_fault(reader, reached), f"level {self.row.level}", pause=0)
        except BaseException:
            all_met.abort()  # no reader needs to wait for this one
            raise
        all_met.wait(LONG)
        for _ in range(ROUNDS):
            self._assert_shown(reader, reader.read())

    def _has_bitten(self, evidence: Evidence) -> bool:
        """Often enough, and requests were among those it met."""
        return evidence() >= self.row.bites and self.row.classes <= self._failures()

    def _failures(self) -> set[str]:
        """Return the error classes that were recorded for calls of the store, and for its loss."""
        seen = outcomes(self.site.app, self.row.store) - (_FINE - self.row.classes)
        return seen | {e.cause for e in self.site.events if isinstance(e, StoreLost) and e.store == self.row.store}

    def _is_reached(self) -> bool:
        """Return whether this process has noticed the fault."""
        health = parts(self.site.app).health
        return health.level == self.row.level and {store for store, _ in health.open_stores()} == self.row.lost

    def _meets_fault(self, reader: Visitor, reached: Callable[[], bool]) -> bool:
        """Look once and, unless the fault was known before, write twice; visitors do so in different orders."""
        was_reached = reached()
        steps = [partial(self._look, reader)]
        if not was_reached:
            steps += [partial(self._write, reader, "text"), partial(self._count, reader)]
        if not was_reached and reader.is_user and self.row.auth in KEPT:
            steps += [partial(self._write, reader, "token")]
        first = self.readers.index(reader) % len(steps)
        for step in steps[first:] + steps[:first]:
            step()
        return was_reached

    def _look(self, reader: Visitor) -> None:
        answer = reader.read()
        assert (answer.status, answer.cookie) == (200, None), answer
        self._assert_only_own(reader, answer)

    def _write(self, reader: Visitor, name: str) -> None:
        answer = reader.write(name, self.row.size)
        assert (answer.status, answer.cookie) == (self.row.write, None), answer

    @staticmethod
    def _count(reader: Visitor) -> None:
        answer = reader.count()
        assert (answer.status, answer.cookie) == (200, None), answer

    def act(self) -> None:
        """Write, count, sign out, sign in."""
        for reader in self.readers:
            theme, text = reader.values["theme"], reader.values["text"]
            if not self.row.flickers:
                self._write(reader, "theme")
            if self.row.level:
                reader.values["theme"] = theme  # medium lasts for the request
            self._write(reader, "text")
            if self.row.level >= KEEPS_NOTHING:
                self.dropped.add(reader.values["text"])
                reader.values["text"] = text  # and so does high
            if reader.is_user and self.row.auth in KEPT:
                self._write(reader, "token")
            self._count(reader)
        self.is_rewritten = self.row.level == 0
        for reader in self.readers:
            self._assert_shown(reader, reader.read())
        answer = self.leaver.sign_out()
        assert answer.status == self.row.sign_out and answer.cookie is not None, answer
        assert self._user(self.leaver.read()) is None
        answer = self.newcomer.sign_in()
        assert answer.status == self.row.sign_in, answer
        assert (answer.cookie is None) == (answer.status != 200), answer
        if answer.status == 503:
            assert int(answer.headers["Retry-After"]) > 0
            assert self._user(self.newcomer.read()) is None
        else:
            self._assert_identity(self.newcomer, self.newcomer.read())

    def look_at_level(self) -> None:
        """The level, the classes, and which sources were used instead."""
        state = parts(self.site.app)
        assert self.row.flickers or self._is_reached()
        assert self.row.classes <= self._failures() <= self.row.classes | self.row.meanwhile
        if self.row.classes == REFUSED:
            assert (self.row.store, "read") not in state.health.open_stores(), "reads go on"
        if self.row.level and not self.row.flickers:
            counters = state.recorder.counters()
            for source in {self.row.translation, self.row.ui} & {"replica", "local", "default"}:
                assert counters.get(f"fallback_{source}"), counters
            if self.row.auth == "database":  # or what it said within the last two seconds
                assert counters.get("fallback_database") or counters.get("fallback_local"), counters
        page = self.site.app.test_client().get("/healthz")
        assert page.status_code == 200 and page.json is not None
        assert self.row.flickers or page.json["level"] == self.row.level
        self._assert_silent(page.text)

    def look_back(self) -> None:
        """Level 0: what was written is there, a user who left is gone, and no other one is."""
        for reader in self.readers:
            wait_until(partial(self._is_back, reader), "a page of level 0")
        if not self.row.loses:
            self._assert_counted()
        assert self._user(self.leaver.read()) is None
        assert not is_live(self.site, self.leaver.digest)
        if self.newcomer.is_signed_in:
            self._assert_identity(self.newcomer, self.newcomer.read())
        for visitor in self.visitors:
            slowest = max(answer.seconds for answer in visitor.answers)
            assert slowest < HANG_SECONDS, f"a request took {slowest:.1f} s"

    def _is_back(self, reader: Visitor) -> bool:
        """Return whether a page is of level 0, and check that it shows the whole session. On a busy machine, a
        request may do without a Redis that answers late and show the replica's data."""
        gone = {"ui": None} if "ui" in self.row.loses and not self.is_rewritten else {}
        shown = reader.read().shown
        assert shown is not None
        if self.row.level >= KEEPS_NOTHING:  # the text before the fault, or one on the way to that level
            assert shown["translation"] in reader.seen_values - self.dropped
            reader.values["text"] = shown["translation"]
        data = {name: value for name, value in shown.items() if name != "level"}
        assert data == {**reader.everything, **gone}
        return bool(shown["level"] == 0)

    def _assert_counted(self) -> None:
        """An addition whose outcome is unknown is not repeated: one too few is possible, twice is not."""
        shown = sum(int(reader.count().text) for reader in self.readers)
        counted = sum(reader.counted for reader in self.readers)
        losses = parts(self.site.app).recorder.losses()
        in_doubt = sum(number for key, number in losses.items() if key.cause == Cause.IN_DOUBT)
        assert shown <= counted
        if self.row.level >= KEEPS_NOTHING:
            assert shown >= self.counted_before + len(self.readers)
            return
        # A replay that is cut off, as in flapping, is in doubt, too, about more than one addition at a time.
        assert self.row.flickers or counted - in_doubt <= shown

    def assert_silent(self, log: str) -> None:
        """Assert that nothing in the log, the events and the metrics tells who the visitors are or what they have."""
        state = parts(self.site.app)
        self._assert_silent(log)
        self._assert_silent(repr(self.site.events))
        self._assert_silent(repr([*state.recorder.series(), *state.recorder.counters(), *state.recorder.amounts()]))

    # -- what is asserted of one answer ----------------------------------------------------------------------------

    def _assert_shown(self, reader: Visitor, answer: Answer) -> None:
        """Exactly what the row says."""
        assert (answer.status, answer.cookie) == (200, None), answer
        assert answer.shown is not None
        allowed = (0, self.row.level, self.row.level + 1) if self.row.flickers else (self.row.level,)
        assert answer.shown["level"] in allowed
        self._assert_is_one_of(
            answer, {category: list(self._allowed(reader, category)) for category in reader.everything}
        )

    def _allowed(self, reader: Visitor, category: str) -> Iterator[object]:
        """Yield the values that a page may show of a category when the level is reached."""
        source, own = getattr(self.row, category), reader.everything[category]
        if source in KEPT or self.is_rewritten:
            yield own
        elif source == "journal":  # a text that was written on the way to this level, if there was time for one
            yield None
            yield from reader.seen_values - self.dropped
        elif source == "copy":  # as soon as a worker has given it back
            yield None
            yield own
        else:
            yield {"default": DEFAULT_THEME, "nothing": None, "anonymous": [None, None]}[source]

    def _assert_only_own(self, reader: Visitor, answer: Answer) -> None:
        """Assert that on the way to the level the page shows the visitor's own data, or what the row puts in its
        place."""
        allowed = {category: [own, *self._allowed(reader, category)] for category, own in reader.everything.items()}
        self._assert_is_one_of(answer, allowed)

    @staticmethod
    def _assert_is_one_of(answer: Answer, allowed: Mapping[str, list[object]]) -> None:
        shown = answer.shown or {}
        for category, values in allowed.items():
            assert shown[category] in values, (category, answer)

    def _assert_identity(self, visitor: Visitor, answer: Answer) -> None:
        assert answer.shown is not None
        assert answer.shown["auth"] == (visitor.identity if self.row.auth in KEPT else [None, None]), answer

    @staticmethod
    def _user(answer: Answer) -> object:
        assert answer.status == 200 and answer.shown is not None, answer
        return answer.shown["auth"][0]

    def _assert_silent(self, text: str) -> None:
        known = [
            SECRET_KEY,
            *PASSWORDS,
            *self._passwords(),
            *(s for visitor in self.visitors for s in visitor.secrets()),
        ]
        assert [secret.split("-")[0] for secret in known if secret and secret in text] == []

    def _passwords(self) -> Iterator[str]:
        if self.site.postgres is not None:
            yield self.site.postgres.url.split(":")[2].split("@")[0]

    # -- what a fault costs ----------------------------------------------------------------------------------------

    def _calls(self) -> tuple[int, int]:
        """Return how many calls requests made to the store, and how many of them failed."""
        series = parts(self.site.app).recorder.series()
        asked = {seen: s.count for seen, s in series.items() if seen.source == self.row.store}
        return sum(asked.values()), sum(count for seen, count in asked.items() if seen.outcome not in _FINE)

    def _note_calls(self) -> None:
        self._asked_when_all_met, self._failed = self._calls()

    def _assert_little_was_paid(self) -> None:
        """Few calls failed each time, and from then on no request asked a store that is lost altogether.

        A store that flickers may be lost after all readers met the fault, or asked between two losses.
        """
        asked, failed = self._calls()
        outages = parts(self.site.app).recorder.counters().get("StoreLost", 0) if self.row.flickers else 1
        assert failed <= self.row.pays * len(self.readers) * outages
        if (
            not self.row.flickers
            and {(self.row.store, "read"), (self.row.store, "write")} <= parts(self.site.app).health.open_stores()
        ):
            assert asked == self._asked_when_all_met


class Together:
    """Actions at the same time, each in a thread of its own; if one fails, all fail."""

    def __init__(self, things: Sequence[Callable[[], object]]) -> None:
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._do, args=(thing,)) for thing in things]

    def _do(self, thing: Callable[[], object]) -> None:
        try:
            thing()
        except BaseException as error:
            self._errors.append(error)

    def run(self) -> None:
        """Return when all have ended."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(2 * LONG)
        if self._errors:
            raise next((e for e in self._errors if not isinstance(e, threading.BrokenBarrierError)), self._errors[0])


def prove(row: Row, site: Site, caplog: pytest.LogCaptureFixture) -> Proof:
    """Run a row and look through what was logged meanwhile."""
    proof = Proof(row, site)
    proof.run()
    proof.assert_silent(caplog.text)
    return proof

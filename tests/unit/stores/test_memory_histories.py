"""The rules of the memory over drawn histories, beside a server that knows what there was when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from flask_langpont_session.policy.changes import CategoryChange
from flask_langpont_session.policy.copies import NOT_THERE, CategoryCopy, Change
from flask_langpont_session.stores.memory import memory as module
from flask_langpont_session.stores.memory.memory import Memory
from tests.support.clock import Clock

DIGEST = "d" * 43
TTL = 100


@dataclass
class Server:
    """One category of one session in a server, and what this worker is told of it.

    :ivar there: the version, the fields and the description; None: nothing.
    :ivar history: what was there, by its description.
    :ivar asked: answers that have not arrived yet, with the moments at which they were asked for.
    :ivar read: what this worker's request had read before it changed something; None: nothing.
    :ivar least: the version that this worker knows of: a late answer takes it to no earlier one.
    """

    memory: Memory
    clock: Clock
    version: int = 1
    there: CategoryCopy = NOT_THERE
    history: dict[bytes, dict[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[CategoryCopy, int, float]] = field(default_factory=list)
    confirmed_at: float = float("-inf")
    least: int = 0
    read: CategoryCopy | None = None

    def write(self, by_us: bool, change: CategoryChange) -> None:
        """The change is made, by this worker or by another one."""
        before, self.version = self.there, self.version + 1
        fields = dict(change.sets) if change.wipe else {**before.fields, **change.sets}
        meta = DIGEST[:8].encode() + b"%016d%016d" % (self.version, 1) + b"000000" + b"-------" + b"0" * 11
        self.there = CategoryCopy(self.version, fields, meta)
        self.history[meta] = fields
        if by_us:
            known = self.memory.category(DIGEST, "ui")
            self.memory.write(
                DIGEST, "ui", change, Change(before.version, self.version, meta), kind="a", found=self.read
            )
            has_read = self.read is not None and self.read.version == before.version
            is_whole = change.wipe or not before.version or has_read
            if is_whole or (known is not None and known.version == before.version):
                self.least = self.version
            if is_whole or known is not None:
                self.confirmed_at = self.clock.now

    def expire(self) -> None:
        """Let everything expire."""
        if self.there is not NOT_THERE:
            self.version, self.there = self.version + 1, NOT_THERE

    def ask(self) -> None:
        """Ask the server: its present state is on its way."""
        self.asked.append((self.there, self.version, self.clock.now))

    def answer(self) -> None:
        """The answer that was asked for first arrives."""
        if not self.asked:
            return
        found, version, at = self.asked.pop(0)
        if found is NOT_THERE:
            self.memory.put_absent(DIGEST, "ui", version, at)
        else:
            self.memory.put_category(DIGEST, "ui", found, kind="a", as_of=at)
            self.read = found
        shown = self.memory.category(DIGEST, "ui")
        if at > self.confirmed_at and shown is not None:
            self.least = shown.version  # that nothing is there is said again: it is as of the first time
        self.confirmed_at = self.clock.now


CHANGES = st.builds(
    lambda key, value, wipe: CategoryChange(0, sets={key: value}, wipe=wipe),
    st.sampled_from("ab"),
    st.sampled_from([b"1", b"2"]),
    st.sampled_from([False, False, False, False, True]),
)
STEPS = st.one_of(
    *[st.tuples(st.just("write"), st.booleans(), CHANGES)] * 3,
    *(st.tuples(st.just(name)) for name in ("ask", "ask", "answer", "answer", Server.expire.__name__)),
    st.tuples(st.just("pass")),
)


@settings(derandomize=True, max_examples=200)
@given(st.sampled_from([1, 256]), st.lists(STEPS, min_size=8, max_size=24))
def test_four_questions_have_right_answers_after_any_history(most_open: int, steps: list[tuple[Any, ...]]) -> None:
    """A mark names what was there under it; what is shown is young enough; what is given back was there; an answer
    that no change followed is what there is.

    :param most_open: sessions that are not packed. Another one is asked for between any two steps.
    """
    clock = Clock(0.0)
    memory = Memory(ttl=TTL, clock=clock)
    server = Server(memory, clock)
    for name, *how in steps:
        clock.now += 1
        if name == "pass":
            clock.now += 60
            server.asked.clear()  # no request waits for so long
        else:
            getattr(server, name)(*how)
        with patch.object(module, "OPEN", most_open):
            memory.put_absent("other", "ui", 1)
        entry, shown = memory.entry(DIGEST), memory.category(DIGEST, "ui")
        record = entry.records.get("ui") if entry else None
        if record is not None and record.mark:
            assert dict(record.fields) == server.history[record.mark]
        if shown is not None:
            assert clock.now - server.confirmed_at < TTL
            assert server.least <= shown.version <= server.version
            assert shown.version != server.there.version or shown.fields == server.there.fields
        for copy in memory.held():
            assert copy.kind == "a" and (copy.copy.fields or copy.copy.version)
    clock.now += 1
    server.asked.clear()
    server.ask()
    server.answer()
    known = memory.category(DIGEST, "ui")
    assert known is not None and dict(known.fields) == dict(server.there.fields)

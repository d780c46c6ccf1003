"""Copies that a worker shares with the others of its host when no Redis answers any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from flask_langpont_session import events
from flask_langpont_session.policy.copies import CategoryCopy, SharedCopy
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import PRIMARY, READ, REPLICA, WRITE
from flask_langpont_session.recovery import outages as outages_of_host
from flask_langpont_session.recovery.outages import Outages
from flask_langpont_session.stores.host.board import Shared
from flask_langpont_session.stores.host.group_commit import busy
from tests.support.fake_stores import Stage
from tests.support.known import known

DIGEST = "d" * 64


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A worker that has a copy."""
    stage = Stage(tmp_path)
    stage.memory.put_category(DIGEST, "ui", known(CategoryCopy(7, {"lang": b'"ja"'})))
    return stage


@pytest.fixture
def outages(stage: Stage) -> Outages:
    return Outages(stage.backend, clock=stage.clock)


def shared(stage: Stage) -> list[str]:
    """The sessions whose copies the host's other workers find."""
    return [copy.digest for copy in stage.backend.board.shared_copies().values()]


def failing(stage: Stage, monkeypatch: pytest.MonkeyPatch, *errors: StoreError, call: str = "publish_copies") -> None:
    """The next attempts to share copies fail so, or those of another call of the board."""
    left, method = list(errors), getattr(stage.backend.board, call)

    def attempt(*of: Any, **options: Any) -> Any:
        if left:
            raise left.pop(0)
        return method(*of, **options)

    monkeypatch.setattr(stage.backend.board, call, attempt)


def test_copies_are_shared_once_when_no_redis_answers(stage: Stage, outages: Outages) -> None:
    """Copies are shared neither while the replica reads, nor again while the outage lasts: what comes later is
    shared by its request."""
    stage.lose(PRIMARY)
    outages.share()
    assert shared(stage) == []
    stage.lose(REPLICA)
    outages.share()
    assert shared(stage) == [DIGEST]
    stage.memory.put_category("e" * 64, "ui", known(CategoryCopy(7, {"lang": b'"ja"'})))
    outages.share()
    assert shared(stage) == [DIGEST]


def test_copies_are_shared_in_the_next_round_if_the_journal_was_busy(
    stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers of a host notice an outage at the same moment. The one that waited too long for its turn has lost
    nothing: no alert says that the journal cannot be used."""
    failing(stage, monkeypatch, busy(), busy())
    stage.lose(PRIMARY, REPLICA)
    for expected in ([], [], [DIGEST]):
        outages.share()
        assert shared(stage) == expected
    assert [signal for signal, _ in stage.said if signal is events.journal_failed] == []


def test_the_copies_of_many_sessions_are_shared_round_by_round(
    stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I30: those that were in use last come first. The monitor has stores to look at meanwhile."""
    monkeypatch.setattr(outages_of_host, "PORTION", 10)
    publish = stage.backend.board.publish_copies

    def slowly(copies: Iterable[SharedCopy], **options: Any) -> Shared:
        stage.clock.now += 0.15
        return publish(copies, **options)

    monkeypatch.setattr(stage.backend.board, "publish_copies", slowly)
    for number in range(50):
        stage.clock.now += 1
        stage.memory.put_category(f"{number:064}", "ui", known(CategoryCopy(7, {})))
    stage.memory.put_category(DIGEST, "ui", known(CategoryCopy(7, {"lang": b'"ja"'})))
    in_order = [copy.digest for copy in stage.memory.live_categories()]
    stage.lose(PRIMARY, REPLICA)
    for number in (20, 40, 51):
        outages.share()
        assert shared(stage) == in_order[:number]
    assert len(in_order) == 51


def test_copies_that_find_no_room_are_counted(stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies without room raise no alarm: nothing that was written is lost."""
    monkeypatch.setattr(stage.backend.board, "publish_copies", lambda copies: Shared(Counter(), len(copies)))
    stage.lose(PRIMARY, REPLICA)
    outages.share()
    assert stage.backend.recorder.counters()["copies_left_out"] == 1
    assert [signal for signal, _ in stage.said if signal is events.journal_failed] == []


def test_what_could_not_be_shared_is_not_shared_after_the_outage(
    stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its end is told to the other workers all the same: this one had announced the outage."""
    failing(stage, monkeypatch, busy())
    stage.lose(PRIMARY, REPLICA)
    outages.share()
    assert stage.backend.board.outages()
    for store in (PRIMARY, REPLICA):
        stage.health.close(store, [READ, WRITE])
    outages.share()
    assert shared(stage) == []
    assert not stage.backend.board.outages()


@pytest.mark.parametrize("is_first", [False, True])
def test_an_outage_that_could_not_be_taken_back_is_taken_back_in_the_next_round(
    stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """The journal was busy, or could not even be asked. Else the announcement stays for as long as the workers live:
    the journal is never empty, and each request has to look into it."""
    if is_first:  # it was announced by a worker that has died
        stage.backend.board.announce_outage(PRIMARY)
        failing(stage, monkeypatch, busy(), call="outages")
    else:
        stage.lose(PRIMARY, REPLICA)
        outages.share()
        for store in (PRIMARY, REPLICA):
            stage.health.close(store, [READ, WRITE])
    failing(stage, monkeypatch, busy(), busy(), call="outage_over")
    outages.share()
    for expected in ([PRIMARY], [PRIMARY], [], []):
        assert [*stage.backend.board.outages()] == expected
        outages.share()


def test_a_journal_that_cannot_be_used_is_an_alert(
    stage: Stage, outages: Outages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: the next round does not try again what a broken disk will refuse again."""
    failing(stage, monkeypatch, StoreError("journal", ErrorClass.UNREACHABLE, "SQLITE_IOERR"))
    stage.lose(PRIMARY, REPLICA)
    for _ in range(3):
        outages.share()
    assert [signal for signal, _ in stage.said if signal is events.journal_failed] == [events.journal_failed]
    assert shared(stage) == []

"""Loading a session: which store is asked, what is believed, and what stands in for a store that does not answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from flask_langpont_session import events
from flask_langpont_session.policy.belief import LOCAL
from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, REPLICA
from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.loaded import Verdict
from flask_langpont_session.policy.rows import AuthEntry
from flask_langpont_session.stores.host.group_commit import busy
from tests.support.entries import value
from tests.support.fake_stores import LIFE, NOW_MS, Stage, a_row, changed

HOUR, GRACE = 3_600_000, 300_000


def test_a_leased_session_costs_one_question(stage: Stage, user: SessionId) -> None:
    stage.redis.has(a_row(user.digest))
    stage.redis.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.of("auth").source, dict(loaded.of("ui").shown)) == (
        Verdict.VALID,
        PRIMARY,
        {"lang": b'"ja"'},
    )
    assert [what[0] for what in stage.redis.told] == ["read"]
    assert stage.database.told == []


@pytest.mark.parametrize("why", ["over", "none", "broken", "from the future"])
def test_without_a_lease_the_database_is_asked_and_redis_told(stage: Stage, user: SessionId, why: str) -> None:
    row = stage.database.rows[user.digest] = a_row(user.digest, version=3)
    if why == "over":
        stage.redis.has(row, age_ms=HOUR)
    elif why == "broken":
        stage.redis.has(row)
        stage.redis.trust_since_ms = NOW_MS
    elif why == "from the future":
        stage.redis.has(row, age_ms=-HOUR)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.row, loaded.of("auth").source) == (Verdict.VALID, row, DATABASE)
    assert stage.redis.told[-1] == ("push", user.digest, 3)


def test_a_row_that_another_worker_has_changed_is_read_though_redis_cannot_tell(stage: Stage, user: SessionId) -> None:
    """I4: the push of what it has committed waits in the host's journal."""
    stage.redis.has(a_row(user.digest, version=2))
    stage.database.rows[user.digest] = a_row(user.digest, version=3)
    stage.journal.queue_push(user.digest, 3)
    row = stage.load(user).row
    assert row is not None and row.version == 3


@pytest.mark.parametrize(("word", "is_killed"), [("dead", True), ("ended", False)])
def test_a_tombstone_that_a_push_meets_ends_the_row(
    stage: Stage, user: SessionId, monkeypatch: pytest.MonkeyPatch, word: str, is_killed: bool
) -> None:
    """Redis got it while the database was asked. If the database knew it, and its row is dead by now, that is all."""
    stage.database.rows[user.digest] = a_row(user.digest)

    def push(*arguments: object, **options: object) -> str:
        if word == "ended":
            stage.database.rows[user.digest] = a_row(user.digest, live=False)
        return word

    monkeypatch.setattr(stage.redis, "push", push)
    assert stage.load(user).verdict is Verdict.DEAD
    assert (("kill", user.digest) in [what[:2] for what in stage.database.told]) is is_killed


@pytest.mark.parametrize("word", ["tombstone", "no row", "dead row"])
def test_a_session_that_is_over_shows_its_shadow(stage: Stage, user: SessionId, word: str) -> None:
    """Both stores know afterwards that the session is over."""
    stage.redis.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    if word == "tombstone":
        stage.redis.entries[user.digest] = AuthEntry(None)
        stage.database.rows[user.digest] = a_row(user.digest)
    elif word == "dead row":
        stage.database.rows[user.digest] = a_row(user.digest, live=False)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.row, dict(loaded.of("ui").shown)) == (Verdict.DEAD, None, {})
    assert stage.memory.ended.is_dead(user.digest)
    said = ("kill", user.digest) if word == "tombstone" else ("write_tombstone", user.digest)
    told = stage.database.told if word == "tombstone" else stage.redis.told
    assert said in [what[:2] for what in told]
    before = len(stage.database.told)
    assert stage.load(user).verdict is Verdict.DEAD
    assert len(stage.database.told) == before  # this worker knows it now


def test_a_replica_never_decides_about_auth(stage: Stage, user: SessionId) -> None:
    """The database decides about auth, while the replica's data of other categories is shown."""
    stage.lose(PRIMARY)
    stage.replica.has(a_row(user.digest))
    stage.replica.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    row = stage.database.rows[user.digest] = a_row(user.digest)
    loaded = stage.load(user)
    assert (loaded.row, loaded.of("auth").source, loaded.of("ui").source) == (row, DATABASE, REPLICA)


@pytest.mark.parametrize("has", [{}, {"translation": {"input_text": b'"x"'}}], ids=["nothing yet", "an older version"])
def test_a_replica_that_is_behind_is_not_believed(
    stage: Stage, visitor: SessionId, has: dict[str, dict[str, bytes]]
) -> None:
    """I16: what it does not have may only have to arrive, and another worker of the host may have seen more."""
    stage.replica.data[visitor.digest] = has
    if has:
        stage.backend.register.note_version(visitor.digest, "translation", 10**15)
    stage.lose(PRIMARY)
    found = stage.load(visitor).of("translation")
    assert (found.source, dict(found.shown), found.gap and found.gap.whole) == ("local", {}, True)


def test_without_redis_the_database_says_who_is_signed_in(stage: Stage, user: SessionId) -> None:
    stage.lose(PRIMARY, REPLICA)
    stage.database.rows[user.digest] = a_row(user.digest)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.of("auth").source) == (Verdict.VALID, DATABASE)
    gap = loaded.of("translation").gap
    assert gap and gap.whole


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [([], Verdict.DEAD), ([PRIMARY], Verdict.UNVERIFIABLE), ([PRIMARY, REPLICA], Verdict.UNVERIFIABLE)],
    ids=lambda of: "+".join(of) or "none" if isinstance(of, list) else of.name,
)
def test_only_the_primary_can_say_that_a_session_was_not_used(
    stage: Stage, user: SessionId, lost: list[str], verdict: Verdict
) -> None:
    """S4: the database is told of a use now and then only, and a replica may be behind."""
    stage.database.rows[user.digest] = a_row(user.digest, idle_expires_at=NOW_MS - 1)
    stage.lose(*lost)
    assert stage.load(user).verdict is verdict


@pytest.mark.parametrize(
    ("lost", "in_redis_ms", "held_ms", "least", "source"),
    [
        ((), 0, 0, 1, PRIMARY),
        ((), 0, None, 2, DATABASE),  # I4: what was seen withdrawn is not shown again, whatever Redis says
        ((PRIMARY, REPLICA), 0, 1_990, 1, LOCAL),
        ((PRIMARY, REPLICA), 0, 2_010, 1, DATABASE),
        ((DATABASE,), HOUR // 2, None, 1, PRIMARY),
        ((DATABASE,), HOUR + 1, None, 1, "none"),
        ((DATABASE,), HOUR + 1, GRACE, 1, LOCAL),
        ((PRIMARY, REPLICA, DATABASE), 0, GRACE, 1, LOCAL),
        ((PRIMARY, REPLICA, DATABASE), 0, GRACE + 10, 1, "none"),
    ],
)
def test_each_source_is_believed_as_the_table_says(
    stage: Stage,
    user: SessionId,
    lost: Sequence[str],
    in_redis_ms: int,
    held_ms: int | None,
    least: int,
    source: str,
) -> None:
    """By how old its confirmation is, and the least version that this worker has seen. A fresh read believes the
    database alone."""
    stage.redis.has(a_row(user.digest), age_ms=in_redis_ms)
    stage.replica.has(a_row(user.digest))
    stage.database.rows[user.digest] = a_row(user.digest, version=2)
    stage.lose(*lost)
    if held_ms is not None:
        stage.memory.put_auth(a_row(user.digest), stage.clock())
        stage.clock.now += held_ms / 1000
    stage.memory.ended.raise_min_version(user.digest, least)
    loaded = stage.load(user)
    assert (loaded.of("auth").source, loaded.verdict is Verdict.VALID) == (source, source != "none")
    assert stage.load(user, fresh=True).of("auth").source == ("none" if DATABASE in lost else DATABASE)


SILENT = StoreError(DATABASE, ErrorClass.UNREACHABLE, "DeadlineExceeded", timed_out=True)
LATE = StoreError(DATABASE, ErrorClass.LOCAL, "ProcessLate", timed_out=True)


@pytest.fixture
def keep_journal_busy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The journal holds something, and cannot be read in time: for so many looks; what happens before the next one."""

    def keep(looks: int, then: Callable[[], object] = lambda: None) -> None:
        left, look = [looks], stage.journal.is_silent_about

        def is_silent_about(digest: str, wait: float | None = None) -> bool:
            left[0] -= 1
            if left[0] >= 0:
                raise busy()
            if left[0] == -1:
                then()
            return look(digest, wait)

        monkeypatch.setattr(stage.journal, "is_silent_about", is_silent_about)

    return keep


@pytest.mark.parametrize("why", ["hangs", "late", "lost"])
def test_a_journal_that_is_busy_for_a_moment_makes_no_user_a_stranger(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None], why: str
) -> None:
    """The user stays signed in while the database does not answer, whether that is known yet or not."""
    stage.redis.has(a_row(user.digest))
    stage.redis.data[user.digest] = {"ui": {"lang": b'"ja"'}}
    stage.database.fails = {"hangs": SILENT, "late": LATE}.get(why)
    if why == "lost":
        stage.lose(DATABASE)
    keep_journal_busy(1)
    loaded = stage.load(user)
    assert (loaded.verdict, loaded.of("auth").source) == (Verdict.VALID, PRIMARY)
    assert dict(loaded.of("ui").shown) == {"lang": b'"ja"'}


def test_the_database_may_say_what_a_busy_journal_does_not(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None]
) -> None:
    """While the journal is busy, a lease is not believed, and the database is asked."""
    stage.redis.has(a_row(user.digest))
    stage.database.rows[user.digest] = a_row(user.digest, version=2)
    keep_journal_busy(1)
    loaded = stage.load(user)
    assert loaded.row is not None and loaded.row.version == 2


def test_a_journal_that_cannot_be_read_in_time_is_logged_and_no_alert(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """journal-failed says that a change could not be kept. Here nothing is lost."""
    stage.redis.has(a_row(user.digest))
    stage.database.rows[user.digest] = a_row(user.digest)
    keep_journal_busy(1)
    assert stage.load(user).verdict is Verdict.VALID
    assert events.journal_failed not in [signal for signal, _ in stage.said]
    assert [record.levelname for record in caplog.records if "in time" in record.getMessage()] == ["WARNING"]
    assert stage.recorder.counters()["journal_errors"] == 1


@pytest.mark.parametrize("where", ["journal", "journal, user", "redis"])
def test_an_end_that_a_busy_journal_held_back_is_an_end(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None], where: str
) -> None:
    """Also where it was merged before the journal could be read: Redis is asked after it."""
    stage.redis.has(a_row(user.digest))
    stage.database.fails = SILENT

    def end() -> None:
        if where == "journal":
            stage.journal.revocations.note(user.digest)
        elif where == "journal, user":
            stage.journal.revocations.note_user("7", until_ms=NOW_MS)
        else:
            stage.redis.entries[user.digest] = AuthEntry(None, in_database=True)

    keep_journal_busy(1, end)
    assert stage.load(user).verdict is Verdict.DEAD
    assert stage.memory.ended.is_dead(user.digest)


@pytest.mark.parametrize(("busy", "fresh"), [(2, False), (1, True)])
def test_a_journal_that_stays_busy_may_hold_the_end_of_the_session(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None], busy: int, fresh: bool
) -> None:
    """Without the database it is not known that it goes on."""
    stage.redis.has(a_row(user.digest))
    stage.lose(DATABASE)
    keep_journal_busy(busy)
    assert stage.load(user, fresh=fresh).verdict is Verdict.UNVERIFIABLE
    assert fresh or stage.load(user).verdict is Verdict.VALID


@pytest.mark.parametrize(("fails", "verdict"), [(SILENT, Verdict.VALID), (LATE, Verdict.UNVERIFIABLE)])
def test_after_a_busy_journal_a_busy_database_still_excuses_less(
    stage: Stage, user: SessionId, keep_journal_busy: Callable[..., None], fails: StoreError, verdict: Verdict
) -> None:
    """Only GRACE counts, not the hour."""
    stage.redis.has(a_row(user.digest), age_ms=HOUR // 2)
    stage.database.fails = fails
    keep_journal_busy(1)
    assert stage.load(user).verdict is verdict


@pytest.mark.parametrize(("fails", "verdict"), [(SILENT, Verdict.VALID), (LATE, Verdict.UNVERIFIABLE)])
def test_a_database_that_was_too_busy_for_this_request_still_is(
    stage: Stage, user: SessionId, fails: StoreError, verdict: Verdict
) -> None:
    """S10: it is not asked a second time, and only GRACE counts."""
    stage.redis.has(a_row(user.digest), age_ms=HOUR // 2)
    stage.database.fails = fails
    scope, load = stage.begin(), stage.repository.reads.load
    assert load(user, scope, LIFE, fresh=True).verdict is Verdict.UNVERIFIABLE
    assert load(user, scope, LIFE).verdict is verdict


def test_a_damaged_record_is_quarantined_and_counted(stage: Stage, visitor: SessionId) -> None:
    stage.redis.damaged = ["ui"]
    stage.load(visitor)
    assert ("quarantine", visitor.digest, "ui") in stage.redis.told
    assert stage.recorder.counters()["records_set_aside"] == 1


def test_users_and_rights_are_never_taken_from_the_journal(stage: Stage, user: SessionId) -> None:
    """Nor from the record of a session without a row; what else waits of its auth is shown."""
    stage.redis.has(a_row(user.digest))
    waits = {"user_role": b'"admin"', "_user_id": b'"8"', "daily_limit": b"5"}
    stage.journal.put([value(user.digest, key, text, category="auth") for key, text in waits.items()])
    shown = stage.load(user).of("auth").shown
    assert (shown.get("user_role"), shown["_user_id"], shown["daily_limit"]) == (None, b'"7"', b"5")


def test_a_reply_to_another_question_is_asked_for_again(stage: Stage, visitor: SessionId) -> None:
    """It says nothing of the server: no breaker hears of it."""
    stage.redis.data[visitor.digest] = {"ui": {"lang": b'"ja"'}}
    stage.redis.fails_once = [StoreError(PRIMARY, ErrorClass.DATA, "CrossedReply")]
    assert dict(stage.load(visitor).of("ui").shown) == {"lang": b'"ja"'}
    assert stage.health.level == 0


def test_a_visitor_is_never_a_user(stage: Stage, visitor: SessionId) -> None:
    """A visitor is none whatever a record, a copy or the journal says."""
    stage.redis.data[visitor.digest] = {"auth": {"_user_id": b'"7"', "daily_limit": b"1", "user_role": b'"admin"'}}
    loaded = stage.load(visitor)
    assert dict(loaded.of("auth").shown) == {"daily_limit": b"1"}
    assert stage.database.told == []


def test_a_category_on_demand_is_read_when_it_is_asked_for(stage: Stage, visitor: SessionId) -> None:
    stage.redis.data[visitor.digest] = {"ui": {"lang": b'"ja"'}}
    scope, loaded = stage.begin(), stage.load(visitor)
    stage.redis.data[visitor.digest]["ui"] = {"lang": b'"en"'}
    stage.repository.reads.load_more(visitor, scope, stage.backend.settings.life, loaded, "ui")
    assert dict(loaded.of("ui").shown) == {"lang": b'"en"'}


def test_what_is_read_again_after_the_merge_is_kept_as_it_was_read(stage: Stage, visitor: SessionId) -> None:
    """Changes that waited at the first read are in Redis by then: a copy without them, under the newest version,
    would be shown in the next outage, and given to a Redis that has lost its data."""
    digest = visitor.digest
    stage.redis.data[digest] = {"ui": {"lang": b'"ja"'}}
    stage.journal.put([value(digest, "theme", b'"dark"', kind="a")])
    scope, loaded = stage.begin(), stage.load(visitor)
    assert dict(loaded.of("ui").shown) == {"lang": b'"ja"', "theme": b'"dark"'}
    stage.journal.forget_writes(stage.journal.pending_writes())
    stage.redis.data[digest]["ui"] = {"lang": b'"ja"', "theme": b'"dark"'}
    stage.repository.reads.load_more(visitor, scope, LIFE, loaded, "ui", fresh=True)
    stage.repository.saves.save(stage.plan(visitor, visitor, loaded=loaded, changes={"ui": changed(size=b"9")}), scope)
    copy = stage.memory.category(digest, "ui")
    assert copy is not None
    assert (copy.version, dict(copy.fields)) == (6, {"lang": b'"ja"', "theme": b'"dark"', "size": b"9"})

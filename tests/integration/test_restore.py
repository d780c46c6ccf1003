"""Redis gets back what hosts hold of a category, in any order, without undoing what was written since. Real servers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

import pytest

from devservers.servers import Valkey
from flask_langpont_session.policy.changes import CategoryChange, Fields, Operation
from flask_langpont_session.policy.copies import CategoryCopy, RecordRef
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.redis.commands import new_write_id
from flask_langpont_session.stores.redis.records import Limits, Merge, Merged, MergeStep, Restore
from flask_langpont_session.stores.redis.store import RedisStore

from .scripts_server import store_on

SID = "a" * 43
VISITOR = RecordRef(SID, "a")
LIMITS = Limits(50, 4096, 60_000)
LIFE_MS = 60_000


class Server:
    """A category of one session in a real server."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def now(self) -> int:
        """The server's clock, as a version."""
        return self.store.endpoint.time_ms(timeout=5) * 1000

    def write(self, delete: str | None = None, **sets: str) -> int:
        """A request's write. The version that it made."""
        encoded = {key: value.encode() for key, value in sets.items()}
        return self._write(CategoryChange(LIFE_MS, sets=encoded, deletes={delete} if delete else set()))

    def wipe(self, **sets: str) -> int:
        """The same, from nothing."""
        encoded = {key: value.encode() for key, value in sets.items()}
        return self._write(CategoryChange(LIFE_MS, sets=encoded, wipe=True))

    def _write(self, change: CategoryChange) -> int:
        written = self.store.write(
            VISITOR, {"ui": change}, guard="free", limits=LIMITS, timeout=5, write_id=new_write_id()
        )
        return written.versions["ui"].after

    def add(self, version: int, **fields: str) -> None:
        """The same, of what may have begun after the loss."""
        copy = CategoryCopy(version, {key: value.encode() for key, value in fields.items()})
        restore = Restore(SID, "ui", copy, "free", LIFE_MS, is_partial=True)
        self.store.merge_all([restore], limits=LIMITS, timeout=5, write_id=new_write_id())

    def restore(self, version: int, guard: str = "free", **fields: str) -> Merged | StoreError:
        """A host gives back what it has."""
        copy = CategoryCopy(version, {key: value.encode() for key, value in fields.items()})
        restore = Restore(SID, "ui", copy, guard, LIFE_MS)
        [reply] = self.store.merge_all([restore], limits=LIMITS, timeout=5, write_id=new_write_id())
        return reply

    @property
    def fields(self) -> Fields:
        """Return the fields that the server has."""
        [copy] = self.store.copies([(SID, "ui")], timeout=5)
        return copy.fields

    def empty(self) -> None:
        """All data is lost."""
        self.store.run_commands([("FLUSHALL",)], timeout=5)


@pytest.fixture
def server(primary: Valkey) -> Iterator[Server]:
    with store_on(primary.url) as store:
        yield Server(store)


def test_what_was_lost_comes_back_as_it_was(server: Server) -> None:
    """Lost data comes back with a new version, so that older copies are known to be older."""
    version = server.write(lang="ja", theme="dark")
    server.empty()
    reply = server.restore(version, lang="ja", theme="dark")
    assert isinstance(reply, Merged)
    assert reply.version > version
    assert server.fields == {"lang": b"ja", "theme": b"dark"}
    again = server.restore(version, lang="ja", theme="dark")
    assert isinstance(again, Merged)
    assert again.version == reply.version  # nothing is written where nothing is lost


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("write", [False, True])
def test_the_newest_copy_wins_in_any_order(server: Server, order: tuple[int, ...], write: bool) -> None:
    """The newest copy wins, with what was deleted meanwhile; what was written after the loss stays, whatever the
    copies say."""
    first = server.write(lang="ja", theme="dark", gone="1")
    second = server.write(lang="en", delete="gone")
    third = server.write(lang="fr", more="1")
    copies = [
        (first, {"lang": "ja", "theme": "dark", "gone": "1"}),
        (second, {"lang": "en", "theme": "dark"}),
        (third, {"lang": "fr", "theme": "dark", "more": "1"}),
    ]
    server.empty()
    if write:
        server.write(theme="light")
    for number in order:
        version, fields = copies[number]
        server.restore(version, **fields)
    assert server.fields == {"lang": b"fr", "theme": b"light" if write else b"dark", "more": b"1"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_wipe_that_a_host_knows_of_is_not_undone(server: Server, order: tuple[int, int]) -> None:
    """The copy that has it is newer than the one that does not."""
    before = server.write(lang="ja")
    wiped = server.wipe()
    copies = [(before, {"lang": "ja"}), (wiped, {})]
    server.empty()
    for number in order:
        version, fields = copies[number]
        server.restore(version, **fields)
    assert server.fields == {}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_wipe_is_not_undone_in_what_was_begun_after_the_loss(server: Server, order: tuple[int, int]) -> None:
    """Data that was written after the loss stays."""
    before = server.write(lang="ja", theme="dark")
    wiped = server.wipe()
    server.empty()
    server.write(more="1")
    for number in order:
        if number:
            server.restore(wiped)
        else:
            server.restore(before, lang="ja", theme="dark")
    assert server.fields == {"more": b"1"}


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_began_after_the_loss_knows_nothing_of_before(server: Server, order: tuple[int, ...]) -> None:
    """The copy of a worker that has only seen what was written then takes nothing away, and its own fields win."""
    first = server.write(lang="ja", theme="dark", gone="1")
    second = server.write(delete="gone")
    server.empty()
    third = server.write(theme="light", more="1")
    server.empty()
    for number in order:
        if number == 0:
            server.restore(first, lang="ja", theme="dark", gone="1")
        elif number == 1:
            server.restore(second, lang="ja", theme="dark")
        else:
            server.add(third, theme="light", more="1")
    assert server.fields == {"lang": b"ja", "theme": b"light", "more": b"1"}


def test_a_wipe_after_the_loss_stands(server: Server) -> None:
    """No copy from before puts anything in its place."""
    before = server.write(lang="ja", theme="dark")
    server.empty()
    server.wipe(lang="en")
    server.restore(before, lang="ja", theme="dark")
    assert server.fields == {"lang": b"en"}


def test_a_field_that_was_deleted_after_the_loss_stays_away(server: Server) -> None:
    """It was deleted since the copy."""
    before = server.write(lang="ja", theme="dark")
    server.empty()
    server.write(more="1")
    server.write(delete="lang")
    server.restore(before, lang="ja", theme="dark")
    assert server.fields == {"theme": b"dark", "more": b"1"}


def test_much_that_was_written_after_the_loss_keeps_nothing_from_coming_back(server: Server) -> None:
    """More than a record remembers of its latest writes."""
    before = server.write(lang="ja")
    server.empty()
    for number in range(30):
        server.write(None, **{f"a_key_with_a_long_name_{number}": "1"})
    server.restore(before, lang="ja")
    server.restore(before + 1, lang="ja", more="1")
    assert len(server.fields) == 32
    assert server.fields["lang"] == b"ja"
    server.restore(before + 2)  # it was wiped, as another host knows
    server.restore(before + 1, lang="ja", more="1", late="1")
    assert "late" not in server.fields


def test_a_server_that_lost_nothing_is_not_changed(server: Server) -> None:
    """An older copy says nothing about what was written since, or deleted."""
    before = server.write(lang="ja", theme="dark")
    after = server.write(lang="en", delete="theme")
    server.restore(before, lang="ja", theme="dark")
    server.restore(after, lang="en")
    assert server.fields == {"lang": b"en"}


def test_a_server_that_is_behind_gets_what_it_lacks(server: Server) -> None:
    """A replica that was promoted before it had the latest writes."""
    server.write(lang="ja", theme="dark")
    server.restore(server.now() + 1000, lang="en", more="1")
    assert server.fields == {"lang": b"en", "more": b"1"}


def test_data_of_a_signed_in_session_comes_back_only_if_it_lives(server: Server) -> None:
    """I7: nothing is created under an id whose session is over, or may be."""
    assert server.restore(server.now(), "alive", lang="ja") == Merged("gone")
    server.store.push_many([(SID, 1)], ["ui"], stamp_ms=0, timeout=5)
    assert server.restore(server.now(), "alive", lang="ja") == Merged("dead")
    assert server.fields == {}


def test_what_is_too_large_is_left(server: Server) -> None:
    """The limits hold; what fits comes back."""
    server.restore(server.now(), lang="ja", theme="x" * 5000)
    assert server.fields == {"lang": b"ja"}


@pytest.mark.parametrize("late", [False, True])
def test_what_waited_is_merged_into_what_came_back(server: Server, late: bool) -> None:
    """A value that was made from the copy, or from an older one whose field is the same; one made from another value
    is a conflict."""
    version = server.write(lang="ja", usage="4")
    copied = server.write(theme="dark") if late else version
    server.empty()
    server.restore(copied, lang="ja", usage="4", theme="dark")
    steps = [
        MergeStep(Operation.SET, "lang", b"en", moment=version, base=b"ja"),
        MergeStep(Operation.ADD, "usage", 1, "token01"),
    ]
    server.store.merge_all(
        [Merge(SID, "ui", steps, "free", LIFE_MS)], limits=LIMITS, timeout=5, write_id=new_write_id()
    )
    assert server.fields == {"lang": b"en", "usage": b"5", "theme": b"dark"}


@pytest.mark.parametrize("is_partial", [False, True])
@pytest.mark.parametrize(
    ("written", "found"),
    [
        ({}, {"usage": b"3"}),
        ({"theme": "light"}, {"usage": b"3", "theme": b"light"}),
        ({"usage": "1"}, {"usage": b"4"}),  # the copy's sum is not put in its place: the addition is no part of it
    ],
)
def test_an_addition_is_made_again_unless_it_is_part_of_the_copy(
    server: Server, is_partial: bool, written: dict[str, str], found: dict[str, bytes]
) -> None:
    """Its answer was lost, another worker has read the sum, and then all data was lost: the entry waits still.

    :param written: after the loss.
    """
    write_id = new_write_id()
    change = {"ui": CategoryChange(LIFE_MS, increments={"usage": 3})}
    server.store.write(VISITOR, change, guard="free", limits=LIMITS, timeout=5, write_id=write_id)
    [copy] = server.store.read(VISITOR, {"ui": 0}, timeout=5).records.values()
    server.empty()
    if written:
        server.write(**written)
    restore = Restore(SID, "ui", copy, "free", LIFE_MS, is_partial)
    again = MergeStep(Operation.ADD, "usage", 3, write_id, moment=copy.version)
    for merge in restore, Merge(SID, "ui", [again], "free", LIFE_MS):
        server.store.merge_all([merge], limits=LIMITS, timeout=5, write_id=new_write_id())
    assert server.fields == found

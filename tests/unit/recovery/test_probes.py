"""Probes of stores: when they are made, and what follows from them. The time is told; no store is asked."""

from __future__ import annotations

import random
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flask_langpont_session.policy.errors import ErrorClass, StoreError
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, REPLICA, WRITE, Health
from flask_langpont_session.recovery.probes import GOOD_PROBES, LATE_PROBES, ProbeAnswer, Prober, Probes, StoreProbe
from tests.support.clock import Clock

BOTH = frozenset({READ, WRITE})
INTERVAL = 30.0


def longest(low: float, high: float) -> float:
    """Chance, at its most unlucky."""
    return high


# -- one store ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("refused", "limit"), [(False, 1.0), (True, 3.0)])
def test_pauses_double_up_to_a_limit(refused: bool, limit: float) -> None:
    """A store that refuses this worker is asked less often: it gets better only when something is changed."""
    probe, now, pauses = StoreProbe(PRIMARY), 100.0, []
    for _ in range(8):
        probe.failed(now, longest, refused=refused)
        pauses.append(round(probe.next_at - now, 3))
        now = probe.next_at
    assert pauses == [min(limit, 0.1 * 2**number) for number in range(8)]


def test_pauses_are_drawn_from_all_that_may_be() -> None:
    """Workers that lost a store at the same moment must not probe it at the same moment."""
    drawn: list[tuple[float, float]] = []

    def shortest(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    probe = StoreProbe(PRIMARY)
    for _ in range(3):
        probe.failed(100.0, shortest)
    assert drawn == [(0.05, 0.1), (0.05, 0.2), (0.05, 0.4)]
    assert probe.next_at == 100.05


def test_only_good_probes_in_a_row_count() -> None:
    """One could be luck in a flapping network."""
    probe = StoreProbe(PRIMARY)
    for _ in range(2):
        assert [probe.succeeded(100.0) for _ in range(GOOD_PROBES - 1)] == [False] * (GOOD_PROBES - 1)
        probe.failed(100.0, longest)
    assert [probe.succeeded(100.0) for _ in range(GOOD_PROBES)] == [False] * (GOOD_PROBES - 1) + [True]


def test_after_a_good_probe_the_next_one_is_near_however_long_the_outage_was() -> None:
    """Requests wait for it."""
    probe = StoreProbe(PRIMARY)
    for _ in range(8):
        probe.failed(100.0, longest)
    probe.succeeded(200.0)
    assert probe.next_at == 200.05


def test_the_next_outage_begins_with_short_pauses() -> None:
    """And with no good probe to its credit; it is probed at once."""
    probe = StoreProbe(PRIMARY)
    for _ in range(8):
        probe.failed(100.0, longest)
    probe.succeeded(200.0)
    probe.recovered()
    assert (probe.good, probe.next_at) == (0, 0.0)
    probe.failed(300.0, longest)
    assert probe.next_at == 300.1


# -- all stores --------------------------------------------------------------------------------------------------------


class Place:
    """The probes of three stores that do what the test says.

    :ivar asked: the stores that were asked since the test looked last.
    :ivar faults: by store, what it answers instead; a store without one is well.
    :ivar loss: why it cannot be seen whether data was lost.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.faults: dict[str, StoreError] = {}
        self.loss: StoreError | None = None
        self.overtime = self.trouble = False
        self.took = 0.01
        self.slow: set[str] = set()
        self.calls = SimpleNamespace(requests=SimpleNamespace(busy=0))
        self.health = Health([PRIMARY, REPLICA, DATABASE], clock=self.clock)
        self.incidents: list[float] = []
        nothing = lambda *arguments, **options: None  # noqa: E731
        backend = SimpleNamespace(
            health=self.health,
            database=self,
            endpoint=lambda name: SimpleNamespace(link=SimpleNamespace(forget_connections=nothing)),
            reports=SimpleNamespace(emit=nothing),
        )
        prober = SimpleNamespace(
            reset=nothing,
            look=self.ask,
            ask=self.ask,
            take_overtime=lambda: self.overtime,
            confirm_slow=lambda store: store in self.slow,
            took_too_long=lambda took, late: took > 0.1,
            patience_with=lambda store: 0.5,
            lag=SimpleNamespace(late=lambda: 0.0, is_behind=False),
        )
        self.lag = prober.lag
        recovery = SimpleNamespace(recovered=self.recovered, look_for_losses=self.look_for_losses)
        outages = SimpleNamespace(siblings_are_in_trouble=lambda: self.trouble)
        parts = cast("tuple[Any, Any, Any, Any]", (backend, prober, recovery, outages))
        self.probes = Probes(*parts, clock=self.clock, rng=random.Random(1), interval=INTERVAL)

    def ask(self, store: str, timeout: float = 0.0) -> ProbeAnswer:
        self.asked.append(store)
        if store in self.faults:
            raise self.faults[store]
        return ProbeAnswer(BOTH, self.took)

    def recovered(self, store: str, since: float) -> None:
        self.incidents.append(since)

    def look_for_losses(self, store: str, timeout: float) -> None:
        if self.loss is not None:
            raise self.loss

    def round(self) -> list[str]:
        """The stores that were asked in one round, in their order."""
        self.asked.clear()
        self.probes.look_at_suspects()
        self.probes.probe_lost(self.lost)
        return list(self.asked)

    @property
    def lost(self) -> set[str]:
        return {store for store, _ in self.health.open_stores()}

    def lose(self, store: str, kind: ErrorClass = ErrorClass.UNREACHABLE) -> None:
        self.faults[store] = StoreError(store, kind, "Test", timed_out=True)
        self.health.failed(self.faults[store], READ)


@pytest.fixture
def place() -> Place:
    """Return a place whose stores have been looked at once."""
    place = Place()
    assert sorted(place.round()) == [DATABASE, PRIMARY, REPLICA]
    assert place.round() == []
    return place


def test_all_stores_get_a_canary_once_in_an_interval(place: Place) -> None:
    """The database, which may take its time, comes last."""
    place.clock.now += INTERVAL - 1
    assert place.round() == []
    place.clock.now += 1
    asked = place.round()
    assert (len(asked), asked[-1]) == (3, DATABASE)


@pytest.mark.parametrize(
    ("reason", "asked"),
    [
        ({}, {REPLICA}),
        ({"trouble": True}, {PRIMARY, REPLICA, DATABASE}),
        ({"overtime": True}, {PRIMARY, REPLICA}),
        ({"overtime": True, "calls": SimpleNamespace(requests=SimpleNamespace(busy=1))}, {PRIMARY, REPLICA, DATABASE}),
    ],
    ids=["a request failed", "a sibling is in an outage", "this process is late", "late, with calls of the database"],
)
def test_reasons_to_look_at_once(place: Place, reason: dict[str, Any], asked: set[str]) -> None:
    """A database that is not used is no reason to wait for it while this process is late."""
    place.probes.of(REPLICA).is_suspect = True
    vars(place).update(reason)
    assert set(place.round()) == asked
    place.overtime = place.trouble = False
    assert place.round() == []


def test_where_one_store_is_lost_the_others_are_looked_at_once_and_more_often(place: Place) -> None:
    """They carry its load."""
    place.clock.now += INTERVAL
    place.round()
    place.lose(PRIMARY)
    assert {REPLICA, DATABASE} <= set(place.round())
    assert not {REPLICA, DATABASE} & set(place.round())
    place.clock.now += INTERVAL
    assert {REPLICA, DATABASE} <= set(place.round())
    place.clock.now += 2
    assert {REPLICA, DATABASE} <= set(place.round())


def test_a_canary_without_an_answer_opens_a_breaker_and_probes_close_it(place: Place) -> None:
    """The outage began when the breaker opened: what changed since is brought to Redis."""
    place.faults[PRIMARY] = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)
    place.probes.of(PRIMARY).is_suspect = True
    began = place.clock.now
    place.round()
    assert place.lost == {PRIMARY}
    place.faults.clear()
    for is_lost in (True, False):
        until_next = place.probes.until_next()
        assert until_next is not None and 0 < until_next <= 0.1
        assert place.round().count(PRIMARY) == 0
        place.clock.now += until_next + 0.001
        assert place.round().count(PRIMARY) == 1
        assert bool(place.lost) is is_lost
    assert place.incidents == [began]
    assert place.probes.until_next() is None


def test_a_primary_is_used_again_when_it_has_told_of_losses_too(place: Place) -> None:
    """The breaker stays open until the primary has said whether it lost data: else the journal would be merged into
    an emptied one."""
    place.lose(PRIMARY)
    place.faults.clear()
    for loss in (StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True), None):
        place.loss = loss
        for _ in range(4):
            place.clock.now += 1.1
            place.round()
        assert bool(place.lost) is (loss is not None)


def test_a_store_that_is_slow_is_not_used_again_until_it_is_quick(place: Place) -> None:
    """No request waits for a store that keeps all requests waiting."""
    place.lose(PRIMARY)
    place.faults.clear()
    for place.took, is_lost in ((0.15, True), (0.15, True), (0.02, True), (0.02, False)):
        place.clock.now += 1.1
        place.round()
        assert bool(place.lost) is is_lost


@pytest.mark.parametrize(
    ("kind", "pause"), [(ErrorClass.UNREACHABLE, 1.0), (ErrorClass.IDENTITY_REFUSED, 3.0)], ids=lambda it: str(it)
)
def test_a_store_that_refuses_this_worker_is_asked_less_often(place: Place, kind: ErrorClass, pause: float) -> None:
    place.lose(PRIMARY, kind)
    for _ in range(8):
        place.clock.now += 3.1
        place.round()
    assert place.probes.of(PRIMARY).pause == pause


def test_a_store_that_was_lost_for_writing_may_be_lost_for_reading_too(place: Place) -> None:
    """It has probes of its own then, and no canary: an idle worker notices by these."""
    for _ in range(3):
        place.health.failed(StoreError(PRIMARY, ErrorClass.WRITE_REFUSED, "Test"), WRITE)
    assert place.health.open_stores() == {(PRIMARY, WRITE)}
    place.faults[PRIMARY] = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)
    place.round()
    assert place.health.open_stores() == {(PRIMARY, READ), (PRIMARY, WRITE)}


def test_one_look_is_enough_to_notice_an_outage(place: Place) -> None:
    """A failure that costs requests little opens a breaker only when it is repeated; an idle worker repeats it."""
    place.faults[PRIMARY] = StoreError(PRIMARY, ErrorClass.UNREACHABLE, "ConnectionRefusedError")
    place.probes.of(PRIMARY).is_suspect = True
    place.probes.look_at_suspects()
    assert place.lost == {PRIMARY}


def test_a_store_that_is_used_again_for_another_reason_is_not_waited_for(place: Place) -> None:
    """Else the rounds would follow each other without a pause: its time is over, and it is not probed any more."""
    place.lose(PRIMARY)
    place.round()
    assert place.probes.until_next() is not None
    place.health.close(PRIMARY, BOTH)
    place.round()
    assert place.probes.until_next() is None


def test_a_store_is_lost_that_probes_find_slow_too(place: Place) -> None:
    """Requests alone may be mistaken: it may be this process."""
    place.probes.of(PRIMARY).may_be_slow = True
    place.round()
    assert not place.lost
    place.slow.add(PRIMARY)
    place.round()
    assert not place.lost
    place.probes.of(PRIMARY).may_be_slow = True
    place.probes.look_at_suspects()
    assert place.lost == {PRIMARY}


def test_a_probe_that_this_process_made_nothing_of_is_repeated(place: Place) -> None:
    """Class L says nothing of the store."""
    place.faults[PRIMARY] = StoreError(PRIMARY, ErrorClass.LOCAL, "Test")
    place.probes.of(PRIMARY).is_suspect = True
    for _ in range(2):
        assert set(place.round()) == {PRIMARY}
    assert not place.lost


@pytest.mark.parametrize(("behind", "is_lost"), [(True, False), (False, True)])
def test_a_look_for_losses_without_an_answer_is_repeated_by_a_late_process(
    place: Place, behind: bool, is_lost: bool
) -> None:
    """It waits for a moment only, and a probe has said that the store is well."""
    place.lag.is_behind, place.loss = behind, StoreError(PRIMARY, ErrorClass.UNREACHABLE, "Test", timed_out=True)
    place.probes.of(PRIMARY).is_suspect = True
    assert PRIMARY in place.round()
    assert place.health.is_whole(PRIMARY) is not is_lost
    assert place.probes.of(PRIMARY).is_suspect is behind


def test_shards_that_were_found_are_looked_at_and_those_that_left_are_forgotten(place: Place) -> None:
    """A suspicion about a store that is gone has it looked at once, and no more."""
    place.health.arrange(PRIMARY, [":1", ":2"])
    place.probes.of(PRIMARY).is_suspect = True
    assert set(place.round()) == {PRIMARY, "primary:1", "primary:2"}
    place.health.arrange(PRIMARY, [":2"])
    assert place.round() == []
    place.health.arrange(PRIMARY, [":1", ":2"])
    assert set(place.round()) == {"primary:1"}


# -- the calls ---------------------------------------------------------------------------------------------------------


class LateProcess:
    """A process that has been late for the last second, and asks stores that do not answer.

    :param answered: seconds after the beginning of each call, when a request asks for something and has its answer.
    :param overtime: how many times its patience each call takes.
    :param is_late: whether the process was late, for that is not known of one that waited as long as it should.
    :ivar waited: the seconds that each call was given.
    """

    def __init__(
        self, error: StoreError, answered: float = 0.1, overtime: float = 6.0, *, is_late: bool = True
    ) -> None:
        self.waited: list[float] = []
        self._error = error
        self._answered = answered
        self._overtime = overtime
        self.now = 0.0
        self._breaker = SimpleNamespace(asked_at=0.0)
        self.health = SimpleNamespace(
            breakers={(error.store, READ): self._breaker, ("another", READ): SimpleNamespace(asked_at=99.0)}
        )
        backend = SimpleNamespace(
            health=self.health,
            settings=SimpleNamespace(slow=0.1, redis_timeout=2.0, database_timeout=4.0, key_prefix="session"),
            database=self,
            find=lambda name, timeout: self,
        )
        lag = SimpleNamespace(
            clock=lambda: self.now,
            late=lambda: 0.0,
            is_late=lambda seconds, since: is_late,
            with_overtime=lambda seconds: seconds / 5,
            overtimes=0,
        )
        self.prober = Prober(cast("Any", backend), cast("Any", lag))

    def probe(self, *arguments: Any, timeout: float | None = None) -> float:
        given = arguments[0] if timeout is None else timeout
        self.waited.append(given)
        self._breaker.asked_at = self.now + self._answered
        self.now += given * self._overtime
        raise self._error

    probe_read = probe


def silence(store: str = PRIMARY) -> StoreError:
    return StoreError(store, ErrorClass.UNREACHABLE, "TimeoutError", timed_out=True)


@pytest.mark.parametrize(("store", "patience"), [(PRIMARY, 0.4), (REPLICA, 0.4), (DATABASE, 4.0)])
def test_a_late_process_asks_several_times_and_waits_less_for_redis(store: str, patience: float) -> None:
    """It waits longer by itself; but a call of the database has to wait for its turn again and again."""
    process = LateProcess(silence(store))
    with pytest.raises(StoreError):
        process.prober.look(store)
    assert process.waited == [*[patience] * (LATE_PROBES - 1), 2.0 if store != DATABASE else patience]


@pytest.mark.parametrize(("answered", "is_late"), [(-0.1, True), (0.1, False)], ids=["asked before", "on time"])
def test_answers_that_do_not_speak_for_the_store(answered: float, is_late: bool) -> None:
    """The threads of a late process come to read what was asked before the probe when the store may long have stopped;
    and those of one on time may have used connections to another server."""
    process = LateProcess(silence(), answered, is_late=is_late)
    with pytest.raises(StoreError):
        process.prober.look(PRIMARY)
    assert process.waited == [0.4]


def test_a_moment_without_an_answer_is_no_outage() -> None:
    """A wait that was meant to go on after its time, and did not, was too short."""
    process = LateProcess(silence(), answered=-0.1, overtime=1.0)
    with pytest.raises(StoreError):
        process.prober.look(PRIMARY)
    assert process.waited == [0.4, 0.4, 2.0]


def test_what_a_store_has_said_is_not_asked_again() -> None:
    """Only silence may be this process's own fault."""
    process = LateProcess(StoreError(PRIMARY, ErrorClass.IDENTITY_REFUSED, "AuthenticationError"))
    with pytest.raises(StoreError):
        process.prober.look(PRIMARY)
    assert len(process.waited) == 1


@pytest.mark.parametrize(
    ("took", "is_behind", "is_slow"),
    [
        ([0.15, 0.15], False, True),
        ([0.15, 0.02], False, False),  # it may have been this very moment
        ([0.15, 0.15], True, False),  # row 45: with the processor taken away everything looks slow
        ([0.15, silence()], False, False),  # that is another outage
    ],
    ids=["twice", "once", "a process that lags", "without an answer"],
)
def test_a_store_is_slow_that_two_probes_find_so(
    took: list[float | StoreError], is_behind: bool, is_slow: bool
) -> None:
    answers, failed = chain(took, repeat(took[-1])), list[StoreError]()

    def probe(*arguments: Any, timeout: float) -> float:
        answer = next(answers)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    process = LateProcess(silence(), is_late=is_behind)
    vars(process).update(probe=probe)
    process.health.failed = lambda error, way: failed.append(error)
    assert process.prober.confirm_slow(PRIMARY) is is_slow
    assert failed == [answer for answer in took if isinstance(answer, StoreError)]

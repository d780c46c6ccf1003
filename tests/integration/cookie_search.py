"""Overlapping requests of one browser, answered out of order: every way in which that can happen, on the real thing.

A request is sent with the cookie that the browser has at that moment. The server begins it (the view looks at the
session) and finishes it (the view writes, the session is saved), and its answer reaches the browser: four moments,
between any two of which the other requests' moments may lie. A request that has begun is a greenlet inside its view, so
that one thread plays them all, and the same schedule always does the same.

What must hold are the functions of :data:`PROPERTIES`, by the ids of docs/guarantees.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property
from typing import Any, NamedTuple

from flask import Flask, request, session
from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]
from redis import Redis
from werkzeug.test import EnvironBuilder

from flask_langpont_session.policy.ids import SIGNED_IN, digest_of
from flask_langpont_session.session.cookies import signer_for
from tests.support.auth_records import unpacked

LIFE_SECONDS = 10 * 86_400

CONFIG: dict[str, Any] = {
    "PERMANENT_SESSION_LIFETIME": LIFE_SECONDS,
    # A busy machine is no outage.
    **dict.fromkeys(("REDIS_TIMEOUT", "DATABASE_TIMEOUT", "REQUEST_BUDGET"), 30),
}
"""What the searched applications are made with."""

BEGIN, FINISH, SEND, RECEIVE = "begin", "finish", "send", "receive"

Step = tuple[str, int]
"""What happens, and to which request."""


# -- schedules ---------------------------------------------------------------------------------------------------------


class Execution(NamedTuple):
    """The part of a schedule that the server notices.

    :param served: the order in which requests are begun and finished.
    :param known: for each request, whose answers had reached the browser, in this order, when it was sent.
    """

    served: tuple[Step, ...]
    known: tuple[tuple[int, ...], ...]


Arrivals = tuple[int, ...]
"""An order in which the answers reach the browser."""


@cache
def schedules(requests: int) -> dict[Execution, tuple[Arrivals, ...]]:
    """Every way to overlap: what the server notices of it → the orders in which the answers may arrive.

    Schedules that differ only in the order of moments that cannot notice each other (sending one request and serving
    another) are one. A schedule with a moment at which the browser waits for no answer is two shorter ones.
    """
    found: dict[Execution, dict[Arrivals, None]] = {}
    for at_browser in filter(_overlap, _interleavings(requests, (SEND, RECEIVE))):
        arrivals = tuple(number for step, number in at_browser if step == RECEIVE)
        known = tuple(_received_before(at_browser, number) for number in range(requests))
        for served in _interleavings(requests, (BEGIN, FINISH)):
            if _is_possible(served, known):
                found.setdefault(Execution(served, known), {})[arrivals] = None
    return {execution: tuple(arrivals) for execution, arrivals in found.items()}


def _interleavings(requests: int, steps: tuple[str, str]) -> list[tuple[Step, ...]]:
    """The orders in which the requests' two steps can happen, each request's in its own order."""
    turns = sorted(set(itertools.permutations([number for number in range(requests) for _ in steps])))
    return [tuple((steps[turn[:at].count(n)], n) for at, n in enumerate(turn)) for turn in turns]


def _overlap(at_browser: Sequence[Step]) -> bool:
    """Return whether the browser waits for an answer from the first request to the last answer."""
    waiting = list(itertools.accumulate(1 if step == SEND else -1 for step, _ in at_browser))
    return all(waiting[:-1])


def _received_before(at_browser: Sequence[Step], number: int) -> tuple[int, ...]:
    return tuple(other for step, other in at_browser[: at_browser.index((SEND, number))] if step == RECEIVE)


def _is_possible(served: Sequence[Step], known: Sequence[Sequence[int]]) -> bool:
    """Return whether each request that was answered before another one was sent is finished before that one is
    begun."""
    return all(
        served.index((FINISH, earlier)) < served.index((BEGIN, number))
        for number, received_before in enumerate(known)
        for earlier in received_before
    )


# -- requests ----------------------------------------------------------------------------------------------------------


class Exchange:
    """One request and its answer.

    :param cookie: what it is sent with; None: without a cookie.
    :ivar shown: the users that the view saw, None for no user.
    :ivar token: the CSRF token that it gave out.
    :ivar answer: the cookie that the answer sets; "": it deletes it; None: it has none.
    :ivar began, finished: when that was, counted in steps of the server; -1: before all of them.
    """

    def __init__(self, name: str, app: Flask, cookie: str | None) -> None:
        self.name, self.kind = name, KINDS[name]
        self.cookie = cookie
        self.shown: list[str | None] = []
        self.token: str | None = None
        self.answer: str | None = None
        self.began = self.finished = -1
        self._app = app
        self._service = greenlet(self._serve)

    def __str__(self) -> str:
        return repr(self.name)

    @property
    def sid(self) -> str | None:
        """The id it came with."""
        return sid_of(self.cookie)

    @property
    def sends_its_own_id(self) -> bool:
        """Return whether the answer's cookie is of the id that the request came with."""
        return bool(self.answer) and sid_of(self.answer) == self.sid

    def begin(self, at: int) -> None:
        """Serve it as far as the pause in its view."""
        self.began = at
        self._service.switch()

    def finish(self, at: int) -> None:
        """Serve it to the end."""
        self.finished = at
        self._service.switch()
        assert self._service.dead

    def _serve(self) -> None:
        environ = {**_ENVIRON[self.name], "exchange": self}
        if self.cookie:
            environ["HTTP_COOKIE"] = f"session={self.cookie}"
        b"".join(self._app.wsgi_app(environ, self._start_response))

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert status.startswith("200"), status
        cookies = [value for name, value in headers if name == "Set-Cookie"]
        assert len(cookies) <= 1, cookies
        if cookies:
            self.answer = cookies[0].partition(";")[0].partition("=")[2]


View = Callable[[Exchange], object]


class Kind(NamedTuple):
    """A kind of request.

    :param first, then: what its view does before and after the pause.
    :param signs_in: the user that it signs in.
    :param signs_out: whether it ends the session of the user.
    :param replaces_id: whether it gives the same session another id.
    :param makes_permanent: whether it says that the browser is to keep the cookie.
    """

    first: View
    then: View
    signs_in: str | None = None
    signs_out: bool = False
    replaces_id: bool = False
    makes_permanent: bool = False

    @property
    def ends_its_id(self) -> bool:
        """Return whether the user's id that the request comes with is dead once the request was served."""
        return self.signs_in is not None or self.signs_out or self.replaces_id


def _nothing(exchange: Exchange) -> None:
    pass


def _look(exchange: Exchange) -> None:
    exchange.shown.append(session.get("_user_id"))


def _take_token(exchange: Exchange) -> None:
    exchange.token = session["csrf_token"]


def _set(**values: Any) -> View:
    return lambda exchange: session.update(values)


def _clear_and_set(**values: Any) -> View:
    def view(exchange: Exchange) -> None:
        session.clear()
        session.update(values)

    return view


def _make_permanent(exchange: Exchange) -> None:
    session.permanent = True


KINDS = {
    "static": Kind(_nothing, _nothing),
    "read": Kind(_look, _look),
    "write": Kind(_nothing, _set(theme="dark")),
    # Long work for the user that was signed in when it began; it writes to every category, auth included.
    "slow write": Kind(_look, _set(theme="slow", input_text="late", daily_limit=3)),
    "form": Kind(_take_token, _nothing),
    "keep": Kind(_look, _make_permanent, makes_permanent=True),
    "sign in": Kind(_look, _set(_user_id="7"), signs_in="7"),
    # The new id is there from the moment the user key is set, and stored when the request is finished.
    "sign in another": Kind(_set(_user_id="8"), _nothing, signs_in="8"),
    "clear and sign in": Kind(_nothing, _clear_and_set(_user_id="7"), signs_in="7"),
    "sign out": Kind(_look, lambda exchange: session.pop("_user_id", None), signs_out=True),
    "clear": Kind(_look, lambda exchange: session.clear(), signs_out=True),
    "clear unseen": Kind(_nothing, lambda exchange: session.clear(), signs_out=True),
    "regenerate": Kind(_look, lambda exchange: session.regenerate(), replaces_id=True),  # type: ignore[attr-defined]
}

SEARCHED = tuple(KINDS)
"""What is put together in every way."""

KINDS |= {
    "visit": Kind(_nothing, _set(lang="jp", input_text="mine")),
    "visit for long": Kind(_make_permanent, _set(lang="jp", input_text="mine")),
    "sign in for long": Kind(_make_permanent, _set(_user_id="7")),
    "look": Kind(_look, _take_token),
}
"""With what a case begins, and what looks at its end."""

_ENVIRON = {name: EnvironBuilder(f"/{name}", method="POST").get_environ() for name in KINDS}


def add_views(app: Flask) -> None:
    """The pages of all kinds."""

    @app.post("/<name>")
    def serve(name: str) -> str:
        exchange: Exchange = request.environ["exchange"]
        exchange.kind.first(exchange)
        getcurrent().parent.switch()
        exchange.kind.then(exchange)
        return name


def sid_of(cookie: str | None) -> str | None:
    """The id in a cookie."""
    return cookie.partition(".")[0] if cookie else None


def is_users(cookie: str | None) -> bool:
    """Return whether the cookie is of a user, alive or not."""
    return bool(cookie) and str(cookie).split(".")[1][0] == SIGNED_IN


def received(cookie: str | None, answers: Iterable[str | None]) -> str | None:
    """Return the cookie of a browser that had `cookie`, once these answers have arrived."""
    for answer in answers:
        cookie = cookie if answer is None else answer or None
    return cookie


# -- the world before --------------------------------------------------------------------------------------------------


class World:
    """The workers of one host, and the Redis they share. Requests go to the workers in turn."""

    def __init__(self, workers: Sequence[Flask], redis: Redis) -> None:
        self.workers = workers
        self.redis = redis
        for app in workers:
            add_views(app)

    def ask(self, name: str, cookie: str | None = None, *, worker: int = 0, at: int = -1) -> Exchange:
        """A request that nothing overlaps."""
        exchange = Exchange(name, self.workers[worker], cookie)
        exchange.begin(at)
        exchange.finish(at)
        return exchange

    def signed_long_ago(self, cookie: str | None) -> str:
        """The same cookie as it was sent half its life ago."""
        signer = signer_for(str(self.workers[0].secret_key), None)
        now = signer.load([cookie or ""])
        assert now is not None
        return signer.dump(replace(now, issued_at=now.issued_at - LIFE_SECONDS // 2))


class Beginning(NamedTuple):
    """The state of the browser before the first request.

    :param user: the one that it signs in.
    :param is_dead: its session was ended from elsewhere.
    """

    cookie: str | None = None
    user: str | None = None
    is_dead: bool = False


def _no_cookie(world: World) -> Beginning:
    return Beginning()


def _visitor(world: World) -> Beginning:
    return Beginning(world.ask("visit").answer)


def _user(world: World) -> Beginning:
    return Beginning(world.ask("sign in").answer, user="7")


def _dead(world: World) -> Beginning:
    cookie = world.ask("sign in").answer
    world.ask("sign out", cookie)
    return Beginning(cookie, is_dead=True)


def _old_permanent_visitor(world: World) -> Beginning:
    return Beginning(world.signed_long_ago(world.ask("visit for long").answer))


def _old_permanent_user(world: World) -> Beginning:
    return Beginning(world.signed_long_ago(world.ask("sign in for long").answer), user="7")


BEGINNINGS: dict[str, Callable[[World], Beginning]] = {
    "no cookie": _no_cookie,
    "visitor": _visitor,
    "user": _user,
    "signed out elsewhere": _dead,
    "old permanent visitor": _old_permanent_visitor,
    "old permanent user": _old_permanent_user,
}


# -- one execution -----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One thing to try: what there is to begin with, which requests, and how they overlap."""

    beginning: str
    names: tuple[str, ...]
    execution: Execution

    def __str__(self) -> str:
        requests = ", ".join(f"{number} {name!r}" for number, name in enumerate(self.names))
        served = ", ".join(f"{step} {number}" for step, number in self.execution.served)
        sent = [f"; {n} is sent when {', '.join(map(str, k))} is answered"
                for n, k in enumerate(self.execution.known) if k]  # fmt: skip
        return f"{self.beginning}; {requests}; {served}{''.join(sent)}"


def cases(beginnings: Iterable[str], groups: Iterable[tuple[str, ...]]) -> Iterator[Case]:
    """Every way in which each group of requests can overlap, from each beginning."""
    for beginning, names in itertools.product(beginnings, groups):
        for execution in schedules(len(names)):
            yield Case(beginning, names, execution)


class Run:
    """One execution of a case, and all its exchanges."""

    def __init__(self, world: World, case: Case) -> None:
        self.world = world
        self.case = case
        self.beginning = BEGINNINGS[case.beginning](world)
        self.exchanges = self._play()

    def _play(self) -> list[Exchange]:
        exchanges: dict[int, Exchange] = {}
        workers = self.world.workers
        for at, (step, number) in enumerate(self.case.execution.served):
            if step == FINISH:
                exchanges[number].finish(at)
                continue
            answers = [exchanges[other].answer for other in self.case.execution.known[number]]
            cookie = received(self.beginning.cookie, answers)
            exchanges[number] = Exchange(self.case.names[number], workers[number % len(workers)], cookie)
            exchanges[number].begin(at)
        return [exchanges[number] for number in range(len(exchanges))]

    @cached_property
    def by_finish(self) -> list[Exchange]:
        """Return the exchanges in the order in which they were finished."""
        return sorted(self.exchanges, key=lambda exchange: exchange.finished)

    @cached_property
    def died(self) -> dict[str | None, int]:
        """Id of a user that is dead by now → when that was. A sign-out ends the session under any id it goes by."""
        died = {sid_of(self.beginning.cookie): -1} if self.beginning.is_dead else {}
        for exchange in self.by_finish:
            if exchange.kind.ends_its_id and is_users(exchange.cookie):
                died.setdefault(exchange.sid, exchange.finished)
                if exchange.kind.signs_out:
                    for heir in self.heirs(exchange):
                        died.setdefault(heir, exchange.finished)
        return died

    @cached_property
    def may_have_died(self) -> set[str | None]:
        """Ids under which a session goes on to which a user signed in with the id that it had before.

        It is good enough if the session ends, and if it stays.
        """
        ends = [exchange for exchange in self.exchanges if exchange.kind.signs_in]
        return {heir for exchange in ends for heir in self.heirs(exchange)} - self.died.keys()

    def heirs(self, exchange: Exchange) -> Iterator[str | None]:
        """The ids that the session which a request came with had got when it was finished."""
        sid = exchange.sid
        for earlier in self.by_finish:
            replaced = earlier.kind.replaces_id and is_users(earlier.answer) and not earlier.sends_its_own_id
            if replaced and earlier.sid == sid and earlier.finished < exchange.finished:
                sid = sid_of(earlier.answer)
                yield sid

    def was_dead(self, sid: str | None, at: int) -> bool:
        """Return whether the session of a user had ended before that moment."""
        return sid in self.died and self.died[sid] < at

    @cached_property
    def owners(self) -> dict[str | None, str | None]:
        """Id of a user → whom it was given to."""
        owners = {sid_of(self.beginning.cookie): self.beginning.user}
        for exchange in self.by_finish:
            if exchange.kind.signs_in:
                owners[sid_of(exchange.answer)] = exchange.kind.signs_in
            elif exchange.kind.replaces_id and exchange.answer:
                owners[sid_of(exchange.answer)] = owners.get(exchange.sid)
        return owners

    @cached_property
    def looks(self) -> dict[str, list[Exchange]]:
        """Every cookie that the browser may have by now → what each worker answers to it."""
        cookies = dict.fromkeys(filter(None, (self.beginning.cookie, *(e.answer for e in self.exchanges))))
        at, workers = len(self.case.execution.served), range(len(self.world.workers))
        return {
            cookie: [self.world.ask("look", cookie, worker=worker, at=at) for worker in workers] for cookie in cookies
        }

    @property
    def everything(self) -> Iterator[Exchange]:
        """The requests of the case, and those that looked afterwards."""
        return itertools.chain(self.exchanges, *self.looks.values())

    def records(self, sid: str) -> dict[str, str | None]:
        """Return the records under an id, without the shadow: category → whether the record is marked as live, if at
        all."""
        keys = [f"session:{category}:{{{digest_of(sid)}}}" for category in ("auth", "translation", "ui", "data")]
        with self.world.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.exists(key)
                pipe.hget(key, "@m")
            replies = pipe.execute()
        found = zip(keys, replies[::2], replies[1::2], strict=True)
        return {key.split(":")[1]: unpacked({"@m": meta or ""}).get("@live") for key, exists, meta in found if exists}


# -- what must hold ----------------------------------------------------------------------------------------------------

Broken = Iterator[str]
"""What does not hold, in words."""


def c1_a_sign_in_signs_in(run: Run) -> Broken:
    """C1: under a new id, whatever has become of the id that the request came with."""
    for exchange in run.exchanges:
        if exchange.kind.signs_in and (not is_users(exchange.answer) or exchange.sends_its_own_id):
            yield f"the answer to {exchange} has the cookie {exchange.answer!r}"


def c2_an_unchanged_id_is_not_sent_again(run: Run) -> Broken:
    """C2: but for a change of its permanence, or a visitor's permanent cookie that is due, and never for a dead one."""
    for exchange in run.everything:
        is_renewal = exchange.cookie == run.beginning.cookie and run.case.beginning == "old permanent visitor"
        allowed = is_renewal or exchange.kind.makes_permanent
        if exchange.sends_its_own_id and (not allowed or run.was_dead(exchange.sid, exchange.finished)):
            yield f"the answer to {exchange} sends the id that it came with"


def c3_a_dead_id_is_not_replaced(run: Run) -> Broken:
    """C3: nor is its cookie deleted, by any request but a sign-in."""
    for exchange in run.everything:
        is_late = run.was_dead(exchange.sid, exchange.began) and not exchange.kind.signs_in
        if is_late and not exchange.kind.signs_out and exchange.answer is not None:
            yield f"{exchange} came with a dead id, and its answer has the cookie {exchange.answer!r}"


def c4_a_sign_out_takes_its_own_cookie_away(run: Run) -> Broken:
    """C4: it deletes the cookie of the session it ends, or makes it a visitor's. That of a dead session it leaves."""
    for exchange in run.exchanges:
        if not exchange.kind.signs_out or not is_users(exchange.cookie):
            continue
        was_dead = run.was_dead(exchange.sid, exchange.began)
        ended_it = not run.was_dead(exchange.sid, exchange.finished)
        if (was_dead and exchange.answer is not None) or (ended_it and exchange.answer is None):
            yield f"{exchange} came with a {'dead' if was_dead else 'living'} id: its answer has {exchange.answer!r}"


def i5_signed_out_is_signed_out(run: Run) -> Broken:
    """I5: no request that is begun after a session's end shows its user, on any worker."""
    for exchange in run.everything:
        if run.was_dead(exchange.sid, exchange.began) and any(exchange.shown):
            yield f"{exchange} came with a dead id, and shows {exchange.shown}"


def i6_no_living_session_is_lost(run: Run) -> Broken:
    """I6: a session that was not ended shows its user on every worker."""
    for cookie, looks in run.looks.items():
        sid = sid_of(cookie)
        has_ended = sid in run.died or sid in run.may_have_died
        if is_users(cookie) and not has_ended and any(look.shown != [run.owners.get(sid)] for look in looks):
            yield f"{run.owners.get(sid)} is signed in; the workers show {[look.shown for look in looks]}"


def i7_nothing_is_left_of_a_dead_session(run: Run) -> Broken:
    """I7: Redis has a tombstone and nothing else under a dead id, whatever its late requests wrote."""
    for sid in run.died:
        if sid and (found := run.records(sid)) != {"auth": "0"}:
            yield f"records of a dead session: {found}"


def i8_only_a_sign_in_makes_a_user(run: Run) -> Broken:
    """I8: a user's id is given out for a sign-in, or in place of another one that lives; and it shows no other user."""
    for exchange in run.everything:
        if not set(exchange.shown) <= {None, run.owners.get(exchange.sid)}:
            yield f"{exchange} shows {exchange.shown}"
        is_given = is_users(exchange.answer) and not exchange.sends_its_own_id and not exchange.kind.signs_in
        if is_given and (not exchange.kind.replaces_id or run.was_dead(exchange.sid, exchange.finished)):
            yield f"the answer to {exchange} makes the browser a user's"


def i8_a_form_is_valid_while_its_session_lives(run: Run) -> Broken:
    """I8: on every worker, in the session that the browser has by the answer. A living one's forms die with it."""
    for exchange in run.exchanges:
        cookie = exchange.answer or exchange.cookie
        if exchange.token is None or cookie is None or sid_of(cookie) in run.may_have_died:
            continue
        died_since = sid_of(cookie) in run.died and not run.was_dead(sid_of(cookie), exchange.began)
        if any((look.token == exchange.token) is died_since for look in run.looks[cookie]):
            yield f"the token of {exchange} is {'still' if died_since else 'not'} valid"
    for looks in run.looks.values():
        if len({look.token for look in looks}) != 1:
            yield "what one worker gives out is not valid on another"


def i15_an_older_answer_changes_no_newer_cookie(run: Run) -> Broken:
    """I15: the browser ends with what the last answer to an explicit change of its id left there.

    Beside those only the answers to requests without an id may change the cookie, to a change of the permanent flag,
    and the renewal of a visitor's permanent cookie, which comes once in a tenth of its life.
    """
    for arrivals in schedules(len(run.exchanges))[run.case.execution]:
        answers = [run.exchanges[number] for number in arrivals]
        ends = received(run.beginning.cookie, [e.answer for e in answers])
        expected = received(run.beginning.cookie, [e.answer for e in answers if _may_change_the_cookie(run, e)])
        if sid_of(ends) != sid_of(expected):
            yield f"with the answers in the order {', '.join(map(str, answers))} the browser has another cookie"


def _may_change_the_cookie(run: Run, exchange: Exchange) -> bool:
    kind = exchange.kind
    if exchange.cookie is None or kind.signs_in or kind.makes_permanent:
        return True
    # A browser that came with an id that was dead already can change it only by signing in.
    changes_id = (kind.signs_out or kind.replaces_id) and not run.was_dead(exchange.sid, exchange.began)
    return changes_id or (exchange.sends_its_own_id and not is_users(exchange.cookie))


PROPERTIES: dict[str, Callable[[Run], Broken]] = {
    "C1": c1_a_sign_in_signs_in,
    "C2": c2_an_unchanged_id_is_not_sent_again,
    "C3": c3_a_dead_id_is_not_replaced,
    "C4": c4_a_sign_out_takes_its_own_cookie_away,
    "I5": i5_signed_out_is_signed_out,
    "I6": i6_no_living_session_is_lost,
    "I7": i7_nothing_is_left_of_a_dead_session,
    "I8-identity": i8_only_a_sign_in_makes_a_user,
    "I8-form": i8_a_form_is_valid_while_its_session_lives,
    "I15": i15_an_older_answer_changes_no_newer_cookie,
}


class Violation(NamedTuple):
    """A case after which a property does not hold."""

    property: str
    what: str
    case: Case

    def __str__(self) -> str:
        return f"{self.property}: {self.what}\n    {self.case}"


def search(world: World, cases: Iterable[Case]) -> Iterator[Violation]:
    """Try every case; what is found broken, in the order of finding."""
    for case in cases:
        run = Run(world, case)
        for name, find in PROPERTIES.items():
            for what in find(run):
                yield Violation(name, what, case)

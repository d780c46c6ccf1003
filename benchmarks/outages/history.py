"""The history of browsers' answers, and the figures that follow from it. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

READ, SIGN_OUT, OLD_COOKIE = "read", "sign-out", "old cookie"

SLOW = 1.0
"""Seconds. An answer that takes longer counts as slow, because its user notices the delay."""


@dataclass(frozen=True, slots=True)
class Event:
    """One request and its answer.

    :param browser: its name; each is signed in when the history begins.
    :param what: :data:`READ`, a list to which something was added, :data:`SIGN_OUT`, or :data:`OLD_COOKIE`: a read by
        the cookie of the time before the sign-out, as a second tab or a thief sends it.
    :param status: of HTTP; 0: no answer.
    :param began: seconds; `ended` likewise.
    :param user: whom the answer shows as signed in.
    :param number: what was to be written.
    :param lists: what the answer shows of the lists.
    """

    browser: str
    what: str
    status: int
    began: float
    ended: float
    user: str | None = None
    number: int | None = None
    lists: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether the answer is a promise."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Figures:
    """The effects of an outage on the users of one system.

    :param requests: since it began.
    :param errors: of those: answered 5xx. `unanswered`: not at all.
    :param slowest: seconds.
    :param logged_out: users who were shown as signed out and had not signed out, up to the end. `for_a_moment`: users
        to whom that happened, and who were back at the end.
    :param written: list → numbers whose writing was acknowledged. `lost`: of those, not there at the end.
    :param signed_out: users whose sign-out was acknowledged. `resurrected`: of those, shown as signed in afterwards.
    :param not_signed_out: users who tried to sign out, got no success, and are signed in at the end.
    :param recovery: seconds from the end of the outage until nothing was wrong any more; None: something still was.
    """

    requests: int
    errors: int
    unanswered: int
    slowest: float
    logged_out: int
    for_a_moment: int
    written: dict[str, int]
    lost: dict[str, int]
    signed_out: int
    resurrected: int
    not_signed_out: int
    recovery: float | None


def figures(events: Iterable[Event], *, began: float, healed: float, ended: float, quiet: float) -> Figures:
    """Count the figures of a history.

    :param began: when the outage began; what came before it is not counted, but what was promised then is.
    :param quiet: seconds at the end without anything wrong, for all to count as well.
    """
    by_user: dict[str, list[Event]] = {}
    everything = sorted(events, key=lambda event: event.began)
    for event in everything:
        by_user.setdefault(event.browser, []).append(event)
    during = [event for event in everything if event.ended > began]
    outs = [_logged_out(history) for history in by_user.values()]
    ends = [_sign_out(history) for history in by_user.values()]
    written, lost = _writes(by_user.values())
    return Figures(
        requests=len(during),
        errors=sum(event.status >= 500 for event in during),
        unanswered=sum(event.status == 0 for event in during),
        slowest=max((event.ended - event.began for event in during), default=0.0),
        logged_out=outs.count("for good"),
        for_a_moment=outs.count("for a moment"),
        written=written,
        lost=lost,
        signed_out=sum(end in ("kept", "resurrected") for end in ends),
        resurrected=ends.count("resurrected"),
        not_signed_out=ends.count("refused"),
        recovery=_recovery(by_user.values(), healed, ended, quiet),
    )


def _stay(history: Sequence[Event]) -> list[Event]:
    """Return the answers to a user before the attempt to sign out: until then they have to show the user as signed
    in."""
    leaves = min((event.began for event in history if event.what == SIGN_OUT), default=float("inf"))
    return [event for event in history if event.ended <= leaves]


def _logged_out(history: Sequence[Event]) -> str | None:
    shown = [event.user for event in _stay(history) if event.ok]
    if None not in shown:
        return None
    return "for good" if shown[-1] is None else "for a moment"


def _writes(histories: Iterable[Sequence[Event]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return acknowledged and lost numbers, by list. Users who signed out are left out: it is not known what they
    have."""
    written: dict[str, int] = {}
    lost: dict[str, int] = {}
    for history in histories:
        if any(event.what == SIGN_OUT for event in history):
            continue
        last = next((event for event in reversed(history) if event.ok and event.what == READ), None)
        for event in history:
            if event.ok and event.number is not None:
                there = last is not None and event.number in last.lists.get(event.what, ())
                written[event.what] = written.get(event.what, 0) + 1
                lost[event.what] = lost.get(event.what, 0) + (not there)
    return written, lost


def _sign_out(history: Sequence[Event]) -> str | None:
    """Return ``kept``, ``resurrected``, ``refused`` (no success, and still signed in) or ``over`` (no success, and
    gone)."""
    tries = [event for event in history if event.what == SIGN_OUT]
    if not tries:
        return None
    done = next((event.ended for event in tries if event.ok), None)
    if done is None:
        last = next((event for event in reversed(history) if event.ok), None)
        return "refused" if last is not None and last.user is not None else "over"
    later = [event for event in history if event.what == OLD_COOKIE and event.began > done]
    return "resurrected" if any(event.user is not None for event in later) else "kept"


def _recovery(histories: Iterable[Sequence[Event]], healed: float, ended: float, quiet: float) -> float | None:
    wrong = healed
    for history in histories:
        staying = set(map(id, _stay(history)))
        for event in history:
            shown_out = id(event) in staying and event.ok and event.user is None
            failed = not event.ok or event.ended - event.began > SLOW
            if event.ended > healed and (failed or shown_out):
                wrong = max(wrong, event.ended)
    return None if ended - wrong < quiet else wrong - healed

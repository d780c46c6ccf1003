"""The id of a request's session: the table of transitions, alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

import pytest

from flask_langpont_session.policy.ids import SessionId
from flask_langpont_session.policy.rows import AuthRow
from flask_langpont_session.session.identity import TRANSITIONS, Event, Identity, IdState, drawing

CAME = SessionId("came", "u", False, 1, b"secret")
NEW, OTHER = SessionId("new", "u", False, 2, b"secret"), SessionId("other", "a", False, 3, b"secret")
ROW = AuthRow("came", "7", 1, True, {}, 0, 1, 2, 3, 1)
ARCHITECTURE = Path(__file__).parents[3] / "docs" / "explanation" / "architecture.md"


@pytest.fixture
def identity() -> Identity:
    return Identity(CAME)


def test_a_signed_out_session_is_never_kept_again_but_by_a_save() -> None:
    """The id that came does not come back to life in this request, whatever else happens."""
    out = {IdState.ENDED, IdState.REPLACED}
    back = {event for (before, event), after in TRANSITIONS.items() if before in out and after not in out}
    assert back == {Event.MOVE}


HAPPEN: Mapping[Event, Callable[[Identity], None]] = {
    Event.MINT: lambda identity: identity.mint(NEW),
    Event.RENAME: lambda identity: identity.rename(ROW),
    Event.END: Identity.end_elsewhere,
    Event.DROP: Identity.drop,
    Event.SAVE: Identity.mark_saved,
    Event.MOVE: Identity.move,
}


@pytest.mark.parametrize(("before", "event"), list(product(IdState, Event)))
def test_what_is_not_in_the_table_is_refused(identity: Identity, before: IdState, event: Event) -> None:
    """A pair that cannot happen is a bug, and not a session under a wrong id."""
    identity.state = before
    if (before, event) in TRANSITIONS:
        HAPPEN[event](identity)
        assert identity.state is TRANSITIONS[before, event]
    else:
        with pytest.raises(KeyError):
            HAPPEN[event](identity)


Call = Callable[[Identity], object]


def restart(*carries: str, wipes: bool = False) -> Call:
    return lambda identity: identity.restart(carries, wipes=wipes)


def mint(sid: SessionId) -> Call:
    return lambda identity: identity.mint(sid)


def end(is_over: bool) -> Call:
    return lambda identity: identity.end(is_over=is_over)


SIGN_IN: list[Call] = [restart("ui"), mint(NEW)]
RENEWAL: list[Call] = [restart(), mint(NEW), lambda identity: identity.rename(ROW)]
SIGN_OUT: list[Call] = [end(is_over=False), restart(wipes=True)]
SAVED: list[Call] = [Identity.mark_saved, Identity.move]

STORIES: dict[str, tuple[list[Call], dict[str, object]]] = {
    "a sign-in is another id, whose data begins anew": (
        SIGN_IN, {"state": IdState.MINTED, "target": NEW, "carries": ("ui",), "signs_in": True, "must_end": False}),
    "after the save it is as if the request had come with it": (
        [*SIGN_IN, *SAVED],
        {"state": IdState.KEPT, "target": NEW, "came_with": CAME, "carries": (), "is_restarted": False}),
    "a refused sign-in goes on with what came": (
        [*SIGN_IN, Identity.drop_all], {"state": IdState.KEPT, "target": CAME, "carries": (), "is_restarted": False}),
    "the row goes along to a new id of the same session": (RENEWAL, {"state": IdState.RENAMED, "renamed_row": ROW}),
    "until it is saved": (
        [*RENEWAL, Identity.mark_saved], {"state": IdState.MINTED, "renamed_row": None, "target": NEW}),
    "a sign-out leaves no id": (
        SIGN_OUT, {"state": IdState.ENDED, "target": None, "must_end": True, "must_wipe": True}),
    "after the save there is none": (
        [*SIGN_OUT, *SAVED], {"state": IdState.KEPT, "target": None, "was_signed_out": True, "must_end": False}),
    "a sign-out that keeps data leaves an anonymous id": (
        [end(is_over=False), restart(), mint(OTHER)],
        {"state": IdState.REPLACED, "target": OTHER, "must_end": True}),
    "a refused sign-in after a sign-out leaves it signed out": (
        [*SIGN_OUT, restart(), mint(NEW), Identity.drop_all], {"state": IdState.ENDED, "target": None}),
    "a session that is over already keeps its id, with an empty shadow, and is ended by the save": (
        [end(is_over=True), restart(wipes=True)],
        {"state": IdState.KEPT, "target": CAME, "must_end": True, "must_wipe": True}),
    "a session that ended meanwhile is what came, also when it was stored under another id before": (
        [restart(), mint(NEW), *SAVED, restart(), mint(OTHER), Identity.go_back],
        {"state": IdState.KEPT, "target": NEW, "has_moved": False, "came_with": None}),
    "an old session that was taken over came with its new id": (
        [lambda identity: identity.stand_in(NEW)],
        {"state": IdState.KEPT, "target": NEW, "has_moved": True, "came_with": NEW}),
}  # fmt: skip


@pytest.mark.parametrize(("calls", "facts"), STORIES.values(), ids=STORIES)
def test_the_id_after_a_story(identity: Identity, calls: list[Call], facts: dict[str, object]) -> None:
    for call in calls:
        call(identity)
    assert {name: getattr(identity, name) for name in facts} == facts


def test_the_docs_draw_the_table() -> None:
    """The diagram is made from it: ``python -c "from …session.identity import drawing; print(drawing())"``."""
    assert drawing() in ARCHITECTURE.read_text()

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


def test_a_sign_in(identity: Identity) -> None:
    """Another id, whose data begins anew; after the save it is as if the request had come with it."""
    identity.restart(("ui",), wipes=False)
    identity.mint(NEW)
    assert (identity.state, identity.target, identity.carries) == (IdState.MINTED, NEW, ("ui",))
    assert identity.signs_in
    assert not identity.must_end
    identity.mark_saved()
    identity.move()
    assert (identity.state, identity.target, identity.came_with, identity.carries) == (IdState.KEPT, NEW, CAME, ())
    assert not identity.is_restarted


def test_a_new_id_for_the_same_session(identity: Identity) -> None:
    """The row goes along, until it is saved."""
    identity.restart((), wipes=False)
    identity.mint(NEW)
    identity.rename(ROW)
    assert (identity.state, identity.renamed_row) == (IdState.RENAMED, ROW)
    identity.mark_saved()
    assert (identity.state, identity.renamed_row, identity.target) == (IdState.MINTED, None, NEW)


def test_a_sign_out_leaves_no_id(identity: Identity) -> None:
    identity.end(is_over=False)
    identity.restart((), wipes=True)
    assert (identity.state, identity.target) == (IdState.ENDED, None)
    assert (identity.must_end, identity.must_wipe) == (True, True)
    identity.mark_saved()
    identity.move()
    assert (identity.state, identity.target, identity.was_signed_out) == (IdState.KEPT, None, True)
    assert not identity.must_end


def test_a_sign_out_that_keeps_data_leaves_an_anonymous_id(identity: Identity) -> None:
    identity.end(is_over=False)
    identity.restart((), wipes=False)
    identity.mint(OTHER)
    assert (identity.state, identity.target, identity.must_end) == (IdState.REPLACED, OTHER, True)


def test_a_sign_in_after_a_sign_out_that_is_refused_leaves_it_signed_out(identity: Identity) -> None:
    """Nothing is saved, but the id that came does not come back in this request."""
    identity.end(is_over=False)
    identity.restart((), wipes=True)
    identity.restart((), wipes=False)
    identity.mint(NEW)
    identity.drop_all()
    assert (identity.state, identity.target) == (IdState.ENDED, None)


def test_a_refused_sign_in_goes_on_with_what_came(identity: Identity) -> None:
    identity.restart(("ui",), wipes=False)
    identity.mint(NEW)
    identity.drop_all()
    assert (identity.state, identity.target, identity.carries) == (IdState.KEPT, CAME, ())
    assert not identity.is_restarted


def test_a_session_that_is_over_already_keeps_its_id(identity: Identity) -> None:
    """Its anonymous shadow is emptied; the save ends the session all the same."""
    identity.end(is_over=True)
    identity.restart((), wipes=True)
    assert (identity.state, identity.target, identity.must_end, identity.must_wipe) == (IdState.KEPT, CAME, True, True)


def test_a_session_that_ended_meanwhile_is_what_came(identity: Identity) -> None:
    """The cookie is the one that came, also when the session was stored under another id before."""
    identity.restart((), wipes=False)
    identity.mint(NEW)
    identity.mark_saved()
    identity.move()
    identity.restart((), wipes=False)
    identity.mint(OTHER)
    identity.go_back()
    assert (identity.state, identity.target) == (IdState.KEPT, NEW)
    assert (identity.has_moved, identity.came_with) == (False, None)


def test_an_old_session_that_was_taken_over_came_with_its_new_id(identity: Identity) -> None:
    identity.stand_in(NEW)
    assert (identity.state, identity.target, identity.has_moved, identity.came_with) == (IdState.KEPT, NEW, True, NEW)


def test_the_docs_draw_the_table() -> None:
    """The diagram is made from it: ``python -c "from …session.identity import drawing; print(drawing())"``."""
    assert drawing() in ARCHITECTURE.read_text()

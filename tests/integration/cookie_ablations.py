"""The rules of cookies, each with what stands in its place when it is taken away."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from flask_langpont_session import LangPontSession
from flask_langpont_session.policy.ids import ANONYMOUS, SessionId
from flask_langpont_session.policy.levels import Kept
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.rows import EndedSession
from flask_langpont_session.request.reads import Reads
from flask_langpont_session.request.revocations import Revocations
from flask_langpont_session.session.auth_keys import AuthKeys, restart
from flask_langpont_session.session.identity import IdState
from flask_langpont_session.session.saving import Saving
from flask_langpont_session.session.special_keys import SpecialKeys
from flask_langpont_session.stores.redis.store import RedisStore
from flask_langpont_session.stores.sql.database import Database

Function = Callable[..., Any]


def the_dead_cannot_sign_in(sign_in: Function) -> Function:
    """Take C1 away: setting a user key is plain data for a request with a dead id."""
    return lambda self, *user: None if self._work.load().shadow else sign_in(self, *user)


def the_cookie_is_sent_as_flask_does(is_due: Function) -> Function:
    """Take C2 away: send the cookie with every answer to a request that changed the session."""
    return lambda self, app, work, target: work.is_modified


def a_write_leaves_a_dead_id(plan: Function) -> Function:
    """Take C3 away: what a request with a dead id writes begins a new session."""

    def plan_for_a_new_id(self: Any, *changes: Any) -> Any:
        work = self._work
        if work.loaded and work.loaded.shadow and work.now.assigned:
            restart(work, ANONYMOUS, (), dict(work.now.assigned))
            changes = ()
        return plan(self, *changes)

    return plan_for_a_new_id


def a_token_leaves_a_dead_id(csrf_token: Function) -> Function:
    """Take C3 away: a form of a request with a dead id begins a new session."""

    def token_of_a_new_id(self: Any, key: str) -> Any:
        if self._work.load().shadow:
            restart(self._work, ANONYMOUS, ())
        return csrf_token(self, key)

    return token_of_a_new_id


def a_sign_out_always_deletes_the_cookie(end: Function) -> Function:
    """Take C4 away: a sign-out deletes the cookie also when another request has ended the session before."""

    def end_and_delete(self: Any, *carried: Any) -> None:
        end(self, *carried)
        self._work.state = IdState.REPLACED if self._work.minted else IdState.ENDED

    return end_and_delete


def nothing_is_revoked(revoke: Function) -> Function:
    """A sign-out takes away the cookie, and no more."""
    return lambda self, digests, scope, cause, **_: Kept.DATABASE


def only_the_id_that_came_is_revoked(revoke: Function) -> Function:
    """A session that another request has given another id goes on under that."""

    def kill(self: Any, digests: list[str], timeout: float | None = None, **_: Any) -> list[EndedSession]:
        return [EndedSession(digest, self.kill(digest, timeout) or 0, lived=True) for digest in digests]

    return kill


def writes_are_not_guarded(write: Function) -> Function:
    """Store what a request writes, whatever became of the session."""
    return lambda self, ref, changes, *, guard, **how: write(self, ref, changes, guard="free", **how)


def a_user_key_is_plain_data(is_to_be_stored: Function) -> Function:
    """Setting it gives no new id, and it is not looked at when it is saved or read either."""

    def store(self: Any, key: str, value: Any, encoded: bytes) -> bool:
        vars(self._work.repository.settings)["is_identity"] = lambda key: False
        return True

    return store


def a_token_outlives_its_session(csrf_token: Function) -> Function:
    """The anonymous shadow has the token of the session that died."""
    return lambda self, *, shadow=False: csrf_token(self)


def some_reads_find_it_dead(load: Function) -> Function:
    """Every second read takes a session that lives for dead."""
    turn = itertools.cycle((False, True))
    return lambda self, *what, **how: Loaded(Verdict.DEAD) if next(turn) else load(self, *what, **how)


class Ablation(NamedTuple):
    """One rule taken away.

    :param breaks: properties that do not hold any more.
    :param of, function: what is replaced,
    :param without: by what this makes of it.
    """

    breaks: set[str]
    of: type
    function: str
    without: Callable[[Function], Function]


ABLATIONS = {
    "C1": Ablation({"C1"}, AuthKeys, "_begin_sign_in", the_dead_cannot_sign_in),
    "C2": Ablation({"C2", "I15"}, LangPontSession, "_is_due", the_cookie_is_sent_as_flask_does),
    "C3-write": Ablation({"C3", "I15"}, Saving, "plan", a_write_leaves_a_dead_id),
    "C3-token": Ablation({"C3", "I15"}, SpecialKeys, "csrf_token", a_token_leaves_a_dead_id),
    "C4": Ablation({"C4", "I15"}, AuthKeys, "end", a_sign_out_always_deletes_the_cookie),
    "I5": Ablation({"I5", "I7"}, Revocations, "end", nothing_is_revoked),
    "I5-successor": Ablation({"I5", "I7"}, Database, "revoke_many", only_the_id_that_came_is_revoked),
    "I6": Ablation({"I6"}, Reads, "load", some_reads_find_it_dead),
    "I7": Ablation({"I7"}, RedisStore, "write", writes_are_not_guarded),
    "I8-identity": Ablation({"I8-identity"}, AuthKeys, "is_to_be_stored", a_user_key_is_plain_data),
    "I8-form": Ablation({"I8-form"}, SessionId, "csrf_token", a_token_outlives_its_session),
}

"""Writing the rows of the database: sign-ins, new ids, changes of auth. Rights that it does not take are refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .. import events
from ..config.settings import Settings
from ..exceptions import GrantRefused, SessionLimitReached, UnreadableValue
from ..policy.categories import AUTHENTICATED_AT
from ..policy.changes import Fields, apply_change, difference
from ..policy.copies import RecordRef
from ..policy.errors import ErrorClass, StoreError
from ..policy.health import DATABASE, WRITE
from ..policy.ids import SIGNED_IN
from ..policy.plans import Note, Plan
from ..policy.privileges import begins_to_live_shorter
from ..policy.rows import AuthRow, Created, Limit, RowState
from ..policy.serializer import decode
from ..policy.users import is_only_remembered, noted, user_of
from ..support.logs import fields
from .parts import Part, Parts
from .scope import REVOKE, SAVE_ROW, SIGN_IN, TAKE_DISPLACED, VERIFY, RequestScope
from .verifier import Later

log = logging.getLogger(__name__)


class RowWrites(Part):
    """Makes and changes the rows of signed-in sessions.

    :param make_refusal: makes the answer to a grant that the database does not decide about.
    """

    def __init__(self, parts: Parts, make_refusal: Callable[[str], GrantRefused]) -> None:
        super().__init__(parts)
        self._make_refusal = make_refusal

    def new_row(self, plan: Plan, digest: str, payload: Fields, old: str | None, scope: RequestScope) -> Created | None:
        """Write the row of a minted id; the row before ends in the same transaction.

        :return: None: this was a change of id, and the session has ended meanwhile.
        :raises StoreError: the database did not answer.
        :raises SessionLimitReached: the user has as many sessions as is allowed, and none ends for another one.
        :raises GrantRefused: the application did not say how many are allowed.
        """
        if plan.renames:
            change = difference(plan.renames.payload, payload)
            change.deletes.discard(AUTHENTICATED_AT)  # what no view sees is none of what it takes along
            row = self.compete(
                plan.renames,
                lambda row: self._renamed(row, digest, apply_change(row.payload, change), plan, scope),
                scope,
            )
            return None if row is None else Created(row)
        user_id = self._user_of(payload, plan.user)
        if is_only_remembered(payload):
            payload = noted(payload, 0)  # else its beginning would count as soon as it is said to be fresh
        try:
            limit = limit_of(user_id, self._settings)
        except UnknownLimit:
            raise self.refused() from None
        begun = self._begun(plan, payload, user_id)
        create, sign_in = self._database.create, SIGN_IN
        created = scope.require(sign_in, create, digest, kill=old, limit=limit, **begun)
        if created is None:
            raise SessionLimitReached
        return created

    def take_displaced(self, digest: str, scope: RequestScope) -> bool:
        """Return whether a session has ended for a sign-in of its user, or by its user on another device. True only
        once; False also where the database does not answer."""
        return bool(scope.attempt(TAKE_DISPLACED, self._database.displaced.take, digest))

    def was_displaced(self, digest: str, scope: RequestScope) -> bool | None:
        """Return the same as :meth:`.Displaced.was`. None: the database does not answer."""
        return scope.attempt(VERIFY, self._database.displaced.was, digest)

    def _renamed(self, row: AuthRow, digest: str, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        if plan.confirms:
            payload = noted(payload, row.read_at)
        return scope.require(
            SIGN_IN,
            self._database.regenerate,
            row.digest,
            successor=digest,
            seen=row.version,
            payload=payload,
            **self._new_life(payload, plan),
        )

    @staticmethod
    def _begun(plan: Plan, payload: Fields, user_id: str | None) -> dict[str, Any]:
        """Return the columns of a session that begins."""
        life = plan.life.of(payload)
        lives = {"idle_ms": life.idle_ms, "absolute_ms": life.absolute_ms}
        return {"user_id": user_id, "payload": payload, "device": plan.device, **lives}

    @staticmethod
    def _new_life(payload: Fields, plan: Plan) -> dict[str, int | None]:
        """Return the idle time of a row that goes on, and its life in all where that is not as it was."""
        life = plan.life.of(payload)
        is_shorter = life is not plan.life
        return {
            "idle_ms": life.idle_ms,
            "absolute_ms": life.absolute_ms if plan.permanence_changed or is_shorter else None,
        }

    def adopted_row(self, plan: Plan, digest: str, payload: Fields, note: Note, scope: RequestScope) -> AuthRow | None:
        user_id = self._user_of(payload)
        overlay = self._journal_writer.overlay(RecordRef(digest, SIGNED_IN), scope)
        if user_id in overlay.users:
            return None  # this host has logged the user out everywhere, and the database has yet to hear of it
        if not overlay.is_known:
            raise scope.gave_up("journal", "BusyJournal")  # it may have: the next request asks again
        return scope.require(
            SIGN_IN,
            self._database.adopt,
            digest,
            note=note.digest,
            note_ms=note.life_ms,
            **self._begun(plan, noted(payload, 0), user_id),  # when its user signed in is not known here
        )

    def never_adopt(self, note: Note, scope: RequestScope) -> None:
        """Have the database know that an old session is over, if it answers."""
        scope.attempt(REVOKE, self._database.note_adopted, note.digest, note.life_ms)

    def refused(self, error: StoreError | None = None, key: str = "") -> GrantRefused:
        """Count a grant that the database does not decide about, and return the answer to it.

        :param error: what it said. That it is the data no breaker and no alert tells.
        :param key: the session key that was set, if a view is to be told at once.
        """
        if error is not None and error.error_class is ErrorClass.DATA:
            log.error(
                "the database refuses the data of a sign-in or a change of rights, and will again: %s",
                error,
                extra=fields("grant_data_refused", **error.log_data),
            )
        self._reports.recorder.count("grants_refused")
        self._reports.emit(events.grant_refused, events.GrantWasRefused())
        if key:
            log.info("the database has to decide about session[%r]", key, extra=fields("grant_refused", key=key))
        return self._make_refusal(key)

    def compete(
        self,
        row: AuthRow,
        write: Callable[[AuthRow], AuthRow | None],
        scope: RequestScope,
        *,
        is_confirmed: bool = False,
    ) -> AuthRow | None:
        """Change a row by compare-and-set. A request that lost reloads and merges its own keys, as often as its budget
        lets it: another one has won each time.

        :param write: writes the row that follows from one; None: that one is not the present one.
        :param is_confirmed: the database said the row in this request. What Redis tells of it is believed for a while,
            but nothing that lasts is made of it.
        :return: the row; None: the session is dead.
        :raises StoreError: the database did not answer, or others were faster until the budget was spent; or the
            session was idle for too long since this request was told of it.
        """
        if not scope.can(DATABASE, WRITE):  # nor is there a reason to read
            raise scope.gave_up(DATABASE, "BreakerOpen")
        current: AuthRow | None = row if is_confirmed else self._present(row, scope)
        while current is not None and current.state is RowState.VALID:
            updated = write(current)
            if updated is not None:
                return updated
            current = self._present(current, scope)
        return None

    def _present(self, row: AuthRow, scope: RequestScope) -> AuthRow | None:
        """Return the row as the database has it now, with the later of the idle expiries."""
        current = self._reload(row.digest, scope)
        if current is not None and current.live and current.version < row.version:
            current = self._verifier.gone_back(current, Later.of(row), scope)
        if current is not None and current.state is RowState.IDLE_EXPIRED:
            if row.idle_expires_at <= current.read_at:
                # No session is ended for being idle on this request's word, whose lease has run out meanwhile.
                raise scope.gave_up(DATABASE, "IdleExpired")
            current = self._reload(row.digest, scope, row.idle_expires_at)  # the lease knew of a later use
        return current

    def _reload(self, digest: str, scope: RequestScope, idle_seen: int | None = None) -> AuthRow | None:
        return scope.require(VERIFY, self._database.load, digest, idle_seen=idle_seen)

    def compare_and_set(self, row: AuthRow, payload: Fields, plan: Plan, scope: RequestScope) -> AuthRow | None:
        """Return the row after an update; None: it is not at that version any more.

        :raises GrantRefused: the session would have to live shorter from now on, which takes another id.
        """
        if begins_to_live_shorter(plan.life, row.payload, payload):
            self._ended.raise_min_version(row.digest, row.version)  # the next request knows, and asks for a new id
            raise self.refused()
        return scope.require(
            SAVE_ROW,
            self._database.update,
            row.digest,
            seen=row.version,
            payload=payload,
            user_id=self._user_of(payload, row.user_id),
            **self._new_life(payload, plan),
        )

    def _user_of(self, payload: Fields, known: str | None = None) -> str | None:
        """Return the user a payload belongs to, as text: the first that one of USER_KEYS names.

        :param known: whom the row belongs to, or the sign-in has named; one value that is damaged, or names none, does
            not take it from them.
        """
        for key in self._settings.user_keys:
            try:
                user = user_of(decode(payload[key])) if key in payload else None
            except UnreadableValue:
                return known
            if user is not None:
                return user
        return known


class UnknownLimit(Exception):
    """The application's callable did not say how many sessions a user may have."""


def limit_of(user_id: str | None, settings: Settings) -> Limit | None:
    """Return a user's limit by MAX_SESSIONS_PER_USER and ON_LIMIT; None: there is none, as for rights without a user.

    :raises UnknownLimit: MAX_SESSIONS_PER_USER is a callable, and raised, or returned what is no number of sessions.
        It is logged. What is not known is not taken for no limit.
    """
    most = settings.max_sessions_per_user
    if most is None or user_id is None:
        return None
    if callable(most):
        most = _asked(most, user_id)
    return None if most is None else Limit(most, settings.on_limit == "end_oldest")


def _asked(ask: Callable[[str], int | None], user_id: str) -> int | None:
    try:
        most = ask(user_id)
    except Exception as error:
        log.exception(
            "LANGPONT_SESSION_MAX_SESSIONS_PER_USER failed; the sign-in is refused", extra=fields("max_sessions_failed")
        )
        raise UnknownLimit from error
    if most is None or (type(most) is int and most >= 1):
        return most
    returned = most if type(most) is int else f"a value of type {type(most).__name__}"
    log.error(
        "LANGPONT_SESSION_MAX_SESSIONS_PER_USER returned %s, not a whole number from 1, or None for no limit; "
        "the sign-in is refused",
        returned,
        extra=fields("max_sessions_unusable", returned=returned),
    )
    raise UnknownLimit

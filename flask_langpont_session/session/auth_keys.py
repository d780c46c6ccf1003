"""The rules for keys of auth: the meaning of a change (sign-in, sign-out, grant or plain data), and the data that a
session takes along to another id."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from werkzeug.exceptions import Unauthorized

from ..exceptions import OutsideRequest, UnsupportedValue
from ..policy.categories import AUTH, CSRF_FEATURE, DURABLE_FEATURE, MOST_KEYS, OAUTH_FEATURE
from ..policy.changes import NO_FIELDS, CategoryChange
from ..policy.health import DATABASE, WRITE
from ..policy.ids import ANONYMOUS, SIGNED_IN
from ..policy.leases import begins_to_live_shorter
from ..policy.loaded import Loaded, Verdict
from ..policy.serializer import decode, encode, has_lone_surrogate
from ..policy.users import FLASK_LOGINS_FRESH, means_no_user, user_of
from ..support.logs import fields
from .changes import Carried
from .freshness import fresh_row
from .special_keys import forget_user
from .work import Work, present

log = logging.getLogger(__name__)

LONGEST_USER_ID = 255
"""Characters; the width of the column by which a user's sessions are found."""


def _checked_user(key: str, value: Any) -> str | None:
    user = user_of(value)
    if user is not None and (len(user) > LONGEST_USER_ID or "\0" in user or has_lone_surrogate(user)):
        raise UnsupportedValue(
            key, f"a user id has at most {LONGEST_USER_ID} characters, none of them NUL or a lone surrogate"
        )
    return user


@lru_cache(MOST_KEYS)
def _warn_of_nameless(key: str) -> None:
    """Log a warning, once per key, about a sign-in of a user whom no list and no log-out everywhere can find."""
    log.warning(
        "session[%r] signs a user in without naming one: langpont.sessions() and revoke_user() do not find such a "
        "session. Assign the user's id, or a dict with 'sub' or 'id'; if it is no user, take the key out of "
        "LANGPONT_SESSION_USER_KEYS",
        key,
        extra=fields("user_nameless", key=key),
    )


class AuthKeys:
    """The rules of users and rights, for one request's session."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def is_to_be_stored(self, key: str, value: Any, encoded: bytes) -> bool:
        """Begin the sign-in, sign-out or grant that the setting of an auth key means, and return whether the value is
        to be stored."""
        settings = self._work.repository.settings
        is_right = key in settings.privilege_key_patterns
        if key in settings.user_key_patterns:
            said = decode(encoded)
            if means_no_user(said):
                if self._work.has(key):  # a session that cannot be verified shows no user, and must not end for that
                    self.delete(key)
                return False
            user = _checked_user(key, said)
            if not self._tells_more_of_user(key, value, user):
                self._require_arbiter(key)
                self._begin_sign_in(key, user)
                if user is None:
                    _warn_of_nameless(key)
                return True
            is_right = True
        if self._work.kind != SIGNED_IN:
            if is_right and value:
                self._require_arbiter(key)
                self._begin_sign_in()
            # A visitor has no rights, so "no rights" needs no record. The value is visible in this request.
            return not is_right or bool(value)
        is_known = self._work.minted is None and self._work.target is self._work.origin
        is_stored = is_known and self._work.stored(AUTH).get(key) == encoded
        if is_stored and key not in self._work.now:
            return False  # an equal value is no change: no transaction, and no refusal in an outage
        if is_right:
            if not value and self._shows_no_rights():
                return False
            self._require_arbiter(key)
            self._grant()
            if self._begins_to_live_shorter(key, encoded):
                self.regenerate()
        return True

    def _begins_to_live_shorter(self, key: str, encoded: bytes) -> bool:
        """Return :func:`.begins_to_live_shorter`, but False where this request has made another id already."""
        if self._work.minted is not None:
            return False
        return begins_to_live_shorter(self._work.life, self._work.stored(AUTH), {key: encoded})

    def _tells_more_of_user(self, key: str, value: Any, user: str | None) -> bool:
        """Return whether a value assigned to a user key is about the same user, and no sign-in: this session's own
        dict, changed; or, for a key that is a right as well, a value without a user (a refreshed token)."""
        if self._work.kind != SIGNED_IN or not self._work.has(key):
            return False
        if value is self._work.now.values[key] and isinstance(value, (dict, list)):
            return user == user_of(self._before_changes(key))
        return user is None and key in self._work.repository.settings.privilege_key_patterns

    def _shows_no_rights(self) -> bool:
        """Return whether this request can only show a visitor, so that assigning "no rights" withdraws none.
        Flask-Login assigns so for every visitor with data, on each page and inside error pages; a refusal would fail
        all pages.
        """
        is_lost_sign_in = self._work.target is not self._work.origin and not self._work.scope.can(DATABASE, WRITE)
        return self._work.is_in_doubt or is_lost_sign_in

    def _begin_sign_in(self, user_key: str = "", user: str | None = None) -> None:
        """Give the request a new session id, and take along what may be carried over.

        From a session of another user, or from an unverifiable session, only data that outlives a sign-out is taken
        along. From a session without a user, also the tokens of OAuth libraries, which name the user.

        :param user_key: the user key that is set; empty: a right is set.
        :param user: the user named by the value; None: no name, which never equals the user before.
        """
        self._work.grants = True
        self._work.named = user
        if (
            self._work.now.is_blank and self._work.origin is None and self._work.put_off is None
        ):  # nothing to take along
            restart(self._work, SIGNED_IN, ())
            self._work.taken_from = {}, {}
        elif self._work.renamed_row or not self._work.signs_in:
            users, settings = self._users(), self._work.repository.settings
            is_anothers = self._work.unverified or (bool(users) and (user is None or users.get(user_key) != user))
            features: tuple[str, ...] = () if is_anothers else (DURABLE_FEATURE,)
            if not users and self._has_rights():
                features = (DURABLE_FEATURE, OAUTH_FEATURE)
            if is_anothers:
                # A permanent session before does not make this session permanent.
                self._work.chosen_permanent = bool(self._work.chosen_permanent)
            of_user, besides = dict[str, bytes](), carry(self._work, (), features)
            if self._work.kind != SIGNED_IN:
                # What a request says of its user before it names the user belongs to that user. What a signed-in
                # session has is another user's.
                assigned = self._work.now.assigned
                of_user = {k: v for k, v in assigned.items() if self._work.feature_of(k).category == AUTH}
            categories = settings.carry_on_sign_out if is_anothers else settings.carry_on_sign_in
            restart(self._work, SIGNED_IN, categories, {**besides, **of_user})
            taken = {key: value for key, value in self._work.now.assigned.items() if key not in of_user}
            self._work.taken_from = users, {} if is_anothers else taken
        elif self._work.taken_from[0].get(user_key, user) != user:
            self._give_back()

    def _users(self) -> Mapping[str, str | None]:
        """Return the user keys that are set, each with the user named by its value."""
        work, now = self._work, self._work.now
        keys = {*work.stored(AUTH), *now.values, *now.assigned, *(work.load().former or ())}
        keys.intersection_update(work.repository.settings.user_keys)
        return {key: user_of(self._before_changes(key)) for key in keys if work.has(key)}

    def _has_rights(self) -> bool:
        """Return whether the database says now that this session is signed in."""
        work = self._work
        is_signed_in = work.kind == SIGNED_IN and work.target is work.origin and not work.unverified
        return is_signed_in and fresh_row(self._work) is not None

    def _give_back(self) -> None:
        """Drop the data taken along: a later user key says that the session was another user's after all."""
        _, taken = self._work.taken_from
        stays = self._work.repository.settings.carry_on_sign_out
        for key, encoded in taken.items():
            if self._work.feature_of(key).category not in stays and self._work.now.assigned.get(key) == encoded:
                self._work.now.delete(key, stored=False)
        carries = self._work.carries
        for name in [name for name in carries if name not in stays]:
            self._give_back_stored(name)
        self._work.carries = tuple(name for name in carries if name in stays)
        self._work.chosen_permanent = bool(self._work.chosen_permanent)
        self._work.taken_from = {}, {}

    def _give_back_stored(self, category: str) -> None:
        loaded = self._work.own_loaded()
        loaded.categories[category] = loaded.of(category)._replace(shown=NO_FIELDS, gap=None)
        for key in [key for key in self._work.now.values if self._work.feature_of(key).category == category]:
            if key not in self._work.now.assigned:
                self._work.now.delete(key, stored=False)

    def _require_arbiter(self, key: str = "") -> None:
        """Refuse a change that only the database decides about, while the database takes no writes.

        :param key: the session key that is set.
        """
        self._require_browser()
        if not self._work.scope.can(DATABASE, WRITE):
            raise self._work.repository.saves.row_writes.refused(key=key)

    def _require_browser(self) -> None:
        if self._work.context.is_outside:
            raise OutsideRequest("sign a user in or out, change rights, or get another id")

    def _grant(self) -> None:
        """Note that the save changes users or rights of a signed-in session.

        :raises GrantRefused: the database cannot decide about the change.
        """
        self._require_arbiter()
        if self._work.unverified:
            raise self._work.repository.saves.row_writes.refused()
        self._work.grants = True

    def delete(self, key: str) -> None:
        """Remove a key of any category. Removing a key of auth may be a sign-out.

        :raises KeyError: no such key.
        """
        work = self._work
        is_of_user = work.feature_of(key).category == AUTH and work.is_kept(key) and work.kind == SIGNED_IN
        if is_of_user and self._is_sign_out(key):
            work.warn_if_closed(key)
        else:
            work.delete(key)

    def _is_sign_out(self, key: str) -> bool:
        """Begin the sign-out or grant that the removal of an auth key means, if any, and return whether the session
        ended."""
        settings = self._work.repository.settings
        if key in settings.user_key_patterns:
            self.sign_out()
            return True
        if key in settings.privilege_key_patterns:
            if not self._has_identity_beside(key):
                self.sign_out()  # without this right, it is a visitor's session
                return True
            self._grant()
        return False

    def _has_identity_beside(self, key: str) -> bool:
        others = {*self._work.stored(AUTH), *self._work.now.assigned} - {key}
        return any(
            self._is_identity(other) and self._work.has(other) and not means_no_user(self._work.value(other))
            for other in others
        )

    def _is_identity(self, key: str) -> bool:
        return self._work.repository.settings.is_identity(key)

    def decide_about_rights(self, change: CategoryChange) -> None:
        """Treat a change inside the value of a right, or of data about a user, as a grant, like an assignment; a
        visitor has no rights. Such a change never names another user, which takes a new id.

        :raises GrantRefused: the database does not decide about the change.
        """
        assigned, kind = self._work.now.assigned, self._work.kind
        asks_by_itself = self._work.signs_in and self._work.grants  # the save, as it makes a row
        for key, encoded in list(change.sets.items()):
            is_as_assigned = kind == SIGNED_IN and encoded == assigned.get(key)
            if (is_as_assigned and asks_by_itself) or not self._is_identity(key):
                continue
            if is_as_assigned:
                self._grant()
                continue
            before, said = self._before_changes(key), decode(encoded)
            if before is None and means_no_user(said) and key not in assigned:
                del change.sets[key]  # it is so anyway
            elif kind != SIGNED_IN:
                del change.sets[key]
                self._work.repository.backend.reports.rejected(
                    AUTH, key, "a visitor has no rights; assigning one is a sign-in"
                )
            elif self._is_user_changed(key, before, said):
                del change.sets[key]
                if key in assigned:
                    change.sets[key] = assigned[key]
                self._work.repository.backend.reports.rejected(
                    AUTH, key, "another user inside of the value; assigning it is a sign-in"
                )
            else:
                self._grant()

    def _before_changes(self, key: str) -> Any:
        """Return the value of an auth key as assigned or read, without later changes inside of it."""
        now = self._work.now
        encoded = now.assigned.get(key) or now.saved.get(key) or self._work.stored(AUTH).get(key)
        return decode(encoded) if encoded else None

    def _is_user_changed(self, key: str, before: Any, said: Any) -> bool:
        if key not in self._work.repository.settings.user_key_patterns:
            return False
        return before is None or user_of(before) != user_of(said)

    def sign_out(self) -> None:
        """End the session; the categories of ``CARRY_ON_SIGN_OUT`` live on in a new anonymous session."""
        forget_user(self._work)
        self.end(self._work.repository.settings.carry_on_sign_out)

    def end(self, keeps: Collection[str]) -> None:
        """End the session.

        :param keeps: categories whose data goes on in a new anonymous session.
        """
        self._require_browser()
        # A permanent session does not make the next session permanent: the new id is minted without the flag.
        self._work.chosen_permanent = False
        is_something_kept = bool(carry(self._work, keeps)) or hides_some(self._work, keeps)
        work, origin = self._work, self._work.origin
        signed_in_now = work.signs_in
        if origin and origin.kind == SIGNED_IN:
            # Of a session that is over the cookie is left alone: the browser may have a newer one by now. It is ended
            # all the same, because it may go on under an id that another request gave it.
            work.end(is_over=work.target is origin and work.load().shadow)
        elif work.put_off is not None:
            work.end_elsewhere()  # by the old session's own cookie, which goes
        leaves = work.is_signed_out or signed_in_now
        if leaves or work.must_end:
            forget_user(self._work)
        restart(work, ANONYMOUS if leaves and is_something_kept else None, keeps)
        work.forced = True

    def regenerate(self) -> None:
        """Give the session a new id with the same data; the old id is dead afterwards.

        :raises GrantRefused: the session is signed in, and the database does not answer.
        """
        if self._work.target is None or (self._work.target is self._work.origin and self._work.load().shadow):
            return  # no id to replace; a dead id stays
        self._require_browser()
        kind = self._work.kind
        if kind == SIGNED_IN:
            self._grant()
        row = self._work.load().row if self._work.minted is None else self._work.renamed_row
        restart(self._work, kind, self._work.repository.table.categories)
        if row is not None:
            self._work.rename(row)

    def confirm(self) -> None:
        """Note that the user has just proved to be that user, and give the session a new id.

        :raises Unauthorized: no user is signed in.
        :raises GrantRefused: the database does not answer.
        """
        work = self._work
        if work.kind != SIGNED_IN:
            raise Unauthorized
        if not work.signs_in or work.renamed_row is not None:  # a sign-in by this request is the proof
            self.regenerate()
            work.confirms = True
        if work.has(FLASK_LOGINS_FRESH) and work.value(FLASK_LOGINS_FRESH) is False:
            work.now.assign(FLASK_LOGINS_FRESH, True, encode(FLASK_LOGINS_FRESH, True))
        work.context.on_confirm()


def carry(work: Work, categories: Collection[str], features: Collection[str] = ()) -> Carried:
    """Return the present data of some categories, and of some features. Defaults shown in an outage are not data."""
    features = [name for name in features if name in work.repository.table.features]
    if not (categories or features):
        return {}
    now, feature_of = work.now, work.repository.table.feature_of
    ghosts = work.load().defaulted - now.assigned.keys()
    carried = {}
    for key in present(work):
        feature = feature_of(key)
        is_taken = feature.name != CSRF_FEATURE and (feature.category in categories or feature.name in features)
        encoded = now.carry(key, work.stored_value(key)) if is_taken else None
        if encoded is not None and key not in ghosts:
            carried[key] = encoded
    return carried


def hides_some(work: Work, categories: Collection[str]) -> bool:
    """Return whether some categories have, or may have, data that this request is not shown because of an outage."""
    loaded = work.load()
    found = map(loaded.of, categories)
    return any(each.gap and (each.gap.whole or each.copy.fields) for each in found)


def restart(work: Work, kind: str | None, categories: Collection[str], also: Carried = NO_FIELDS) -> None:
    """Begin anew under another id (of `kind`), or under none, with the present data of some categories. The journal
    takes a category that this request may not know completely to the other id; the request's own changes follow.

    :param also: other data to be stored under the new id.
    """
    incomplete = _incomplete(work, categories) if kind else ()
    carried = carry(work, [name for name in categories if name not in incomplete])
    for name in incomplete:
        work.stored(name)  # data on demand cannot be loaded later on
    before = work.loaded
    # A dead session goes on with its anonymous shadow.
    is_in_shadow = work.target is work.origin and before is not None and before.shadow
    verdict = Verdict.DEAD if kind is None and is_in_shadow else Verdict.ANONYMOUS
    work.now.restart({**carried, **also}, incomplete)
    work.loaded = Loaded(verdict, now_ms=before.now_ms if before else 0)
    if before is not None:
        work.loaded.keep_from(before, incomplete)
    work.restart(incomplete, wipes=kind is None)
    if kind:
        work.give_id(kind)
    else:
        work.context.on_new_id()


def _incomplete(work: Work, categories: Collection[str]) -> tuple[str, ...]:
    """Return the categories, of those to take along, that this request may not know completely: in an outage some of
    their data is not shown, or would not be kept."""
    if work.minted is not None:  # nothing is stored under the new id yet
        return tuple(name for name in work.carries if name in categories)
    loaded = work.load() if categories else None
    if loaded is None or work.origin is None or loaded.shadow or (work.scope.level == 0 and not loaded.has_gaps):
        return ()
    return tuple(name for name in categories if name != AUTH or work.kind != SIGNED_IN)

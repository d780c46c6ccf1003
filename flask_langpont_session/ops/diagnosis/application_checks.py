"""Checks of the configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ...config.checks import PREFIX, moment_of
from ...config.explanations import identity_advice
from ...policy.causes import cause_of
from ...policy.errors import ErrorClass, StoreError
from ...policy.health import DATABASE, PRIMARY
from ...stores.hosts import HostWord
from .facts import Clock, Facts, Server
from .findings import CannotTell, Finding, Look, Unknown, failure, known, ok, warning

NEW_KEY = "python -c 'import secrets; print(secrets.token_hex())'"

SHORTEST_KEY = 32
"""Characters."""

_FEWEST_CHARACTERS = 8
"""Different ones, that a random key of that length has at least."""

_SAMPLES = frozenset(
    {
        '_5#y2L"F4Q8z\n\xec]/',  # Flask's quickstart of old
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",  # and of today
        "0123456789abcdef" * 4,  # docs/how-to/deploy.md
    }
)
_SAMPLE_WORDS = re.compile(
    r"change.?(me|this|it)|secret.?key|your.?(own|secret|key)|replace.?(me|this)|example|default|insecure|password|"
    r"test.?key|placeholder|^dev(elopment)?\b",
    re.IGNORECASE,
)


def weakness(key: Any) -> str:
    """Return why a key that signs cookies is weak, without quoting it; empty: no reason is seen."""
    text = key.decode("latin-1") if isinstance(key, bytes) else key
    if not isinstance(text, str):
        return f"is {type(key).__name__}, not text or bytes"
    if text in _SAMPLES or _SAMPLE_WORDS.search(text):
        return "looks like a sample, not like random bytes"
    if len(text) < SHORTEST_KEY:
        return f"has {len(text)} characters, fewer than {SHORTEST_KEY}"
    if len(set(text)) < _FEWEST_CHARACTERS:
        return f"has {len(set(text))} different characters only"
    return ""


def secret_key(facts: Facts) -> Look:
    key = facts.config["SECRET_KEY"]
    if found := weakness(key):
        yield failure(f"SECRET_KEY {found}", f"set SECRET_KEY to what this prints: {NEW_KEY}")
        return ""
    return f"SECRET_KEY has {len(key)} characters"


MOST_FALLBACKS = 2


def secret_key_fallbacks(facts: Facts) -> Look:
    fallbacks = facts.config["SECRET_KEY_FALLBACKS"] or []
    if isinstance(fallbacks, (str, bytes)):
        found = "SECRET_KEY_FALLBACKS is one text: each character of it would be a key"
        yield failure(found, "write a list: SECRET_KEY_FALLBACKS = [old_key]")
        return ""
    for number, key in enumerate(fallbacks):
        if found := weakness(key):
            yield failure(f"SECRET_KEY_FALLBACKS[{number}] {found}", "remove it; cookies signed by it end")
        elif key == facts.config["SECRET_KEY"]:
            yield warning(f"SECRET_KEY_FALLBACKS[{number}] is SECRET_KEY itself", "remove it")
    if len(fallbacks) > MOST_FALLBACKS:
        yield warning(
            f"SECRET_KEY_FALLBACKS has {len(fallbacks)} keys",
            "remove those older than a session can be: ABSOLUTE_TIMEOUT, or PERMANENT_SESSION_LIFETIME if longer",
        )
    return f"{len(fallbacks)} keys, none of them weak" if fallbacks else "none"


# -- encryption --------------------------------------------------------------------------------------------------------

MOST_KEYS = 3
_DAY = 86_400


def encryption(facts: Facts) -> Look:
    settings = facts.settings
    keys, ends = len(settings.encryption_keys), moment_of(settings.encryption_switch_over)
    if not keys:
        return "off: ENCRYPTION_KEYS has no key"
    if keys > MOST_KEYS:
        yield warning(
            f"ENCRYPTION_KEYS has {keys} keys",
            "remove those that have sealed nothing for as long as sessions live, see docs/how-to/encrypt.md",
        )
    sealed, plain = list[str](), list[str]()
    for name in settings.table.categories:
        (sealed if name in settings.sealed_categories else plain).append(name)
    if not sealed:
        cure = f"set {PREFIX}ENCRYPTED_CATEGORIES, or leave it out: then all are"
        yield warning("there are keys, and no category is encrypted", cure)
    if ends is not None:
        cure = f"leave out {PREFIX}ENCRYPTION_SWITCH_OVER as soon as nothing is plain any more"
        left = (ends.timestamp() - facts.at) / _DAY
        more = f"for {left:.1f} days more, plain text is believed in encrypted categories"
        yield warning(more if left > 0 else "ENCRYPTION_SWITCH_OVER is over", cure)
    other = f"; not {', '.join(plain)}" if plain else ""
    return f"{', '.join(sealed)}{other}; {keys} {'key' if keys == 1 else 'keys'}"


# -- environment -------------------------------------------------------------------------------------------------------


def environment(facts: Facts) -> Look:
    if facts.config["TESTING"]:
        yield failure(
            "TESTING is on: the journal is in memory, waits are long, and a database file may be a temporary one",
            "leave out FLASK_TESTING and app.testing outside of tests",
        )
    if facts.config["DEBUG"]:
        yield warning("debug mode is on", "leave out FLASK_DEBUG and --debug where users are served")
    if "SESSION_TYPE" in facts.config and not facts.settings.adopt:
        yield warning(
            "SESSION_TYPE is a setting of Flask-Session, whose Session(app) has the sessions if it comes last",
            f"take out both; to have its sessions taken over set {PREFIX}ADOPT (docs/moving.md)",
        )
    return f"{facts.settings.environment}; no debug mode, no TESTING"


# -- cookie ------------------------------------------------------------------------------------------------------------


def cookie(facts: Facts) -> Look:
    names = ("NAME", "SECURE", "SAMESITE", "DOMAIN")
    name, is_secure, same_site, domain = (facts.config[f"SESSION_COOKIE_{setting}"] for setting in names)
    if not facts.config["SESSION_COOKIE_HTTPONLY"]:
        cure = "set SESSION_COOKIE_HTTPONLY = True (Flask's default)"
        yield failure("scripts of the page can read the cookie", cure)
    if not is_secure:
        yield warning(
            "the cookie is sent without HTTPS, too",
            "where the site has HTTPS: SESSION_COOKIE_SECURE = True and SESSION_COOKIE_NAME = '__Host-session'",
        )
    if domain:
        cure = "leave out SESSION_COOKIE_DOMAIN, unless the other hosts of the domain need the session"
        yield warning("the cookie is sent to all hosts of SESSION_COOKIE_DOMAIN", cure)
    elif is_secure and not name.startswith("__Host-"):
        cure = "set SESSION_COOKIE_NAME = '__Host-session'"
        yield warning("another host of the domain can set a cookie of the same name", cure)
    if same_site is None or same_site.title() == "None":
        stands = "not set" if same_site is None else "'None'"
        cure = "set SESSION_COOKIE_SAMESITE = 'Lax', unless other sites embed this one"
        yield warning(f"SESSION_COOKIE_SAMESITE is {stands}: other sites' forms may send the cookie", cure)
    return f"{name}: Secure, HttpOnly, SameSite={same_site}, for this host alone"


# -- time-outs ---------------------------------------------------------------------------------------------------------

LEAST_LEFT = 0.05
"""Seconds that a request needs to ask the database."""

SHARE_OF_TIME_OUT = 0.25
"""The share of a time-out that the quickest answer may take: others take several times as long."""


def time_outs(facts: Facts) -> Look:
    settings = facts.settings
    redis, database = settings.redis_timeout, settings.database_timeout
    left = round(settings.request_budget - redis, 3)
    if left < LEAST_LEFT:
        yield warning(
            f"after one time-out of Redis {left * 1000:.0f} ms of REQUEST_BUDGET are left to ask the database",
            f"set {PREFIX}REQUEST_BUDGET to {redis + 2 * LEAST_LEFT:g}, or {PREFIX}REDIS_TIMEOUT lower",
        )
    for name, store in facts.answering.items():
        most, setting, raised = redis, "REDIS_TIMEOUT", f"{PREFIX}REDIS_TIMEOUT and {PREFIX}REQUEST_BUDGET"
        if name == DATABASE:
            most, setting, raised = database, "REQUEST_BUDGET", f"{PREFIX}REQUEST_BUDGET"
        of = f"of {most * 1000:.0f} ms of {setting}"
        cure = f"have it nearer to this host, or raise {raised}"
        took = f"its quickest answer took {store.took * 1000:.0f} ms, {of}"
        if name != DATABASE and store.took > settings.slow:
            yield failure(f"{took}: more than half of it counts as slow", cure)._replace(subject=name)
        elif store.took > most * SHARE_OF_TIME_OUT:
            yield warning(took, cure)._replace(subject=name)
        if isinstance(store, Server) and store.connecting > redis * SHARE_OF_TIME_OUT:
            took = f"connecting took {store.connecting * 1000:.0f} ms, {of}"
            yield warning(took, cure)._replace(subject=name)
    return f"a request waits {settings.request_budget:g} s at most; the stores answer well within that"


def grace(facts: Facts) -> Look:
    grace, ttl = facts.settings.grace, facts.settings.local_cache_ttl
    if grace > ttl:
        yield warning(
            f"GRACE is {grace:g} s, and what a worker knows of a session is kept for {ttl} s (LOCAL_CACHE_TTL): with "
            f"Redis and database down users are signed out after {ttl} s",
            f"set {PREFIX}LOCAL_CACHE_TTL to {math.ceil(grace)} or more, or {PREFIX}GRACE to {ttl} or less",
        )
    roles = ", ".join(facts.settings.privileged_roles) or "none"
    return (
        f"{grace:g} s, with Redis and database down; not for sessions of PRIVILEGED_ROLES ({roles}), which a key of "
        "the session has to name: a column of the user's table makes none"
    )


def unclaimed_keys(facts: Facts) -> Look:
    found = sorted(known(facts.unclaimed))
    for key in found:
        if advice := identity_advice(key):
            yield warning(f"the name of {key[:40]!r} looks like a user's or a right's", advice.strip())
    more = f" and {len(found) - 10} more" if len(found) > 10 else ""
    names = ", ".join(repr(key[:40]) for key in found[:10])
    return f"{names or 'none'}{more} in the sessions that were looked at; `flask langpont explain KEY` explains a key"


# -- all hosts ---------------------------------------------------------------------------------------------------------


def hosts(facts: Facts) -> Look:
    words = known(facts.hosts)
    names = sorted({word.host for word in words})
    if not words:
        raise CannotTell("no worker has told its configuration within the last three minutes")
    yield from _refused_cookies(words)
    if absent := known(facts.absent):
        yield warning(
            f"{absent} sessions of the database that changed today are not in this Redis",
            f"give all hosts of this database one REDIS_URL and {PREFIX}KEY_PREFIX; else Redis lost them: "
            "docs/operations.md, data-lost",
        )
    for setting in sorted({name for word in words for name in word.settings}):
        by_value: dict[str, set[str]] = {}
        for word in words:
            by_value.setdefault(word.settings.get(setting, "not there"), set()).add(word.host)
        if len(by_value) > 1:
            values = "; ".join(f"{value} on {', '.join(sorted(at))}" for value, at in sorted(by_value.items()))
            yield warning(f"{setting} differs: {values}", f"give all hosts the same {setting}")
    return f"{', '.join(names)}: {'it has' if len(names) == 1 else 'they have'} one configuration and Redis"


def _refused_cookies(words: Sequence[HostWord]) -> Iterator[Finding]:
    """Yield which hosts refuse the cookies of which others: those sign out the users that come from these."""
    refusing: dict[frozenset[str], set[str]] = {}
    for word in words:
        if signing := frozenset(other.host for other in words if other.keys[0] not in word.keys):
            refusing.setdefault(signing, set()).add(word.host)
    for signing, refused_by in refusing.items():
        theirs, its = (", ".join(sorted(names)) for names in (signing, refused_by))
        yield failure(
            f"SECRET_KEY differs: cookies of {theirs} are refused by {its}",
            "give all hosts the same SECRET_KEY; to change it, put the new one into SECRET_KEY_FALLBACKS of all hosts "
            "first, and restart workers that have a former one",
        )


# -- all stores --------------------------------------------------------------------------------------------------------


def stores(facts: Facts) -> Look:
    answers = []
    for name, store in facts.stores.items():
        if not isinstance(store, Unknown):
            answers.append(name)
            continue
        error = store.error or StoreError(name, ErrorClass.UNREACHABLE, store.why)
        yield failure(store.why.removeprefix(f"{name}: "), str(cause_of(error)))._replace(subject=name)
    if facts.homeless:
        cure = "give them to a shard: redis-cli --cluster fix"
        yield failure(f"{facts.homeless} slots of the cluster have no shard", cure)._replace(subject=PRIMARY)
    if answers:
        yield ok(f"{', '.join(answers)} {'answers' if len(answers) == 1 else 'answer'}")
    return ""


MOST_AHEAD, FAR_AHEAD = 1.0, 30.0
"""Seconds between two clocks. One second of error is what docs/guarantees.md assumes."""


def clocks(facts: Facts) -> Look:
    theirs = {name: store.clock for name, store in facts.answering.items()}
    if not theirs:
        raise CannotTell("no store answers")
    ends = {"this host": Clock(0.0, 0.0), **theirs}
    first, last = (pick(ends, key=lambda name: ends[name].ahead) for pick in (min, max))
    apart = ends[last].ahead - ends[first].ahead
    sure = apart - ends[last].within - ends[first].within
    if sure > MOST_AHEAD:
        found = f"the clock of {last} is {apart:.1f} s ahead of that of {first}"
        cure = "keep the time of all hosts by NTP (chronyc tracking, timedatectl)"
        yield failure(found, cure) if sure > FAR_AHEAD else warning(found, cure)
    return f"this host, {', '.join(theirs)}: no more than {max(apart, 0.001):.3f} s apart"

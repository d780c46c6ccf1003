"""The credentials with which connections greet the server: an AUTH token that a secret of Secrets Manager holds, or one
signed by IAM.

No request waits for AWS. A connection is given what is known; the monitor's rounds see to it that it is fresh, and ask
at once when a server has refused it. A refused login is not the end if another token is known: while a token is being
exchanged there are two, and the next one is tried at once.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from redis import exceptions as driver
from redis.credentials import CredentialProvider

from ..stores.redis.url import GroupName
from ..support.chance import CHANCE
from ..support.forks import renew_in_children
from ..support.logs import fields
from .background_query import BackgroundQuery
from .client import Unusable, aws_client, make_session

log = logging.getLogger(__name__)

Login = tuple[str] | tuple[str, str]
"""The arguments of AUTH as redis-py wants them: a token, or a user and a token."""

SECRET_REST = 300.0
"""Seconds between two looks at a secret."""

KEYS_REST = 240.0
"""Seconds between two looks at the AWS keys that tokens are signed with; botocore renews them before they expire."""

SIGNATURE_LIFE, SIGNATURE_USE = 900, 600.0
"""Seconds: how long a server accepts a signed token, and how long it is used for new connections."""

CONNECTION_LIFE = 6 * 3600.0
"""Seconds after which idle connections are made anew. ElastiCache ends those that greeted with IAM after twelve hours;
one that is in use at one time is idle at the next."""

_TOKEN_KEYS = ("auth_token", "token", "password")
_STAGES = ("AWSCURRENT", "AWSPENDING", "AWSPREVIOUS")
_MOST_LOGINS = 4
_ARN = re.compile(r"arn:[a-z0-9-]+:secretsmanager:([a-z0-9-]+):[0-9]{12}:secret:.+", re.ASCII)


class TokenNotKnownYet(driver.ConnectionError):
    """There is nothing to greet the server with yet."""


def region_of(secret_id: str, region: str | None) -> str | None:
    """Return the region of a secret: its ARN names it, else it is the region of everything."""
    match = _ARN.fullmatch(secret_id)
    return match[1] if match else region


class Credentials(CredentialProvider, ABC):
    """The common part of both kinds. Used by redis-py's connections; one object for all connections of an
    application."""

    query: BackgroundQuery

    def __init__(self) -> None:
        self._begin()
        renew_in_children(self, Credentials._begin)

    def _begin(self) -> None:
        self._here = threading.local()
        """``greeted``: the connection that this thread is making; ``tried``: what it was refused with."""

    @property
    @abstractmethod
    def known(self) -> bool:
        """Return whether a login is known."""

    @abstractmethod
    def get_credentials(self) -> Login:
        """Return the login to greet the server with. Never waits.

        :raises TokenNotKnownYet: nothing is known.
        """

    @abstractmethod
    def look(self) -> None:
        """Ask AWS again if it is time. Called every round of the monitor."""

    @abstractmethod
    def refused(self) -> bool:
        """Note that the server refused what this thread was given last. Return whether there is another login to
        try."""

    def introducing(self, introduce: Callable[[Any], None]) -> Callable[[Any], None]:
        """Wrap a ``redis_connect_func`` so that it does not give up while another login is known.

        When all were refused, those before the last one are tried once more: the server may have changed its token
        between the first refusal and the last.
        """

        def greet(connection: Any) -> None:
            if getattr(self._here, "greeted", None) is connection:
                return introduce(connection)  # another try of the one that is being greeted
            self._here.greeted, self._here.tried = connection, set()
            try:
                self._greet(connection, introduce)
            finally:
                self._here.greeted = None

        return greet

    def _greet(self, connection: Any, introduce: Callable[[Any], None]) -> None:
        tried: set[Login] = self._here.tried
        attempt, may_repeat = introduce, True
        while True:
            try:
                return attempt(connection)
            except driver.AuthenticationError:
                if not self.refused():
                    if not may_repeat or len(tried) < 2:
                        raise
                    may_repeat = False
                    tried.intersection_update({self._here.given})
            attempt = _connect_anew


def _connect_anew(connection: Any) -> None:
    """Connect again, and thereby greet again: redis-py closes a connection that is refused."""
    connection.disconnect()
    connection.connect()


def read_secret(text: str) -> Login:
    """Return the login that a secret holds: the token as it is, or a JSON object with ``auth_token``, ``token`` or
    ``password`` and, if it is not for the default user, ``username``.

    :raises Unusable: it holds something else. Nothing of it is quoted.
    """
    text = text.strip()
    if not text.startswith("{"):  # no token has a brace in it
        if not text:
            raise Unusable("the secret is empty")
        return (text,)
    try:
        content = json.loads(text)
    except ValueError:
        raise Unusable("the secret begins like JSON and is none") from None
    tokens = [content[key] for key in _TOKEN_KEYS if isinstance(content.get(key), str) and content[key]]
    user = content.get("username", "")
    if len(tokens) != 1 or not isinstance(user, str):
        raise Unusable(f"the secret is a JSON object without exactly one of {', '.join(_TOKEN_KEYS)}")
    return (user, tokens[0]) if user else (tokens[0],)


class SecretToken(Credentials):
    """The AUTH token in a secret of Secrets Manager, through its rotations.

    The current version is used. Once it was refused, the pending and the previous one are looked at too, and what was
    good before is kept behind them.

    :param secret_id: name or ARN.
    :param setting: the one that names it, for messages.
    :param region: None: as boto3 finds it.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, secret_id: str, setting: str, region: str | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.query = BackgroundQuery(f"{setting}: the secret", self._ask, rest=SECRET_REST, clock=clock)
        self._secret_id = secret_id
        self._region = region_of(secret_id, region)
        self._logins: tuple[Login, ...] = ()  # written by the thread that asks AWS, and by no other
        self._refused: dict[Login, int] = {}  # when, since the last look at the secret that was not urgent
        self._refusals = itertools.count(1)
        self._in_doubt = False

    @property
    def known(self) -> bool:
        """Return whether AWS has told a token."""
        return bool(self._logins)

    def get_credentials(self) -> Login:
        """Return the token that is most probably good, and was not tried on this connection."""
        logins = self._by_hope(self._logins)
        if not logins:
            raise TokenNotKnownYet
        tried = getattr(self._here, "tried", ())
        login = next((one for one in logins if one not in tried), logins[0])
        self._here.given = login
        return login

    def look(self) -> None:
        """Ask at once where there is no token or a server refused it; else every few minutes."""
        self.query.look(self._in_doubt or not self.known)

    def refused(self) -> bool:
        """Have all connections try the others first from now on, and AWS asked. Return whether this connection has
        another one."""
        login: Login = self._here.given
        self._here.tried.add(login)
        self._refused = {**self._refused, login: next(self._refusals)}
        self._in_doubt = True
        return any(one not in self._here.tried for one in self._logins)

    def _ask(self) -> None:
        in_doubt, self._in_doubt, known = self._in_doubt, False, self._by_hope(self._logins)
        try:
            with aws_client("secretsmanager", self._region) as client:
                found = [self._version(client, stage) for stage in (_STAGES if in_doubt else _STAGES[:1])]
        except Exception:
            self._in_doubt |= in_doubt  # the next question is the same one
            raise
        if not in_doubt:
            self._refused = {}  # what was refused may have been too new then
        together = dict.fromkeys([*(login for login in found if login is not None), *known])
        self._logins = tuple(self._by_hope(together)[:_MOST_LOGINS])
        if known and self._logins[0] not in known:
            log.info(
                "%s has a new token", self.query.subject, extra=fields("token_changed", subject=self.query.subject)
            )

    def _version(self, client: Any, stage: str) -> Login | None:
        """Return the login of one version; None: there is no such version. The current one must be there."""
        try:
            answer = client.get_secret_value(SecretId=self._secret_id, VersionStage=stage)
            if "SecretString" not in answer:
                raise Unusable("the secret holds bytes, not text")
            return read_secret(answer["SecretString"])
        except (client.exceptions.ResourceNotFoundException, Unusable):
            if stage == "AWSCURRENT":
                raise
            return None

    def _by_hope(self, logins: Iterable[Login]) -> list[Login]:
        """Return logins in the order given, but the refused ones behind the others, and the one refused last as the
        last."""
        refused = self._refused
        return sorted(logins, key=lambda login: refused.get(login, 0))


class _Keys(NamedTuple):
    """AWS keys as they are at a moment, and the region they are used in."""

    access_key: str
    secret_key: str
    token: str | None
    region: str


class _Signed(NamedTuple):
    keys: _Keys
    token: str
    at: float


class _Silence(logging.Filter):
    """A filter of botocore's log, which has, for debugging, what it signs and the signature: together they are the
    token."""

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing through of the thread that signs a token."""
        return not getattr(self._here, "is_signing", False)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        logging.getLogger("botocore.auth").addFilter(self)  # once, however often
        self._here.is_signing = True
        try:
            yield
        finally:
            self._here.is_signing = False


_silence = _Silence()


def sign(keys: _Keys, cache: GroupName, user: str) -> str:
    """Return a token for IAM authentication: a presigned request, without its scheme. Local work, no call.

    :param user: id of the ElastiCache user.
    """
    from botocore.credentials import Credentials as AwsCredentials
    from botocore.hooks import HierarchicalEmitter
    from botocore.model import ServiceId
    from botocore.signers import RequestSigner

    emitter = HierarchicalEmitter()  # the signer refers to it weakly
    aws_keys = AwsCredentials(keys.access_key, keys.secret_key, keys.token)
    signer = RequestSigner(ServiceId("elasticache"), keys.region, "elasticache", "v4", aws_keys, emitter)
    of_kind = {"ResourceType": "ServerlessCache"} if cache.serverless else {}
    query = urlencode({"Action": "connect", "User": user, **of_kind})
    request = {"method": "GET", "url": f"http://{cache.group_id}/?{query}", "body": {}, "headers": {}, "context": {}}
    with _silence():
        url: str = signer.generate_presigned_url(
            request, operation_name="connect", expires_in=SIGNATURE_LIFE, region_name=keys.region
        )
    return url.removeprefix("http://")


class IamToken(Credentials):
    """Tokens that prove a role of IAM, signed here with the keys that botocore keeps fresh.

    :param user: id of the ElastiCache user.
    :param cache: that the tokens are for; they are signed for its region.
    :param setting: the one that names the user, for messages.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, user: str, cache: GroupName, setting: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.query = BackgroundQuery(f"{setting}: the keys to sign with", self._ask, rest=KEYS_REST, clock=clock)
        self._user = user
        self._cache = cache
        self._clock = clock
        self._keys: _Keys | None = None
        self._signed: _Signed | None = None
        self._in_doubt = False
        self._session: Any = None
        self._pid = 0

    @property
    def known(self) -> bool:
        """Return whether there are keys to sign with."""
        return self._keys is not None

    def get_credentials(self) -> Login:
        """Return the user and a token that is at most ten minutes old."""
        keys, signed = self._keys, self._signed
        if keys is None:
            raise TokenNotKnownYet
        now = self._clock()
        if signed is None or signed.keys != keys or now - signed.at >= SIGNATURE_USE:
            signed = self._signed = _Signed(keys, sign(keys, self._cache, self._user), now)
        return self._user, signed.token

    def look(self) -> None:
        """Ask at once where there are no keys or a server refused a token; else every few minutes."""
        self.query.look(self._in_doubt or not self.known)

    def refused(self) -> bool:
        """Have the next token signed anew, with new keys if there are any."""
        self._in_doubt = True
        self._signed = None
        self._pid = 0  # keys from a file are read anew only by a new session
        return False

    def _ask(self) -> None:
        from botocore.exceptions import NoCredentialsError, NoRegionError

        session = self._session_here()
        if session.region_name is None:
            raise NoRegionError
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        frozen = credentials.get_frozen_credentials()  # renewed here when they are about to expire
        self._keys = _Keys(frozen.access_key, frozen.secret_key, frozen.token, session.region_name)
        self._in_doubt = False

    def _session_here(self) -> Any:
        """Return this process' session: a lock of the parent's would be held for ever in a child."""
        if self._pid != os.getpid():
            self._session, self._pid = make_session(self._cache.region), os.getpid()
        return self._session


class Recycling:
    """The clock that says when idle connections are due to be made anew.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = self._later()

    def take_due(self) -> bool:
        """Return True once in each life of a connection."""
        if self._clock() < self._next:
            return False
        self._next = self._later()
        return True

    def _later(self) -> float:
        # Workers that started together must not all connect in the same moment.
        return self._clock() + CONNECTION_LIFE * CHANCE.uniform(0.75, 0.95)

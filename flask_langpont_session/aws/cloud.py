"""The group and the credentials that an application's settings name. Imported only where the settings ask for AWS."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.checks import PREFIX
from ..config.settings import Settings
from ..exceptions import ConfigError
from ..stores.redis.cluster import ClusterStore
from ..stores.redis.store import RedisStore
from ..stores.redis.url import Kind, has_credentials, iam_user_of, kind_of, read_group, secret_of
from . import client
from .credentials import Credentials, IamToken, Recycling, SecretToken
from .endpoints import EndpointsFile, Group

START_PATIENCE = 2.0
"""Seconds that the start of an application waits for what is not known from before. Then it starts without."""


@dataclass(frozen=True)
class Cloud:
    """The group and the credentials of an application.

    :param group: None: the URL says itself where the servers are.
    :param credentials: None: the URL says them.
    """

    group: Group | None = None
    credentials: Credentials | None = None
    _recycling: Recycling = field(default_factory=Recycling)

    def begin(self) -> None:
        """Ask what is not known yet, and give the answers a short time: most applications start with them.

        The start of the application waits here, no request ever does.

        :raises ConfigError: AWS has said what the group is like, and it is none that can be used.
        """
        client.load()
        deadline = time.monotonic() + START_PATIENCE
        unknown = [part.query for part in (self.group, self.credentials) if part is not None and not part.known]
        for query in unknown:
            query.begin()
        for query in unknown:
            query.wait(deadline - time.monotonic())
        if self.group is not None and self.group.unusable is not None:
            raise ConfigError([f"{self.group.query.subject}: {self.group.unusable}"])

    def attend(self, stores: Mapping[str, ClusterStore | RedisStore], lost: Set[str]) -> None:
        """Keep what is known fresh. For the monitor, every round; returns at once.

        :param lost: names of the stores that do not answer.
        """
        if self.group is not None:
            self.group.look(bool(lost & stores.keys()))
        if self.credentials is not None:
            self.credentials.look()
        if isinstance(self.credentials, IamToken) and self._recycling.take_due():
            for store in stores.values():
                store.forget_connections()

    def introducing(self, introduce: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return the function that greets a new connection and asks for its identity, with credentials that may
        change."""
        return introduce if self.credentials is None else self.credentials.introducing(introduce)


def cloud_of(settings: Settings) -> Cloud:
    """Return the group and credentials that the settings ask for. Nothing is asked of AWS here."""
    url, setting = settings.redis_url or "", f"{PREFIX}REDIS_URL"
    name, credentials = read_group(url) if kind_of(url) is Kind.GROUP else None, credentials_in(url, setting)
    if name is None:
        return Cloud(None, credentials)
    needs_tls = credentials is not None or has_credentials(url)
    memory = EndpointsFile(Path(f"{settings.journal}-endpoints") if settings.journal else None, name)
    return Cloud(Group(name, setting, needs_tls=needs_tls, memory=memory), credentials)


def credentials_in(url: str, setting: str) -> Credentials | None:
    """Return the credentials of AWS that a URL names.

    :param setting: that has the URL, for messages.
    """
    name = read_group(url) if kind_of(url) is Kind.GROUP else None
    if secret := secret_of(url):
        return SecretToken(secret, setting, name.region if name else None)
    user = iam_user_of(url)
    return IamToken(user, name, setting) if user and name else None

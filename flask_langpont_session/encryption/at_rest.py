"""The stores of an application that encrypts."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..stores.host.journal import Journal
from ..stores.host.limits import JournalLimits
from ..stores.redis.store import Form
from ..stores.sql.database import Database
from .cipher import Cipher
from .database import SealedDatabase
from .journal import SealedJournal
from .keys import read_key
from .redis import sealed_form
from .values import Values


class AtRest(NamedTuple):
    """How the stores are made.

    :param redis: of what is sent to Redis.
    :param database: in place of :class:`.Database`; `journal`: in place of :func:`.journal_at`.
    """

    redis: Form
    database: Callable[..., Database]
    journal: Callable[[Path | None, JournalLimits], Journal]


def at_rest(
    keys: Sequence[str | bytes],
    categories: Container[str],
    plain_until: float,
    clock: Callable[[], float] = time.time,
) -> AtRest:
    """What :mod:`~flask_langpont_session.build` needs.

    :param keys: newest first, see :func:`.read_key`.
    :param categories: that are encrypted.
    :param plain_until: until then what is plain is read in them, too, seconds since 1970.
    :param clock: seconds since 1970.
    """
    values = Values(Cipher(list(map(read_key, keys))), categories, plain_until=plain_until, clock=clock)
    return AtRest(sealed_form(values), partial(SealedDatabase, values), partial(SealedJournal.at, values))

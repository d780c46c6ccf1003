"""The shared view of a Redis server: a record by all workers of the host, kept in the host's journal.

A new worker takes over the others' view instead of distrusting every session once; an unreadable journal costs just
that.
"""

from __future__ import annotations

import logging

from ...policy.errors import StoreError
from ...policy.servers import ServerRecord
from ...support.logs import fields
from .board import Board

log = logging.getLogger(__name__)

_IF_IT_GOES_ON = "If this line comes again and again, check LANGPONT_SESSION_JOURNAL and its disk"


class HostMemory:
    """The memory of one endpoint's :class:`~flask_langpont_session.stores.redis.server_identity.ServerIdentity`.

    :param endpoint: ``primary`` or ``replica``.
    """

    def __init__(self, board: Board, endpoint: str) -> None:
        self._board = board
        self._endpoint = endpoint

    def recall(self) -> ServerRecord | None:
        """Return what any worker of this host noted last; None: nothing, or the journal cannot be read."""
        try:
            return self._board.server(self._endpoint)
        except StoreError as error:
            log.warning(
                "what this host knows of the %s cannot be read (%s): this worker verifies each signed-in session once "
                "by the database. %s",
                *(self._endpoint, error, _IF_IT_GOES_ON),
                extra=fields("server_record_unread", endpoint=self._endpoint, **error.log_data),
            )
            return None

    def note(self, record: ServerRecord) -> None:
        """Keep it for the other workers. Never raises."""
        try:
            self._board.remember_server(self._endpoint, record)
        except StoreError as error:
            log.warning(
                "what this worker knows of the %s could not be noted for the other workers of its host (%s): one that "
                "starts now verifies each signed-in session once by the database. It is noted again by itself. %s",
                *(self._endpoint, error, _IF_IT_GOES_ON),
                extra=fields("server_record_unwritten", endpoint=self._endpoint, **error.log_data),
            )

"""The incidents that the workers of a host share, and the one file in which they lie (``host_file``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from . import incidents
from .host_file import HostFile
from .incidents import Host, Notice, Sightings, Terms

log = logging.getLogger(__name__)


class SharedIncidents:
    """Moves the host's incidents on, and its messages out of the queue: one worker at a time, each as a whole.

    All methods but reading raise :class:`~.host_file.Busy` while another process holds the file; nothing is changed
    then.

    :param file: from a :class:`HostFile` that joins by :func:`joined`.
    :param clock: seconds since 1970; the workers share no other clock that outlives a process.
    """

    def __init__(self, file: HostFile, terms: Terms, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._file = file
        self._terms = terms

    @property
    def is_idle(self) -> bool:
        """Whether no incident is active and no message waits. False if that cannot be read: then a write finds out."""
        host = read(self._file.read())
        return host is not None and host.is_idle and not self._file.is_cut_off

    def step(self, sightings: Sightings, now: float, watched: float) -> int:
        """See :func:`incidents.step`."""

        def stepped(data: bytes) -> tuple[bytes, int]:
            host = _decoded(data)
            suppressed = incidents.step(host, sightings, now, self._terms, watched)
            return msgspec.json.encode(host), suppressed

        return self._file.update(stepped)

    def take(self) -> Notice | None:
        """The message to be sent now, which no other worker gets meanwhile; None: there is none. Writes nothing where
        nothing waits."""

        def taken(data: bytes) -> tuple[bytes, Notice | None]:
            host = _decoded(data)
            notice = incidents.take(host, self.clock(), self._terms)
            return (msgspec.json.encode(host), notice) if notice else (data, None)

        host = read(self._file.read())
        return self._file.update(taken) if host is not None and host.queue else None

    def note_outcome(self, notice: Notice, *, sent: bool) -> bool:
        """Note what became of a message that was taken.

        :return: whether it is lost, see :func:`incidents.note_outcome`.
        """

        def noted(data: bytes) -> tuple[bytes, bool]:
            host = _decoded(data)
            lost = incidents.note_outcome(host, notice.serial, self.clock(), self._terms, sent=sent)
            return msgspec.json.encode(host), lost

        return self._file.update(noted)


def joined(shared: bytes, own: bytes) -> bytes:
    """What the workers of a host know together, with what one of them has seen alone."""
    host = _decoded(shared)
    incidents.join(host, _decoded(own))
    return msgspec.json.encode(host)


def read(data: bytes) -> Host | None:
    """What the bytes of the file say; None: they cannot be read."""
    try:
        return incidents.decode_host(data) if data else Host()
    except msgspec.MsgspecError:
        return None


def _decoded(data: bytes) -> Host:
    host = read(data)
    if host is None:
        # Another release wrote it. What is active is seen again soon.
        log.warning("the incidents that this host's workers have noted cannot be read; the file is begun anew")
    return host or Host()

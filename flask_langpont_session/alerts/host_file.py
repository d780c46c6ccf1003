"""A few kilobytes that all worker processes of a host share, one at a time, whatever happens to any of them.

A file with a lock and two places: what is new goes to the older place, with a checksum, so that a process that is
killed while it writes leaves what was there before. The room is taken at once: a disk that fills up later does not
keep an alert of it from being noted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..support.chance import CHANCE
from ..support.forks import renew_in_children

log = logging.getLogger(__name__)

T = TypeVar("T")

_HEADER = struct.Struct("<4sQII")
_MAGIC = b"LPA1"
_PLACE = 131_072


class Busy(Exception):
    """Another process has held the file for too long. Nothing was changed; it is to be tried again soon."""


class HostFile:
    """Shared bytes. While the file cannot be used this process goes on by itself, and tries it again each time.

    :param path: the file; None: this process' memory.
    :param join: (shared contents, those of this process alone) → what is shared when the file can be used again.
    :param patience: seconds to wait for the lock at a time. A process that holds it longer was stopped, or waits for a
        disk.
    :param alone_after: seconds, at random between these, without getting the lock, after which this process goes on by
        itself: not all at once, for the process that holds it may go on in between.
    """

    def __init__(
        self,
        path: Path | None,
        join: Callable[[bytes, bytes], bytes] = lambda shared, own: shared,
        *,
        patience: float = 0.5,
        alone_after: tuple[float, float] = (30.0, 60.0),
    ) -> None:
        self._path = path
        self._join = join
        self._patience = patience
        self._alone_after = alone_after
        self._reset()
        renew_in_children(self, HostFile._reset)

    def _reset(self) -> None:
        """As new: no thread of a forked child holds the lock, and what was the parent's alone stays the parent's."""
        self._lock = threading.Lock()
        self._alone = False
        self._alone_at: float | None = None
        self._last = b""

    @property
    def is_cut_off(self) -> bool:
        """Whether this process goes on by itself, and would like to come back."""
        return self._alone

    def read(self) -> bytes:
        """What is there, without waiting for the lock; empty if there is nothing."""
        with self._lock:
            if self._path is not None and not self._alone:
                self._last = self._peek(self._path)
            return self._last

    def update(self, change: Callable[[bytes], tuple[bytes, T]]) -> T:
        """Replace the contents while no other process can.

        :param change: old contents → (new contents, what to return). Without effects: it may be called twice.
        :raises Busy: nothing else is raised by itself.
        """
        with self._lock:
            if self._path is not None:
                try:
                    with self._locked(self._path) as descriptor:
                        answer = self._replace(descriptor, change)
                    self._alone, self._alone_at = False, None
                    return answer
                except OSError as error:
                    if isinstance(error, BlockingIOError) and self._is_patient():
                        raise Busy from None
                    if not self._alone:
                        log.error("the workers of this host cannot share their alerts: %s", type(error).__name__)
                    self._alone = True
            self._last, answer = change(self._last)
            return answer

    def _is_patient(self) -> bool:
        """Whether to wait on for the process that holds the lock."""
        now = time.monotonic()
        if self._alone_at is None:
            self._alone_at = now + CHANCE.uniform(*self._alone_after)
        return not self._alone and now < self._alone_at

    @staticmethod
    def _peek(path: Path) -> bytes:
        """A torn read shows by its checksum: then the older place is read, and the next look sees the newer one."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return _newest(descriptor)[1]
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    @contextmanager
    def _locked(self, path: Path) -> Iterator[int]:
        # Opened each time: the lock belongs to the open file, and a forked child must not inherit it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _take_lock(descriptor, self._patience)
            if os.fstat(descriptor).st_size < 2 * _PLACE:
                os.posix_fallocate(descriptor, 0, 2 * _PLACE)
            yield descriptor
        finally:
            os.close(descriptor)

    def _replace(self, descriptor: int, change: Callable[[bytes], tuple[bytes, T]]) -> T:
        serial, shared = _newest(descriptor)
        self._last = self._join(shared, self._last) if self._alone else shared
        contents, answer = change(self._last)
        if contents != shared:
            if len(contents) > _PLACE - _HEADER.size:
                raise OSError("too much for the file")
            header = _HEADER.pack(_MAGIC, serial + 1, len(contents), _checksum(serial + 1, contents))
            _write(descriptor, header + contents, (serial + 1) % 2 * _PLACE)
        self._last = contents
        return answer


def _take_lock(descriptor: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)  # flock() waits for ever or not at all


def _write(descriptor: int, data: bytes, at: int) -> None:
    if os.pwrite(descriptor, data, at) < len(data):
        raise OSError("written in part")


def _checksum(serial: int, contents: bytes) -> int:
    return zlib.crc32(contents, zlib.crc32(serial.to_bytes(8)))


def _newest(descriptor: int) -> tuple[int, bytes]:
    """The serial number and the contents of the newest whole place; (0, empty) if there is none."""
    found = (0, b"")
    for number in (0, 1):
        data = os.pread(descriptor, _HEADER.size, number * _PLACE)
        if len(data) < _HEADER.size:
            continue
        magic, serial, length, checksum = _HEADER.unpack(data)
        if magic != _MAGIC or serial <= found[0] or length > _PLACE - _HEADER.size:
            continue
        contents = os.pread(descriptor, length, number * _PLACE + _HEADER.size)
        if len(contents) == length and _checksum(serial, contents) == checksum:
            found = serial, contents
    return found

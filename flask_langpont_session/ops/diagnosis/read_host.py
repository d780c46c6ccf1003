"""Reads the facts about this host: files, and the processes that use them. Makes nothing."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

from ...policy.errors import StoreError
from ...stores.host.commit_counter import COUNTER
from ...stores.host.opening import LOG, path_of, unread
from ...stores.host.presence import FEATURES, FORGOTTEN, LOST, Presence, parts_of
from .facts import File, Host
from .findings import Unknown


def read_host(journal: Path | None) -> Host:
    """Return the journal, and the workers that share it.

    :param journal: as the settings name it.
    """
    if journal is None:
        return Host(user=os.geteuid(), journal=None, workers=())
    return Host(
        user=os.geteuid(),
        journal=file_at(path_of(journal)),
        unread=tuple((str(path), why) for path, why in unread(journal)),
        forgotten=said_by_workers(journal, FORGOTTEN),
        workers=workers_of(journal),
    )


def said_by_workers(journal: Path | None, part: str, unsaid: Any = 0) -> tuple[Any, ...]:
    """Return what each worker of this host has said of itself, such as :data:`.FORGOTTEN`; empty, if none runs here, or
    each is alone with its journal."""
    with suppress(StoreError):  # what is wrong with the folder is wrong with the journal, which is said
        words = () if journal is None else Presence(journal, {}).others()
        return tuple(parts_of(word).get(part, unsaid) for word in words)
    return ()


def features_of_workers(journal: Path | None) -> set[str]:
    """Return the names of the features of which a worker of this host has met a key."""
    return {name for names in said_by_workers(journal, FEATURES, ()) for name in names}


def lost_by_redis(journal: Path | None) -> Mapping[str, float]:
    """Return when each Redis lost data last, as the workers of this host have found it: seconds since 1970."""
    return dict(sorted((one for said in said_by_workers(journal, LOST, {}) for one in said.items()), key=itemgetter(1)))


def file_at(path: Path) -> File:
    """Return a file, or the place where it would be."""
    place = path.absolute()
    folder = next(parent for parent in place.parents if parent.exists())
    about, around = place.stat() if place.exists() else folder.stat(), folder.stat()
    space = os.statvfs(folder)
    files = (place, Path(f"{place.resolve()}-{LOG}"))
    return File(
        path=str(path),
        is_absolute=path.is_absolute(),
        is_there=place.exists(),
        owner=about.st_uid,
        mode=about.st_mode & 0o7777,
        folder_owner=around.st_uid,
        folder_mode=around.st_mode & 0o7777,
        size=sum(file.stat().st_size for file in files if file.exists()),
        free=space.f_bavail * space.f_frsize,
        file_system=file_system_of(folder.resolve()),
    )


def file_system_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | Unknown:
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return Unknown("only Linux tells the kind of a file system")
    kinds = {}
    for line in lines:
        before, _, behind = line.partition(" - ")
        kinds[Path(before.split(" ")[4].encode().decode("unicode_escape"))] = behind.split(" ")[0]
    return next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "")


# -- processes ---------------------------------------------------------------------------------------------------------


def workers_of(journal: Path, processes: Path = Path("/proc")) -> tuple[int, ...] | Unknown:
    """Return the users of the processes that have the journal open, but for this one, as far as this one may see."""
    if not (processes / "self" / "fd").exists():
        return Unknown("only Linux tells which processes have a file open")
    paths, found = {str(path_of(journal).resolve()), f"{journal.resolve()}-{COUNTER}"}, []
    for name in os.listdir(processes):
        if name.isdecimal() and int(name) != os.getpid() and _has_open(f"{processes}/{name}/fd", paths):
            with suppress(OSError):
                found.append((processes / name).stat().st_uid)
    return tuple(sorted(found))


def _has_open(descriptors: str, paths: Container[str]) -> bool:
    """Return whether a process has a file open. By text, not by :class:`~pathlib.Path`: a machine may have a million
    names."""
    with suppress(OSError):
        for descriptor in os.listdir(descriptors):
            with suppress(OSError):
                if os.readlink(f"{descriptors}/{descriptor}") in paths:
                    return True
    return False

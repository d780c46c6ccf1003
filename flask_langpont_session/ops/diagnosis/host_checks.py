"""Checks of the files and processes of this host."""

from __future__ import annotations

from collections.abc import Iterator

from ...config.checks import PREFIX
from .facts import MAKE_ROOM, Facts, File
from .findings import CannotTell, Finding, Look, failure, known, warning

NETWORKED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
"""File systems of several hosts, as ``mount`` names them."""

PASSING = {
    "tmpfs": "it is in memory, and gone with the next start of the host",
    "ramfs": "it is in memory, and gone with the next start of the host",
    "overlay": "it is in the container's own layer, and gone with the container",
}

FULL = 0.8
"""The share of JOURNAL_MAX_BYTES above which the journal is nearly full."""


def _journal(facts: Facts) -> File:
    if facts.host.journal is None:
        raise CannotTell("JOURNAL is None")
    return facts.host.journal


def journal_file(facts: Facts) -> Look:
    host, file, limit = facts.host, facts.host.journal, facts.settings.journal_max_bytes
    if file is None:
        yield warning(
            "JOURNAL is None: what waits in an outage, sign-outs too, ends with its process",
            f"set {PREFIX}JOURNAL to a file on the host's own disk",
        )
        return ""
    if not file.is_absolute:
        cure = f"write its whole path in {PREFIX}JOURNAL"
        yield warning("its path depends on the folder in which a process is started", cure)
    yield from _owners(file, host.user)
    if file.size > limit * FULL:
        cure = f"`flask langpont journal`; bring back what is away, or raise {PREFIX}JOURNAL_MAX_BYTES"
        yield warning(f"{file.size} bytes, of {limit} that its entries may take", cure)
    for path, why in host.unread:
        cure = "`flask langpont journal --archive` renames it; what waits in it is for the release that wrote it"
        yield warning(f"{path} is not used: {why}", cure)
    return f"{file.path}, {f'{file.size} bytes' if file.is_there else 'not made yet'}, of this user alone"


def _owners(file: File, user: int) -> Iterator[Finding]:
    if file.is_there and file.owner != user:
        cure = f"run this as the workers' user, or: chown that user {file.path}*"
        yield failure(f"it belongs to user {file.owner}, and this process runs as {user}", cure)
    elif file.folder_owner != user and not file.is_there and user == 0:
        cure = "run commands as the workers' user"
        yield failure("this command runs as root: what it makes there the workers could not use", cure)
    if file.is_there and file.mode & 0o077:
        yield warning(f"other users may use it (mode {file.mode:04o})", f"chmod 600 {file.path}")
    if file.folder_mode & 0o022 and not file.folder_mode & 0o1000:
        cure = "a folder of its own, with mode 0700"
        yield warning(f"other users may exchange it: its folder has mode {file.folder_mode:04o}", cure)


def journal_disk(facts: Facts) -> Look:
    file = _journal(facts)
    kind, free = known(file.file_system), f"{file.free // 1_048_576} MB are free"
    if kind in NETWORKED:
        yield failure(
            f"it is on {kind}: SQLite's log does not work there",
            f"set {PREFIX}JOURNAL to a file on the host's own disk",
        )
    elif kind in PASSING:
        yield warning(PASSING[kind], f"set {PREFIX}JOURNAL to a file on a disk or volume that outlives it")
    if file.lack:
        yield failure(file.lack, MAKE_ROOM)
    elif file.free < facts.settings.journal_max_bytes:
        cure = f"make room, or lower {PREFIX}JOURNAL_MAX_BYTES"
        yield warning(f"{free}, less than JOURNAL_MAX_BYTES", cure)
    return f"{kind}, {free}"


def journal_workers(facts: Facts) -> Look:
    _journal(facts)
    workers = known(facts.host.workers)
    if not workers:
        raise CannotTell("no process that can be seen has it open: no worker runs, or none has served a request yet")
    if (users := sorted(set(workers))) != [facts.host.user]:
        cure = "run all workers and commands as one user"
        yield failure(f"processes of users {', '.join(map(str, users))} have it open", cure)
    return f"{len(workers)} processes share it" if len(workers) > 1 else "one process has it open"


def memory(facts: Facts) -> Look:
    _journal(facts)
    if forgotten := [number for number in facts.host.forgotten if number]:
        yield warning(
            f"{len(forgotten)} processes had no room for {sum(forgotten)} sessions that were in use: in an outage they "
            "are shown less, and each has to be read again",
            f"raise {PREFIX}MEMORY_BYTES: it takes about 3,000 bytes for each session of 1 KB that is in use",
        )
    return "no session in use had to go for want of room, as far as workers have said"

"""Checks of the files and processes of this host."""

from __future__ import annotations

from collections.abc import Iterator

from ...config.checks import PREFIX
from .facts import Facts, File
from .findings import Finding, Outcome, failure, known, ok, warning

NETWORKED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
"""File systems of several hosts, as ``mount`` names them."""

PASSING = {
    "tmpfs": "it is in memory, and gone with the next start of the host",
    "ramfs": "it is in memory, and gone with the next start of the host",
    "overlay": "it is in the container's own layer, and gone with the container",
}

LEAST_FREE = 67_108_864
"""Bytes."""

FULL = 0.8
"""The share of JOURNAL_MAX_BYTES above which the journal is nearly full."""

_IN_MEMORY = "JOURNAL is None"


def journal_file(facts: Facts) -> Iterator[Finding]:
    host, file = facts.host, facts.host.journal
    if file is None:
        yield warning(
            "JOURNAL is None: what waits in an outage, sign-outs too, ends with its process",
            f"set {PREFIX}JOURNAL to a file on the host's own disk",
        )
        return
    found = []
    if not file.is_absolute:
        cure = f"write its whole path in {PREFIX}JOURNAL"
        found.append(warning("its path depends on the folder in which a process is started", cure))
    found += _owners(file, host.user)
    if file.size > host.journal_limit * FULL:
        cure = f"`flask langpont journal`; bring back what is away, or raise {PREFIX}JOURNAL_MAX_BYTES"
        found.append(warning(f"{file.size} bytes, of {host.journal_limit} that its entries may take", cure))
    for path, why in host.unread:
        cure = "`flask langpont journal --archive` renames it; what waits in it is for the release that wrote it"
        found.append(warning(f"{path} is not used: {why}", cure))
    size = f"{file.size} bytes" if file.is_there else "not made yet"
    yield from found or [ok(f"{file.path}, {size}, of this user alone")]


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


def journal_disk(facts: Facts) -> Iterator[Finding]:
    file = facts.host.journal
    if file is None:
        yield Finding(Outcome.SKIPPED, _IN_MEMORY)
        return
    kind = known(file.file_system)
    if kind in NETWORKED:
        yield failure(
            f"it is on {kind}: SQLite's log does not work there",
            f"set {PREFIX}JOURNAL to a file on the host's own disk",
        )
    elif kind in PASSING:
        yield warning(PASSING[kind], f"set {PREFIX}JOURNAL to a file on a disk or volume that outlives it")
    if file.free < LEAST_FREE:
        yield failure(f"{file.free // 1_048_576} MB are free", "make room; without it what waits is lost")
    elif file.free < facts.host.journal_limit:
        cure = f"make room, or lower {PREFIX}JOURNAL_MAX_BYTES"
        yield warning(f"{file.free // 1_048_576} MB are free, less than JOURNAL_MAX_BYTES", cure)
    elif kind not in NETWORKED and kind not in PASSING:
        yield ok(f"{kind}, {file.free // 1_048_576} MB are free")


def journal_workers(facts: Facts) -> Iterator[Finding]:
    if facts.host.journal is None:
        yield Finding(Outcome.SKIPPED, _IN_MEMORY)
        return
    workers = known(facts.host.workers)
    users = {worker.user for worker in workers}
    if not workers:
        yield Finding(
            Outcome.SKIPPED, "no process that can be seen has it open: no worker runs, or none has served a request yet"
        )
    elif users != {facts.host.user}:
        cure = "run all workers and commands as one user"
        yield failure(f"processes of users {', '.join(map(str, sorted(users)))} have it open", cure)
    else:
        yield ok(f"{len(workers)} processes share it" if len(workers) > 1 else "one process has it open")


def memory(facts: Facts) -> Iterator[Finding]:
    if facts.host.journal is None:
        yield Finding(Outcome.SKIPPED, _IN_MEMORY)
    elif forgotten := [number for number in facts.host.forgotten if number]:
        yield warning(
            f"{len(forgotten)} processes had no room for {sum(forgotten)} sessions that were in use: in an outage they "
            "are shown less, and each has to be read again",
            f"raise {PREFIX}MEMORY_BYTES: it takes about 3,000 bytes for each session of 1 KB that is in use",
        )
    else:
        yield ok("no session in use had to go for want of room, as far as workers have said")

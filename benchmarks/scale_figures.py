"""The figures of ``python -m benchmarks.scale``, as values that are kept in a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

KEPT = Path(__file__).parent / "scale.json"
"""The figures that the page was made from."""


class Cost(msgspec.Struct):
    """The cost of one operation; times in microseconds.

    :param script: in the script, by the server's own statistics: wall time.
    :param server: processor time of the server, its sockets included; `client`: of the worker.
    :param p50: from the beginning of the operation to its end; `p99` the same.
    :param bytes_in: to the server; `bytes_out`: from it.
    """

    script: float
    server: float
    client: float
    p50: float
    p99: float
    bytes_in: float
    bytes_out: float


class Size(msgspec.Struct):
    """Sessions of one size, one worker.

    :param size: bytes of JSON, exactly; `title`: as the table calls it.
    :param memory: bytes of the server per session, with its default settings; `tight`: with
        ``hash-max-listpack-value 1024``.
    :param read: everything is sent; `again`: the worker knows the session already, and asks whether it has changed;
        `near`: it is answered by the near cache; `write`: one key, unread.
    """

    title: str
    size: int
    sessions: int
    memory: float
    tight: float
    read: Cost
    again: Cost
    near: Cost
    write: Cost


class Growth(msgspec.Struct):
    """One worker on so many sessions of 1 KB."""

    sessions: int
    memory: float
    read: Cost
    write: Cost


class Load(msgspec.Struct):
    """So many workers on so many shards: reads, and some writes, of random sessions.

    :param per_second: operations of all workers.
    :param busy: the share of one core that all servers took.
    :param connections: of all workers to all shards.
    """

    workers: int
    shards: int
    per_second: float
    busy: float
    connections: int
    cost: Cost


class Failover(msgspec.Struct):
    """A primary of a cluster was killed, and its replica promoted by the other primaries.

    :param node_timeout: ``cluster-node-timeout`` of the servers, seconds.
    :param seconds: from the kill until the first change is stored at the new primary.
    :param requests: that were answered meanwhile, one after the other; their changes were kept in the journal.
    :param slowest: of them, milliseconds.
    """

    node_timeout: float
    seconds: float
    requests: int
    slowest: float


class Call(msgspec.Struct):
    """One kind of call of the database, one at a time.

    :param server: processor time of the database, microseconds; `client`: of the worker.
    :param p50: milliseconds.
    """

    server: float
    client: float
    p50: float


class Database(msgspec.Struct):
    """PostgreSQL with so many rows.

    :param row: bytes per row, indexes included.
    :param commit: of a sign-in, without a wait for the disk.
    """

    rows: int
    row: float
    read: Call
    commit: Call


class Figures(msgspec.Struct):
    """One run.

    :param machine: what it ran on, and what else ran there.
    :param others: the share of its processors that other programs used meanwhile.
    :param index: bytes per session in the index of sessions in use.
    :param notes: what was not measured, and why.
    """

    machine: str
    others: float
    sizes: list[Size]
    growth: list[Growth]
    workers: list[Load]
    shards: list[Load]
    failover: Failover
    database: Database
    index: float
    notes: list[str]


def read(path: Path = KEPT) -> Figures:
    """Return the figures of a file."""
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def write(path: Path, figures: Figures) -> None:
    """Put figures into a file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n")

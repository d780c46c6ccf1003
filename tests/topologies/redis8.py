"""Debian's redis-server, which speaks what the Valkey of the wheel does not: TLS. With a Unix socket, and users."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devservers.processes import LONG, spawn
from devservers.servers import Valkey
from tests.integration.tls import Authority
from tests.support.programs import required


class Redis8(Valkey):
    """A redis-server (Debian's package, 8.0) with the data in ``folder``.

    :param certificate: speak TLS on the port, and nothing else; the file holds certificate and key.
    :param authority: whose certificates clients are asked for. None: they need none.
    :param extra: further options, as on the command line.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replica_of: Valkey | None = None,
        appendonly: bool = True,
        certificate: Path | None = None,
        authority: Authority | None = None,
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, replica_of=replica_of, appendonly=appendonly, extra=extra)
        self.socket = folder / "socket"
        self.certificate = certificate
        self._authority = authority

    def client(self, timeout: float = LONG, *, text: bool = True) -> redis.Redis:
        """A client over the Unix socket, without retries: no certificate is in its way. The caller closes it."""
        retry = Retry(NoBackoff(), 0)
        return redis.Redis(
            unix_socket_path=str(self.socket), socket_timeout=timeout, retry=retry, decode_responses=text
        )

    def renew(self, certificate: Path) -> None:
        """Use another certificate for the connections from now on, as after its renewal."""
        self.certificate = certificate
        with self.client() as client:
            client.config_set("tls-cert-file", str(certificate), "tls-key-file", str(certificate))

    def _launch(self) -> subprocess.Popen[bytes]:
        return spawn([required("redis-server"), *self._command()], log=self.log)

    def _command(self) -> list[str]:
        return [*self._options(), *self._tls_options(), *self._extra]

    def _options(self) -> list[str]:
        return [*super()._options(), "--unixsocket", str(self.socket)]

    def _tls_options(self) -> list[str]:
        if self.certificate is None:
            return []
        options = ["--port", "0", "--tls-port", str(self.port)]
        options += ["--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.certificate)]
        if self._authority is None:
            # It wants to know which authorities it trusts even if it asks for no certificate.
            return [*options, "--tls-ca-cert-file", str(self.certificate), "--tls-auth-clients", "no"]
        return [*options, "--tls-ca-cert-file", str(self._authority.certificate), "--tls-auth-clients", "yes"]


def acl_file(folder: Path, users: Iterable[str]) -> list[str]:
    """Options of a server that knows these users and no others: each as in ``ACL SETUSER``, the name first."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "users.acl"
    path.write_text("".join(f"user {user}\n" for user in users))
    return ["--aclfile", str(path)]

"""TLS before a server that speaks none, with a certificate of an authority of our own."""

from __future__ import annotations

import datetime
import select
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_MINUTE = datetime.timedelta(minutes=1)


class Authority:
    """A certificate authority for one test run.

    :param folder: for its certificate and those that it issues.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        can_sign = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(can_sign, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, names: Sequence[str]) -> ssl.SSLContext:
        """Return the TLS context of a server that goes by these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(names))
        return context

    def issue(self, names: Sequence[str], *, expired: bool = False, days: int = 90) -> Path:
        """A file with a new certificate for these names and its key, for a server or a client.

        :param expired: it ran out a minute ago.
        :param days: after which it expires.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = self._builder(subject, key.public_key(), -_MINUTE if expired else days * _DAY)
        certificate = builder.add_extension(alternatives, critical=False).sign(self._key, hashes.SHA256())
        pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / f"{certificate.serial_number}.pem"
        path.write_bytes(pem)
        return path

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta = _DAY
    ) -> x509.CertificateBuilder:
        """Return a certificate to be signed, with the identifiers of both keys: Python 3.13 asks for RFC 5280."""
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(authority, critical=False)
        )


class TlsFront:
    """Takes TLS connections on a free port of 127.0.0.1 and hands on what is in them. A context manager.

    :param context: of the server.
    :param port: of 127.0.0.1, where the server is that speaks no TLS.
    :param asked: a client asks in plain whether there is TLS, as one of PostgreSQL does.
    """

    def __init__(self, context: ssl.SSLContext, port: int, *, asked: bool = False) -> None:
        self._context = context
        self._target = port
        self._asked = asked
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, name="tls-front", daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # the end
            while True:
                self._start(self._serve, self._listening.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(5)
        with (
            suppress(OSError),  # connections end as clients like, in the middle of a handshake too
            client,
            self._agreed(client),
            self._context.wrap_socket(client, server_side=True) as visitor,
            socket.create_connection(("127.0.0.1", self._target), 5) as server,
        ):
            for end in (visitor, server):  # else answers wait for the acknowledgement of what went before
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._over.is_set():
                if not visitor.pending():
                    ready = select.select([visitor, server], [], [], 0.1)[0]
                    if server in ready and not _hand_on(server, visitor):
                        return
                    if visitor not in ready:
                        continue
                if not _hand_on(visitor, server):
                    return

    def _agreed(self, client: socket.socket) -> AbstractContextManager[None]:
        if self._asked and client.recv(8, socket.MSG_WAITALL):
            client.sendall(b"S")
        return nullcontext()


def _hand_on(one: socket.socket, other: socket.socket) -> bool:
    """False: it has ended."""
    data = one.recv(65_536)
    other.sendall(data)
    return bool(data)

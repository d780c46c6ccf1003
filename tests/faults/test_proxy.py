"""The fault proxy itself: each fault does what it says, to connections old and new, and is counted."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from devservers.processes import wait_until

from .proxy import (
    HANG,
    REFUSE,
    RESET,
    STALL_REPLY,
    SWALLOW_REPLY,
    Fault,
    FaultProxy,
    cut_after,
    delay,
    flip,
    garbage,
    hold_request,
)  # fmt: skip


class EchoServer(socketserver.ThreadingTCPServer):
    """Answers each line with the same line, and remembers what it was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        address: str | tuple[str, int],
        family: int = socket.AF_INET,
        handler: type[socketserver.StreamRequestHandler] | None = None,
    ) -> None:
        self.address_family = family
        self.asked: list[bytes] = []
        super().__init__(address, handler or _Echo)  # type: ignore[arg-type] # a path, with a Unix socket


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, EchoServer)
        for line in self.rfile:
            if line == b"leave\n":
                return
            self.server.asked.append(line)
            self.wfile.write(line)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EchoServer]:
    """A server on a TCP port, and one on a Unix socket."""
    made = EchoServer(("127.0.0.1", 0)) if request.param == "tcp" else EchoServer(str(tmp_path / "s"), socket.AF_UNIX)
    with _serving(made):
        yield made


@contextmanager
def _serving(server: EchoServer) -> Iterator[EchoServer]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[FaultProxy]:
    address = server.server_address
    with FaultProxy(address) if isinstance(address, str) else FaultProxy(str(address[0]), int(address[1])) as made:
        yield made


class Client:
    """A client with little patience."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(self, text: bytes) -> bytes:
        """What comes back at first."""
        self._socket.sendall(text + b"\n")
        return self.hear()

    def hear(self) -> bytes:
        return self._socket.recv(1000)

    def gets_nothing(self, text: bytes = b"") -> bool:
        """Whether a question remains unanswered with the connection open."""
        self._socket.settimeout(0.05)
        try:
            if text:
                self._socket.sendall(text + b"\n")
            self._socket.recv(1000)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(5)
        return False


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[Client]:
    """A client that was served before anything failed."""
    with Client(proxy) as made:
        assert made.ask(b"before") == b"before\n"
        yield made


def test_without_a_fault_everything_goes_through(proxy: FaultProxy, server: EchoServer, client: Client) -> None:
    """Both ways, and both are counted; no fault has bitten."""
    with Client(proxy) as other:
        assert other.ask("こんにちは".encode()) == "こんにちは\n".encode()
    wait_until(lambda: proxy.connections == 1, "the end of the other connection")
    assert server.asked == [b"before\n", "こんにちは\n".encode()]
    assert proxy.counters.accepted == 2
    assert proxy.counters.bytes_to_server == proxy.counters.bytes_to_client == sum(map(len, server.asked))
    assert not proxy.hits


def test_an_end_is_passed_on(client: Client) -> None:
    """A server that closes is seen to have closed."""
    assert client.ask(b"leave") == b""


def test_a_server_that_is_not_there_is_an_end(tmp_path: Path) -> None:
    """The proxy cannot refuse for it, but it closes."""
    with FaultProxy(str(tmp_path / "nothing")) as proxy, Client(proxy) as client:
        assert client.ask(b"hello") == b""


def test_refused_connections_are_refused_by_the_kernel(proxy: FaultProxy, client: Client) -> None:
    """Old ones are closed, new ones get ECONNREFUSED, and the port is still the proxy's afterwards."""
    for _ in range(2):
        with proxy.failing(REFUSE):
            with pytest.raises(ConnectionRefusedError):
                Client(proxy)
            assert client.hear() == b""
        with Client(proxy) as new:
            assert new.ask(b"again") == b"again\n"
    assert proxy.hits["refuse"] >= 3  # an attempt each time, and the client that was there
    assert proxy.counters.accepted == 3


def test_connections_are_refused_though_another_process_has_the_socket(proxy: FaultProxy) -> None:
    """As a process has that is just being started by another thread."""
    listener = proxy._listener
    assert listener is not None
    copy = socket.socket(fileno=os.dup(listener.sockets[0].fileno()))
    with closing(copy), proxy.failing(REFUSE), pytest.raises(ConnectionRefusedError):
        Client(proxy)


def test_a_hang_answers_nothing_and_loses_what_is_said(proxy: FaultProxy, server: EchoServer, client: Client) -> None:
    """Old connections and new ones. Afterwards those that lost something are reset, idle ones live on."""
    with Client(proxy) as new, Client(proxy) as idle:
        with proxy.failing(HANG):
            assert client.gets_nothing(b"lost")
            assert new.gets_nothing(b"lost too")
            with Client(proxy) as late:
                assert late.gets_nothing(b"lost as well")
            assert proxy.hits["hang"] == 3
        for broken in (client, new):
            with pytest.raises(ConnectionResetError):
                broken.hear()
        assert idle.ask(b"after") == b"after\n"
    assert server.asked == [b"before\n", b"after\n"]


def test_a_hang_hides_the_end_of_the_server(proxy: FaultProxy, client: Client) -> None:
    """A host that is gone says nothing of the processes on it."""
    with proxy.failing(STALL_REPLY):
        assert client.gets_nothing(b"leave")
        proxy.impose(HANG)
        assert client.gets_nothing()
    assert client.hear() == b""


def test_a_reset_is_a_reset(proxy: FaultProxy, server: EchoServer, client: Client) -> None:
    """For every client; the server gets nothing of it."""
    with proxy.failing(RESET), Client(proxy) as new:
        for one in (client, new):
            with pytest.raises(ConnectionResetError):
                one.ask(b"reset")
    assert proxy.hits["reset"] == 2
    assert server.asked == [b"before\n"]


def test_a_swallowed_reply_was_given_by_the_server(proxy: FaultProxy, server: EchoServer, client: Client) -> None:
    """What was asked is done; the connection stays and serves the next question, the reply never comes."""
    with proxy.failing(SWALLOW_REPLY):
        assert client.gets_nothing(b"done")
        wait_until(lambda: proxy.hits["swallow_reply"] == 1, "the reply")
    assert server.asked == [b"before\n", b"done\n"]
    assert client.gets_nothing()
    assert client.ask(b"next") == b"next\n"


@pytest.mark.parametrize("ends", [True, False], ids=["the fault ends", "the time is over"])
def test_a_question_that_is_held_back_arrives_late(
    proxy: FaultProxy, server: EchoServer, client: Client, ends: bool
) -> None:
    """Its client has given up by then; the server has not seen it before."""
    with proxy.failing(hold_request(60 if ends else 0.5)):
        began = time.monotonic()
        assert client.gets_nothing(b"late")
        assert server.asked == [b"before\n"] or time.monotonic() - began >= 0.5
        wait_until(lambda: proxy.hits["hold_request"] == 1, "the question")
        if not ends:
            wait_until(lambda: server.asked == [b"before\n", b"late\n"], "the late question")
    wait_until(lambda: server.asked == [b"before\n", b"late\n"], "the late question")
    assert client.hear() == b"late\n"


@pytest.mark.parametrize("fault", [STALL_REPLY, delay(60)], ids=lambda fault: fault.name)
def test_a_reply_that_is_held_back_comes_when_the_fault_is_over(
    proxy: FaultProxy, server: EchoServer, client: Client, fault: Fault
) -> None:
    """It is the reply to the question from before, late as it is."""
    with proxy.failing(fault):
        assert client.gets_nothing(b"done")
        wait_until(lambda: proxy.hits[fault.name] == 1, "the reply")
        assert server.asked == [b"before\n", b"done\n"]
    assert client.hear() == b"done\n"


def test_a_reply_that_is_held_back_follows_the_next_fault(proxy: FaultProxy, client: Client) -> None:
    """From one fault to another nothing slips through."""
    with proxy.failing(STALL_REPLY):
        assert client.gets_nothing(b"done")
        wait_until(lambda: proxy.hits["stall_reply"] == 1, "the reply")
        proxy.impose(SWALLOW_REPLY)
        wait_until(lambda: proxy.hits["swallow_reply"] == 1, "the same reply")
    assert client.gets_nothing()


def test_a_delay_is_a_delay(proxy: FaultProxy, client: Client) -> None:
    """The reply comes, and not before its time."""
    with proxy.failing(delay(0.02)):
        began = time.monotonic()
        assert client.ask(b"late") == b"late\n"
        assert time.monotonic() - began >= 0.02
    assert proxy.hits["delay"] == 1


@pytest.mark.parametrize(("count", "comes"), [(0, b""), (3, b"cut"), (4, b"cut\n")])
def test_a_reply_is_cut(proxy: FaultProxy, server: EchoServer, client: Client, count: int, comes: bytes) -> None:
    """So many bytes, then the end."""
    with proxy.failing(cut_after(count)):
        assert client.ask(b"cut") == comes
        assert client.hear() == b""
    assert proxy.hits["cut_after"] == 1
    assert server.asked == [b"before\n", b"cut\n"]


def test_a_shorter_reply_is_not_cut(proxy: FaultProxy, client: Client) -> None:
    """Bytes are counted anew for each reply, and a fault that did not bite is not counted."""
    with proxy.failing(cut_after(6)):
        assert [client.ask(b"abc") for _ in range(3)] == [b"abc\n"] * 3
        assert proxy.hits["cut_after"] == 0
        assert client.ask(b"abcdefgh") == b"abcdef"
    assert proxy.hits["cut_after"] == 1


def test_garbage_comes_instead_of_the_reply(proxy: FaultProxy, client: Client) -> None:
    """Once for each question, and the truth again when it is over."""
    with proxy.failing(garbage(b"\xff\x00")):
        assert [client.ask(b"what") for _ in range(2)] == [b"\xff\x00"] * 2
    assert client.ask(b"what") == b"what\n"
    assert proxy.hits["garbage"] == 2


@pytest.mark.parametrize(("at", "comes"), [(0, b"`bc\n"), (1, b"acc\n"), (5, b"acc\n"), (-2, b"abb\n")])
def test_one_bit_is_turned_over(proxy: FaultProxy, client: Client, at: int, comes: bytes) -> None:
    """At the byte that was named."""
    with proxy.failing(flip(at)):
        assert client.ask(b"abc") == comes
    assert client.ask(b"abc") == b"abc\n"
    assert proxy.hits["flip"] == 1


def test_connections_can_be_dropped(proxy: FaultProxy, client: Client) -> None:
    """All of them end, held back or not; the next one is served."""
    with proxy.failing(STALL_REPLY), Client(proxy) as other:
        assert other.gets_nothing(b"held")
        proxy.drop_connections()
        assert proxy.connections == 0
        assert [client.hear(), other.hear()] == [b"", b""]
    with Client(proxy) as new:
        assert new.ask(b"new") == b"new\n"


@pytest.mark.parametrize("fault", [HANG, STALL_REPLY, delay(60)], ids=lambda fault: fault.name)
def test_the_proxy_ends_with_connections_open(server: EchoServer, proxy: FaultProxy, fault: Fault) -> None:
    """Whatever it holds back; and its port is free then."""
    with ExitStack() as ends:
        with FaultProxy("127.0.0.1", proxy.port) as second:
            client = ends.enter_context(Client(second))
            second.impose(fault)
            assert client.gets_nothing(b"held")
            wait_until(lambda: second.hits[fault.name] == 1, "the fault")
        assert client.hear() == b""
        with pytest.raises(ConnectionRefusedError):
            Client(second)


def test_new_connections_are_led_to_another_server(proxy: FaultProxy, server: EchoServer, client: Client) -> None:
    """No client is refused between the two, and what is connected stays where it is."""
    with _serving(EchoServer(("127.0.0.1", 0))) as other:
        proxy.lead_to(int(other.server_address[1]))
        with Client(proxy) as newcomer:
            assert newcomer.ask(b"new") == b"new\n"
        assert client.ask(b"old") == b"old\n"
        assert (server.asked, other.asked) == ([b"before\n", b"old\n"], [b"new\n"])


class _Greeter(_Echo):
    def handle(self) -> None:
        self.wfile.write(b"welcome\n")
        super().handle()


@pytest.fixture
def greeting() -> Iterator[FaultProxy]:
    """Before a server that speaks first."""
    server = EchoServer(("127.0.0.1", 0), handler=_Greeter)
    with _serving(server), FaultProxy("127.0.0.1", int(server.server_address[1]), greets=True) as made:
        yield made


def test_a_server_that_speaks_first_reaches_a_client_that_says_nothing(greeting: FaultProxy) -> None:
    """And answers afterwards as any other."""
    with Client(greeting) as client:
        assert client.hear() == b"welcome\n"
        assert client.ask(b"thanks") == b"thanks\n"
    assert not greeting.hits


@pytest.mark.parametrize("fault", [HANG, SWALLOW_REPLY, STALL_REPLY, delay(60)], ids=lambda fault: fault.name)
def test_a_greeting_may_be_kept_back(greeting: FaultProxy, fault: Fault) -> None:
    """It is the answer to having connected, and counted as such."""
    with greeting.failing(fault), Client(greeting) as client:
        assert client.gets_nothing()
        wait_until(lambda: greeting.hits[fault.name] == 1, "the greeting")
    with Client(greeting) as client:
        assert client.hear() == b"welcome\n"


def test_instead_of_a_greeting_there_may_be_an_end(greeting: FaultProxy) -> None:
    """A reset, another protocol, half of it."""
    with greeting.failing(RESET), pytest.raises(ConnectionResetError), Client(greeting) as client:
        client.hear()
    with greeting.failing(garbage(b"SSH-2.0")), Client(greeting) as client:
        assert client.hear() == b"SSH-2.0"
    with greeting.failing(cut_after(3)), Client(greeting) as client:
        assert [client.hear(), client.hear()] == [b"wel", b""]
    assert (greeting.hits["reset"], greeting.hits["garbage"], greeting.hits["cut_after"]) == (1, 1, 1)


def test_its_address_as_a_url(proxy: FaultProxy) -> None:
    """Plain, or in the place of a server's own."""
    assert proxy.url("redis") == f"redis://127.0.0.1:{proxy.port}"
    url = "postgresql+psycopg://postgres:p%40ss@db.internal:5432/postgres?connect_timeout=2"
    assert proxy.instead_of(url) == url.replace("db.internal:5432", f"127.0.0.1:{proxy.port}")
    assert proxy.instead_of("redis://h/0") == proxy.url("redis") + "/0"

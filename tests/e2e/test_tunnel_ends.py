"""Who has said all in a tunnel is heard to the end, even if the other side still talks, or the connection fails after it."""
import contextlib
import socket
import ssl
import threading

import h2.errors
import h2.settings
import pytest

from h2_client import H2Client
from h2_origin import H2Origin
from wire import Closed, Connection, wait_until

BYTES = 100_000     # more than sockets with small buffers take, and less than what a tunnel queues
SMALL_BUFFER = 4096
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ASK = ("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")


def with_small_buffer(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    return sock


def hello(name):
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


class H1Front:
    """A client of HTTP/1.1, or of nothing, that reads late."""

    def __init__(self, gateway, host, kind):
        sock = with_small_buffer(socket.socket())
        sock.settimeout(30)
        sock.connect(("127.0.0.1", gateway.port))
        if kind != "passthrough":
            sock = gateway.tls_context().wrap_socket(sock, server_hostname=host)
        self.wire, self.kind = Connection(sock), kind
        self.send({"passthrough": hello(host), "tcp": b"x", "h1": ASK.format(host=host).encode()}[kind])

    def send(self, data):
        self.wire.send(data)

    def leave(self):
        """With close_notify, whoever still talks."""
        self.wire.sock.settimeout(0)
        with contextlib.suppress(OSError):
            self.wire.sock.unwrap()
        self.wire.close()

    def read_all(self):
        """How many bytes come until an end in order."""
        if self.kind == "h1":
            assert self.wire.read_head().status == 101
        return len(self.wire.read_rest())


class H2Front:
    """A client of HTTP/2 with a window of 10 bytes, until it reads."""

    def __init__(self, gateway, host, _kind):
        self.client = H2Client(gateway, host)
        self.client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
        self.client.flush()
        self.number = self.client.send("CONNECT", "/", end=False, pseudo=[(":protocol", "websocket")])
        self.stream = self.client.streams[self.number]
        self.client.slow.add(self.number)
        self.client.wait(lambda: self.stream.status)

    def send(self, data, end=False):
        self.client.data(self.number, data, end=end)

    def leave(self):
        self.send(b"", end=True)
        self.client.h2.close_connection()
        self.client.flush()
        self.client.wire.close()

    def read_all(self):
        self.client.h2.increment_flow_control_window(1 << 20, self.number)
        self.client.h2.increment_flow_control_window(1 << 20)
        self.client.flush()
        self.client.wait(lambda: self.stream.ended or self.stream.reset is not None)
        assert self.stream.ended
        return len(self.stream.body)


FRONTS = {"tcp": H1Front, "h1": H1Front, "h2": H2Front, "passthrough": H1Front}


def put(gateway, server, kind):
    protocol = kind if kind in ("tcp", "passthrough", "h2c") else "http"
    return gateway.app(server, ports=[{"port": server.port, "protocol": protocol}])


def is_over(gateway, host):
    return any(line["host"] == host for line in gateway.log_lines())


@pytest.mark.parametrize("kind", FRONTS)
def test_the_app_has_said_all_and_the_client_still_talks(gateway, origin, kind):
    """What it says makes the app's system answer with a reset."""
    closed = threading.Event()

    def app(connection):
        if kind in ("h1", "h2"):
            connection.read_head()
            connection.send(SWITCH)
        else:
            connection.read_some()
        connection.send(b"y" * BYTES)
        connection.close()
        closed.set()
    host = put(gateway, origin(script=app), kind).host()
    front = FRONTS[kind](gateway, host, kind)
    assert closed.wait(30)

    def talks():
        front.send(b"late")
        return is_over(gateway, host)
    wait_until(talks, "the app's reset")
    assert front.read_all() == BYTES


@pytest.mark.parametrize("kind", ["tcp", "h1", "h2"])
def test_the_client_has_said_all_and_the_app_still_talks(gateway, origin, kind):
    """A client that has left answers with a reset."""
    left, heard = threading.Event(), []

    def app(connection):
        if kind != "tcp":
            connection.read_head()
            connection.send(SWITCH)
        assert left.wait(30)

        def talks():
            connection.send(b"tick")
            return is_over(gateway, host)
        wait_until(talks, "the client's reset")
        try:
            heard.append(len(connection.read_rest()))
        except Closed as error:
            heard.append(error)
    server = origin(script=app)
    with_small_buffer(server.listener)
    host = put(gateway, server, kind).host()
    front = FRONTS[kind](gateway, host, kind)
    front.send(b"u" * BYTES)
    front.leave()
    left.set()
    wait_until(lambda: heard, "the app's end")
    asked = 1 if kind == "tcp" else 0
    assert heard == [BYTES + asked]


@pytest.mark.parametrize("kind", ["h1", "h2"])
@pytest.mark.parametrize("then", ["reset", "goaway"])
def test_an_app_of_http_2_has_said_all_and_ends_the_stream(gateway, kind, then):
    """RFC 9113 section 8.1: RST_STREAM with NO_ERROR after END_STREAM is no failure."""
    def app(peer, request):
        peer.head(request, 200)
        peer.data(request, b"y" * BYTES, end=True)
        if then == "reset":
            peer.reset(request, h2.errors.ErrorCodes.NO_ERROR)
        else:
            peer.h2.close_connection()
            peer.flush()
            peer.wire.close()
    server = H2Origin(app, early=True, settings={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    with contextlib.closing(server):
        host = put(gateway, server, "h2c").host()
        front = FRONTS[kind](gateway, host, kind)
        if then == "reset":
            wait_until(lambda: is_over(gateway, host), "the reset")
        assert front.read_all() == BYTES

"""Streams: what is sent arrives at once, and what a slow peer does not take is not hoarded."""
import ssl
import threading
import time

import pytest

from origin import respond
from wire import wait_until

MIB = 1 << 20
HOARD = 64 * MIB        # more than all socket buffers on the way, far less than what is sent
TOTAL = 256 * MIB


def test_server_sent_events(gateway, origin):
    """Each event is there before the next one is sent."""
    go = threading.Event()

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(20):
            connection.send_chunk(b"data: %d\n\n" % number)
            assert go.wait(20)
            go.clear()
        connection.send_chunk(b"")
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nAccept: text/event-stream\r\n\r\n")
        assert connection.read_head().get("Content-Type") == "text/event-stream"
        for number in range(20):
            assert connection.read_chunk() == b"data: %d\n\n" % number
            go.set()
        assert connection.read_chunk() == b""


def test_head_comes_before_the_body(gateway, origin):
    go = threading.Event()

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        assert go.wait(20)
        connection.send(b"hello")
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        head = connection.read_head()
        go.set()
        assert connection.read_body(head).body == b"hello"


def test_request_body_streams(gateway, origin):
    """The app gets each piece of an upload while the client still sends."""
    pieces = []

    def script(connection):
        head = connection.read_head()
        for _ in range(10):
            pieces.append(connection.read(5))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert head.get("Content-Length") == "50"
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 50\r\n\r\n")
        for number in range(10):
            connection.send(b"%5d" % number)
            wait_until(lambda count=number + 1: len(pieces) == count, "the piece")
        assert connection.read_response().status == 200


class Meter:
    """Follows the gateway's memory while something runs."""

    def __init__(self, gateway):
        self.gateway, self.before, self.most = gateway, gateway.rss(), 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.ended.wait(0.1):
            self.most = max(self.most, self.gateway.rss())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def assert_flat(self):
        assert self.most - self.before < 48 * MIB, f"{self.before >> 20} MiB became {self.most >> 20} MiB"


def wait_until_it_stalls(counter):
    """Until the count has not moved for a second."""
    def stalled():
        before = counter[0]
        time.sleep(1)
        return counter[0] == before and before > 0
    wait_until(stalled, "the sender to be held back", 60)


@pytest.mark.parametrize("chunked", [False, True])
def test_download_to_a_slow_reader(gateway, origin, chunked):
    sent = [0]
    block = bytes(MIB)

    def script(connection):
        connection.read_head()
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {TOTAL}"
        connection.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")
        while sent[0] < TOTAL:
            connection.sock.sendall(b"%x\r\n%s\r\n" % (MIB, block) if chunked else block)
            sent[0] += MIB
        if chunked:
            connection.send_chunk(b"")
        connection.read_rest()
    app = gateway.app(origin(script=script))
    with Meter(gateway) as meter, gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        head = connection.read_head()
        wait_until_it_stalls(sent)
        assert sent[0] < HOARD
        received = 0
        if chunked:
            while data := connection.read_chunk():
                received += len(data)
        else:
            received = len(connection.buffer)
            while received < TOTAL:
                received += len(connection.sock.recv(MIB))
        assert received == TOTAL and head.status == 200
    meter.assert_flat()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"])
def test_pipelining_to_a_slow_reader(gateway, origin, version):
    """Each answer is small: it is their number that must not be hoarded."""
    size, count = 60000, 2000
    asked = [0]

    def answer(_, request):
        asked[0] += 1
        return respond(request.target.encode().ljust(size, b"."))
    app = gateway.app(origin(answer))
    with gateway.connect(app.host(), gateway.tls_context(version=version)) as connection:
        with Meter(gateway) as meter:       # until here nobody reads; freed memory in quarantine comes later
            for number in range(count):
                connection.send(f"GET /{number} HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
            wait_until_it_stalls(asked)
        meter.assert_flat()
        assert asked[0] * size < HOARD
        for number in range(count):
            message = connection.read_response()
            assert message.status == 200 and message.body == f"/{number}".encode().ljust(size, b".")
    assert asked[0] == count


def test_upload_to_a_slow_reader(gateway, origin):
    sent, received, go = [0], [0], threading.Event()

    def script(connection):
        connection.read_head()
        assert go.wait(60)
        received[0] = len(connection.buffer)
        while received[0] < TOTAL:
            data = connection.sock.recv(MIB)
            assert data
            received[0] += len(data)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    app = gateway.app(origin(script=script))
    with Meter(gateway) as meter, gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: {TOTAL}\r\n\r\n")
        connection.sock.settimeout(60)

        def send():
            block = bytes(MIB)
            while sent[0] < TOTAL:
                connection.sock.sendall(block)
                sent[0] += MIB
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        wait_until_it_stalls(sent)
        assert sent[0] < HOARD
        go.set()
        sender.join(120)
        assert connection.read_response().status == 200
    assert received[0] == TOTAL
    meter.assert_flat()


def test_tunnel_with_a_slow_reader(gateway, origin):
    sent = [0]

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        block = bytes(MIB)
        while sent[0] < TOTAL // 2:
            connection.sock.sendall(block)
            sent[0] += MIB
    app = gateway.app(origin(script=script))
    with Meter(gateway) as meter, gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        assert connection.read_response().status == 101
        wait_until_it_stalls(sent)
        assert sent[0] < HOARD
        received = len(connection.buffer)
        while data := connection.sock.recv(MIB):
            received += len(data)
        assert received == TOTAL // 2
    meter.assert_flat()


def test_many_idle_connections_cost_little(gateway, origin):
    app = gateway.app(origin())
    context = gateway.tls_context()
    before = gateway.rss()
    connections = []
    try:
        for _ in range(200):
            connections.append(gateway.connect(app.host(), context))
            connections[-1].request("GET", "/", app.host())
        assert gateway.rss() - before < 200 * 200 * 1024        # TLS state under ASan; no buffers of ours
    finally:
        for connection in connections:
            connection.close()

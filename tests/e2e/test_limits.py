"""Limits and deadlines, with short values; the defaults where they are small enough."""
import threading
import time

import pytest

from gateway import DOMAIN
from h2_frames import DATA, HEADERS, FrameClient, frame
from origin import OK, respond
from wire import Closed, wait_until


@pytest.fixture(scope="module")
def short(tmp_path_factory, authority):
    """A gateway with deadlines of a second."""
    from gateway import Gateway
    gateway = Gateway(tmp_path_factory.mktemp("short"), authority, timeouts={
        "request_head": "1s", "request_body_idle": "1s", "keepalive": "1s", "first_byte": "1s", "response_idle": "1s",
        "tunnel_idle": "1s", "send_stall": "1s", "upstream_idle": "1s", "request_body_min_rate": 100})
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture
def app(gateway, origin):
    return gateway.app(origin())


def test_large_head(gateway, app):
    fields = {f"X-{number}": "a" * 1000 for number in range(30)}
    assert gateway.fetch("GET", "/", app.host(), **fields).status == 200
    fields |= {f"Y-{number}": "a" * 1000 for number in range(5)}
    answer = gateway.fetch("GET", "/", app.host(), **fields)
    assert answer.status == 431 and answer.error == "head_too_large"


def test_large_head_without_an_end(gateway, app):
    with gateway.connect(app.host()) as connection:
        try:
            connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nA: " + "a" * 100000)
        except OSError:
            pass
        assert connection.read_response().status == 431


def test_many_fields(gateway, app):
    for count, status in ((90, 200), (101, 431)):
        answer = gateway.fetch("GET", "/", app.host(), **{f"X{number}": "a" for number in range(count)})
        assert answer.status == status
        assert (answer.error == "too_many_fields") == (status == 431)


def test_long_target(gateway, app):
    assert gateway.fetch("GET", "/" + "a" * 8000, app.host()).status == 200
    answer = gateway.fetch("GET", "/" + "a" * 9000, app.host())
    assert answer.status == 414 and answer.error == "target_too_long"


def test_large_response_head(gateway, origin):
    app = gateway.app(origin(respond(b"", "200 OK", *(f"X-{number}: {'a' * 1000}" for number in range(100)))))
    answer = gateway.fetch("GET", "/", app.host())
    assert answer.status == 502 and answer.error == "upstream_head_too_large"


def test_long_chunk_extensions(gateway, origin):
    """Extensions must not be a way to send for ever without sending anything."""
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        try:
            connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
                            "a" * 200000)
        except OSError:
            pass
        assert connection.read_response().status == 400
    assert not server.requests


def test_configured_limits(make_gateway, origin):
    gateway = make_gateway(limits={"request_head": "2KiB", "request_fields": 10, "request_target": 100})
    app = gateway.app(origin())
    assert gateway.fetch("GET", "/", app.host(), A="a" * 1000).status == 200
    assert gateway.fetch("GET", "/", app.host(), A="a" * 3000).status == 431
    assert gateway.fetch("GET", "/", app.host(), **{f"X{number}": "a" for number in range(12)}).status == 431
    assert gateway.fetch("GET", "/" + "a" * 200, app.host()).status == 414


def test_head_deadline(short, origin):
    app = short.app(origin())
    with short.connect(app.host()) as connection:
        connection.send("GET / HTTP/1.1\r\nHost:")
        answer = connection.read_response()
        assert answer.status == 408 and answer.error == "head_timeout"
        assert connection.is_closed()


def test_head_deadline_is_not_prolonged_by_bytes(short, origin):
    app = short.app(origin())
    with short.connect(app.host()) as connection:
        start = time.monotonic()
        try:
            for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100:
                connection.send(bytes([byte]))
                if not connection.is_silent(0.1):
                    break
        except OSError:
            pass
        assert time.monotonic() - start < 15


def test_idle_connection_is_closed(short, origin):
    app = short.app(origin())
    with short.connect(app.host()) as connection:
        assert connection.request("GET", "/", app.host()).status == 200
        assert connection.is_closed()
    with short.connect(app.host()) as connection:
        assert connection.is_closed()


def test_body_deadline(short, origin):
    app = short.app(origin())
    with short.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 10\r\n\r\nabc")
        answer = connection.read_response()
        assert answer.status == 408 and answer.error in ("body_timeout", "body_too_slow")
        assert connection.is_closed()


def test_slow_body(short, origin):
    """A byte now and then is not enough: there is a minimum rate."""
    app = short.app(origin())
    with short.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 10000\r\n\r\n")
        try:
            for _ in range(40):
                connection.send(b"a")
                time.sleep(0.2)
        except OSError:
            pass
        answer = connection.read_response()
        assert answer.status == 408 and answer.error == "body_too_slow"


def test_silent_client_of_an_answer_that_has_begun(short, origin):
    """Both speak at once: the client has nothing to say for longer than the deadline of a body, the app has."""
    def script(connection):
        connection.read_head()
        assert connection.read_chunk() == b"question"
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(15):
            connection.send_chunk(b"%d" % number)
            time.sleep(0.2)
        connection.send_chunk(connection.read_chunk())
        connection.send_chunk(b"")
    app = short.app(origin(script=script))
    with short.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_chunk(b"question")
        assert connection.read_head().status == 200
        assert [connection.read_chunk() for _ in range(15)] == [b"%d" % number for number in range(15)]
        connection.send_chunk(b"thanks")
        assert connection.read_chunk() == b"thanks" and connection.read_chunk() == b""


def test_silent_dialogue(short, origin):
    """An answer that has begun is no way to be silent for ever: if neither side speaks, it ends."""
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.read_rest()
    app = short.app(origin(script=script))
    with short.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert connection.read_head().status == 200
        assert connection.is_closed()


def test_an_h2_body_is_due_after_100_continue(make_gateway, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_rest()
    gateway = make_gateway(timeouts={"request_body_idle": "1s", "request_body_min_rate": 1, "first_byte": "15s"})
    app = gateway.app(origin(script=script))
    with FrameClient(gateway, app.host()) as client:
        client.request(1, ("expect", "100-continue"), ("content-length", "10"), end=False, method="POST")
        head = client.wait(lambda f: f.kind == HEADERS)
        assert dict(head.fields)[":status"] == "100"
        client.send(frame(DATA, 0, 1, b"01234"))
        last = client.wait(lambda f: f.kind == HEADERS and dict(f.fields)[":status"] != "100")
        assert dict(last.fields)[":status"] == "408"


def test_first_byte_deadline(short, origin):
    def script(connection):
        connection.read_head()
        connection.read_rest()
    app = short.app(origin(script=script))
    answer = short.fetch("GET", "/", app.host())
    assert answer.status == 504 and answer.error == "upstream_timeout"


def test_stalled_response(short, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        connection.read_rest()
    app = short.app(origin(script=script))
    with short.connect(app.host()) as connection, pytest.raises(Closed):
        connection.request("GET", "/", app.host())
    assert short.log_line(app_id=app.id)["error"] == "upstream_stalled"


def test_stalled_client(short, origin):
    """A client that does not read its response is let go."""
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            connection.send(bytes(1 << 20))
    server = origin(script=script)
    app = short.app(server)
    with short.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert short.log_line(app_id=app.id)["error"] == "client_stalled"
        wait_until(lambda: server.connections[0].sock.fileno() == -1, "the upstream connection to end")


def test_idle_tunnel(short, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        connection.read_rest()
    app = short.app(origin(script=script))
    with short.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        assert connection.read_response().status == 101
        for _ in range(5):
            time.sleep(0.4)
            connection.send(b"a")       # traffic keeps it
        assert connection.is_closed()
    assert short.log_line(app_id=app.id)["error"] == "tunnel_idle"


def test_idle_pooled_connection_is_closed(short, origin):
    server = origin()
    app = short.app(server)
    assert short.fetch("GET", "/", app.host()).status == 200
    wait_until(lambda: server.connections[0].sock.fileno() == -1, "the pooled connection to end")


def test_slow_but_steady_passes(short, origin):
    """Deadlines are about silence: what trickles on for longer than each of them is served whole."""
    def answer(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            time.sleep(0.3)
            connection.send(b"a")
    app = short.app(origin(answer))
    with short.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 2000\r\n\r\n")
        for _ in range(10):
            time.sleep(0.2)
            connection.send(b"a" * 200)
        assert connection.read_response().body == b"a" * 10


def test_full_worker_closes_idle_connections(make_gateway, origin):
    gateway = make_gateway(workers=1, limits={"max_connections": 10})
    app = gateway.app(origin())
    connections = []
    for _ in range(30):
        connections.append(gateway.connect(app.host()))
        assert connections[-1].request("GET", "/", app.host()).status == 200
    wait_until(lambda: gateway.metric("connections_evicted_total") >= 20, "evictions")
    assert connections[0].is_closed() and not connections[-1].is_closed(0.2)
    for connection in connections:
        connection.close()


def test_full_worker_keeps_busy_connections(make_gateway, origin):
    go = threading.Event()

    def answer(connection, request):
        if request.target == "/wait":
            go.wait(30)
        return OK
    gateway = make_gateway(workers=1, limits={"max_connections": 5})
    server = origin(answer)
    app = gateway.app(server)
    busy = [gateway.connect(app.host()) for _ in range(5)]
    for connection in busy:
        connection.send(f"GET /wait HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    wait_until(lambda: len(server.requests) == 5, "the requests")
    for _ in range(5):
        try:
            with gateway.connect(app.host()) as connection:
                connection.request("GET", "/", app.host())
        except (OSError, Closed):
            pass
    go.set()
    for connection in busy:
        assert connection.read_response().status == 200
        connection.close()
    assert gateway.fetch("GET", "/", f"health.{DOMAIN}").status == 200

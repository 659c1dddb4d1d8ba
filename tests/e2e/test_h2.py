"""HTTP/2 in front, HTTP/1.1 behind: a scripted client, curl and nghttp."""
import os
import signal
import struct
import subprocess
import threading

import pytest

from gateway import OTHER_DOMAIN
from h2_client import H2Client, Stream
from origin import OK, respond
from wire import Closed, wait_until

NO_ERROR, INTERNAL_ERROR = 0, 2


@pytest.fixture
def app(gateway, origin):
    return gateway.app(origin(lambda connection, request: respond(request.start.encode() + b"|" + request.body)))


def test_curl_and_nghttp(gateway, origin):
    app = gateway.app(origin(respond(b"x" * 300000)))
    result = gateway.curl(f"https://{app.host()}/", "--http2", "-w", "%{http_version}")
    assert result.returncode == 0 and result.stdout == b"x" * 300000 + b"2", result.stderr
    assert gateway.log_line(app_id=app.id)["protocol"] == "h2"
    result = subprocess.run(["nghttp", "-nv", "-m5", "--no-verify-peer", f"https://127.0.0.1:{gateway.port}/",
                             "-H", f":authority: {app.host()}"],
                            capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert result.stdout.count(b":status: 200") >= 1, result.stdout


def test_each_stream_is_routed_by_its_authority(gateway, origin):
    one, two = gateway.app(origin(respond(b"one"))), gateway.app(origin(respond(b"two")))
    with H2Client(gateway, one.host()) as client:
        for _ in range(3):
            assert client.fetch("GET", "/").body == b"one"
            assert client.fetch("GET", "/", host=two.host()).body == b"two"
        # a coalesced connection to a domain that this certificate does not name
        answer = client.fetch("GET", "/", host=one.host(domain=OTHER_DOMAIN))
        assert answer.status == 421
        assert client.fetch("GET", "/").body == b"one"


def test_parallel_streams(gateway, app):
    with H2Client(gateway, app.host()) as client:
        numbers = [client.send("GET", f"/{i}") for i in range(100)]
        for i, number in enumerate(numbers):
            answer = client.response(number)
            assert answer.status == 200 and answer.body == f"GET /{i} HTTP/1.1|".encode()


def test_a_slow_stream_beside_a_fast_one(gateway, origin):
    def answer(_, request):
        return respond(b"s" * 4000000) if request.target == "/slow" else respond(b"f" * 1000000)
    app = gateway.app(origin(answer))
    with H2Client(gateway, app.host()) as client:
        client.h2.increment_flow_control_window(1 << 24)
        slow = client.send("GET", "/slow")
        client.slow.add(slow)
        for _ in range(3):
            assert len(client.fetch("GET", "/fast").body) == 1000000
        stream = client.streams[slow]
        assert stream.status == 200 and 0 < len(stream.body) <= 65535
        client.slow.remove(slow)
        client.h2.increment_flow_control_window(1 << 24, slow)
        client.flush()
        assert client.response(slow).body == b"s" * 4000000


def test_a_cancelled_stream_ends_the_request_upstream(gateway, origin):
    closed, got = threading.Event(), threading.Event()

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        got.set()
        try:
            connection.fill()
        except (Closed, OSError):
            closed.set()
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        number = client.send("GET", "/gone")
        client.wait(lambda: client.streams[number].body == b"abc")
        client.cancel(number)
        assert closed.wait(20)
        assert gateway.log_line(app_id=app.id)["error"] == "client_cancelled"


def test_upload(gateway, app):
    body = os.urandom(3000000)
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/up", end=False)
        client.data(number, body, end=True)
        answer = client.response(number)
        assert answer.status == 200 and answer.body == b"POST /up HTTP/1.1|" + body


def test_trailers_both_ways(gateway, origin):
    trailers = []

    def script(connection):
        head = connection.read_head()
        while connection.read_chunk(trailers):
            pass
        assert head.get("Transfer-Encoding") == "chunked"
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-out\r\n\r\n"
                        b"2\r\nok\r\n0\r\nX-Out: value\r\n\r\n")
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/", ("te", "trailers"), end=False)
        client.data(number, b"body")
        client.h2.send_headers(number, [("x-in", "value")], end_stream=True)
        client.flush()
        answer = client.response(number)
    assert answer.body == b"ok" and dict(answer.trailers) == {"x-out": "value"}
    assert [(name.lower(), value) for name, value in trailers] == [("x-in", "value")]


def test_interim_responses(gateway, origin):
    app = gateway.app(origin(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + respond(b"ok")))
    with H2Client(gateway, app.host()) as client:
        answer = client.fetch("GET", "/")
    assert [head[":status"] for head in answer.interim] == ["103"] and answer.interim[0]["link"] == "</a>"
    assert answer.status == 200 and answer.body == b"ok"


@pytest.mark.parametrize("method, start, length", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "5"),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "7"),
    ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
])
def test_responses_without_a_body(gateway, origin, method, start, length):
    app = gateway.app(origin(start))
    with H2Client(gateway, app.host()) as client:
        for _ in range(2):
            answer = client.fetch(method, "/")
            assert answer.ended and answer.body == b"" and answer.fields.get("content-length") == length


def test_an_early_response(gateway, origin):
    """The answer is whole; then NO_ERROR says that the rest of the upload is not wanted."""
    def script(connection):
        connection.read_head()
        connection.send(respond(b"no", "413 Content Too Large", "Connection: close"))
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/", end=False)
        client.data(number, b"part")
        stream = client.streams[number]
        client.wait(lambda: stream.reset is not None)
        assert stream.status == 413 and stream.body == b"no" and stream.reset == NO_ERROR
        assert client.fetch("GET", "/").status == 413


def test_upstream_reset_in_the_body(gateway, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        connection.reset()
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        answer = client.fetch("GET", "/")
        assert answer.status == 200 and not answer.ended and answer.reset == INTERNAL_ERROR


@pytest.mark.parametrize("fields", [
    [("x-field", "v")] * 120,
    [("x-field", "v" * 40000)],
])
def test_head_limits(gateway, app, fields):
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/", *fields).status == 431
        assert client.fetch("GET", "/").status == 200


@pytest.mark.parametrize("field", [
    ("connection", "close"), ("transfer-encoding", "chunked"), ("keep-alive", "1"), ("proxy-connection", "x"),
    ("upgrade", "websocket"), ("te", "gzip"), ("X-Upper", "v"), ("bad name", "v"), (":unknown", "v"),
    ("content-length", "5"), ("content-length", "x"),
])
def test_malformed_requests(gateway, origin, field):
    """RFC 9113 section 8.1.1 to 8.2.2: the stream is refused; the app sees nothing, the connection goes on."""
    server = origin()
    app = gateway.app(server)
    with H2Client(gateway, app.host()) as client:
        answer = client.fetch("GET", "/malformed", field)
        assert answer.status == 400 or (answer.status is None and answer.reset == 1), (answer.status, answer.reset)
        assert client.fetch("GET", "/").status == 200
    assert b"malformed" not in server.seen


def test_cookies_are_joined(gateway, origin):
    server = origin()
    app = gateway.app(server)
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/", ("cookie", "a=b"), ("x-y", "z"), ("cookie", "c=d"),
                            ("cookie", "e=f")).status == 200
    assert server.requests[0].get("Cookie") == "a=b; c=d; e=f"


# ---- RFC 8441 ----

def websocket(client, end=False):
    number = client.h2.get_next_available_stream_id()
    client.h2.send_headers(number, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                                    (":path", "/socket"), (":authority", client.host),
                                    ("sec-websocket-version", "13")], end_stream=end)
    client.streams[number] = Stream()
    client.flush()
    return number


def test_websocket(gateway, origin):
    heads = []

    def script(connection):
        heads.append(connection.read_head())
        if heads[-1].target == "/":
            connection.send(respond(b""))
            return
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        b"Sec-WebSocket-Accept: x\r\n\r\n")
        try:
            while True:
                connection.send(connection.read_some())
        except Closed:
            pass
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/").status == 200
        number = websocket(client)
        stream = client.streams[number]
        client.wait(lambda: stream.status)
        assert stream.status == 200 and "sec-websocket-accept" not in stream.fields
        for text in (b"one", b"two" * 30000):
            del stream.body[:]
            client.data(number, text)
            client.wait(lambda text=text: bytes(stream.body) == text)
        client.data(number, b"", end=True)
        assert client.response(number).ended
    assert heads[-1].method == "GET" and heads[-1].get("Upgrade") == "websocket"
    assert heads[-1].get("Sec-WebSocket-Key")
    assert gateway.log_line(app_id=app.id, status=101)["protocol"] == "websocket"


@pytest.mark.parametrize("answer", [respond(b"page"), respond(b"p" * 3000000), respond(), OK[:-2]],
                         ids=["page", "large", "empty", "cut"])
def test_a_websocket_that_the_app_ignores_is_no_tunnel(gateway, origin, answer):
    """A 2xx would say that it is one: the gateway answers, and its log and metrics say so too."""
    def script(connection):
        while connection.read_head().target == "/":
            connection.send(respond(b"ok"))
        connection.send(answer)
        connection.read_rest()
    app = gateway.app(origin(script=script))
    errors = gateway.metric("gateway_errors_total")
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/").status == 200
        number = websocket(client)
        stream = client.streams[number]
        client.wait(lambda: stream.ended or stream.reset is not None)
        assert stream.status == 502 and stream.fields["x-gateway-error"] == "upstream_no_upgrade"
        assert b"p" * 9 not in stream.body and stream.body
        assert client.fetch("GET", "/").status == 200
    line = gateway.log_line(app_id=app.id, path="/socket")
    assert line["status"] == 502 and line["error"] == "upstream_no_upgrade" and line["protocol"] == "h2"
    assert gateway.metric("gateway_errors_total") == errors + 1
    assert gateway.metric("tunnels_active") == 0


def test_a_websocket_that_the_app_refuses(gateway, origin):
    """Its own answer passes, unless it could be taken for a tunnel."""
    app = gateway.app(origin(respond(b"not you", "403 Forbidden")))
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/").status == 403
        stream = client.response(websocket(client))
        assert stream.status == 403 and stream.body == b"not you" and "x-gateway-error" not in stream.fields
    line = gateway.log_line(app_id=app.id, path="/socket")
    assert line["status"] == 403 and "error" not in line


def test_a_websocket_that_ends_at_once_is_refused(gateway, app):
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/").status == 200
        answer = client.response(websocket(client, end=True))
        assert answer.status == 400 or answer.reset == 1


# ---- the end, and floods ----

def test_a_stream_is_finished_after_term(make_gateway, origin):
    go = threading.Event()

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        assert go.wait(20)
        connection.send(b"def")
    gateway = make_gateway()
    app = gateway.app(origin(script=script))
    with H2Client(gateway, app.host()) as client:
        number = client.send("GET", "/")
        client.wait(lambda: client.streams[number].body == b"abc")
        gateway.send_signal(signal.SIGTERM)
        client.wait(lambda: client.goaway)
        assert client.goaway.error_code == NO_ERROR and client.goaway.last_stream_id == number
        go.set()
        # python3-h2 takes no more frames after a GOAWAY: the rest is read from the wire
        rest = bytes(client.wire.read_rest())
        assert b"def" in rest
    assert gateway.wait() == 0


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


FLOODS = {
    "ping": lambda number: frame(6, 0, 0, struct.pack(">Q", number)) * 100,
    "settings": lambda number: frame(4, 0, 0, struct.pack(">HI", 1, number)) * 100,
    "empty data": lambda number: frame(0, 0, number) * 100,
    "window update": lambda number: frame(8, 0, number, struct.pack(">I", 1)) * 100,
    "priority": lambda number: frame(2, 0, number, struct.pack(">IB", 0, 1)) * 100,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_floods_end_the_connection(gateway, app, kind):
    with H2Client(gateway, app.host()) as client, H2Client(gateway, app.host()) as other:
        number = client.send("POST", "/", end=False)
        with pytest.raises((OSError, Closed)):
            for _ in range(400):
                client.wire.send(FLOODS[kind](number))
            client.wire.sock.settimeout(10)
            while True:
                client.wire.fill()
        assert other.fetch("GET", "/").status == 200


def test_rapid_reset(gateway, app):
    """CVE-2023-44487: the connection ends long before all of it was worked on, and nobody else waits."""
    before = gateway.metric("requests_total")
    with H2Client(gateway, app.host()) as client, H2Client(gateway, app.host()) as other:
        try:
            for i in range(10000):
                client.cancel(client.send("GET", f"/{i}"))
                if i % 500 == 499:
                    assert other.fetch("GET", "/").status == 200
        except (Closed, OSError):
            pass
        client.read_end()
        assert other.fetch("GET", "/").status == 200
    assert gateway.metric("requests_total") - before < 4000
    wait_until(lambda: gateway.metric("requests_active") == 0, "all requests to be over")

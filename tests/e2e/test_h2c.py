"""HTTP/2 cleartext behind (prior knowledge), with both HTTP versions in front: python3-h2 as the app, and nghttpd."""
import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import h2.errors
import h2.settings
import pytest
from hpack import NeverIndexedHeaderTuple

from gateway import free_port, new_id
from h2_client import H2Client
from h2_origin import H2Origin
from origin import new_address
from wire import wait_until


@pytest.fixture
def h2_origin():
    """h2_origin(answer, …) starts a server (see h2_origin.H2Origin)."""
    made = []

    def make(*arguments, **options):
        made.append(H2Origin(*arguments, **options))
        return made[-1]
    yield make
    for server in made:
        server.close()
        assert not server.errors, server.errors


def h2c_app(gateway, server):
    return gateway.app(server, ports=[{"port": server.port, "protocol": "h2c"}])


def echo(peer, request):
    peer.respond(request, f"{request.fields[':method']} {request.path}|".encode() + request.body)


@pytest.fixture
def echo_app(gateway, h2_origin):
    return h2c_app(gateway, h2_origin(echo))


def test_h1_to_h2c(gateway, h2_origin):
    server = h2_origin(echo)
    app = h2c_app(gateway, server)
    for i in range(3):
        answer = gateway.fetch("GET", f"/{i}", app.host(), X_Own="kept", Connection="keep-alive")
        assert answer.status == 200 and answer.body == f"GET /{i}|".encode()
    assert gateway.fetch("POST", "/up", app.host(), b"body").body == b"POST /up|body"
    fields = server.requests[0].fields
    assert fields[":authority"] == app.host() and fields[":scheme"] == "http" and fields["x-own"] == "kept"
    assert fields["x-forwarded-for"] == "127.0.0.1" and "host" not in fields and "connection" not in fields
    line = gateway.log_line(app_id=app.id, path="/2")
    assert line["back_protocol"] == "h2c" and line["protocol"] == "http/1.1"


def test_h2_to_h2c(gateway, h2_origin):
    server = h2_origin(echo)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        numbers = [client.send("GET", f"/{i}") for i in range(100)]
        for i, number in enumerate(numbers):
            answer = client.response(number)
            assert answer.status == 200 and answer.body == f"GET /{i}|".encode()
    assert len(server.connections) <= 2     # one for each worker
    assert gateway.log_line(app_id=app.id, path="/99")["protocol"] == "h2"


def test_what_is_other_in_each_request_takes_no_place_in_the_table(gateway, h2_origin):
    server = h2_origin(echo)
    app = h2c_app(gateway, server)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for _ in range(2):
        assert gateway.fetch("GET", "/", app.host(), X_Own="kept", Traceparent=trace).status == 200
    for request in server.requests:
        never = {field[0] for field in request.list if isinstance(field, NeverIndexedHeaderTuple)}
        assert never == {"x-request-id", "traceparent"} and request.fields["traceparent"] == trace
    assert server.requests[0].fields["x-request-id"] != server.requests[1].fields["x-request-id"]


def test_g_name(gateway, h2_origin):
    server = h2_origin(echo)
    app = gateway.app(server)
    host = app.host().replace(f"-{server.port}.", f"-{server.port}g.")
    assert gateway.fetch("GET", "/g", host).body == b"GET /g|"


# ---- what passes through, for each version in front ----

class H1Front:
    """A client of HTTP/1.1 that looks like the one of HTTP/2."""

    def __init__(self, gateway, host):
        self.gateway, self.host = gateway, host

    def fetch(self, method, path, body=b"", **fields):
        answer = self.gateway.fetch(method, path, self.host, body, **fields)
        return answer.status, answer.body, {name.lower(): value for name, value in answer.fields}


class H2Front(H1Front):
    def fetch(self, method, path, body=b"", **fields):
        with H2Client(self.gateway, self.host) as client:
            number = client.send(method, path, *((name.lower().replace("_", "-"), value)
                                                 for name, value in fields.items()), end=not body)
            if body:
                client.data(number, body, end=True)
            answer = client.response(number)
            assert answer.reset in (None, 0), answer.reset
            return answer.status, bytes(answer.body), answer.fields


@pytest.fixture(params=[H1Front, H2Front], ids=["h1", "h2"])
def front(request, gateway):
    return lambda host: request.param(gateway, host)


def test_bodies(front, echo_app):
    body = os.urandom(2_000_000)
    status, got, _ = front(echo_app.host()).fetch("POST", "/big", body)
    assert status == 200 and got == b"POST /big|" + body


def test_a_response_of_unknown_length(gateway, front, h2_origin):
    def answer(peer, request):
        peer.head(request, 200, ("content-type", "text/event-stream"))
        for _ in range(50):
            peer.data(request, b"x" * 5000)
        peer.data(request, b"", end=True)
    app = h2c_app(gateway, h2_origin(answer))
    assert front(app.host()).fetch("GET", "/")[:2] == (200, b"x" * 250000)


@pytest.mark.parametrize("method, status, fields, length", [
    ("HEAD", 200, [("content-length", "5")], "5"),
    ("HEAD", 200, [], None),
    ("GET", 204, [], None),
    ("GET", 304, [("content-length", "7")], "7"),
    ("GET", 200, [("content-length", "0")], "0"),
])
def test_responses_without_a_body(gateway, front, h2_origin, method, status, fields, length):
    app = h2c_app(gateway, h2_origin(lambda peer, request: peer.head(request, status, *fields, end=True)))
    for _ in range(2):
        got, body, got_fields = front(app.host()).fetch(method, "/")
        assert (got, body) == (status, b"") and got_fields.get("content-length") == length


def test_h1_is_told_that_an_empty_response_has_ended(gateway, h2_origin):
    app = h2c_app(gateway, h2_origin(lambda peer, request: peer.head(request, 200, end=True)))
    with gateway.connect(app.host()) as connection:
        for _ in range(2):
            answer = connection.request("GET", "/", app.host())
            assert answer.status == 200 and answer.get("Content-Length") == "0"


def test_interim_responses(gateway, h2_origin):
    def answer(peer, request):
        peer.head(request, 103, ("link", "</a>"))
        peer.respond(request, b"ok")
    app = h2c_app(gateway, h2_origin(answer))
    with H2Client(gateway, app.host()) as client:
        stream = client.fetch("GET", "/")
        assert [head[":status"] for head in stream.interim] == ["103"] and stream.interim[0]["link"] == "</a>"
        assert stream.status == 200 and stream.body == b"ok"
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert connection.read_head().status == 103
        assert connection.read_head().status == 200 and connection.read(2) == b"ok"


def test_trailers_both_ways(gateway, h2_origin):
    def answer(peer, request):
        peer.head(request, 200)
        peer.data(request, bytes(request.body))
        peer.trailers(request, ("x-out", dict(request.trailers)["x-in"]))
    app = h2c_app(gateway, h2_origin(answer))
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/", ("te", "trailers"), end=False)
        client.data(number, b"body")
        client.h2.send_headers(number, [("x-in", "value")], end_stream=True)
        client.flush()
        stream = client.response(number)
        assert stream.body == b"body" and dict(stream.trailers) == {"x-out": "value"}
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n"
                        "4\r\nbody\r\n0\r\nX-In: value\r\n\r\n")
        assert connection.read_head().status == 200
        trailers = []
        assert connection.read_chunk() == b"body" and not connection.read_chunk(trailers)
        assert [(name.lower(), value) for name, value in trailers] == [("x-out", "value")]


def test_websocket_without_rfc_8441_is_told(gateway, echo_app):
    answer = gateway.fetch("GET", "/", echo_app.host(), Connection="Upgrade", Upgrade="websocket",
                           Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", Sec_WebSocket_Version="13")
    assert answer.status == 501 and answer.error == "upstream_no_tunnel"


def test_websocket(gateway, h2_origin):
    """RFC 8441 behind: an Upgrade in front becomes extended CONNECT, its 200 a 101 with the answer to the key."""
    def answer(peer, request):
        peer.head(request, 200)
    server = h2_origin(answer, early=True, on_data=lambda peer, request, data: peer.data(request, data),
                       on_end=lambda peer, request: peer.data(request, b"", end=True),
                       settings={h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    app = h2c_app(gateway, server)
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET /socket HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                        "Content-Length: 0\r\n\r\n")
        head = connection.read_head()
        assert head.status == 101 and head.get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        for text in (b"one", b"two" * 30000):
            connection.send(text)
            assert connection.read(len(text)) == text
    fields = server.requests[0].fields
    assert fields[":method"] == "CONNECT" and fields[":protocol"] == "websocket" and fields[":path"] == "/socket"
    assert "sec-websocket-key" not in fields and "content-length" not in fields
    with H2Client(gateway, app.host()) as client:
        number = client.send("CONNECT", "/socket", end=False, pseudo=[(":protocol", "websocket")])
        stream = client.streams[number]
        client.wait(lambda: stream.status)
        assert stream.status == 200
        client.data(number, b"three", end=True)
        assert client.response(number).body == b"three"


# ---- resets, GOAWAY, limits ----

def test_what_got_an_interim_answer_is_not_asked_again(gateway, h2_origin):
    """The second request finds the connection of the first, which the app closes after a 103."""
    def answer(peer, request):
        if request.path == "/first":
            peer.respond(request, b"ok")
            return
        peer.head(request, 103, ("link", "</a>"))
        peer.wire.sock.shutdown(socket.SHUT_RDWR)

    server = h2_origin(answer)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/first").body == b"ok"
        assert client.fetch("GET", "/second").status == 502
    assert [request.path for request in server.requests] == ["/first", "/second"]
    assert gateway.log_line(app_id=app.id, path="/second")["error"] == "upstream_truncated"


def refuse_first(server_seen, then=echo, code=h2.errors.ErrorCodes.REFUSED_STREAM):
    def answer(peer, request):
        server_seen.append(request)
        if len(server_seen) == 1:
            peer.reset(request, code)
        else:
            then(peer, request)
    return answer


@pytest.mark.parametrize("size", [0, 5, 60000])
def test_a_refused_request_is_sent_again(gateway, front, h2_origin, size):
    """RFC 9113 section 8.7: whatever its method, since it was not processed; with the body that was sent already."""
    seen, body = [], b"b" * size
    app = h2c_app(gateway, h2_origin(refuse_first(seen)))
    status, got, _ = front(app.host()).fetch("POST", "/again", body)
    assert status == 200 and got == b"POST /again|" + body and len(seen) == 2
    assert gateway.log_line(app_id=app.id)["retries"] == 1


def test_a_request_that_is_always_refused(gateway, front, h2_origin):
    server = h2_origin(lambda peer, request: peer.reset(request, h2.errors.ErrorCodes.REFUSED_STREAM))
    app = h2c_app(gateway, server)
    status, _, fields = front(app.host()).fetch("GET", "/")
    assert status == 502 and fields["x-gateway-error"] == "upstream_refused" and len(server.requests) == 3


def test_a_request_that_one_instance_refuses_goes_to_another(gateway, front, h2_origin):
    bad = h2_origin(lambda peer, request: peer.reset(request, h2.errors.ErrorCodes.REFUSED_STREAM))
    good = h2_origin(echo, port=bad.port)
    app = gateway.app(ports=[{"port": bad.port, "protocol": "h2c"}], instances=[
        {"instance_id": new_id(), "address": server.address, "generation": 1, "state": "running"}
        for server in (bad, good)])
    for number in range(40):
        status, got, _ = front(app.host()).fetch("GET", f"/{number}")
        assert status == 200 and got == f"GET /{number}|".encode()
    assert len(good.requests) == 40 and bad.requests


def test_a_request_that_is_reset_is_not_sent_again(gateway, front, h2_origin):
    server = h2_origin(lambda peer, request: peer.reset(request))
    app = h2c_app(gateway, server)
    status, _, fields = front(app.host()).fetch("GET", "/")
    assert status == 502 and fields["x-gateway-error"] == "upstream_reset" and len(server.requests) == 1


def test_goaway_with_requests_in_progress(gateway, h2_origin):
    """Streams that it leaves out go elsewhere, the others are finished, then the connection closes."""
    held = []

    def answer(peer, request):
        if len(server.connections) > 1:
            peer.respond(request, b"second")
            return
        held.append(request)
        if len(held) == 3:
            peer.send_goaway(held[0].number)
            peer.respond(held[0], b"first")
    server = h2_origin(answer)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        numbers = [client.send("POST", f"/{i}") for i in range(3)]
        bodies = [bytes(client.response(number).body) for number in numbers]
        assert bodies == [b"first", b"second", b"second"]
        assert client.fetch("GET", "/").body == b"second"
    first = server.connections[0]
    wait_until(lambda: first.sock.fileno() < 0, "the first connection to be closed")


@pytest.mark.parametrize("limit", [1, 3])
def test_max_concurrent_streams(gateway, h2_origin, limit):
    """More connections when all are full; those that the first was given too many of are refused and sent again."""
    lock, active, most = threading.Lock(), {}, []

    def answer(peer, request):
        with lock:
            active[peer] = active.get(peer, 0) + 1
            most.append(active[peer])
        if active[peer] > limit:
            peer.reset(request, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            peer.respond(request, b"ok")
        with lock:
            active[peer] -= 1
    server = h2_origin(answer, settings={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: limit})
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/first").body == b"ok"      # now the limit is known
        numbers = [client.send("GET", f"/{i}") for i in range(20)]
        for number in numbers:
            assert client.response(number).body == b"ok"
    assert max(most) <= limit


def allow(peer, streams):
    """As a frame: python3-h2 would hold its own peer to it."""
    peer.wire.send(b"\0\0\x06\x04\0\0\0\0\0" + struct.pack(">HI", 3, streams))


def test_an_app_that_allows_no_streams_for_a_while(gateway, h2_origin):
    """Requests wait for it, on the connection that there is. One that was sent too early is refused, and waits too."""
    peers = []

    def answer(peer, request):
        if not peers:
            peers.append(peer)
            allow(peer, 0)
            peer.reset(request, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            echo(peer, request)
    server = h2_origin(answer)
    app = h2c_app(gateway, server)
    retries = gateway.metric("upstream_retries_total")
    with H2Client(gateway, app.host()) as client:
        numbers = [client.send("POST", "/0", end=False)]
        client.data(numbers[0], b"body", end=True)
        wait_until(lambda: gateway.metric("upstream_retries_total") > retries, "the first request to be refused")
        for number in range(1, 6):
            numbers.append(client.send("POST", f"/{number}", end=False))
            client.data(numbers[-1], b"body", end=True)
        wait_until(lambda: gateway.metric("requests_active") == 6, "the requests")
        assert len(server.requests) == 1
        allow(peers[0], 100)
        assert [bytes(client.response(number).body) for number in numbers] == [
            f"POST /{number}|body".encode() for number in range(6)]
    assert len(server.connections) == 1


def test_an_app_that_allows_no_streams(make_gateway, front, h2_origin):
    """Nothing is dialed for requests that it would not take; the answer says why."""
    def answer(peer, request):
        allow(peer, 0)
        peer.respond(request, b"last")
    gateway = make_gateway(timeouts={"connect": "500ms"})
    server = h2_origin(answer)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("GET", "/").body == b"last"
        answers = [client.send("GET", "/") for _ in range(5)]
        for number in answers:
            answer = client.response(number)
            assert answer.status == 503 and answer.fields["x-gateway-error"] == "upstream_no_streams"
    assert len(server.connections) == 1 and gateway.metric("upstream_connects_total") == 1
    assert gateway.log_line(app_id=app.id)["error"] == "upstream_no_streams"


def test_an_instance_that_allows_no_streams_beside_another(gateway, h2_origin):
    """The other one gets the requests, at once."""
    def closing(peer, request):
        allow(peer, 0)
        peer.respond(request, b"closing")
    full = h2_origin(closing)
    good = h2_origin(echo, port=full.port)
    app = gateway.app(ports=[{"port": full.port, "protocol": "h2c"}], instances=[
        {"instance_id": new_id(), "address": server.address, "generation": 1, "state": "running"}
        for server in (full, good)])
    with H2Client(gateway, app.host()) as client:
        wait_until(lambda: client.fetch("GET", "/").body == b"closing", "the one that closes to be chosen")
        for number in range(20):
            assert client.fetch("GET", f"/{number}").body == f"GET /{number}|".encode()
    assert len(full.connections) == 1


def test_a_connection_that_closed_meanwhile(gateway, front, h2_origin):
    """A pooled connection is known to be stale only when it is used."""
    server = h2_origin(echo)
    app = h2c_app(gateway, server)
    client = front(app.host())
    for i in range(6):
        assert client.fetch("GET", f"/{i}")[1] == f"GET /{i}|".encode()
        for connection in server.connections:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)


def test_not_http2(gateway, front, origin):
    app = h2c_app(gateway, origin())
    status, _, fields = front(app.host()).fetch("GET", "/")
    assert status == 502 and fields["x-gateway-error"] == "upstream_bad_response"


def test_closed_before_settings(gateway, front, origin):
    app = h2c_app(gateway, origin(script=lambda connection: connection.fill()))
    status, _, fields = front(app.host()).fetch("GET", "/")
    assert status == 502 and fields["x-gateway-error"] == "upstream_closed"


@pytest.mark.parametrize("fields, body", [
    ([("content-length", "5")], b"abc"), ([("content-length", "2")], b"abc"), ([("connection", "close")], b"abc"),
    ([("x-large", "v" * 70000)], b""),
])
def test_bad_responses(gateway, front, h2_origin, fields, body):
    def answer(peer, request):
        peer.head(request, 200, *fields, end=not body)
        if body:
            peer.data(request, body, end=True)
    app = h2c_app(gateway, h2_origin(answer))
    if fields[0][0] == "content-length":
        with H2Client(gateway, app.host()) as client:
            stream = client.fetch("GET", "/")
            assert stream.reset == 2 or stream.status == 502
    else:
        status, _, _ = front(app.host()).fetch("GET", "/")
        assert status == 502


def test_a_slow_reader_beside_a_fast_one(gateway, h2_origin):
    def answer(peer, request):
        size = 4_000_000 if request.path == "/slow" else 1_000_000
        peer.head(request, 200)
        todo[request.number] = size
        pump(peer)

    def pump(peer):
        for number, left in list(todo.items()):
            room = min(peer.h2.local_flow_control_window(number), 16384, left)
            while room > 0:
                left -= room
                peer.h2.send_data(number, b"d" * room, end_stream=left == 0)
                room = min(peer.h2.local_flow_control_window(number), 16384, left) if left else 0
            todo[number] = left
            if not left:
                del todo[number]
        peer.flush()

    todo = {}
    server = h2_origin(answer, on_window=pump)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        client.h2.increment_flow_control_window(1 << 24)
        slow = client.send("GET", "/slow")
        client.slow.add(slow)
        for _ in range(5):
            assert len(client.fetch("GET", "/fast").body) == 1_000_000
        client.slow.remove(slow)
        client.h2.increment_flow_control_window(1 << 24, slow)
        client.flush()
        assert len(client.response(slow).body) == 4_000_000


def test_an_app_that_returns_little_at_a_time_is_no_flood(gateway, h2_origin):
    """Go's: a WINDOW_UPDATE for the stream and one for the connection for every 4096 bytes that were read."""
    def on_data(peer, request, data):
        returned[0] += len(data)
        while returned[0] >= 4096:
            returned[0] -= 4096
            peer.h2.increment_flow_control_window(4096)
            peer.h2.increment_flow_control_window(4096, request.number)

    returned = [0]
    server = h2_origin(lambda peer, request: peer.respond(request, b"%d" % len(request.body)), on_data=on_data)
    app = h2c_app(gateway, server)
    size, piece = 12_000_000, 16000
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/", end=False)
        for _ in range(size // piece):
            client.data(number, b"x" * piece)
        client.data(number, b"", end=True)
        response = client.response(number)
    assert response.status == 200 and response.body == b"%d" % size


def test_a_cancelled_stream_is_cancelled_behind(gateway, h2_origin):
    server = h2_origin(lambda peer, request: peer.head(request, 200), early=True)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/gone", end=False)
        client.wait(lambda: client.streams[number].status)
        client.cancel(number)
        wait_until(lambda: server.requests[0].reset is not None, "the reset behind")
        assert server.requests[0].reset == h2.errors.ErrorCodes.CANCEL
        assert gateway.log_line(app_id=app.id)["error"] == "client_cancelled"


def test_an_early_response(gateway, h2_origin):
    """Whole in front, then NO_ERROR; behind, the request is cancelled."""
    server = h2_origin(lambda peer, request: peer.respond(request, b"no", 413), early=True)
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/", end=False)
        client.data(number, b"part")
        stream = client.streams[number]
        client.wait(lambda: stream.reset is not None)
        assert stream.status == 413 and stream.body == b"no" and stream.reset == 0
        wait_until(lambda: server.requests[0].reset is not None, "the reset behind")


def test_a_reset_in_the_response(gateway, h2_origin):
    def answer(peer, request):
        peer.head(request, 200)
        peer.data(request, b"abc")
        peer.reset(request)
    app = h2c_app(gateway, h2_origin(answer))
    with H2Client(gateway, app.host()) as client:
        stream = client.fetch("GET", "/")
        assert stream.status == 200 and not stream.ended and stream.reset == 2
    assert gateway.log_line(app_id=app.id)["error"] == "upstream_reset"


# ---- gRPC ----

GRPC = (("content-type", "application/grpc"), ("te", "trailers"))


def grpc_echo(peer, request):
    peer.head(request, 200, ("content-type", "application/grpc"))
    if request.body:
        peer.data(request, bytes(request.body))
    peer.trailers(request, ("grpc-status", "0"), ("grpc-message", "fine"))


def grpc_call(client, path="/a.B/c", body=b"\0\0\0\0\3abc", fields=(), host=None):
    number = client.send("POST", path, *GRPC, *fields, end=False, host=host)
    client.data(number, body, end=True)
    return client.response(number)


@pytest.mark.parametrize("protocol", ["auto", "h2c"])
def test_grpc(gateway, h2_origin, protocol):
    server = h2_origin(grpc_echo)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": protocol}])
    with H2Client(gateway, app.host()) as client:
        stream = grpc_call(client, fields=[("grpc-timeout", "5S")])
        assert stream.body == b"\0\0\0\0\3abc" and dict(stream.trailers) == {"grpc-status": "0", "grpc-message": "fine"}
    fields = server.requests[0].fields
    assert fields["te"] == "trailers" and fields["grpc-timeout"] == "5S"
    assert gateway.log_line(app_id=app.id)["back_protocol"] == "h2c"


def test_grpc_web_is_http(gateway, origin):
    server = origin()
    app = gateway.app(server)
    with H2Client(gateway, app.host()) as client:
        assert client.fetch("POST", "/", ("content-type", "application/grpc-web")).body == b"ok"


def test_grpc_trailers_only(gateway, h2_origin):
    app = h2c_app(gateway, h2_origin(lambda peer, request: peer.head(
        request, 200, ("content-type", "application/grpc"), ("grpc-status", "5"), end=True)))
    with H2Client(gateway, app.host()) as client:
        stream = grpc_call(client)
        assert stream.fields["grpc-status"] == "5" and stream.ended and "content-length" not in stream.fields


def test_grpc_errors(gateway, h2_origin, origin):
    refused = origin()
    refused.close()
    dead = h2c_app(gateway, refused)
    plain = h2c_app(gateway, origin())
    starting = gateway.app(origin())
    starting.document["instances"][0]["state"] = "starting"
    starting.put()
    hosts = {"app_unknown": (f"{'0' * 40}-80.gw.example", "12"), "connect_refused": (dead.host(), "14"),
             "upstream_bad_response": (plain.host(), "14"), "app_starting": (starting.host(), "14")}
    with H2Client(gateway, dead.host()) as client:
        for code, (host, status) in hosts.items():
            stream = grpc_call(client, host=host)
            assert stream.status == 200 and stream.ended and not stream.body
            assert stream.fields["grpc-status"] == status and stream.fields["x-gateway-error"] == code
            assert stream.fields["content-type"] == "application/grpc" and stream.fields["grpc-message"]


def test_grpc_deadlines(make_gateway, h2_origin):
    """No answer, and an answer that stops: both are told as DEADLINE_EXCEEDED."""
    def answer(peer, request):
        if request.path == "/stops":
            peer.head(request, 200, ("content-type", "application/grpc"))
            peer.data(request, b"\0\0\0\0\1a")
    gateway = make_gateway(timeouts={"first_byte": "1s", "response_idle": "1s"})
    app = h2c_app(gateway, h2_origin(answer))
    with H2Client(gateway, app.host()) as client:
        stream = grpc_call(client, "/silent")
        assert stream.fields["grpc-status"] == "4" and stream.fields["x-gateway-error"] == "upstream_timeout"
        stream = grpc_call(client, "/stops")
        assert stream.body == b"\0\0\0\0\1a" and dict(stream.trailers)["grpc-status"] == "4"


def test_grpc_both_ways_at_once_and_long_silence(make_gateway, h2_origin):
    """A silent client of a dialogue is no slow upload, before and after the response has begun."""
    def on_data(peer, request, data):
        if len(request.body) == len(data):
            peer.head(request, 200, ("content-type", "application/grpc"))
        peer.data(request, data)
    server = h2_origin(lambda peer, request: None, early=True, on_data=on_data,
                       on_end=lambda peer, request: peer.trailers(request, ("grpc-status", "0")))
    gateway = make_gateway(timeouts={"request_body_idle": "1s"})
    app = h2c_app(gateway, server)
    with H2Client(gateway, app.host()) as client:
        number = client.send("POST", "/dialogue", *GRPC, end=False)
        stream = client.streams[number]
        for _ in range(3):
            time.sleep(1.5)
            del stream.body[:]
            client.data(number, b"\0\0\0\0\1x")
            client.wait(lambda: bytes(stream.body) == b"\0\0\0\0\1x")
        client.data(number, b"", end=True)
        assert dict(client.response(number).trailers) == {"grpc-status": "0"}


def test_grpc_large_messages(gateway, h2_origin):
    message = b"\0" + (16 << 20).to_bytes(4, "big") + os.urandom(16 << 20)
    app = h2c_app(gateway, h2_origin(grpc_echo))
    with H2Client(gateway, app.host()) as client:
        assert bytes(grpc_call(client, body=message).body) == message


# ---- real servers ----

def test_nghttpd(gateway, tmp_path):
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    address = new_address()
    port = free_port(address)
    command = ["nghttpd", "--no-tls", "-a", address, "-d", str(tmp_path), str(port)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        try:
            def is_up():
                with socket.socket() as sock:
                    return sock.connect_ex((address, port)) == 0
            wait_until(is_up, "nghttpd", 30)
            app = gateway.app(SimpleNamespace(address=address, port=port), ports=[{"port": port, "protocol": "h2c"}])
            for version in ("--http1.1", "--http2"):
                result = gateway.curl(f"https://{app.host()}/file", version)
                assert result.stdout == (tmp_path / "file").read_bytes(), result.stderr
        finally:
            server.terminate()

"""Floods that HTTP/2 makes cheap: each ends its own connection, in order and on record, and nobody else notices."""
import datetime
import struct

import pytest

from h2_client import H2Client
from h2_frames import (ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, LAST_ID, PADDED,
                       PING, PREFACE, PRIORITY, PRIORITY_UPDATE, RST_STREAM, SETTINGS, WINDOW_UPDATE, FrameClient,
                       block, frame, literal, request, setting, u32)
from origin import respond
from wire import wait_until

BURST, BURSTS = 100, 200        # bounded: many times what is tolerated


@pytest.fixture
def app(gateway, origin):
    return gateway.app(origin(lambda connection, request: respond(b"ok")))


def ids(count):
    """Stream identifiers of the count-th burst."""
    return range(3 + 200 * count, 3 + 200 * (count + 1), 2)


def cancelled(host, count):
    return b"".join(frame(HEADERS, END_HEADERS | END_STREAM, i, request(host)) + frame(RST_STREAM, 0, i, u32(8))
                    for i in ids(count))


def overflows(host, count):
    """CVE-2025-8671: the client makes us reset the stream."""
    return b"".join(frame(HEADERS, END_HEADERS | END_STREAM, i, request(host)) +
                    frame(WINDOW_UPDATE, 0, i, u32(LAST_ID)) for i in ids(count))


def malformed(_, count):
    return b"".join(frame(HEADERS, END_HEADERS | END_STREAM, i, block((":method", "GET"), (":method", "GET")))
                    for i in ids(count))


def bomb(_, count):
    """One field of 4 KiB goes into the table, and each byte after it is another copy: 16 MiB in a frame."""
    fields = b"\x40" + literal("x-bomb", "b" * 3900)[1:] + b"\xbe" * 4000
    return frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * count, fields)


# name → (frames of one burst, what the log calls it)
FLOODS = {
    "rapid reset": (cancelled, "cancelled requests"),
    "provoked resets": (overflows, "streams that must be reset"),
    "malformed requests": (malformed, "streams that must be reset"),
    "continuation": (lambda host, count: frame(HEADERS, END_STREAM, 3, request(host)) +
                     frame(CONTINUATION, 0, 3, literal("x", "v")) * 1000, "CONTINUATION frames"),
    "empty continuation": (lambda host, count: frame(HEADERS, END_STREAM, 3) + frame(CONTINUATION, 0, 3) * 1000,
                           "CONTINUATION frames"),
    "settings": (lambda _, count: frame(SETTINGS, payload=setting(3, count)) * BURST, None),
    "settings in one frame": (lambda _, count: frame(SETTINGS, payload=setting(3, count) * 2000), "SETTINGS frames"),
    "ping": (lambda _, count: frame(PING, payload=struct.pack(">Q", count)) * BURST, None),
    "ping acknowledgements": (lambda _, count: frame(PING, ACK, payload=bytes(8)) * BURST, "PING frames"),
    "empty data": (lambda _, count: frame(DATA, 0, 1) * BURST, "empty DATA frames"),
    "padding for data": (lambda _, count: frame(DATA, PADDED, 1, b"\0") * BURST, "empty DATA frames"),
    "priority": (lambda _, count: frame(PRIORITY, 0, 1, bytes(5)) * BURST, "PRIORITY frames"),
    "priority update": (lambda _, count: frame(PRIORITY_UPDATE, 0, 0, u32(1) + b"u=1") * BURST, "PRIORITY frames"),
    "window update of the stream": (lambda _, count: frame(WINDOW_UPDATE, 0, 1, u32(1)) * BURST,
                                    "WINDOW_UPDATE frames"),
    "window update": (lambda _, count: frame(WINDOW_UPDATE, 0, 0, u32(1)) * BURST, "WINDOW_UPDATE frames"),
    "unknown frames": (lambda _, count: frame(99, 0, 0, b"?") * BURST, "unknown frames"),
    "bomb": (bomb, "header fields"),
}


def has_lines_left(gateway):
    """A worker writes at most ten such lines a second."""
    now = datetime.datetime.now(datetime.timezone.utc)
    times = (line.split(" ")[0] for line in gateway.stderr().splitlines() if "floods us with" in line)
    return sum((now - datetime.datetime.fromisoformat(time)).total_seconds() < 2 for time in times) < 10


@pytest.mark.parametrize("kind", FLOODS)
def test_floods(gateway, app, kind):
    make, name = FLOODS[kind]
    wait_until(lambda: has_lines_left(gateway), "another line to be allowed")
    before = gateway.metric("h2_floods_total")
    lines = gateway.stderr().count("floods us with " + (name or ""))
    with FrameClient(gateway, app.host()) as client, H2Client(gateway, app.host()) as other:
        client.request(1, end=False, method="POST")
        for count in range(BURSTS):
            client.send(make(app.host(), count))
            if make in (overflows, malformed):      # they stay within the limit of concurrent streams
                client.turn_until_answered(count)
            if count % 20 == 0:
                assert other.fetch("GET", "/").status == 200
        assert client.read_end() == ENHANCE_YOUR_CALM, client.frames[-5:]
        assert other.fetch("GET", "/").status == 200
    assert gateway.metric("h2_floods_total") > before and gateway.metric("h2_glitches_total") > 0
    assert gateway.stderr().count("floods us with " + (name or "")) > lines
    assert "client 127.0.0.1" in gateway.stderr()
    wait_until(lambda: gateway.metric("requests_active") == 0, "all requests to be over")


def test_a_flood_before_the_settings(gateway, app):
    with FrameClient(gateway, app.host(), preface=False) as client:
        client.send(PREFACE, frame(SETTINGS))
        for count in range(BURSTS):
            client.send(frame(PING, payload=struct.pack(">Q", count)) * BURST)
        assert client.read_end() == ENHANCE_YOUR_CALM


def test_a_bomb_that_is_smaller_is_only_refused(gateway, app):
    """Too many fields for us, but no flood: the stream gets its 431, the connection goes on."""
    with FrameClient(gateway, app.host()) as client:
        client.request(1, *[("x-field", "v")] * 300)
        assert client.ended(1) == (431, None)
        client.request(3)
        assert client.ended(3) == (200, None)


@pytest.mark.parametrize("status,field_count,path_size", [(431, 300, 1), (414, 0, 9000)])
def test_a_refused_head_is_known_all_the_same(gateway, origin, status, field_count, path_size):
    """Its method, so that HEAD gets no body; its version, for the log; gRPC, so that its client understands."""
    app = gateway.app(origin())
    fields, path = [("x-field", "v")] * field_count, "/" * path_size
    with FrameClient(gateway, app.host()) as client:
        client.request(1, *fields, method="HEAD", path=path)
        assert client.ended(1) == (status, None) and client.body(1) == b""
        assert gateway.log_line(status=status, method="HEAD")["protocol"] == "h2"
        client.request(3, ("content-type", "application/grpc"), *fields, method="POST", path=path)
        assert client.ended(3) == (200, None) and client.body(3) == b""
        head = client.find(lambda f: f.stream == 3 and f.kind == HEADERS)
        assert int(dict(head.fields)["grpc-status"]) > 0


# ---- what well-behaved clients do a lot ----

def test_a_busy_client_is_no_flood(gateway, origin):
    """Requests in parallel for a long time, some of them cancelled, with a WINDOW_UPDATE for each DATA frame."""
    app = gateway.app(origin(respond(b"x" * 40000)))
    with H2Client(gateway, app.host()) as client:
        for _ in range(100):
            numbers = [client.send("GET", "/") for _ in range(30)]
            client.cancel(numbers.pop())
            for number in numbers:
                assert len(client.response(number).body) == 40000
        assert client.goaway is None


def test_a_client_that_returns_little_at_a_time_is_no_flood(gateway, origin):
    """Go's: a WINDOW_UPDATE for the stream and one for the connection for every 4096 bytes that were read."""
    size, returned = 24_000_000, 0
    app = gateway.app(origin(respond(b"x" * size)))
    with FrameClient(gateway, app.host()) as client:
        client.request(1)
        received = 0
        while received < size:
            client.turn()
            assert not client.closed, client.frames[-3:]
            last = client.frames.pop()
            assert last.kind in (HEADERS, DATA, SETTINGS, WINDOW_UPDATE, PING), last
            received += len(last.payload) if last.kind == DATA else 0
            while received - returned >= 4096:
                client.send(frame(WINDOW_UPDATE, 0, 0, u32(4096)), frame(WINDOW_UPDATE, 0, 1, u32(4096)))
                returned += 4096
        client.request(3, method="HEAD")
        assert client.ended(3) == (200, None)


def test_a_grpc_client_is_no_flood(gateway, origin):
    """Small messages for a long time, each with a PING and two WINDOW_UPDATE as gRPC's estimate of the bandwidth."""
    app = gateway.app(origin(respond(b"ok")))
    with FrameClient(gateway, app.host()) as client:
        client.request(1, end=False, method="POST")
        for count in range(3000):
            client.send(frame(DATA, 0, 1, b"message"))
            if count % 10 == 0:
                client.send(frame(PING, payload=bytes(8)), frame(WINDOW_UPDATE, 0, 0, u32(1)),
                            frame(WINDOW_UPDATE, 0, 1, u32(1)))
        client.send(frame(DATA, END_STREAM, 1))
        assert client.ended(1) == (200, None)

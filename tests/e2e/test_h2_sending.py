"""What HTTP/2 in front sends when: priorities (RFC 9218), windows that stay closed or open wide, long heads on many
connections."""
import os
import threading
import time

import pytest

from back import open_back, read_all
from front import open_front
from h2_client import H2Client
from h2_frames import DATA, HEADERS, PRIORITY_UPDATE, WINDOW_UPDATE, FrameClient, frame, setting, u32
from origin import respond
from wire import wait_until

FULL = 65535                    # the connection's window at first
BODY = 20000                    # two DATA frames


@pytest.fixture
def client(gateway, origin):
    """Its streams have wide windows; the connection's is used up by stream 1."""
    app = gateway.app(origin(lambda connection, request: respond(b"x" * int(request.target[1:]))))
    with FrameClient(gateway, app.host(), settings=setting(4, 1 << 24)) as made:
        made.request(1, ("priority", "u=0"), path=f"/{FULL}")
        assert made.ended(1) == (200, None)
        yield made


def order(client, streams):
    """The stream of each DATA frame, once the window opens."""
    for stream in streams:
        client.wait(lambda f, stream=stream: f.stream == stream and f.kind == HEADERS)
    client.sync()
    assert not client.find(lambda f: f.kind == DATA and f.stream != 1)
    client.send(frame(WINDOW_UPDATE, 0, 0, u32(1 << 24)))
    for stream in streams:
        client.ended(stream)
    return [f.stream for f in client.frames if f.kind == DATA and f.stream != 1]


def ask(client, **priorities):
    for name, priority in priorities.items():
        client.request(int(name[1:]), *([("priority", priority)] if priority is not None else []), path=f"/{BODY}")


def test_urgent_ones_come_first(client):
    ask(client, s3="u=7", s5="u=1", s7="u=4", s9="u=0")
    assert order(client, (3, 5, 7, 9)) == [9, 9, 5, 5, 7, 7, 3, 3]


def test_those_that_are_not_incremental_come_one_after_the_other(client):
    ask(client, s3="u=3", s5="u=3", s7="u=3")
    assert order(client, (3, 5, 7)) == [3, 3, 5, 5, 7, 7]


def test_incremental_ones_take_turns(client):
    ask(client, s3="u=2, i", s5="u=2, i", s7="u=2, i")
    assert sorted(order(client, (3, 5, 7))[:3]) == [3, 5, 7]


def test_without_a_priority_they_take_turns(client):
    ask(client, s3=None, s5=None, s7=None)
    assert sorted(order(client, (3, 5, 7))[:3]) == [3, 5, 7]


def test_a_priority_update(client):
    """Before the request, and while its response waits."""
    client.send(frame(PRIORITY_UPDATE, 0, 0, u32(5) + b"u=0"))
    ask(client, s3="u=4", s5=None, s7="u=7")
    client.wait(lambda f: f.stream == 7 and f.kind == HEADERS)
    client.send(frame(PRIORITY_UPDATE, 0, 0, u32(7) + b"u=1"))
    assert order(client, (3, 5, 7)) == [5, 5, 7, 7, 3, 3]


def test_windows_that_stay_closed(gateway, origin):
    """Each of many streams asks for much and takes nothing: others go on, and all of it comes when its window opens."""
    size = 1 << 20
    server = origin(respond(b"z" * size))
    app = gateway.app(server)
    with FrameClient(gateway, app.host(), settings=setting(4, 0)) as client, H2Client(gateway, app.host()) as other:
        streams = range(1, 201, 2)
        for stream in streams:
            client.request(stream)
        for stream in streams:
            client.wait(lambda f, stream=stream: f.stream == stream and f.kind == HEADERS)
        client.sync()
        assert len(other.fetch("GET", "/").body) == size
        client.send(frame(WINDOW_UPDATE, 0, 0, u32(1 << 30)))
        for stream in (1, 99, 199):
            client.send(frame(WINDOW_UPDATE, 0, stream, u32(size)))
            assert client.ended(stream) == (200, None) and len(client.body(stream)) == size


def test_a_stream_that_stalls_is_given_up(make_gateway, origin):
    """Also one that could not even queue anything."""
    gateway = make_gateway(timeouts={"send_stall": "1s"})
    app = gateway.app(origin(respond(b"z" * 200000)))
    with FrameClient(gateway, app.host(), settings=setting(4, 0)) as client:
        streams = range(1, 121, 2)
        for stream in streams:
            client.request(stream)
        for stream in streams:
            client.wait(lambda f, stream=stream: f.stream == stream and f.kind == 3)
    wait_until(lambda: gateway.metric("requests_active") == 0, "all requests to be over")
    assert gateway.log_line(app_id=app.id)["error"] == "client_stalled"


def test_long_heads_on_many_connections(gateway, origin):
    """Heads of several frames; connections share the memory that frames are put together in."""
    fields = [f"X-Long-{i}: " + os.urandom(2000).hex() for i in range(6)]
    app = gateway.app(origin(respond(b"body", "200 OK", *fields)))
    clients = [H2Client(gateway, app.host()) for _ in range(8)]
    for _ in range(5):
        asked = [(client, client.send("GET", "/")) for client in clients]
        for client, number in asked:
            answer = client.response(number)
            assert answer.body == b"body"
            assert [f"X-Long-{i}: " + answer.fields[f"x-long-{i}"] for i in range(6)] == fields
    for client in clients:
        client.wire.close()


def open_far_front(gateway, host):
    """It is late to learn that a window has opened."""
    front = open_front(gateway, "h2", host)
    turn = front.client.turn

    def late_turn():
        time.sleep(0.005)
        turn()
    front.client.turn = late_turn
    return front


def test_a_long_upload_gets_wider_windows(gateway, origin):
    body = os.urandom(1 << 20) * 24
    app = gateway.app(origin(lambda connection, request: respond(str(len(request.body)).encode())))
    with open_far_front(gateway, app.host()) as front:
        call = front.call("POST", "/", end=False)
        widest = 0
        for at in range(0, len(body), 1 << 16):
            call.data(body[at:at + (1 << 16)])
            widest = max(widest, front.client.h2.streams[call.number].outbound_flow_control_window)
        call.data(b"", end=True)
        assert call.rest() == str(len(body)).encode()
        assert widest > 1 << 20
    wait_until(lambda: gateway.metric("h2_windows_extra_bytes") == 0, "the windows of a closed connection to be forgotten")


def test_a_wide_upload_that_stalls_beside_others(gateway):
    """What its app leaves is bounded, and holds nobody up."""
    go, size, more = threading.Event(), 24 << 20, 40 << 20

    def script(side):
        got = 0
        while side.path == "/slow" and got < size:
            got += len(side.read())
        assert side.path == "/fast" or go.wait(30)
        side.head(200, ("x-size", str(got + len(read_all(side)))), end=True)
    server, app = open_back(gateway, "h1", script)
    with open_far_front(gateway, app.host()) as front:
        slow = front.call("POST", "/slow", end=False)
        slow.data(b"s" * size)
        slow.push(memoryview(b"s" * more), end=True)
        for _ in range(3):
            fast = front.call("POST", "/fast", end=False)
            fast.data(b"f" * (3 << 20), end=True)
            assert fast.head()[1]["x-size"] == str(3 << 20)
        assert gateway.metric("h2_windows_extra_bytes") <= 16 << 20
        go.set()
        assert slow.head()[1]["x-size"] == str(size + more)
    server.close()

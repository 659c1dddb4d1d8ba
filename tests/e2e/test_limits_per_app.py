"""An app's own limits: requests a second and in progress, over all workers, and of no other app."""
import contextlib
import threading
import time

import pytest

from h2_client import H2Client
from origin import OK
from wire import wait_until


def test_requests_per_second(gateway, origin):
    server = origin()
    app = gateway.app(server, limits={"requests_per_second": 5})
    other = gateway.app(origin())
    begun = time.monotonic()
    answers = [gateway.fetch("GET", "/", app.host()) for _ in range(40)]     # of both workers
    passed = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status != 200]
    assert 5 <= len(passed) <= 6 + 5 * (time.monotonic() - begun)
    assert len(server.requests) == len(passed)
    assert refused, "forty requests took very long"
    assert {(answer.status, answer.error, answer.get("Retry-After")) for answer in refused} == {
        (429, "rate_limited", "1")}
    assert gateway.fetch("GET", "/", other.host()).status == 200
    assert gateway.metric("app_limits_total") >= len(refused)
    assert gateway.log_line(app_id=app.id, status=429)["error"] == "rate_limited"
    wait_until(lambda: gateway.fetch("GET", "/", app.host()).status == 200, "the rate to allow another one")


def test_limit_is_lifted_by_a_change(gateway, origin):
    app = gateway.app(origin(), limits={"requests_per_second": 1})
    wait_until(lambda: gateway.fetch("GET", "/", app.host()).status == 429, "the limit")
    app.put(limits={})
    assert {gateway.fetch("GET", "/", app.host()).status for _ in range(10)} == {200}


@pytest.fixture
def held(origin):
    """An origin that answers when `release` is set."""
    release = threading.Event()
    server = origin(lambda *_: release.wait(60) and OK)
    server.release = release
    yield server
    release.set()


def test_requests_in_progress(gateway, held):
    app = gateway.app(held, limits={"max_connections": 3})
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect(app.host())) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
            wait_until(lambda count=number + 1: len(held.requests) == count, "the request to arrive")
        for _ in range(4):
            answer = gateway.fetch("GET", "/", app.host())
            assert (answer.status, answer.error) == (503, "app_busy") and answer.get("Retry-After")
        app.put(limits={"max_connections": 3})      # what is in progress is not forgotten
        assert gateway.fetch("GET", "/", app.host()).error == "app_busy"
        clients[0].close()                          # one that leaves makes room
        held.release.set()
        wait_until(lambda: gateway.fetch("GET", "/", app.host()).status == 200, "room")
        for client in clients[1:]:
            assert client.read_response().status == 200
    assert gateway.fetch("GET", "/", app.host()).status == 200


def test_streams_count_one_by_one(gateway, held):
    app = gateway.app(held, limits={"max_connections": 2})
    with H2Client(gateway, app.host()) as client:
        numbers = [client.send("GET", f"/{i}") for i in range(4)]
        refused = [client.response(number) for number in numbers[2:]]
        assert [stream.fields["x-gateway-error"] for stream in refused] == ["app_busy"] * 2
        held.release.set()
        assert [client.response(number).status for number in numbers[:2]] == [200, 200]


def echo(wire):
    while True:
        wire.send(wire.read_some())


def test_tunnels_count(gateway, origin):
    server = origin(script=echo)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": "tcp"}], limits={"max_connections": 2})
    with gateway.connect(app.host()) as first, gateway.connect(app.host()) as second:
        for client in (first, second):
            assert client.send(b"hello").read(5) == b"hello"
        with gateway.connect(app.host()) as third:
            assert third.is_closed()
        assert gateway.log_line(app_id=app.id, error="app_busy")

    def works():
        with gateway.connect(app.host()) as client, contextlib.suppress(Exception):
            return client.send(b"hello").read(5) == b"hello"
    wait_until(works, "room")

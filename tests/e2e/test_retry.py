"""What is tried again on another instance or connection, and what must not be."""
import socket

import pytest

from gateway import new_id
from origin import OK, new_address, respond


def instances(*addresses):
    return [{"instance_id": new_id(), "address": address, "state": "running", "generation": 1} for address in addresses]


def drop_second(connection, request):
    """Answers the first request of each connection, and ends it at the second without a byte."""
    connection.count = getattr(connection, "count", 0) + 1
    return OK if connection.count == 1 else False


def test_connect_failure_goes_to_another_instance(gateway, origin):
    server = origin()
    app = gateway.app(ports=[{"port": server.port}], instances=instances(new_address(), server.address))
    for method, body in [("GET", b""), ("POST", b"body"), ("DELETE", b"")] * 4:
        assert gateway.fetch(method, "/", app.host(), body).status == 200
    assert len(server.requests) == 12


def test_all_refuse(gateway):
    app = gateway.app(ports=[{"port": 9}], instances=instances(*(new_address() for _ in range(5))))
    answer = gateway.fetch("GET", "/", app.host())
    assert answer.status == 502 and answer.error == "connect_refused"
    assert 0 < gateway.log_line(app_id=app.id)["retries"] <= 2


def test_one_instance_refuses(gateway):
    app = gateway.app(ports=[{"port": 9}], instances=instances(new_address()))
    answer = gateway.fetch("GET", "/", app.host())
    assert answer.status == 502 and answer.error == "connect_refused"


def test_connect_timeout(make_gateway):
    """A listener whose queue is full does not answer: SYNs are dropped."""
    gateway = make_gateway(timeouts={"connect": "1s"})
    address, fillers = new_address(), []
    with socket.create_server((address, 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        try:
            for _ in range(4):
                fillers.append(socket.socket())
                fillers[-1].setblocking(False)
                fillers[-1].connect_ex((address, port))
            app = gateway.app(ports=[{"port": port}], instances=instances(address))
            answer = gateway.fetch("GET", "/", app.host())
        finally:
            for sock in fillers:
                sock.close()
    assert answer.status == 504 and answer.error == "connect_timeout"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_stale_pooled_connection_is_replaced(gateway, origin, method):
    """Idempotent and closed before any byte of the response: the client does not notice."""
    server = origin(drop_second if method != "HEAD" else lambda connection, request: drop_second(connection, request)
                    and b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if request.method == "HEAD" else b"ok"))
    app = gateway.app(server)
    for _ in range(8):
        assert gateway.fetch(method, "/", app.host()).status == 200


def test_post_on_a_stale_connection_is_not_repeated(gateway, origin):
    """What may have had an effect happens at most once."""
    server = origin(drop_second)
    app = gateway.app(server)
    statuses = []
    for number in range(8):
        statuses.append(gateway.fetch("POST", f"/{number}", app.host(), b"body").status)
    assert set(statuses) <= {200, 502} and 502 in statuses
    targets = [request.target for request in server.requests]
    assert len(targets) == len(set(targets)) == 8


def test_no_retry_after_a_byte_of_the_response(gateway, origin):
    def answer(connection, request):
        connection.count = getattr(connection, "count", 0) + 1
        if connection.count == 1:
            return OK
        connection.send(b"HTTP/1.1 2")
        return False
    server = origin(answer)
    app = gateway.app(server)
    statuses = [gateway.fetch("GET", f"/{number}", app.host()).status for number in range(8)]
    assert 502 in statuses
    targets = [request.target for request in server.requests]
    assert len(targets) == len(set(targets)) == 8


def test_no_retry_on_a_new_connection(gateway, origin):
    """A fresh connection that closes without an answer is the app's failure, not a stale pool."""
    server = origin(lambda connection, request: False)
    app = gateway.app(server)
    answer = gateway.fetch("POST", "/", app.host(), b"body")
    assert answer.status == 502 and answer.error == "upstream_closed"
    assert len(server.requests) == 1


def test_pooled_connection_closed_while_idle(gateway, origin):
    """The app closes an idle connection: the next request gets a new one, also a POST."""
    def answer(connection, request):
        connection.send(respond(b"ok"))
        return False
    server = origin(answer)
    app = gateway.app(server)
    for _ in range(10):
        assert gateway.fetch("POST", "/", app.host(), b"body").status == 200
    assert len(server.requests) == 10

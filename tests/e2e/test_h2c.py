"""HTTP/2 cleartext behind (prior knowledge), with both HTTP versions in front: python3-h2 as the app, and nghttpd."""
import pytest

from h2_client import H2Client
from h2_origin import H2Origin


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


def test_g_name(gateway, h2_origin):
    server = h2_origin(echo)
    app = gateway.app(server)
    host = app.host().replace(f"-{server.port}.", f"-{server.port}g.")
    assert gateway.fetch("GET", "/g", host).body == b"GET /g|"

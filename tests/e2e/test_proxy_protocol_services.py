"""PROXY headers that the gateway sends, as nginx understands them."""
import pytest

from gateway import new_id
from h2_client import H2Client
from service import start_nginx

SERVER = """
listen {address}:{port} proxy_protocol;
location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port $request_uri"; }}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    server = start_nginx(tmp_path_factory.mktemp("nginx"), SERVER)
    yield server
    server.close()


@pytest.fixture(params=["v1", "v2"])
def app(request, gateway, nginx):
    registered = gateway.app(ports=[{"port": nginx.port, "proxy_protocol": request.param}], instances=[
        {"instance_id": new_id(), "address": nginx.address, "generation": 1, "state": "running"}])
    yield registered
    assert gateway.control("DELETE", f"/v1/apps/{registered.id}").status in (200, 204)


def test_nginx_knows_the_client(gateway, app):
    """Each connection's own address and port, on every request; no connection behind serves two clients."""
    for source in ("127.0.0.1", "127.3.2.1", "127.0.0.1"):
        with gateway.connect(app.host(), source=source) as connection:
            port = connection.sock.getsockname()[1]
            for number in range(3):
                answer = connection.request("GET", f"/{number}", app.host())
                assert answer.body.decode() == f"{source} {port} {gateway.port} /{number}"


def test_nginx_knows_the_client_of_a_stream(gateway, app):
    with H2Client(gateway, app.host()) as client:
        port = client.wire.sock.getsockname()[1]
        numbers = [client.send("GET", f"/{number}") for number in range(10)]
        for number, stream in enumerate(numbers):
            assert client.response(stream).body.decode() == f"127.0.0.1 {port} {gateway.port} /{number}"

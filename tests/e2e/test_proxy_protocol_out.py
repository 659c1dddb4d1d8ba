"""PROXY protocol toward instances: what they are told of the client, and that no connection serves two clients."""
import pytest

import proxy_header
from gateway import new_id
from h2_client import H2Client
from h2_origin import H2Origin, H2Peer
from origin import OK, Origin
from wire import wait_until


class HeaderOrigin(Origin):
    """Wants a header of this version at the start of each connection; `headers` are those of connections."""

    def __init__(self, version, answer=OK, **options):
        self.headers = {}
        super().__init__(answer, script=lambda wire: self.begin(wire, version), **options)

    def begin(self, wire, version):
        self.headers[id(wire)] = proxy_header.READERS[version](wire)
        self._serve(wire)

    def header(self):
        """Of the only connection."""
        assert len(self.headers) == 1
        return next(iter(self.headers.values()))


class HeaderH2Origin(H2Origin):
    def __init__(self, answer):
        self.headers = []
        super().__init__(answer)
        self.script = self.begin

    def begin(self, wire):
        self.headers.append(proxy_header.read_v2(wire))
        H2Peer(self, wire).run()


@pytest.fixture
def header_origin():
    made = []

    def make(version, *arguments):
        made.append(HeaderOrigin(version, *arguments) if version != "h2c" else HeaderH2Origin(*arguments))
        return made[-1]
    yield make
    for server in made:
        server.close()


def has_ended(wire):
    """The origin has seen its end, and closed it."""
    return wire.sock.fileno() < 0


def app_of(gateway, server, version, **members):
    return gateway.app(server, ports=[{"port": server.port, "proxy_protocol": version, **members}])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_client_and_listener_are_told(gateway, header_origin, version):
    server = header_origin(version)
    app = app_of(gateway, server, version)
    with gateway.connect(app.host(), source="127.0.0.9") as client:
        own = client.sock.getsockname()
        for _ in range(3):
            assert client.request("GET", "/", app.host()).body == b"ok"
        header = server.header()
        assert (header.version, header.command) == (int(version[1]), "PROXY")
        assert header.source == own and header.source[0] == "127.0.0.9"
        assert header.destination == ("127.0.0.1", gateway.port)
    assert len(server.requests) == 3 and server.requests[0].start == "GET / HTTP/1.1"


def test_facts_of_tls(gateway, header_origin):
    server = header_origin("v2")
    app = app_of(gateway, server, "v2")
    with gateway.connect(app.host()) as client:
        assert client.request("GET", "/", app.host().upper()).status == 200
        cipher, version, _ = client.sock.cipher()
        header = server.header()
    assert header.tlvs[proxy_header.ALPN] == b"http/1.1"
    assert header.tlvs[proxy_header.AUTHORITY] == app.host().lower().encode()
    assert header.tlvs[proxy_header.SSL][0] == 1
    assert header.tls[proxy_header.SSL_VERSION] == version.encode()
    assert header.tls[proxy_header.SSL_CIPHER] == cipher.encode()


def test_clients_do_not_share_connections(gateway, header_origin):
    server = header_origin("v2")
    app = app_of(gateway, server, "v2")
    clients = [gateway.connect(app.host()) for _ in range(4)]
    for _ in range(3):
        for client in clients:
            assert client.request("GET", "/", app.host()).status == 200
    assert len(server.connections) == 4
    told = sorted(header.source for header in server.headers.values())
    assert told == sorted(client.sock.getsockname() for client in clients)
    for client in clients:
        client.close()
    wait_until(lambda: all(has_ended(wire) for wire in server.connections), "connections to end with their clients")


def test_next_client_with_the_same_memory(gateway, header_origin):
    """A connection never outlives its client to be found by another one."""
    server = header_origin("v1")
    app = app_of(gateway, server, "v1")
    for number in range(1, 12):
        with gateway.connect(app.host()) as client:
            assert client.request("GET", "/", app.host()).status == 200
            assert len(server.connections) == number
            assert client.sock.getsockname() in [header.source for header in server.headers.values()]


def test_each_name_of_a_client(gateway, header_origin):
    """The authority is part of what was said: a request by another name gets another connection (v2), or not (v1)."""
    counts = []
    for version in ("v1", "v2"):
        server = header_origin(version)
        document = {"instance_id": new_id(), "address": server.address, "state": "running", "generation": 1}
        app = gateway.app(ports=[{"port": server.port, "proxy_protocol": version}], instances=[document])
        names = [app.host(), app.host().replace(app.id, document["instance_id"])]
        with gateway.connect(app.host()) as client:
            for _ in range(2):
                for name in names:
                    assert client.request("GET", "/", name).status == 200
        counts.append(len(server.connections))
    assert counts == [1, 2]


def test_h2_in_front(gateway, header_origin):
    server = header_origin("v2")
    app = app_of(gateway, server, "v2")
    with H2Client(gateway, app.host()) as client:
        own = client.wire.sock.getsockname()
        numbers = [client.send("GET", f"/{i}") for i in range(5)]
        for number in numbers:
            client.response(number)
            assert client.streams[number].status == 200
        sources = {header.source for header in server.headers.values()}
        alpns = {header.tlvs[proxy_header.ALPN] for header in server.headers.values()}
    assert sources == {own} and alpns == {b"h2"}


def test_h2c_behind_is_multiplexed_for_one_client_only(gateway, header_origin):
    server = header_origin("h2c", lambda peer, request: peer.respond(request, b"ok"))
    app = app_of(gateway, server, "v2", protocol="h2c")
    owns = []
    for _ in range(2):
        with H2Client(gateway, app.host()) as client:
            owns.append(client.wire.sock.getsockname())
            for number in [client.send("GET", f"/{i}") for i in range(8)]:
                client.response(number)
                assert bytes(client.streams[number].body) == b"ok"
        wait_until(lambda: has_ended(server.connections[-1]), "the connection to end with its client")
    assert [header.source for header in server.headers] == owns


def test_upgrade(gateway, header_origin):
    def upgrade(connection, _):
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        connection.send(connection.read(4))
        return False
    server = header_origin("v2", upgrade)
    app = app_of(gateway, server, "v2")
    with gateway.connect(app.host()) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        assert client.read_head().status == 101
        assert client.send(b"ping").read(4) == b"ping"
        assert server.header().source == client.sock.getsockname()


def test_ports_without_it_get_none(gateway, origin):
    server = origin()
    app = app_of(gateway, server, "off")
    assert gateway.fetch("GET", "/", app.host()).status == 200
    assert server.seen.startswith(b"GET / HTTP/1.1\r\n")


def echo(wire):
    while True:
        wire.send(wire.read_some())


def test_raw_tcp(gateway, origin):
    """The header comes before what the client said first; TLS ended here, so its facts are known."""
    headers = []

    def script(wire):
        headers.append(proxy_header.read_v2(wire))
        echo(wire)
    server = origin(script=script)
    app = app_of(gateway, server, "v2", protocol="tcp")
    with gateway.connect(app.host(), gateway.tls_context(alpn=("custom",))) as client:
        assert client.send(b"ping").read(4) == b"ping"
        assert headers[0].source == client.sock.getsockname()
        assert headers[0].tls[proxy_header.SSL_VERSION] == client.sock.version().encode()
    assert headers[0].tlvs[proxy_header.AUTHORITY] == app.host().encode()


@pytest.mark.parametrize("inner", ["v1", "v2"])
def test_passthrough_to_a_second_gateway(make_gateway, origin, inner):
    """The client's address and the listener that it asked reach the app through two gateways."""
    second = make_gateway(start=False, trusted_proxies=["127.0.0.0/8"])
    for listener in second.config["listeners"]:
        listener["proxy_protocol"] = "required"
    second.start()
    first = make_gateway()
    server = HeaderOrigin("v2", port=second.port)   # the name has one port, which is that of both
    try:
        app = app_of(second, server, "v2")
        first.put_app({"app_id": app.id, "ports": [
            {"port": second.port, "protocol": "passthrough", "proxy_protocol": inner}], "instances": [
                {"instance_id": new_id(), "address": "127.0.0.1", "generation": 1}]})
        with first.connect(app.host(), source="127.0.0.9") as client:
            own = client.sock.getsockname()
            answer = client.request("GET", "/", app.host())
        assert answer.status == 200
        header = server.header()
        assert header.source == own and header.destination == ("127.0.0.1", first.port)
        assert second.log_line(app_id=app.id)["client"] == "127.0.0.9"
    finally:
        server.close()

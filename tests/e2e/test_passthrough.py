"""TLS passthrough: the client's TLS ends in the app, and the gateway only reads the name."""
import hashlib
import socket
import ssl
import time

import pytest

from gateway import DOMAIN, new_id
from wire import Closed, Connection, wait_until


@pytest.fixture(scope="module")
def app_certificate(authority):
    return authority.issue("inside", f"DNS:*.{DOMAIN}")


@pytest.fixture
def tls_origin(origin, app_certificate):
    """tls_origin(script, alpn=…): script gets the connection inside TLS."""
    def make(script, alpn=()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*app_certificate)
        if alpn:
            context.set_alpn_protocols(list(alpn))

        def run(connection):
            try:
                inside = Connection(context.wrap_socket(connection.sock, server_side=True), timeout=60)
            except (ssl.SSLError, OSError):
                return
            try:
                script(inside)
            finally:
                inside.close()
        return origin(script=run)
    return make


def echo(connection):
    try:
        while True:
            connection.send(connection.read_some())
    except Closed:
        pass
    connection.sock.unwrap()


def put(gateway, origin, protocol="passthrough", **members):
    return gateway.app(origin, ports=[{"port": origin.port, "protocol": protocol}], **members)


def common_name(connection):
    return dict(pair[0] for pair in connection.sock.getpeercert()["subject"])["commonName"]


def test_the_apps_own_certificate_is_seen(gateway, tls_origin):
    app = put(gateway, tls_origin(echo))
    with gateway.connect(app.host()) as connection:
        assert common_name(connection) == "inside"
        connection.send(b"hello")
        assert connection.read(5) == b"hello"
    line = gateway.log_line(host=app.host(), protocol="passthrough")
    assert line["app_id"] == app.id and line["status"] == 200 and line["close"] == "client"
    assert line["bytes_in"] > 300 and line["bytes_out"] > 300 and "tls_version" not in line


def test_a_name_with_s_passes_any_port_through(gateway, tls_origin):
    server = tls_origin(echo, alpn=["h2"])
    app = gateway.app(server)      # protocol auto
    with gateway.connect(f"{app.id}-{server.port}s.{DOMAIN}", gateway.tls_context(["h2"])) as connection:
        assert common_name(connection) == "inside" and connection.sock.selected_alpn_protocol() == "h2"
    with gateway.connect(app.host()) as connection:
        assert common_name(connection) == DOMAIN


def client_hello(gateway, host, alpn=("http/1.1",)):
    """The bytes of OpenSSL's hello, and the TLS object that can go on with it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.tls_context(alpn).wrap_bio(incoming, outgoing, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return tls, incoming, outgoing, outgoing.read()


def go_on(tls, incoming, outgoing, sock):
    while True:
        try:
            tls.do_handshake()
            sock.sendall(outgoing.read())
            return
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))


def pieces_of(hello, how):
    if how == "byte by byte":
        return [hello[i:i + 1] for i in range(len(hello))]
    if how == "several records":
        body, version = hello[5:], hello[1:3]
        parts = [body[i:i + 50] for i in range(0, len(body), 50)]
        return [b"".join(b"\x16" + version + len(part).to_bytes(2, "big") + part for part in parts)]
    return [hello[:3], hello[3:]]


@pytest.mark.parametrize("how", ["byte by byte", "several records", "in the header"])
@pytest.mark.parametrize("where", ["passthrough", "terminated"])
def test_a_hello_may_come_in_pieces(gateway, tls_origin, how, where):
    app = put(gateway, tls_origin(echo), "passthrough" if where == "passthrough" else "http")
    tls, incoming, outgoing, hello = client_hello(gateway, app.host())
    with gateway.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces_of(hello, how):
            sock.sendall(piece)
            if len(piece) == 1 and how == "byte by byte":
                time.sleep(0.0005)
        go_on(tls, incoming, outgoing, sock)
    subject = dict(pair[0] for pair in tls.getpeercert()["subject"])
    assert subject["commonName"] == ("inside" if where == "passthrough" else DOMAIN)


@pytest.mark.parametrize("size", [4000, 15000])
def test_a_large_hello(gateway, tls_origin, size):
    """As post-quantum key shares make them."""
    app = put(gateway, tls_origin(echo))
    protocols = [f"protocol-{i:04}-{'x' * 200}" for i in range(size // 220)]
    with gateway.connect(app.host(), gateway.tls_context(protocols)) as connection:
        connection.send(b"hello")
        assert connection.read(5) == b"hello"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_megabytes_arrive_whole(gateway, tls_origin, direction):
    size = 30_000_000
    data = hashlib.sha256(b"seed").digest() * (size // 32)
    digests = []

    def script(connection):
        if direction == "down":
            connection.send(data)
        else:
            seen = hashlib.sha256()
            left = size
            while left > 0:
                chunk = connection.sock.recv(1 << 16)
                left -= len(chunk)
                seen.update(chunk)
            digests.append(seen.hexdigest())
            connection.send(b"done")
        connection.sock.unwrap()
    app = put(gateway, tls_origin(script))
    with gateway.connect(app.host()) as connection:
        if direction == "down":
            seen = hashlib.sha256()
            while chunk := connection.sock.recv(1 << 16):
                seen.update(chunk)
            digests.append(seen.hexdigest())
        else:
            connection.send(data)
            assert connection.read(4) == b"done"
    assert digests == [hashlib.sha256(data).hexdigest()]


def test_a_slow_reader_slows_its_sender_only(gateway, tls_origin):
    """What the gateway keeps is bounded, and another tunnel is not held up."""
    sent = []

    def flood(connection):
        block = b"x" * 65536
        for _ in range(1600):      # 100 MiB
            connection.send(block)
            sent.append(1)
    slow, fast = put(gateway, tls_origin(flood)), put(gateway, tls_origin(echo))
    before = gateway.rss()
    with gateway.connect(slow.host()) as connection:
        connection.read(10)
        last = None

        def stopped():
            nonlocal last
            now, last = len(sent), (last if last is not None else -1)
            done = now == last and now > 0
            last = now
            time.sleep(0.3)
            return done
        wait_until(stopped, "the sender to be held up", 60)
        assert len(sent) < 1500
        with gateway.connect(fast.host()) as other:
            other.send(b"ping")
            assert other.read(4) == b"ping"
        assert gateway.rss() - before < 30 << 20


@pytest.mark.parametrize("state, code", [("stopped", "app_stopped"), ("starting", "app_starting")])
def test_no_instance_is_an_alert(gateway, tls_origin, state, code):
    server = tls_origin(echo)
    app = put(gateway, server)
    app.document["instances"][0]["state"] = state
    app.put()
    with pytest.raises(ssl.SSLError, match="internal error"):
        gateway.connect(app.host())
    assert gateway.log_line(host=app.host(), error=code)["close"] == "gateway"


def test_a_refused_connection_is_an_alert_and_logged(gateway, tls_origin):
    server = tls_origin(echo)
    app = put(gateway, server)
    server.close()
    with pytest.raises(ssl.SSLError, match="internal error"):
        gateway.connect(app.host())
    line = gateway.log_line(host=app.host(), error="connect_refused")
    assert line["status"] == 502 and line["protocol"] == "passthrough" and line["bytes_out"] == 7   # the alert


def test_another_instance_is_tried(gateway, tls_origin, origin):
    server, dead = tls_origin(echo), origin()
    dead.close()
    app = put(gateway, server)
    app.document["instances"].append({"instance_id": new_id(), "address": dead.address, "generation": 1,
                                      "state": "running"})
    app.put()
    for _ in range(12):
        with gateway.connect(app.host()) as connection:
            connection.send(b"hello")
            assert connection.read(5) == b"hello"
    assert any(line.get("retries") for line in gateway.log_lines() if line["host"] == app.host())


def test_the_tunnel_ends_when_its_address_is_taken(gateway, tls_origin):
    app, other = put(gateway, tls_origin(echo)), put(gateway, tls_origin(echo))
    with gateway.connect(app.host()) as connection, gateway.connect(other.host()) as untouched:
        connection.send(b"a")
        assert connection.read(1) == b"a"
        untouched.send(b"b")
        assert untouched.read(1) == b"b"
        app.document["instances"][0]["generation"] = 2
        app.put()
        assert connection.is_closed()
        untouched.send(b"c")
        assert untouched.read(1) == b"c"
    assert gateway.log_line(host=app.host(), error="address_revoked")["close"] == "gateway"


@pytest.mark.parametrize("who", ["client", "app"])
def test_a_reset_is_passed_on(gateway, origin, who):
    ends = []

    def script(connection):
        connection.send(b"!")
        if who == "app":
            connection.read(1)
            connection.reset()
            return
        try:
            while True:
                connection.sock.recv(1000)
        except OSError as error:
            ends.append(error)
    app = put(gateway, origin(script=script))
    _, _, _, hello = client_hello(gateway, app.host())
    with Connection(gateway.dial()) as connection:
        connection.send(hello)
        connection.read(1)
        if who == "client":
            connection.reset()
            wait_until(lambda: ends, "the app to hear of it")
        else:
            with pytest.raises(ConnectionResetError):
                connection.sock.recv(1000)
    assert all(isinstance(error, ConnectionResetError) for error in ends)
    line = gateway.log_line(host=app.host(), close=who)
    assert line["error"] == ("peer_reset" if who == "client" else "upstream_reset")


def test_half_closed_connections_stay_open_the_other_way(gateway, origin):
    """TCP's half-close, below TLS."""
    def script(connection):
        seen = connection.read_rest()
        connection.send(b"%d bytes" % len(seen))
    server = origin(script=script)
    app = put(gateway, server)
    _, _, _, hello = client_hello(gateway, app.host())
    with Connection(gateway.dial()) as connection:
        connection.send(hello + b"more")
        connection.sock.shutdown(socket.SHUT_WR)
        assert connection.read_rest() == b"%d bytes" % (len(hello) + 4)
    assert server.seen == hello + b"more"


def test_an_idle_tunnel_ends(make_gateway, tls_origin):
    gateway = make_gateway(timeouts={"tunnel_idle": "400ms"})
    app = put(gateway, tls_origin(echo))
    with gateway.connect(app.host()) as connection:
        connection.send(b"a")
        assert connection.read(1) == b"a"
        assert connection.is_closed()
    assert gateway.log_line(host=app.host(), error="tunnel_idle")["close"] == "idle"


def test_http_requests_are_kept_off(gateway, tls_origin):
    """A connection that is terminated here must not carry requests for a passthrough name."""
    app, web = put(gateway, tls_origin(echo)), gateway.app()
    with gateway.connect(web.host(80)) as connection:
        answer = connection.request("GET", "/", app.host())
        assert answer.status == 421 and answer.error == "misdirected"


def test_a_silent_client_and_half_a_hello_end(make_gateway):
    gateway = make_gateway(timeouts={"handshake": "300ms"})
    with Connection(gateway.dial()) as silent, Connection(gateway.dial()) as half:
        half.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.is_closed() and half.is_closed()
    wait_until(lambda: gateway.metric("handshakes_failed_total") == 2, "both to be counted")


def test_drain_waits_for_tunnels_until_its_deadline(make_gateway, tls_origin):
    gateway = make_gateway(timeouts={"drain": "1s"})
    app = put(gateway, tls_origin(echo))
    with gateway.connect(app.host()) as connection:
        connection.send(b"a")
        connection.read(1)
        gateway.send_signal(15)
        connection.send(b"b")
        assert connection.read(1) == b"b"
        assert connection.is_closed()
    assert gateway.wait() == 0
    assert gateway.log_line(host=app.host())["error"] == "shutdown"


def test_a_gateway_behind_a_gateway(gateway, make_gateway, origin):
    inner = make_gateway()
    web = inner.app(origin())
    outer_app = {"app_id": web.id, "ports": [{"port": inner.port, "protocol": "passthrough"}],
                 "domains": [], "instances": [{"instance_id": new_id(), "address": "127.0.0.1", "generation": 1,
                                               "state": "running"}]}
    assert gateway.put_app(outer_app).status in (200, 201)
    inner_host, outer_host = web.host(), f"{web.id}-{inner.port}.{DOMAIN}"
    with gateway.connect(outer_host) as connection:
        answer = connection.request("GET", "/", inner_host)
        assert answer.status == 200 and answer.body == b"ok"
    wait_until(lambda: gateway.metric("tunnels_passthrough_total") >= 1, "the tunnel to be counted")

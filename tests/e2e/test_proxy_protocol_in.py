"""The PROXY protocol on listeners that require it: who the client is, whose word counts, what is refused."""
import ipaddress
import ssl
import struct
import time

import pytest

from gateway import DOMAIN, free_port
from wire import Connection, wait_until

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v1(source="203.0.113.7", port=4711, family="TCP4", target="198.51.100.1"):
    return f"PROXY {family} {source} {target} {port} 443\r\n".encode()


def v2(source="203.0.113.7", port=4711, command=1, tlvs=b""):
    address = ipaddress.ip_address(source)
    target = ipaddress.ip_address("198.51.100.1" if address.version == 4 else "2001:db8::1")
    body = address.packed + target.packed + struct.pack("!HH", port, 443) + tlvs
    family = 0x11 if address.version == 4 else 0x21
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(body)) + body


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, authority):
    from gateway import Gateway     # pylint: disable=import-outside-toplevel
    running = Gateway(tmp_path_factory.mktemp("proxied"), authority, trusted_proxies=["127.0.0.1"],
                      timeouts={"proxy_header": "500ms"})
    for listener in running.config["listeners"]:
        listener["proxy_protocol"] = "required"
    running.start()
    yield running
    running.stop()


def dial(gateway, header, host, apart=False, **options):
    sock = gateway.dial(**options)
    for piece in [header[i:i + 1] for i in range(len(header))] if apart else [header]:
        sock.sendall(piece)
    return Connection(gateway.tls_context().wrap_socket(sock, server_hostname=host))


HEADERS = {
    "v1": (v1(), "203.0.113.7"),
    "v1 over IPv6": (v1("2001:db8::7", family="TCP6", target="2001:db8::1"), "2001:db8::7"),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2": (v2(), "203.0.113.7"),
    "v2 over IPv6": (v2("2001:db8::7"), "2001:db8::7"),
    "v2 local": (v2(command=0), "127.0.0.1"),
    "v2 with extensions": (v2(tlvs=b"\x02\0\x05a.com" + b"\x04\x10\0" + b"\0" * 4096), "203.0.113.7"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("apart", [False, True], ids=["whole", "byte by byte"])
def test_the_client_is_who_the_header_says(gateway, origin, name, apart):
    header, client = HEADERS[name]
    if apart and len(header) > 1000:
        header = header[:16 + 12 + 12]
        header = v2(tlvs=b"\x02\0\x05a.com")
    server = origin()
    app = gateway.app(server)
    with dial(gateway, header, app.host(), apart) as connection:
        answer = connection.request("GET", "/", app.host(), X_Forwarded_For="6.6.6.6")
        assert answer.status == 200
    seen = server.requests[0]
    expected = client if client != "127.0.0.1" else "6.6.6.6, 127.0.0.1"     # that one is a trusted proxy
    assert seen.get("X-Forwarded-For") == expected
    assert gateway.log_line(host=app.host())["client"] == client


def test_the_redirect_listener_reads_it_too(gateway):
    with Connection(gateway.dial(gateway.http_port)) as connection:
        connection.send(v1() + b"GET /a HTTP/1.1\r\nHost: x.%s\r\n\r\n" % DOMAIN.encode())
        answer = connection.read_response()
        assert answer.status == 308 and answer.get("Location").endswith("/a")
    with Connection(gateway.dial(gateway.http_port)) as connection:
        connection.send(v2())
        connection.send(b"GET /b HTTP/1.1\r\nHost: x.%s\r\n\r\n" % DOMAIN.encode())
        assert connection.read_response().status == 308


def test_passthrough_and_tcp_know_the_client(gateway, origin):
    def script(connection):
        connection.send(connection.read(1))
    server = origin(script=script)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": "tcp"}])
    sock = gateway.dial()
    sock.sendall(v2("198.51.100.77", 999))
    with Connection(gateway.tls_context(()).wrap_socket(sock, server_hostname=app.host())) as connection:
        connection.send(b"x")
        assert connection.read(1) == b"x"
    line = gateway.log_line(host=app.host())
    assert (line["client"], line["client_port"], line["protocol"]) == ("198.51.100.77", 999, "tcp")


@pytest.mark.parametrize("header", [b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 1.2.3 4 5 6\r\n",
                                    b"PROXY " + b"x" * 120, SIGNATURE + b"\x31\x11\0\x0c" + b"x" * 12,
                                    SIGNATURE + b"\x21\x11\0\x01x"])
def test_anything_else_is_refused(gateway, header):
    before, handshakes = gateway.metric("proxy_headers_refused_total"), gateway.metric("handshakes_failed_total")
    with Connection(gateway.dial()) as connection:
        connection.send(header)
        assert connection.is_closed()
    wait_until(lambda: gateway.metric("proxy_headers_refused_total") == before + 1, "it to be counted")
    assert gateway.metric("handshakes_failed_total") == handshakes


def test_a_header_longer_than_what_is_kept_is_refused(gateway):
    before = gateway.metric("proxy_headers_refused_total")
    with Connection(gateway.dial()) as connection:
        connection.send(SIGNATURE + b"\x21\x11\xff\xff" + bytes(60000))
        assert connection.is_closed()
    wait_until(lambda: gateway.metric("proxy_headers_refused_total") == before + 1, "it to be counted")


@pytest.mark.parametrize("part", [0, 6, 20])
def test_a_header_that_does_not_come_is_refused(gateway, part):
    with Connection(gateway.dial()) as connection:
        if part:
            connection.send(v1()[:part])
        assert connection.is_closed()


def test_only_trusted_proxies_may_send_it(gateway):
    with Connection(gateway.dial(source="127.0.0.2")) as connection:
        connection.send(v1())
        assert connection.is_closed()
    assert "127.0.0.2" in gateway.stderr() and "trusted_proxies" in gateway.stderr()


def test_a_listener_without_it_takes_no_header(make_gateway):
    plain = make_gateway(trusted_proxies=["127.0.0.1"])
    sock = plain.dial()
    sock.sendall(v1())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        plain.tls_context().wrap_socket(sock, server_hostname=f"x.{DOMAIN}")
    sock.close()


def test_both_kinds_of_listeners_at_once(make_gateway, origin):
    other = free_port()
    mixed = make_gateway(start=False, trusted_proxies=["127.0.0.1"])
    mixed.config["listeners"].append({"address": f"127.0.0.1:{other}", "proxy_protocol": "required"})
    mixed.start()
    app = mixed.app(origin())
    assert mixed.fetch("GET", "/", app.host()).status == 200
    sock = mixed.dial(other)
    sock.sendall(v2())
    with Connection(mixed.tls_context().wrap_socket(sock, server_hostname=app.host())) as connection:
        assert connection.request("GET", "/", app.host()).status == 200


def reload(gateway, required, trusted):
    for listener, is_required in zip(gateway.config["listeners"], required):
        listener["proxy_protocol"] = "required" if is_required else "off"
    gateway.config["trusted_proxies"] = trusted
    gateway.write_config()
    return gateway.control("POST", "/v1/reload").json["needs_restart"]


def test_who_may_send_it_stays_while_a_listener_that_needs_it_waits_for_a_restart(make_gateway, origin):
    gateway = make_gateway(start=False)
    for listener in gateway.config["listeners"]:
        listener["proxy_protocol"] = "required"
    gateway.config["trusted_proxies"] = ["127.0.0.1"]
    app = gateway.start().app(origin())

    def is_served(source):
        try:
            with dial(gateway, v1(), app.host(), source=source) as connection:
                return connection.request("GET", "/", app.host()).status == 200
        except OSError:
            return False
    assert reload(gateway, (False, False), []) == ["listeners", "trusted_proxies"]
    assert is_served("127.0.0.1") and not is_served("127.0.0.2")
    assert reload(gateway, (False, True), ["127.0.0.2"]) == ["listeners", "trusted_proxies"]
    assert is_served("127.0.0.1") and not is_served("127.0.0.2")
    assert reload(gateway, (False, False), ["127.0.0.1"]) == ["listeners"]
    assert reload(gateway, (True, True), ["127.0.0.2"]) == []
    assert is_served("127.0.0.2") and not is_served("127.0.0.1")
    assert reload(gateway, (False, False), []) == ["listeners", "trusted_proxies"]
    assert is_served("127.0.0.2") and not is_served("127.0.0.1")


def test_the_handshake_has_its_own_time(tmp_path_factory, authority, origin):
    """A header that took longer than a handshake may."""
    from gateway import Gateway     # pylint: disable=import-outside-toplevel
    running = Gateway(tmp_path_factory.mktemp("patient"), authority, trusted_proxies=["127.0.0.1"],
                      timeouts={"proxy_header": "20s", "handshake": "2s"})
    for listener in running.config["listeners"]:
        listener["proxy_protocol"] = "required"
    running.start()
    try:
        app = running.app(origin())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = running.tls_context().wrap_bio(incoming, outgoing, server_hostname=app.host())
        with running.dial() as sock:
            time.sleep(2.5)
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            sock.sendall(v1() + outgoing.read())
            time.sleep(0.5)     # a handshake of some length
            incoming.write(sock.recv(65536))
            tls.do_handshake()
            tls.write(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n".encode())
            sock.sendall(outgoing.read())
            running.log_line(app_id=app.id, status=200)
    finally:
        running.stop()

"""Raw TCP inside TLS: tcp ports, and auto ports whose client speaks something else than HTTP."""
import select
import signal
import socket
import ssl
import threading
import time

import pytest

from gateway import new_id
from wire import Closed, Connection, wait_until


def echo(connection):
    try:
        while True:
            connection.send(connection.read_some())
    except Closed:
        pass


def put(gateway, origin, protocol, **members):
    return gateway.app(origin, ports=[{"port": origin.port, "protocol": protocol}], **members)


def no_alpn(gateway):
    return gateway.tls_context(alpn=())


def test_bytes_go_both_ways(gateway, origin):
    app = put(gateway, origin(script=echo), "tcp")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        for size in 1, 1000, 100_000:
            connection.send(b"x" * size)
            assert connection.read(size) == b"x" * size
        connection.sock.unwrap()
    line = gateway.log_line(host=app.host())
    assert line["protocol"] == "tcp" and line["bytes_in"] == line["bytes_out"] == 101_001
    assert line["tls_version"] == "TLSv1.3" and line["close"] == "client" and "error" not in line


@pytest.mark.parametrize("protocols", [["postgresql"], ["h2", "http/1.1"], ["something", "else"]])
def test_a_tcp_port_takes_any_alpn(gateway, origin, protocols):
    app = put(gateway, origin(script=echo), "tcp")
    with gateway.connect(app.host(), gateway.tls_context(protocols)) as connection:
        assert connection.sock.selected_alpn_protocol() == protocols[0]
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.read(18) == b"GET / HTTP/1.1\r\n\r\n"
    assert gateway.log_line(host=app.host())["alpn"] == protocols[0]


def test_a_name_in_capitals_with_a_final_dot(gateway, origin):
    app = put(gateway, origin(script=echo), "tcp")
    context = no_alpn(gateway)
    context.check_hostname = False
    with gateway.connect(app.host().upper() + ".", context) as connection:
        connection.send(b"x")
        assert connection.read(1) == b"x"
    assert gateway.log_line(host=app.host())["app_id"] == app.id


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_half_close_becomes_fin_and_close_notify(gateway, origin, version):
    def script(connection):
        seen = connection.read_rest()
        connection.send(b"%d bytes" % len(seen))
    app = put(gateway, origin(script=script), "tcp")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.tls_context((), version).wrap_bio(incoming, outgoing, server_hostname=app.host())
    with gateway.dial() as sock:
        def step(action):
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    data = sock.recv(65536)
                    if not data:
                        incoming.write_eof()
                    incoming.write(data)
                finally:
                    sock.sendall(outgoing.read())
        step(tls.do_handshake)
        tls.write(b"hello")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()        # close_notify goes out; the answer's is still to come
        sock.sendall(outgoing.read())
        assert step(lambda: tls.read(100)) == b"7 bytes".replace(b"7", b"5")
        step(tls.unwrap)        # and the app's end is a close_notify, not only a FIN
    assert "error" not in gateway.log_line(host=app.host())


def test_a_reset_behind_close_notify_is_an_end_in_order_for_the_app(gateway, origin):
    """A client that only writes never reads its session ticket: close(2) then resets the connection."""
    got = []
    app = put(gateway, origin(script=lambda connection: got.append(connection.read_rest())), "tcp")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = no_alpn(gateway).wrap_bio(incoming, outgoing, server_hostname=app.host())
    with gateway.dial() as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        sock.sendall(outgoing.read())
        select.select([sock], [], [])       # the ticket has come, and stays unread
        tls.write(b"record")
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
    wait_until(lambda: got, "the app to hear of it")
    assert got == [b"record"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_last_words_before_an_end_without_close_notify_arrive(gateway, origin, version):
    """Both come to the gateway as one event."""
    got = []

    def script(connection):
        try:
            while True:
                connection.fill()
        except Closed:
            got.append(bytes(connection.buffer))
    app = put(gateway, origin(script=script), "tcp")
    with gateway.connect(app.host(), gateway.tls_context((), version)) as connection:
        connection.send(b"first")
        wait_until(lambda: gateway.metric("tunnels_active") == 1, "the tunnel")
        gateway.send_signal(signal.SIGSTOP)
        try:
            connection.send(b" and last words")
            connection.sock.shutdown(socket.SHUT_WR)
        finally:
            gateway.send_signal(signal.SIGCONT)
        wait_until(lambda: got, "the app to hear of it")
    assert got == [b"first and last words"]


def test_an_end_without_close_notify_is_a_reset_for_the_app(gateway, origin):
    ends = []

    def script(connection):
        try:
            while True:
                connection.fill()
        except Closed as error:
            ends.append(str(error))
    app = put(gateway, origin(script=script), "tcp")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        connection.send(b"half a trans")
        wait_until(lambda: gateway.metric("tunnels_active") == 1, "the tunnel")
        connection.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: ends, "the app to hear of it")
    assert "reset" in ends[0].lower()
    assert gateway.log_line(host=app.host())["error"] == "tls_truncated"


def test_an_app_that_resets_does_not_look_like_one_that_ended(gateway, origin):
    def script(connection):
        connection.send(b"!")
        connection.read(1)
        connection.reset()
    app = put(gateway, origin(script=script), "tcp")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        assert connection.read(1) == b"!"
        connection.send(b"?")
        connection.sock.suppress_ragged_eofs = False
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            connection.sock.recv(1)
    assert gateway.log_line(host=app.host())["error"] == "upstream_reset"


def test_an_app_that_is_not_there(gateway, origin):
    server = origin(script=echo)
    app = put(gateway, server, "tcp")
    server.close()
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        assert connection.is_closed()
    assert gateway.log_line(host=app.host())["status"] == 502


def test_a_stopped_app(gateway, origin):
    app = put(gateway, origin(script=echo), "tcp")
    app.document["instances"][0]["state"] = "stopped"
    app.put()
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        assert connection.is_closed()
    assert gateway.log_line(host=app.host())["error"] == "app_stopped"


def test_other_apps_changes_do_not_touch_a_tunnel(gateway, origin):
    app, other = put(gateway, origin(script=echo), "tcp"), put(gateway, origin(script=echo), "tcp")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        for generation in range(2, 6):
            other.document["instances"][0]["generation"] = generation
            other.put()
            connection.send(b"x")
            assert connection.read(1) == b"x"


# ---- auto ports ----

BINARY = [b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"*1\r\n$4\r\nPING\r\n", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
          b"\x16\x03\x01\x00\x05hello", b"EHLO client.example\r\n", b"\xff\xfb\x01"]


@pytest.mark.parametrize("first", BINARY)
def test_a_client_that_speaks_no_http_gets_a_tunnel(gateway, origin, first):
    app = put(gateway, origin(script=echo), "auto")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        connection.send(first)
        assert connection.read(len(first)) == first


def test_a_first_line_in_pieces(gateway, origin):
    app = put(gateway, origin(script=echo), "auto")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        for piece in b"HELO", b" me", b"\r\n":
            connection.send(piece)
        assert connection.read(9) == b"HELO me\r\n"


REQUESTS = [b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\nHost: %s\r\n\r\n"]


@pytest.mark.parametrize("request_text", REQUESTS)
@pytest.mark.parametrize("by", ["whole", "byte"])
def test_http_without_alpn_is_http(gateway, origin, request_text, by):
    server = origin()
    app = put(gateway, server, "auto")
    text = request_text % app.host().encode()
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        for piece in [text] if by == "whole" else [text[i:i + 1] for i in range(len(text))]:
            connection.send(piece)
        assert connection.read_response().status == 200
    assert server.requests[0].get("X-Forwarded-For") == "127.0.0.1"


LENIENT = [b"get / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"GET\t/\tHTTP/1.1\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n",
           b" GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET http://a/ HTTP/1.1\r\n\r\n", b"POST\r\n\r\n",
           b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"x y http/9.9\r\n\r\n"]


@pytest.mark.parametrize("first", LENIENT)
def test_whatever_could_be_a_request_gets_the_strict_parser(gateway, origin, first):
    server = origin(script=echo)
    app = put(gateway, server, "auto")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        connection.send(first)
        assert connection.read_response().status in (400, 404, 405, 505)
    assert server.seen == b""


def test_a_client_that_negotiated_http_gets_the_strict_parser(gateway, origin):
    server = origin(script=echo)
    app = put(gateway, server, "auto")
    with gateway.connect(app.host()) as connection:
        connection.send(BINARY[0] + b"\r\n\r\n")
        assert connection.read_response().status == 400
    assert server.seen == b""


def test_a_word_and_then_more_than_a_block(make_gateway, origin):
    """One read brings it all: the gateway sleeps while it is sent."""
    gateway = make_gateway()
    app = put(gateway, origin(script=echo), "auto")
    with gateway.connect(app.host(), no_alpn(gateway)) as connection:
        connection.send(b"ABCD")
        time.sleep(0.1)     # it is kept by then, which only makes the test sharper
        gateway.send_signal(signal.SIGSTOP)
        connection.send(b"e" * 60_000)
        gateway.send_signal(signal.SIGCONT)
        assert connection.read(60_004) == b"ABCD" + b"e" * 60_000
    assert gateway.log_line(host=app.host())["protocol"] == "tcp"


@pytest.fixture(scope="module")
def quick(tmp_path_factory, authority):
    from gateway import Gateway     # pylint: disable=import-outside-toplevel
    running = Gateway(tmp_path_factory.mktemp("quick"), authority, timeouts={"sniff": "100ms"}).start()
    yield running
    running.stop()


def test_a_server_that_speaks_first(quick, origin):
    def script(connection):
        connection.send(b"220 ready\r\n")
        echo(connection)
    app = put(quick, origin(script=script), "auto")
    with quick.connect(app.host(), no_alpn(quick)) as connection:
        assert connection.read(11) == b"220 ready\r\n"
        connection.send(b"GET / HTTP/1.1\r\n\r\n")      # it is the server's protocol now, whatever that is
        assert connection.read(18) == b"GET / HTTP/1.1\r\n\r\n"


def test_a_late_binary_client(quick, origin):
    server = origin(script=echo)
    app = put(quick, server, "auto")
    with quick.connect(app.host(), no_alpn(quick)) as connection:
        wait_until(lambda: server.connections, "the tunnel to be made for the silent client")
        connection.send(BINARY[0])
        assert connection.read(8) == BINARY[0]


@pytest.mark.parametrize("by", ["whole", "byte"])
def test_a_late_request_is_still_http(quick, origin, by):
    """Silence is no way around the parser: forged fields are dropped as on any connection."""
    seen = []

    def script(connection):
        try:
            seen.append(connection.read_request())
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except Closed:
            pass
    server = origin(script=script)
    app = put(quick, server, "auto")
    text = b"GET / HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n" % app.host().encode()
    with quick.connect(app.host(), no_alpn(quick)) as connection:
        wait_until(lambda: server.connections, "the tunnel to be made for the silent client")
        for piece in [text] if by == "whole" else [text[i:i + 1] for i in range(len(text))]:
            connection.send(piece)
        assert connection.read_response().status == 200
    assert [request.get("X-Forwarded-For") for request in seen] == ["127.0.0.1"]


def test_half_a_word_is_not_silence(quick, origin):
    server = origin()
    app = put(quick, server, "auto")
    with quick.connect(app.host(), no_alpn(quick)) as connection:
        connection.send(b"GE")
        assert connection.is_silent(0.5)
        connection.send(b"T / HTTP/1.1\r\nHost: %s\r\n\r\n" % app.host().encode())
        assert connection.read_response().status == 200


def test_many_tunnels_at_once(gateway, origin):
    app = put(gateway, origin(script=echo), "tcp")
    context, errors = no_alpn(gateway), []

    def run(number):
        try:
            with gateway.connect(app.host(), context) as connection:
                for i in range(20):
                    text = b"%d-%d;" % (number, i)
                    connection.send(text)
                    assert connection.read(len(text)) == text
        except BaseException as error:      # pylint: disable=broad-except
            errors.append(error)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    wait_until(lambda: gateway.metric("tunnels_active") == 0, "all tunnels to end")


def test_instances_of_a_tcp_port_share_the_load(gateway, origin):
    one, two = origin(script=echo), None
    two = origin(script=echo, port=one.port)
    app = put(gateway, one, "tcp")
    app.document["instances"].append({"instance_id": new_id(), "address": two.address, "generation": 1,
                                      "state": "running"})
    app.put()
    held = []
    for _ in range(20):
        held.append(gateway.connect(app.host(), no_alpn(gateway)))
        held[-1].send(b"x")
        held[-1].read(1)
    assert len(one.connections) > 3 and len(two.connections) > 3
    for connection in held:
        connection.close()


def test_a_raw_connection_is_no_connection_class(gateway):
    """Plain HTTP on the TLS port ends with an alert."""
    with Connection(gateway.dial()) as connection:
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.read_rest()[:1] in (b"\x15", b"")

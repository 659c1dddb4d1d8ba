"""Each bad request of DESIGN section 5: bytes in, bytes out, and the app saw nothing of it."""
import pytest

HOST = b"@HOST@"        # stands for the app's host name

# (id, request, statuses that are right, code or None)
REFUSED = [
    ("cl-te", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "framing_conflict"),
    ("te-cl", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
     "framing_conflict"),
    ("two-cl", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
     "content_length_invalid"),
    ("cl-list", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: 1, 2\r\n\r\nab", "content_length_invalid"),
    ("cl-plus", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: +1\r\n\r\na", "content_length_invalid"),
    ("cl-minus", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: -1\r\n\r\na", "content_length_invalid"),
    ("cl-hex", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: 0x1\r\n\r\na", "content_length_invalid"),
    ("cl-empty", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length:\r\n\r\n", "content_length_invalid"),
    ("cl-huge", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nContent-Length: 99999999999999999999\r\n\r\n",
     "content_length_invalid"),
    ("te-gzip", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer_coding_invalid"),
    ("te-gzip-chunked", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
     "transfer_coding_invalid"),
    ("te-chunked-gzip", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
     "transfer_coding_invalid"),
    ("te-chunked-twice", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
     "transfer_coding_invalid"),
    ("two-te", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"0\r\n\r\n", "transfer_coding_invalid"),
    ("te-identity", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: identity\r\n\r\n",
     "transfer_coding_invalid"),
    ("te-vertical-tab", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", None),
    ("te-http10", b"POST / HTTP/1.0\r\nHost: @HOST@\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     "transfer_coding_invalid"),
    ("bare-cr-name", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA\rB: c\r\n\r\n", None),
    ("bare-cr-value", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA: b\rc: d\r\n\r\n", "bare_cr"),
    ("bare-cr-line", b"GET / HTTP/1.1\rHost: @HOST@\r\n\r\n", None),
    ("nul-value", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA: b\0c\r\n\r\n", "bad_field_value"),
    ("nul-name", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA\0B: c\r\n\r\n", "bad_field_name"),
    ("nul-target", b"GET /\0 HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("obs-fold", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA: b\r\n c\r\n\r\n", "obs_fold"),
    ("obs-fold-tab", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA: b\r\n\tc\r\n\r\n", "obs_fold"),
    ("fold-first", b"GET / HTTP/1.1\r\n Host: @HOST@\r\n\r\n", None),
    ("space-colon", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nA : b\r\n\r\n", "bad_field_name"),
    ("space-colon-te", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
     "bad_field_name"),
    ("no-colon", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nnonsense\r\n\r\n", "bad_field_name"),
    ("empty-name", b"GET / HTTP/1.1\r\nHost: @HOST@\r\n: b\r\n\r\n", "bad_field_name"),
    ("no-host", b"GET / HTTP/1.1\r\n\r\n", "host_missing"),
    ("two-hosts", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nHost: @HOST@\r\n\r\n", "host_duplicate"),
    ("host-userinfo", b"GET / HTTP/1.1\r\nHost: a@@HOST@\r\n\r\n", "host_invalid"),
    ("host-comma", b"GET / HTTP/1.1\r\nHost: @HOST@,@HOST@\r\n\r\n", "host_invalid"),
    ("host-space", b"GET / HTTP/1.1\r\nHost: @HOST@ a\r\n\r\n", "host_invalid"),
    ("host-port", b"GET / HTTP/1.1\r\nHost: @HOST@:99999\r\n\r\n", "host_invalid"),
    ("host-path", b"GET / HTTP/1.1\r\nHost: @HOST@/a\r\n\r\n", "host_invalid"),
    ("authority-differs", b"GET https://other.gw.example/ HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "host_mismatch"),
    ("target-space", b"GET /a b HTTP/1.1\r\nHost: @HOST@\r\n\r\n", None),
    ("target-control", b"GET /\x01 HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("target-tab", b"GET /\ta HTTP/1.1\r\nHost: @HOST@\r\n\r\n", None),
    ("target-high", b"GET /\xff HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("target-fragment", b"GET /#a HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("target-relative", b"GET a HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("target-asterisk", b"GET * HTTP/1.1\r\nHost: @HOST@\r\n\r\n", "bad_target"),
    ("method", b"G(T / HTTP/1.1\r\nHost: @HOST@\r\n\r\n", None),
    ("request-line", b"GET\r\nHost: @HOST@\r\n\r\n", "bad_request_line"),
    ("http09", b"GET /\r\n\r\n", "bad_request_line"),
    ("version-lower", b"GET / http/1.1\r\nHost: @HOST@\r\n\r\n", None),
    ("version-words", b"GET / HTTP/1.1 x\r\nHost: @HOST@\r\n\r\n", None),
    ("upgrade-body", b"GET / HTTP/1.1\r\nHost: @HOST@\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
     b"Content-Length: 1\r\n\r\na", "upgrade_with_body"),
]

OTHER_STATUS = [
    ("version-3", b"GET / HTTP/3.0\r\nHost: @HOST@\r\n\r\n", 505),
    ("version-2", b"GET / HTTP/2.0\r\nHost: @HOST@\r\n\r\n", 505),
    ("connect", b"CONNECT @HOST@:80 HTTP/1.1\r\nHost: @HOST@\r\n\r\n", 405),
    ("expect", b"POST / HTTP/1.1\r\nHost: @HOST@\r\nExpect: more\r\nContent-Length: 1\r\n\r\n", 417),
]

# The head is good and may be passed on; the body is not, and no more of it than what is good.
BAD_BODIES = [
    ("size-letters", b"xyz\r\n"),
    ("size-sign", b"-1\r\n"),
    ("size-plus", b"+1\r\na\r\n0\r\n\r\n"),
    ("size-prefix", b"0x1\r\na\r\n0\r\n\r\n"),
    ("size-space", b" 1\r\na\r\n0\r\n\r\n"),
    ("size-empty", b"\r\n"),
    ("size-huge", b"fffffffffffffffff\r\n"),
    ("size-bare-lf", b"1\na\r\n0\r\n\r\n"),
    ("data-too-long", b"1\r\nab\r\n0\r\n\r\n"),
    ("data-no-crlf", b"1\r\naX0\r\n\r\n"),
    ("extension-bare-cr", b"1;a\rb\r\na\r\n0\r\n\r\n"),
    ("extension-nul", b"1;a=\0\r\na\r\n0\r\n\r\n"),
    ("trailer-fold", b"0\r\nA: b\r\n c\r\n\r\n"),
    ("trailer-space-colon", b"0\r\nA : b\r\n\r\n"),
]

FOLLOWING = b"GET /smuggled HTTP/1.1\r\nHost: @HOST@\r\n\r\n"


def exchange(gateway, app, data):
    """Sends the bytes and a request after them; returns the answer, and asserts that nothing follows it."""
    with gateway.connect(app.host()) as connection:
        connection.send((data + FOLLOWING).replace(HOST, app.host().encode()))
        answer = connection.read_response()
        assert connection.is_closed(), "the connection must close: where the next request begins is unknown"
        return answer


@pytest.mark.parametrize("data, code", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(gateway, origin, data, code):
    server = origin()
    app = gateway.app(server)
    answer = exchange(gateway, app, data)
    assert answer.status == 400, (answer.start, answer.body)
    assert answer.error and (code is None or answer.error == code)
    assert server.seen == b""


@pytest.mark.parametrize("data, code", [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused_byte_by_byte(gateway, origin, data, code):
    """The same when the bytes come one TLS record each."""
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        try:
            for byte in data.replace(HOST, app.host().encode()):
                connection.send(bytes([byte]))
        except OSError:
            pass        # it may have answered and closed before the last byte
        answer = connection.read_response()
    assert answer.status == 400
    assert answer.error and (code is None or answer.error == code)
    assert server.seen == b""


@pytest.mark.parametrize("data, status", [case[1:] for case in OTHER_STATUS], ids=[case[0] for case in OTHER_STATUS])
def test_refused_with_another_status(gateway, origin, data, status):
    server = origin()
    app = gateway.app(server)
    answer = exchange(gateway, app, data)
    assert answer.status == status and answer.error
    assert server.seen == b""


@pytest.mark.parametrize("body", [case[1] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES])
def test_bad_chunked_body(gateway, origin, body):
    """The app may see the head of it, and must never see a complete message, nor the request after it."""
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send((b"POST / HTTP/1.1\r\nHost: @HOST@\r\nTransfer-Encoding: chunked\r\n\r\n" + body + FOLLOWING)
                        .replace(HOST, app.host().encode()))
        answer = connection.read_response()
        assert answer.status == 400 and answer.error in ("chunk_invalid", "trailer_invalid", "bare_cr", "obs_fold",
                                                         "bad_field_name", "bad_field_value"), answer
        assert connection.is_closed()
    assert server.requests == []
    assert b"smuggled" not in server.seen
    assert b"0\r\n\r\n" not in server.seen


def test_good_request_after_empty_lines(gateway, origin):
    """RFC 9112 section 2.2: a recipient ignores an empty line before the request line."""
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(b"\r\n")
        assert connection.request("GET", "/", app.host()).status == 200


def test_field_names_of_trust_are_dropped(gateway, origin):
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nX-Real-IP: 8.8.8.8\r\nX_Real_IP: 8.8.8.8\r\n"
                        "X-Forwarded-Host: evil\r\nX_Forwarded_Proto: evil\r\nForwarded: for=8.8.8.8\r\n"
                        "X-Request-Id: evil\r\nX-Forwarded-Port: 1\r\nContent_Length: 5\r\n"
                        "Transfer_Encoding: chunked\r\n\r\n")
        assert connection.read_response().status == 200
    (request,) = server.requests
    assert b"8.8.8.8" not in server.seen and b"evil" not in server.seen
    assert request.get("X-Forwarded-Port") == str(gateway.port)
    assert request.get("X-Real-IP") == "127.0.0.1"
    assert not [name for name, _ in request.fields if name.lower().replace("_", "-") in (
        "x-real-ip", "x-forwarded-proto", "x-forwarded-for", "transfer-encoding") and "_" in name]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Forwarded-For", "Transfer-Encoding"])
def test_connection_cannot_remove_what_matters(gateway, origin, name):
    """Connection: X-Forwarded-For must not take away what the gateway says."""
    server = origin()
    app = gateway.app(server)
    answer = gateway.fetch("POST", "/", app.host(), b"hello", Connection=name)
    if answer.status == 400:        # refusing is right too
        assert server.seen == b""
        return
    (request,) = server.requests
    assert request.body == b"hello" and request.get("Host") == app.host()
    assert request.get("X-Forwarded-For") == "127.0.0.1"


BAD_RESPONSES = [
    ("garbage", b"hello\r\n\r\n"),
    ("tls", b"\x15\x03\x01\x00\x02\x02\x16"),
    ("cl-te", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two-cl", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("te-gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    ("bare-cr", b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n"),
    ("nul", b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n"),
    ("space-colon", b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 0\r\n\r\n"),
    ("status-words", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
    ("status-99", b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"),
    ("101-unasked", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw"),
    ("early-eof", b"HTTP/1.1 200 OK\r\nContent-Le"),
    ("nothing", b""),
]


@pytest.mark.parametrize("data", [case[1] for case in BAD_RESPONSES], ids=[case[0] for case in BAD_RESPONSES])
def test_bad_responses(gateway, origin, data):
    """An app whose answer is not HTTP: 502, and the client's connection goes on."""
    def answer(connection, _):
        connection.send(data)
        return False
    server = origin(answer)
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        response = connection.request("POST", "/", app.host(), b"x")     # not idempotent: no retry
        assert response.status == 502 and response.error.startswith("upstream_"), response
        assert connection.request("GET", "/", "health.gw.example").status == 200
    assert len(server.requests) == 1


def test_response_of_another_request_is_not_used(gateway, origin):
    """Bytes after a complete response must not become the answer to the next request on the pooled connection."""
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    server = origin(lambda connection, request: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + poison)
    app = gateway.app(server)
    for _ in range(6):
        assert gateway.fetch("GET", "/", app.host()).body == b"ok"

"""Bodies and heads of every shape, in both directions."""
import time

import pytest

from origin import OK, respond
from wire import Closed


@pytest.fixture
def answering(gateway, origin):
    """answering(answer) registers an app and returns it with its origin."""
    def make(answer):
        server = origin(answer)
        return gateway.app(server), server
    return make


def test_chunked_response_with_trailers(gateway, answering):
    app, _ = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                       b"5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 42\r\nContent-Length: 9\r\n\r\n")
    answer = gateway.fetch("GET", "/", app.host(), TE="trailers")
    assert answer.body == b"hello!"
    assert ("X-Sum", "42") in answer.trailers
    assert "Content-Length" not in dict(answer.trailers)


def test_chunked_request_with_trailers(gateway, answering):
    app, server = answering(OK)
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                        "5\r\nhello\r\n0\r\nX-Sum: 42\r\nX-Forwarded-For: evil\r\n\r\n")
        assert connection.read_response().status == 200
    (request,) = server.requests
    assert request.body == b"hello" and ("X-Sum", "42") in request.trailers
    assert b"evil" not in server.seen


def test_chunks_in_pieces(gateway, answering):
    """Every byte of a chunked body in a segment of its own."""
    app, server = answering(lambda connection, request: respond(request.body))
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in b"5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n":
            connection.send(bytes([byte]))
        assert connection.read_response().body == b"hello0123456789"
    assert server.requests[0].body == b"hello0123456789"


def test_response_byte_by_byte(gateway, answering):
    def answer(connection, _):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello":
            connection.send(bytes([byte]))
            time.sleep(0.001)
    app, _ = answering(answer)
    response = gateway.fetch("GET", "/", app.host())
    assert response.body == b"hello" and response.get("A") == "b"


def test_close_delimited_response(gateway, answering):
    def answer(connection, _):
        connection.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        return False
    app, _ = answering(answer)
    with gateway.connect(app.host()) as connection:
        response = connection.request("GET", "/", app.host())
        assert response.body == b"until the end"


def test_truncated_response_is_visible(gateway, answering):
    """What is cut off upstream must not look complete to the client."""
    def answer(connection, _):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        return False
    app, _ = answering(answer)
    with gateway.connect(app.host()) as connection, pytest.raises(Closed):
        connection.request("GET", "/", app.host())


def test_truncated_chunked_response_is_visible(gateway, answering):
    def answer(connection, _):
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        return False
    app, _ = answering(answer)
    with gateway.connect(app.host()) as connection, pytest.raises(Closed):
        connection.request("GET", "/", app.host())


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body(gateway, answering, status):
    app, _ = answering(f"HTTP/1.1 {status}\r\nETag: \"a\"\r\n\r\n".encode())
    with gateway.connect(app.host()) as connection:
        for _ in range(3):
            answer = connection.request("GET", "/", app.host())
            assert answer.status == int(status[:3]) and answer.get("ETag") == '"a"'


def test_head_keeps_the_length(gateway, answering):
    app, _ = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    with gateway.connect(app.host()) as connection:
        for _ in range(3):
            assert connection.request("HEAD", "/", app.host()).get("Content-Length") == "1000"


def test_304_with_length(gateway, answering):
    app, _ = answering(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n")
    with gateway.connect(app.host()) as connection:
        for _ in range(3):
            assert connection.request("GET", "/", app.host()).status == 304


def test_interim_responses(gateway, answering):
    app, _ = answering(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + OK)
    interim = []
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert connection.read_response(interim=interim).body == b"ok"
    assert [message.status for message in interim] == [103]
    assert interim[0].get("Link") == "</a.css>; rel=preload"


def test_interim_responses_not_to_http_1_0(gateway, answering):
    """RFC 9110 section 15.2: a server must not send a 1xx to an HTTP/1.0 client."""
    app, _ = answering(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + OK)
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.0\r\nHost: {app.host()}\r\n\r\n")
        assert connection.read_response().body == b"ok"


def test_100_continue(gateway, origin):
    """The app says when the body may come; a client that waits for that gets it."""
    def script(connection):
        head = connection.read_head()
        assert head.get("Expect", "").lower() == "100-continue"
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(head)
        connection.send(respond(head.body))
    app = gateway.app(origin(script=script))
    interim = []
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        while not interim:
            interim.append(connection.read_head())
        assert interim[0].status == 100
        connection.send(b"hello")
        assert connection.read_response(interim=interim).body == b"hello"


def test_100_continue_refused_by_the_app(gateway, origin):
    """A final answer instead of 100: the client never sends the body, and is told so at once."""
    def script(connection):
        connection.read_head()
        connection.send(respond(b"too big", "413 Content Too Large"))
        connection.read_rest()
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert connection.read_response(interim=[]).status == 413


def test_early_response(gateway, origin):
    """The app answers before it has read the body: the client gets the answer whole."""
    def script(connection):
        connection.read_head()
        connection.send(respond(b"no", "403 Forbidden", "Connection: close"))
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 100000000\r\n\r\n")
        try:
            for _ in range(100):
                connection.send(bytes(65536))
        except OSError:
            pass
        answer = connection.read_response()
        assert answer.status == 403 and answer.body == b"no"


def test_response_while_the_request_still_streams(gateway, origin):
    """Both directions at once: an echo that answers each piece as it comes."""
    def script(connection):
        assert connection.read_head().get("Transfer-Encoding") == "chunked"
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while data := connection.read_chunk():
            connection.send_chunk(data)
        connection.send_chunk(b"")
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_chunk(b"first")
        assert connection.read_head().status == 200
        assert connection.read_chunk() == b"first"
        for word in (b"second", b"third", b"x" * 100000):
            connection.send_chunk(word)
            received = b""
            while len(received) < len(word):
                received += connection.read_chunk()
            assert received == word
        connection.send_chunk(b"")
        assert connection.read_chunk() == b""


def test_empty_body_with_length_zero(gateway, answering):
    app, server = answering(OK)
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 0\r\n\r\n")
        assert connection.read_response().status == 200
    assert server.requests[0].get("Content-Length") == "0"


def test_fields_keep_order_and_repeat(gateway, answering):
    app, server = answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX: 1\r\nSet-Cookie: b=2\r\n"
                            b"Content-Length: 0\r\n\r\n")
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nB: 1\r\nHost: {app.host()}\r\nA: 2\r\nB: 3\r\n\r\n")
        answer = connection.read_response()
    assert answer.all("Set-Cookie") == ["a=1", "b=2"]
    assert [field for field in server.requests[0].fields if field[0] in "AB"] == [("B", "1"), ("A", "2"), ("B", "3")]


def test_odd_reason_and_status(gateway, answering):
    app, _ = answering(b"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\nx")
    answer = gateway.fetch("GET", "/", app.host())
    assert answer.status == 599 and answer.body == b"x"


def test_client_that_leaves_is_noticed(gateway, origin):
    """When the client goes away in the middle of a response, so does the upstream connection."""
    ended = []

    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.send(b"5\r\nhello\r\n")
                time.sleep(0.05)
        except OSError:
            ended.append(True)
            raise
    server = origin(script=script)
    app = gateway.app(server)
    connection = gateway.connect(app.host())
    connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    connection.read_until(b"hello")
    connection.reset()
    end = time.monotonic() + 20
    while not ended and time.monotonic() < end:
        time.sleep(0.05)
    assert ended

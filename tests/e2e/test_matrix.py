"""What crosses the gateway, for each pair of HTTP versions in front and behind: [front-back] in the test's name."""
import datetime
import os
import re
import threading

import pytest

from back import open_back, read_all
from front import Reset, open_front
from wire import wait_until

WAIT = 30
KIB, MIB = 1 << 10, 1 << 20


class Pair:
    def __init__(self, gateway, front, back):
        self.gateway, self.front, self.back = gateway, front, back
        self.servers, self.fronts = [], []

    def open(self, script):
        """(front, app) for an app that runs the script for each request."""
        server, app = open_back(self.gateway, self.back, script)
        self.servers.append(server)
        front = open_front(self.gateway, self.front, app.host())
        self.fronts.append(front)
        return front, app

    def close(self):
        for front in self.fronts:
            front.__exit__()
        for server in self.servers:
            server.close()


@pytest.fixture(params=["h1-h1", "h1-h2c", "h2-h1", "h2-h2c"])
def pair(request, gateway):
    made = Pair(gateway, *request.param.split("-"))
    yield made
    made.close()


def echo(side):
    body = read_all(side)
    side.head(200, ("content-length", str(len(body))), end=not body)
    side.data(body)
    if body:
        side.end()


@pytest.mark.parametrize("framing", ["length", "pieces"])
@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 5 * MIB])
def test_body_both_ways(pair, size, framing):
    """With a length that is known before, and without."""
    def script(side):
        if framing == "length":
            return echo(side)
        body = read_all(side)
        side.head(200)
        for at in range(0, len(body), 100_000):
            side.data(body[at:at + 100_000])
        return side.end()
    body = os.urandom(size)
    front, app = pair.open(script)
    call = front.call("POST", "/", *([("content-length", str(size))] if framing == "length" else []), end=False)
    if framing == "length" or not size:
        call.data(body, end=True)
    else:
        for at in range(0, size, 100_000):
            call.data(body[at:at + 100_000], end=at + 100_000 >= size)
    status, fields = call.head()
    assert status == 200 and call.rest() == body
    if framing == "length":
        assert fields["content-length"] == str(size)
    line = pair.gateway.log_line(app_id=app.id)
    assert line["bytes_in"] == line["bytes_out"] == size
    assert (line["protocol"], line["back_protocol"]) == ({"h1": "http/1.1", "h2": "h2"}[pair.front],
                                                         {"h1": "http/1.1", "h2c": "h2c"}[pair.back])


def test_trailers_both_ways(pair):
    seen = []

    def script(side):
        seen.append((read_all(side), side))
        side.head(200, ("trailer", "x-out"))
        side.data(b"answer")
        side.end(("x-out", "last"), ("x-more", "words"))
    front, _ = pair.open(script)
    call = front.call("POST", "/", ("te", "trailers"), ("trailer", "x-in"), end=False)
    call.data(b"question")
    call.send_trailers(("x-in", "also last"))
    assert call.head()[0] == 200 and call.rest() == b"answer"
    assert dict(call.trailers) == {"x-out": "last", "x-more": "words"}
    (body, side), = seen
    assert body == b"question" and dict(side.trailers) == {"x-in": "also last"}


def test_100_continue(pair):
    """The client sends its body when the app asks for it."""
    def script(side):
        assert side.fields.get("expect") == "100-continue"
        side.interim(100)
        echo(side)
    front, _ = pair.open(script)
    call = front.call("POST", "/", ("content-length", "4"), ("expect", "100-continue"), end=False)
    call.wait_interim()
    call.data(b"body", end=True)
    assert call.head()[0] == 200 and call.rest() == b"body"
    assert [status for status, _ in call.interim] == [100]


def test_a_refused_100_continue(pair):
    front, _ = pair.open(lambda side: side.head(417, end=True))
    call = front.call("POST", "/", ("content-length", "4"), ("expect", "100-continue"), end=False)
    assert call.head()[0] == 417 and not call.interim


def test_103_early_hints(pair):
    def script(side):
        read_all(side)
        side.interim(103, ("link", "</style.css>; rel=preload"), ("x-own", "1"))
        side.interim(103, ("link", "</more.js>; rel=preload"))
        side.head(200, ("content-length", "2"))
        side.data(b"ok")
        side.end()
    front, _ = pair.open(script)
    call = front.call("GET", "/")
    assert call.head()[0] == 200 and call.rest() == b"ok"
    assert [status for status, _ in call.interim] == [103, 103]
    assert [fields["link"] for _, fields in call.interim] == ["</style.css>; rel=preload", "</more.js>; rel=preload"]
    assert call.interim[0][1]["x-own"] == "1"


def assert_now(date):
    """RFC 9110 section 5.6.7"""
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date)
    then = datetime.datetime.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")
    assert abs((datetime.datetime.utcnow() - then).total_seconds()) < WAIT


@pytest.mark.parametrize("method, status", [("GET", 200), ("HEAD", 200), ("GET", 304), ("GET", 204), ("GET", 500)])
def test_a_response_without_date_gets_one(pair, method, status):
    """RFC 9110 section 6.6.1; an interim one may go without."""
    def script(side):
        side.interim(103, ("link", "</style.css>; rel=preload"))
        side.head(status, ("x-own", "1"), end=True)
    front, _ = pair.open(script)
    call = front.call(method, "/")
    assert call.head()[0] == status
    (date,) = call.all("date")
    assert_now(date)
    assert "date" not in call.interim[0][1]


def test_a_response_with_date_keeps_it(pair):
    def script(side):
        side.head(200, ("date", "Sun, 06 Nov 1994 08:49:37 GMT"), end=True)
    front, _ = pair.open(script)
    call = front.call("GET", "/")
    call.head()
    assert call.all("date") == ["Sun, 06 Nov 1994 08:49:37 GMT"]


def test_the_answer_to_a_tunnel_has_a_date(pair):
    front, _ = pair.open(lambda side: (side.accept(), side.end()))
    call = front.tunnel("/socket")
    assert call.head()[0] in (101, 200)
    (date,) = call.all("date")
    assert_now(date)


@pytest.mark.parametrize("method, status, length", [
    ("HEAD", 200, "12345"), ("HEAD", 200, None), ("HEAD", 404, "7"), ("GET", 204, None), ("GET", 304, "12345"),
    ("GET", 304, None), ("GET", 200, "0"), ("POST", 204, None)])
def test_responses_without_a_body(pair, method, status, length):
    """The connections are in step after it, on both sides."""
    def script(side):
        read_all(side)
        side.head(status, ("x-path", side.path), *([("content-length", length)] if length else []), end=True)
    front, _ = pair.open(script)
    call = front.call(method, "/first")
    for path in ("/first", "/second", "/third"):
        answer, fields = call.head()
        assert answer == status and fields["x-path"] == path and call.rest() == b""
        if length:
            assert fields["content-length"] == length
        call = front.call_again(call, method, {"/first": "/second"}.get(path, "/third"))


def test_full_duplex(pair):
    """The app answers while the request's body still comes: each piece has its answer before the next is sent."""
    def script(side):
        side.head(200)
        while piece := side.read():
            side.data(piece.upper())
        side.end()
    front, _ = pair.open(script)
    call = front.call("POST", "/", end=False)
    assert call.head()[0] == 200
    for number in range(10):
        call.data(b"piece %d" % number)
        assert call.piece() == b"PIECE %d" % number
    call.data(b"", end=True)
    assert call.rest() == b""


def test_an_answer_that_ends_before_the_request(pair):
    """The client has the whole answer, though the app never took the upload."""
    def script(side):
        side.head(413, ("content-length", "5"))
        side.data(b"large")
        side.end()
    front, app = pair.open(script)
    call = front.call("POST", "/", end=False)
    call.data(b"x" * 1000)
    assert call.head()[0] == 413
    body = b""
    while len(body) < 5:
        body += call.piece()
    assert body == b"large"
    assert pair.gateway.log_line(app_id=app.id)["status"] == 413


STAGES = ["in the request", "before the head", "after the head", "in the body"]


class Stage:
    """An exchange that comes as far as the stage says; then one side resets it."""

    def __init__(self, pair, stage, at_app):
        self.stage, self.at_app = stage, at_app
        self.got, self.gone = threading.Event(), threading.Event()
        self.front, self.app = pair.open(self.script)

    def script(self, side):
        if side.path == "/after":
            read_all(side)
            side.head(200, end=True)
            return
        if self.stage == "in the request":
            assert side.read() == b"part"
        else:
            read_all(side)
        if self.stage in ("after the head", "in the body"):
            side.head(200, ("content-length", "10"))
        if self.stage == "in the body":
            side.data(b"abc")
        self.got.set()
        self.at_app(self, side)

    def call(self):
        call = self.front.call("POST", "/", ("content-length", "10"), end=False)
        call.data(b"part")
        if self.stage != "in the request":
            call.data(b"second", end=True)
        return call

    def assert_goes_on(self):
        """The next request is answered."""
        call = self.front.call("GET", "/after")
        assert call.head()[0] == 200


@pytest.mark.parametrize("stage", STAGES)
def test_reset_by_the_client(pair, stage):
    """The app learns it at once."""
    def at_app(run, side):
        side.wait_gone()
        run.gone.set()
    run = Stage(pair, stage, at_app)
    call = run.call()
    assert run.got.wait(WAIT)
    if stage in ("after the head", "in the body"):
        assert call.head()[0] == 200
    if stage == "in the body":
        assert call.piece() == b"abc"
    call.cancel()
    assert run.gone.wait(WAIT)
    assert pair.gateway.log_line(app_id=run.app.id)["error"] == "client_cancelled"
    run.assert_goes_on()


@pytest.mark.parametrize("stage", STAGES)
def test_reset_by_the_app(pair, stage):
    """Before the head it is a 502; after it, the client sees that the answer is not whole."""
    go = threading.Event()

    def at_app(_, side):
        assert go.wait(WAIT)        # what is on its way when a connection is reset may get lost
        side.reset()
    run = Stage(pair, stage, at_app)
    call = run.call()
    if stage in ("after the head", "in the body"):
        assert call.head()[0] == 200
        if stage == "in the body":
            assert call.piece() == b"abc"
        go.set()
        with pytest.raises(Reset):
            call.rest()
    else:
        go.set()
        status, fields = call.head()
        assert status == 502 and fields["x-gateway-error"] == "upstream_reset"
    assert pair.gateway.log_line(app_id=run.app.id)["error"] == "upstream_reset"
    run.assert_goes_on()


def test_an_app_that_dies_under_many_requests(pair):
    """Who has a head sees that the answer is not whole, who has none gets a 502; the next request is answered."""
    go, working = threading.Event(), threading.Semaphore(0)

    def script(side):
        read_all(side)
        if side.path == "/after":
            side.head(200, end=True)
            return
        if side.path == "/begun":
            side.head(200, ("content-length", "10"))
            side.data(b"abc")
        working.release()
        assert go.wait(WAIT)
        side.die()
    front, app = pair.open(script)
    calls = []
    for number in range(10):
        calls.append(front.call("POST", "/begun" if number % 2 else "/silent", ("content-length", "4"), end=False))
        calls[-1].data(b"body", end=True)
    for _ in calls:
        assert working.acquire(timeout=WAIT)
    for call in calls[1::2]:
        assert call.head()[0] == 200 and call.piece() == b"abc"
    go.set()
    for number, call in enumerate(calls):
        if number % 2:
            with pytest.raises(Reset):
                call.rest()
        else:
            status, fields = call.head()
            assert status == 502 and fields["x-gateway-error"] == "upstream_reset"
    assert front.call("GET", "/after").head()[0] == 200
    wait_until(lambda: sum(line.get("app_id") == app.id and line.get("error") == "upstream_reset"
                           for line in pair.gateway.log_lines()) == 10, "the lines of the access log")


def test_the_answer_goes_on_after_the_request(pair):
    """Half-closed by the client: its end of the stream is no reason to end the other."""
    go = threading.Event()

    def script(side):
        read_all(side)
        side.head(200)
        for number in range(5):
            side.data(b"%d" % number)
            assert go.wait(WAIT)
            go.clear()
        side.end()
    front, _ = pair.open(script)
    call = front.call("POST", "/", end=False)
    call.data(b"all", end=True)
    assert call.head()[0] == 200
    for number in range(5):
        assert call.piece() == b"%d" % number
        go.set()
    assert call.rest() == b""


def test_100_at_once(pair):
    """All of them are in progress before the first one is answered."""
    everyone = threading.Barrier(100)

    def script(side):
        body = read_all(side)
        everyone.wait(WAIT)
        side.head(200, ("x-path", side.path))
        side.data(body)
        side.end()
    front, _ = pair.open(script)
    calls = []
    for number in range(100):
        calls.append(front.call("POST", f"/{number}", end=False))
        calls[-1].data(b"%d" % number * 1000, end=True)
    for number, call in enumerate(calls):
        status, fields = call.head()
        assert status == 200 and fields["x-path"] == f"/{number}"
        assert call.rest() == b"%d" % number * 1000


def test_a_slow_reader_beside_a_fast_one(pair):
    """A client that does not take its download holds nobody else up."""
    size = 6 * MIB

    def script(side):
        read_all(side)
        side.head(200, ("content-length", str(size)))
        for _ in range(size // (64 * KIB)):
            side.data(side.path[1:2].encode() * 64 * KIB)
        side.end()
    front, _ = pair.open(script)
    slow = front.call("GET", "/slow")
    assert slow.head()[0] == 200
    for _ in range(3):
        fast = front.call("GET", "/fast")
        assert fast.head()[0] == 200 and fast.rest() == b"f" * size
    assert slow.rest() == b"s" * size


def test_a_slow_app_beside_a_fast_one(pair):
    """An upload that the app does not take holds no other upload up."""
    go = threading.Event()

    def script(side):
        if side.path == "/slow":
            assert go.wait(WAIT)
        size = len(read_all(side))
        side.head(200, ("x-size", str(size)), end=True)
    front, _ = pair.open(script)
    slow = front.call("POST", "/slow", end=False)
    slow.push(b"s" * 6 * MIB, end=True)
    for _ in range(3):
        fast = front.call("POST", "/fast", end=False)
        fast.data(b"f" * 3 * MIB, end=True)
        assert fast.head()[1]["x-size"] == str(3 * MIB)
    go.set()
    assert slow.head()[1]["x-size"] == str(6 * MIB)


# ---- tunnels: what a WebSocket needs, without its frames ----

def open_tunnel(pair, script):
    """(call, app) of a tunnel that the app has accepted."""
    def accept_first(side):
        side.accept()
        script(side)
    front, app = pair.open(accept_first)
    call = front.tunnel("/socket")
    assert call.head()[0] == {"h1": 101, "h2": 200}[pair.front]
    return call, app


def test_bytes_of_a_tunnel(pair):
    def script(side):
        while piece := side.read():
            side.data(piece.swapcase())
        side.end()
    call, _ = open_tunnel(pair, script)
    for data in (b"hello", b"GET / HTTP/1.1\r\n\r\n", *[b"x" * 60_000] * 16):
        call.data(data)
        got = b""
        while len(got) < len(data):
            got += call.piece()
        assert got == data.swapcase()
    call.data(b"", end=True)
    assert call.rest() == b""


def test_a_tunnel_half_closed_by_the_client(pair):
    """The app sees the end, and its answer to all of it still arrives."""
    call, app = open_tunnel(pair, lambda side: (side.data(b"%d bytes" % len(read_all(side))), side.end()))
    call.data(b"x" * 100_000)
    call.data(b"last", end=True)
    assert call.rest() == b"100004 bytes"
    line = pair.gateway.log_line(app_id=app.id)
    assert (line["bytes_in"], line["bytes_out"]) == (100_004, 12) and "error" not in line


def test_a_tunnel_half_closed_by_the_app(pair):
    """The client sees the end, and what it sends after it still arrives."""
    got, done = [], threading.Event()

    def script(side):
        side.data(b"bye")
        side.end()
        got.append(read_all(side))
        done.set()
    call, _ = open_tunnel(pair, script)
    assert call.rest() == b"bye"
    call.data(b"x" * 100_000)
    call.data(b"last", end=True)
    assert done.wait(WAIT) and got == [b"x" * 100_000 + b"last"]


def test_a_tunnel_reset_by_the_client(pair):
    gone = threading.Event()

    def script(side):
        side.data(b"hello")
        side.wait_gone()
        gone.set()
    call, _ = open_tunnel(pair, script)
    assert call.piece() == b"hello"
    call.cancel()
    assert gone.wait(WAIT)


def test_a_tunnel_reset_by_the_app(pair):
    """Not to be taken for an end."""
    go = threading.Event()

    def script(side):
        side.data(b"hello")
        assert go.wait(WAIT)
        side.reset()
    call, app = open_tunnel(pair, script)
    assert call.piece() == b"hello"
    go.set()
    with pytest.raises(Reset):
        call.rest()
    assert pair.gateway.log_line(app_id=app.id)["error"] == "upstream_reset"


def test_a_tunnel_that_the_app_declines(pair):
    def script(side):
        side.head(403, ("x-own", "no"), ("content-length", "0"), end=True)
    front, _ = pair.open(script)
    status, fields = front.tunnel("/socket").head()
    assert status == 403 and fields["x-own"] == "no"

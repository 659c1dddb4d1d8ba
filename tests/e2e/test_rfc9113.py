"""RFC 9113 frame by frame: what a client may not do, one table per section.

A connection error ends in a GOAWAY with the code, then the connection closes. A stream error is a RST_STREAM with the
code, or a 400 and the stream's end for a malformed request; another stream goes on. RFC 9113 lets an endpoint treat a
stream error as a connection error; the rows that say `stricter` are those where nghttp2 does.
"""
import pytest

from h2_frames import (ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HAS_PRIORITY, HEADERS, LAST_ID, NO_ERROR, PADDED,
                       PING, PREFACE, PRIORITY, PRIORITY_UPDATE, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM,
                       RST_STREAM, SETTINGS, STREAM_CLOSED, WINDOW_UPDATE, FrameClient, block, frame, integer, literal,
                       request, setting, u32)
from origin import respond
from wire import wait_until


@pytest.fixture
def app(gateway, origin):
    return gateway.app(origin(lambda connection, request: respond(request.start.encode() + b"|" + request.body)))


def head(host, stream=1, end=True, *fields, **options):
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, request(host, *fields, **options))


def check_goes_on(client, stream=101):
    """Other streams, and the connection's HPACK state, are as they were."""
    client.request(stream)
    assert client.ended(stream) == (200, None), client.frames


def check_connection_error(client, *codes):
    assert client.read_end() in codes, client.frames


def rows(table):
    return pytest.mark.parametrize("row", table.values(), ids=table.keys())


# ---- 3.4: the preface ----

@pytest.mark.parametrize("start", [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    PREFACE[:-1] + b"x" + frame(SETTINGS),
    PREFACE.replace(b"2.0", b"1.1") + frame(SETTINGS),
    PREFACE + frame(PING, payload=b"12345678"),         # SETTINGS must come first
    PREFACE + frame(SETTINGS, ACK),
])
def test_3_4_preface(gateway, app, start):
    with FrameClient(gateway, app.host(), preface=False) as client:
        client.send(start)
        check_connection_error(client, PROTOCOL_ERROR)


def test_3_4_the_first_frame_is_settings(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        assert client.frames[0].kind == SETTINGS and client.frames[0].flags == 0


# ---- connection errors: name → (frames of the host, codes) ----

CONNECTION_ERRORS = {
    "4.2 DATA above the maximum": (lambda h: head(h, end=False) + frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "4.2 HEADERS above the maximum": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes(16385)),
                                      FRAME_SIZE_ERROR),
    "4.2 PING above the maximum": (lambda h: frame(PING, payload=bytes(16385)), FRAME_SIZE_ERROR),
    "4.2 unknown frame above the maximum": (lambda h: frame(77, payload=bytes(16385)), FRAME_SIZE_ERROR),
    "4.3 bad index": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"), COMPRESSION_ERROR),
    "4.3 unknown index": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, integer(3000, 7, 0x80)),
                          COMPRESSION_ERROR),
    "4.3 block that is cut": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, request(h)[:-1]),
                              COMPRESSION_ERROR),
    "4.3 table size above the limit": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1,
                                                       integer(1 << 20, 5, 0x20) + request(h)), COMPRESSION_ERROR),
    "4.3 table size behind a field": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, request(h) + b"\x20"),
                                      COMPRESSION_ERROR),
    "4.3 another frame inside a block": (lambda h: frame(HEADERS, END_STREAM, 1, request(h)) +
                                         frame(PRIORITY, 0, 1, bytes(5)), PROTOCOL_ERROR),
    "4.3 another stream's frame inside a block": (lambda h: frame(HEADERS, END_STREAM, 1, request(h)) + head(h, 3),
                                                  PROTOCOL_ERROR),
    "4.3 an unknown frame inside a block": (lambda h: frame(HEADERS, END_STREAM, 1, request(h)) + frame(77),
                                            PROTOCOL_ERROR),
    "5.1 idle: DATA": (lambda h: frame(DATA, END_STREAM, 1, b"x"), PROTOCOL_ERROR),
    "5.1 idle: RST_STREAM": (lambda h: frame(RST_STREAM, 0, 1, u32(0)), PROTOCOL_ERROR),
    "5.1 idle: WINDOW_UPDATE": (lambda h: frame(WINDOW_UPDATE, 0, 1, u32(1)), PROTOCOL_ERROR),
    "5.1 idle: CONTINUATION": (lambda h: frame(CONTINUATION, END_HEADERS, 1, request(h)), PROTOCOL_ERROR),
    # a stream error in 5.1, for the first of these; stricter
    "5.1 half-closed (remote): DATA": (lambda h: head(h, 1, path="/held") + frame(DATA, END_STREAM, 1, b"x"),
                                       STREAM_CLOSED),
    "5.1 half-closed (remote): HEADERS": (lambda h: head(h, 1, path="/held") + head(h), STREAM_CLOSED),
    "5.1 half-closed (remote): CONTINUATION": (lambda h: head(h, 1, path="/held") +
                                               frame(CONTINUATION, END_HEADERS, 1, request(h)), PROTOCOL_ERROR),
    "5.1 closed by RST_STREAM: DATA": (lambda h: head(h, end=False) + frame(RST_STREAM, 0, 1, u32(8)) +
                                       frame(DATA, END_STREAM, 1, b"x"), STREAM_CLOSED),
    "5.1 closed by RST_STREAM: HEADERS": (lambda h: head(h, end=False) + frame(RST_STREAM, 0, 1, u32(8)) + head(h),
                                          STREAM_CLOSED),
    "5.1.1 even": (lambda h: head(h, 2), PROTOCOL_ERROR),
    "5.1.1 backwards": (lambda h: head(h, 5) + head(h, 3), PROTOCOL_ERROR),
    "5.1.1 zero": (lambda h: head(h, 0), PROTOCOL_ERROR),
    # streams above the limit, once it is acknowledged: a stream error in 5.1.2; stricter
    "5.1.2 too many streams": (lambda h: b"".join(head(h, 2 * i + 1, False) for i in range(129)), PROTOCOL_ERROR),
    "6.1 DATA on stream 0": (lambda h: frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "6.1 DATA with too much padding": (lambda h: head(h, end=False) + frame(DATA, PADDED, 1, b"\x06abcde"),
                                       PROTOCOL_ERROR),
    # a stream error would do; stricter
    "6.1 padded DATA without a pad length": (lambda h: head(h, end=False) + frame(DATA, PADDED, 1, b""),
                                             FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    "6.2 HEADERS with too much padding": (lambda h: frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1,
                                                          b"\xff" + request(h)[:20]), PROTOCOL_ERROR),
    "6.2 HEADERS too short for its priority": (lambda h: frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"\0\0"),
                                               FRAME_SIZE_ERROR, PROTOCOL_ERROR),
    "6.3 PRIORITY on stream 0": (lambda h: frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    # a stream error in 6.3; stricter
    "6.3 PRIORITY of the wrong size": (lambda h: frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "6.4 RST_STREAM on stream 0": (lambda h: frame(RST_STREAM, 0, 0, u32(0)), PROTOCOL_ERROR),
    "6.4 RST_STREAM of the wrong size": (lambda h: head(h, end=False) + frame(RST_STREAM, 0, 1, bytes(3)),
                                         FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": (lambda h: frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "6.5 SETTINGS ACK with a payload": (lambda h: frame(SETTINGS, ACK, 0, setting(1, 1)), FRAME_SIZE_ERROR),
    "6.5 SETTINGS ACK that nobody asked for": (lambda h: frame(SETTINGS, ACK) * 2, PROTOCOL_ERROR),
    "6.5 SETTINGS of the wrong size": (lambda h: frame(SETTINGS, payload=bytes(5)), FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH of 2": (lambda h: frame(SETTINGS, payload=setting(2, 2)), PROTOCOL_ERROR),
    "6.5.2 INITIAL_WINDOW_SIZE above the maximum": (lambda h: frame(SETTINGS, payload=setting(4, 1 << 31)),
                                                    FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE below 16384": (lambda h: frame(SETTINGS, payload=setting(5, 16383)), PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE above the maximum": (lambda h: frame(SETTINGS, payload=setting(5, 1 << 24)),
                                               PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE": (lambda h: head(h, end=False) + frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + request(h)),
                         PROTOCOL_ERROR),
    "6.7 PING on a stream": (lambda h: frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.7 PING of the wrong size": (lambda h: frame(PING, payload=bytes(6)), FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (lambda h: frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.8 GOAWAY that is too short": (lambda h: frame(GOAWAY, payload=bytes(7)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 0": (lambda h: frame(WINDOW_UPDATE, payload=u32(0)), PROTOCOL_ERROR),
    # a stream error in 6.9; stricter
    "6.9 WINDOW_UPDATE of 0 on a stream": (lambda h: head(h, end=False) + frame(WINDOW_UPDATE, 0, 1, u32(0)),
                                           PROTOCOL_ERROR),
    "6.9 WINDOW_UPDATE of the wrong size": (lambda h: frame(WINDOW_UPDATE, payload=bytes(3)), FRAME_SIZE_ERROR),
    "6.9.1 overflow of the connection's window": (lambda h: frame(WINDOW_UPDATE, payload=u32(LAST_ID)) * 2,
                                                  FLOW_CONTROL_ERROR),
    "6.9.2 overflow by SETTINGS": (lambda h: head(h, end=False) + frame(WINDOW_UPDATE, 0, 1, u32(LAST_ID - 65535)) +
                                   frame(SETTINGS, payload=setting(4, 70000)), FLOW_CONTROL_ERROR),
    "6.10 CONTINUATION of nothing": (lambda h: head(h, end=False) + frame(CONTINUATION, END_HEADERS, 1, b""),
                                     PROTOCOL_ERROR),
    "6.10 CONTINUATION on stream 0": (lambda h: frame(HEADERS, END_STREAM, 1, request(h)) +
                                      frame(CONTINUATION, END_HEADERS, 0), PROTOCOL_ERROR),
    "RFC 9218 7.1 PRIORITY_UPDATE on a stream": (lambda h: frame(PRIORITY_UPDATE, 0, 1, u32(1) + b"u=1"),
                                                 PROTOCOL_ERROR),
}


@rows(CONNECTION_ERRORS)
def test_connection_errors(gateway, app, row):
    frames, *codes = row
    with FrameClient(gateway, app.host()) as client:
        client.sync()
        client.send(frames(app.host()))
        check_connection_error(client, *codes)


def test_5_1_closed_by_both(gateway, app):
    """The stream's identifier is used again after a whole exchange."""
    for again in (head(app.host()), frame(DATA, END_STREAM, 1, b"x")):
        with FrameClient(gateway, app.host()) as client:
            client.request(1)
            assert client.ended(1) == (200, None)
            client.send(again)
            check_connection_error(client, STREAM_CLOSED)


# ---- stream errors ----

STREAM_ERRORS = {
    "6.9.1 overflow of a stream's window": (lambda h: head(h, end=False) + frame(WINDOW_UPDATE, 0, 1, u32(LAST_ID)),
                                            FLOW_CONTROL_ERROR),
    "8.1 trailers that do not end the stream": (lambda h: head(h, end=False) + frame(HEADERS, END_HEADERS, 1,
                                                                                     block(("x-trailer", "v"))),
                                                PROTOCOL_ERROR),
    "8.1.1 content-length above DATA": (lambda h: head(h, 1, False, ("content-length", "5"), method="POST") +
                                        frame(DATA, END_STREAM, 1, b"abc"), PROTOCOL_ERROR),
    "8.1.1 content-length below DATA": (lambda h: head(h, 1, False, ("content-length", "2"), method="POST") +
                                        frame(DATA, END_STREAM, 1, b"abc"), PROTOCOL_ERROR),
    "8.1.1 content-length below several DATA": (lambda h: head(h, 1, False, ("content-length", "5"), method="POST") +
                                                frame(DATA, 0, 1, b"abc") + frame(DATA, END_STREAM, 1, b"def"),
                                                PROTOCOL_ERROR),
    "8.3 pseudo-header field in trailers": (lambda h: head(h, end=False) +
                                            frame(HEADERS, END_HEADERS | END_STREAM, 1, block((":method", "GET"))),
                                            PROTOCOL_ERROR),
}


@rows(STREAM_ERRORS)
def test_stream_errors(gateway, origin, row):
    app = gateway.app(origin(respond(b"x")))
    frames, code = row
    with FrameClient(gateway, app.host()) as client:
        client.sync()
        client.send(frames(app.host()))
        status, reset = client.ended(1)
        assert reset == code or status == 400, client.frames
        check_goes_on(client)
    assert gateway.log_line(app_id=app.id, error="client_protocol_error")


# ---- 8.1 to 8.3: malformed requests; name → fields instead of a request's ----

def fields(*more, without=(), **changes):
    """The fields of a request, changed; those of `more` come last."""
    def make(host):
        made = {":method": "GET", ":scheme": "https", ":path": "/", ":authority": host}
        made.update({":" + name: value for name, value in changes.items()})
        return [(name, value) for name, value in made.items() if name[1:] not in without] + list(more)
    return make


MALFORMED = {
    "8.2.1 upper-case name": fields(("X-Upper", "v")),
    "8.2.1 space in a name": fields(("x y", "v")),
    "8.2.1 colon in a name": fields(("x:y", "v")),
    "8.2.1 control character in a name": fields(("x\x01", "v")),
    "8.2.1 high byte in a name": fields(("x\xff", "v")),
    "8.2.1 empty name": fields(("", "v")),
    "8.2.1 CR in a value": fields(("x-y", "a\rb")),
    "8.2.1 LF in a value": fields(("x-y", "a\nb")),
    "8.2.1 NUL in a value": fields(("x-y", "a\0b")),
    "8.2.1 leading space in a value": fields(("x-y", " v")),
    "8.2.1 trailing space in a value": fields(("x-y", "v ")),
    "8.2.1 leading tab in a value": fields(("x-y", "\tv")),
    "8.2.1 trailing tab in a value": fields(("x-y", "v\t")),
    "8.2.2 connection": fields(("connection", "close")),
    "8.2.2 proxy-connection": fields(("proxy-connection", "close")),
    "8.2.2 keep-alive": fields(("keep-alive", "1")),
    "8.2.2 transfer-encoding": fields(("transfer-encoding", "chunked")),
    "8.2.2 upgrade": fields(("upgrade", "websocket")),
    "8.2.2 te": fields(("te", "trailers, gzip")),
    "8.3 unknown pseudo-header field": fields((":unknown", "v")),
    "8.3 late pseudo-header field": fields(("x-y", "v"), (":path", "/"), without=("path",)),
    "8.3 response's pseudo-header field": fields((":status", "200")),
    "8.3.1 no :method": fields(without=("method",)),
    "8.3.1 no :scheme": fields(without=("scheme",)),
    "8.3.1 no :path": fields(without=("path",)),
    "8.3.1 no :authority and no host": fields(without=("authority",)),
    "8.3.1 two of :method": fields((":method", "GET")),
    "8.3.1 two of :scheme": fields((":scheme", "https")),
    "8.3.1 two of :path": fields((":path", "/")),
    "8.3.1 two of :authority": fields((":authority", "a")),
    "8.3.1 empty :path": fields(path=""),
    "8.3.1 :path without a slash": fields(path="index.html"),
    "8.3.1 :path * without OPTIONS": fields(path="*"),
    "8.3.1 space in :path": fields(path="/a b"),
    "8.3.1 empty :method": fields(method=""),
    "8.3.1 space in :method": fields(method="GE T"),
    "8.3.1 empty :scheme": fields(scheme=""),
    "8.3.1 another scheme": fields(scheme="ftp"),
    "8.3.1 userinfo in :authority": lambda host: fields(authority="me@" + host)(host),
    "8.3.1 host that differs": fields(("host", "other.example")),
    "8.3.1 two hosts": lambda host: fields(("host", host), ("host", host))(host),
    "8.1.1 content-length without a body": fields(("content-length", "5")),
    "8.1.1 content-length that is no number": fields(("content-length", "1x")),
    "8.1.1 two that differ": fields(("content-length", "0"), ("content-length", "1")),
    "RFC 8441 :protocol without CONNECT": fields((":protocol", "websocket")),
    "8.5 CONNECT with :path": fields(method="CONNECT"),
    "8.5 CONNECT without :authority": fields(method="CONNECT", without=("scheme", "path", "authority")),
}


@rows(MALFORMED)
def test_malformed_requests(gateway, origin, row):
    """8.1.1: a stream error; the app sees nothing of it, the log does."""
    server = origin()
    app = gateway.app(server)
    with FrameClient(gateway, app.host()) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(*row(app.host()), ("x-mark", "seen"))
                          if row(app.host())[-1][0][:1] != ":" else block(*row(app.host()))))
        status, reset = client.ended(1)
        assert reset == PROTOCOL_ERROR or status == 400, client.frames
        check_goes_on(client)
    assert b"x-mark" not in server.seen.lower() and len(server.requests) == 1


def test_a_request_that_could_not_be_read_is_logged(gateway, app):
    def lines():
        return [line for line in gateway.log_lines() if line.get("error") == "client_protocol_error"]
    with FrameClient(gateway, app.host()) as client:
        before = len(lines())
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block((":method", "GET"), (":method", "GET"))))
        assert client.ended(1) == (None, PROTOCOL_ERROR)
        wait_until(lambda: len(lines()) > before, "a line of the access log")


def test_8_5_connect(gateway, app):
    """We are no forward proxy: refused, as a request that was understood."""
    with FrameClient(gateway, app.host()) as client:
        client.send(frame(HEADERS, END_HEADERS, 1, block((":method", "CONNECT"), (":authority", app.host()))))
        status, reset = client.ended(1)
        assert status in (400, 405) or reset == PROTOCOL_ERROR, client.frames
        check_goes_on(client)


# ---- what must not harm ----

ALLOWED = {
    "4.1 reserved bit": lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1 | 1 << 31, request(h)),
    "4.1 unknown flags": lambda h: frame(HEADERS, END_HEADERS | END_STREAM | 0xd2 & ~HAS_PRIORITY, 1, request(h)),
    "4.3 table size at the start": lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x20" + request(h)),
    "5.1.1 identifiers with gaps": lambda h: head(h, 1),
    "5.3 PRIORITY on idle streams": lambda h: frame(PRIORITY, 0, 33, bytes(4) + b"\x10") + head(h),
    "5.5 unknown frame": lambda h: frame(77, 0xff, 0, b"x" * 100) + head(h),
    "5.5 unknown frame on a stream": lambda h: head(h, 1, False) + frame(200, 5, 1, b"x") + frame(DATA, END_STREAM, 1),
    "6.1 padded DATA": lambda h: head(h, 1, False) + frame(DATA, PADDED | END_STREAM, 1, b"\x03a" + bytes(3)),
    "6.1 DATA of padding only": lambda h: head(h, 1, False) + frame(DATA, PADDED | END_STREAM, 1, b"\x03" + bytes(3)),
    "6.2 padded HEADERS with a priority": lambda h: frame(HEADERS, END_HEADERS | END_STREAM | PADDED | HAS_PRIORITY,
                                                          1, b"\x02" + bytes(5) + request(h) + bytes(2)),
    "6.5 unknown settings": lambda h: frame(SETTINGS, payload=setting(0xff00, 1) + setting(0x10, 77)) + head(h),
    "6.5 ENABLE_PUSH": lambda h: frame(SETTINGS, payload=setting(2, 1) + setting(2, 0)) + head(h),
    "6.7 PING ACK that nobody asked for": lambda h: frame(PING, ACK, 0, bytes(8)) + head(h),
    "6.9 WINDOW_UPDATE with the reserved bit": lambda h: frame(WINDOW_UPDATE, 0, 0, u32(1 | 1 << 31)) + head(h),
    "6.10 CONTINUATION": lambda h: frame(HEADERS, END_STREAM, 1, request(h)[:7]) +
                         frame(CONTINUATION, 0, 1, request(h)[7:20]) + frame(CONTINUATION, 0, 1, b"") +
                         frame(CONTINUATION, END_HEADERS, 1, request(h)[20:]),
    "8.1 trailers": lambda h: head(h, 1, False) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("x-t", "v"))),
    "8.3.1 host as :authority": lambda h: head(h, 1, True, ("host", h)),
    "8.3.1 only host": lambda h: frame(HEADERS, END_HEADERS | END_STREAM, 1,
                                       block((":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", h))),
    "8.3.1 OPTIONS *": lambda h: head(h, 1, True, method="OPTIONS", path="*"),
    "8.2.2 te: trailers": lambda h: head(h, 1, True, ("te", "trailers")),
    "8.2.1 empty value": lambda h: head(h, 1, True, ("x-empty", "")),
    "RFC 9218 PRIORITY_UPDATE": lambda h: frame(PRIORITY_UPDATE, 0, 0, u32(1) + b"u=1, i") + head(h),
    "RFC 9218 nonsense in PRIORITY_UPDATE": lambda h: frame(PRIORITY_UPDATE, 0, 0, u32(1) + b"?!") + head(h),
    "RFC 9218 nonsense as a field": lambda h: head(h, 1, True, ("priority", "u=99;;;")),
}


@rows(ALLOWED)
def test_allowed(gateway, app, row):
    with FrameClient(gateway, app.host()) as client:
        client.send(row(app.host()))
        assert client.ended(1) == (200, None), client.frames
        check_goes_on(client)


def test_5_1_late_frames_after_our_reset(gateway, app):
    """DATA and trailers that were on their way when we reset the stream are thrown away, and their HPACK is kept."""
    with FrameClient(gateway, app.host()) as client:
        client.send(head(app.host(), 1, False, ("content-length", "1"), method="POST"), frame(DATA, 0, 1, b"too long"))
        assert client.ended(1)[1] == PROTOCOL_ERROR
        client.send(frame(DATA, 0, 1, b"more"), frame(WINDOW_UPDATE, 0, 1, u32(1)),
                    frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x40" + literal("x-indexed", "v")[1:]))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, request(app.host()) + b"\xbe"))
        assert client.ended(3) == (200, None)


def test_5_1_frames_that_a_closed_stream_may_get(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        client.request(1)
        assert client.ended(1) == (200, None)
        client.send(frame(WINDOW_UPDATE, 0, 1, u32(1)), frame(RST_STREAM, 0, 1, u32(8)), frame(PRIORITY, 0, 1, bytes(5)))
        check_goes_on(client)


def test_5_1_1_the_last_identifier(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        check_goes_on(client, LAST_ID)


def test_5_1_2_streams_before_the_limit_is_known(gateway, origin):
    """Those above the limit are refused, as streams; they may be asked again."""
    app = gateway.app(origin(respond(b"x")))
    before = gateway.metric("h2_streams_refused_total")
    with FrameClient(gateway, app.host(), preface=False) as client:
        host = app.host()
        client.send(PREFACE, frame(SETTINGS), b"".join(head(host, 2 * i + 1, False, method="POST") for i in range(130)))
        assert client.ended(2 * 129 + 1) == (None, REFUSED_STREAM)
        client.send(frame(DATA, END_STREAM, 1))
        assert client.ended(1) == (200, None)
    assert gateway.metric("h2_streams_refused_total") >= before + 2


def test_5_4_1_goaway_names_the_last_stream(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        client.request(1)
        client.request(7)
        client.ended(7)
        client.send(frame(DATA, 0, 0, b"x"))
        assert client.read_end() == PROTOCOL_ERROR
        assert client.frames[-1].kind == GOAWAY and client.frames[-1].last_id == 7


def test_6_5_3_settings_are_acknowledged(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        client.send(frame(SETTINGS, payload=setting(3, 10)) * 3)
        client.sync()
        assert sum(f.kind == SETTINGS and f.flags & ACK for f in client.frames) == 4


def test_6_7_ping_is_answered_with_its_payload(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        client.sync(b"\0\1\2\3\xff\xfe\xfd\xfc")


def test_6_9_windows_are_kept(gateway, origin):
    """Of the stream and of the connection, also when SETTINGS make them negative; 0 stops everything but HEADERS."""
    app = gateway.app(origin(respond(b"b" * 100)))
    with FrameClient(gateway, app.host(), settings=setting(4, 3)) as client:
        client.request(1)
        client.wait(lambda f: f.kind == DATA)
        client.sync()
        assert client.body(1) == b"bbb"
        client.send(frame(SETTINGS, payload=setting(4, 1)), frame(WINDOW_UPDATE, 0, 1, u32(2)))   # -2, then 0
        client.sync(b"negative")
        assert client.body(1) == b"bbb"
        client.send(frame(WINDOW_UPDATE, 0, 1, u32(7)))
        client.sync(b"positive")
        assert client.body(1) == b"b" * 10
        client.send(frame(SETTINGS, payload=setting(4, 1000)))
        assert client.ended(1) == (200, None) and client.body(1) == b"b" * 100


def test_6_9_2_max_frame_size_is_kept(gateway, origin):
    app = gateway.app(origin(respond(b"b" * 60000)))
    with FrameClient(gateway, app.host()) as client:
        client.request(1)
        client.ended(1)
        assert len(client.body(1)) == 60000
        assert max(len(f.payload) for f in client.frames if f.kind == DATA) <= 16384


def test_6_5_2_header_table_size_is_kept(gateway, app):
    with FrameClient(gateway, app.host(), settings=setting(1, 0)) as client:
        client.decoder.max_allowed_table_size = 0
        for stream in (1, 3, 5):
            client.request(stream)
            assert client.ended(stream) == (200, None)


def test_8_4_nothing_is_pushed(gateway, app):
    with FrameClient(gateway, app.host(), settings=setting(2, 1)) as client:
        check_goes_on(client)
        assert not client.find(lambda f: f.kind == PUSH_PROMISE)


def test_our_settings(gateway, app):
    with FrameClient(gateway, app.host()) as client:
        payload = client.find(lambda f: f.kind == SETTINGS and not f.flags & ACK).payload
        entries = {payload[i + 1] + 256 * payload[i]: int.from_bytes(payload[i + 2:i + 6], "big")
                   for i in range(0, len(payload), 6)}
        assert entries[8] == 1 and entries[9] == 1 and entries[3] == 128 and 4 in entries and 6 in entries
        assert 2 not in entries


def test_a_graceful_goaway_of_the_client(gateway, app):
    """What it has asked before is answered."""
    with FrameClient(gateway, app.host()) as client:
        client.send(head(app.host()), frame(GOAWAY, payload=u32(0) + u32(NO_ERROR)))
        assert client.ended(1) == (200, None)
        assert client.read_end() in (None, NO_ERROR)

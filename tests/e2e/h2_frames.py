"""HTTP/2 frames by hand: a client that can send what no library would, and sees each frame that comes back."""
import struct

import hpack

from wire import Closed

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32
(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
 REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM) = range(12)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LAST_ID = 2 ** 31 - 1


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(value, bits, first=0):
    """RFC 7541 section 5.1."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = [first | limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def literal(name, value):
    """A field as it is: neither indexed nor Huffman-coded."""
    name, value = (part if isinstance(part, bytes) else part.encode("latin-1") for part in (name, value))
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(*fields):
    return b"".join(literal(name, value) for name, value in fields)


def request(host, *fields, method="GET", path="/", scheme="https"):
    return block((":method", method), (":scheme", scheme), (":path", path), (":authority", host), *fields)


def u32(value):
    return struct.pack(">I", value)


def setting(number, value):
    return struct.pack(">HI", number, value)


class Frame:
    def __init__(self, kind, flags, stream, payload):
        self.kind, self.flags, self.stream, self.payload = kind, flags, stream, payload

    @property
    def code(self):
        """Of RST_STREAM and GOAWAY."""
        return struct.unpack(">I", self.payload[4:8] if self.kind == GOAWAY else self.payload)[0]

    @property
    def last_id(self):
        return struct.unpack(">I", self.payload[:4])[0] & LAST_ID

    def __repr__(self):
        return f"<{self.kind} flags={self.flags} stream={self.stream} {self.payload[:40]!r}>"


class FrameClient:
    """Has the connection's frames in `frames`. Answers SETTINGS and, unless `answers` is unset, PING."""

    def __init__(self, gateway, host, settings=b"", preface=True):
        self.wire = gateway.connect(host, gateway.tls_context(alpn=("h2",)))
        self.host, self.frames, self.closed, self.answers = host, [], False, True
        self.decoder = hpack.Decoder(max_header_list_size=1 << 20)
        if preface:
            self.send(PREFACE + frame(SETTINGS, payload=settings))
            self.wait(lambda f: f.kind == SETTINGS and f.flags & ACK)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()

    def send(self, *frames):
        try:
            self.wire.send(b"".join(frames))
        except OSError:         # it has closed already: what it said before can still be read
            pass

    def request(self, stream, *fields, end=True, **options):
        flags = END_HEADERS | (END_STREAM if end else 0)
        self.send(frame(HEADERS, flags, stream, request(self.host, *fields, **options)))

    def turn(self):
        try:
            head = self.wire.read(9)
            length = int.from_bytes(head[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            came = Frame(kind, flags, stream, bytes(self.wire.read(length)))
        except (Closed, OSError) as error:
            assert not isinstance(error, TimeoutError), f"nothing more came after {self.frames}"
            self.closed = True
            return
        if kind == HEADERS:
            assert flags & END_HEADERS
            came.fields = self.decoder.decode(came.payload)
        self.frames.append(came)
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK and self.answers:
            self.send(frame(PING, ACK, payload=came.payload))

    def find(self, condition):
        return next((f for f in self.frames if condition(f)), None)

    def wait(self, condition):
        """The first frame of that kind, among those that came already too."""
        while not (found := self.find(condition)):
            assert not self.closed, f"the connection has ended after {self.frames}"
            self.turn()
        return found

    def ended(self, stream):
        """Waits for the stream's end: (status or None, code of RST_STREAM or None)."""
        self.wait(lambda f: f.stream == stream and
                  (f.kind == RST_STREAM or (f.kind in (DATA, HEADERS) and f.flags & END_STREAM)))
        return self.outcome(stream)

    def outcome(self, stream):
        head = self.find(lambda f: f.stream == stream and f.kind == HEADERS)
        reset = self.find(lambda f: f.stream == stream and f.kind == RST_STREAM)
        return (int(dict(head.fields)[":status"]) if head else None), (reset.code if reset else None)

    def body(self, stream):
        return b"".join(f.payload for f in self.frames if f.stream == stream and f.kind == DATA)

    def sync(self, mark=b"all done"):
        """Everything sent before this was received, and what there was to say about it has come."""
        self.send(frame(PING, payload=mark))
        self.wait(lambda f: f.kind == PING and f.flags & ACK and f.payload == mark)

    def turn_until_answered(self, number):
        """As sync, but the connection may end meanwhile."""
        mark = struct.pack(">Q", number)
        self.send(frame(PING, payload=mark))
        while not self.closed and not self.find(lambda f: f.kind == PING and f.flags & ACK and f.payload == mark):
            self.turn()

    def read_end(self):
        """Until the gateway closes: the code of its last GOAWAY, None without one."""
        while not self.closed:
            self.turn()
        goaways = [f for f in self.frames if f.kind == GOAWAY]
        return goaways[-1].code if goaways else None

"""One way to write an app for both HTTP versions: `script(side)` runs in a thread of its own for each request and sends
and receives in pieces, as a test wants it."""
import contextlib
import socket
import struct
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from front import lower
from origin import Origin
from wire import Closed

WAIT = 30


class Gone(Exception):
    """The gateway has reset the request, or left."""


class H1Side:
    def __init__(self, connection):
        self.connection, self.trailers = connection, []
        message = connection.read_head()
        self.method, self.path, self.fields = message.method, message.target, lower(message.fields)
        self.chunked = "transfer-encoding" in self.fields
        self.left = int(self.fields.get("content-length", "0"))
        self.framing, self.ended = None, False

    def accept(self):
        """The tunnel that was asked for: from here on, bytes."""
        assert self.fields["upgrade"] == "websocket" and self.fields["connection"].lower() == "upgrade"
        self.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                  b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        self.framing = "tunnel"

    def read_tunnel(self):
        if self.connection.buffer:
            return self.connection.take(len(self.connection.buffer))
        try:
            return self.connection.sock.recv(65536)
        except OSError as error:
            raise Gone from error

    def read(self):
        """Some more of the request's body; empty at its end."""
        if self.framing == "tunnel":
            return self.read_tunnel()
        try:
            if self.chunked:
                data = self.connection.read_chunk(self.trailers)
                self.chunked = bool(data)
                return data
            if not self.left:
                return b""
            if not self.connection.buffer:
                self.connection.fill()
            data = self.connection.take(min(self.left, len(self.connection.buffer)))
            self.left -= len(data)
            return data
        except (Closed, OSError) as error:
            raise Gone from error

    def send(self, data):
        try:
            self.connection.send(data)
        except OSError as error:
            raise Gone from error

    def interim(self, status, *fields):
        self.send(f"HTTP/1.1 {status} Interim\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n")

    def head(self, status=200, *fields, end=False):
        """With `end` there is no body, whatever the fields say."""
        self.framing = "length" if end or "content-length" in lower(fields) else "chunked"
        if self.framing == "chunked":
            fields = (*fields, ("transfer-encoding", "chunked"))
        elif "content-length" not in lower(fields) and status not in (204, 304) and self.method != "HEAD":
            fields = (*fields, ("content-length", "0"))
        self.send(f"HTTP/1.1 {status} Final\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n")
        self.ended = end

    def data(self, data):
        if self.framing in ("length", "tunnel"):
            self.send(data)
        elif data:
            self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self, *trailers):
        self.ended = self.framing != "tunnel"
        if self.framing == "tunnel":
            self.connection.sock.shutdown(socket.SHUT_WR)
        if self.framing == "chunked":
            self.send("0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers) + "\r\n")

    def reset(self):
        self.connection.reset()

    def die(self):
        """The connection is reset, with all that is on it."""
        self.connection.reset()

    def wait_gone(self):
        """Returns when the gateway has given the request up."""
        try:
            while self.connection.read_some():
                pass
        except (Closed, OSError):
            pass

    @property
    def may_go_on(self):
        return self.ended and not self.chunked and not self.left


class H1Back(Origin):
    def __init__(self, script):
        self.play = script
        super().__init__(script=self.serve)

    def serve(self, connection):
        while True:
            side = H1Side(connection)
            try:
                self.play(side)
            except Gone:
                return
            if not side.may_go_on:
                return


class H2Side:
    def __init__(self, peer, number, fields):
        self.peer, self.number, self.fields = peer, number, dict(fields)
        self.method, self.path = self.fields.get(":method"), self.fields.get(":path")
        self.pieces, self.trailers = [], []
        self.request_ended, self.is_gone, self.ended = False, False, False

    def run(self):
        try:
            self.peer.origin.play(self)
        except (Gone, OSError):
            pass
        except Exception as error:      # pylint: disable=broad-except
            self.peer.origin.errors.append(error)

    def wait(self, condition):
        """With the peer's lock held."""
        assert self.peer.changed.wait_for(lambda: condition() or self.is_gone, WAIT), "waited in vain"
        if self.is_gone:
            raise Gone

    def read(self):
        with self.peer.changed:
            self.wait(lambda: self.pieces or self.request_ended)
            if not self.pieces:
                return b""
            data, flow = self.pieces.pop(0)
            if not self.request_ended:
                self.peer.h2.acknowledge_received_data(flow, self.number)
                self.peer.flush()
            return data or self.read()

    def headers(self, fields, end=False):
        with self.peer.changed:
            if self.is_gone:
                raise Gone
            self.peer.h2.send_headers(self.number, fields, end_stream=end)
            self.peer.flush()

    def accept(self):
        assert self.method == "CONNECT" and self.fields[":protocol"] == "websocket"
        self.head(200)

    def interim(self, status, *fields):
        self.headers([(":status", str(status)), *fields])

    def head(self, status=200, *fields, end=False):
        self.ended = end
        self.headers([(":status", str(status)), *fields], end)

    def data(self, data):
        h2_ = self.peer.h2
        while data:
            with self.peer.changed:
                self.wait(lambda: h2_.local_flow_control_window(self.number) > 0)
                room = min(h2_.local_flow_control_window(self.number), h2_.max_outbound_frame_size)
                h2_.send_data(self.number, data[:room])
                self.peer.flush()
            data = data[room:]

    def end(self, *trailers):
        self.ended = True
        if trailers:
            self.headers(list(trailers), end=True)
            return
        with self.peer.changed:
            if self.is_gone:
                raise Gone
            self.peer.h2.end_stream(self.number)
            self.peer.flush()

    def reset(self):
        with self.peer.changed:
            self.peer.h2.reset_stream(self.number, h2.errors.ErrorCodes.INTERNAL_ERROR)
            self.peer.flush()

    def die(self):
        sock = self.peer.wire.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)       # wakes the thread that reads, which then closes

    def wait_gone(self):
        with self.peer.changed:
            assert self.peer.changed.wait_for(lambda: self.is_gone, WAIT), "the gateway did not give it up"


class Peer:
    """The app's end of one HTTP/2 connection: one thread reads, each request's thread writes."""

    def __init__(self, origin, wire):
        self.origin, self.wire, self.sides = origin, wire, {}
        self.changed = threading.Condition(threading.RLock())
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.MAX_FRAME_SIZE: 16384, h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 128,
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})

    def flush(self):
        if data := self.h2.data_to_send():
            self.wire.send(data)

    def run(self):
        with self.changed:
            self.h2.initiate_connection()
            self.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
            self.flush()
        try:
            while True:
                data = self.wire.read_some()
                with self.changed:
                    for event in self.h2.receive_data(data):
                        self.on_event(event)
                    self.flush()
                    self.changed.notify_all()
        finally:
            with self.changed:
                for side in self.sides.values():
                    side.is_gone = True
                self.changed.notify_all()

    def on_event(self, event):
        number = getattr(event, "stream_id", None)
        side = self.sides.get(number)
        if isinstance(event, h2.events.RequestReceived):
            side = self.sides[number] = H2Side(self, number, event.headers)
            threading.Thread(target=side.run, daemon=True).start()
        elif side is None:
            pass
        elif isinstance(event, h2.events.DataReceived):
            side.pieces.append((event.data, event.flow_controlled_length))
        elif isinstance(event, h2.events.TrailersReceived):
            side.trailers = event.headers
        elif isinstance(event, h2.events.StreamEnded):
            side.request_ended = True
        elif isinstance(event, h2.events.StreamReset):
            side.is_gone = True


class H2Back(Origin):
    def __init__(self, script):
        self.play = script
        super().__init__(script=lambda connection: Peer(self, connection).run())


def read_all(side):
    data = bytearray()
    while piece := side.read():
        data += piece
    return bytes(data)


def open_back(gateway, version, script):
    """(server, its app)"""
    server = {"h1": H1Back, "h2c": H2Back}[version](script)
    return server, gateway.app(server, ports=[{"port": server.port, "protocol": "http" if version == "h1" else "h2c"}])

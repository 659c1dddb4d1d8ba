"""One way to write a client for both HTTP versions: `open_front(gateway, "h1" or "h2", host)` makes calls, each of
which sends and receives in pieces, as a test wants it."""
import contextlib
import ssl
import threading

from h2_client import H2Client, Stream
from wire import TIMEOUT, Closed

RESET = "the call was reset"


class Reset(Exception):
    """The call ended before it was complete."""


class H1Call:
    """On a connection of its own, or of calls that ended before."""

    def __init__(self, connection, method, path, host, fields, end):
        self.connection, self.method, self.interim, self.trailers = connection, method, [], []
        self.message, self.left, self.chunked, self.thread = None, None, False, None
        self.has_length = any(name.lower() == "content-length" for name, _ in fields)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
        if any(name.lower() == "te" for name, _ in fields):
            lines.append("Connection: TE")
        if not end and not self.has_length:
            lines.append("Transfer-Encoding: chunked")
        connection.send("\r\n".join([*lines, "", ""]))

    def data(self, data, end=False):
        if self.has_length:
            self.connection.send(data)
            return
        if data:
            self.connection.send_chunk(data)
        if end:
            self.connection.send_chunk(b"")

    def push(self, data, end=False):
        """As the peer takes it, beside other calls. A TLS connection is for one thread: head() waits for its end."""
        self.thread = threading.Thread(target=self.data, args=(data, end), daemon=True)
        self.thread.start()

    def send_trailers(self, *fields):
        self.connection.send("0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n")

    def head(self):
        """(status, fields) of the final response."""
        if self.thread:
            self.thread.join(TIMEOUT)
        try:
            while True:
                message = self.connection.read_head()
                if not 100 <= message.status < 200:
                    break
                self.interim.append((message.status, lower(message.fields)))
        except (Closed, OSError) as error:
            raise Reset(RESET) from error
        self.message = message
        self.chunked = message.get("Transfer-Encoding") is not None
        self.left = int(message.get("Content-Length", "0"))
        if self.method == "HEAD" or message.status in (204, 304):
            self.left, self.chunked = 0, False
        return message.status, lower(message.fields)

    def all(self, name):
        """The values of all fields of that name in the final response."""
        return self.message.all(name)

    def wait_interim(self):
        message = self.connection.read_head()
        self.interim.append((message.status, lower(message.fields)))
        assert 100 <= message.status < 200, message.start

    def piece(self):
        """Some more of the body; empty at its end."""
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
            raise Reset(RESET) from error

    def rest(self):
        data = bytearray()
        while piece := self.piece():
            data += piece
        return bytes(data)

    def cancel(self):
        self.connection.reset()


class H1Tunnel(H1Call):
    """A WebSocket's way through, for any bytes; head() has the answer, and if it is a 101, bytes follow."""

    def __init__(self, connection, path, host):
        super().__init__(connection, "GET", path, host, [
            ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], True)
        connection.sock.suppress_ragged_eofs = False    # an end without close_notify is none

    def head(self):
        try:
            self.message = self.connection.read_response()
        except (Closed, OSError) as error:
            raise Reset(RESET) from error
        return self.message.status, lower(self.message.fields)

    def data(self, data, end=False):
        self.connection.send(data)
        if end:
            self.connection.sock.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.connection.sock.unwrap()       # close_notify goes out; the answer's is not waited for
            self.connection.sock.settimeout(TIMEOUT)

    def piece(self):
        if self.connection.buffer:
            return self.connection.take(len(self.connection.buffer))
        try:
            return self.connection.sock.recv(65536)
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as error:
            raise Reset(RESET) from error


class H1Front:
    name = "h1"

    def __init__(self, gateway, host):
        self.gateway, self.host, self.connections, self.idle = gateway, host, [], []

    def call(self, method, path, *fields, end=True):
        connection = self.gateway.connect(self.host)
        self.connections.append(connection)
        return H1Call(connection, method, path, self.host, fields, end)

    def tunnel(self, path):
        self.connections.append(self.gateway.connect(self.host))
        return H1Tunnel(self.connections[-1], path, self.host)

    def call_again(self, call, method, path):
        """A next call on the connection of one that ended."""
        return H1Call(call.connection, method, path, self.host, (), True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.close()


class H2Call:
    """A stream of the connection that all calls of a front share. Its window opens as its pieces are taken."""

    def __init__(self, client, number):
        self.client, self.number, self.stream, self.taken = client, number, client.streams[number], 0

    def data(self, data, end=False):
        self.client.data(self.number, data, end)

    def push(self, data, end=False):
        self.client.pending[self.number] = [data, end]
        self.client.push_pending()

    def send_trailers(self, *fields):
        self.client.h2.send_headers(self.number, list(fields), end_stream=True)
        self.client.flush()

    @property
    def interim(self):
        return [(int(head[":status"]), head) for head in self.stream.interim]

    def wait_interim(self):
        self.client.wait(lambda: self.stream.interim or self.stream.status)
        assert self.stream.interim

    @property
    def trailers(self):
        return [(name, value) for name, value in self.stream.trailers]

    def wait(self, condition):
        try:
            self.client.wait(lambda: condition() or self.stream.reset is not None)
        except (Closed, OSError) as error:
            raise Reset(RESET) from error
        if not condition():
            raise Reset(f"{RESET}: {self.stream.reset}")

    def head(self):
        self.wait(lambda: self.stream.status)
        return self.stream.status, self.stream.fields

    def all(self, name):
        return [value for key, value in self.stream.all_fields if key == name]

    def piece(self):
        self.wait(lambda: len(self.stream.body) > self.taken or self.stream.ended)
        data = bytes(self.stream.body[self.taken:])
        self.taken += len(data)
        self.client.credit(self.number, len(data))
        return data

    rest = H1Call.rest

    def cancel(self):
        self.client.cancel(self.number)


class CreditingClient(H2Client):
    """Gives the connection's window at once, and a stream's when the piece is taken. What is pushed leaves as the
    windows open."""

    def __init__(self, gateway, host):
        self.pending = {}
        super().__init__(gateway, host)
        self.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
        self.flush()

    def credit(self, number, size):
        if size and not self.streams[number].ended and self.streams[number].reset is None:
            self.h2.increment_flow_control_window(size, number)
            self.flush()

    def on_event(self, event):
        if getattr(event, "stream_id", None):
            self.slow.add(event.stream_id)
        super().on_event(event)

    def take(self, data):
        super().take(data)
        self.push_pending()

    def push_pending(self):
        for number, (data, end) in list(self.pending.items()):
            if self.streams[number].reset is not None:
                del self.pending[number]
                continue
            at = 0
            while room := min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size,
                              len(data) - at):
                at += room
                self.h2.send_data(number, data[at - room:at], end_stream=end and at == len(data))
            self.pending[number][0] = data[at:]
            if at == len(data):
                del self.pending[number]
            self.flush()


class H2Front:
    name = "h2"

    def __init__(self, gateway, host):
        self.client = CreditingClient(gateway, host)

    def call(self, method, path, *fields, end=True):
        return H2Call(self.client, self.client.send(method, path, *fields, end=end))

    def tunnel(self, path):
        """By extended CONNECT (RFC 8441); the answer is a 200."""
        self.client.wait(lambda: self.client.h2.remote_settings.enable_connect_protocol)
        number = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(number, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path),
            (":authority", self.client.host), ("sec-websocket-version", "13")])
        self.client.streams[number] = Stream()
        self.client.flush()
        return H2Call(self.client, number)

    def call_again(self, _, method, path):
        return self.call(method, path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.wire.close()


def lower(fields):
    return {name.lower(): value for name, value in fields}


def open_front(gateway, version, host):
    return {"h1": H1Front, "h2": H2Front}[version](gateway, host)

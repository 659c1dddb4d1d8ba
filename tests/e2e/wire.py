"""HTTP/1.1 over a socket, for both ends of the gateway: reads what comes, sends exactly what it is told."""
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field

TIMEOUT = 20    # seconds; a bound for what should happen at once, on a slow and busy machine


class Closed(Exception):
    """The peer closed the connection before what was waited for."""


@dataclass
class Message:
    """A request or response as it was on the wire."""
    start: str                                      # the first line
    fields: list = field(default_factory=list)      # (name, value) as received, in order
    body: bytes = b""
    chunks: list = field(default_factory=list)      # of a chunked body
    trailers: list = field(default_factory=list)

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes {len(values)} times: {self.fields}"
        return values[0] if values else default

    @property
    def status(self):
        return int(self.start.split(" ")[1])

    @property
    def method(self):
        return self.start.split(" ")[0]

    @property
    def target(self):
        return self.start.split(" ")[1]

    @property
    def error(self):
        return self.get("X-Gateway-Error")


class Connection:
    """A connected socket with a buffer of what came and was not asked for yet."""

    def __init__(self, sock, timeout=TIMEOUT):
        self.sock = sock
        self.sock.settimeout(timeout)
        self.buffer = bytearray()
        self.received = bytearray()     # everything that ever came

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))
        return self

    def fill(self, size=65536):
        """Waits for more; Closed at the end of the stream."""
        try:
            data = self.sock.recv(size)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError) as error:
            raise Closed(f"{error}; received: {bytes(self.received[-500:])}") from error
        if not data:
            raise Closed(f"end of stream; received: {bytes(self.received[-500:])}")
        self.buffer += data
        if len(self.received) < 1 << 20:
            self.received += data

    def take(self, size):
        """The first bytes of the buffer."""
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def read(self, size):
        while len(self.buffer) < size:
            self.fill()
        return self.take(size)

    def read_until(self, mark):
        while mark not in self.buffer:
            self.fill()
        data = self.take(self.buffer.index(mark))
        self.take(len(mark))
        return data

    def read_some(self):
        if not self.buffer:
            self.fill()
        return self.take(len(self.buffer))

    def read_rest(self):
        """Everything until the peer closes."""
        try:
            while True:
                self.fill()
        except Closed:
            return self.take(len(self.buffer))

    def read_fields(self):
        fields = []
        while line := self.read_until(b"\r\n").decode("latin-1"):
            name, _, value = line.partition(":")
            fields.append((name, value.strip(" \t")))
        return fields

    def read_head(self):
        start = self.read_until(b"\r\n").decode("latin-1")
        return Message(start, self.read_fields())

    def send_chunk(self, data):
        """The last one is empty."""
        return self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def read_chunk(self, trailers=None):
        """One chunk; at the last one, which is empty, the trailers go to the list."""
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        if size == 0:
            fields = self.read_fields()
            assert trailers is not None or not fields, fields
            if trailers is not None:
                trailers += fields
            return b""
        data = self.read(size)
        assert self.read(2) == b"\r\n"
        return data

    def read_chunked(self, message):
        while data := self.read_chunk(message.trailers):
            message.chunks.append(data)
        message.body = b"".join(message.chunks)

    def read_body(self, message, until_close=False):
        coding, length = message.get("Transfer-Encoding"), message.get("Content-Length")
        assert coding is None or length is None, message.fields
        if coding is not None:
            assert coding.lower() == "chunked"
            self.read_chunked(message)
        elif length is not None:
            message.body = self.read(int(length))
        elif until_close:
            message.body = self.read_rest()
        return message

    def read_request(self):
        return self.read_body(self.read_head())

    def read_response(self, method="GET", interim=None):
        """The final response; interim ones go to the list."""
        while True:
            message = self.read_head()
            if message.status == 101 or not 100 <= message.status < 200:
                break
            assert interim is not None, f"unexpected {message.start}"
            interim.append(message)
        if method == "HEAD" or message.status in (101, 204, 304):
            return message
        return self.read_body(message, until_close=True)

    def request(self, method, path, host, body=b"", **fields):
        """Sends a request and reads the response. Field names are written with _ for -."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return self.read_response(method)

    def is_closed(self, timeout=TIMEOUT):
        """True if the peer closes, or has closed, without sending more."""
        self.sock.settimeout(timeout)
        try:
            return not self.buffer and not self.sock.recv(1)
        except TimeoutError:
            return False
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
            return True

    def is_silent(self, seconds):
        """True if for so long nothing comes, not even an end."""
        self.sock.settimeout(seconds)
        try:
            self.sock.recv(1)
            return False
        except TimeoutError:
            return not self.buffer
        except OSError:
            return False
        finally:
            self.sock.settimeout(TIMEOUT)

    def reset(self):
        """Closes with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.sock.close()


def wait_until(condition, what, timeout=TIMEOUT):
    """Polls until the condition holds; returns what it returned."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        time.sleep(0.02)

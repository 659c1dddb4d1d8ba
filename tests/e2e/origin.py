"""Servers that play an app inside a CVM: real sockets, each on a loopback address of its own."""
import itertools
import random
import socket
import threading

from wire import Closed, Connection

# Begins anywhere: two runs at once share the loopback network.
_numbers = itertools.count(random.randrange(10_000_000))

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def new_address():
    """A loopback address that no other origin of this run has: the gateway wants one owner per address."""
    number = next(_numbers)
    return f"127.{20 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


def respond(body=b"", status="200 OK", *fields):
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


class Origin:
    """
    `answer` is what it does with each request: bytes to send, or a function of (connection, request) that returns
    bytes, or None when it did all itself, or False to end the connection. `script` instead gets the bare connection.
    """

    def __init__(self, answer=OK, script=None, address=None, port=0):
        self.answer, self.script = answer, script
        self.requests, self.connections, self.errors = [], [], []
        self.lock = threading.Lock()
        self.address = address or new_address()
        self.listener = socket.create_server((self.address, port), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            connection = Connection(sock, timeout=60)
            with self.lock:
                self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        try:
            (self.script or self._serve)(connection)
        except (Closed, OSError, ValueError):
            pass    # the gateway left, or this origin was closed: what tests look at is what was seen until then
        except Exception as error:      # pylint: disable=broad-except
            self.errors.append(error)
        finally:
            connection.close()

    def _serve(self, connection):
        while True:
            request = connection.read_request()
            with self.lock:
                self.requests.append(request)
            data = self.answer(connection, request) if callable(self.answer) else self.answer
            if data is False:
                return
            if data:
                connection.send(data)

    @property
    def seen(self):
        """All bytes that ever came to it."""
        return b"".join(bytes(connection.received) for connection in self.connections)

    def close(self):
        """Stops listening and closes every connection."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for connection in self.connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(5)
        assert not self.errors, self.errors

"""WebSocket frame by frame, over HTTP/1.1 and over HTTP/2 (RFC 8441) in front; the app is python3-websockets."""
import asyncio
import base64
import hashlib
import http
import os
import pty
import signal
import threading

import pytest
import websockets.exceptions
import websockets.frames
import websockets.server
import websockets.streams
from websockets.frames import Close, Frame, Opcode

from gateway import free_port, new_id
from h2_client import H2Client, Stream
from origin import new_address
from wire import Closed, wait_until

WAIT = 30


class Server:
    """Echoes messages; some words make it do something else. Runs in a thread of its own."""

    def __init__(self):
        self.address = new_address()
        self.port = free_port(self.address)
        self.closes, self.loop, ready = [], asyncio.new_event_loop(), threading.Event()
        self.stop = self.loop.create_future()

        async def serve():
            async with websockets.server.serve(self.handle, self.address, self.port, max_size=64 << 20,
                                               process_request=self.decide, ping_interval=None, compression=None):
                ready.set()
                await self.stop
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(serve(),), daemon=True)
        self.thread.start()
        assert ready.wait(WAIT)

    @staticmethod
    async def decide(path, _):
        return (http.HTTPStatus.FORBIDDEN, [("X-Own", "no")], b"not you\n") if path == "/forbidden" else None

    async def handle(self, websocket, *_):
        if websocket.path == "/terminal":
            return await terminal(websocket)
        try:
            async for message in websocket:
                await self.answer(websocket, message)
        except websockets.exceptions.ConnectionClosed:
            pass
        await websocket.wait_closed()
        self.closes.append((websocket.path, websocket.close_code, websocket.close_reason))

    @staticmethod
    async def answer(websocket, message):
        if message == "close":
            await websocket.close(4000, "asked to")
        elif message == "in pieces":
            await websocket.send(["one ", "two ", "three"])
        elif message == "ping me":
            await (await websocket.ping(b"are you there?"))
            await websocket.send("you are")
        else:
            await websocket.send(message)

    def close_of(self, path):
        return next((close for close in self.closes if close[0] == path), None)

    def close(self):
        self.loop.call_soon_threadsafe(self.stop.set_result, None)
        self.thread.join(WAIT)
        self.loop.close()


async def terminal(websocket):
    """A shell on a terminal of its own, as web terminals run it."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh"])
    loop, output = asyncio.get_running_loop(), asyncio.Queue()

    def on_output():
        try:
            output.put_nowait(os.read(descriptor, 4096))
        except OSError:
            loop.remove_reader(descriptor)
            output.put_nowait(b"")
    loop.add_reader(descriptor, on_output)

    async def show():
        while data := await output.get():
            await websocket.send(data)
        await websocket.close(1000, "shell ended")
    shown = asyncio.ensure_future(show())
    try:
        async for line in websocket:
            os.write(descriptor, line.encode())
    finally:
        shown.cancel()
        loop.remove_reader(descriptor)
        os.close(descriptor)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(pid, 0)


class Socket:
    """The client's end after the opening handshake: single frames out, single frames in."""

    def __init__(self):
        self.reader = websockets.streams.StreamReader()

    def send(self, opcode, data=b"", fin=True):
        self.write(Frame(opcode, data if isinstance(data, bytes) else data.encode(), fin).serialize(mask=True))

    def text(self, text):
        self.send(Opcode.TEXT, text)

    def receive(self):
        """The next frame."""
        parser = Frame.parse(self.reader.read_exact, mask=False, max_size=64 << 20)
        while True:
            try:
                next(parser)
            except StopIteration as done:
                return done.value
            self.reader.feed_data(self.read())

    def expect(self, opcode, data=b"", fin=True):
        frame = self.receive()
        assert (frame.opcode, bytes(frame.data), frame.fin) == \
            (opcode, data if isinstance(data, bytes) else data.encode(), fin)

    def ask(self, text):
        self.text(text)
        self.expect(Opcode.TEXT, text)


class H1Socket(Socket):
    def __init__(self, gateway, host, path):
        super().__init__()
        self.connection = gateway.connect(host)
        key = base64.b64encode(os.urandom(16)).decode()
        self.connection.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                             f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n")
        answer = self.connection.read_response()
        self.status, self.fields, self.body = answer.status, {n.lower(): v for n, v in answer.fields}, answer.body
        self.opened = self.status == 101

    def write(self, data):
        self.connection.send(data)

    def read(self):
        return self.connection.read_some()

    def is_at_end(self):
        return self.connection.is_closed()

    def finish(self):
        self.connection.close()

    def vanish(self):
        self.connection.reset()

    def close(self):
        self.connection.close()


class H2Socket(Socket):
    """One stream; alone on its connection, or of the client that is given."""

    def __init__(self, gateway, host, path, client=None):
        super().__init__()
        self.client = client or H2Client(gateway, host)
        self.client.wait(lambda: self.client.h2.remote_settings.enable_connect_protocol)
        self.number = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(self.number, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path),
            (":authority", host), ("sec-websocket-version", "13")])
        self.stream = self.client.streams[self.number] = Stream()
        self.client.flush()
        self.client.wait(lambda: self.stream.status)
        self.status, self.fields, self.body = self.stream.status, self.stream.fields, self.stream.body
        self.opened = self.status == 200

    def write(self, data):
        self.client.data(self.number, data)

    def read(self):
        self.client.wait(lambda: self.stream.body or self.stream.ended or self.stream.reset is not None)
        if not self.stream.body:
            raise Closed(f"end of the stream; reset: {self.stream.reset}")
        data = bytes(self.stream.body)
        del self.stream.body[:]
        return data

    def is_at_end(self):
        self.client.wait(lambda: self.stream.ended or self.stream.reset is not None)
        return not self.stream.body and self.stream.ended

    def finish(self):
        self.client.data(self.number, b"", end=True)

    def vanish(self):
        self.client.cancel(self.number)

    def close(self):
        self.client.wire.close()


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def app(gateway, server):
    return gateway.app(ports=[{"port": server.port}], instances=[
        {"instance_id": new_id(), "address": server.address, "state": "running", "generation": 1}])


@pytest.fixture(params=["h1", "h2"])
def dial(request, gateway, app):
    """dial(path) opens a websocket."""
    made = []

    def connect(path="/", to=app):
        made.append({"h1": H1Socket, "h2": H2Socket}[request.param](gateway, to.host(), path))
        return made[-1]
    yield connect
    for socket in made:
        socket.close()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 16 << 20])
def test_messages_of_all_sizes(dial, size):
    socket, data = dial(), os.urandom(size)
    assert socket.opened
    socket.send(Opcode.BINARY, data)
    frame = socket.receive()
    assert frame.opcode == Opcode.BINARY and hashlib.sha256(frame.data).digest() == hashlib.sha256(data).digest()


def test_a_fragmented_message_with_a_ping_inside(dial):
    socket = dial()
    socket.send(Opcode.TEXT, "grö", fin=False)
    socket.send(Opcode.PING, "now")
    socket.expect(Opcode.PONG, "now")
    for piece in ("ß", "", "er"):
        socket.send(Opcode.CONT, piece, fin=False)
    socket.send(Opcode.CONT, "!")
    socket.expect(Opcode.TEXT, "größer!")


def test_fragments_of_the_app_stay_as_they_are(dial):
    socket = dial()
    socket.text("in pieces")
    socket.expect(Opcode.TEXT, "one ", fin=False)
    socket.expect(Opcode.CONT, "two ", fin=False)
    socket.expect(Opcode.CONT, "three", fin=False)
    socket.expect(Opcode.CONT)


def test_ping_of_the_app(dial):
    socket = dial()
    socket.text("ping me")
    socket.expect(Opcode.PING, "are you there?")
    socket.send(Opcode.PONG, "are you there?")
    socket.expect(Opcode.TEXT, "you are")


def test_close_by_the_app(dial):
    socket = dial()
    socket.text("close")
    socket.expect(Opcode.CLOSE, Close(4000, "asked to").serialize())
    socket.send(Opcode.CLOSE, Close(4000, "").serialize())
    assert socket.is_at_end()


def test_close_by_the_client(dial, server):
    path = f"/{new_id()}"
    socket = dial(path)
    socket.ask("hello")
    socket.send(Opcode.CLOSE, Close(4001, "enough").serialize())
    socket.expect(Opcode.CLOSE, Close(4001, "enough").serialize())
    assert socket.is_at_end()       # the app ends first, and waits for the client's end
    socket.finish()
    assert wait_until(lambda: server.close_of(path), "the app to see it") == (path, 4001, "enough")


def test_a_client_that_vanishes(dial, server):
    path = f"/{new_id()}"
    socket = dial(path)
    socket.ask("hello")
    socket.vanish()
    assert wait_until(lambda: server.close_of(path), "the app to see it")[1] == 1006


def test_many_small_messages(dial):
    socket = dial()
    for number in range(500):
        socket.text(str(number))
    for number in range(500):
        socket.expect(Opcode.TEXT, str(number))


def test_a_refusal_of_the_app(dial):
    """An answer to the client, not a bare close."""
    socket = dial("/forbidden")
    assert socket.status == 403 and socket.fields["x-own"] == "no"


def test_a_failed_dial_answers_502(gateway, dial):
    address = new_address()
    gone = gateway.app(ports=[{"port": free_port(address)}], instances=[
        {"instance_id": new_id(), "address": address, "state": "running", "generation": 1}])
    socket = dial("/socket", gone)
    assert socket.status == 502 and socket.fields["x-gateway-error"] == "connect_refused"
    assert gateway.log_line(app_id=gone.id)["status"] == 502


def test_changes_of_other_apps_touch_no_socket(gateway, dial, origin):
    """Apps come, move and go, the configuration is read again: an open socket does not notice."""
    socket = dial()
    socket.ask("before")
    for round_ in range(5):
        other = gateway.app(origin())
        assert gateway.fetch("GET", "/", other.host()).status == 200
        instance = {**other.document["instances"][0], "generation": 2}
        other.put(instances=[instance])
        socket.ask(f"moved {round_}")
        assert gateway.control("DELETE", f"/v1/apps/{other.id}").status in (200, 204)
        socket.ask(f"deleted {round_}")
    assert gateway.control("POST", "/v1/reload").status == 200
    socket.ask("after")


def test_a_web_terminal(dial):
    """A shell answers what is typed, and its end closes the socket in order."""
    socket, screen = dial("/terminal"), b""
    socket.text("echo the answer is $((6 * 7))\n")
    while b"the answer is 42" not in screen:
        screen += bytes(socket.receive().data)
    socket.text("exit\n")
    while (frame := socket.receive()).opcode != Opcode.CLOSE:
        pass
    assert Close.parse(frame.data).reason == "shell ended"


def test_sockets_and_requests_share_a_connection(gateway, app):
    """20 sockets as streams of one connection: each message comes back on its own stream."""
    with H2Client(gateway, app.host()) as client:
        sockets = [H2Socket(gateway, app.host(), f"/{number}", client) for number in range(20)]
        for round_ in range(3):
            for number, socket in enumerate(sockets):
                socket.text(f"{number}, {round_}")
            for number, socket in enumerate(sockets):
                socket.expect(Opcode.TEXT, f"{number}, {round_}")
        sockets[0].vanish()
        sockets[1].ask("still here")

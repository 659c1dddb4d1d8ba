"""Upgrade as a tunnel: WebSocket with a real client and server, and raw bytes."""
import asyncio
import hashlib
import threading

import pytest
import websockets.client
import websockets.exceptions
import websockets.server

from gateway import free_port, new_id
from h2_client import H2Client
from origin import new_address, respond
from wire import Closed

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"
ASK = "GET /path HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n"


@pytest.fixture(scope="module")
def echo(gateway):
    """An app with a WebSocket echo server (python3-websockets) in a thread of its own."""
    address = new_address()
    port = free_port(address)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = loop.create_future()

    async def handle(websocket, *_):
        async for message in websocket:
            if message == "close":
                await websocket.close(4000, "asked to")
                return
            await websocket.send(message)

    async def serve():
        async with websockets.server.serve(handle, address, port, max_size=64 << 20, subprotocols=["tty"]):
            ready.set()
            await stop

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield gateway.app(ports=[{"port": port}], instances=[
        {"instance_id": new_id(), "address": address, "state": "running", "generation": 1}])
    loop.call_soon_threadsafe(stop.set_result, None)
    thread.join(20)
    loop.close()


def talk(gateway, app, conversation):
    """Runs the conversation with a websocket that is connected through the gateway."""
    async def run():
        async with websockets.client.connect(
                f"wss://{app.host()}/socket?a=b", sock=gateway.dial(), ssl=gateway.tls_context(),
                server_hostname=app.host(), max_size=64 << 20, subprotocols=["tty"],
                compression=None) as websocket:
            return await conversation(websocket)
    return asyncio.run(asyncio.wait_for(run(), 60))


def test_websocket_echo(gateway, echo):
    async def conversation(websocket):
        assert websocket.subprotocol == "tty"
        for text in ("hello", "", "größer", "x" * 125, "x" * 126, "x" * 65535, "x" * 65536):
            await websocket.send(text)
            assert await websocket.recv() == text
    talk(gateway, echo, conversation)
    line = gateway.log_line(app_id=echo.id, status=101)
    assert line["path"] == "/socket?a=b" and line["bytes_in"] > 131000 and line["bytes_out"] > 131000


def test_websocket_large_frame(gateway, echo):
    data = bytes(range(256)) * 65536      # 16 MiB

    async def conversation(websocket):
        await websocket.send(data)
        return await websocket.recv()
    assert hashlib.sha256(talk(gateway, echo, conversation)).digest() == hashlib.sha256(data).digest()


def test_websocket_ping_and_many_frames(gateway, echo):
    async def conversation(websocket):
        await (await websocket.ping(b"x" * 125))
        for number in range(500):
            await websocket.send(str(number))
        for number in range(500):
            assert await websocket.recv() == str(number)
    talk(gateway, echo, conversation)


def test_websocket_close_by_the_app(gateway, echo):
    async def conversation(websocket):
        await websocket.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as caught:
            await websocket.recv()
        assert caught.value.rcvd.code == 4000 and caught.value.rcvd.reason == "asked to"
    talk(gateway, echo, conversation)


def test_websocket_close_by_the_client(gateway, echo):
    async def conversation(websocket):
        await websocket.close(1000, "done")
        assert websocket.close_code == 1000
    talk(gateway, echo, conversation)


@pytest.mark.parametrize("end, close, error", [("reset by the app", "app", "upstream_reset"),
                                               ("reset by the client", "client", "client_cancelled"),
                                               ("moved away", "gateway", "address_revoked")])
def test_how_it_ended_is_logged(gateway, origin, end, close, error):
    def script(connection):
        connection.read_head()
        connection.send(SWITCH)
        connection.read(1)
        connection.reset()
    app = raw_app(gateway, origin, script)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()))
        assert connection.read_response().status == 101
        if end == "reset by the app":
            connection.send(b"x")
            assert connection.read_rest() == b""
        elif end == "reset by the client":
            connection.reset()
        else:
            app.document["instances"][0]["generation"] = 2
            app.put()
    line = gateway.log_line(host=app.host())
    assert line["protocol"] == "upgrade" and line["close"] == close and line["error"] == error


def raw_app(gateway, origin, script):
    return gateway.app(origin(script=script))


def test_raw_bytes_both_ways(gateway, origin):
    """Bytes right behind the 101 and behind the request's head belong to the tunnel."""
    heads = []

    def script(connection):
        heads.append(connection.read_head())
        connection.send(SWITCH + b"first")
        while data := connection.read_some():
            connection.send(data.upper())
    app = raw_app(gateway, origin, script)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()))
        answer = connection.read_response()
        assert answer.status == 101 and answer.get("Upgrade") == "raw"
        assert connection.read(5) == b"first"
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0\xff", b"x" * 100000):
            connection.send(data)
            assert connection.read(len(data)) == data.upper()
    (head,) = heads
    assert head.get("Upgrade") == "raw" and head.get("Connection").lower() == "upgrade"


def test_app_ends_the_tunnel(gateway, origin):
    """What the app sent before it closed arrives, then the end."""
    def script(connection):
        connection.read_head()
        connection.send(SWITCH + b"bye")
    app = raw_app(gateway, origin, script)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()))
        assert connection.read_response().status == 101
        assert connection.read_rest() == b"bye"
    line = gateway.log_line(host=app.host())
    assert line["close"] == "app" and line["bytes_out"] == 3


def test_client_ends_the_tunnel(gateway, origin):
    ended = threading.Event()

    def script(connection):
        connection.read_head()
        connection.send(SWITCH)
        try:
            connection.read_rest()
        finally:
            ended.set()
    app = raw_app(gateway, origin, script)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()))
        assert connection.read_response().status == 101
    assert ended.wait(20)


def test_app_declines(gateway, origin):
    """An app that answers otherwise: an ordinary response, and the connection goes on."""
    server = origin(respond(b"no", "426 Upgrade Required"))
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()))
        assert connection.read_response().status == 426
        assert connection.request("GET", "/", app.host()).status == 426


REQUIRED = respond(b"no", "426 Upgrade Required", "Connection: Upgrade", "Upgrade: raw")


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not asked"])
def test_426_tells_what_to_upgrade_to(gateway, origin, asked):
    """RFC 9110 section 15.5.22; the connection goes on, and an upgrade on it is possible."""
    answers = [REQUIRED, SWITCH + b"x"]
    app = gateway.app(origin(lambda *_: answers.pop(0)))
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()) if asked else f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        answer = connection.read_response()
        assert answer.status == 426 and answer.body == b"no"
        assert answer.get("Connection") == "upgrade" and answer.get("Upgrade") == "raw"
        connection.send(ASK.format(host=app.host()))
        assert connection.read_response().status == 101 and connection.read(1) == b"x"


def test_426_over_h2_has_no_fields_of_a_connection(gateway, origin):
    app = gateway.app(origin(REQUIRED))
    with H2Client(gateway, app.host()) as client:
        answer = client.fetch("GET", "/")
        assert answer.status == 426 and answer.body == b"no" and answer.ended
        assert not {"upgrade", "connection"} & set(answer.fields)
        tunnel = client.fetch("CONNECT", "/", pseudo=[(":protocol", "websocket")], end=False)
        assert tunnel.status == 426 and tunnel.body == b"no" and "upgrade" not in tunnel.fields


def test_no_raw_bytes_before_the_101(gateway, origin):
    """A client that sends a request behind its upgrade, to an app that declines: it is a request, not raw bytes."""
    server = origin(lambda connection, request: respond(request.target.encode()))
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(ASK.format(host=app.host()) + f"GET /second HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert connection.read_response().body == b"/path"
        try:
            assert connection.read_response().body == b"/second"
        except Closed:
            pass        # closing instead is right too
    assert all(request.fields for request in server.requests)


def test_h2c_upgrade_is_ignored(gateway, origin):
    server = origin()
    app = gateway.app(server)
    answer = gateway.fetch("GET", "/", app.host(), Connection="Upgrade, HTTP2-Settings", Upgrade="h2c",
                           HTTP2_Settings="AAMAAABkAAQAAP__")
    assert answer.status == 200
    assert server.requests[0].get("Upgrade") is None and server.requests[0].get("HTTP2-Settings") is None

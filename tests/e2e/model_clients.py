"""The clients of the model test, all in one process: they ask for random hosts all the time and write down what came.

usage: model_clients.py {"port": …, "ca": …, "seed": …, "names": […], "ports": {"http": …, …}, "domain": …}
It ends with its standard input. Each line on standard output is something that happened, with times:
- call: a request and its answer; error: there was none
- open, failed, closed: of a tunnel; closed says by whom
"""
import asyncio
import itertools
import json
import random
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions

PATIENCE = 60       # seconds; longer is an error
FAILURES = (OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError)


def tell(**line):
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class Lost(Exception):
    """The connection took requests no more before this one was on its way."""


class Clients:
    def __init__(self, options):
        self.port, self.names, self.ports = options["port"], options["names"], options["ports"]
        self.domain, self.random, self.ids = options["domain"], random.Random(options["seed"]), itertools.count()
        self.contexts = {alpn: self.context(options["ca"], alpn) for alpn in ("http/1.1", "h2", None)}
        self.held = set()       # connections that end with the program

    @staticmethod
    def context(authority, alpn):
        context = ssl.create_default_context(cafile=authority)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def host(self, *kinds):
        return f"{self.random.choice(self.names)}-{self.ports[self.random.choice(kinds)]}.{self.domain}"

    def path(self):
        return f"/slow/{self.random.randrange(200)}" if self.random.random() < 0.2 else "/"

    async def pause(self):
        await asyncio.sleep(self.random.uniform(0.002, 0.04))

    async def connect(self, host, alpn):
        return await asyncio.wait_for(asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.contexts[alpn], server_hostname=host), PATIENCE)

    async def run(self):
        jobs = [self.h1_client] * 4 + [self.h2_client] * 2 + [self.websocket] * 4 + [self.tcp] * 4 + [
            self.passthrough] * 4
        tasks = [asyncio.ensure_future(self.repeat(job)) for job in jobs]
        for task in tasks:
            task.add_done_callback(self.check)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        while tasks:        # again: wait_for forgets a cancellation that comes together with a result
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=1)

    @staticmethod
    def check(task):
        if not task.cancelled() and task.exception():
            tell(type="crash", error=repr(task.exception()))
            raise task.exception()

    async def repeat(self, job):
        while True:
            await job()
            await self.pause()

    async def call(self, connection, host):
        """A request, which is written down whatever becomes of it."""
        line = {"type": "call", "kind": connection.name, "host": host, "opened": connection.opened,
                "sent": time.monotonic()}
        try:
            asked = connection.ask(self.path(), host, line["sent"])
            line["status"], line["code"], body = await asyncio.wait_for(asked, PATIENCE)
            line["body"] = json.loads(body) if line["status"] == 200 else None
        except Lost:
            return
        except FAILURES as error:
            line["error"] = repr(error)
            connection.is_over = connection.is_over or connection.name == "h1"
        tell(**line, received=time.monotonic())

    async def use(self, connection):
        for _ in range(self.random.randrange(1, 60)):
            await self.call(connection, self.host("http", "h2c"))
            if connection.is_over:
                return
            await self.pause()

    # ---- requests: one connection after the other, for many hosts each ----

    async def open(self, kind, alpn):
        """None if it was refused, which is written down."""
        begun = time.monotonic()
        try:
            return kind(*await self.connect(self.host("http"), alpn))
        except FAILURES as error:
            tell(type="refused", sent=begun, received=time.monotonic(), error=repr(error))
            return None

    async def h1_client(self):
        if connection := await self.open(H1Connection, "http/1.1"):
            await self.use(connection)
            connection.close()

    async def h2_client(self):
        if connection := await self.open(H2Connection, "h2"):
            await asyncio.gather(*(self.use(connection) for _ in range(3)))     # some streams at once
            connection.close()

    # ---- tunnels ----

    async def websocket(self):
        host = self.host("http")

        async def begin(sent, reader, writer):
            writer.write(f"GET /tunnel HTTP/1.1\r\nHost: {host}\r\nX-Sent: {sent}\r\nConnection: Upgrade\r\n"
                         "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
            return (await read_head(reader))[0]
        await self.tunnel("websocket", host, "http/1.1", begin)

    async def tcp(self):
        async def begin(*_):
            return 101
        await self.tunnel("tcp", self.host("tcp"), None, begin)

    async def passthrough(self):
        host = self.host("passthrough")

        async def begin(_, __, writer):
            output = ssl.MemoryBIO()
            hello = self.contexts[None].wrap_bio(ssl.MemoryBIO(), output, server_hostname=host)
            try:
                hello.do_handshake()
            except ssl.SSLWantReadError:
                writer.write(output.read())
            return 101
        await self.tunnel("passthrough", host, "raw", begin)

    async def tunnel(self, kind, host, alpn, begin):
        line = {"kind": kind, "host": host, "sent": time.monotonic()}
        writer, status = None, None
        try:
            if alpn == "raw":
                reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), PATIENCE)
            else:
                reader, writer = await self.connect(host, alpn)
            status = await asyncio.wait_for(begin(line["sent"], reader, writer), PATIENCE)
            name = await asyncio.wait_for(reader.readline(), PATIENCE) if status == 101 else b""
            if not name.startswith(b"127.") or not name.endswith(b"\n"):
                raise EOFError(f"no name of an instance: {name}")
        except FAILURES as error:
            tell(type="failed", **line, status=status, received=time.monotonic(), error=repr(error))
            if writer:
                writer.close()
            return
        address, accepted = name.split()
        line.update(id=next(self.ids), address=address.decode(), accepted=float(accepted))
        tell(type="open", **line, received=time.monotonic())
        by = await self.use_tunnel(reader, writer, name, line)
        tell(type="closed", id=line["id"], by=by, at=time.monotonic())
        writer.close()

    async def use_tunnel(self, reader, writer, name, line):
        """Until somebody closes it. Some stay as long as they may, so that what is not closed when it should be shows."""
        end = time.monotonic() + self.random.choice([self.random.uniform(0.1, 3), 300])
        while time.monotonic() < end:
            await asyncio.sleep(self.random.uniform(0.01, 0.1))
            try:
                writer.write(f"?{line['host']} {time.monotonic()}\n".encode())
                answer = await asyncio.wait_for(reader.readline(), PATIENCE)
            except asyncio.TimeoutError:
                return "nobody: it is silent"
            except OSError:
                return "gateway"
            if answer != name:
                if answer:
                    tell(type="crash", error=f"in the tunnel {line} to {name} came {answer}")
                return "gateway"
        tell(type="leaving", id=line["id"], at=time.monotonic())
        return "client"


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    return int(head[0].split(" ")[1]), fields


class H1Connection:
    name = "h1"

    def __init__(self, reader, writer):
        self.reader, self.writer, self.is_over, self.opened = reader, writer, False, time.monotonic()

    def close(self):
        self.writer.close()

    async def ask(self, path, host, sent):
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Sent: {sent}\r\n\r\n".encode())
        status, fields = await read_head(self.reader)
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        self.is_over = fields.get("connection") == "close"
        return status, fields.get("x-gateway-error"), body


class H2Connection:
    name = "h2"

    def __init__(self, reader, writer):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.writer, self.calls, self.is_over, self.opened = writer, {}, False, time.monotonic()
        self.h2.initiate_connection()
        self.flush()
        self.task = asyncio.ensure_future(self.read(reader))

    def flush(self):
        if data := self.h2.data_to_send():
            self.writer.write(data)

    async def ask(self, path, host, sent):
        if self.is_over:
            raise Lost
        number = self.h2.get_next_available_stream_id()
        call = self.calls[number] = {"done": asyncio.get_running_loop().create_future(), "body": b"", "fields": {}}
        self.h2.send_headers(number, [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path),
                                      ("x-sent", str(sent))], end_stream=True)
        self.flush()
        await call["done"]
        return int(call["fields"][":status"]), call["fields"].get("x-gateway-error"), call["body"]

    async def read(self, reader):
        try:
            while data := await reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.take(event)
                self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        self.is_over = True
        self.fail(self.calls, EOFError("the connection has ended"))

    def take(self, event):
        call = self.calls.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.is_over = True
            self.fail([number for number in self.calls if number > event.last_stream_id], Lost())
        elif call and isinstance(event, h2.events.ResponseReceived):
            call["fields"] = dict(event.headers)
        elif call and isinstance(event, h2.events.DataReceived):
            call["body"] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif call and isinstance(event, h2.events.StreamReset):
            self.fail([event.stream_id], ConnectionResetError(f"stream reset, {event.error_code}"))
        elif call and isinstance(event, h2.events.StreamEnded) and not call["done"].done():
            call["done"].set_result(None)

    def fail(self, numbers, error):
        for number in list(numbers):
            if not self.calls[number]["done"].done():
                self.calls[number]["done"].set_exception(error)

    def close(self):
        self.task.cancel()
        self.writer.close()


if __name__ == "__main__":
    asyncio.run(Clients(json.loads(sys.argv[1])).run())

"""All instances of the model test in one process: listens on many addresses and says who it is.

usage: model_back.py {"addresses": […]}      The first line on standard output has the ports, each later one a request,
or a piece of a tunnel's bytes. It ends with its standard input. A port speaks HTTP/1.1 and, by prior knowledge, HTTP/2;
another one raw bytes, of which each piece is answered with the address and the time of the connection's begin: that is
the connection's name.
"""
import asyncio
import json
import random
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions

PREFACE = b"PRI * HTTP/2.0"


def tell(line):
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class Raw(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.accepted = transport, time.monotonic()
        self.address = transport.get_extra_info("sockname")[0]
        self.say_name()

    def say_name(self):
        self.transport.write(f"{self.address} {self.accepted}\n".encode())

    def data_received(self, data):
        """Lines are "?<host> <when it was sent>", but for a ClientHello, which begins a passthrough connection."""
        for line in data.splitlines() if data.startswith(b"?") else []:
            host, sent = line[1:].decode().split()
            tell({"host": host, "address": self.address, "accepted": self.accepted, "sent": float(sent),
                  "arrived": time.monotonic(), "is_tunnel": True})
        self.say_name()

    def connection_lost(self, _):
        self.transport = None


class Http(Raw):
    def connection_made(self, transport):
        self.transport, self.accepted = transport, time.monotonic()
        self.address = transport.get_extra_info("sockname")[0]
        self.buffer, self.is_tunnel, self.h2 = b"", False, None

    def data_received(self, data):
        if self.is_tunnel:
            super().data_received(data)
        elif self.h2:
            self.take_h2(data)
        else:
            self.buffer += data
            self.take_buffer()

    def take_buffer(self):
        if self.buffer.startswith(PREFACE):
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
            self.h2.initiate_connection()
            self.take_h2(self.buffer)
            return
        while b"\r\n\r\n" in self.buffer and not self.is_tunnel:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            self.begin(lines[0].split(" ")[1], fields["host"], fields["x-sent"], self.answer_h1)

    def begin(self, path, host, sent, answer):
        seen = {"host": host, "address": self.address, "accepted": self.accepted, "sent": float(sent),
                "arrived": time.monotonic(), "is_tunnel": False}
        tell(seen)
        if path.startswith("/slow/"):
            asyncio.get_running_loop().call_later(int(path[6:]) / 1000, self.end, path, seen, answer)
        else:
            self.end(path, seen, answer)

    def end(self, path, seen, answer):
        if self.transport and not self.transport.is_closing():
            seen["answered"] = time.monotonic()
            answer(path, json.dumps(seen).encode())

    def answer_h1(self, path, body):
        if path == "/tunnel":
            self.is_tunnel = True
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                 b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
            self.say_name()
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def take_h2(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                fields = dict(event.headers)
                number = event.stream_id
                self.begin(fields[":path"], fields[":authority"], fields["x-sent"],
                           lambda path, body, number=number: self.answer_h2(number, body))
        self.flush_h2()

    def answer_h2(self, number, body):
        try:
            self.h2.send_headers(number, [(":status", "200"), ("content-length", str(len(body)))])
            self.h2.send_data(number, body, end_stream=True)
        except h2.exceptions.ProtocolError:
            return      # the gateway has cancelled it, or said farewell
        self.flush_h2()

    def flush_h2(self):
        if self.transport and (data := self.h2.data_to_send()):
            self.transport.write(data)


async def listen(loop, protocol, addresses):
    """On a port that is free on all addresses, below those that the kernel gives to outgoing connections."""
    while True:
        port, servers = 12000 + random.randrange(18000), []
        try:
            for address in addresses:
                servers.append(await loop.create_server(protocol, address, port, backlog=512))
            return port
        except OSError:
            for server in servers:
                server.close()


async def main(addresses):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, error: tell({"crash": f"{error}"}))
    tell({"http": await listen(loop, Http, addresses), "h2c": await listen(loop, Http, addresses),
          "tcp": await listen(loop, Raw, addresses), "passthrough": await listen(loop, Raw, addresses)})
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])["addresses"]))

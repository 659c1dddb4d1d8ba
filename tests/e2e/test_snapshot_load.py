"""
PUT /v1/snapshot of a whole cloud while requests go through: none fails, whatever the table becomes around their apps.

SNAPSHOT_LINES (default 50,000) is the size. For figures, with a release build:
    SNAPSHOT_LINES=1000000 GATEWAY_BUILD=build/release /usr/bin/python3 -m pytest -q -s tests/e2e/test_snapshot_load.py
"""
import json
import os
import socket
import threading
import time

from gateway import UnixConnection
from h2_client import H2Client
from wire import wait_until

LINES = int(os.environ.get("SNAPSHOT_LINES", "50000"))
PATIENCE = 600      # seconds, for one call


def address(number):
    return f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def line(number, generation):
    return json.dumps({"app_id": f"{number:040x}", "ports": [{"port": 8080}], "instances": [
        {"instance_id": f"f{number:039x}", "address": address(number + 1), "generation": generation,
         "state": "running"}]}) + "\n"


def write(path, apps, generation_of, broken=None):
    """A snapshot with the documents of `apps` first; line `broken`, counted from 1, is no JSON. Returns the path."""
    with open(path, "w", encoding="ascii") as out:
        for app in apps:
            out.write(json.dumps(app.document) + "\n")
        for number in range(LINES - len(apps)):
            out.write(line(number, generation_of(number)) if number + len(apps) + 1 != broken else "{broken\n")
    return path


class Client(threading.Thread):
    """Requests, one after the other, until it is told to end: (when, how long) of each, and what went wrong."""

    def __init__(self, request):
        super().__init__(daemon=True)
        self.request, self.ended = request, False
        self.took, self.failed = [], []

    def run(self):
        while not self.ended:
            begin = time.monotonic()
            try:
                status = self.request()
            except Exception as error:      # pylint: disable=broad-except
                self.failed.append((begin, repr(error)))
                return
            self.took.append((begin, time.monotonic() - begin))
            if status != 200:
                self.failed.append((begin, status))
            time.sleep(0.002)


def over_one_connection(gateway, app):
    connection = None

    def request():
        nonlocal connection
        if not connection:
            connection = gateway.connect(app.host())
            connection.sock.settimeout(PATIENCE)
        answer = connection.request("GET", "/", app.host())
        if answer.get("Connection") == "close":
            connection.close()
            connection = None
        return answer.status
    return request


def over_new_connections(gateway, app):
    return lambda: gateway.fetch("GET", "/", app.host()).status


def over_h2(gateway, app):
    client = None

    def request():
        nonlocal client
        if not client or client.goaway or client.notices:
            client = H2Client(gateway, app.host())
            client.wire.sock.settimeout(PATIENCE)
        number = client.send("GET", "/")
        client.response(number)
        return client.streams.pop(number).status
    return request


class Load:
    """A gateway with two apps that are asked all the time."""

    def __init__(self, gateway, origin):
        self.gateway = gateway
        self.apps = [gateway.app(origin()) for _ in range(2)]
        self.clients = [Client(kind(gateway, app)) for app in self.apps
                        for kind in (over_one_connection, over_new_connections, over_h2)]

    def __enter__(self):
        begin = time.monotonic()
        for client in self.clients:
            client.start()
        wait_until(lambda: all(len(client.took) > 10 or client.failed for client in self.clients), "the first requests")
        self.report("before", begin)
        return self

    def __exit__(self, kind, *_):
        for client in self.clients:
            client.ended = True
        for client in self.clients:
            client.join(PATIENCE)
        if kind is None:
            self.check("at the end")

    def check(self, what):
        failed = [failure for client in self.clients for failure in client.failed]
        assert not failed, f"{what}: {failed}"

    def report(self, what, begin):
        """What clients and memory have felt since then. Figures are told, not judged."""
        end = time.monotonic()
        took = sorted(seconds for client in self.clients for at, seconds in list(client.took)
                      if at + seconds >= begin and at <= end)
        memory = self.memory()
        print(f"\n{what}: {end - begin:.2f} s, {len(took)} requests, p50 {took[len(took) // 2] * 1000:.1f} ms, "
              f"p99 {took[len(took) * 99 // 100] * 1000:.1f} ms, longest {took[-1] * 1000:.0f} ms; "
              f"resident {memory['VmRSS']} MiB, at most {memory['VmHWM']}", end="")
        self.check(what)

    def memory(self):
        """VmRSS, and VmHWM since the last call, in MiB."""
        folder = f"/proc/{self.gateway.process.pid}"
        with open(f"{folder}/status", encoding="ascii") as status:
            values = dict(text.split(":", 1) for text in status.read().splitlines() if text.startswith("Vm"))
        with open(f"{folder}/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")
        return {name: int(values[name].split()[0]) >> 10 for name in ("VmRSS", "VmHWM")}

    def upload(self, path, what, query=""):
        begin = time.monotonic()
        connection = UnixConnection(self.gateway.control_path)
        connection.timeout = PATIENCE
        with open(path, "rb") as body:
            answer = self.gateway.control("PUT", f"/v1/snapshot{query}", iter(lambda: body.read(1 << 18), b""),
                                          connection=connection, Content_Type="application/x-ndjson")
        self.report(what, begin)
        return answer

    def interrupt_upload(self, path):
        size = path.stat().st_size
        with socket.socket(socket.AF_UNIX) as sock, open(path, "rb") as body:
            sock.connect(str(self.gateway.control_path))
            sock.sendall(f"PUT /v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
            left = size // 2
            while left:
                piece = body.read(min(left, 1 << 18))
                sock.sendall(piece)
                left -= len(piece)

    def heartbeat(self):
        """Revision, count and digest of the table."""
        connection = UnixConnection(self.gateway.control_path)
        connection.request("GET", "/v1/watch")
        line = json.loads(connection.getresponse().readline())
        connection.close()
        return line


def test_table_replaced_under_load(make_gateway, origin, tmp_path):
    gateway = make_gateway()
    load = Load(gateway, origin)
    path = tmp_path / "snapshot"
    with load:
        for what, generation_of in [("all new", lambda number: 1),
                                    ("1 % differs", lambda number: 1 + (number % 100 == 0)),
                                    ("100 % differs", lambda number: 3)]:
            write(path, load.apps, generation_of)
            answer = load.upload(path, what)
            assert answer.status == 200 and (answer.json["apps"], answer.json["refused"]) == (LINES, 0), answer
        known = load.heartbeat()
        assert known["apps"] == LINES

        write(path, load.apps, lambda number: 4)
        begin = time.monotonic()
        load.interrupt_upload(path)
        load.report("interrupted", begin)
        assert load.heartbeat() == known

        broken = LINES // 2
        write(path, load.apps, lambda number: 3 + (number % 100 == 0), broken)
        strict = load.upload(path, "a broken line, strict", "?strict=1")
        assert strict.status // 100 == 4 and [error["line"] for error in strict.json["errors"]] == [broken], strict
        assert load.heartbeat() == known
        answer = load.upload(path, "a broken line")
        assert answer.status == 200 and [error["line"] for error in answer.json["errors"]] == [broken], answer
        assert (answer.json["apps"], answer.json["refused"]) == (LINES - 1, 1)
        assert load.heartbeat()["apps"] == LINES - 1

    begin = time.monotonic()
    gateway.kill()
    gateway.start()
    print(f"\nafter kill -9: ready after {time.monotonic() - begin:.2f} s, resident {load.memory()['VmRSS']} MiB")
    assert load.heartbeat()["apps"] == LINES - 1

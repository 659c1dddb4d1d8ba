"""The live access log: GET /v1/logs and gatewayctl logs."""
import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from gateway import BUILD, DOMAIN, UnixConnection, new_id
from terminal import Terminal, plain
from wire import wait_until


class Stream:
    """An open GET /v1/logs?follow=1."""

    def __init__(self, gateway, query):
        self.connection = UnixConnection(gateway.control_path)
        self.connection.request("GET", f"/v1/logs?follow=1&{query}")
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "application/x-ndjson"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def line(self):
        while True:
            line = self.response.readline()
            assert line.endswith(b"\n"), line
            if line != b"\n":
                return json.loads(line)


def recent(gateway, query):
    answer = gateway.control("GET", f"/v1/logs?{query}")
    assert answer.status == 200, answer
    return [json.loads(line) for line in answer.body.splitlines() if line]


def get(gateway, app, path, method="GET"):
    return gateway.fetch(method, path, app.host())


# ---- the API ----

def test_lines_come_as_they_are_logged(gateway, origin):
    app, other = gateway.app(origin()), gateway.app(origin())
    with Stream(gateway, f"app={app.id}&lines=0") as stream:
        for number in range(5):
            get(gateway, other, "/other")
            get(gateway, app, f"/{number}?q=1")
            line = stream.line()
            assert line["path"] == f"/{number}?q=1" and line["app_id"] == app.id
    assert gateway.log_line(app_id=app.id, path="/4?q=1") == line


def test_filters(gateway, origin):
    app = gateway.app(origin())
    unknown = f"{new_id()}-80.{DOMAIN}"
    for path in ("/a/1", "/a/2?x=/b/", "/b/3"):
        get(gateway, app, path)
    get(gateway, app, "/a/4", "DELETE")
    gateway.fetch("GET", "/gone", unknown)
    gateway.log_line(host=unknown)

    def paths(query):
        """Lines of one worker are in order, those of several nearly."""
        return sorted(line["path"] for line in recent(gateway, query))
    wait_until(lambda: paths(f"host={unknown}") == ["/gone"], "the last line")
    assert paths(f"app={app.id}") == ["/a/1", "/a/2?x=/b/", "/a/4", "/b/3"]
    assert paths(f"app={app.id}&path=/b/*") == ["/b/3"]
    assert paths(f"app={app.id}&method=delete") == ["/a/4"]
    assert len(paths(f"app={app.id}&lines=2")) == 2
    assert paths(f"app={app.id}&status=4xx") == [] and len(paths(f"app={app.id}&status=%3C400")) == 4
    assert paths(f"host={unknown}&status=404&error=1") == ["/gone"]
    assert paths(f"host={unknown}&error=app_unknown") == ["/gone"] and paths(f"host={unknown}&error=app_busy") == []
    assert paths(f"host={unknown.upper()}") == ["/gone"]
    assert paths(f"app={app.id}&slower_than=1m") == [] and len(paths(f"app={app.id}&slower_than=0ms")) == 4
    assert paths(f"app={app.document['instances'][0]['instance_id']}&path=/a/?") == ["/a/1", "/a/2?x=/b/", "/a/4"]


@pytest.mark.parametrize("query, field", [
    ("status=abc", "status"), ("slower_than=5", "slower_than"), ("lines=-1", "lines"), ("follow=perhaps", "follow"),
    ("app=", "app"), ("nothing=1", "nothing"), ("path=" + "a" * 300, "path")])
def test_wrong_parameters_are_refused(gateway, query, field):
    answer = gateway.control("GET", f"/v1/logs?{query}")
    assert answer.status == 400 and answer.code == "invalid_parameter" and answer.json["field"] == field


def tail(path):
    """The end of the file, two long lines of it."""
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 10000))
        return file.read()


def test_a_slow_reader_loses_lines_and_holds_up_nobody(gateway, origin):
    """It reads nothing while more is logged than its buffers hold."""
    app = gateway.app(origin())
    padding = "x" * 4000
    with Stream(gateway, f"app={app.id}&lines=0") as slow:
        count = 0
        with gateway.connect(app.host()) as connection:
            for _ in range(2500):
                count += 1
                assert connection.request("GET", f"/{count}?{padding}", app.host()).status == 200
                if count % 50 == 0:     # the worker's own ring must not run over, however busy the machine is
                    wait_until(lambda: f"/{count}?".encode() in tail(gateway.access_log), f"line {count} in the file")
        got, dropped = 0, 0
        while got + dropped < count:
            line = slow.line()
            if "dropped" in line:
                dropped += line["dropped"]
            else:
                got += 1
                assert line["path"] == f"/{got + dropped}?{padding}"
        assert dropped > 0 and got + dropped == count
        get(gateway, app, "/again")
        assert slow.line()["path"] == "/again"
    assert gateway.metric("access_log_dropped_total") == 0


def test_a_reader_that_has_stopped_holds_up_no_end(make_gateway, origin):
    gateway = make_gateway(timeouts={"drain": "1h", "send_stall": "1h"})
    app = gateway.app(origin())
    with Stream(gateway, "lines=0"):
        with gateway.connect(app.host()) as connection:
            for number in range(300):
                assert connection.request("GET", f"/{number}?{'x' * 4000}", app.host()).status == 200
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0


def test_there_are_only_so_many_followers(gateway):
    streams = [Stream(gateway, "lines=0") for _ in range(16)]
    answer = gateway.control("GET", "/v1/logs?follow=1")
    assert answer.status == 503 and answer.code == "overloaded"
    for stream in streams:
        stream.connection.close()
    wait_until(lambda: gateway.control("GET", "/v1/logs").status == 200, "room for another")


@pytest.mark.parametrize("log_format", ["combined", "off"])
def test_other_formats_are_followed_as_json_too(make_gateway, origin, log_format):
    gateway = make_gateway(access_log={"path": "-", "format": log_format, "query": "dropped", "client": "off"})
    app = gateway.app(origin())
    get(gateway, app, "/before")
    assert recent(gateway, "") == []
    with Stream(gateway, "lines=5") as stream:
        get(gateway, app, "/during?secret=1")
        line = stream.line()
        assert line["path"] == "/during" and "client" not in line
        assert [line["path"] for line in recent(gateway, "")] == ["/during"]


def test_a_gateway_that_ends_ends_the_stream(make_gateway):
    gateway = make_gateway()
    with subprocess.Popen([BUILD / "gatewayctl", "--control", f"unix:{gateway.control_path}", "logs", "-f"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        host = f"{new_id()}-80.{DOMAIN}"

        def arrives():
            gateway.fetch("GET", "/", host)
            return os.get_blocking(process.stdout.fileno()) and process.stdout.readline()
        assert json.loads(wait_until(arrives, "a line"))["host"] == host
        gateway.stop(signal.SIGTERM)
        assert process.wait(30) == 3
        assert b"the gateway has ended the stream" in process.stderr.read()


# ---- gatewayctl logs ----

def test_ctl_passes_over_signs_of_life(tmp_path):
    """Empty lines, first and between, and lines in pieces."""
    pieces = [b"\n", b"\n\n", b'{"path":"/a', b'"}\n\n{"dropped":3}', b"\n\n"]
    path = tmp_path / "control.sock"

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        result = subprocess.run([BUILD / "gatewayctl", "--control", f"unix:{path}", "logs"], capture_output=True,
                                check=False, timeout=60, stdin=subprocess.DEVNULL)
        thread.join()
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b'{"path":"/a"}\n{"dropped":3}\n'


def test_ctl_prints_ndjson_into_a_pipe(gateway, origin):
    app = gateway.app(origin())
    with gateway.connect(app.host()) as connection:     # of one worker
        for path in ("/1", "/2", "/3"):
            connection.request("GET", path, app.host())
    wait_until(lambda: len(recent(gateway, f"app={app.id}")) == 3, "all lines")
    result = gateway.gatewayctl("logs", "--app", app.id, "-n", "2", "--path", "/*", "--status", "2xx")
    assert result.returncode == 0 and result.stderr == ""
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == ["/2", "/3"]
    assert gateway.gatewayctl("logs", "--app", app.id, "--error").stdout == ""
    assert gateway.gatewayctl("logs", "--app", app.id, "--slower-than", "1m").stdout == ""
    wrong = gateway.gatewayctl("logs", "--status", "many")
    assert wrong.returncode == 1 and "status" in wrong.stderr and "5xx" in wrong.stderr


def follow_on_terminal(gateway, *arguments, **environment):
    return Terminal([str(BUILD / "gatewayctl"), "--control", f"unix:{gateway.control_path}", "logs", "-f", *arguments],
                    120, env=environment)


def test_ctl_follows_on_a_terminal_in_colours(gateway, origin):
    app = gateway.app(origin())
    get(gateway, app, "/first")
    wait_until(lambda: recent(gateway, f"app={app.id}"), "the first line")
    with follow_on_terminal(gateway, "--app", app.id) as terminal:
        line = terminal.wait_for(rb"/first[^\n]*\n")
        assert re.search(rb"\x1b\[2m\d\d:\d\d:\d\d\.\d{3}\x1b\[0m \x1b\[32m200\x1b\[0m GET ", line), line
        assert re.search(rf"GET {app.host()}/first  [\d.]+ ms", plain(line))
        get(gateway, app, "/second", "DELETE")
        terminal.wait_for(rb"DELETE [^ ]*/second [^\n]*\n")
        terminal.send_signal(signal.SIGINT)
        assert terminal.wait() == -signal.SIGINT


def test_ctl_has_no_colours_without_leave(gateway, origin):
    app = gateway.app(origin())
    get(gateway, app, "/plain")
    wait_until(lambda: recent(gateway, f"app={app.id}"), "the line")
    with follow_on_terminal(gateway, "--app", app.id, NO_COLOR="1") as terminal:
        assert b"\x1b" not in terminal.wait_for(rb"/plain[^\n]*\n")
    with follow_on_terminal(gateway, "--app", app.id, "--json") as terminal:
        assert json.loads(terminal.wait_for(rb"\{[^\n]*\n"))["path"] == "/plain"


def test_what_clients_send_cannot_move_the_terminal(gateway):
    """Escapes in path and fields, also as C1 characters and bytes that are no text."""
    host = f"{new_id()}-80.{DOMAIN}"
    hostile = b"/\xc2\x9b2J\xff\xe2\x80\xae/\x7f"
    with gateway.connect(host) as connection:
        connection.send(b"GET " + hostile + b" HTTP/1.1\r\nHost: " + host.encode() + b"\r\nUser-Agent: \xc2\x9b31m\r\n\r\n")
        connection.read_response()
    wait_until(lambda: recent(gateway, "lines=1"), "the line")
    with follow_on_terminal(gateway, "-n", "20", NO_COLOR="1") as terminal:
        gateway.fetch("GET", "/end", host)
        seen = terminal.wait_for(rb"/end[^\n]*\n")
    assert b"\x1b" not in seen and b"\xc2\x9b" not in seen and b"\xe2\x80\xae" not in seen and b"\xff" not in seen
    assert b"400" in seen or b"404" in seen

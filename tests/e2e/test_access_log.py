"""The access log: what each line says, and that nobody can forge one."""
import json
import re
import signal

import pytest

from gateway import DOMAIN, new_id
from origin import respond
from wire import wait_until

HOSTILE = b'GET /"},{"status":200,"path":"\\u000a\\n<b> HTTP/1.1\r\nHost: %s\r\n' \
          b'User-Agent: a"\\\xff\xc3(\xe2\x80\xa8\t}\r\nReferer: https://a/\\"\x85\r\n\r\n'


def test_fields(gateway, origin):
    app = gateway.app(origin(respond(b"hello")))
    context = gateway.tls_context()
    with gateway.connect(app.host(), context) as connection:
        connection.request("POST", "/path?a=b", app.host(), b"body", User_Agent="test/1", Referer="https://a.test/")
        session = connection.sock.session
        client_port = connection.sock.getsockname()[1]
    line = gateway.log_line(app_id=app.id)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    document = app.document
    expected = {"client": "127.0.0.1", "client_port": client_port, "host": app.host(), "method": "POST",
                "path": "/path?a=b", "protocol": "http/1.1", "status": 200, "bytes_in": 4, "bytes_out": 5,
                "instance_id": document["instances"][0]["instance_id"], "port": document["ports"][0]["port"],
                "tls_version": "TLSv1.3", "alpn": "http/1.1", "back_protocol": "http/1.1",
                "back_address": f"{document['instances'][0]['address']}:{document['ports'][0]['port']}",
                "user_agent": "test/1", "referer": "https://a.test/"}
    assert {name: line.get(name) for name in expected} == expected
    assert line["request_id"] and line["tls_cipher"].startswith("TLS_")
    assert line["total_ms"] >= line["first_byte_ms"] >= 0 and "error" not in line
    with gateway.connect(app.host(), context, session) as connection:
        connection.request("GET", "/resumed", app.host())
    assert gateway.log_line(app_id=app.id, path="/resumed")["tls_resumed"] is True


def test_request_id_is_the_same_everywhere(gateway, origin):
    server = origin()
    app = gateway.app(server)
    gateway.fetch("GET", "/", app.host())
    assert gateway.log_line(app_id=app.id)["request_id"] == server.requests[0].get("X-Request-Id")


def test_errors(gateway):
    host = f"{new_id()}-80.{DOMAIN}"
    gateway.fetch("GET", "/", host)
    line = gateway.log_line(host=host)
    assert line["status"] == 404 and line["error"] == "app_unknown"
    with gateway.connect(f"a.{DOMAIN}") as connection:
        connection.send(f"GET /refused HTTP/1.1\r\nHost: {host}x\r\nA : b\r\n\r\n")
        assert connection.read_response().status == 400
    wait_until(lambda: any(line.get("error") == "bad_field_name" for line in gateway.log_lines()), "the line")


def test_each_request_of_a_connection(gateway, origin):
    app = gateway.app(origin())
    with gateway.connect(app.host()) as connection:
        for number in range(20):
            connection.request("GET", f"/{number}", app.host())
    wait_until(lambda: len([line for line in gateway.log_lines() if line.get("app_id") == app.id]) == 20, "20 lines")
    lines = [line for line in gateway.log_lines() if line.get("app_id") == app.id]
    assert [line["path"] for line in lines] == [f"/{number}" for number in range(20)]
    assert any(line.get("back_reused") for line in lines[1:])


def test_tunnel(gateway, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n12345")
        connection.read_rest()
    app = gateway.app(origin(script=script))
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
        connection.read_response()
        connection.read(5)
        connection.send(b"123")
        assert connection.is_silent(0.2)
    line = gateway.log_line(app_id=app.id)
    assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 3, 5)


def test_client_that_leaves(gateway, origin):
    def script(connection):
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        connection.read_rest()
    app = gateway.app(origin(script=script))
    connection = gateway.connect(app.host())
    connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    connection.read_until(b"abc")
    connection.close()
    assert gateway.log_line(app_id=app.id)["error"] == "client_cancelled"


def test_hostile_bytes(gateway, origin):
    app = gateway.app(origin())
    before = len(gateway.log_lines())
    with gateway.connect(app.host()) as connection:
        connection.send(HOSTILE % app.host().encode())
        assert connection.read_response().status == 200
    line = gateway.log_line(app_id=app.id)
    assert line["path"] == '/"},{"status":200,"path":"\\u000a\\n<b>'
    assert len(gateway.log_lines()) == before + 1
    text = gateway.access_log.read_bytes()
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text) and text.decode("utf-8")


def test_long_values_are_cut(gateway, origin):
    app = gateway.app(origin())
    gateway.fetch("GET", "/" + "a" * 7000, app.host(), User_Agent='"' * 10000, Referer="\\" * 5000)
    line = gateway.log_line(app_id=app.id)
    assert line["path"].startswith("/aaa") and line["user_agent"].startswith('""')


def test_reopen(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    gateway.fetch("GET", "/before", app.host())
    gateway.log_line(path="/before")
    rotated = gateway.folder / "access.log.1"
    gateway.access_log.rename(rotated)
    gateway.fetch("GET", "/between", app.host())
    wait_until(lambda: b"/between" in rotated.read_bytes(), "the line in the old file")
    gateway.send_signal(signal.SIGUSR1)
    wait_until(gateway.access_log.exists, "the new file")
    gateway.fetch("GET", "/after", app.host())
    gateway.log_line(path="/after")
    assert b"/after" not in rotated.read_bytes() and b"/before" not in gateway.access_log.read_bytes()


def first_line(gateway, origin, path="/path?secret=1"):
    app = gateway.app(origin())
    gateway.fetch("GET", path, app.host(), User_Agent='te"st')
    return wait_until(lambda: gateway.access_log.exists() and gateway.access_log.read_text(), "a line")


def log_options(folder, **options):
    return {"path": str(folder / "access.log"), **options}


@pytest.mark.parametrize("options, pattern", [
    ({"format": "combined"}, r'127\.0\.0\.1 \S+ \S+ \[\d\d/\w{3}/\d{4}:[\d:]{8} \+0000\] '
                             r'"GET /path\?secret=1 HTTP/1\.1" 200 2 "-?" "te\\(?:"|x22)st"\n'),
    ({"format": "$client ${status} $$ $path"}, r"127\.0\.0\.1 200 \$ /path\?secret=1\n"),
])
def test_formats(make_gateway, origin, tmp_path, options, pattern):
    gateway = make_gateway(access_log=log_options(tmp_path, **options))
    gateway.access_log = tmp_path / "access.log"
    assert re.fullmatch(pattern, first_line(gateway, origin))


@pytest.mark.parametrize("options, client, path", [
    ({"client": "masked"}, "127.0.0.0", r"/path\?secret=1"),
    ({"client": "off"}, None, r"/path\?secret=1"),
    ({"query": "dropped"}, "127.0.0.1", r"/path\??"),
    ({"query": "hashed"}, "127.0.0.1", r"/path\?[0-9a-f]+"),
])
def test_privacy(make_gateway, origin, tmp_path, options, client, path):
    gateway = make_gateway(access_log=log_options(tmp_path, format="json", **options))
    gateway.access_log = tmp_path / "access.log"
    line = json.loads(first_line(gateway, origin))
    assert line.get("client") == client and re.fullmatch(path, line["path"])


def test_off(make_gateway, origin):
    gateway = make_gateway(access_log={"format": "off"})
    app = gateway.app(origin())
    assert gateway.fetch("GET", "/", app.host()).status == 200
    gateway.stop()
    assert not gateway.access_log.exists()


def test_lines_are_written_before_the_end(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    with gateway.connect(app.host()) as connection:
        for number in range(200):
            connection.request("GET", f"/{number}", app.host())
    gateway.stop(signal.SIGTERM)
    assert len(gateway.log_lines()) == 200

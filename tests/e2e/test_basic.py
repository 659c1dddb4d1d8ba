"""A real app (httpbin under gunicorn) through the gateway, with curl and over raw connections."""
import gzip
import hashlib
import json
import re

import pytest

from gateway import new_id
from origin import respond


@pytest.fixture(scope="module")
def app(gateway, httpbin):
    address, port = httpbin
    return gateway.app(ports=[{"port": port}],
                       instances=[{"instance_id": new_id(), "address": address, "state": "running", "generation": 1}])


@pytest.fixture(params=["--http1.1", "--http2"])
def curl(gateway, app, request):
    def run(path, *arguments):
        result = gateway.curl(f"https://{app.host()}{path}", request.param, *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout
    return run


def test_get_with_forwarded_fields(curl, app, gateway):
    answer = json.loads(curl("/get?a=b&show_env=1", "-H", "X-Forwarded-For: 8.8.8.8", "-H", "X_Forwarded_For: 8.8.8.8"))
    assert answer["args"] == {"a": "b", "show_env": "1"}
    sent = answer["headers"]
    assert sent["Host"] == app.host()
    assert sent["X-Forwarded-For"] == sent["X-Real-Ip"] == "127.0.0.1"
    assert sent["X-Forwarded-Proto"] == "https"
    assert sent["X-Forwarded-Host"] == app.host()
    assert sent["X-Forwarded-Port"] == str(gateway.port)
    assert sent["X-Request-Id"]
    assert sent["Via"] in ("1.1 phala-gateway", "2 phala-gateway", "2.0 phala-gateway")
    assert "8.8.8.8" not in json.dumps(sent)


def test_post(curl):
    assert json.loads(curl("/post", "-d", "name=value"))["form"] == {"name": "value"}


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_methods(curl, method):
    assert json.loads(curl(f"/{method.lower()}", "-X", method, "--json", '{"a":1}'))["json"] == {"a": 1}


def test_gzip(curl):
    assert json.loads(gzip.decompress(curl("/gzip")))["gzipped"] is True
    assert json.loads(curl("/gzip", "--compressed"))["gzipped"] is True


def test_redirect(curl):
    head = curl("/redirect/1", "-i").decode()
    assert re.match(r"HTTP/(1\.1|2) 302 ", head) and re.search(r"\r\nLocation: /get\r\n", head, re.I)
    assert json.loads(curl("/redirect/3", "-L"))["url"].endswith("/get")


def test_head(curl):
    head = curl("/get", "-I").decode()
    assert re.match(r"HTTP/(1\.1|2) 200 ", head)
    assert int(re.search(r"Content-Length: (\d+)", head, re.I)[1]) > 0


def test_options(curl):
    assert "GET" in re.search(r"Allow: (.*)", curl("/get", "-i", "-X", "OPTIONS").decode(), re.I)[1]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 304, 400, 404, 418, 429, 500, 503])
def test_status(curl, status):
    assert curl(f"/status/{status}", "-o", "/dev/null", "-w", "%{http_code}") == str(status).encode()


def test_range(curl):
    answer = curl("/range/1000", "-i", "-r", "10-19").decode()
    assert re.match(r"HTTP/(1\.1|2) 206 ", answer)
    assert "content-range: bytes 10-19/1000" in answer.lower()
    assert answer.endswith("\r\n\r\nklmnopqrst")


def test_chunked_upload(curl):
    answer = json.loads(curl("/post", "-H", "Transfer-Encoding: chunked", "-H", "Content-Type: text/plain",
                             "-d", "hello"))
    assert answer["data"] == "hello"


def test_large_upload(curl, tmp_path):
    data = (b"0123456789abcdef" * 1024 * 64)     # 1 MiB
    (tmp_path / "data").write_bytes(data)
    answer = json.loads(curl("/post", "-H", "Content-Type: text/plain", "--data-binary", f"@{tmp_path / 'data'}"))
    assert hashlib.sha256(answer["data"].encode()).digest() == hashlib.sha256(data).digest()


def test_large_download(curl):
    assert len(curl("/stream-bytes/102400?seed=1")) == 102400


def test_many_megabytes_both_ways(gateway, origin):
    """An echo of 32 MiB, whose digest tells a lost or doubled byte."""
    server = origin(lambda connection, request: respond(request.body))
    app = gateway.app(server)
    data = bytes(range(256)) * 4096 * 32
    answer = gateway.fetch("POST", "/", app.host(), data)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(data).digest()


def test_stream(curl):
    lines = curl("/stream/20").decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(range(20))


def test_delay(curl):
    assert json.loads(curl("/delay/2"))["url"].endswith("/delay/2")


def test_drip(curl):
    assert curl("/drip?numbytes=10&duration=1&delay=0") == b"*" * 10


def test_cookies(curl):
    head = curl("/cookies/set/name/value", "-i").decode()
    assert re.search(r"^Set-Cookie: name=value", head, re.I | re.M)
    assert json.loads(curl("/cookies", "-b", "a=1; b=2"))["cookies"] == {"a": "1", "b": "2"}


def test_basic_auth(curl):
    assert json.loads(curl("/basic-auth/user/secret", "-u", "user:secret"))["authenticated"] is True


def test_keep_alive(gateway, app):
    with gateway.connect(app.host()) as connection:
        for number in range(20):
            answer = connection.request("GET", f"/get?n={number}", app.host())
            assert json.loads(answer.body)["args"] == {"n": str(number)}


def test_upstream_connections_are_reused(gateway, origin):
    server = origin()
    app = gateway.app(server)
    for _ in range(5):
        with gateway.connect(app.host()) as connection:
            for _ in range(4):
                assert connection.request("GET", "/", app.host()).body == b"ok"
    assert len(server.requests) == 20
    assert len(server.connections) <= 2      # one a worker


def test_pipelining_keeps_order(gateway, app):
    with gateway.connect(app.host()) as connection:
        connection.send("".join(f"GET /get?n={number} HTTP/1.1\r\nHost: {app.host()}\r\n\r\n" for number in range(10)))
        for number in range(10):
            assert json.loads(connection.read_response().body)["args"] == {"n": str(number)}


def test_pipelining_after_a_body(gateway, origin):
    server = origin(lambda connection, request: respond(request.body or b"none"))
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(f"POST / HTTP/1.1\r\nHost: {app.host()}\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n"
                        f"Host: {app.host()}\r\n\r\n")
        assert connection.read_response().body == b"hello"
        assert connection.read_response().body == b"none"


def test_connection_close(gateway, app):
    with gateway.connect(app.host()) as connection:
        assert connection.request("GET", "/get", app.host(), Connection="close").get("Connection") == "close"
        assert connection.is_closed()


def test_http_1_0(gateway, app):
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET /get HTTP/1.0\r\nHost: {app.host()}\r\n\r\n")
        answer = connection.read_response()
        assert answer.start.startswith("HTTP/1.1 200") and json.loads(answer.body)["url"]
        assert connection.is_closed()


def test_http_1_0_gets_no_chunks(gateway, app):
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET /stream/3 HTTP/1.0\r\nHost: {app.host()}\r\n\r\n")
        answer = connection.read_response()
        assert answer.get("Transfer-Encoding") is None
        assert len(answer.body.splitlines()) == 3


def test_redirect_to_https(gateway, app):
    with gateway.dial(gateway.http_port) as sock:
        sock.sendall(f"GET /path?query HTTP/1.1\r\nHost: {app.host()}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    head = answer.split(b"\r\n\r\n")[0].decode()
    assert re.match(r"HTTP/1\.1 30[178] ", head)
    assert re.search(rf"^Location: https://{re.escape(app.host())}(:\d+)?/path\?query\r?$", head, re.I | re.M)


def test_hop_by_hop_fields_stop_here(gateway, origin):
    server = origin(respond(b"", "200 OK", "Connection: X-Inner", "X-Inner: 1", "Keep-Alive: timeout=5",
                            "Proxy-Authenticate: Basic", "X-Outer: 1", "X-Gateway-Error: forged"))
    app = gateway.app(server)
    answer = gateway.fetch("GET", "/", app.host(), Connection="X-Secret, keep-alive", X_Secret="1", Keep_Alive="5",
                           TE="trailers, deflate", Proxy_Authorization="Basic eA==", Proxy_Connection="keep-alive",
                           X_Kept="1", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    for name in ("X-Inner", "Keep-Alive", "Proxy-Authenticate", "X-Gateway-Error"):
        assert answer.get(name) is None, name
    assert answer.get("X-Outer") == "1"
    (request,) = server.requests
    for name in ("X-Secret", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection"):
        assert request.get(name) is None, name
    assert request.get("X-Kept") == "1" and request.get("traceparent", "").startswith("00-")
    assert request.get("TE") in (None, "trailers")


def test_absolute_form(gateway, origin):
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET https://{app.host()}/path?q HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert connection.read_response().status == 200
    assert server.requests[0].target == "/path?q"


def test_options_asterisk(gateway, origin):
    server = origin()
    app = gateway.app(server)
    assert gateway.fetch("OPTIONS", "*", app.host()).status == 200
    assert server.requests[0].start == "OPTIONS * HTTP/1.1"


def test_health_name(gateway):
    for domain in ("gw.example", "other.example"):
        answer = gateway.fetch("GET", "/", f"health.{domain}")
        assert answer.status == 200 and answer.error is None

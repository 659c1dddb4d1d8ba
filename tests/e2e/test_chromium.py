"""A real browser: what a user of a tenant's page sees."""
import base64
import gzip
import hashlib
import os
import threading

import pytest

from chromium import CUSTOM_DOMAIN, Browser
from gateway import new_id
from origin import respond
from wire import Closed, wait_until

PAGE = b"<!doctype html><meta charset=utf-8><title>%s</title><p>%s</p>"
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@pytest.fixture(scope="module", params=["h2", "h1"])
def front(request):
    return request.param


@pytest.fixture(scope="module")
def browser(tmp_path_factory, gateway, front):
    opened = Browser(tmp_path_factory.mktemp("chromium"), gateway, *(["--disable-http2"] if front == "h1" else []))
    yield opened
    opened.close()


def page(title, text=b"", *fields):
    return respond(PAGE % (title, text), "200 OK", "Content-Type: text/html", *fields)


def only_page(text):
    """An app whose page says this, to pages of other apps too; the browser's own wish, /favicon.ico, is not found."""
    def answer(_, request):
        if request.target != "/":
            return respond(b"", "404 Not Found")
        return page(text, text, "Cache-Control: no-store", "Access-Control-Allow-Credentials: true",
                    f"Access-Control-Allow-Origin: {request.get('Origin', '*')}")
    return answer


def test_two_apps_answer_for_themselves(gateway, origin, browser, front):
    """Over h2 both names share one connection: each request goes where its own authority says. (Requests with
    credentials: the browser keeps others on connections of their own.)"""
    apps = {name: gateway.app(origin(only_page(name.encode()))) for name in ("one", "two")}
    browser.open(f"https://{apps['one'].host()}/")
    assert browser.evaluate("document.title") == "one"
    for _ in range(3):
        for name, app in apps.items():
            url = f"https://{app.host()}/"
            text = browser.evaluate(f"fetch('{url}', {{credentials: 'include'}}).then(answer => answer.text())")
            assert f"<p>{name}</p>" in text

    def lines():
        found = [line for line in gateway.log_lines() for app in apps.values()
                 if line.get("app_id") == app.id and line["path"] == "/"]
        return found if len(found) >= 7 else None
    found = wait_until(lines, "the lines of the access log")
    assert {line["status"] for line in found} == {200} and len({line["host"] for line in found}) == 2
    assert {line["protocol"] for line in found} == {"h2" if front == "h2" else "http/1.1"}
    if front == "h2":
        assert len({line["client_port"] for line in found}) == 1


def test_a_gateway_error_is_a_page(gateway, origin, browser):
    app = gateway.app(origin(only_page(b"one")), instances=[])
    browser.open(f"https://{app.host()}/")
    assert app.host() in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.contentType") == "text/html"


def test_a_custom_domain(gateway, origin, authority, browser):
    """With an uploaded certificate, beside the name of the cluster; each on a connection that may carry it."""
    name = f"{new_id()}.{CUSTOM_DOMAIN}"
    certificate, key = authority.issue(name, f"DNS:{name}")
    document = {"certificate": certificate.read_text(), "private_key": key.read_text()}
    assert gateway.control("PUT", f"/v1/certificates/{name}", document).status in (200, 201)
    server = origin(only_page(b"shop"))
    app = gateway.app(server, domains=[{"name": name, "port": server.port}])
    browser.open(f"https://{name}/")
    assert browser.evaluate("document.title") == "shop"
    url = f"https://{app.host()}/"
    assert "<p>shop</p>" in browser.evaluate(f"fetch('{url}', {{credentials: 'include'}}).then(answer => answer.text())")
    assert "<p>shop</p>" in browser.evaluate("fetch('/').then(answer => answer.text())")
    lines = [gateway.log_line(host=host, path="/") for host in (name, app.host())]
    assert [line["app_id"] for line in lines] == [app.id] * 2
    assert lines[0]["client_port"] != lines[1]["client_port"]


def test_a_gzip_page(gateway, origin, browser):
    text = "größer, aber gepackt. " * 5000
    body = gzip.compress(f"<!doctype html><meta charset=utf-8><p>{text}</p>".encode())
    app = gateway.app(origin(respond(body, "200 OK", "Content-Type: text/html", "Content-Encoding: gzip")))
    browser.open(f"https://{app.host()}/")
    assert browser.evaluate("document.querySelector('p').textContent") == text


def test_a_file_upload(gateway, origin, browser, tmp_path):
    """Of a form, as a user sends it; the app gets every byte."""
    data = os.urandom(3_000_000)
    (tmp_path / "picture.bin").write_bytes(data)
    form = b"<form method=post enctype=multipart/form-data action=/up><input type=file name=f></form>"

    def answer(_, request):
        if request.method == "GET":
            return page(b"form", form)
        return page(b"done", hashlib.sha256(request.body.split(b"\r\n\r\n", 1)[1][:len(data)]).hexdigest().encode())
    app = gateway.app(origin(answer))
    browser.open(f"https://{app.host()}/")
    browser.choose_file("input", tmp_path / "picture.bin")
    digest = browser.evaluate("fetch('/up', {method: 'POST', body: new FormData(document.forms[0])})"
                              ".then(answer => answer.text())")
    assert hashlib.sha256(data).hexdigest() in digest


def test_events_come_as_they_are_sent(gateway, origin, browser, front):
    """An EventSource page: the app sends the next event only when the page has told that it saw the last."""
    seen, ended = [], threading.Event()

    def answer(connection, request):
        if request.target.startswith("/seen/"):
            seen.append(request.target[6:])
            return respond()
        if request.target != "/events":
            return page(b"events")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
                        b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(10):
            connection.send_chunk(b"id: %d\ndata: event %d\n\n" % (number, number))
            wait_until(lambda count=number + 1: len(seen) == count, "the page to see the event")
        try:
            connection.read_rest()      # the page closes the stream; the app notices
        finally:
            ended.set()
        return False
    app = gateway.app(origin(answer))
    browser.open(f"https://{app.host()}/")
    got = browser.evaluate("""new Promise((done, fail) => {
        const source = new EventSource('/events'), got = [];
        source.onerror = () => fail(new Error('EventSource failed after ' + got.length));
        source.onmessage = event => {
            got.push(event.data);
            fetch('/seen/' + event.lastEventId);
            if (got.length == 10) { source.close(); done(got); }
        };
    })""")
    assert got == [f"event {number}" for number in range(10)]
    assert ended.wait(20)
    line = gateway.log_line(app_id=app.id, path="/events")
    assert line["protocol"] == ("h2" if front == "h2" else "http/1.1")


def test_a_cut_event_stream_is_taken_up_again(gateway, origin, browser):
    """A log viewer: the app's server ends the stream after each line; EventSource comes again and says where it was."""
    asked = []

    def answer(connection, request):
        if request.target != "/log":
            return page(b"log")
        last = int(request.get("Last-Event-ID", "-1"))
        asked.append(last)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_chunk(b": hello\nretry: 10\n\nid: %d\ndata: line %d\n\n" % (last + 1, last + 1))
        connection.send_chunk(b"")
        return None
    app = gateway.app(origin(answer))
    browser.open(f"https://{app.host()}/")
    got = browser.evaluate("""new Promise(done => {
        const source = new EventSource('/log'), got = [];
        source.onmessage = event => {
            got.push(event.data);
            if (got.length == 5) { source.close(); done(got); }
        };
    })""")
    assert got == [f"line {number}" for number in range(5)] and asked == [-1, 0, 1, 2, 3]


def accept_websocket(connection, request):
    digest = hashlib.sha1(request.get("Sec-WebSocket-Key").encode() + WEBSOCKET_GUID).digest()
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n")


def read_frame(connection):
    """(opcode, payload) of a client's frame that is not fragmented."""
    first, second = connection.read(2)
    size = second & 127
    if size >= 126:
        size = int.from_bytes(connection.read(2 if size == 126 else 8), "big")
    mask = connection.read(4)
    payload = connection.read(size)
    repeated = mask * (size // 4 + 1)
    return first & 15, (int.from_bytes(payload, "big") ^ int.from_bytes(repeated[:size], "big")).to_bytes(size, "big")


def frame(opcode, payload):
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 \
        else b"\x7f" + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


def test_a_websocket_page(gateway, origin, browser, front):
    """Over an h2 connection Chromium opens it as a stream (RFC 8441); the app sees an ordinary upgrade."""
    def answer(connection, request):
        if request.target != "/socket":
            return page(b"socket")
        accept_websocket(connection, request)
        try:
            while True:
                opcode, payload = read_frame(connection)
                connection.send(frame(opcode, payload))
                if opcode == 8:
                    return False
        except Closed:
            return False
    app = gateway.app(origin(answer))
    browser.open(f"https://{app.host()}/")
    got = browser.evaluate("""new Promise((done, fail) => {
        const socket = new WebSocket('wss://' + location.host + '/socket'), got = [];
        const sent = ['one', 'größer', 'x'.repeat(100000), ''];
        socket.onopen = () => socket.send(sent[0]);
        socket.onerror = () => fail(new Error('WebSocket failed'));
        socket.onclose = event => done([event.code, event.reason, event.wasClean, got.map(text => text.length)]);
        socket.onmessage = event => {
            got.push(event.data);
            if (event.data != sent[got.length - 1]) fail(new Error('not what was sent'));
            if (got.length < sent.length) socket.send(sent[got.length]); else socket.close(4001, 'enough');
        };
    })""")
    assert got == [4001, "enough", True, [3, 6, 100000, 0]]
    line = gateway.log_line(app_id=app.id, path="/socket")
    assert line["protocol"] == "websocket" and line["status"] == 101
    assert line["alpn"] == ("h2" if front == "h2" else "http/1.1")


def test_a_websocket_that_fails(gateway, origin, browser):
    """The app's server is gone: the page is told, and the log has the reason."""
    server = origin(page(b"socket"))
    app = gateway.app(server)
    browser.open(f"https://{app.host()}/")
    server.close()
    code = browser.evaluate("""new Promise(done => {
        new WebSocket('wss://' + location.host + '/socket').onclose = event => done(event.code);
    })""")
    assert code == 1006
    line = gateway.log_line(app_id=app.id, path="/socket")
    assert line["status"] == 502 and line["error"] == "connect_refused"

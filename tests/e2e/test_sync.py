"""Following the routes of another gateway: sync.source."""
import fnmatch
import http.server
import json
import re
import signal
import subprocess
import threading
import time

import pytest

from gateway import ENVIRONMENT, ROOT, App, free_port, new_id
from origin import Origin, new_address
from relay import Relay
from wire import wait_until

DEADLINE = 60
TOKEN = "correct-horse-battery-staple"


# ---- sources and followers ----

def sync_status(gateway):
    return gateway.control("GET", "/v1/status").json["sync"]


def table(gateway):
    """All apps, with their revisions."""
    return [json.loads(line) for line in gateway.control("GET", "/v1/snapshot").body.splitlines()]


def revision(gateway):
    return gateway.control("GET", "/v1/status").json["revision"]


def is_in_step(follower, source):
    status = sync_status(follower)
    return status["state"] == "following" and status["revision"] == revision(source)


def wait_in_step(follower, source):
    wait_until(lambda: is_in_step(follower, source), f"the follower to be in step: {sync_status(follower)}", DEADLINE)
    assert table(follower) == table(source)


def wait_for_error(follower, text):
    wait_until(lambda: text in sync_status(follower)["error"], f"the error {text!r}", DEADLINE)
    return sync_status(follower)


def document(address=None, **members):
    return {"app_id": new_id(), "instances": [
        {"instance_id": new_id(), "address": address or new_address(), "generation": 1, "state": "running"}], **members}


@pytest.fixture
def follow(make_gateway):
    """follow(source, section=value, …): a gateway that follows another one, or a URL."""
    def make(source, sync=None, start=True, **sections):
        url = source if isinstance(source, str) else f"unix:{source.control_path}"
        follower = make_gateway(start=False, sync={"source": url, **(sync or {})}, **sections)
        return follower.start() if start else follower
    return make


@pytest.fixture
def relay():
    made = []

    def make(gateway):
        made.append(Relay(gateway.control_path))
        return made[-1]
    yield make
    for one in made:
        one.close()


def start_not_ready(gateway):
    """For a follower that has never read its source."""
    gateway.write_config()
    with open(gateway.stderr_path, "ab") as stderr:
        gateway.process = subprocess.Popen(gateway.command(), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                                           env={**gateway_environment(), **ENVIRONMENT})
    wait_until(gateway.control_path.exists, "the control socket", DEADLINE)
    wait_until(lambda: answers(gateway), "the control API", DEADLINE)


def gateway_environment():
    import os
    return dict(os.environ)


def answers(gateway):
    try:
        return gateway.control("GET", "/healthz").status == 200
    except OSError:
        return False


class Traffic(threading.Thread):
    """Requests through a gateway, one after the other, until it is stopped; every one must be answered."""

    def __init__(self, gateway, app):
        super().__init__(daemon=True)
        self.gateway, self.host = gateway, App(gateway, app.document).host()
        self.count, self.failures, self.ended = 0, [], False

    def run(self):
        while not self.ended:
            try:
                answer = self.gateway.fetch("GET", "/", self.host)
                if answer.status != 200:
                    self.failures.append(answer.status)
            except Exception as error:      # pylint: disable=broad-except
                self.failures.append(error)
            self.count += 1
            time.sleep(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        self.join(DEADLINE)
        assert self.failures == [] and self.count > 0, self.failures[:5]


# ---- following ----

def test_two_followers_and_a_chain(make_gateway, follow, origin):
    source = make_gateway()
    app = source.app(origin())
    for _ in range(20):
        source.put_app(document())
    first, second = follow(source), follow(source)
    third = follow(second)
    followers = (first, second, third)
    for follower in followers:
        wait_in_step(follower, source)
    with Traffic(first, app), Traffic(third, app):
        for number in range(30):
            other = document()
            assert source.put_app(other).status == 201
            if number % 3 == 0:
                assert source.control("DELETE", f"/v1/apps/{other['app_id']}").status == 204
        patch = f"/v1/apps/{other['app_id']}/instances/{other['instances'][0]['instance_id']}"
        assert source.control("PATCH", patch, {"state": "stopped"}).status == 200
        for follower in followers:
            wait_in_step(follower, source)
    assert first.metric("sync_resyncs_total") == second.metric("sync_resyncs_total") == 1
    assert first.metric("sync_connected") == 1
    assert first.metric("sync_word_age_seconds") < 30
    assert first.metric("sync_revision") == revision(source)
    assert first.metric("sync_digest_differs") == 0
    ready = first.control("GET", "/readyz?verbose").body.decode()
    assert f"sync: following unix:{source.control_path} at revision {revision(source)}" in ready
    told = first.gatewayctl("status").stdout
    assert "sync.state" in told and "following" in told
    assert b"<th>Sync" in first.control("GET", "/").body


def test_moved_addresses_arrive(make_gateway, follow):
    """Two apps change places, in one transaction and one after the other."""
    source = make_gateway()
    one, two = document(), document()
    for app in (one, two):
        source.put_app(app)
    follower = follow(source)
    wait_in_step(follower, source)
    for generation in range(2, 6):
        here, there = one["instances"][0], two["instances"][0]
        here["address"], there["address"] = there["address"], here["address"]
        here["generation"] = there["generation"] = generation
        lines = [{"op": "put", "app": {**one, "instances": []}}, {"op": "put", "app": two}, {"op": "put", "app": one}]
        assert source.control("POST", "/v1/changes", "".join(map(lambda line: json.dumps(line) + "\n", lines)),
                              Content_Type="application/x-ndjson").status == 200
    wait_in_step(follower, source)
    assert follower.metric("sync_refused_records") == 0


def test_pushes_are_refused_and_name_the_source(make_gateway, follow):
    source = make_gateway()
    source.put_app(document())
    follower = follow(source)
    wait_in_step(follower, source)
    app = document()
    calls = [("PUT", f"/v1/apps/{app['app_id']}", app), ("DELETE", f"/v1/apps/{table(source)[0]['app_id']}", None),
             ("POST", "/v1/changes", json.dumps({"op": "put", "app": app})), ("PUT", "/v1/snapshot", json.dumps(app))]
    for method, path, body in calls:
        answer = follower.control(method, path, body)
        assert answer.status == 409 and answer.code == "routes_follow", answer
        assert str(source.control_path) in answer.json["detail"]
    assert table(follower) == table(source)


def test_source_killed_is_resumed_without_a_snapshot(make_gateway, follow, origin):
    source = make_gateway()
    app = source.app(origin())
    follower = follow(source)
    wait_in_step(follower, source)
    with Traffic(follower, app):
        for _ in range(3):
            source.kill()
            wait_until(lambda: sync_status(follower)["state"] == "waiting", "the loss to be seen", DEADLINE)
            before = table(follower)
            assert follower.control("GET", "/readyz").status == 200
            verbose = follower.control("GET", "/readyz?verbose").body.decode()
            assert "sync: waiting" in verbose and "next try" in verbose
            assert follower.metric("sync_connected") == 0
            source.start()
            source.put_app(document())
            source.control("DELETE", f"/v1/apps/{source.app().id}")
            assert [line for line in table(follower) if line in before] == before
            wait_in_step(follower, source)
    assert follower.metric("sync_resyncs_total") == 1
    assert follower.metric("sync_failures_total") >= 3


def test_follower_restarts_and_goes_on_from_its_store(make_gateway, follow, origin):
    source = make_gateway()
    app = source.app(origin())
    follower = follow(source)
    wait_in_step(follower, source)
    follower.kill()
    source.put_app(document())
    follower.start()
    wait_in_step(follower, source)
    assert follower.metric("sync_resyncs_total") == 0
    source.stop()
    follower.kill()
    follower.start()        # without its source: what it has is served at once
    assert follower.fetch("GET", "/", App(follower, app.document).host()).status == 200
    wait_for_error(follower, "")
    source.start()
    wait_in_step(follower, source)


def test_what_comes_after_the_greatest_revision_is_followed(make_gateway, follow):
    source = make_gateway()
    apps = [document() for _ in range(2)]
    greatest, text = 2**61, json.dumps(apps[0])
    assert source.control("PUT", f"/v1/snapshot?revision={greatest + 1}", text).status == 400
    assert source.control("PUT", f"/v1/snapshot?revision={greatest}", text).status == 200
    follower = follow(source)
    wait_in_step(follower, source)
    assert source.put_app(apps[1]).json["revision"] == greatest + 1
    wait_in_step(follower, source)


def test_source_with_another_state_is_mirrored(make_gateway, follow, origin):
    """Its disk was lost, and what was pushed again is the same app and others, at fewer or more revisions."""
    source = make_gateway()
    app = source.app(origin())
    for _ in range(5):
        source.put_app(document())
    follower = follow(source)
    wait_in_step(follower, source)
    with Traffic(follower, app):
        for round_number, count in enumerate((2, 20), 2):
            source.stop()
            for path in (source.folder / "state").iterdir():
                path.unlink()
            source.config["listeners"] = source.config["listeners"]
            lines = [json.dumps(line) for line in (app.document, *(document() for _ in range(count)))]
            # Nobody may see it empty: that would be refused, which another test shows.
            source.start()
            for line in lines:
                source.put_app(json.loads(line))
            wait_in_step(follower, source)
            assert follower.metric("sync_resyncs_total") == round_number
    assert "does not know the changes" in follower.stderr() or "differ from those" in follower.stderr()


def test_empty_source_is_taken_for_a_mistake(make_gateway, follow, origin):
    source = make_gateway()
    app = source.app(origin())
    follower = follow(source)
    wait_in_step(follower, source)
    with Traffic(follower, app):
        source.stop()
        for path in (source.folder / "state").iterdir():
            path.unlink()
        source.start()
        wait_for_error(follower, "taken for a mistake")
        assert len(table(follower)) == 1
        source.put_app(app.document)
        wait_in_step(follower, source)


def test_first_snapshot_may_be_empty(make_gateway, follow):
    source = make_gateway()
    follower = follow(source)
    wait_in_step(follower, source)
    source.put_app(document())
    wait_in_step(follower, source)
    for app in table(source):
        source.control("DELETE", f"/v1/apps/{app['app_id']}")
    wait_in_step(follower, source)
    assert table(follower) == []


# ---- records that are refused here ----

def test_bad_record_is_left_out_alone(make_gateway, follow, origin):
    source = make_gateway(upstream={"allow": ["127.0.0.0/8", "10.0.0.0/8"]})
    app = source.app(origin())
    bad, moved = document("10.1.2.3"), document("10.1.2.4")
    for one in (bad, moved):
        source.put_app(one)
    follower = follow(source)
    wait_until(lambda: is_in_step(follower, source), "the follower", DEADLINE)

    def expected():
        return [one for one in table(source) if not one["instances"][0]["address"].startswith("10.")]
    assert table(follower) == expected()
    assert follower.metric("sync_refused_records") == 2
    assert follower.stderr().count(f"app {bad['app_id']} ") == 1
    with Traffic(follower, app):
        moved["instances"][0].update(address=new_address(), generation=2)
        late = document()
        for one in (moved, late):
            source.put_app(one)
        wait_until(lambda: is_in_step(follower, source), "the follower", DEADLINE)
        assert table(follower) == expected() and follower.metric("sync_refused_records") == 1
        late["instances"][0].update(address="10.1.2.5", generation=2)
        source.put_app(late)
        wait_until(lambda: is_in_step(follower, source), "the follower", DEADLINE)
        assert table(follower) == expected() and follower.metric("sync_refused_records") == 2
        source.control("DELETE", f"/v1/apps/{late['app_id']}")
        wait_until(lambda: is_in_step(follower, source), "the follower", DEADLINE)
        assert table(follower) == expected() and follower.metric("sync_refused_records") == 1
    assert follower.metric("sync_resyncs_total") == 1
    assert follower.metric("sync_digest_differs") == 0
    follower.config["upstream"]["allow"].append("10.0.0.0/8")
    follower.write_config()
    assert follower.control("POST", "/v1/reload").status == 200
    wait_in_step(follower, source)
    assert follower.metric("sync_refused_records") == 0


# ---- connections that break, stall and crawl ----

def test_interrupted_snapshot_changes_nothing(make_gateway, follow, relay, origin):
    source = make_gateway()
    app = source.app(origin())
    way = relay(source)
    follower = follow(way.url)
    wait_in_step(follower, source)
    lines = [app.document, *(document() for _ in range(2000))]
    way.away = True
    way.cut()
    source.stop()
    for path in (source.folder / "state").iterdir():
        path.unlink()
    source.start()
    before = table(follower)
    assert source.control("PUT", "/v1/snapshot", "".join(json.dumps(line) + "\n" for line in lines),
                          Content_Type="application/x-ndjson").status == 200
    with Traffic(follower, app):
        way.limit, way.away = 100000, False
        accepted = way.accepted
        wait_until(lambda: way.accepted >= accepted + 4 and sync_status(follower)["failures"] >= 3,
                   "some tries", DEADLINE)
        assert table(follower) == before
        way.limit = None
        wait_in_step(follower, source)


def test_silent_source_is_left(make_gateway, follow, relay, origin):
    source = make_gateway()
    app = source.app(origin())
    way = relay(source)
    follower = follow(way.url, {"idle_timeout": "11s", "connect_timeout": "1s"})
    wait_in_step(follower, source)
    with Traffic(follower, app):
        way.stalled = True
        wait_for_error(follower, "no byte came for 11000 ms")
        assert follower.metric("sync_word_age_seconds") >= 10
        way.stalled = False
        source.put_app(document())
        wait_in_step(follower, source)
    assert follower.metric("sync_resyncs_total") == 1


def test_slow_source_is_waited_for(make_gateway, follow, relay):
    source = make_gateway()
    lines = [document() for _ in range(300)]
    assert source.control("PUT", "/v1/snapshot", "".join(json.dumps(line) + "\n" for line in lines),
                          Content_Type="application/x-ndjson").status == 200
    way = relay(source)
    way.rate = 20000
    follower = follow(way.url, start=False)
    start_not_ready(follower)
    assert follower.control("GET", "/readyz").status == 503
    assert table(follower) == []
    wait_until(lambda: follower.control("GET", "/readyz").status == 200, "readiness", DEADLINE)
    wait_in_step(follower, source)
    assert follower.metric("sync_failures_total") == 0


def test_many_changes_at_once_arrive(make_gateway, follow):
    source = make_gateway()
    follower = follow(source)
    for _ in range(3):
        lines = [{"op": "put", "app": document()} for _ in range(2000)]
        assert source.control("POST", "/v1/changes", "".join(json.dumps(line) + "\n" for line in lines),
                              Content_Type="application/x-ndjson").status == 200
    wait_in_step(follower, source)


def test_followers_of_each_other_do_no_harm(make_gateway, follow, origin):
    one = make_gateway()
    app = one.app(origin())
    other = follow(one)
    wait_in_step(other, one)
    one.config["sync"] = {"source": f"unix:{other.control_path}"}
    one.write_config()
    assert one.control("POST", "/v1/reload").status == 200
    with Traffic(other, app), Traffic(one, app):
        wait_in_step(one, other)
        wait_in_step(other, one)
    del one.config["sync"]
    one.write_config()
    assert one.control("POST", "/v1/reload").status == 200
    assert "sync" not in one.control("GET", "/v1/status").json
    one.put_app(document())
    wait_in_step(other, one)


def test_following_oneself_does_no_harm(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    gateway.config["sync"] = {"source": f"unix:{gateway.control_path}"}
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200
    with Traffic(gateway, app):
        wait_in_step(gateway, gateway)


# ---- who may read ----

@pytest.fixture(scope="module")
def secured(tmp_path_factory, authority):
    """A source with one control listener for client certificates and one for a token."""
    from gateway import Gateway
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = authority.issue("sync-source", "IP:127.0.0.1")
    authority.issue("sync-follower", "DNS:follower", usage="clientAuth")
    (folder / "token").write_text(TOKEN + "\n")
    source = Gateway(folder, authority)
    source.mtls_port, source.token_port = free_port(), free_port()
    tls = {"certificate": str(certificate), "private_key": str(key)}
    source.config["control"] += [
        {"address": f"127.0.0.1:{source.mtls_port}", "client_ca": str(authority.ca), **tls},
        {"address": f"127.0.0.1:{source.token_port}", "token_file": str(folder / "token"), **tls}]
    source.start()
    source.put_app(document())
    yield source
    source.stop()


def test_token(secured, follow, authority, tmp_path):
    token = tmp_path / "token"
    token.write_text("wrong-horse-battery-staple\n")
    sync = {"token_file": str(token), "ca": str(authority.ca)}
    follower = follow(f"https://127.0.0.1:{secured.token_port}", sync, start=False)
    start_not_ready(follower)
    status = wait_for_error(follower, "it does not take our token (401); see sync.token_file")
    assert not status["connected"] and status["word_age_seconds"] > 0
    assert "does not take our token" in follower.stderr()
    token.write_text(TOKEN + "\n")      # read again for each try
    wait_in_step(follower, secured)


def test_client_certificate(secured, follow, authority):
    sync = {"ca": str(authority.ca)}
    follower = follow(f"https://127.0.0.1:{secured.mtls_port}", sync, start=False)
    start_not_ready(follower)
    wait_for_error(follower, "certificate required")
    follower.config["sync"].update(certificate=str(authority.folder / "sync-follower.pem"),
                                   private_key=str(authority.folder / "sync-follower.key"))
    follower.write_config()
    assert follower.control("POST", "/v1/reload").status == 200
    wait_in_step(follower, secured)


def test_source_of_another_ca_is_not_believed(secured, follow, authority):
    other, _ = authority.issue("not-a-ca", "DNS:other")
    follower = follow(f"https://127.0.0.1:{secured.token_port}", {"ca": str(other)}, start=False)
    start_not_ready(follower)
    wait_for_error(follower, "certificate")
    assert table(follower) == []


# ---- other servers than a control API ----

@pytest.fixture
def web_server():
    """web_server(answer): answer(handler) is called for each GET."""
    made = []

    def make(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):       # pylint: disable=invalid-name
                server.paths.append(self.path)
                answer(self)

            def log_message(self, *_):      # pylint: disable=arguments-differ
                pass
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.paths = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made.append(server)
        return server
    yield make
    for server in made:
        server.shutdown()
        server.server_close()


def respond(handler, status, body=b"", **fields):
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **fields}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def undelimited(handler):
    handler.protocol_version = "HTTP/1.0"
    handler.send_response(200)
    handler.send_header("ETag", '"1"')
    handler.end_headers()
    handler.close_connection = True


@pytest.mark.parametrize("answer, error", [
    (lambda handler: respond(handler, 302, Location="/elsewhere"), "redirects (302), which is not followed"),
    (lambda handler: respond(handler, 404), "is sync.source a control API?"),
    (lambda handler: respond(handler, 503), "it answered with status 503"),
    (lambda handler: respond(handler, 200, b"<html>"), "no ETag with a revision"),
    (lambda handler: respond(handler, 401), "it wants a token (401)"),
    (undelimited, "it may break off unseen"),
    (lambda handler: respond(handler, 200, b"<html>\n", ETag='"7"'), "taken for a mistake"),
])
def test_other_servers(web_server, follow, make_gateway, origin, answer, error):
    source = make_gateway()
    app = source.app(origin())
    server = web_server(answer)
    follower = follow(source)
    wait_in_step(follower, source)
    with Traffic(follower, app):
        follower.config["sync"]["source"] = server.url
        follower.write_config()
        assert follower.control("POST", "/v1/reload").status == 200
        wait_for_error(follower, error)
        assert len(table(follower)) == 1
    assert set(server.paths) == {"/v1/snapshot"}
    assert f"sync: {server.url}: " in follower.stderr() and "the routes stay" in follower.stderr()


def test_digest_that_never_fits_is_no_endless_loop(web_server, follow):
    """A source whose digest is nonsense: its snapshot is loaded once more, then it is followed as it is."""
    app = {**document(), "revision": 3}

    def answer(handler):
        if handler.path == "/v1/snapshot":
            respond(handler, 200, json.dumps(app).encode() + b"\n", ETag='"3"')
            return
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for number in range(3, 100):
            lines = b""
            if number > 3:
                put = {"revision": number, "op": "put", "app": {**document(), "revision": number}}
                lines = json.dumps(put).encode() + b"\n"
            beat = {"revision": number, "op": "heartbeat", "apps": number - 2, "digest": "0" * 16}
            lines += json.dumps(beat).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(lines), lines))
            handler.wfile.flush()
            time.sleep(0.2)

    server = web_server(answer)
    follower = follow(server.url)
    wait_until(lambda: follower.metric("sync_digest_differs") == 1, "the difference to be seen", DEADLINE)
    wait_until(lambda: len(table(follower)) >= 5, "more changes", DEADLINE)
    assert server.paths.count("/v1/snapshot") <= 3
    assert "differ; goes on" in follower.stderr()


class Script:
    """A source whose answers are written down: lines of its snapshot, then lines of each watch."""

    def __init__(self, snapshot, *watches, tag=1, newline=True):
        self.snapshot, self.watches, self.tag = snapshot, list(watches), tag
        self.newline = newline      # at the end of the last line of an answer
        self.ended = False

    def text(self, lines):
        text = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        return text + b"\n" if lines and self.newline else text

    def __call__(self, handler):
        if handler.path == "/v1/snapshot":
            respond(handler, 200, self.text(self.snapshot), ETag=f'"{self.tag}"')
            return
        lines = self.watches.pop(0) if self.watches else []
        if lines == 410:
            respond(handler, 410)
            return
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        if lines:
            text = self.text(lines)
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        while not self.ended:       # until the test is over
            time.sleep(0.05)
        handler.wfile.write(b"0\r\n\r\n")


def beat(number, digest="0" * 16, apps=1):
    return {"revision": number, "op": "heartbeat", "apps": apps, "digest": digest}


@pytest.mark.parametrize("lines, error", [
    ([{"op": "end", "code": "shutdown", "detail": "the gateway stops"}], "it ended the stream: shutdown: the gateway"),
    ([{"revision": 1, "op": "heartbeat", "apps": 1, "digest": "x"}], "its heartbeat can't be read: digest"),
])
def test_streams_that_end(web_server, follow, lines, error):
    app = {**document(), "revision": 1}
    script = Script([app], lines)
    follower = follow(web_server(script).url)
    wait_until(lambda: error in follower.stderr(), "the end to be said", DEADLINE)
    wait_until(lambda: sync_status(follower)["connected"], "another try", DEADLINE)
    assert [one["app_id"] for one in table(follower)] == [app["app_id"]]
    script.ended = True


def test_bad_lines_are_left_out_alone(web_server, follow):
    """Also those that name no app, and a whole state may come in pieces."""
    first, second, third = ({**document(), "revision": number} for number in (1, 2, 3))
    snapshot = [b"{", first, {"app_id": "a b"}, b"[]", {**document(), "revision": 1, "ports": [{"port": 0}]}]
    watch = [b"nonsense", {"revision": 2, "op": "put", "app": second}, {"op": "sing"}, beat(2),
             {"revision": 3, "op": "put", "app": {**third, "colour": "red"}}, {"revision": 3, "op": "delete"},
             {"revision": 3, "op": "delete", "app_id": second["app_id"]},
             b'"' + b"x" * (2 << 20) + b'"', {"revision": 3, "op": "put", "app": third}, beat(3)]
    script = Script(snapshot, watch)
    follower = follow(web_server(script).url)
    wait_until(lambda: sync_status(follower)["revision"] == 3, "all of it", DEADLINE)
    assert {one["app_id"] for one in table(follower)} == {first["app_id"], third["app_id"]}
    assert "ports[0].port" in follower.stderr()
    assert follower.metric("sync_resyncs_total") == 1
    assert follower.metric("sync_refused_records") >= 4
    script.ended = True


def test_longest_documents_arrive_on_every_way(web_server, follow):
    texts = []
    for number in (1, 2):
        text = json.dumps({**document(), "revision": number}).encode()
        texts.append(text[:-1] + b" " * ((1 << 20) - len(text)) + text[-1:])
    script = Script([texts[0]], [b'{"revision": 2, "op": "put", "app": ' + texts[1] + b"}", beat(2, apps=2)])
    follower = follow(web_server(script).url)
    wait_until(lambda: sync_status(follower)["state"] == "following", "it to be in step", DEADLINE)
    assert [app["revision"] for app in sorted(table(follower), key=lambda app: app["revision"])] == [1, 2]
    script.ended = True


def test_snapshot_without_a_last_newline(web_server, follow):
    apps = [{**document(), "revision": number} for number in (1, 2, 3)]
    script = Script(apps, [beat(3, apps=3), beat(3, apps=3)], tag=3, newline=False)
    follower = follow(web_server(script).url)
    wait_until(lambda: sync_status(follower)["state"] == "following", "it to be in step", DEADLINE)
    assert {one["app_id"] for one in table(follower)} == {app["app_id"] for app in apps}
    assert follower.metric("sync_refused_records") == 0
    script.ended = True


@pytest.mark.parametrize("line", [
    {"op": "end", "code": "shutdown", "detail": "the gateway stops"}, {"op": "end", "code": "revision_gone"}, beat(1)])
def test_line_of_a_watch_at_the_end_of_a_snapshot(web_server, follow, line):
    """It is a record like the others there, and a bad one."""
    app = {**document(), "revision": 1}
    script = Script([app, line], tag=1, newline=False)
    follower = follow(web_server(script).url)
    wait_until(lambda: sync_status(follower)["state"] == "catching_up", "the snapshot to be loaded", DEADLINE)
    assert [one["app_id"] for one in table(follower)] == [app["app_id"]]
    assert follower.metric("sync_refused_records") == 1
    script.ended = True


def test_watch_that_ends_without_a_last_newline(web_server, follow):
    app, other = {**document(), "revision": 1}, {**document(), "revision": 2}
    put = {"revision": 2, "op": "put", "app": other}
    script = Script([app], [put, beat(2, apps=2)], newline=False)
    script.ended = True         # each watch ends at once
    follower = follow(web_server(script).url)
    wait_until(lambda: len(table(follower)) == 2, "the change before the end", DEADLINE)
    wait_for_error(follower, "it ended the stream of changes")
    assert sync_status(follower)["revision"] == 2


def test_watch_that_breaks_off_unseen(web_server, follow):
    """Without a length or chunks the end of the connection is the end of the answer: half a line says nothing."""
    app = {**document(), "revision": 1}

    def answer(handler):
        if handler.path == "/v1/snapshot":
            respond(handler, 200, json.dumps(app).encode() + b"\n", ETag='"1"')
            return
        undelimited(handler)
        handler.wfile.write(json.dumps(beat(1)).encode() + b'\n{"revision": 2, "op": "put", "app": {')
    follower = follow(web_server(answer).url)
    wait_for_error(follower, "it ended the stream of changes")
    assert follower.metric("sync_refused_records") == 0
    assert "left out:" not in follower.stderr()


def test_revisions_without_measure(web_server, follow):
    """What the gateway's own next change would be must remain a number that can be stored."""
    first, second = ({**document(), "revision": number} for number in (1, 2**63 - 1))
    put = {"revision": 2**63 - 1, "op": "put", "app": {**document(), "revision": 1}}
    script = Script([first, second], [beat(2**63 - 1)], [put, beat(1)], tag=1)
    follower = follow(web_server(script).url)
    wait_until(lambda: sync_status(follower)["state"] == "following", "it to be in step", DEADLINE)
    assert f"its heartbeat can't be read: revision: {2**63 - 1} is out of range; use 0 to {2**62}" in follower.stderr()
    assert f"app {second['app_id']} at revision {2**63 - 1} is left out: revision: " in follower.stderr()
    assert sync_status(follower)["revision"] == 1 and len(table(follower)) == 1
    script.ended = True
    del follower.config["sync"]
    follower.write_config()
    assert follower.control("POST", "/v1/reload").status == 200
    own = document()
    assert follower.put_app(own).status == 201
    follower.kill()
    follower.start()
    assert {app["app_id"] for app in table(follower)} == {first["app_id"], own["app_id"]}


def test_revision_that_is_gone_and_one_that_goes_back(web_server, follow):
    app = {**document(), "revision": 1}
    gone = [{"op": "end", "code": "revision_gone", "detail": "too far behind"}]
    script = Script([app], 410, gone, [{"revision": 0, "op": "heartbeat", "apps": 1, "digest": "0" * 16}], [beat(1)])
    server = web_server(script)
    follower = follow(server.url)
    wait_until(lambda: sync_status(follower)["state"] == "following", "it to settle", DEADLINE)
    assert server.paths.count("/v1/snapshot") == 4
    assert follower.metric("sync_resyncs_total") == 4
    script.ended = True


def test_the_source_is_followed_until_the_restart_that_etcd_needs(make_gateway, follow):
    source = make_gateway()
    source.put_app(document())
    follower = follow(source)
    wait_in_step(follower, source)
    sync = follower.config["sync"]
    follower.config["sync"] = {"etcd": {"endpoints": ["http://127.0.0.1:1"]}}
    follower.write_config()
    assert follower.control("POST", "/v1/reload").json["needs_restart"] == ["sync.etcd"]
    assert follower.put_app(document()).code == "routes_follow"
    source.put_app(document())
    wait_in_step(follower, source)
    del follower.config["sync"]
    follower.write_config()
    assert follower.control("POST", "/v1/reload").json["needs_restart"] == []
    assert follower.put_app(document()).status == 201
    follower.config["sync"] = sync
    follower.write_config()
    assert follower.control("POST", "/v1/reload").json["needs_restart"] == []
    wait_in_step(follower, source)


def test_not_ready_before_the_source_was_read(web_server, follow, make_gateway):
    source = make_gateway()
    source.put_app(document())
    server = web_server(lambda handler: respond(handler, 503))
    follower = follow(server.url, start=False)
    start_not_ready(follower)
    wait_for_error(follower, "status 503")
    assert follower.control("GET", "/readyz").status == 503
    answer = follower.fetch("GET", "/", "health.gw.example")
    assert (answer.status, answer.body) == (503, b"no routes yet\n")
    follower.config["sync"]["source"] = f"unix:{source.control_path}"
    follower.write_config()
    assert follower.control("POST", "/v1/reload").status == 200
    wait_in_step(follower, source)
    assert follower.control("GET", "/readyz").status == 200
    assert follower.fetch("GET", "/", "health.gw.example").status == 200
    follower.config["sync"]["source"] = server.url
    follower.write_config()
    assert follower.control("POST", "/v1/reload").status == 200
    wait_for_error(follower, "status 503")
    assert follower.control("GET", "/readyz").status == 200     # it has routes


def test_resync_without_a_difference_disturbs_no_follower_of_ours(make_gateway, follow):
    """As after each restart of a gateway that leaves records out."""
    source = make_gateway(upstream={"allow": ["127.0.0.0/8", "10.0.0.0/8"]})
    for address in (new_address(), "10.1.2.3"):
        source.put_app(document(address))
    middle = follow(source)
    wait_until(lambda: is_in_step(middle, source), "the middle one", DEADLINE)
    last = follow(middle)
    wait_in_step(last, middle)
    middle.kill()
    middle.start()
    wait_until(lambda: is_in_step(middle, source), "the middle one again", DEADLINE)
    assert middle.metric("sync_resyncs_total") == 1
    wait_in_step(last, middle)
    source.put_app(document())
    wait_until(lambda: is_in_step(middle, source), "the middle one", DEADLINE)
    wait_in_step(last, middle)
    assert last.metric("sync_resyncs_total") == 1


def check_is_refused(gateway, *words):
    """By --check, and by a start."""
    status, output = gateway.check()
    assert status == 1 and all(word in output for word in words), output
    result = subprocess.run(gateway.command(), capture_output=True, text=True, timeout=60, check=False,
                            stdin=subprocess.DEVNULL, env={**gateway_environment(), **ENVIRONMENT})
    assert result.returncode == 1 and all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize("changes, complaint", [
    ({"token_file": "nowhere"}, "nowhere: No such file"),
    ({"ca": "nowhere"}, "nowhere: No such file"),
    ({"ca": "gateway.yaml"}, "gateway.yaml: no certificate found"),
    ({"certificate": "nowhere", "private_key": "nowhere"}, "nowhere"),
])
def test_files_are_checked(make_gateway, changes, complaint):
    check_is_refused(make_gateway(start=False, sync={"source": "https://127.0.0.1:1", **changes}), "sync: ", complaint)


@pytest.mark.parametrize("changes, where, complaint", [
    ({"tls": {"ca": "nowhere"}}, "sync.etcd.tls: ", "nowhere: No such file"),
    ({"tls": {"ca": "gateway.yaml"}}, "sync.etcd.tls: ", "gateway.yaml: no certificate found"),
    ({"tls": {"certificate": "nowhere", "private_key": "gateway.yaml"}}, "sync.etcd.tls: ", "nowhere: No such file"),
    ({"tls": {"certificate": "GOOD", "private_key": "nowhere"}}, "sync.etcd.tls: ", "nowhere: No such file"),
    ({"user": "gateway", "password_file": "nowhere"}, "sync.etcd.password_file: ", "nowhere: No such file"),
])
def test_files_of_etcd_are_checked(make_gateway, authority, changes, where, complaint):
    good = str(authority.issue("etcd-client", "DNS:gateway", usage="clientAuth")[0])
    changes = json.loads(json.dumps(changes).replace("GOOD", good))
    etcd = {"endpoints": ["https://127.0.0.1:1"], **changes}
    check_is_refused(make_gateway(start=False, sync={"etcd": etcd}), where, complaint)


def metric_names(gateway):
    text = gateway.control("GET", "/metrics").body.decode()
    return {re.split("[ {]", line)[0] for line in text.splitlines() if not line.startswith("#")}


def test_metrics_have_the_names_that_the_readme_gives(make_gateway, follow):
    """Those of sync.source and of etcd are there only with such a section."""
    follower = follow("http://127.0.0.1:1", start=False)
    member = make_gateway(start=False, sync={"etcd": {"endpoints": ["http://127.0.0.1:1"]}})
    start_not_ready(follower)
    start_not_ready(member)
    metrics = metric_names(follower) | metric_names(member)
    told = set(re.findall(r"`([a-z][a-z0-9_]*\*?)`", (ROOT / "README.md").read_text()))
    prefixed = {name for name in told if name.startswith("phala_gateway_")}
    assert {"phala_gateway_sync_*", "phala_gateway_etcd_*"} <= prefixed
    for name in prefixed:
        assert fnmatch.filter(metrics, name), name
    for name in told - prefixed:
        assert "_" not in name or not fnmatch.filter(metrics, f"phala_gateway_{name}"), name

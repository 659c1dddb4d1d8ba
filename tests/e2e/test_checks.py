"""Active checks of ports: which instances get requests, and what a check looks like to an app."""
import pytest

import proxy_header
from gateway import new_id
from h2_origin import H2Origin
from origin import OK, Origin, respond
from wire import wait_until

QUICK = {"interval_ms": 1000, "timeout_ms": 500, "rise": 1, "fall": 1}
HTTP, TCP = {"type": "http", "path": "/healthz?x=1", **QUICK}, {"type": "tcp", **QUICK}


class CheckedOrigin(Origin):
    """Answers checks with `health`; `checks` are those requests."""

    def __init__(self, health=OK, **options):
        self.health, self.checks = health, []
        super().__init__(self.route, **options)

    def route(self, _, request):
        if not request.target.startswith("/healthz"):
            return OK
        self.requests.remove(request)
        self.checks.append(request)
        return self.health


@pytest.fixture
def checked():
    made = []

    def make(*arguments, **options):
        made.append(CheckedOrigin(*arguments, **options))
        return made[-1]
    yield make
    for server in made:
        server.close()


def put(gateway, servers, check=None, **port):
    return gateway.app(ports=[{"port": servers[0].port, "check": check or HTTP, **port}], instances=[
        {"instance_id": new_id(), "address": server.address, "generation": 1} for server in servers])


def share(gateway, app, servers, count=12):
    """How many of so many requests each got."""
    before = [len(server.requests) for server in servers]
    for _ in range(count):
        assert gateway.fetch("GET", "/", app.host()).status == 200
    return [len(server.requests) - was for server, was in zip(servers, before)]


UNHEALTHY = [respond(b"", "503 Service Unavailable"), respond(b"", "404 Not Found"), False, b"nonsense\r\n\r\n"]


@pytest.mark.parametrize("health", UNHEALTHY, ids=["503", "404", "closed", "nonsense"])
def test_unhealthy_instance_gets_no_requests_until_it_is_well(gateway, checked, health):
    good = checked()
    bad = checked(health, port=good.port)
    app = put(gateway, [good, bad])
    wait_until(lambda: share(gateway, app, [good, bad])[1] == 0, "the check to find it down")
    assert gateway.metric("upstream_down") >= 1 and gateway.metric("upstream_checks_failed_total") >= 1
    assert f"{bad.address} port {bad.port} is down" in gateway.stderr()
    bad.health = OK
    wait_until(lambda: share(gateway, app, [good, bad])[1] > 0, "the check to find it up")
    wait_until(lambda: f"{bad.address} port {bad.port} is up" in gateway.stderr(), "a line in the log")
    app.put(instances=[])
    wait_until(lambda: gateway.metric("upstream_down") == 0, "verdicts to go with the claim")


def test_what_the_app_sees(gateway, checked):
    """One GET on a connection of its own; a redirect is an answer, and is not followed."""
    server = checked(respond(b"", "302 Found", "Location: /elsewhere"))
    app = put(gateway, [server])
    assert gateway.fetch("GET", "/", app.host()).status == 200
    wait_until(lambda: len(server.checks) >= 3, "checks")
    for check in server.checks:
        assert check.start == "GET /healthz?x=1 HTTP/1.1" and check.get("Host") == f"{server.address}:{server.port}"
        assert check.get("User-Agent") == "phala-gateway-check" and not check.get("X-Forwarded-For")
    assert {request.target for request in server.requests} == {"/"}
    assert gateway.metric("upstream_checks_total") >= 3
    assert not [line for line in gateway.log_lines() if "healthz" in line["path"]]
    checks = [wire for wire in server.connections if b"healthz" in wire.received]
    wait_until(lambda: all(wire.sock.fileno() < 0 for wire in checks[:-1]), "connections of checks to be closed")


def test_tcp(gateway, checked):
    good = checked()
    bad = checked(port=good.port)
    app = put(gateway, [good, bad], TCP)
    wait_until(lambda: share(gateway, app, [good, bad])[1] > 0, "requests")
    bad.close()
    failed = gateway.metric("upstream_checks_failed_total")
    wait_until(lambda: share(gateway, app, [good, bad]) and gateway.metric("upstream_checks_failed_total") > failed + 1,
               "both workers' checks to fail")
    assert not good.checks
    wait_until(lambda: f"{bad.address} port {bad.port} is down (connect_" in gateway.stderr(), "a line in the log")


def test_all_down_are_tried(gateway, checked):
    servers = [checked(UNHEALTHY[0])]
    servers.append(checked(UNHEALTHY[0], port=servers[0].port))
    app = put(gateway, servers)

    def both_are_down():
        share(gateway, app, servers, 2)
        return all(f"{server.address} port {server.port} is down" in gateway.stderr() for server in servers)
    wait_until(both_are_down, "both to be down")
    assert min(share(gateway, app, servers, 24)) > 0


def test_instance_that_does_not_answer(gateway, checked, origin):
    """The check's own deadline, not that of requests."""
    good = checked()
    mute = origin(lambda connection, request: None if request.target.startswith("/healthz") else OK, port=good.port)
    app = put(gateway, [good, mute])

    def is_down():
        gateway.fetch("GET", "/", app.host())
        return f"{mute.address} port {mute.port} is down (upstream_timeout)" in gateway.stderr()
    wait_until(is_down, "the check to find it down")


def test_h2c(gateway):
    paths = []

    def answer(peer, request):
        paths.append(request.path)
        peer.respond(request, b"ok", 200 if request.path != "/healthz?x=1" or len(paths) < 4 else 500)
    server = H2Origin(answer)
    try:
        app = put(gateway, [server], protocol="h2c")

        def is_down():
            assert gateway.fetch("GET", "/", app.host()).status == 200
            return f"{server.address} port {server.port} is down (status 500)" in gateway.stderr()
        wait_until(is_down, "the check to find it down")
    finally:
        server.close()


@pytest.mark.parametrize("version, command", [("v1", "UNKNOWN"), ("v2", "LOCAL")])
def test_header_of_the_proxy_protocol(gateway, version, command):
    """A check speaks for no client."""
    seen = []

    def script(wire):
        header = proxy_header.READERS[version](wire)
        request = wire.read_request()
        seen.append((request.target, header.command))
        wire.send(OK)
    server = Origin(script=script)
    try:
        app = put(gateway, [server], proxy_protocol=version)
        assert gateway.fetch("GET", "/", app.host()).status == 200
        wait_until(lambda: ("/healthz?x=1", command) in seen, "a check")
    finally:
        server.close()
    assert ("/", "PROXY") in seen


def test_checks_follow_the_record(gateway, checked):
    """They end when the record has none any more, and no app is checked before it is asked for."""
    server, clock = checked(), checked()
    app, other = put(gateway, [server]), put(gateway, [clock])
    assert gateway.control("GET", f"/v1/apps/{app.id}").json["ports"][0]["check"] == HTTP
    assert not server.checks
    gateway.fetch("GET", "/", app.host())
    wait_until(lambda: server.checks, "a check")
    app.put(ports=[{"port": server.port, "check": {**HTTP, "path": "/healthz/new"}}])
    wait_until(lambda: server.checks[-1].target == "/healthz/new", "the new path")
    app.put(ports=[{"port": server.port}])
    count = len(server.checks)
    gateway.fetch("GET", "/", other.host())
    wait_until(lambda: len(clock.checks) >= 4, "checks of another app")
    assert len(server.checks) <= count + 1      # one may have been under way


@pytest.mark.parametrize("check, member", [
    ({}, "type"), ({"type": "udp"}, "type"), ({"type": "http"}, "path"), ({"type": "http", "path": "x"}, "path"),
    ({"type": "http", "path": "/a b"}, "path"), ({"type": "http", "path": "/" * 256}, "path"),
    ({"type": "tcp", "path": "/"}, "path"), ({"type": "tcp", "interval_ms": 999}, "interval_ms"),
    ({"type": "tcp", "interval_ms": 300001}, "interval_ms"), ({"type": "tcp", "timeout_ms": 99}, "timeout_ms"),
    ({"type": "tcp", "timeout_ms": 20000}, "timeout_ms"), ({"type": "tcp", "rise": 0}, "rise"),
    ({"type": "tcp", "fall": 11}, "fall"), ({"type": "tcp", "every": 5}, "every")])
def test_refused_documents(gateway, check, member):
    answer = gateway.put_app({"app_id": new_id(), "ports": [{"port": 80, "check": check}]})
    assert answer.status == 422 and answer.json["field"] == f"ports[0].check.{member}", answer

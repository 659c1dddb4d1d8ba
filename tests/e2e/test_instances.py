"""Many instances of one app: which get requests when some fail, start, drain or stop."""
import socket
import struct

import pytest

from gateway import DOMAIN, new_id
from origin import OK, new_address, respond
from wire import wait_until

QUICK = {"failures": 3, "pause": "300ms", "max_pause": "1s"}


@pytest.fixture(scope="module")
def ejecting(tmp_path_factory, authority):
    """One worker, which ejects soon and not for long."""
    from gateway import Gateway     # pylint: disable=import-outside-toplevel
    running = Gateway(tmp_path_factory.mktemp("gateway"), authority, workers=1,
                      upstream={"allow": ["127.0.0.0/8"], "ejection": QUICK}).start()
    yield running
    running.stop()


def instance(server, **members):
    return {"instance_id": new_id(), "address": server.address, "state": "running", "generation": 1, **members}


def app_of(gateway, servers, **members):
    return gateway.app(ports=[{"port": servers[0].port}], instances=[instance(server) for server in servers], **members)


def group(origin, *answers):
    """Servers on one port, each on an address of its own."""
    servers = [origin(**answers[0])]
    return servers + [origin(port=servers[0].port, **answer) for answer in answers[1:]]


def accept_and_reset(connection):
    """As a CVM does whose proxy is up before its app is."""
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.sock.close()


def test_instance_that_resets_gets_little(ejecting, origin):
    """Its failures are fast, so it always looks idle; it must not get all requests for that."""
    good, bad = group(origin, {}, {"script": accept_and_reset})
    app = app_of(ejecting, [good, bad])
    ejections = ejecting.metric("upstream_ejections_total")
    statuses = [ejecting.fetch("POST", "/", app.host(), b"x").status for _ in range(60)]
    assert set(statuses) <= {200, 502}
    assert statuses.count(200) >= 50 and len(bad.connections) < 10
    wait_until(lambda: ejecting.fetch("POST", "/", app.host(), b"x").status and
               ejecting.metric("upstream_ejections_total") > ejections, "an ejection")
    text = ejecting.stderr()
    assert f"{bad.address} port {bad.port}: 3 failures in a row (" in text
    app.put(instances=[])
    wait_until(lambda: ejecting.metric("upstream_ejected") == 0, "verdicts to go with the claim")


def test_recovered_instance_is_chosen_again(ejecting, origin):
    works = []
    good, other = group(origin, {}, {"answer": lambda *_: OK if works else False})
    app = app_of(ejecting, [good, other])
    ejections = ejecting.metric("upstream_ejections_total")
    wait_until(lambda: ejecting.fetch("POST", "/", app.host(), b"x").status and
               ejecting.metric("upstream_ejections_total") > ejections, "an ejection")
    works.append(True)
    seen = len(other.requests)
    wait_until(lambda: ejecting.fetch("GET", "/", app.host()).status == 200 and len(other.requests) > seen,
               "a request to the instance that works again")
    wait_until(lambda: ejecting.metric("upstream_ejected") == 0, "no verdict")


def test_refusing_instances_are_not_tried_each_time(ejecting, origin):
    """Connect failures never reach the client, and after some none is made."""
    good = origin()
    app = ejecting.app(ports=[{"port": good.port}], instances=[
        instance(good), {**instance(good), "address": new_address()}])
    for _ in range(40):
        assert ejecting.fetch("POST", "/", app.host(), b"x").status == 200
    retried = [line.get("retries", 0) for line in ejecting.log_lines() if line["app_id"] == app.id]
    assert sum(retried) < 20


def test_only_instance_is_tried_in_spite_of_its_failures(ejecting, origin):
    works = []
    server = origin(answer=lambda *_: OK if works else False)
    app = app_of(ejecting, [server])
    for _ in range(6):
        answer = ejecting.fetch("GET", "/", app.host())
        assert (answer.status, answer.error) == (502, "upstream_closed")
    assert len(server.requests) == 6
    works.append(True)
    assert ejecting.fetch("GET", "/", app.host()).status == 200


def test_next_generation_starts_clean(ejecting, origin):
    """A verdict about the old boot does not hit the new one at the same address."""
    works = []
    good, other = group(origin, {}, {"answer": lambda *_: OK if works else False})
    app = app_of(ejecting, [good, other])
    ejections = ejecting.metric("upstream_ejections_total")
    wait_until(lambda: ejecting.fetch("POST", "/", app.host(), b"x").status and
               ejecting.metric("upstream_ejections_total") > ejections, "an ejection")
    works.append(True)
    records = app.document["instances"]
    records[1]["generation"] = 2
    app.put(instances=records)
    wait_until(lambda: ejecting.metric("upstream_ejected") == 0, "the verdict to go")


def test_errors_of_the_app_are_no_failures(ejecting, origin):
    servers = group(origin, {"answer": respond(b"", "503 Service Unavailable")}, {})
    app = app_of(ejecting, servers)
    ejections = ejecting.metric("upstream_ejections_total")
    for _ in range(40):
        assert ejecting.fetch("GET", "/", app.host()).status in (200, 503)
    assert ejecting.metric("upstream_ejections_total") == ejections
    assert len(servers[0].requests) > 5


def test_server_errors_can_count(make_gateway, origin):
    gateway = make_gateway(workers=1, upstream={"allow": ["127.0.0.0/8"], "ejection": {
        "failures": 2, "pause": "60s", "server_errors": True}})
    servers = group(origin, {"answer": respond(b"", "503 Service Unavailable")}, {})
    app = app_of(gateway, servers)
    statuses = [gateway.fetch("GET", "/", app.host()).status for _ in range(60)]
    assert statuses.count(503) == 2 and set(statuses[-20:]) == {200}


def test_draining_finishes_while_new_requests_go_elsewhere(gateway, origin):
    """What is in progress on a draining instance is answered, and nothing new comes to it."""
    def hold(connection, _):
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        connection.read(1)      # only the end of the test ends this
    old, new = group(origin, {"answer": hold}, {})
    app = app_of(gateway, [old])
    with gateway.connect(app.host()) as slow:
        slow.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert slow.read_head().status == 200 and slow.read(5) == b"first"
        app.put(instances=[{**app.document["instances"][0], "state": "draining"}, instance(new)])
        for _ in range(6):
            assert gateway.fetch("GET", "/", app.host()).body == b"ok"
        old.connections[0].send(b"-last")
        assert slow.read(5) == b"-last"
    assert len(old.requests) == 1


@pytest.mark.parametrize("states, code", [
    (["starting"], "app_starting"), (["stopped"], "app_stopped"), (["draining"], "no_instance"),
    (["draining", "draining"], "no_instance"), (["draining", "starting"], "app_starting"),
    (["stopped", "starting"], "app_starting"), (["stopped", "draining"], "no_instance")])
def test_states_that_take_no_requests(gateway, origin, states, code):
    servers = group(origin, *({} for _ in states))
    app = gateway.app(ports=[{"port": servers[0].port}], instances=[
        instance(server, state=state) for server, state in zip(servers, states)])
    answer = gateway.fetch("GET", "/", app.host())
    assert (answer.status, answer.error) == (503, code)
    assert int(answer.get("Retry-After")) > 0
    assert gateway.resolve(app.host())["code"] == code
    assert not any(server.connections for server in servers)


def test_instance_starts(gateway, origin):
    """From the page that says so to the app, without a connection being opened before."""
    server = origin()
    app = gateway.app(ports=[{"port": server.port}], instances=[instance(server, state="starting")])
    with gateway.connect(app.host()) as connection:
        assert connection.request("GET", "/", app.host()).error == "app_starting"
        answer = gateway.control("PATCH", f"/v1/apps/{app.id}/instances/{app.document['instances'][0]['instance_id']}",
                                 {"state": "running"})
        assert answer.status == 200, answer
        assert connection.request("GET", "/", app.host()).status == 200
    assert app.host().endswith(DOMAIN)

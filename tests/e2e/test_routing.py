"""Host names, ports, states, and the answers for what is not there."""
import json

import pytest

from gateway import DOMAIN, OTHER_DOMAIN, new_id
from origin import respond


@pytest.fixture
def named(origin):
    """named(text, …) starts an origin that answers with the text."""
    return lambda text, **options: origin(respond(text.encode()), **options)


def instance(server, **members):
    return {"instance_id": new_id(), "address": server.address, "state": "running", "generation": 1, **members}


def test_app_and_instance_ids(gateway, named):
    first = named("first")
    second = named("second", port=first.port)
    document = [instance(first), instance(second)]
    app = gateway.app(ports=[{"port": first.port}], instances=document)
    for record, text in zip(document, (b"first", b"second")):
        for _ in range(3):
            host = f"{record['instance_id']}-{first.port}.{DOMAIN}"
            assert gateway.fetch("GET", "/", host).body == text
    answers = {gateway.fetch("GET", "/", app.host()).body for _ in range(20)}
    assert answers == {b"first", b"second"}


def test_id_with_hyphens(gateway, named):
    server = named("hyphens")
    app = gateway.app(server, app_id=f"my-app-{new_id()[:8]}")
    assert gateway.fetch("GET", "/", app.host()).body == b"hyphens"


def test_exact_instance_id_wins(gateway, named):
    """An instance called "<app>-<port>" is meant by that name, with its default port, and not that port of the app."""
    app_server, server = named("app"), named("exact")
    app_id = "x" + new_id()[:10]
    instance_id = f"{app_id}-{app_server.port}"
    gateway.app(app_id=app_id, restrict_ports=False, instances=[instance(app_server)])
    assert gateway.fetch("GET", "/", f"{instance_id}.{DOMAIN}").body == b"app"
    gateway.app(ports=[{"port": server.port}], instances=[instance(server, instance_id=instance_id)])
    assert gateway.fetch("GET", "/", f"{instance_id}.{DOMAIN}").error == "port_not_published"
    assert gateway.fetch("GET", "/", f"{instance_id}-{server.port}.{DOMAIN}").body == b"exact"


def test_letter_case_and_port_in_host(gateway, named):
    app = gateway.app(named("ok"))
    for host in (app.host().upper(), f"{app.host()}:443", f"{app.host()}:{gateway.port}", f"{app.host()}."):
        with gateway.connect(app.host()) as connection:
            assert connection.request("GET", "/", host).body == b"ok", host


def test_each_request_is_routed_by_its_own_host(gateway, named):
    one, two = gateway.app(named("one")), gateway.app(named("two"))
    with gateway.connect(one.host()) as connection:
        for _ in range(3):
            assert connection.request("GET", "/", one.host()).body == b"one"
            assert connection.request("GET", "/", two.host()).body == b"two"


def test_name_of_another_certificate(gateway, named):
    app = gateway.app(named("ok"))
    with gateway.connect(app.host()) as connection:
        answer = connection.request("GET", "/", app.host(domain=OTHER_DOMAIN))
        assert answer.status == 421 and answer.error == "misdirected"
        assert connection.request("GET", "/", app.host()).status == 200


def test_custom_domain_needs_its_certificate(gateway, named):
    server = named("ok")
    name = f"{new_id()[:12]}.shop.test"
    app = gateway.app(server, domains=[{"name": name, "port": server.port}])
    with gateway.connect(app.host()) as connection:
        assert connection.request("GET", "/", name).status == 421
    assert gateway.resolve(name)["routes"] is True


@pytest.mark.parametrize("label", ["{id}s", "{id}-s", "{id}-443s"])
def test_passthrough_name_over_http(gateway, named, label):
    """A name whose TLS ends in the CVM must not be served from here."""
    server = named("ok")
    app_id = new_id()
    gateway.app(app_id=app_id, restrict_ports=False, instances=[instance(server)])
    connection = gateway.connect(f"a.{DOMAIN}")
    with connection:
        answer = connection.request("GET", "/", f"{label.format(id=app_id)}.{DOMAIN}")
        assert answer.status == (404 if label == "{id}s" else 421)
    assert not server.requests


@pytest.mark.parametrize("label", ["{id}", "{id}-80", "{id}-8080", "{id}-99999", "{id}-08", "nothing", "-", "a--"])
def test_unknown_app(gateway, label):
    with gateway.connect(f"a.{DOMAIN}") as connection:
        answer = connection.request("GET", "/", f"{label.format(id=new_id())}.{DOMAIN}")
        assert answer.status == 404 and answer.error in ("app_unknown", "host_unknown")


def test_base_domain_itself(gateway):
    with gateway.connect(DOMAIN) as connection:
        assert connection.request("GET", "/", DOMAIN).status == 404


def test_restricted_ports(gateway, named):
    server = named("ok")
    app = gateway.app(server)
    answer = gateway.fetch("GET", "/", app.host(port=server.port + 1))
    assert answer.status == 404 and answer.error == "port_not_published"
    app.put(restrict_ports=False, ports=[])
    assert gateway.fetch("GET", "/", app.host(port=server.port)).status == 200


@pytest.mark.parametrize("state, code", [("starting", "app_starting"), ("stopped", "app_stopped")])
def test_states_that_do_not_answer(gateway, named, state, code):
    server = named("ok")
    app = gateway.app(ports=[{"port": server.port}], instances=[instance(server, state=state)])
    answer = gateway.fetch("GET", "/", app.host(), Accept="text/html")
    assert answer.status == 503 and answer.error == code
    assert answer.get("Retry-After") is not None or state != "starting"
    assert state.encode() in answer.body
    assert not server.requests


def test_no_instances(gateway):
    app = gateway.app(ports=[{"port": 80}])
    answer = gateway.fetch("GET", "/", app.host())
    assert answer.status == 503 and answer.error in ("no_instance", "app_starting", "app_stopped")


def test_draining_finishes_and_gets_nothing_new(gateway, named):
    old = named("old")
    new = named("new", port=old.port)
    records = [instance(old), instance(new)]
    app = gateway.app(ports=[{"port": old.port}], instances=records)
    records[0]["state"] = "draining"
    app.put(instances=records)
    assert {gateway.fetch("GET", "/", app.host()).body for _ in range(12)} == {b"new"}


def test_weight_zero_gets_nothing(gateway, named):
    one = named("one")
    two = named("two", port=one.port)
    app = gateway.app(ports=[{"port": one.port}], instances=[instance(one), instance(two, weight=0)])
    assert {gateway.fetch("GET", "/", app.host()).body for _ in range(12)} == {b"one"}


def test_address_that_is_the_gateway_itself(gateway):
    """A record that leads back to the gateway's own listener is refused, or at the latest the connection is."""
    document = {"app_id": new_id(), "ports": [{"port": gateway.port}],
                "instances": [{"instance_id": new_id(), "address": "127.0.0.1", "state": "running", "generation": 1}]}
    answer = gateway.put_app(document)
    if answer.status in (200, 201):
        page = gateway.fetch("GET", "/", f"{document['app_id']}-{gateway.port}.{DOMAIN}")
        assert page.status == 502 and page.error == "address_forbidden"
        gateway.control("DELETE", f"/v1/apps/{document['app_id']}")


@pytest.mark.parametrize("accept, media", [
    ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"), ("application/json", "application/problem+json"),
    ("application/problem+json", "application/problem+json"), ("*/*", "text/plain"), (None, "text/plain"),
    ("application/json;q=0.1, text/html", "text/html")])
def test_error_bodies(gateway, accept, media):
    host = f"{new_id()}-80.{DOMAIN}"
    with gateway.connect(host) as connection:
        answer = connection.request("GET", "/", host, **({"Accept": accept} if accept else {}))
    assert answer.status == 404 and answer.get("Content-Type").startswith(media)
    assert b"app_unknown" in answer.body
    if media == "application/problem+json":
        assert json.loads(answer.body)["status"] == 404


def test_error_page_escapes(gateway):
    """Bytes of the request in the page can't become markup."""
    with gateway.connect(f"a.{DOMAIN}") as connection:
        answer = connection.request("GET", "/<script>alert(1)</script>", f"a.{DOMAIN}", Accept="text/html",
                                    X_Request_Id="<script>")
        assert b"<script>alert" not in answer.body and b"<script>" not in answer.body


def test_head_of_an_error_has_no_body(gateway):
    host = f"{new_id()}-80.{DOMAIN}"
    with gateway.connect(host) as connection:
        for _ in range(3):
            assert connection.request("HEAD", "/", host).status == 404


def test_connection_goes_on_after_an_error(gateway, named):
    app = gateway.app(named("ok"))
    with gateway.connect(app.host()) as connection:
        assert connection.request("GET", "/", f"{new_id()}.{DOMAIN}").status == 404
        assert connection.request("GET", "/", app.host()).body == b"ok"


def test_error_before_the_body_was_read(gateway, named):
    """What was not read of a body must not be taken for the next request: the connection closes, and says so."""
    app = gateway.app(named("ok"))
    with gateway.connect(app.host()) as connection:
        body = f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n".encode()
        answer = connection.request("POST", "/", f"{new_id()}.{DOMAIN}", body)
        assert answer.status == 404
        if answer.get("Connection") == "close":
            assert connection.is_closed()
        else:
            assert connection.is_silent(0.5)


def test_request_id(gateway, origin):
    server = origin()
    app = gateway.app(server)
    gateway.fetch("GET", "/", app.host(), X_Request_Id="chosen-by-client")
    gateway.fetch("GET", "/", app.host())
    ids = [request.get("X-Request-Id") for request in server.requests]
    assert len(set(ids)) == 2 and "chosen-by-client" not in ids


def test_trusted_proxy_is_believed(make_gateway, origin):
    gateway = make_gateway(trusted_proxies=["127.0.0.1/32"])
    server = origin()
    app = gateway.app(server)
    gateway.fetch("GET", "/", app.host(), X_Forwarded_For="8.8.8.8", X_Request_Id="kept")
    (request,) = server.requests
    assert request.get("X-Forwarded-For").replace(" ", "") == "8.8.8.8,127.0.0.1"
    assert request.get("X-Request-Id") == "kept"


@pytest.mark.parametrize("fields, kept", [("X-Request-Id:", None), ("X-Request-Id: a\r\nX-Request-Id: b", "a"),
                                          ("X-Request-Id:\r\nX-Request-Id: b", None)])
def test_request_id_of_a_trusted_proxy_is_the_logged_one(make_gateway, origin, fields, kept):
    gateway = make_gateway(trusted_proxies=["127.0.0.1/32"])
    server = origin()
    app = gateway.app(server)
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n{fields}\r\n\r\n")
        assert connection.read_response().status == 200
    sent, logged = server.requests[0].get("X-Request-Id"), gateway.log_line(app_id=app.id)["request_id"]
    assert sent == logged and len(logged) > 0 and kept in (None, logged)


def test_addresses_outside_of_upstream_allow(make_gateway, origin):
    gateway = make_gateway(upstream={"allow": ["127.5.0.0/16"]})
    server = origin()
    document = {"app_id": new_id(), "instances": [instance(server)]}
    answer = gateway.put_app(document)
    assert answer.status in (400, 422) and answer.code == "invalid_record"
    assert answer.json["field"] == "instances[0].address"
    document["instances"] = [{"instance_id": new_id(), "address": "127.5.0.1", "state": "running", "generation": 1}]
    assert gateway.put_app(document).status == 201


def test_a_listed_port_that_is_the_gateways_own_listener(make_gateway, origin):
    """The record is refused; the same app does without the port, at another address, or while it is stopped."""
    gateway = make_gateway()
    only = {"instance_id": new_id(), "address": "127.0.0.1", "state": "running", "generation": 1}
    document = {"app_id": new_id(), "ports": [{"port": 80}, {"port": gateway.http_port}], "instances": [only]}
    answer = gateway.put_app(document)
    assert answer.status == 422 and answer.code == "invalid_record" and answer.json["field"] == "instances[0].address"
    assert f"127.0.0.1:{gateway.http_port} is a listener of the gateway itself; use " in answer.json["detail"]
    assert gateway.put_app({**document, "ports": []}).status == 201
    assert gateway.put_app({**document, "ports": [{"port": 80}]}).status == 200
    assert gateway.put_app({**document, "instances": [{**only, "address": origin().address}]}).status == 200
    assert gateway.put_app({**document, "instances": [{**only, "state": "stopped"}]}).status == 200
    answer = gateway.control("PATCH", f"/v1/apps/{document['app_id']}/instances/{only['instance_id']}",
                             {"state": "running"})
    assert answer.status == 422 and answer.json["field"] == "instances[0].address"


def test_a_stored_app_at_what_is_a_listener_by_now(make_gateway, origin):
    """It is left out, said and kept, and comes back with the next start without that listener."""
    gateway = make_gateway()
    server = origin()
    app = gateway.app(server)
    gateway.stop()
    server.close()
    gateway.config["listeners"].append({"address": f"{server.address}:{server.port}"})
    gateway.start()
    assert gateway.control("GET", f"/v1/apps/{app.id}").status == 404
    assert f"app {app.id} in the store is left out: instances[0].address: {server.address}:{server.port} is a listener" \
        in gateway.stderr()
    gateway.stop()
    gateway.config["listeners"].pop()
    gateway.start()
    assert gateway.control("GET", f"/v1/apps/{app.id}").status == 200

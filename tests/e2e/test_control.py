"""The control API of DESIGN section 4."""
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import threading

import pytest

from certificates import Authority
from gateway import BUILD, DOMAIN, ENVIRONMENT, Answer, Gateway, UnixConnection, free_port, new_id
from origin import new_address
from wire import Connection, wait_until


def document(**members):
    return {"app_id": new_id(), "ports": [{"port": 8080}], "instances": [
        {"instance_id": new_id(), "address": new_address(), "generation": 1, "state": "running"}], **members}


def test_app_life(gateway):
    app = document()
    path = f"/v1/apps/{app['app_id']}"
    assert gateway.control("GET", path).status == 404
    created = gateway.put_app(app)
    assert created.status == 201 and created.fields["Location"] == path
    stored = gateway.control("GET", path)
    assert stored.status == 200 and stored.fields["ETag"] == created.fields["ETag"]
    assert stored.json == created.json and stored.json["app_id"] == app["app_id"]
    assert stored.json["instances"][0]["address"] == app["instances"][0]["address"]
    assert stored.json["restrict_ports"] is True
    app["ports"].append({"port": 50051, "protocol": "h2c"})
    replaced = gateway.put_app(app)
    assert replaced.status == 200 and replaced.json["revision"] > created.json["revision"]
    assert gateway.control("DELETE", path).status == 204
    assert gateway.control("GET", path).code == "app_unknown"
    assert gateway.control("DELETE", path).status == 404


def test_app_id_may_be_left_out(gateway):
    app = document()
    app_id = app.pop("app_id")
    assert gateway.control("PUT", f"/v1/apps/{app_id}", app).json["app_id"] == app_id


def test_app_id_must_agree(gateway):
    answer = gateway.control("PUT", f"/v1/apps/{new_id()}", document())
    assert answer.status // 100 == 4 and answer.json["field"] == "app_id"


def test_if_match(gateway):
    app = document()
    first = gateway.put_app(app).fields["ETag"]
    second = gateway.put_app({**app, "restrict_ports": False}, If_Match=first)
    assert second.status == 200 and second.fields["ETag"] != first
    assert gateway.put_app(app, If_Match=first).code == "revision_conflict"
    assert gateway.control("DELETE", f"/v1/apps/{app['app_id']}", If_Match=first).code == "revision_conflict"
    assert gateway.control("DELETE", f"/v1/apps/{app['app_id']}", If_Match=second.fields["ETag"]).status == 204


def test_if_none_match(gateway):
    """A PUT that must not find an app: two who register it at once don't undo each other."""
    app = document()
    assert gateway.put_app(app, If_None_Match='"1"').code == "invalid_parameter"
    assert gateway.put_app(app, If_None_Match="*", If_Match='"1"').code == "invalid_parameter"
    assert gateway.put_app(app, If_None_Match="*").status == 201
    answer = gateway.put_app({**app, "restrict_ports": False}, If_None_Match="*")
    assert (answer.status, answer.code, answer.json["field"]) == (412, "revision_conflict", "If-None-Match")
    assert gateway.put_app(app, If_Match='"18446744073709551615"').code == "revision_conflict"
    assert gateway.control("DELETE", f"/v1/apps/{app['app_id']}").status == 204
    assert gateway.put_app(app, If_Match='"18446744073709551615"').code == "revision_conflict"


def test_patch_instance(gateway, origin):
    server = origin()
    app = gateway.app(server)
    path = f"/v1/apps/{app.id}/instances/{app.document['instances'][0]['instance_id']}"
    assert gateway.fetch("GET", "/", app.host()).status == 200
    assert gateway.control("PATCH", path, {"state": "stopped"}).json["instances"][0]["state"] == "stopped"
    assert gateway.fetch("GET", "/", app.host()).error == "app_stopped"
    assert gateway.control("PATCH", path, {"state": "running", "weight": 5}).json["instances"][0]["weight"] == 5
    assert gateway.fetch("GET", "/", app.host()).status == 200
    assert gateway.control("PATCH", path, {"weight": -1}).status in (400, 422)
    assert gateway.control("PATCH", path, {"color": "red"}).status in (400, 422)
    assert gateway.control("PATCH", f"/v1/apps/{app.id}/instances/{new_id()}", {"weight": 1}).status == 404


BAD_RECORDS = [
    ({"ports": [{"port": 0}]}, "ports[0].port"),
    ({"ports": [{"port": 70000}]}, "ports[0].port"),
    ({"ports": [{"port": 80, "protocol": "quic"}]}, "ports[0].protocol"),
    ({"ports": [{"port": 80}, {"port": 80}]}, "ports[1].port"),
    ({"ports": {}}, "ports"),
    ({"colour": 1}, "colour"),
    ({"restrict_ports": "yes"}, "restrict_ports"),
    ({"domains": [{"name": "not a name", "port": 80}]}, "domains[0].name"),
    ({"instances": [{"instance_id": "UPPER_", "address": "127.1.1.1"}]}, "instances[0].instance_id"),
    ({"instances": [{"instance_id": "a", "address": "localhost"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "8.8.8.8"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "169.254.169.254"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "0.0.0.0"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "::1"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "::ffff:8.8.8.8"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "127.1.1.1", "state": "asleep"}]}, "instances[0].state"),
    ({"instances": [{"instance_id": "a", "state": "running"}]}, "instances[0].address"),
    ({"instances": [{"instance_id": "a", "address": "127.1.1.1", "weight": 100000}]}, "instances[0].weight"),
    ({"instances": [{"instance_id": "a", "address": "127.1.1.1", "generation": -1}]}, "instances[0].generation"),
]


@pytest.mark.parametrize("members, field", BAD_RECORDS, ids=[f"{number}-{case[1]}" for number, case in
                                                             enumerate(BAD_RECORDS)])
def test_bad_record_names_the_field(gateway, members, field):
    app = document(**members)
    answer = gateway.put_app(app)
    assert answer.status in (400, 422) and answer.code == "invalid_record", answer
    assert answer.json["field"] == field and answer.json["detail"], answer
    assert answer.json["type"] == "about:blank" and answer.json["status"] == answer.status
    assert gateway.control("GET", f"/v1/apps/{app['app_id']}").status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"app_id":1}', b'{"a":"\xff"}', b"[" * 5000,
                                  b'{"ports":[],"ports":[]}'])
def test_bad_json(gateway, body):
    answer = gateway.control("PUT", f"/v1/apps/{new_id()}", body, Content_Type="application/json")
    assert answer.status in (400, 422) and answer.code in ("invalid_json", "invalid_record"), answer


def test_media_type(gateway):
    answer = gateway.control("PUT", f"/v1/apps/{new_id()}", b"{}", Content_Type="text/xml")
    assert answer.status == 415 and answer.code == "unsupported_media_type"


def test_document_size(gateway):
    answer = gateway.control("PUT", f"/v1/apps/{new_id()}", b" " * (2 << 20), Content_Type="application/json")
    assert answer.status == 413


def test_claims(gateway):
    """One live owner per address: a newer generation takes it, an equal or older one is refused."""
    address = new_address()

    def claim(generation):
        return document(instances=[{"instance_id": new_id(), "address": address, "generation": generation,
                                    "state": "running"}])
    first = claim(5)
    assert gateway.put_app(first).status == 201
    for generation in (4, 5):
        refused = gateway.put_app(claim(generation))
        assert refused.status == 409 and refused.code == "claim_conflict"
        assert refused.json["field"] == "instances[0].address"
    second = claim(6)
    assert gateway.put_app(second).status == 201
    loser = gateway.control("GET", f"/v1/apps/{first['app_id']}").json["instances"][0]
    assert loser["state"] == "stopped"
    assert gateway.put_app(first).code == "claim_conflict"
    gateway.control("DELETE", f"/v1/apps/{second['app_id']}")
    assert gateway.put_app(first).status == 200


def test_bad_record_does_not_block_others(gateway):
    assert gateway.put_app(document(ports=[{"port": -1}])).status != 201
    assert gateway.put_app(document()).status == 201


def test_list_pages(gateway):
    prefix = "z" + new_id()[:10]
    ids = sorted(f"{prefix}{number:03}" for number in range(25))
    for app_id in ids:
        assert gateway.put_app({"app_id": app_id}).status == 201
    found, after, pages = [], "", 0
    while after is not None:
        page = gateway.control("GET", f"/v1/apps?limit=10&q={prefix}&after={after}").json
        found += [app["app_id"] for app in page["apps"]]
        after, pages = page["next"], pages + 1
        assert len(page["apps"]) <= 10 and pages < 1000
    assert found == ids
    assert gateway.control("GET", "/v1/apps?limit=0").code == "invalid_parameter"
    assert gateway.control("GET", "/v1/apps?colour=red").json["field"] == "colour"


def snapshot(gateway):
    answer = gateway.control("GET", "/v1/snapshot")
    assert answer.status == 200 and answer.fields["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.body.splitlines()]


def ndjson(apps):
    return b"".join(json.dumps(app).encode() + b"\n" for app in apps)


def test_snapshot(make_gateway):
    gateway = make_gateway()
    old = [document() for _ in range(5)]
    for app in old:
        gateway.put_app(app)
    assert {app["app_id"] for app in snapshot(gateway)} == {app["app_id"] for app in old}
    before = {app["app_id"]: app["revision"] for app in snapshot(gateway)}
    new = old[:2] + [document() for _ in range(300)]
    pieces = [ndjson(new)[start:start + 1000] for start in range(0, len(ndjson(new)), 1000)]
    answer = gateway.control("PUT", "/v1/snapshot", iter(pieces), Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 302 and answer.json["refused"] == 0
    after = {app["app_id"]: app["revision"] for app in snapshot(gateway)}
    assert set(after) == {app["app_id"] for app in new}
    for app in old[:2]:
        assert after[app["app_id"]] == before[app["app_id"]]      # equal: nothing happened to it
    text = gateway.control("GET", "/v1/snapshot").body
    assert gateway.control("PUT", "/v1/snapshot", text, Content_Type="application/x-ndjson").status == 200
    assert gateway.control("GET", "/v1/snapshot").body == text
    gateway.kill()
    gateway.start()
    assert gateway.control("GET", "/v1/snapshot").body == text


def test_snapshot_with_bad_lines(make_gateway):
    gateway = make_gateway()
    keep = document()
    gateway.put_app(keep)
    lines = [ndjson([document()]), b"nonsense\n", ndjson([document(ports=[{"port": 0}])]), ndjson([document()])]
    strict = gateway.control("PUT", "/v1/snapshot?strict=1", b"".join(lines), Content_Type="application/x-ndjson")
    assert strict.status // 100 == 4 and [error["line"] for error in strict.json["errors"]] == [2, 3]
    assert [app["app_id"] for app in snapshot(gateway)] == [keep["app_id"]]
    answer = gateway.control("PUT", "/v1/snapshot", b"".join(lines), Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 2 and answer.json["refused"] == 2
    assert answer.json["errors"][1]["field"] == "ports[0].port"
    assert len(snapshot(gateway)) == 2


def test_a_bad_line_leaves_its_app_as_it_is(make_gateway):
    """Also one that cannot be read to its end, or is too long; what no line is of goes, and a good line counts."""
    gateway = make_gateway()
    apps = [document() for _ in range(5)]
    gone = document()
    for app in [*apps, gone]:
        assert gateway.put_app(app).status == 201
    kept = {app["app_id"]: gateway.control("GET", f"/v1/apps/{app['app_id']}").body for app in apps}
    stranger, forbidden, cut, long, mended = apps
    forbidden["instances"][0]["address"] = "9.9.9.9"
    good = [document(), {**mended, "restrict_ports": False, "ports": [{"port": 81}]}]
    lines = [ndjson([{**stranger, "bogus": 1}, forbidden, {**mended, "bogus": 1}, good[0], document(bogus=1)]),
             json.dumps(cut).encode()[:-1] + b"\n", json.dumps(long).encode() + b" " * (1 << 20) + b"!\n", ndjson(good[1:])]
    answer = gateway.control("PUT", "/v1/snapshot", b"".join(lines), Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 2 and answer.json["refused"] == 6, answer
    for _ in range(2):
        assert {app["app_id"] for app in snapshot(gateway)} == {*kept, good[0]["app_id"]}
        for app in apps[:-1]:
            assert gateway.control("GET", f"/v1/apps/{app['app_id']}").body == kept[app["app_id"]]
        assert [it["port"] for it in gateway.control("GET", f"/v1/apps/{mended['app_id']}").json["ports"]] == [81]
        gateway.kill()
        gateway.start()


def test_snapshot_with_conflicts(make_gateway):
    """Each app that is refused for another one is named, though its line is valid."""
    gateway = make_gateway()
    winner, first, second, other = (document() for _ in range(4))
    first["instances"][0]["address"] = winner["instances"][0]["address"]
    second["domains"] = other["domains"] = [{"name": "two.example", "port": other["ports"][0]["port"]}]
    lines = [b"nonsense\n", ndjson([winner, first, other, second])]
    answer = gateway.control("PUT", "/v1/snapshot", b"".join(lines), Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 2 and answer.json["refused"] == 3
    assert {app["app_id"] for app in snapshot(gateway)} == {winner["app_id"], other["app_id"]}
    line, *conflicts = answer.json["errors"]
    assert line["line"] == 1 and "app_id" not in line
    assert [error["app_id"] for error in conflicts] == [first["app_id"], second["app_id"]]
    assert [error["code"] for error in conflicts] == ["claim_conflict", "invalid_record"]
    assert [error["field"] for error in conflicts] == ["instances[0].address", "domains[0].name"]
    assert winner["instances"][0]["instance_id"] in conflicts[0]["detail"] and other["app_id"] in conflicts[1]["detail"]
    strict = gateway.control("PUT", "/v1/snapshot?strict=1", lines[1], Content_Type="application/x-ndjson")
    assert strict.status // 100 == 4 and strict.json["errors"] == conflicts


def test_snapshot_with_many_conflicts(make_gateway):
    gateway = make_gateway()
    apps = [document() for _ in range(150)]
    for app in apps:
        app["instances"][0]["address"] = apps[0]["instances"][0]["address"]
    answer = gateway.control("PUT", "/v1/snapshot", ndjson(apps), Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 1 and answer.json["refused"] == 149
    assert [error["app_id"] for error in answer.json["errors"]] == [app["app_id"] for app in apps[1:101]]


def test_more_apps_than_the_limit(make_gateway):
    """Refused with what is wrong and what would be right; a snapshot takes what fits, and says which lines do not."""
    gateway = make_gateway(limits={"apps": 2})
    apps = [document() for _ in range(4)]
    lines = ndjson(apps)
    answer = gateway.control("PUT", "/v1/snapshot", lines, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 2 and answer.json["refused"] == 2
    assert [error["line"] for error in answer.json["errors"]] == [3, 4]
    assert answer.json["errors"][0]["code"] == "table_full" and "limits.apps" in answer.json["errors"][0]["detail"]
    strict = gateway.control("PUT", "/v1/snapshot?strict=1", lines, Content_Type="application/x-ndjson")
    assert strict.status == 422 and len(snapshot(gateway)) == 2
    refused = gateway.control("PUT", f"/v1/apps/{apps[3]['app_id']}", apps[3])
    assert refused.status == 507 and refused.json["code"] == "table_full"
    assert gateway.control("DELETE", f"/v1/apps/{apps[0]['app_id']}").status == 204
    assert gateway.control("PUT", f"/v1/apps/{apps[3]['app_id']}", apps[3]).status // 100 == 2
    gateway.config["limits"]["apps"] = 3
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200
    assert gateway.control("PUT", f"/v1/apps/{apps[2]['app_id']}", apps[2]).status // 100 == 2


def test_interrupted_snapshot_changes_nothing(make_gateway):
    gateway = make_gateway()
    keep = document()
    gateway.put_app(keep)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    with Connection(sock) as connection:
        connection.send(b"PUT /v1/snapshot HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.send_chunk(ndjson([document() for _ in range(20)]))
    assert gateway.put_app(document()).status == 201
    assert len(snapshot(gateway)) == 2


def test_snapshot_with_flat_memory(make_gateway):
    """20,000 apps in, and out to a reader that is slow: streamed both ways."""
    gateway = make_gateway()
    apps = 20000
    answer = gateway.control("PUT", "/v1/snapshot", (ndjson([document()]) for _ in range(apps)),
                             Content_Type="application/x-ndjson")
    assert answer.json["apps"] == apps
    before = gateway.rss()
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    with Connection(sock) as connection:
        connection.send(b"GET /v1/snapshot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        wait_until(lambda: gateway.control("GET", "/healthz").status == 200, "another call meanwhile")
        assert gateway.rss() - before < 32 << 20
        message = connection.read_response()
    assert message.body.count(b"\n") == apps


def test_concurrent_changes(gateway):
    """Many clients at once: each gets its own answer, and revisions are unique."""
    answers, lock = [], threading.Lock()

    def run():
        for _ in range(20):
            answer = gateway.put_app(document())
            with lock:
                answers.append(answer)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {answer.status for answer in answers} == {201} and len(answers) == 160
    assert len({answer.fields["ETag"] for answer in answers}) == 160


def test_concurrent_changes_of_one_app(gateway):
    """Each answer has the revision of its own change: that of another one would let If-Match pass for what it did."""
    app_id, answers, lock = new_id(), [], threading.Lock()

    def run():
        for _ in range(20):
            answer = gateway.put_app(document(app_id=app_id))
            with lock:
                answers.append(answer)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.status for answer in answers) == [200] * 159 + [201]
    assert len({answer.fields["ETag"] for answer in answers}) == 160
    assert all(answer.fields["ETag"] == f'"{answer.json["revision"]}"' for answer in answers)


def test_resolve(gateway, origin):
    server = origin()
    app = gateway.app(server)
    assert gateway.resolve(app.host())["routes"] is True
    for host, code in [(app.host(port=1), "port_not_published"), (f"{new_id()}.{DOMAIN}", "app_unknown"),
                       ("a.b.test", "host_unknown")]:
        answer = gateway.resolve(host)
        assert answer["routes"] is False and answer["code"] == code and answer["detail"]
    assert gateway.control("GET", "/v1/resolve").json["field"] == "host"


def test_status_and_probes(gateway):
    status = gateway.control("GET", "/v1/status").json
    assert status["ready"] is True and status["draining"] is False
    assert DOMAIN in status["base_domains"] and status["workers"] == 2
    for path in ("/healthz", "/readyz", "/readyz?verbose", "/"):
        assert gateway.control("GET", path).status == 200
    assert gateway.control("HEAD", "/healthz").status == 200


def test_metrics(gateway, origin):
    app = gateway.app(origin())
    before = gateway.metric("requests_total")
    for _ in range(3):
        gateway.fetch("GET", "/", app.host())
    wait_until(lambda: gateway.metric("requests_total") >= before + 3, "the count of requests")
    text = gateway.control("GET", "/metrics").body.decode()
    for line in text.splitlines():
        assert line.startswith("# HELP ") or line.startswith("# TYPE ") or float(line.rsplit(" ", 1)[1]) >= 0, line


def test_not_found_and_methods(gateway):
    assert gateway.control("GET", "/v2/apps").code == "not_found"
    answer = gateway.control("POST", "/v1/apps/a")
    assert answer.status == 405 and "PUT" in answer.fields["Allow"]
    assert gateway.control("GET", "/v1/apps/%zz").status == 400


def test_many_calls_on_a_connection(gateway):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    with Connection(sock) as connection:
        for _ in range(50):
            assert connection.request("GET", "/healthz", "a").status == 200
        assert connection.request("PUT", "/v1/apps/a", "a", b"nonsense").status == 400
        assert connection.request("GET", "/healthz", "a").status == 200


def test_a_bad_line_leaves_alone_also_what_is_made_meanwhile(make_gateway):
    gateway, app, good = make_gateway(), document(), document()
    body = ndjson([{**app, "bogus": 1}, good])
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    with Connection(sock) as upload:
        upload.send(f"PUT /v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body) + 1}\r\n\r\n")
        upload.send(body)
        assert gateway.put_app(app).status == 201
        upload.send(b"\n")
        assert upload.read_response().status == 200
    assert {it["app_id"] for it in snapshot(gateway)} == {app["app_id"], good["app_id"]}


def test_who_waits_before_sending_is_told_to_go_on(make_gateway):
    """And has no more time to send it than others have."""
    gateway, hasty = make_gateway(), make_gateway(timeouts={"request_body_idle": "100ms"})

    def begin(path, gateway=gateway):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(gateway.control_path))
        return Connection(sock).send(
            f"PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    for path in ("/v1/apps/a", "/v1/snapshot?empty=1"):
        with begin(path) as connection:
            go_on = connection.read_head()
            assert (go_on.status, go_on.fields) == (100, [])
            assert connection.send(b"{}" if "apps" in path else b"\n\n").read_response().status // 100 == 2
            assert connection.request("GET", "/healthz", "a").status == 200
        with begin(path, hasty) as silent:
            assert silent.read_head().status == 100
            assert silent.read_response().status == 408 and silent.is_closed()
    with begin("/v1/nothing") as connection:        # nobody would read it
        assert connection.read_response().status == 404 and connection.is_closed()


def test_deadlines_of_apps_are_not_those_of_the_api(make_gateway):
    """An answer may take its time, and a watch is silent between heartbeats; a client's deadlines hold here too."""
    gateway = make_gateway(timeouts={"response_idle": "2s", "first_byte": "1s", "request_body_idle": "1s"})
    with contextlib.closing(UnixConnection(gateway.control_path)) as connection:
        connection.request("GET", "/v1/watch")
        watch = connection.getresponse()
        assert json.loads(watch.readline())["op"] == "heartbeat"
        assert gateway.control("GET", "/v1/top?interval_ms=3000").status == 200
        with contextlib.closing(UnixConnection(gateway.control_path)) as slow:
            slow.putrequest("PUT", "/v1/snapshot")
            slow.putheader("Content-Length", "10")
            slow.endheaders(b"{")
            assert slow.getresponse().status == 408
        assert json.loads(watch.readline())["op"] == "heartbeat"        # the next one


def test_nobody_reads_stderr(make_gateway):
    """A log collector that has stalled costs lines of the log, and nothing else."""
    gateway = make_gateway(start=False)
    gateway.write_config()
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as log:
        with open(writer, "wb", buffering=0) as stderr:
            gateway.process = subprocess.Popen(gateway.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                               stderr=stderr, env={**os.environ, **ENVIRONMENT})
            wait_until(gateway.is_ready, "the gateway to be ready", 60)
            gateway.config_path.write_text("nonsense: 1\n")
            while select.select([], [stderr], [], 0)[1]:
                stderr.write(bytes(select.PIPE_BUF))
        for _ in range(3):
            assert gateway.control("POST", "/v1/reload").status // 100 == 4
        assert gateway.control("GET", "/healthz").status == 200
        while select.select([log], [], [], 0)[0]:
            log.read(1 << 20)
        gateway.control("POST", "/v1/reload")
        assert b" lines are lost here: stderr was full\n" in log.read(1 << 20)
        gateway.stop()


def test_socket_mode(gateway):
    assert gateway.control_path.stat().st_mode & 0o777 == 0o660


def make_secured(folder, authority, **sections):
    certificate, key = authority.issue("control", "IP:127.0.0.1")
    authority.issue("operator", "DNS:operator", usage="clientAuth")
    (folder / "token").write_text("correct-horse-battery-staple\n")
    gateway = Gateway(folder, authority, **sections)
    gateway.mtls_port, gateway.token_port = free_port(), free_port()
    tls = {"certificate": str(certificate), "private_key": str(key)}
    gateway.config["control"] += [
        {"address": f"127.0.0.1:{gateway.mtls_port}", "client_ca": str(authority.ca), **tls},
        {"address": f"127.0.0.1:{gateway.token_port}", "token_file": str(folder / "token"), **tls}]
    return gateway.start()


@pytest.fixture(scope="module")
def secured(tmp_path_factory, authority):
    """A gateway with a control listener for client certificates and one for a token."""
    gateway = make_secured(tmp_path_factory.mktemp("secured"), authority)
    yield gateway
    gateway.stop()


@pytest.fixture
def renewed(tmp_path, authority):
    """The same for one test, which changes its credentials."""
    gateway = make_secured(tmp_path, authority)
    yield gateway
    gateway.stop()


def control_over_tls(gateway, port, method, path, client=False, **fields):
    context = ssl.create_default_context(cafile=gateway.authority.ca)
    if client:
        folder = gateway.authority.folder
        context.load_cert_chain(folder / "operator.pem", folder / "operator.key")
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    return gateway.control(method, path, connection=connection, **fields)


def test_client_certificate(secured):
    assert control_over_tls(secured, secured.mtls_port, "GET", "/v1/apps", client=True).status == 200
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        control_over_tls(secured, secured.mtls_port, "GET", "/v1/apps")


@pytest.mark.parametrize("fields", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "},
                                    {"Authorization": "Basic correct-horse-battery-staple"},
                                    {"Authorization": "Bearer correct-horse-battery-staple2"},
                                    {"Authorization": "Bearer correct-horse-battery-stapl"}])
def test_wrong_token(secured, fields):
    answer = control_over_tls(secured, secured.token_port, "GET", "/v1/apps", **fields)
    assert answer.status == 401 and "Bearer" in answer.fields["WWW-Authenticate"]
    assert answer.code == "unauthorized"


def test_token(secured):
    fields = {"Authorization": "Bearer correct-horse-battery-staple"}
    assert control_over_tls(secured, secured.token_port, "GET", "/v1/apps", **fields).status == 200
    assert control_over_tls(secured, secured.token_port, "GET", "/healthz").status == 200


@pytest.mark.parametrize("token_file", ["-", "/dev/stdin"])
def test_gatewayctl_reads_a_token_once(secured, tmp_path, token_file):
    """So it may come through a pipe, although a command makes several calls."""
    (tmp_path / "compose.yml").write_text("services: {web: {image: a, ports: ['8000:80']}}")
    command = [BUILD / "gatewayctl", "--control", f"https://127.0.0.1:{secured.token_port}", "--cacert",
               secured.authority.ca, "--token-file", token_file]

    def ctl(*arguments, token="correct-horse-battery-staple"):
        return subprocess.run([*command, *arguments], input=f"{token}\n", capture_output=True, text=True, timeout=60,
                              check=False)
    app_id = new_id()
    registered = ctl("compose", tmp_path / "compose.yml", "--app", app_id, "--address", new_address())
    assert registered.returncode == 0 and f"https://{app_id}-8000." in registered.stdout, registered
    assert app_id in ctl("app", "ls").stdout
    wrong = ctl("app", "ls", token="wrong")
    assert wrong.returncode == 1 and "unauthorized" in wrong.stderr, wrong
    none = ctl("app", "ls", token="")
    assert none.returncode == 2 and f"{token_file}: the first line is not a token" in none.stderr, none


def presented_certificate(gateway, port):
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=20))


def test_a_reload_brings_new_tokens(renewed):
    def status(word):
        return control_over_tls(renewed, renewed.token_port, "GET", "/v1/apps", Authorization=f"Bearer {word}").status
    old, new = "correct-horse-battery-staple", "another-horse-battery-staple"
    token = renewed.folder / "token"
    token.write_text(f"{new}\n")
    assert (status(old), status(new)) == (200, 401)
    assert renewed.control("POST", "/v1/reload").json["needs_restart"] == []
    assert (status(old), status(new)) == (401, 200)
    token.write_text("short\n")
    assert renewed.control("POST", "/v1/reload").code == "reload_failed"
    assert (status(old), status(new)) == (401, 200)


def test_a_reload_brings_new_certificates_and_client_cas(renewed, tmp_path_factory):
    def first():
        return presented_certificate(renewed, renewed.token_port)
    other = Authority(tmp_path_factory.mktemp("other"))
    control = renewed.config["control"]
    before = first()
    assert control_over_tls(renewed, renewed.mtls_port, "GET", "/v1/apps", client=True).status == 200
    control[1]["client_ca"] = str(other.ca)
    control[2]["certificate"], control[2]["private_key"] = map(str, other.issue("control", "IP:127.0.0.1"))
    renewed.write_config()
    assert renewed.control("POST", "/v1/reload").json["needs_restart"] == []
    assert first() != before
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        control_over_tls(renewed, renewed.mtls_port, "GET", "/v1/apps", client=True)
    control[1]["address"] = f"127.0.0.1:{free_port()}"
    control[1]["client_ca"] = str(renewed.authority.ca)
    renewed.write_config()
    assert renewed.control("POST", "/v1/reload").json["needs_restart"] == ["control"]


def test_a_reload_renews_the_listeners_that_stay(renewed):
    """The list changes around them: one is gone, one is new, and the order is another."""
    def status(word):
        return control_over_tls(renewed, renewed.token_port, "GET", "/v1/apps", Authorization=f"Bearer {word}").status
    old, new = "correct-horse-battery-staple", "another-horse-battery-staple"
    unix, mtls, token = renewed.config["control"]
    before = presented_certificate(renewed, renewed.token_port)
    token["certificate"], token["private_key"] = map(str, renewed.authority.issue("control2", "IP:127.0.0.1"))
    (renewed.folder / "token").write_text(f"{new}\n")
    renewed.config["control"] = [{**mtls, "address": f"127.0.0.1:{free_port()}"}, token, unix]
    renewed.write_config()
    assert renewed.control("POST", "/v1/reload").json["needs_restart"] == ["control"]
    assert (status(old), status(new)) == (401, 200)
    assert presented_certificate(renewed, renewed.token_port) != before
    assert control_over_tls(renewed, renewed.mtls_port, "GET", "/v1/apps", client=True).status == 200
    renewed.config["control"] = [token, mtls, unix]
    renewed.write_config()
    assert renewed.control("POST", "/v1/reload").json["needs_restart"] == []


def test_a_reload_asks_open_connections_for_certificates_too(renewed):
    """A connection was made while a token was enough; then the listener's callers must show a certificate."""
    context = ssl.create_default_context(cafile=renewed.authority.ca)
    connection = http.client.HTTPSConnection("127.0.0.1", renewed.token_port, context=context, timeout=20)

    def ask(path, **fields):
        connection.request("GET", path, headers=fields)
        return Answer(connection.getresponse())
    with contextlib.closing(connection):
        assert ask("/healthz").status == 200 and connection.sock
        sock = connection.sock
        listener = renewed.config["control"][2]
        token_file = listener.pop("token_file")
        for also in ({}, {"token_file": token_file}):
            listener.update(client_ca=str(renewed.authority.ca), **also)
            renewed.write_config()
            assert renewed.control("POST", "/v1/reload").json["needs_restart"] == []
            answer = ask("/v1/apps", Authorization="Bearer correct-horse-battery-staple")
            assert (answer.status, answer.code) == (421, "misdirected") and "client certificate" in answer.json["detail"]
            assert ask("/healthz").status == 200 and connection.sock is sock
            answer = control_over_tls(renewed, renewed.token_port, "GET", "/v1/apps", client=True,
                                      Authorization="Bearer correct-horse-battery-staple")
            assert answer.status == 200


def test_who_has_not_asked_holds_up_no_end(tmp_path, authority):
    """In the handshake, between two calls, and before the first."""
    gateway = make_secured(tmp_path, authority, timeouts={"handshake": "1h", "keepalive": "1h", "drain": "1h"})
    context = ssl.create_default_context(cafile=gateway.authority.ca)
    with contextlib.ExitStack() as stack:
        silent, first, later = (stack.enter_context(socket.create_connection(("127.0.0.1", gateway.token_port)))
                                for _ in range(3))
        with context.wrap_socket(first, server_hostname="127.0.0.1") as unused, \
             Connection(context.wrap_socket(later, server_hostname="127.0.0.1")) as used:
            assert used.request("GET", "/healthz", "a").status == 200
            gateway.send_signal(signal.SIGTERM)
            assert all(connection.is_closed() for connection in (Connection(silent), Connection(unused), used))
    assert gateway.wait() == 0


def test_control_api_is_not_public(gateway):
    for host in (DOMAIN, f"health.{DOMAIN}", "localhost"):
        with gateway.connect(f"a.{DOMAIN}") as connection:
            answer = connection.request("GET", "/v1/apps", host)
            assert b'"apps"' not in answer.body


def test_an_export_has_every_app_whatever_the_lengths_of_ids(make_gateway):
    gateway = make_gateway()
    ids = sorted({new_id()[:1 + number % 40] for number in range(400)})
    lines = "".join(json.dumps({"app_id": name, "instances": []}) + "\n" for name in ids)
    assert gateway.control("PUT", "/v1/snapshot", lines, Content_Type="application/x-ndjson").status == 200
    exported = gateway.control("GET", "/v1/snapshot").body.splitlines()
    assert [json.loads(line)["app_id"] for line in exported] == ids

"""Changes by revision: POST /v1/changes, snapshots with a revision, and what GET /v1/watch tells of them."""
import json
import signal
import threading
import time

import pytest

from gateway import UnixConnection, new_id
from origin import new_address


def document(**members):
    return {"app_id": new_id(), "instances": [
        {"instance_id": new_id(), "address": new_address(), "generation": 1, "state": "running"}], **members}


def put(revision, app):
    return {"revision": revision, "op": "put", "app": app}


def delete(revision, app):
    return {"revision": revision, "op": "delete", "app_id": app["app_id"]}


def ndjson(lines):
    return "".join(line + "\n" if isinstance(line, str) else json.dumps(line) + "\n" for line in lines).encode()


def push(gateway, *lines, **fields):
    return gateway.control("POST", "/v1/changes", ndjson(lines), **fields)


def outcomes(answer):
    return [result["outcome"] for result in answer.json["results"]]


def revision(gateway):
    return gateway.control("GET", "/v1/status").json["revision"]


def ids(gateway):
    lines = gateway.control("GET", "/v1/snapshot").body.splitlines()
    return {json.loads(line)["app_id"] for line in lines}


class Watch:
    """A reader of /v1/watch."""

    def __init__(self, gateway, since=None, timeout=20):
        self.connection = UnixConnection(gateway.control_path)
        self.connection.timeout = timeout
        self.connection.request("GET", "/v1/watch" + ("" if since is None else f"?since={since}"))
        self.response = self.connection.getresponse()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()
        self.connection.close()

    def line(self):
        return json.loads(self.response.readline())

    def burst(self):
        """The lines up to the next heartbeat that is not alone, and that heartbeat."""
        lines = []
        while True:
            line = self.line()
            if line["op"] != "heartbeat":
                lines.append(line)
            elif lines:
                return lines, line


def test_in_order(gateway):
    first, second = document(), document()
    at = revision(gateway)
    answer = push(gateway, put(at + 1, first), put(at + 2, second), delete(at + 3, first))
    assert answer.status == 200 and outcomes(answer) == ["applied"] * 3
    assert answer.json["revision"] == at + 3 == revision(gateway)
    assert [r["revision"] for r in answer.json["results"]] == [at + 1, at + 2, at + 3]
    assert gateway.control("GET", f"/v1/apps/{second['app_id']}").fields["ETag"] == f'"{at + 2}"'
    assert gateway.control("GET", f"/v1/apps/{first['app_id']}").status == 404


def test_without_revisions(gateway):
    apps = [document() for _ in range(3)]
    answer = push(gateway, *({"op": "put", "app": app} for app in apps))
    assert outcomes(answer) == ["applied"] * 3
    got = [r["revision"] for r in answer.json["results"]]
    assert got == [got[0], got[0] + 1, got[0] + 2]


def test_repeats_are_ignored(gateway):
    app = document()
    at = revision(gateway)
    lines = put(at + 1, app), put(at + 2, {**app, "restrict_ports": True})
    assert outcomes(push(gateway, *lines)) == ["applied", "applied"]
    again = push(gateway, *lines)
    assert again.status == 200 and outcomes(again) == ["ignored", "ignored"] and again.json["revision"] == at + 2
    assert "changed since" in again.json["results"][0]["detail"] and "known already" in again.json["results"][1]["detail"]
    assert gateway.control("GET", f"/v1/apps/{app['app_id']}").json["restrict_ports"] is True


def test_repeats_of_deletes_of_no_app_are_ignored(gateway):
    at, app = revision(gateway), document()
    lines = delete(at + 1, document()), put(at + 2, app)
    assert outcomes(push(gateway, *lines)) == ["ignored", "applied"]
    again = push(gateway, *lines)
    assert outcomes(again) == ["ignored", "ignored"] and revision(gateway) == at + 2
    assert again.json["results"][0]["code"] == "app_unknown"
    # What is there is not deleted by an old number, nor is a line that cannot be read a delete.
    odd = {"revision": at + 1, "op": "put", "app": {"app_id": new_id(), "bogus": 1}}
    assert outcomes(push(gateway, delete(at + 1, app), odd)) == ["ignored", "refused"]
    assert app["app_id"] in ids(gateway)


def test_a_deleted_app_stays_deleted(make_gateway):
    gateway = make_gateway()
    app = document()
    assert outcomes(push(gateway, put(1, app), delete(2, app))) == ["applied", "applied"]
    for _ in range(2):
        late = push(gateway, put(1, app))
        assert outcomes(late) == ["ignored"] and "revision 2" in late.json["results"][0]["detail"]
        assert ids(gateway) == set()
        gateway.kill()
        gateway.start()
    assert outcomes(push(gateway, put(3, app))) == ["applied"]
    assert ids(gateway) == {app["app_id"]}


def test_gap(gateway):
    first, second, third = document(), document(), document()
    at = revision(gateway)
    answer = push(gateway, put(at + 1, first), put(at + 3, second), put(at + 4, third))
    assert answer.status == 409 and answer.code == "revision_gap" and answer.json["revision"] == at + 1
    assert outcomes(answer) == ["applied", "refused", "refused"]
    assert {r.get("code") for r in answer.json["results"]} == {None, "revision_gap"}
    assert first["app_id"] in ids(gateway) and not {second["app_id"], third["app_id"]} & ids(gateway)
    assert outcomes(push(gateway, put(at + 2, third), put(at + 3, second))) == ["applied", "applied"]


def test_a_revision_that_was_another_change(gateway):
    gateway.put_app(document())
    at = revision(gateway)
    app = document()
    answer = push(gateway, put(at, app))
    assert outcomes(answer) == ["refused"] and answer.json["results"][0]["code"] == "revision_taken"
    assert app["app_id"] not in ids(gateway)


def test_a_bad_line_is_refused_alone(gateway):
    good, bad, last = document(), document(), document()
    bad["instances"][0]["address"] = "169.254.169.254"
    at = revision(gateway)
    answer = push(gateway, put(at + 1, good), put(at + 2, bad), put(at + 3, {"app_id": "x", "ports": 7}),
                  put(at + 4, last))
    assert answer.status == 200 and outcomes(answer) == ["applied", "refused", "refused", "applied"]
    assert answer.json["applied"] == 2 and answer.json["refused"] == 2 and answer.json["revision"] == at + 4
    assert answer.json["results"][1]["field"] == "instances[0].address"
    assert answer.json["results"][2]["field"] == "app.ports" and answer.json["results"][2]["app_id"] == "x"


@pytest.mark.parametrize("line, field", [
    ("{", ""), ("[]", ""), ('{"op":"put"}', "app"), ('{"op":"delete"}', "app_id"), ('{"op":"erase"}', "op"),
    ('{"op":"heartbeat","digest":"0123456789abcdef"}', "op"), ('{"op":"delete","app_id":"a","b":1}', "b"),
    ('{"op":"put","app":[]}', "app"), ('{"op":"delete","app_id":"a","revision":-1}', "revision"),
    (f'{{"op":"delete","app_id":"a","revision":{2**62 + 1}}}', "revision"),
    (f'{{"op":"put","app":{{"app_id":"a","revision":{2**63 - 1}}}}}', "app.revision"),
])
def test_malformed_lines(gateway, line, field):
    answer = push(gateway, line)
    assert answer.status == 200 and outcomes(answer) == ["refused"]
    assert answer.json["results"][0].get("field", "") == field and answer.json["results"][0]["detail"]


def unreadable_lines(at):
    return {"nul in a text": '{"op":"put","revision":%d,"app":{"app_id":"x\\u0000"}}' % at,
            "unknown op": '{"op":"rename","revision":%d}' % at,
            "repeated member": '{"op":"put","op":"put","revision":%d}' % at,
            "too long": '{"op":"put","revision":%d,"app":{"app_id":"%s"}}' % (at, "x" * (1100 << 10)),
            "bad revision": '{"op":"put","revision":"%d"}' % at,
            "no JSON": "what?"}


@pytest.mark.parametrize("kind", unreadable_lines(0))
def test_an_unreadable_line_uses_its_revision_up(gateway, kind):
    at, a, b = revision(gateway), document(), document()
    bad = unreadable_lines(at + 2)[kind]
    answer = push(gateway, put(at + 1, a), bad, put(at + 3, b))
    assert outcomes(answer) == ["applied", "refused", "applied"] and answer.status == 200
    assert [result["revision"] for result in answer.json["results"]] == [at + 1, at + 2, at + 3]
    assert revision(gateway) == at + 3 and {a["app_id"], b["app_id"]} <= ids(gateway)
    again = push(gateway, put(at + 1, a), bad, put(at + 3, b))
    assert outcomes(again) == ["ignored", "refused", "ignored"] and again.status == 200
    assert revision(gateway) == at + 3


def test_many_unreadable_lines_use_their_revisions_up(gateway):
    at, a, b, c = revision(gateway), document(), document(), document()
    bad = [unreadable_lines(at + number)[kind] for number, kind in enumerate(unreadable_lines(0), 1)]
    answer = push(gateway, *bad, put(at + 7, a), "what?", "what?", put(at + 10, b))
    assert outcomes(answer) == ["refused"] * 6 + ["applied", "refused", "refused", "applied"]
    assert answer.status == 200 and revision(gateway) == at + 10
    assert [result["revision"] for result in answer.json["results"]] == list(range(at + 1, at + 11))
    # What does not fit together is a gap as before, and nothing is used up.
    answer = push(gateway, "what?", put(at + 13, c))
    assert answer.status == 409 and revision(gateway) == at + 10
    assert [result["code"] for result in answer.json["results"]] == ["invalid_json", "revision_gap"]
    answer = push(gateway, "what?", put(at + 11, c))
    assert outcomes(answer) == ["refused", "applied"] and revision(gateway) == at + 11


def test_unreadable_lines_among_others_without_revisions(gateway):
    at, a = revision(gateway), document()
    answer = push(gateway, "what?", {"op": "put", "app": a}, "what?")
    assert outcomes(answer) == ["refused", "applied", "refused"] and revision(gateway) == at + 1


def test_own_changes_go_on_after_the_greatest_revision(make_gateway):
    """Nobody else may set the table to a later one, but the gateway itself still counts on; test_sync follows it."""
    gateway = make_gateway()
    first, second = document(), document()
    limit = 2**61
    answer = gateway.control("PUT", f"/v1/snapshot?revision={limit}", ndjson([first]))
    assert answer.status == 200 and revision(gateway) == limit
    late = push(gateway, put(limit + 1, second))
    assert outcomes(late) == ["refused"] and str(limit) in late.json["results"][0]["detail"]
    assert gateway.put_app(second).status == 201
    for _ in range(2):
        assert revision(gateway) == limit + 1 and ids(gateway) == {first["app_id"], second["app_id"]}
        gateway.kill()
        gateway.start()


def test_what_supersedes_counts_as_one_change(gateway):
    old, new = document(), document()
    at = revision(gateway)
    new["instances"][0].update(address=old["instances"][0]["address"], generation=2)
    assert outcomes(push(gateway, put(at + 1, old), put(at + 2, new))) == ["applied", "applied"]
    loser = gateway.control("GET", f"/v1/apps/{old['app_id']}").json
    assert loser["revision"] == at + 2 == revision(gateway) and loser["instances"][0]["state"] == "stopped"


def test_if_match_on_the_table(gateway):
    at = revision(gateway)
    assert push(gateway, put(at + 1, document()), If_Match=f'"{at}"').status == 200
    late = push(gateway, put(at + 2, document()), If_Match=f'"{at}"')
    assert late.status == 412 and late.code == "revision_conflict" and late.json["revision"] == at + 1
    snapshot = gateway.control("PUT", "/v1/snapshot", ndjson([document()]), If_Match=f'"{at}"')
    assert snapshot.status == 412 and revision(gateway) == at + 1


def test_if_match_on_a_table_that_has_never_changed(make_gateway):
    gateway = make_gateway()
    etag = gateway.control("GET", "/v1/snapshot").fields["ETag"]
    assert etag == '"0"'
    first = gateway.control("PUT", "/v1/snapshot", ndjson([document()]), If_Match=etag)
    assert first.status == 200 and first.json["revision"] == 1, first
    for answer in (gateway.control("PUT", "/v1/snapshot", ndjson([document()]), If_Match=etag),
                   push(gateway, put(2, document()), If_Match=etag)):
        assert answer.status == 412 and answer.code == "revision_conflict" and revision(gateway) == 1, answer
    other = make_gateway()
    assert push(other, put(1, document()), If_Match='"18446744073709551615"').status == 412
    assert push(other, put(1, document()), If_Match=etag).status == 200 and revision(other) == 1


def test_too_many_lines(gateway):
    line = json.dumps({"op": "delete", "app_id": "nobody"})
    answer = push(gateway, *[line] * 10001)
    assert answer.status == 413 and "10000 lines" in answer.json["detail"]
    answer = push(gateway, *[line] * 10000)
    assert answer.status == 200 and answer.json["ignored"] == 10000


def test_longest_document(make_gateway):
    """What PUT takes, a snapshot and a line of changes take too."""
    gateway = make_gateway()
    app = document()
    text = json.dumps(app).encode()
    text = text[:-1] + b" " * ((1 << 20) - len(text)) + text[-1:]
    assert gateway.control("PUT", f"/v1/apps/{app['app_id']}", text).status == 201
    assert gateway.control("PUT", "/v1/snapshot", text + b"\n").json["apps"] == 1
    at = revision(gateway)
    line = b'{"revision": %d, "op": "put", "app": %s}\n'
    answer = gateway.control("POST", "/v1/changes", line % (at + 1, text) + line % (at + 2, b" " * 2048 + text))
    assert outcomes(answer) == ["applied", "refused"], answer
    assert answer.json["results"][1]["code"] == "payload_too_large"


def test_no_line(gateway):
    assert push(gateway).code == "invalid_json"


def test_concurrent_pushers_keep_their_order(make_gateway):
    gateway = make_gateway()
    apps = [[document() for _ in range(20)] for _ in range(4)]
    failed = []

    def run(mine):
        for app in mine:
            for restrict in (True, False, True):
                answer = push(gateway, {"op": "put", "app": {**app, "restrict_ports": restrict}})
                if outcomes(answer) != ["applied"]:
                    failed.append(answer)

    with Watch(gateway, 0) as watch:
        assert watch.line()["op"] == "heartbeat"
        threads = [threading.Thread(target=run, args=(mine,)) for mine in apps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed and revision(gateway) == 4 * 20 * 3
        seen, at = [], 0
        while at < 4 * 20 * 3:
            line = watch.line()
            if line["op"] == "put":
                seen.append(line["revision"])
            else:
                at = line["revision"]
        assert seen == sorted(seen)
    assert ids(gateway) == {app["app_id"] for mine in apps for app in mine}
    stored = gateway.control("GET", "/v1/snapshot").body.splitlines()
    assert all(json.loads(text)["restrict_ports"] for text in stored)


# ---- snapshots ----


def test_snapshot_takes_a_revision(make_gateway):
    gateway = make_gateway()
    apps = [document() for _ in range(3)]
    loaded = gateway.control("PUT", "/v1/snapshot?revision=500", ndjson(apps))
    assert loaded.status == 200 and loaded.json["revision"] == 500 == revision(gateway)
    export = gateway.control("GET", "/v1/snapshot")
    assert export.fields["ETag"] == '"500"'
    assert {json.loads(line)["revision"] for line in export.body.splitlines()} == {500}
    assert gateway.control("PUT", "/v1/snapshot?revision=500", ndjson(apps)).status == 200
    for old in (500, 499):
        late = gateway.control("PUT", f"/v1/snapshot?revision={old}", ndjson(apps[:1]))
        assert late.status == 409 and late.code == "revision_taken"
    assert len(ids(gateway)) == 3
    assert outcomes(push(gateway, put(501, document()))) == ["applied"]
    assert gateway.control("PUT", "/v1/snapshot?revision=x", ndjson(apps)).json["field"] == "revision"
    for huge in (2**61 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**64):    # the next ones must be numbers everywhere too
        answer = gateway.control("PUT", f"/v1/snapshot?revision={huge}", ndjson(apps))
        assert answer.code == "invalid_parameter" and f"1 to {2**61}" in answer.json["detail"]
    assert gateway.control("PUT", "/v1/snapshot?revision=600", ndjson(apps)).json["revision"] == 600
    assert {json.loads(line)["revision"] for line in gateway.control("GET", "/v1/snapshot").body.splitlines()} == {500}


def test_lines_do_not_give_greater_revisions_than_snapshots(gateway):
    for huge in (2**61 + 1, 2**62):
        result = push(gateway, put(huge, document())).json["results"][0]
        assert result["field"] == "revision" and result["code"] == "invalid_record" and str(2**61) in result["detail"]


def test_an_empty_snapshot_must_be_meant(make_gateway, tmp_path):
    gateway = make_gateway()
    empty = tmp_path / "empty"
    empty.write_text("")
    assert gateway.gatewayctl("snapshot", "load", empty).returncode == 0      # nothing there, nothing lost
    gateway.put_app(document())
    refused = gateway.control("PUT", "/v1/snapshot", b"\n")
    assert refused.status == 422 and "empty=1" in refused.json["detail"]
    result = gateway.gatewayctl("snapshot", "load", empty)
    assert result.returncode == 1 and "nothing was changed" in result.stderr
    assert gateway.gatewayctl("snapshot", "load", tmp_path).returncode != 0   # a folder cannot be read
    assert len(ids(gateway)) == 1
    assert gateway.gatewayctl("snapshot", "load", "--empty", empty).returncode == 0
    assert ids(gateway) == set()


def test_an_export_is_of_one_state(make_gateway):
    """What changes while it is read, before and behind the place where it is, does not show."""
    gateway = make_gateway()
    pad = [{"name": f"{'n' * 60}.{'m' * 60}.{i}.", "port": 80} for i in range(20)]
    apps = [document(domains=[{**domain, "name": f"{domain['name']}{number}.example"} for domain in pad])
            for number in range(3000)]
    assert gateway.control("PUT", "/v1/snapshot", ndjson(apps)).json["apps"] == 3000
    before = gateway.control("GET", "/v1/snapshot")
    connection = UnixConnection(gateway.control_path)
    connection.request("GET", "/v1/snapshot")
    response = connection.getresponse()
    lines = [response.readline()]
    moving = sorted(apps, key=lambda app: app["app_id"])
    for step in range(0, 3000, 30):
        old, gone, later = moving[step], moving[step + 10], moving[step + 20]
        answer = push(gateway, {"op": "put", "app": {"app_id": old["app_id"]}},
                      {"op": "delete", "app_id": gone["app_id"]}, {"op": "put", "app": document()},
                      {"op": "put", "app": {**later, "restrict_ports": True}},
                      {"op": "delete", "app_id": later["app_id"]})
        assert outcomes(answer) == ["applied"] * 5
    lines += response.readlines()
    connection.close()
    assert response.headers["ETag"] == before.fields["ETag"]
    assert sorted(lines) == sorted(before.body.splitlines(keepends=True))
    assert len(ids(gateway)) == 2900


# ---- watch ----


def test_watch(make_gateway):
    gateway = make_gateway()
    apps = [document() for _ in range(3)]
    push(gateway, *(put(i + 1, app) for i, app in enumerate(apps)))
    with Watch(gateway, 1) as watch:
        lines, beat = watch.burst()
        assert [(line["revision"], line["op"], line["app"]["app_id"]) for line in lines] == [
            (2, "put", apps[1]["app_id"]), (3, "put", apps[2]["app_id"])]
        assert beat["revision"] == 3 and beat["apps"] == 3
        push(gateway, delete(4, apps[0]))
        lines, later = watch.burst()
        assert lines == [{"revision": 4, "op": "delete", "app_id": apps[0]["app_id"]}]
        assert later["apps"] == 2 and later["digest"] != beat["digest"]
        push(gateway, put(5, apps[0]), delete(6, apps[0]))
        lines, last = watch.burst()
        assert lines == [{"revision": 6, "op": "delete", "app_id": apps[0]["app_id"]}]
        assert last["digest"] == later["digest"]
    with Watch(gateway) as watch:
        assert watch.line() == last


def test_watch_after_a_restart(make_gateway):
    gateway = make_gateway()
    apps = [document() for _ in range(4)]
    push(gateway, *(put(i + 1, app) for i, app in enumerate(apps)), delete(5, apps[1]), put(6, apps[0]))
    with Watch(gateway, 6) as watch:
        before = watch.line()
    gateway.stop(signal.SIGTERM)
    gateway.start()
    with Watch(gateway, 2) as watch:
        lines, beat = watch.burst()
        assert beat == before
        assert sorted((line["revision"], line["op"]) for line in lines) == [
            (3, "put"), (4, "put"), (5, "delete"), (6, "put")]


def test_watch_of_what_is_not_known(make_gateway):
    gateway = make_gateway()
    push(gateway, put(1, document()))
    ahead = gateway.control("GET", "/v1/watch?since=2")
    assert ahead.status == 410 and ahead.code == "revision_gone" and ahead.json["revision"] == 1
    assert gateway.control("GET", "/v1/watch?since=x").json["field"] == "since"
    assert gateway.control("GET", "/v1/watch?sinse=1").code == "invalid_parameter"


def test_watch_a_whole_table_replaced(make_gateway):
    """More changes at once than the ring holds: the reader is served from the table."""
    gateway = make_gateway()
    push(gateway, put(1, document()))
    with Watch(gateway, 1, timeout=120) as watch:
        assert watch.line()["op"] == "heartbeat"
        apps = [{"app_id": new_id()} for _ in range(70000)]
        assert gateway.control("PUT", "/v1/snapshot", ndjson(apps)).status == 200
        lines, beat = watch.burst()
        assert {line["app"]["app_id"] for line in lines if line["op"] == "put"} == {app["app_id"] for app in apps}
        assert len([line for line in lines if line["op"] == "delete"]) == 1
        assert beat["apps"] == 70000 and beat["revision"] == 2


def test_deletions_reach_a_slow_reader_though_they_are_forgotten(make_gateway):
    """65,536 tombstones are kept, and as many changes: a change may outlive its tombstone."""
    gateway = make_gateway()
    early, late = ([{"app_id": new_id()} for _ in range(count)] for count in (641, 8 * 8112))
    assert gateway.control("PUT", "/v1/snapshot", ndjson(early + late)).status == 200
    with Watch(gateway, timeout=120) as watch:
        assert watch.line()["op"] == "heartbeat"
        push(gateway, *({"op": "delete", "app_id": app["app_id"]} for app in early))
        assert len(watch.burst()[0]) == len(early)
        # More than the socket takes, so that the reader is behind from here on.
        pad = [{"name": f"{'n' * 60}.{'m' * 60}.{i}.", "port": 80} for i in range(100)]
        big = [document(domains=[{**domain, "name": f"{domain['name']}{number}.example"} for domain in pad])
               for number in range(200)]
        push(gateway, *({"op": "put", "app": app} for app in big))
        for start in range(0, len(late), 8112):
            lines = [{"op": "delete", "app_id": app["app_id"]} for app in late[start:start + 8112]]
            assert push(gateway, *lines).json["applied"] == 8112
        end = push(gateway, {"op": "put", "app": document()}).json["revision"]
        assert gateway.control("GET", "/v1/watch?since=100").code == "revision_gone"    # some are forgotten
        deleted, line = set(), {"op": ""}
        while line["op"] != "heartbeat" or line["revision"] < end:
            line = watch.line()
            assert line["op"] != "end", line
            if line["op"] == "delete":
                deleted.add(line["app_id"])
        assert deleted == {app["app_id"] for app in late}
        assert line["apps"] == len(ids(gateway)) == len(big) + 1


def test_a_reader_that_takes_nothing_does_not_cost_memory(make_gateway):
    gateway = make_gateway()
    with Watch(gateway, 0) as idle:
        before = gateway.rss()
        apps = [document(domains=[{"name": f"{'x' * 50}-{i}.example.com", "port": 80}]) for i in range(500)]
        for _ in range(20):
            answer = push(gateway, *({"op": "put", "app": app} for app in apps))
            assert answer.json["applied"] == 500
        assert gateway.rss() - before < 64 << 20
        last, line = 0, None
        while last < 10000:
            line = idle.line()
            last = line["revision"] if line["op"] == "heartbeat" else last
        assert line["apps"] == 500


def test_readers_that_leave_are_forgotten(make_gateway):
    """Their timers too, which would have fired in memory that is used again (the sanitizers look)."""
    gateway = make_gateway()
    gone = time.monotonic()
    for _ in range(20):
        with Watch(gateway):
            put_one(gateway)
        gone = time.monotonic()
    while time.monotonic() < gone + 11:     # a heartbeat and more
        put_one(gateway)
        time.sleep(0.05)


def put_one(gateway):
    app = document()
    assert gateway.control("PUT", f"/v1/apps/{app['app_id']}", app).status == 201

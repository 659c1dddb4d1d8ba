"""Following a member of etcd that says what its test wants: several changes at once, late answers, nonsense."""
import base64
import concurrent.futures
import json
import sqlite3
import subprocess
import threading
import time
from contextlib import closing

import pytest

from custom_certificates import Issuer
from etcd_script import PREFIX, ScriptedEtcd
from gateway import BUILD, new_id
from origin import Origin
from test_changes import Watch
from test_etcd import app_of, document, etcdctl, idle, is_following, served, state, wait_for, wait_gone
from wire import wait_until

TIMEOUT = 60


@pytest.fixture
def script():
    made = ScriptedEtcd()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server():
    made = Origin()
    yield made
    made.close()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("custom"))


@pytest.fixture
def follow(make_gateway, script, tmp_path):
    """follow(…): a gateway with a fleet key, once it follows the script."""
    def make(wait=True, **sections):
        key = tmp_path / "fleet.key"
        key.write_text("6b" * 32 + "\n")
        gateway = make_gateway(workers=1, start=False, **sections,
                               sync={"etcd": {"endpoints": script.urls, "fleet_key_file": str(key)}})
        gateway.start(ready=wait)
        if wait:
            wait_following(gateway)
        return gateway
    return make


def wait_following(gateway):
    wait_until(lambda: is_following(gateway), "the gateway to follow etcd", TIMEOUT)


def wait_probe(script):
    """What was sent before it has been read by then."""
    probes = script.count("/v3/kv/range", "format")
    wait_until(lambda: script.count("/v3/kv/range", "format") > probes, "a probe", TIMEOUT)


def decoded(text):
    return base64.b64decode(text).decode()


def put_app(script, app):
    return script.put(key_of(app), app)


def key_of(app):
    return f"apps/{app['app_id']}"


def key_bytes(app):
    return (PREFIX + key_of(app)).encode()


def change_store(gateway, sql):
    """While the gateway is stopped."""
    with closing(sqlite3.connect(gateway.folder / "state" / "routes.db")) as database:
        database.execute(sql)


def store_slowly(gateway, app):
    change_store(gateway, f"""CREATE TRIGGER slow BEFORE INSERT ON apps WHEN new.app_id = '{app["app_id"]}' BEGIN
        WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 3000000)
        SELECT count(*) FROM counted; END""")


# ---- several changes at once ----

def test_a_certificate_that_is_deleted_at_once_is_not_served(script, follow, issuer):
    gateway = follow()
    name, marker = "quick.example.com", "marker.example.com"
    path = f"/v1/certificates/{name}"
    assert gateway.control("PUT", path, issuer.issue(name).document).status == 201
    value = script.kvs[f"{PREFIX}certificates/{name}".encode()][0].decode()
    assert gateway.control("DELETE", path).status == 204
    script.hold()
    script.put(f"certificates/{name}", value)
    script.put(f"certificates/{name}", {"deleted": True})
    script.release()
    # Certificates are applied one after the other: when this one is, both were.
    assert gateway.control("PUT", f"/v1/certificates/{marker}", issuer.issue(marker).document).status == 201
    assert served(gateway, issuer, marker)
    assert gateway.control("GET", path).status == 404
    assert served(gateway, issuer, name) is None


def test_certificates_that_cannot_be_stored_come_later(script, follow, issuer):
    gateway = follow()
    names = ["late.example.com", "gone.example.com"]
    for name in names:
        assert gateway.control("PUT", f"/v1/certificates/{name}", issuer.issue(name).document).status == 201
    late, gone = (script.kvs[f"{PREFIX}certificates/{name}".encode()][0].decode() for name in names)
    assert gateway.control("DELETE", f"/v1/certificates/{names[0]}").status == 204
    gateway.stop()
    # Nothing is stored until this app is there.
    opener = idle()
    for event in ("INSERT", "DELETE"):
        change_store(gateway, f"""CREATE TRIGGER on_{event} BEFORE {event} ON certificates
            WHEN NOT EXISTS (SELECT 1 FROM apps WHERE app_id = '{opener["app_id"]}')
            BEGIN SELECT RAISE(ABORT, 'the disk is full'); END""")
    gateway.start()
    wait_following(gateway)
    script.put(f"certificates/{names[0]}", late)
    script.put(f"certificates/{names[1]}", gone)        # the same again
    script.put(f"certificates/{names[1]}", {"deleted": True})
    for name in names:
        wait_until(lambda: f"the certificate of {name} could not be applied" in gateway.stderr(),    # pylint: disable=W0640
                   "the failure to be said", TIMEOUT)
    assert state(gateway)["left_out"] == 2
    assert served(gateway, issuer, names[0]) is None and served(gateway, issuer, names[1])
    put_app(script, opener)
    wait_until(lambda: served(gateway, issuer, names[0]), "the certificate to come", TIMEOUT)
    wait_until(lambda: served(gateway, issuer, names[1]) is None, "the certificate to go", TIMEOUT)
    wait_until(lambda: state(gateway)["left_out"] == 0, "nothing to be left out", TIMEOUT)


def test_a_ticket_key_that_was_not_heard_of_is_read_when_it_is_missed(script, follow):
    """As after a clock that was far behind."""
    def answer(body):
        if "range_end" not in body:
            return None
        loaded = {"header": script.header()}
        period = int(time.time()) // 3600
        for number in (period, period + 1):
            script.put(f"tickets/{number:010}", "of another fleet", silent=True)
        return loaded
    script.on_range = answer
    gateway = follow()
    wait_until(lambda: state(gateway)["left_out"] > 0, "the key to be read", TIMEOUT)


def test_what_was_no_good_and_is_gone_is_not_counted(script, follow):
    script.put("certificates/bad.example.com", "{}")
    gateway = follow()
    assert state(gateway)["left_out"] == 1
    script.delete("certificates/bad.example.com", silent=True)
    script.compacted = script.revision
    script.drop()
    wait_until(lambda: gateway.metric("etcd_loads_total") == 2, "everything to be loaded again", TIMEOUT)
    wait_until(lambda: state(gateway)["left_out"] == 0, "nothing to be left out", TIMEOUT)


def test_a_certificate_that_is_no_good_can_be_deleted(script, follow):
    key = "certificates/bad.example.com"
    script.put(key, "{}")
    gateway = follow()
    assert state(gateway)["left_out"] == 1
    assert gateway.control("DELETE", "/v1/certificates/worse.example.com").code == "certificate_unknown"
    assert gateway.control("DELETE", f"/v1/{key}").status == 204
    assert json.loads(script.kvs[(PREFIX + key).encode()][0]) == {"deleted": True}
    assert state(gateway)["left_out"] == 0
    assert gateway.control("DELETE", f"/v1/{key}").code == "certificate_unknown"


# ---- apps that are in each other's way ----

@pytest.fixture
def rivals(server):
    """Two apps that claim the same address; the first one that comes has it."""
    first, second = document(server), document(server)
    second["instances"][0]["address"] = first["instances"][0]["address"]
    return first, second


def begin_conflict(gateway, script, first, second):
    put_app(script, first)
    wait_for(gateway, first["app_id"])
    put_app(script, second)
    wait_until(lambda: state(gateway)["left_out"] == 1, "the second app to be left out", TIMEOUT)


def test_an_app_whose_address_is_freed_at_once_comes(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    put_app(script, first)
    wait_for(gateway, first["app_id"])
    script.hold()
    revision = put_app(script, second)
    script.delete(key_of(first))
    script.release()
    wait_for(gateway, second["app_id"], revision)
    assert app_of(gateway, first["app_id"]) is None
    wait_until(lambda: state(gateway)["left_out"] == 0, "nothing to be left out", TIMEOUT)


@pytest.mark.parametrize("then", ["corrected", "deleted", "no good"])
def test_a_conflict_that_is_over_before_it_is_found_is_not_counted(script, follow, rivals, then):
    first, second = rivals
    gateway = follow()
    put_app(script, first)
    wait_for(gateway, first["app_id"])
    script.hold()
    put_app(script, second)
    if then == "corrected":
        put_app(script, idle(second["app_id"]))
    elif then == "no good":
        put_app(script, {"app_id": second["app_id"], "ports": 5})
    else:
        script.delete(key_of(second))
    script.release()
    marker = idle()
    wait_for(gateway, marker["app_id"], put_app(script, marker))
    text = f"app {second['app_id']} at revision"
    said = [line for line in gateway.stderr().splitlines() if text in line]
    assert len(said) == (then == "no good") and all("is left out: ports" in line for line in said)
    assert state(gateway)["left_out"] == len(said)
    assert bool(app_of(gateway, second["app_id"])) == (then == "corrected")


def test_a_watch_misses_nothing_when_an_app_comes_late(script, follow, rivals):
    """It has a smaller revision than what was told before: the watch begins anew."""
    first, second = rivals
    gateway = follow()
    begin_conflict(gateway, script, first, second)
    since = put_app(script, idle())
    wait_until(lambda: state(gateway)["revision"] == since, "the other app", TIMEOUT)
    with Watch(gateway, since) as watch:
        assert watch.line()["op"] == "heartbeat"
        script.delete(key_of(first))
        assert watch.line()["app_id"] == first["app_id"]
        line = watch.line()
        while line["op"] == "heartbeat":
            line = watch.line()
        assert (line["op"], line["code"]) == ("end", "revision_gone")
    assert app_of(gateway, second["app_id"])
    last = put_app(script, idle())
    wait_until(lambda: state(gateway)["revision"] == last, "the last app", TIMEOUT)
    assert gateway.control("GET", f"/v1/watch?since={since}").code == "revision_gone"
    revisions = [app["revision"] for app in map(json.loads, gateway.control("GET", "/v1/snapshot").body.splitlines())]
    assert min(revisions) < since < max(revisions) == last


def test_a_conflict_is_looked_at_once_for_each_change(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    begin_conflict(gateway, script, first, second)

    def looks():
        return script.count("/v3/kv/range", key_of(second))
    wait_until(looks, "the app to be tried again", TIMEOUT)
    wait_probe(script)      # there is time for more than one look between two of them
    wait_probe(script)
    assert looks() == 1
    put_app(script, idle())
    wait_until(lambda: looks() == 2, "another try", TIMEOUT)


def test_a_try_that_fails_is_not_the_last(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    begin_conflict(gateway, script, first, second)
    failed = []

    def answer(body):
        if decoded(body["key"]).endswith(second["app_id"]) and len(failed) < 2:
            failed.append(body)
            return {"kvs": 5}
        return None
    script.on_range = answer
    script.delete(key_of(first))
    wait_for(gateway, second["app_id"])
    assert len(failed) == 2


def test_an_address_that_is_freed_before_the_member_goes_away(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    begin_conflict(gateway, script, first, second)
    script.delete(key_of(first))
    wait_gone(gateway, first["app_id"])
    script.away = True
    script.drop()
    # With the pauses between these attempts it is away for longer than an app waits to be tried again.
    before = script.count("/v3/watch")
    wait_until(lambda: script.count("/v3/watch") >= before + 6, "attempts to reach it", TIMEOUT)
    assert app_of(gateway, second["app_id"]) is None
    script.away = False
    wait_for(gateway, second["app_id"])


def hold_answer(script, app):
    """(asked, go_on): the answer about this app is made when it is asked for, and sent when the test wants it."""
    asked, go_on = threading.Event(), threading.Event()

    def answer(body):
        if base64.b64decode(body["key"]) != key_bytes(app):
            return None
        kvs = [script.kv(key_bytes(app))] if key_bytes(app) in script.kvs else []
        made = {"header": script.header(), "kvs": kvs, "count": str(len(kvs))}
        asked.set()
        assert go_on.wait(TIMEOUT)
        return made
    script.on_range = answer
    return asked, go_on


def test_a_late_answer_does_not_bring_a_deleted_app_back(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    asked, go_on = hold_answer(script, second)
    begin_conflict(gateway, script, first, second)
    assert asked.wait(TIMEOUT)
    script.delete(key_of(first))
    script.delete(key_of(second))
    wait_until(lambda: state(gateway)["left_out"] == 0, "the deletion to arrive", TIMEOUT)
    go_on.set()
    wait_probe(script)
    assert app_of(gateway, second["app_id"]) is None


def test_a_late_answer_does_not_hide_an_app_that_came_back(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    begin_conflict(gateway, script, first, second)
    script.delete(key_of(second), silent=True)
    asked, go_on = hold_answer(script, second)
    put_app(script, idle())
    assert asked.wait(TIMEOUT)      # and it is not there
    revision = put_app(script, second)
    wait_until(lambda: f"app {second['app_id']} at revision {revision} is left out" in gateway.stderr(),
               "the new conflict to be said", TIMEOUT)
    go_on.set()
    wait_probe(script)
    assert state(gateway)["left_out"] == 1
    script.delete(key_of(first))
    wait_for(gateway, second["app_id"], revision)


def test_a_revision_in_parts_is_not_taken_by_halves(script, follow, rivals):
    first, second = rivals
    gateway = follow()
    asked, go_on = hold_answer(script, second)
    begin_conflict(gateway, script, first, second)
    assert asked.wait(TIMEOUT)
    script.delete(key_of(first))
    wait_gone(gateway, first["app_id"])
    one, other = idle(), idle()
    with script.changed:
        script.revision += 1
        revision = script.revision
        script.tell([script.put_event(key_of(one), one, revision)], fragment=True)
    wait_probe(script)
    go_on.set()
    wait_probe(script)
    assert app_of(gateway, one["app_id"]) is None
    script.tell([script.put_event(key_of(other), other, revision)])
    for app in (one, other):
        wait_for(gateway, app["app_id"], revision)
    wait_for(gateway, second["app_id"])


def test_more_than_is_read_at_once_and_a_part_of_a_revision(script, follow):
    gateway = follow()
    gateway.stop()
    slow = idle()
    store_slowly(gateway, slow)
    gateway.start()
    wait_following(gateway)
    large = [idle() for _ in range(5)]
    one, other = idle(), idle()
    script.hold()
    put_app(script, slow)
    with script.changed:
        script.revision += 1
        script.tell([script.put_event(key_of(app), json.dumps(app) + " " * 1000000, script.revision) for app in large])
        script.revision += 1
        revision = script.revision
        script.tell([script.put_event(key_of(one), one, revision)], fragment=True)
    script.release()
    wait_for(gateway, slow["app_id"])
    script.tell([script.put_event(key_of(other), other, revision)])
    for app in (one, other):
        wait_for(gateway, app["app_id"], revision)
    assert app_of(gateway, large[0]["app_id"])


# ---- writes in several parts ----

def post(gateway, apps):
    body = "".join(json.dumps({"op": "put", "app": app}) + "\n" for app in apps)
    return gateway.control("POST", "/v1/changes", body, Content_Type="application/x-ndjson")


def test_a_line_of_an_early_part_that_is_left_out_is_told(script, follow, rivals):
    """What etcd had got before, this gateway has not heard of yet."""
    first, second = rivals
    gateway = follow()
    script.hold()
    put_app(script, first)
    written = script.count("/v3/kv/txn")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post, gateway, [second] + [idle() for _ in range(149)])
        wait_until(lambda: script.count("/v3/kv/txn") == written + 2, "both parts", TIMEOUT)
        script.release()
        answer = posting.result(TIMEOUT)
    assert answer.status == 200 and (answer.json["applied"], answer.json["refused"]) == (149, 1), answer
    refused = answer.json["results"][0]
    assert (refused["code"], refused["app_id"]) == ("claim_conflict", second["app_id"])
    assert "is left out" in refused["detail"]


def test_a_conflict_in_a_later_part_says_what_is_written(script, follow, rivals):
    owner, taker = rivals
    taker["instances"][0]["generation"] = 2
    gateway = follow()
    put_app(script, owner)
    wait_for(gateway, owner["app_id"])
    script.put(key_of(owner), {**owner, "restrict_ports": True}, silent=True)
    apps = [idle() for _ in range(100)]
    answer = post(gateway, [*apps, taker])
    assert answer.code == "revision_conflict", answer
    assert "only a part of the apps was written: " in answer.json["detail"] and owner["app_id"] in answer.json["detail"]
    assert app_of(gateway, apps[0]["app_id"]) and not app_of(gateway, taker["app_id"])


# ---- rules that change meanwhile ----

def beyond():
    """An app with an address that the configuration does not allow at first."""
    return {"app_id": new_id(), "instances": [
        {"instance_id": new_id(), "address": "10.1.2.3", "generation": 1, "state": "running"}]}


def allow_it(gateway):
    gateway.config["upstream"]["allow"].append("10.0.0.0/8")
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200


def wait_left_out(gateway):
    wait_until(lambda: state(gateway)["left_out"] == 1, "the app to be left out", TIMEOUT)


def test_rules_that_change_while_the_member_is_away(script, follow):
    app = beyond()
    put_app(script, app)
    gateway = follow()
    wait_left_out(gateway)
    script.away = True
    script.drop()
    wait_until(lambda: not is_following(gateway), "the gateway to notice", TIMEOUT)
    allow_it(gateway)
    script.away = False
    wait_for(gateway, app["app_id"])
    wait_until(lambda: state(gateway)["left_out"] == 0, "nothing to be left out", TIMEOUT)


def test_rules_that_change_in_the_middle_of_a_load(script, follow):
    app, pages, go_on = beyond(), [], threading.Event()
    put_app(script, app)

    def answer(body):
        if "range_end" not in body:
            return None
        pages.append(body)
        if len(pages) == 1:
            return {"header": script.header(), "kvs": [script.kv(key_bytes(app))], "count": "2", "more": True}
        assert go_on.wait(TIMEOUT)
        return None
    script.on_range = answer
    gateway = follow(wait=False)
    wait_left_out(gateway)
    allow_it(gateway)
    go_on.set()
    wait_for(gateway, app["app_id"])
    wait_following(gateway)
    assert state(gateway)["left_out"] == 0


def test_rules_that_change_while_a_load_is_stored(script, follow):
    gateway = follow()
    gateway.stop()
    app, slow = beyond(), idle()
    store_slowly(gateway, slow)     # time for the reload
    put_app(script, app)
    put_app(script, slow)
    gateway.start(ready=False)
    wait_left_out(gateway)
    allow_it(gateway)
    wait_for(gateway, app["app_id"])
    wait_following(gateway)
    assert state(gateway)["left_out"] == 0


# ---- what makes no sense ----

@pytest.mark.parametrize("keys", [0, 1])
def test_pages_that_lead_nowhere(script, follow, keys):
    """There shall be more, but each page is as the one before, or empty."""
    app = idle()
    put_app(script, app)

    def answer(body):
        kvs = [script.kv(key_bytes(app))] * keys
        return {"header": script.header(), "kvs": kvs, "count": "9", "more": True} if "range_end" in body else None
    script.on_range = answer
    listed = etcdctl(script, "app", "ls")
    assert listed.returncode == 3 and "makes no sense" in listed.stderr
    gateway = follow(wait=False)
    wait_until(lambda: "there are more keys, but sends none" in state(gateway)["problem"], "the problem", TIMEOUT)
    loads = gateway.metric("etcd_loads_total")
    wait_until(lambda: gateway.metric("etcd_loads_total") > loads, "another attempt", TIMEOUT)
    script.on_range = None
    wait_for(gateway, app["app_id"])
    wait_following(gateway)


# ---- gatewayctl, and a member without a majority ----

NO_MAJORITY = (503, 14, "etcdserver: request timed out")


@pytest.fixture
def members():
    """Two of a cluster, of which gatewayctl asks the first one first."""
    made = Members()
    yield made
    made.first.close()
    made.second.close()


class Members:
    def __init__(self):
        self.first, self.second = ScriptedEtcd(), ScriptedEtcd()

    @property
    def urls(self):
        return self.first.urls + self.second.urls

    def put(self, app, *options):
        return etcdctl(self, "app", "put", "-", *options, input=json.dumps(app))


@pytest.mark.parametrize("error", [NO_MAJORITY, (500, 13, "internal"), (504, 4, "context deadline exceeded"),
                                   (400, 14, "etcdserver: no leader")])
def test_gatewayctl_leaves_a_member_that_has_no_majority(members, error):
    app = idle()
    put_app(members.second, app)
    members.first.error = error
    done = etcdctl(members, "app", "ls")
    assert done.returncode == 0 and app["app_id"] in done.stdout and not done.stderr, done
    members.second.error = error
    done = etcdctl(members, "app", "ls")
    assert done.returncode == 3 and members.second.urls[0] in done.stderr and error[2] in done.stderr, done
    assert "not known" not in done.stderr, done
    done = etcdctl(members, "app", "ls", "--json")
    assert done.returncode == 3 and json.loads(done.stderr)["code"] == "etcd_unavailable", done


def test_gatewayctl_takes_no_for_an_answer(members):
    members.first.error = (400, 3, "etcdserver: invalid auth management")
    done = etcdctl(members, "app", "ls")
    assert done.returncode == 1 and "refused: etcdserver: invalid auth" in done.stderr, done
    assert not members.second.calls


@pytest.mark.parametrize("lost", ["error", "away"])
def test_gatewayctl_does_not_repeat_a_write_that_expects_something(members, lost):
    """When it may have happened, the expectation would fail the second time."""
    app = idle()
    for member in (members.first, members.second):
        revision = put_app(member, app)
    setattr(members.first, lost, NO_MAJORITY)
    done = members.put(app, "--if-match", revision)
    assert done.returncode == 3 and "not known whether etcd took" in done.stderr, done
    assert members.second.count("/v3/kv/txn") == 0
    done = members.put(app, "--if-match", revision, "--json")
    assert done.returncode == 3 and json.loads(done.stderr)["code"] == "etcd_outcome_unknown", done
    # Without an expectation it is the same twice.
    assert members.put(app).returncode == 0
    assert members.second.count("/v3/kv/txn") == 1
    setattr(members.second, lost, NO_MAJORITY)
    done = members.put(app)
    assert done.returncode == 3 and "not known whether etcd took" in done.stderr, done


def test_gatewayctl_repeats_a_write_that_was_never_sent(members):
    app = idle()
    revision = put_app(members.second, app)
    members.first.close()
    done = members.put(app, "--if-match", revision)
    assert done.returncode == 0 and not done.stderr, done


# ---- gatewayctl, and a disk that is full ----

@pytest.mark.parametrize("count", [100, 1000])
def test_gatewayctl_says_that_a_snapshot_does_not_fit(script, count):
    for number in range(count):
        put_app(script, idle(f"{number:040}"))
    done = etcdctl(script, "snapshot", "save", "/dev/full")
    assert done.returncode == 2 and "No space left on device" in done.stderr, done
    assert script.count("/v3/kv/range") == 1
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [str(BUILD / "gatewayctl"), "--etcd", script.urls[0], "snapshot", "save", "-"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "No space left on device" in done.stderr, done

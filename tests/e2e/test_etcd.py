"""A fleet through etcd: real members, gateways that follow them, and what happens when either goes away."""
import base64
import concurrent.futures
import json
import ssl
import subprocess
import threading

import pytest

from custom_certificates import Issuer
from etcd_server import PREFIX, Etcd
from gateway import BUILD, DOMAIN, Gateway, new_id
from origin import Origin
from wire import wait_until

PAIR_PREFIX = "/fleet/pair/"


@pytest.fixture(scope="module")
def shared_etcd(tmp_path_factory):
    etcd = Etcd(tmp_path_factory.mktemp("etcd")).start()
    yield etcd
    etcd.stop()


@pytest.fixture
def etcd(tmp_path_factory):
    """For tests that stop it."""
    made = []

    def make(**options):
        made.append(Etcd(tmp_path_factory.mktemp("etcd"), **options))
        return made[-1].start()
    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="module")
def server():
    made = Origin()
    yield made
    made.close()


@pytest.fixture
def member(make_gateway):
    """member(etcd, …): a gateway of the fleet, once it follows."""
    def make(etcd, prefix=PREFIX, wait=True, **options):
        gateway = make_gateway(workers=1, start=False,
                               sync={"etcd": {"endpoints": etcd.urls, "prefix": prefix, **options}})
        gateway.start(ready=wait)
        if wait:
            wait_until(lambda: is_following(gateway), "the gateway to follow etcd", 60)
        return gateway
    return make


def state(gateway):
    return gateway.control("GET", "/v1/status").json["etcd"]


def is_following(gateway):
    return state(gateway)["following"]


def document(server, app_id=None, **members):
    """Each call is another address: an instance owns its own."""
    return {"app_id": app_id or new_id(), "ports": [{"port": server.port}],
            "instances": [{"instance_id": new_id(), "address": server.address, "generation": 1, "state": "running"}],
            **members}


def idle(app_id=None, **members):
    return {"app_id": app_id or new_id(), **members}


def app_of(gateway, app_id):
    answer = gateway.control("GET", f"/v1/apps/{app_id}")
    return answer.json if answer.status == 200 else None


def wait_for(gateway, app_id, revision=None):
    def has():
        app = app_of(gateway, app_id)
        return app and (revision is None or app["revision"] == revision) and app
    return wait_until(has, f"app {app_id} at revision {revision}", 60)


def wait_gone(gateway, app_id):
    wait_until(lambda: app_of(gateway, app_id) is None, f"app {app_id} to go", 60)


def ids(gateway):
    return {app["app_id"]: app["revision"] for app in gateway.control("GET", "/v1/apps?limit=500").json["apps"]}


def ids_all(gateway):
    lines = gateway.control("GET", "/v1/snapshot").body.decode().splitlines()
    return {app["app_id"]: app["revision"] for app in map(json.loads, lines)}


def etcdctl(etcd, *arguments, prefix=PREFIX, **options):
    """gatewayctl, without a gateway."""
    command = [str(BUILD / "gatewayctl"), "--etcd", ",".join(etcd.urls), "--etcd-prefix", prefix, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


# ---- following ----

def test_what_is_in_etcd_is_served(shared_etcd, member, server):
    etcd, prefix = shared_etcd, PREFIX
    app = document(server)
    before = etcd.put(f"apps/{app['app_id']}", app)
    gateway = member(etcd, prefix)
    assert wait_for(gateway, app["app_id"])["revision"] == before
    host = f"{app['app_id']}-{server.port}.gw.example"
    assert gateway.fetch("GET", "/", host).status == 200
    other = idle()
    revision = etcd.put(f"apps/{other['app_id']}", other)
    assert wait_for(gateway, other["app_id"], revision)
    assert gateway.control("GET", "/v1/status").json["revision"] == revision
    etcd.delete(f"apps/{app['app_id']}")
    wait_gone(gateway, app["app_id"])
    assert gateway.fetch("GET", "/", host).status == 404
    assert "etcd: following http://127.0.0.1:" in gateway.control("GET", "/readyz?verbose").body.decode()
    assert gateway.metric("etcd_following") == 1 and gateway.metric("etcd_age_seconds") < 60


def test_a_bad_document_is_left_out_alone(shared_etcd, member):
    etcd = shared_etcd
    kept, wrong, other = idle(), new_id(), new_id()
    etcd.put(f"apps/{kept['app_id']}", kept)
    etcd.put(f"apps/{wrong}", "{")
    gateway = member(etcd)
    assert wait_for(gateway, kept["app_id"])
    assert app_of(gateway, wrong) is None
    assert f"app {wrong} at revision" in gateway.stderr()
    left_out = state(gateway)["left_out"]
    assert left_out >= 1 and gateway.metric("etcd_left_out") == left_out
    # one that was good stays as it was, also over a restart; the next good one counts
    etcd.put(f"apps/{kept['app_id']}", idle(other))
    etcd.put(f"apps/{other}", {"app_id": other, "ports": 5})
    marker = idle()
    etcd.put(f"apps/{marker['app_id']}", marker)
    assert wait_for(gateway, marker["app_id"])
    assert app_of(gateway, kept["app_id"]) and not app_of(gateway, other)
    assert state(gateway)["left_out"] == left_out + 2
    gateway.kill()
    gateway.start()
    wait_until(lambda: is_following(gateway), "the gateway to follow again")
    assert app_of(gateway, kept["app_id"]) and not app_of(gateway, other)
    assert wait_for(gateway, other, etcd.put(f"apps/{other}", idle(other)))
    for app_id in (kept["app_id"], wrong):
        etcd.delete(f"apps/{app_id}")
    wait_gone(gateway, kept["app_id"])
    wait_until(lambda: state(gateway)["left_out"] == left_out - 1, "nothing of these to be left out")


def test_what_was_left_out_stands_in_the_way_and_is_said(shared_etcd, member, server):
    app = document(server)
    gateway = member(shared_etcd)
    path = f"/v1/apps/{app['app_id']}"
    instance = f"{path}/instances/{app['instances'][0]['instance_id']}"
    assert gateway.control("PUT", path, app).status == 201
    newest = shared_etcd.put(f"apps/{app['app_id']}", {**app, "ports": 5})
    wait_until(lambda: f"app {app['app_id']} at revision {newest}" in gateway.stderr(), "it to be left out")
    match = f'"{app_of(gateway, app["app_id"])["revision"]}"'
    for answer in (gateway.control("PATCH", instance, {"state": "draining"}),
                   gateway.control("PUT", path, app, If_Match=match), gateway.control("DELETE", path, If_Match=match)):
        assert answer.status == 412 and f"revision {newest}, is left out here (ports: " in answer.json["detail"], answer
    assert gateway.control("PUT", path, app).status == 200
    assert gateway.control("PATCH", instance, {"state": "draining"}).status == 200
    assert gateway.control("DELETE", path).status == 204


def test_an_app_that_was_in_conflict_comes_when_it_can(shared_etcd, member, server):
    etcd = shared_etcd
    first, second = document(server), document(server)
    gateway = member(etcd)
    etcd.put(f"apps/{first['app_id']}", first)
    assert wait_for(gateway, first["app_id"])
    etcd.put(f"apps/{second['app_id']}", second)
    wait_until(lambda: f"app {second['app_id']} at revision" in gateway.stderr(), "the conflict to be said")
    assert app_of(gateway, first["app_id"]) and not app_of(gateway, second["app_id"])
    etcd.delete(f"apps/{first['app_id']}")
    assert wait_for(gateway, second["app_id"])
    etcd.delete(f"apps/{second['app_id']}")
    wait_gone(gateway, second["app_id"])


def test_a_key_in_upper_case_is_left_out_and_can_be_deleted(shared_etcd, member):
    gateway, app = member(shared_etcd), idle()
    upper = app["app_id"].upper()
    assert gateway.put_app(app).status == 201
    left_out = state(gateway)["left_out"]
    shared_etcd.put(f"apps/{upper}", app)
    wait_until(lambda: state(gateway)["left_out"] == left_out + 1, "the key to be left out")
    assert gateway.control("DELETE", f"/v1/apps/{upper}").status == 204
    assert shared_etcd.get(f"apps/{upper}") is None and state(gateway)["left_out"] == left_out
    assert app_of(gateway, app["app_id"])
    assert gateway.control("DELETE", f"/v1/apps/{upper}").status == 204     # of the app now, as ever
    assert app_of(gateway, app["app_id"]) is None and shared_etcd.get(f"apps/{app['app_id']}") is None


def test_what_a_member_leaves_out_can_be_deleted_and_replaced_there(etcd, member, server):
    cluster = etcd()
    first, *rivals = [document(server) for _ in range(3)]
    for rival in rivals:
        rival["instances"][0]["address"] = first["instances"][0]["address"]
    newer = idle()
    gateway = member(cluster)
    cluster.put(f"apps/{first['app_id']}", first)
    cluster.put(f"apps/{newer['app_id']}", newer)
    assert wait_for(gateway, newer["app_id"])
    snapshot = gateway.control("GET", "/v1/snapshot").body
    for rival in rivals:
        cluster.put(f"apps/{rival['app_id']}", rival)
    cluster.put(f"apps/{newer['app_id']}", {"app_id": newer["app_id"], "ports": 5})
    wait_until(lambda: state(gateway)["left_out"] == 3, "these to be left out")
    assert gateway.control("DELETE", f"/v1/apps/{rivals[0]['app_id']}").status == 204
    assert cluster.get(f"apps/{rivals[0]['app_id']}") is None
    assert gateway.control("DELETE", f"/v1/apps/{rivals[0]['app_id']}").code == "app_unknown"
    # A snapshot is all there is then, also elsewhere.
    answer = gateway.control("PUT", "/v1/snapshot", snapshot, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 2, answer
    assert cluster.get(f"apps/{rivals[1]['app_id']}") is None
    assert json.loads(cluster.get(f"apps/{newer['app_id']}")[0])["ports"] == []
    assert state(gateway)["left_out"] == 0
    assert set(ids(gateway)) == {first["app_id"], newer["app_id"]}


def test_compaction_while_the_gateway_is_stopped_and_while_it_is_away(etcd, member):
    cluster = etcd()
    apps = [idle() for _ in range(4)]
    for app in apps:
        cluster.put(f"apps/{app['app_id']}", app)
    gateway = member(cluster)
    assert len(ids(gateway)) == 4
    gateway.stop()
    cluster.delete(f"apps/{apps[0]['app_id']}")
    revision = cluster.put(f"apps/{apps[1]['app_id']}", idle(apps[1]["app_id"], restrict_ports=True))
    cluster.compact()
    gateway.start()
    assert wait_for(gateway, apps[1]["app_id"], revision)
    assert len(ids(gateway)) == 3
    wait_until(lambda: is_following(gateway), "the gateway to follow")
    # It is stopped in the middle of its watch; etcd forgets the connection and what happened meanwhile.
    member_process = cluster.members[0]
    member_process.kill()
    wait_until(lambda: not is_following(gateway), "the gateway to notice")
    assert len(ids(gateway)) == 3
    # The gateway pauses up to 10 s between attempts: the compaction comes first.
    member_process.start()
    cluster.wait()
    cluster.delete(f"apps/{apps[2]['app_id']}")
    cluster.compact()
    wait_gone(gateway, apps[2]["app_id"])
    assert len(ids(gateway)) == 2


def test_a_thousand_apps_come_in_pages(etcd, member):
    cluster = etcd()
    apps = [idle(limits={"max_connections": number + 1}) for number in range(1500)]
    for start in range(0, len(apps), 100):
        cluster.put_many({f"apps/{app['app_id']}": app for app in apps[start:start + 100]})
    gateway = member(cluster)
    assert gateway.control("GET", "/v1/status").json["apps"] == 1500
    assert gateway.metric("etcd_loads_total") == 1


def test_a_user_with_a_password(etcd, member, tmp_path):
    cluster = etcd()
    cluster.enable_auth("gateway", "correct horse")
    password = tmp_path / "password"
    password.write_text("wrong\n")
    app = idle()
    cluster.put(f"apps/{app['app_id']}", app)
    gateway = member(cluster, user="gateway", password_file=str(password), wait=False)
    wait_until(lambda: "authentication failed" in state(gateway)["problem"], "the refusal to be told")
    password.write_text("correct horse\n")
    assert wait_for(gateway, app["app_id"])
    wait_until(lambda: is_following(gateway), "the gateway to follow")
    # A member that starts again does not know the tokens that it gave.
    cluster.members[0].kill()
    wait_until(lambda: not is_following(gateway), "the gateway to notice")
    cluster.members[0].start()
    wait_until(lambda: is_following(gateway), "the gateway to follow again", 60)
    assert "correct horse" not in gateway.stderr()


def test_tls_with_client_certificates(etcd, member, authority):
    cluster = etcd(authority=authority)
    app = idle()
    cluster.put(f"apps/{app['app_id']}", app)
    certificate, key = authority.issue("etcd-client", "DNS:gateway", usage="clientAuth")
    tls = {"ca": str(authority.ca), "certificate": str(certificate), "private_key": str(key)}
    gateway = member(cluster, tls=tls)
    assert wait_for(gateway, app["app_id"])
    stranger = member(cluster, tls={"ca": str(authority.ca)}, wait=False)
    wait_until(lambda: state(stranger)["problem"] not in ("", "it has not been reached yet"), "the refusal to be told")
    assert not ids(stranger)
    assert stranger.control("GET", "/readyz").status == 503     # it has no routes, and does not know which there are


def test_etcd_away_is_fail_static(etcd, member, server):
    cluster = etcd()
    app = document(server)
    cluster.put(f"apps/{app['app_id']}", app)
    gateway = member(cluster)
    host = f"{app['app_id']}-{server.port}.gw.example"
    cluster.members[0].kill()
    wait_until(lambda: not is_following(gateway), "the gateway to notice", 60)
    for _ in range(2):
        assert gateway.fetch("GET", "/", host).status == 200
        verbose = gateway.control("GET", "/readyz?verbose")
        assert verbose.status == 200 and "etcd: away for" in verbose.body.decode()
        assert gateway.metric("etcd_following") == 0
        gateway.stop()
        gateway.start()
    cluster.members[0].start()
    other = idle()
    cluster.wait()
    assert wait_for(gateway, other["app_id"], cluster.put(f"apps/{other['app_id']}", other))


def test_not_ready_before_etcd_was_read(etcd, member):
    cluster = etcd()
    app = idle()
    cluster.put(f"apps/{app['app_id']}", app)
    cluster.members[0].kill()
    gateway = member(cluster, wait=False)

    def health():
        answer = gateway.fetch("GET", "/", f"health.{DOMAIN}")
        return answer.status, answer.body
    assert gateway.control("GET", "/readyz").status == 503
    assert health() == (503, b"no routes yet\n")
    cluster.members[0].start()
    wait_for(gateway, app["app_id"])
    wait_until(lambda: gateway.control("GET", "/readyz").status == 200, "it to be ready", 60)
    assert health() == (200, b"ready\n")
    cluster.members[0].kill()
    gateway.stop()
    gateway.start()
    assert health() == (200, b"ready\n")     # it has routes


def test_an_empty_prefix_that_was_never_a_fleets_deletes_nothing(etcd, member, make_gateway):
    cluster = etcd()
    gateway = make_gateway(workers=1)
    app = idle()
    gateway.put_app(app)
    gateway.stop()
    gateway.config["sync"] = {"etcd": {"endpoints": cluster.urls}}
    gateway.start()
    wait_until(lambda: "there is nothing under /phala-gateway/" in gateway.stderr(), "the warning")
    assert app_of(gateway, app["app_id"])
    assert gateway.put_app(idle()).code == "etcd_unavailable"
    # What somebody writes by hand waits; a snapshot is taken when it is there as a whole.
    other = idle()
    cluster.put(f"apps/{other['app_id']}", other)
    snapshot = gateway.folder / "snapshot"
    assert gateway.gatewayctl("snapshot", "save", snapshot).returncode == 0
    assert list(ids(gateway)) == [app["app_id"]]
    assert etcdctl(cluster, "snapshot", "load", snapshot).returncode == 0
    wait_until(lambda: is_following(gateway), "the gateway to follow", 60)
    assert list(ids(gateway)) == [app["app_id"]]
    assert cluster.get(f"apps/{other['app_id']}") is None
    # Now it is a fleet's: empty means empty.
    gateway.stop()
    cluster.delete(f"apps/{app['app_id']}")
    gateway.start()
    wait_gone(gateway, app["app_id"])


# ---- any member takes a push ----

@pytest.fixture(scope="module")
def pair(shared_etcd, tmp_path_factory, authority):
    """Two gateways of one fleet."""
    made = []
    for _ in range(2):
        made.append(Gateway(tmp_path_factory.mktemp("gateway"), authority, workers=1,
                            sync={"etcd": {"endpoints": shared_etcd.urls, "prefix": PAIR_PREFIX}}).start())
    for gateway in made:
        wait_until(lambda: is_following(gateway), "the gateway to follow etcd", 60)  # pylint: disable=W0640
    yield made
    for gateway in made:
        gateway.stop()


def test_a_push_on_one_is_applied_by_all(pair, shared_etcd, server):
    one, other = pair
    app = document(server)
    answer = one.put_app(app)
    assert answer.status == 201, answer
    revision = answer.json["revision"]
    assert answer.fields["ETag"] == f'"{revision}"'
    assert app_of(one, app["app_id"])["revision"] == revision
    assert wait_for(other, app["app_id"], revision)
    host = f"{app['app_id']}-{server.port}.gw.example"
    for gateway in pair:
        assert gateway.fetch("GET", "/", host).status == 200
    value, mod_revision = shared_etcd.get(f"apps/{app['app_id']}", PAIR_PREFIX)
    assert mod_revision == revision and b'"revision"' not in value
    # each of the other calls, on the other one
    instance = app["instances"][0]["instance_id"]
    path = f"/v1/apps/{app['app_id']}"
    answer = other.control("PATCH", f"{path}/instances/{instance}", {"weight": 3})
    assert answer.status == 200 and answer.json["instances"][0]["weight"] == 3, answer
    assert wait_for(one, app["app_id"], answer.json["revision"])["instances"][0]["weight"] == 3
    answer = other.put_app(idle(app["app_id"]), If_Match=f'"{revision}"')
    assert answer.code == "revision_conflict" and str(answer.status) == "412"
    answer = other.control("DELETE", path, If_Match=f'"{revision}"')
    assert answer.code == "revision_conflict"
    assert other.control("DELETE", path).status == 204
    wait_gone(one, app["app_id"])
    assert other.control("DELETE", path).code == "app_unknown"
    assert shared_etcd.get(f"apps/{app['app_id']}", PAIR_PREFIX) is None


def test_what_is_wrong_never_reaches_etcd(pair, shared_etcd, server):
    one, other = pair
    app = document(server)
    assert one.put_app(app).status == 201
    wait_for(other, app["app_id"])
    before = shared_etcd.keys(PAIR_PREFIX)
    bad = document(server)
    bad["instances"][0]["address"] = "10.9.9.9"
    assert other.put_app(bad).code == "invalid_record"
    assert other.put_app(document(server)).code == "claim_conflict"
    assert other.control("PATCH", f"/v1/apps/{app['app_id']}/instances/none", {"weight": 1}).status == 404
    assert shared_etcd.keys(PAIR_PREFIX) == before
    # A newer generation takes the address: both apps change in one step, everywhere.
    taker = document(server)
    taker["instances"][0]["generation"] = 2
    answer = other.put_app(taker)
    assert answer.status == 201, answer
    for gateway in pair:
        assert wait_for(gateway, app["app_id"], answer.json["revision"])["instances"][0]["state"] == "stopped"
    assert b'"stopped"' in shared_etcd.get(f"apps/{app['app_id']}", PAIR_PREFIX)[0]
    for made in (app, taker):
        assert one.control("DELETE", f"/v1/apps/{made['app_id']}").status == 204


def test_changes_and_snapshots_are_written_through(pair, shared_etcd):
    one, other = pair
    apps = [idle() for _ in range(250)]
    lines = [{"op": "put", "app": app} for app in apps] + [{"op": "put", "app": {"app_id": "!"}}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    answer = one.control("POST", "/v1/changes", body, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["applied"] == 250 and answer.json["refused"] == 1, answer
    for app in apps:
        wait_for(other, app["app_id"])
    numbered = json.dumps({"op": "delete", "app_id": apps[0]["app_id"], "revision": 10 ** 9})
    answer = one.control("POST", "/v1/changes", numbered, Content_Type="application/x-ndjson")
    assert answer.json["results"][0]["field"] == "revision", answer
    snapshot = one.control("GET", "/v1/snapshot").body
    gone, kept = apps[:120], apps[120:]
    kept[0]["restrict_ports"] = True
    body = "".join(json.dumps(app) + "\n" for app in kept)
    revisions = ids_all(other)
    answer = other.control("PUT", "/v1/snapshot", body, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 130, answer
    for app in gone:
        wait_gone(one, app["app_id"])
    now = ids_all(one)
    assert set(now) == {app["app_id"] for app in kept}
    assert [app_id for app_id in now if now[app_id] != revisions[app_id]] == [kept[0]["app_id"]]
    assert one.control("PUT", "/v1/snapshot?revision=5", body, Content_Type="application/x-ndjson").status == 400
    # and back
    assert one.control("PUT", "/v1/snapshot", snapshot, Content_Type="application/x-ndjson").status == 200
    wait_until(lambda: len(ids_all(other)) == 250, "the apps to be back")
    assert len([key for key in shared_etcd.keys(PAIR_PREFIX) if key.startswith("apps/")]) == 250


def test_a_snapshot_leaves_alone_what_it_has_a_bad_line_of(pair, shared_etcd):
    """Whether the gateways have the app or leave it out."""
    one, other = pair
    good, bad, gone, newer, dropped = (idle() for _ in range(5))
    for app in (good, bad, gone):
        assert one.put_app(app).status == 201
    for app in (newer, dropped):
        shared_etcd.put(f"apps/{app['app_id']}", {**app, "bogus": 1}, prefix=PAIR_PREFIX)
    wait_until(lambda: state(other)["left_out"] == 2, "two apps to be left out")
    kept = [shared_etcd.get(f"apps/{app['app_id']}", PAIR_PREFIX) for app in (bad, newer)]
    body = "".join(json.dumps(app) + "\n" for app in (good, {**bad, "bogus": 1}, {**newer, "bogus": 1}))
    answer = other.control("PUT", "/v1/snapshot", body, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["apps"] == 1 and answer.json["refused"] == 2, answer
    wait_gone(one, gone["app_id"])
    assert set(ids_all(one)) == {good["app_id"], bad["app_id"]}
    assert [shared_etcd.get(f"apps/{app['app_id']}", PAIR_PREFIX) for app in (bad, newer)] == kept
    assert shared_etcd.get(f"apps/{dropped['app_id']}", PAIR_PREFIX) is None
    assert other.control("PUT", "/v1/snapshot?empty=1", b"", Content_Type="application/x-ndjson").status == 200
    assert not [key for key in shared_etcd.keys(PAIR_PREFIX) if key.startswith("apps/")]


def test_each_of_many_changes_has_its_own_revision(pair):
    """They go to etcd in parts."""
    apps = [idle() for _ in range(150)]
    body = "".join(json.dumps({"op": "put", "app": app}) + "\n" for app in apps)
    answer = pair[0].control("POST", "/v1/changes", body, Content_Type="application/x-ndjson")
    assert answer.status == 200 and answer.json["applied"] == 150, answer
    told = {result["app_id"]: result["revision"] for result in answer.json["results"]}
    assert len(set(told.values())) == 2 and max(told.values()) == answer.json["revision"]
    assert told.items() <= ids_all(pair[0]).items()
    path = f"/v1/apps/{apps[0]['app_id']}"
    assert pair[0].control("GET", path).fields["ETag"] == f'"{answer.json["results"][0]["revision"]}"'
    answer = pair[0].put_app(apps[0], If_Match=f'"{told[apps[0]["app_id"]]}"')
    assert answer.status == 200, answer


def test_pushes_on_both_at_the_same_time(pair):
    """Each patch builds on the one before, whichever gateway took it: none is lost."""
    app = idle(instances=[{"instance_id": new_id(), "address": None, "state": "stopped", "weight": 1}
                          for _ in range(8)])
    assert pair[0].put_app(app).status == 201
    wait_for(pair[1], app["app_id"])

    def patch(number):
        instance = app["instances"][number]["instance_id"]
        return pair[number % 2].control("PATCH", f"/v1/apps/{app['app_id']}/instances/{instance}", {"weight": 7})
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(patch, range(8)))
    assert [answer.status for answer in answers] == [200] * 8, answers
    revision = max(answer.json["revision"] for answer in answers)
    for gateway in pair:
        instances = wait_for(gateway, app["app_id"], revision)["instances"]
        assert [instance["weight"] for instance in instances] == [7] * 8


def test_pushes_are_refused_while_etcd_is_away(etcd, member):
    cluster = etcd()
    gateway = member(cluster)
    app = idle()
    assert gateway.put_app(app).status == 201
    cluster.members[0].kill()
    answer = gateway.put_app(idle())
    assert (answer.status, answer.code) == (503, "etcd_unavailable"), answer
    assert "127.0.0.1" in answer.json["detail"]
    assert gateway.control("DELETE", f"/v1/apps/{app['app_id']}").code == "etcd_unavailable"
    assert list(ids(gateway)) == [app["app_id"]]
    cluster.members[0].start()
    wait_until(lambda: is_following(gateway), "the gateway to follow again", 60)
    assert gateway.put_app(idle()).status == 201


def test_one_member_of_three_is_killed_while_pushes_go_on(etcd, member):
    """No acknowledged push is lost, and both gateways end up the same."""
    cluster = etcd(count=3)
    gateways = [member(cluster), member(cluster)]
    acknowledged, refused = {}, []
    stop = threading.Event()

    def push(gateway):
        while not stop.is_set():
            app = idle()
            answer = gateway.put_app(app)
            if answer.status == 201:
                acknowledged[app["app_id"]] = answer.json["revision"]
            else:
                refused.append(answer)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        pushing = [pool.submit(push, gateway) for gateway in gateways * 2]

        def wait_for_more():
            count = len(acknowledged)
            wait_until(lambda: len(acknowledged) > count + 20, "pushes to go on", 60)
        wait_for_more()
        cluster.members[0].kill()       # the one that both gateways talk to
        wait_for_more()
        cluster.members[0].start()
        wait_for_more()
        cluster.members[1].freeze()     # it neither answers nor closes its connections
        wait_for_more()
        stop.set()
        for job in pushing:
            job.result(60)
    cluster.members[1].thaw()
    last = max(acknowledged.values())
    for gateway in gateways:
        wait_until(lambda: gateway.control("GET", "/v1/status").json["revision"] >= last,  # pylint: disable=W0640
                   "the last push", 60)
    tables = [ids_all(gateway) for gateway in gateways]
    assert tables[0] == tables[1]
    assert acknowledged.items() <= tables[0].items()
    assert {answer.code for answer in refused} <= {"etcd_unavailable", "etcd_unconfirmed"}


# ---- certificates and session tickets ----

FLEET_KEY = "6b" * 32


@pytest.fixture
def fleet_key(tmp_path):
    path = tmp_path / "fleet.key"
    path.write_text(FLEET_KEY + "\n")
    return str(path)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("custom"))


def served(gateway, issuer, name):
    """The serial number of what is presented under the name; None if nothing is."""
    context = ssl.create_default_context(cafile=issuer.ca)
    try:
        with gateway.connect(name, context) as connection:
            return connection.sock.getpeercert()["serialNumber"]
    except (ssl.SSLError, OSError):
        return None


def test_certificates_are_shared(etcd, member, issuer, fleet_key):
    cluster = etcd()
    one, other = [member(cluster, fleet_key_file=fleet_key) for _ in range(2)]
    name = "shared.example.com"
    path = f"/v1/certificates/{name}"
    pair = issuer.issue(name)
    assert one.control("PUT", path, pair.document).status == 201
    serial = served(one, issuer, name)
    assert serial
    wait_until(lambda: served(other, issuer, name) == serial, "the other gateway to serve it")
    assert other.control("GET", path).json["fingerprint"] == one.control("GET", path).json["fingerprint"]
    stored = cluster.get(f"certificates/{name}")[0]
    assert b"BEGIN CERTIFICATE" in stored and b"PRIVATE KEY" not in stored
    assert other.control("PUT", path, issuer.issue("else.example.com").document).code == "certificate_name_mismatch"
    # replaced on the other one, while the first is away
    one.stop()
    answer = other.control("PUT", path, issuer.issue(name).document)
    assert answer.status == 200, answer
    one.start()
    wait_until(lambda: served(one, issuer, name) == served(other, issuer, name) != serial, "the new one everywhere")
    # deleted while it is away again: it does not come back
    one.stop()
    assert other.control("DELETE", path).status == 204
    assert served(other, issuer, name) is None
    one.start()
    wait_until(lambda: served(one, issuer, name) is None, "the certificate to go")
    assert one.control("DELETE", path).code == "certificate_unknown"
    cluster.members[0].kill()
    answer = one.control("PUT", path, pair.document)
    assert (answer.status, answer.code) == (503, "etcd_unavailable"), answer


def test_a_wrong_fleet_key_changes_nothing(etcd, member, issuer, fleet_key, tmp_path):
    cluster = etcd()
    good = member(cluster, fleet_key_file=fleet_key)
    name = "guarded.example.com"
    pair = issuer.issue(name)
    path = f"/v1/certificates/{name}"
    assert good.control("PUT", path, pair.document).status == 201
    wrong_key = tmp_path / "wrong.key"
    wrong_key.write_text(base64.b64encode(b"w" * 32).decode())
    wrong = member(cluster, fleet_key_file=str(wrong_key))
    text = "was sealed under another key than that of fleet_key_file"
    wait_until(lambda: text in wrong.stderr(), "the wrong key to be said")
    assert served(wrong, issuer, name) is None and state(wrong)["left_out"] >= 1
    app = idle()
    assert wrong.put_app(app).status == 201 and wait_for(good, app["app_id"])
    # what it served before it stays
    good.stop()
    good.config["sync"]["etcd"]["fleet_key_file"] = str(wrong_key)
    good.start()
    wait_until(lambda: text in good.stderr(), "the wrong key to be said")
    assert served(good, issuer, name)
    bad = tmp_path / "bad.key"
    bad.write_text("secret\n")
    good.config["sync"]["etcd"]["fleet_key_file"] = str(bad)
    status, output = good.check()
    assert status != 0 and "openssl rand -hex 32" in output


def test_another_key_in_the_same_file_waits_for_a_restart(shared_etcd, member, tmp_path):
    def needs_restart():
        return gateway.control("POST", "/v1/reload").json["needs_restart"]
    path = tmp_path / "fleet.key"
    path.write_text(FLEET_KEY)
    gateway = member(shared_etcd, prefix="/fleet/rotated/", fleet_key_file=str(path))
    path.write_text(base64.b64encode(bytes.fromhex(FLEET_KEY)).decode())    # the same key
    assert needs_restart() == []
    path.write_text("77" * 32)
    assert needs_restart() == ["sync.etcd"]
    assert "sync.etcd changed; that needs a restart" in gateway.stderr()
    gateway.stop()
    gateway.start()
    assert needs_restart() == []


def test_a_session_is_resumed_on_another_gateway(etcd, member, authority, fleet_key, tmp_path):
    cluster = etcd()
    cluster.put("tickets/0000000001", "of a period long ago")
    gateways = [member(cluster, fleet_key_file=fleet_key) for _ in range(2)]
    wait_until(lambda: len([key for key in cluster.keys() if key.startswith("tickets/")]) == 2, "the ticket keys", 60)

    def connect(gateway, *arguments):
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-servername", f"health.{DOMAIN}",
                   "-CAfile", str(authority.ca), "-ign_eof", *map(str, arguments)]
        request = f"GET / HTTP/1.1\r\nHost: health.{DOMAIN}\r\nConnection: close\r\n\r\n"
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=60, check=False)
        assert "HTTP/1.1 200" in done.stdout, done
        return "Reused, " in done.stdout

    for version in ("-tls1_3", "-tls1_2"):
        session = tmp_path / f"session{version}"

        def resumes():
            assert not connect(gateways[0], version, "-sess_out", session)      # pylint: disable=W0640
            return connect(gateways[1], version, "-sess_in", session)           # pylint: disable=W0640
        wait_until(resumes, "both gateways to have the fleet's keys", 60)
    keys = [key for key in cluster.keys() if key.startswith("tickets/")]
    assert "tickets/0000000001" not in keys
    wait_until(lambda: state(gateways[0])["left_out"] == 0, "nothing to be left out")
    assert all(len(cluster.get(key)[0]) == 80 + 29 for key in keys)
    # A third one, and one that starts again, use the same keys; old ones go when new ones are made.
    gateways[0].stop()
    gateways[0].start()
    session = tmp_path / "session"
    wait_until(lambda: not connect(gateways[1], "-tls1_3", "-sess_out", session)
               and connect(gateways[0], "-tls1_3", "-sess_in", session), "the session to be resumed", 60)
    assert [key for key in cluster.keys() if key.startswith("tickets/")] == keys


# ---- gatewayctl without a gateway ----

def test_gatewayctl_talks_to_etcd(shared_etcd, make_gateway, tmp_path):
    prefix = "/fleet/ctl/"
    gateway = make_gateway(workers=1, start=False,
                           sync={"etcd": {"endpoints": shared_etcd.urls, "prefix": prefix}}).start(ready=False)

    def ctl(*arguments, **options):
        return etcdctl(shared_etcd, *arguments, prefix=prefix, **options)
    app = idle(domains=[{"name": "ctl.example.com", "port": 80}])
    done = ctl("app", "put", "-", input=json.dumps(app))
    assert done.returncode == 0 and f"app {app['app_id']} stored in etcd, revision " in done.stdout, done
    revision = int(done.stdout.split()[-1])
    assert wait_for(gateway, app["app_id"], revision)
    shown = json.loads(ctl("app", "get", app["app_id"]).stdout)
    assert shown["revision"] == revision and shown["domains"] == app["domains"]
    listed = ctl("app", "ls")
    assert app["app_id"] in listed.stdout and "ctl.example.com" in listed.stdout and "REVISION" in listed.stdout
    assert json.loads(ctl("app", "ls", "--json", "--q", "ctl.example").stdout)["app_id"] == app["app_id"]
    assert ctl("app", "ls", "--json", "--q", "nowhere").stdout == ""
    assert ctl("app", "ls", "--json", "--q", "protocol").stdout == ""
    # what is wrong
    done = ctl("app", "put", "-", input='{"app_id": "a", "ports": 5}')
    assert done.returncode == 2 and "ports" in done.stderr, done
    for wrong in ("Prod_App", 'a","x":"', "a\x1b[2J"):
        done = ctl("app", "put", "-", input=json.dumps({"app_id": wrong}))
        assert done.returncode == 2 and "not an app id" in done.stderr and "\x1b" not in done.stderr, done
    done = ctl("app", "put", "-", "--if-match", revision + 1, input=json.dumps(app))
    assert done.returncode == 1 and "revision_conflict" in done.stderr, done
    assert ctl("app", "get", "none").returncode == 1 and ctl("app", "rm", "none").returncode == 1
    assert ctl("status").returncode == 2
    assert ctl("app", "ls", "--etcd-user", "me").returncode == 2
    away = subprocess.run([str(BUILD / "gatewayctl"), "--etcd", "http://127.0.0.1:1", "app", "ls"], capture_output=True,
                          text=True, timeout=60, check=False)
    assert away.returncode == 3 and "http://127.0.0.1:1" in away.stderr, away
    # snapshots
    snapshot = tmp_path / "snapshot"
    assert ctl("snapshot", "save", snapshot).returncode == 0
    assert json.loads(snapshot.read_text())["revision"] == revision
    apps = [idle() for _ in range(230)]
    lines = [json.dumps(one) for one in apps] + ["{"]
    snapshot.write_text("\n".join(lines))
    done = ctl("snapshot", "load", "--strict", snapshot)
    assert done.returncode == 1 and "line 231" in done.stderr and "nothing was changed" in done.stderr, done
    done = ctl("snapshot", "load", "--strict", "--json", snapshot)
    assert done.returncode == 1 and json.loads(done.stderr)["errors"][0]["line"] == 231, done
    done = ctl("snapshot", "load", snapshot)
    assert done.returncode == 1 and "230 apps loaded into etcd, 1 refused" in done.stdout, done
    wait_gone(gateway, app["app_id"])
    wait_until(lambda: len(ids_all(gateway)) == 230, "all apps to come")
    before = ids_all(gateway)
    snapshot.write_text("\n".join(lines[1:-1]))
    assert ctl("snapshot", "load", snapshot).returncode == 0
    wait_gone(gateway, apps[0]["app_id"])
    assert ids_all(gateway).items() <= before.items()       # what is the same was not written again
    assert ctl("app", "rm", apps[1]["app_id"], "--json").returncode == 0
    wait_gone(gateway, apps[1]["app_id"])
    assert len(ctl("app", "ls", "--json").stdout.splitlines()) == 228
    # what cannot be read to its end, or has nothing in it, does not stand for an empty table
    unread = ctl("snapshot", "load", tmp_path)
    assert unread.returncode == 2 and "nothing was changed" in unread.stderr, unread
    snapshot.write_text("\n\n")
    empty = ctl("snapshot", "load", snapshot)
    assert empty.returncode == 1 and "--empty" in empty.stderr, empty
    assert len(ctl("app", "ls", "--json").stdout.splitlines()) == 228
    assert ctl("snapshot", "load", "--empty", snapshot).returncode == 0
    assert ctl("app", "ls", "--json").stdout == ""


def test_gatewayctl_with_tls(etcd, authority):
    cluster = etcd(authority=authority)
    certificate, key = authority.issue("etcd-ctl", "DNS:ctl", usage="clientAuth")
    app = idle()
    options = ["--cacert", authority.ca, "--cert", certificate, "--key", key]
    done = etcdctl(cluster, "app", "put", "-", *options, input=json.dumps(app))
    assert done.returncode == 0, done
    assert app["app_id"] in etcdctl(cluster, "app", "ls", *options).stdout
    assert etcdctl(cluster, "app", "ls", "--cacert", authority.ca).returncode == 3


def test_gatewayctl_with_a_user(etcd, tmp_path):
    cluster = etcd()
    cluster.enable_auth("gateway", "correct horse")
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    app = idle()
    options = ["--etcd-user", "gateway", "--etcd-password-file", password]
    done = etcdctl(cluster, "app", "put", "-", *options, input=json.dumps(app))
    assert done.returncode == 0, done
    assert app["app_id"] in etcdctl(cluster, "app", "ls", *options).stdout
    password.write_text("wrong")
    done = etcdctl(cluster, "app", "ls", *options)
    assert done.returncode == 1 and "authentication failed" in done.stderr, done
    assert etcdctl(cluster, "app", "ls").returncode == 1

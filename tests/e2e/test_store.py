"""The store under trouble: old schemas, damage, a full disk, and a kill at each stage of a commit."""
import contextlib
import http.client
import json
import os
import resource
import sqlite3
import subprocess

import pytest

from gateway import new_id
from origin import new_address
from wire import wait_until

SCHEMAS = {
    1: """CREATE TABLE apps(app_id TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL)
            STRICT, WITHOUT ROWID;
          CREATE TABLE meta(name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
          INSERT INTO meta VALUES('revision', 7);""",
    2: """CREATE TABLE certificates(name TEXT PRIMARY KEY NOT NULL, chain TEXT NOT NULL, private_key TEXT NOT NULL)
            STRICT, WITHOUT ROWID;""",
}


def document(app_id=None):
    return {"app_id": app_id or new_id(), "instances": [
        {"instance_id": new_id(), "address": new_address(), "generation": 1, "state": "running"}]}


def status(gateway):
    return gateway.control("GET", "/v1/status").json


def database(gateway):
    return gateway.folder / "state" / "routes.db"


def ids(gateway):
    return {json.loads(line)["app_id"] for line in gateway.control("GET", "/v1/snapshot").body.splitlines()}


# ---- schemas ----


@pytest.mark.parametrize("version", sorted(SCHEMAS))
def test_an_older_schema_is_brought_up(make_gateway, version):
    gateway = make_gateway(start=False)
    database(gateway).parent.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(database(gateway))) as old:
        for step in range(1, version + 1):
            old.executescript(SCHEMAS[step])
        old.execute("INSERT INTO apps VALUES('a1', 5, ?)", (json.dumps({"app_id": "a1"}),))
        old.execute(f"PRAGMA user_version={version}")
        old.commit()
    gateway.start()
    assert gateway.control("GET", "/v1/apps/a1").fields["ETag"] == '"5"' and status(gateway)["revision"] == 7
    # What was deleted in those days is not known: there is nothing to watch from.
    assert gateway.control("GET", "/v1/watch?since=6").code == "revision_gone"
    gateway.put_app(document("a2"))
    gateway.control("DELETE", "/v1/apps/a1")
    gateway.kill()
    gateway.start()
    assert ids(gateway) == {"a2"} and status(gateway)["revision"] == 9


def test_a_newer_schema_is_refused(make_gateway):
    gateway = make_gateway()
    gateway.put_app(document("a1"))
    gateway.stop()
    with contextlib.closing(sqlite3.connect(database(gateway))) as newer:
        newer.execute("PRAGMA user_version=99")
    result = subprocess.run(gateway.command(), capture_output=True, text=True, timeout=60, check=False,
                            stdin=subprocess.DEVNULL)
    assert result.returncode != 0 and "schema version 99" in result.stderr
    assert not list(database(gateway).parent.glob("*.corrupt-*"))


# ---- damage ----


def test_what_was_set_aside_is_told_everywhere(make_gateway):
    gateway = make_gateway()
    gateway.put_app(document())
    assert status(gateway)["store"]["set_aside"] is None and gateway.metric("store_set_aside") == 0
    gateway.stop()
    with open(database(gateway), "r+b") as file:
        file.write(b"x" * 100)
    for leftover in database(gateway).parent.glob("routes.db-*"):
        leftover.unlink()
    gateway.start()
    aside = status(gateway)["store"]["set_aside"]
    assert os.path.exists(aside) and aside in gateway.stderr()
    assert aside in gateway.control("GET", "/readyz?verbose").body.decode()
    assert gateway.metric("store_set_aside") == 1
    gateway.put_app(document("a1"))
    gateway.kill()
    gateway.start()
    assert ids(gateway) == {"a1"} and status(gateway)["store"]["set_aside"] is None


def test_damage_while_running(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    apps = [document() for _ in range(8000)]
    for apart in apps:
        apart["instances"].clear()
        apart["domains"] = [{"name": f"{'d' * 60}.{'e' * 60}.{apart['app_id']}.example", "port": 80}]
    lines = "".join(json.dumps(line) + "\n" for line in apps + [app.document])
    assert gateway.control("PUT", "/v1/snapshot", lines.encode()).status == 200
    with open(database(gateway), "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        assert size > 1 << 20
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    refused = None
    for apart in apps:
        apart["restrict_ports"] = True
        answer = gateway.put_app(apart)
        if answer.status != 200:
            refused = answer
            break
    assert refused.status == 507 and refused.code == "store_failed" and "damaged" in refused.json["detail"]
    assert status(gateway)["store"]["failing"] is True and gateway.metric("store_failing") == 1
    assert "failing" in gateway.control("GET", "/readyz?verbose").body.decode()
    assert gateway.fetch("GET", "/", app.host()).status == 200
    assert len(ids(gateway)) == 8001
    saved = gateway.control("GET", "/v1/snapshot").body
    gateway.kill()
    gateway.start()
    # The log may have had all that was damaged; else the loss is told.
    assert status(gateway)["store"]["set_aside"] or len(ids(gateway)) == 8001
    assert gateway.control("PUT", "/v1/snapshot", saved).json["apps"] == 8001


# ---- a full disk ----


@contextlib.contextmanager
def small_disk(folder):
    """A file system of 1 MiB at the folder; None when this user may not mount one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def big_document():
    return {**document(), "domains": [{"name": f"{'n' * 60}-{i}.{'m' * 60}.example", "port": 80} for i in range(100)]}


def push_until_refused(gateway):
    acknowledged = set()
    for _ in range(400):
        app = big_document()
        for number, domain in enumerate(app["domains"]):
            domain["name"] = f"{app['app_id']}-{number}.{domain['name'][5:]}"
        answer = gateway.put_app(app)
        if answer.status != 201:
            return acknowledged, answer
        acknowledged.add(app["app_id"])
    raise AssertionError("the disk was never full")


def test_full_disk(make_gateway, origin, tmp_path):
    with small_disk(tmp_path) as disk:
        gateway = make_gateway(**({"state_dir": str(disk)} if disk else {}))
        app = gateway.app(origin())
        if not disk:    # no right to mount: files of this process may not grow
            _, most = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1 << 20, most))
        acknowledged, refused = push_until_refused(gateway)
        assert refused.status == 507 and refused.code == "store_failed" and refused.json["detail"]
        assert status(gateway)["store"]["failing"] is True
        assert gateway.fetch("GET", "/", app.host()).status == 200
        assert ids(gateway) == acknowledged | {app.id}
        if disk:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        else:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (most, most))
        later = document()
        assert gateway.put_app(later).status == 201
        assert status(gateway)["store"]["failing"] is False and "works again" in gateway.stderr()
        gateway.kill()
        gateway.start()
        assert ids(gateway) == acknowledged | {app.id, later["app_id"]}
        gateway.stop()


# ---- a kill at each stage ----

# Commits of the store thread are these calls: frames of the log, its header, the sync, the checkpoint into the file.
STAGES = [("pwrite64", n) for n in (1, 2, 3, 4, 5, 7, 9, 12, 40)] + [("fdatasync", n) for n in (1, 2, 3)]


@contextlib.contextmanager
def killed_at(gateway, call, count):
    """The gateway's store thread dies when it enters this system call for the n-th time from now."""
    task = next(entry for entry in os.listdir(f"/proc/{gateway.process.pid}/task")
                if open(f"/proc/{gateway.process.pid}/task/{entry}/comm", encoding="ascii").read() == "store\n")
    tracer = subprocess.Popen(["strace", "-qq", "-p", task, "-e", f"trace={call}", "-e",
                               f"inject={call}:signal=KILL:when={count}"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: f"TracerPid:\t{tracer.pid}\n" in
               open(f"/proc/{gateway.process.pid}/task/{task}/status", encoding="ascii").read(), "the tracer", 30)
    try:
        yield
    finally:
        tracer.kill()
        tracer.wait()


def test_kill_at_each_stage_of_a_commit(make_gateway):
    gateway = make_gateway()
    gateway.put_app(document("first"))      # the store thread begins with it
    acknowledged = {"first": 1}
    for call, count in STAGES:
        pending = None
        with killed_at(gateway, call, count):
            for number in range(200):
                app_id = f"{call}-{count}-{number % 7}"
                wanted = acknowledged.get(app_id, 0) + 1
                pending = app_id, wanted
                try:
                    answer = gateway.put_app({"app_id": app_id, "limits": {"max_connections": wanted}})
                except (OSError, http.client.HTTPException):
                    break
                assert answer.status in (200, 201)
                acknowledged[app_id] = wanted
            else:
                raise AssertionError(f"{call} {count}: it lived on")
        gateway.process.wait(30)
        gateway.start()
        lines = map(json.loads, gateway.control("GET", "/v1/snapshot").body.splitlines())
        found = {app["app_id"]: app["limits"]["max_connections"] for app in lines}
        expected = {**acknowledged, "first": 0}
        assert found.get(pending[0], 0) in (pending[1] - 1, pending[1])
        acknowledged[pending[0]] = found.get(pending[0], 0)     # either is right, as it was not answered
        expected[pending[0]] = found.get(pending[0], 0)
        assert found == {app_id: value for app_id, value in expected.items() if value or app_id == "first"}
        gateway.put_app(document("first"))
        acknowledged["first"] = 0
        assert not list(database(gateway).parent.glob("*.corrupt-*"))

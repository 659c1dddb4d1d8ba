"""An acknowledged change survives kill -9."""
import contextlib
import http.client
import json
import random
import sqlite3
import subprocess
import threading

from gateway import new_id
from origin import new_address

ROUNDS, CHANGES, CLIENTS = 20, 200, 4


class Writer(threading.Thread):
    """Puts, replaces and deletes apps of its own until the gateway dies; knows what was acknowledged."""

    def __init__(self, gateway, acknowledged):
        super().__init__(daemon=True)
        self.gateway, self.acknowledged = gateway, acknowledged
        self.addresses = {}
        self.unanswered = {}        # app id -> what was asked for when it died
        self.count = 0              # of acknowledged changes
        self.error = None

    def change(self, app_id, generation):
        path = f"/v1/apps/{app_id}"
        self.unanswered[app_id] = generation
        if generation is None:
            answer = self.gateway.control("DELETE", path)
        else:
            answer = self.gateway.control("PUT", path, {"instances": [
                {"instance_id": app_id + "i", "address": self.addresses[app_id], "state": "running",
                 "generation": generation}]})
        assert answer.status in (200, 201, 204), answer
        del self.unanswered[app_id]
        self.acknowledged[app_id] = generation
        self.count += 1

    def run(self):
        ids = [new_id()[:20] for _ in range(CHANGES // CLIENTS // 2)]
        self.addresses = {app_id: new_address() for app_id in ids}
        try:
            for app_id in ids:
                self.change(app_id, 1)
            for number, app_id in enumerate(ids):
                self.change(app_id, None if number % 3 == 0 else 2)
        except (OSError, http.client.HTTPException):
            pass
        except Exception as error:      # pylint: disable=broad-except
            self.error = error


def test_kill_in_the_middle_of_changes(make_gateway):
    gateway = make_gateway()
    acknowledged = {}
    for _ in range(ROUNDS):
        writers = [Writer(gateway, acknowledged) for _ in range(CLIENTS)]
        goal = random.randrange(5, CHANGES)
        for writer in writers:
            writer.start()
        while sum(writer.count for writer in writers) < goal and any(writer.is_alive() for writer in writers):
            writers[0].join(0.002)
        gateway.kill()
        for writer in writers:
            writer.join(60)
            assert writer.error is None, writer.error
        gateway.start()
        stored = {app["app_id"]: app["instances"][0]["generation"] for app in
                  map(json.loads, gateway.control("GET", "/v1/snapshot").body.splitlines())}
        maybe = {app_id: generation for writer in writers for app_id, generation in writer.unanswered.items()}
        for app_id, generation in acknowledged.items():
            allowed = {generation, maybe.get(app_id, generation)}
            assert stored.get(app_id) in allowed, (app_id, allowed, stored.get(app_id))
        assert set(stored) <= set(acknowledged) | set(maybe)
        acknowledged.update({app_id: stored.get(app_id) for app_id in maybe})


def test_restart_keeps_routes_and_traffic(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    assert gateway.fetch("GET", "/", app.host()).status == 200
    revision = gateway.control("GET", f"/v1/apps/{app.id}").json["revision"]
    gateway.stop()
    gateway.start()
    assert gateway.control("GET", f"/v1/apps/{app.id}").json["revision"] == revision
    assert gateway.fetch("GET", "/", app.host()).status == 200


def test_revisions_grow_over_a_deletion_and_restart(make_gateway):
    gateway = make_gateway()
    gateway.app(app_id="a1")
    last = gateway.control("GET", "/v1/apps/a1").json["revision"]
    gateway.control("DELETE", "/v1/apps/a1")
    gateway.kill()
    gateway.start()
    gateway.app(app_id="a1")
    assert gateway.control("GET", "/v1/apps/a1").json["revision"] > last + 1


def test_two_gateways_on_one_state_folder(make_gateway):
    first = make_gateway()
    second = make_gateway(start=False, state_dir=first.config["state_dir"])
    second.write_config()
    result = subprocess.run(second.command(), capture_output=True, text=True, timeout=60, check=False,
                            stdin=subprocess.DEVNULL)
    assert result.returncode != 0 and "routes.db" in result.stderr
    assert first.control("GET", "/readyz").status == 200


def test_corrupt_store_is_set_aside(make_gateway):
    gateway = make_gateway()
    gateway.app(app_id="a1")
    gateway.stop()
    state = gateway.folder / "state"
    for leftover in state.glob("routes.db-*"):
        leftover.unlink()
    (state / "routes.db").write_bytes(b"not a database" * 1000)
    gateway.start()
    assert gateway.control("GET", "/v1/apps/a1").status == 404
    assert list(state.glob("routes.db.corrupt*")) and "corrupt" in gateway.stderr()
    gateway.app(app_id="a2")


def test_store_is_private_and_journaled(make_gateway):
    gateway = make_gateway()
    gateway.app(app_id="a1")
    path = gateway.folder / "state" / "routes.db"
    assert path.stat().st_mode & 0o077 == 0
    gateway.stop()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT app_id FROM apps").fetchall() == [("a1",)]


def test_bad_stored_record_does_not_harm_others(make_gateway):
    """A record that no longer validates is skipped with a line in the log, and kept in the store."""
    gateway = make_gateway()
    gateway.app(app_id="good")
    gateway.app(app_id="wrong")
    gateway.stop()
    path = gateway.folder / "state" / "routes.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("UPDATE apps SET document = '{\"app_id\":\"wrong\",\"ports\":7}' WHERE app_id = 'wrong'")
    gateway.start()
    assert gateway.control("GET", "/v1/apps/good").status == 200
    assert gateway.control("GET", "/v1/apps/wrong").status == 404
    assert "wrong" in gateway.stderr()
    gateway.stop()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert database.execute("SELECT count(*) FROM apps").fetchone() == (2,)


def test_apps_left_out_come_back_with_a_reload(make_gateway, origin):
    """A wrong upstream.allow and a restart: said, counted, and undone by the right one and a reload."""
    gateway = make_gateway()
    app = gateway.app(origin())
    before = gateway.control("GET", f"/v1/apps/{app.id}").json
    gateway.stop()
    gateway.config["upstream"] = {"allow": ["10.0.0.0/8"]}
    gateway.start()
    assert gateway.control("GET", f"/v1/apps/{app.id}").status == 404
    assert gateway.control("GET", "/v1/status").json["routes_left_out"] == gateway.metric("routes_left_out") == 1
    assert "\nroutes left out: 1\n" in gateway.control("GET", "/readyz?verbose").body.decode()
    assert gateway.control("GET", "/readyz").status == 200
    gateway.config["upstream"] = {"allow": ["127.0.0.0/8"]}
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200
    assert gateway.control("GET", f"/v1/apps/{app.id}").json == before
    assert gateway.fetch("GET", "/", app.host()).status == 200
    assert gateway.control("GET", "/v1/status").json["routes_left_out"] == gateway.metric("routes_left_out") == 0
    assert gateway.control("GET", "/v1/status").json["revision"] == before["revision"]

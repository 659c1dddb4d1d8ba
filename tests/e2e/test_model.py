"""
Address safety under churn: random pushes, moves, deletions and restarts while clients send all the time, against a model
that says what must be true (model_routes: the table; model_traffic: who may have seen what).

MODEL_SEED (a number) and MODEL_STEPS change the run; the defaults are what CI runs. Any number of steps is fine:
    MODEL_SEED=7 MODEL_STEPS=3000 GATEWAY_BUILD=build/dev /usr/bin/python3 -m pytest -q -s tests/e2e/test_model.py
The same seed makes the same calls only as far as the same things happen: what comes together may come in any order.
"""
import collections
import http.client
import json
import os
import random
import signal
import threading
import time

import pytest

from gateway import DOMAIN, UnixConnection
from model_routes import Table, describe, describe_table, explain, is_taking, why_unexplained
from model_traffic import Traffic
from origin import new_address
from wire import wait_until

SEED = int(os.environ.get("MODEL_SEED", "20"))
STEPS = int(os.environ.get("MODEL_STEPS", "120"))
APPS, OWN_INSTANCES, SHARED_INSTANCES, ADDRESSES, DOMAINS = 6, 3, 3, 10, 3
REPORTED_STEPS = 12


class Universe:
    """Makes random calls that are about few enough names and addresses to get into each other's way."""

    def __init__(self, seed, ports, addresses):
        self.random, self.addresses = random.Random(seed), addresses
        self.app_ids = [f"app{number}" for number in range(APPS)]
        self.shared = [f"roaming{number}" for number in range(SHARED_INSTANCES)]
        self.domains = [f"shop{number}.example.org" for number in range(DOMAINS)]
        self.ports = [{"port": port, "protocol": protocol, "proxy_protocol": "off"} for port, protocol in sorted(
            [(ports["http"], "auto"), (ports["h2c"], "h2c"), (ports["tcp"], "tcp"),
             (ports["passthrough"], "passthrough")])]

    def own(self, app_id):
        return [f"{app_id}x{number}" for number in range(OWN_INSTANCES)]

    def names(self):
        return [*self.app_ids, *(self.own(app_id)[0] for app_id in self.app_ids), *self.shared]

    def some(self, **weights):
        return self.random.choices(list(weights), list(weights.values()))[0]

    def state(self):
        return self.some(running=84, draining=8, starting=3, stopped=5)

    def generation(self, table, address, before):
        """Newer, older or equal to that of the instance, or of the address's owner."""
        owners = [it["generation"] for _, it in table.owners(address)]
        base = self.random.choice([before, *owners, *owners])
        return max(0, base + self.random.choice([-1, 0, 0, 1, 1, 1, 2]))

    def address(self):
        return "169.254.169.254" if self.random.random() < 0.01 else self.random.choice(self.addresses)

    def instance(self, table, app, number):
        old = app["instances"][number] if number < len(app["instances"]) else None
        if old and self.random.random() < 0.4:
            return old
        pool = self.shared if self.random.random() < 0.15 else self.own(app["app_id"])
        it = dict(old or {"instance_id": self.random.choice(pool), "address": self.address(), "generation": 1})
        if self.random.random() < 0.5:
            it["address"] = self.address()
        it["generation"] = self.generation(table, it["address"], it["generation"])
        it["state"], it["weight"] = self.state(), self.some(**{"1": 80, "3": 15, "0": 5})
        it["weight"] = int(it["weight"])
        return it

    def app(self, table, app_id=None):
        app_id = app_id or self.random.choice(self.app_ids)
        app = {**table.apps.get(app_id, {"app_id": app_id, "instances": []})}
        app.pop("revision", None)
        count = self.random.choice([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
        app["instances"] = [self.instance(table, app, number) for number in range(count)]
        app["ports"], app["restrict_ports"] = self.ports, self.random.random() < 0.8
        app["limits"] = {"max_connections": self.random.choice([0, 0, 1000]), "requests_per_second": 0}
        app["domains"] = [{"name": name, "port": self.ports[0]["port"]} for name in self.domains
                          if self.random.random() < 0.15]
        return app

    # ---- calls ----

    def push(self, table):
        kind = self.some(put=40, patch=20, delete=5, changes=20, snapshot=8)
        push = {"kind": kind, **getattr(self, kind)(table)}
        if self.random.random() < 0.1:
            now = table.apps.get(push.get("app_id"), {}).get("revision", table.revision) or 1
            push["if_match"] = now + self.random.choice([0, 0, 1])
        return push

    def put(self, table):
        app = self.app(table)
        return {"app_id": app["app_id"], "app": app}

    def delete(self, _):
        return {"app_id": self.random.choice(self.app_ids)}

    def patch(self, table):
        app_id = self.random.choice(self.app_ids)
        known = [it["instance_id"] for it in table.apps.get(app_id, {"instances": []})["instances"]]
        members = {"state": self.state(), "address": self.address(), "weight": self.random.choice([0, 1, 1, 1, 2])}
        members["generation"] = self.generation(table, members["address"], 1)
        chosen = {name: value for name, value in members.items() if self.random.random() < 0.5}
        return {"app_id": app_id, "members": chosen,
                "instance_id": self.random.choice(known * 5 + self.own(app_id)[:1])}

    def changes(self, table):
        numbered, revision = self.random.random() < 0.6, table.revision + self.random.choice([0, 1, 1, 1, 1, 1, 2])
        lines, ahead = [], table.copy()
        for number in range(self.random.randrange(1, 7)):
            if self.random.random() < 0.85:
                line = {"op": "put", "app": self.app(ahead)}
            else:
                line = {"op": "delete", **self.delete(ahead)}
            if numbered and revision + number > 0:
                line["revision"] = revision + number
            lines.append(line)
            ahead, _ = ahead.apply({"kind": "changes", "lines": [line]})
        return {"lines": lines}

    def snapshot(self, table):
        """The table with some apps changed, left out or added; some lines are bad."""
        apps = []
        for app_id in self.random.sample(self.app_ids, APPS):
            dice = self.random.random()
            if app_id in table.apps and dice < 0.5:
                apps.append({name: value for name, value in table.apps[app_id].items() if name != "revision"})
            elif dice < 0.92:
                apps.append(self.app(table, app_id))
        if self.random.random() < 0.05:
            apps.append(self.app(table))
        revision = table.revision + self.random.choice([0, 1, 1, 5]) if self.random.random() < 0.3 else 0
        return {"apps": apps, "strict": self.random.random() < 0.3, "revision": revision}


def send(gateway, push):
    """Calls the control API; returns the answer as the model has it, or None if it never came."""
    path, kind = f"/v1/apps/{push.get('app_id')}", push["kind"]
    method, body = {"put": "PUT", "patch": "PATCH", "delete": "DELETE", "changes": "POST", "snapshot": "PUT"}[kind], None
    if kind == "put":
        body = push["app"]
    elif kind == "patch":
        path, body = f"{path}/instances/{push['instance_id']}", push["members"]
    elif kind == "changes":
        path, body = "/v1/changes", ndjson(push["lines"])
    elif kind == "snapshot":
        path, body = f"/v1/snapshot?strict={int(push['strict'])}", ndjson(push["apps"])
        path += f"&revision={push['revision']}" if push["revision"] else ""
    fields = {"If_Match": f'"{push["if_match"]}"'} if "if_match" in push else {}
    try:
        answer = gateway.control(method, path, body, **fields)
    except (OSError, http.client.HTTPException):
        return None
    return understand(kind, answer)


def ndjson(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def understand(kind, answer):
    content = answer.json if answer.body else {}
    is_ok = answer.status in (200, 201, 204)
    understood = {"code": "ok" if is_ok else content["code"]}
    if kind == "changes" and "results" in content:
        understood["results"] = [(it["outcome"], it.get("revision", 0), it.get("code")) for it in content["results"]]
    elif kind == "snapshot" and is_ok:
        understood.update({name: content[name] for name in ("revision", "apps", "refused")})
    elif kind in ("put", "patch") and is_ok:
        understood.update(created=answer.status == 201, revision=content["revision"])
        assert answer.fields["ETag"] == f'"{content["revision"]}"'
    return understood


class Follower(threading.Thread):
    """Builds the table from GET /v1/watch alone, from revision 0 on, over restarts too."""

    def __init__(self, gateway):
        super().__init__(daemon=True)
        self.gateway, self.apps, self.revision, self.ended, self.error = gateway, {}, 0, False, None
        self.heartbeat = threading.Event()

    def run(self):
        try:
            while not self.ended:
                try:
                    self.follow()
                except (OSError, http.client.HTTPException, json.JSONDecodeError):
                    time.sleep(0.02)        # the gateway is away
        except Exception as error:      # pylint: disable=broad-except
            self.error = error

    def follow(self, until=None):
        """As long as the gateway lives; `until`: to this revision."""
        connection = UnixConnection(self.gateway.control_path)
        connection.request("GET", f"/v1/watch?since={self.revision}")
        response = connection.getresponse()
        assert response.status == 200, (self.revision, response.status, response.read())
        try:
            batch = []
            while text := response.readline():
                batch.append(json.loads(text))
                if batch[-1]["op"] == "heartbeat":
                    self.take(batch)
                    batch = []
                    if until is not None and self.revision >= until:
                        return
                elif batch[-1]["op"] == "end":
                    return
        finally:
            connection.close()

    def later(self):
        """Another one that has come so far, and goes on when it is told to."""
        other = Follower(self.gateway)
        other.apps, other.revision = self.apps, self.revision
        return other

    def take(self, batch):
        apps, heartbeat = dict(self.apps), batch.pop()
        for line in batch:
            if line["op"] == "put":
                assert line["revision"] == line["app"]["revision"]
                apps[line["app"]["app_id"]] = line["app"]
            else:
                apps.pop(line["app_id"], None)
        assert heartbeat["revision"] >= self.revision, f"from revision {self.revision} back to {heartbeat}"
        assert heartbeat["digest"] == Table(apps).digest() and heartbeat["apps"] == len(apps), (heartbeat, batch, apps)
        self.apps, self.revision = apps, heartbeat["revision"]

    def check(self, table):
        def is_there():
            assert self.error is None, self.error
            return self.apps == table.apps
        told = Table(self.apps, self.revision)
        wait_until(is_there, f"the watch to tell of {describe_table(table)}\nit told {describe_table(told)}")


class Run:
    def __init__(self, gateway, seed):
        self.gateway, self.table = gateway, Table()
        self.addresses = [new_address() for _ in range(ADDRESSES)]
        self.last, self.counts = collections.deque(maxlen=REPORTED_STEPS), collections.Counter()
        names = Universe(seed, dict.fromkeys(("http", "h2c", "tcp", "passthrough"), 1), []).names()
        self.traffic = Traffic(gateway, seed, self.addresses, names + 3 * names[:APPS])     # apps are asked more often
        self.universe = Universe(seed, self.traffic.ports, self.addresses)
        self.random = self.universe.random
        self.follower, self.late = Follower(gateway), []
        self.follower.start()

    def stop(self):
        self.follower.ended = True
        self.traffic.stop()

    # ---- steps ----

    def step(self):
        getattr(self, self.universe.some(push_one=80, push_together=12, restart=2, kill=3, kill_in_pushes=5))()
        self.check()

    def note(self, what):
        self.last.append(what)
        self.counts[what.partition(" ")[0]] += 1

    def push_one(self):
        self.push(self.universe.push(self.table))

    def fill(self):
        """So that there is something to ask for from the beginning."""
        for app_id in self.universe.app_ids:
            self.push({"kind": "put", "app_id": app_id, "app": self.universe.app(self.table, app_id)})

    def push(self, push):
        self.note(describe(push))
        begin = time.monotonic()
        answer = send(self.gateway, push)
        assert answer is not None, "the control API did not answer"
        self.conclude([[(push, answer)]], begin, time.monotonic())

    def start_pushes(self):
        """Several callers, each with some calls, one after the other. Returns (threads, sequences that they fill)."""
        ahead, plans = self.table, []
        for _ in range(self.random.randrange(1, 4)):
            plans.append([])
            for _ in range(self.random.randrange(1, 3)):
                plans[-1].append(self.universe.push(ahead))
                ahead, _ = ahead.apply(plans[-1][-1], ahead.compare(plans[-1][-1]) if "apps" in plans[-1][-1] else None)
        sequences = [[] for _ in plans]
        self.note("together " + " | ".join(" ; ".join(map(describe, plan)) for plan in plans))

        def call(plan, sequence):
            for push in plan:
                sequence.append((push, None))
                answer = send(self.gateway, push)
                if answer is None:
                    return
                sequence[-1] = (push, answer)
        threads = [threading.Thread(target=call, args=pair, daemon=True) for pair in zip(plans, sequences)]
        for thread in threads:
            thread.start()
        return threads, sequences

    def push_together(self):
        begin = time.monotonic()
        threads, sequences = self.start_pushes()
        for thread in threads:
            thread.join(60)
        assert all(answer for sequence in sequences for _, answer in sequence), "the control API did not answer"
        self.conclude(sequences, begin, time.monotonic())

    def conclude(self, sequences, begin, end):
        """Finds out what became of calls, by the answers and what the gateway says now."""
        exported, revision = export(self.gateway)

        def is_exported(table):
            return table.apps == exported and table.revision == revision
        finals, passed = explain(self.table, sequences, is_exported)
        assert finals, (f"the calls cannot have led from {describe_table(self.table)}\n"
                        f"to {describe_table(Table(exported, revision))}\n{why_unexplained(self.table, sequences)}")
        self.table = finals[0]
        self.traffic.change(self.table, begin, end, passed if sum(map(len, sequences)) > 1 else ())

    def restart(self):
        self.note("restart by SIGTERM")
        begin = time.monotonic()
        self.gateway.stop(signal.SIGTERM)
        self.gateway.start()
        self.traffic.outage(begin, time.monotonic())
        self.conclude([], begin, time.monotonic())

    def kill(self):
        self.note("restart by kill -9")
        begin = time.monotonic()
        self.gateway.kill()
        self.gateway.start()
        self.traffic.outage(begin, time.monotonic())
        self.conclude([], begin, time.monotonic())

    def kill_in_pushes(self):
        begin = time.monotonic()
        threads, sequences = self.start_pushes()
        time.sleep(self.random.uniform(0, 0.03))
        down = time.monotonic()
        self.gateway.kill()
        for thread in threads:
            thread.join(60)
        self.note(f"killed {[[answer for _, answer in sequence] for sequence in sequences]}")
        self.gateway.start()
        self.traffic.outage(down, time.monotonic())
        self.conclude(sequences, begin, time.monotonic())

    # ---- checks ----

    def check(self):
        self.check_claims()
        self.check_calls()
        self.follower.check(self.table)
        self.check_late_follower()
        self.traffic.await_closed()
        if self.random.random() < 0.3:
            self.traffic.await_calls()

    def check_late_follower(self):
        """From a revision of long ago, before restarts maybe, the watch leads to the same table."""
        if self.random.random() < 0.1:
            self.late.append(self.follower.later())
        if self.late and self.random.random() < 0.1:
            late = self.late.pop(self.random.randrange(len(self.late)))
            late.follow(self.table.revision)
            late.check(self.table)

    def check_claims(self):
        claims = self.table.claims()
        addresses = [claim[3] for claim in claims]
        assert len(set(addresses)) == len(addresses), f"an address has two live owners: {claims}"

    def check_calls(self):
        listed = self.gateway.control("GET", "/v1/apps").json["apps"]
        assert {app["app_id"]: app for app in listed} == self.table.apps
        for app_id in self.universe.app_ids:
            answer = self.gateway.control("GET", f"/v1/apps/{app_id}")
            assert answer.status == (200 if app_id in self.table.apps else 404)
            assert answer.status == 404 or answer.json == self.table.apps[app_id]
        for name in self.universe.names():
            self.check_resolve(f"{name}-{self.traffic.ports['http']}.{DOMAIN}", self.named(name))
        for domain in self.universe.domains:
            apps = [app for app in self.table.apps.values() if domain in [it["name"] for it in app["domains"]]]
            self.check_resolve(domain, (apps[0], apps[0]["instances"]) if apps else None)

    def named(self, name):
        """(app, instances) of an app's or instance's name."""
        for app in self.table.apps.values():
            if app["app_id"] == name:
                return app, app["instances"]
            for it in app["instances"]:
                if it["instance_id"] == name:
                    return app, [it]
        return None

    def check_resolve(self, host, expected):
        told = self.gateway.resolve(host)
        if not expected:
            assert not told["routes"] and "app_id" not in told, told
            return
        app, instances = expected
        assert told["app_id"] == app["app_id"] and told["revision"] == app["revision"], (told, app)
        assert [(it["instance_id"], it["takes_requests"]) for it in told["instances"]] == [
            (it["instance_id"], is_taking(it)) for it in instances], (told, app)
        assert told["routes"] == any(map(is_taking, instances)), (told, app)


def export(gateway):
    answer = gateway.control("GET", "/v1/snapshot")
    apps = {app["app_id"]: app for app in map(json.loads, answer.body.splitlines())}
    return apps, int(answer.fields["ETag"].strip('"'))


@pytest.mark.parametrize("workers", [1, 2])
def test_model(make_gateway, workers):
    gateway = make_gateway(workers=workers, timeouts={"drain": "300ms"})
    run = Run(gateway, SEED * 2 + workers)
    number = 0
    try:
        run.fill()
        for number in range(STEPS):
            run.step()
        run.stop()
        run.traffic.judge()
    except AssertionError as error:
        steps = "\n".join(run.last)
        raise AssertionError(f"MODEL_SEED={SEED}, {workers} workers, step {number}: {error}\n"
                             f"The last steps:\n{steps}") from error
    finally:
        run.follower.ended = True
        run.traffic.kill()
    print(f"\n{workers} workers, {STEPS} steps: {dict(run.counts)}; {run.traffic.counts}")
    assert run.traffic.counts["answered"] and run.traffic.counts["tunnels"]

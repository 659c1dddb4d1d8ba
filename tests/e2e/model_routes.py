"""What the control API promises, as a model: a table of apps, and what each call makes of it and answers.

A call ("push") is a value: {"kind": "put" | "patch" | "delete" | "changes" | "snapshot", ...}. A snapshot takes effect in
two steps, between which other calls may come: first its lines are compared with the table, then it is applied.
"""
import json

LIVE = ("running", "draining")
OK = "ok"
MASK = (1 << 64) - 1


class Refused(Exception):
    """With the code that the answer has."""


def live_instances(app):
    return [it for it in app["instances"] if it["state"] in LIVE]


def is_taking(instance):
    return instance["state"] == "running" and instance["weight"] > 0


def content(app):
    return {name: value for name, value in app.items() if name != "revision"}


class Table:
    """Documents are never changed in place, so a copy is cheap."""

    def __init__(self, apps=(), revision=0, tombstones=()):
        self.apps, self.revision, self.tombstones = dict(apps), revision, dict(tombstones)

    def copy(self):
        return Table(self.apps, self.revision, self.tombstones)

    def claims(self):
        """{(app, instance, generation, address)} of every live instance."""
        return {(app["app_id"], it["instance_id"], it["generation"], it["address"])
                for app in self.apps.values() for it in live_instances(app)}

    def owners(self, address):
        return [(app, it) for app in self.apps.values() for it in live_instances(app) if it["address"] == address]

    def digest(self):
        digest = 0
        for app in self.apps.values():
            digest ^= digest_of(app["app_id"], app["revision"])
        return f"{digest:016x}"

    # ---- one app ----

    def _name_owner(self, name, domain=False):
        for app in self.apps.values():
            names = [it["name"] for it in app["domains"]] if domain else [
                app["app_id"], *(it["instance_id"] for it in app["instances"])]
            if name in names:
                return app["app_id"]
        return None

    def _check(self, app, successors):
        """What one record must keep, whatever else is in the table."""
        check_record(app)
        names = [(app["app_id"], False), *((it["instance_id"], False) for it in app["instances"]),
                 *((it["name"], True) for it in app["domains"])]
        for name, domain in names:
            owner = self._name_owner(name, domain)
            if owner not in (None, app["app_id"]) and not gives_name_up(successors.get(owner), name, domain):
                raise Refused("invalid_record")
        if self._has_gone_back(app):
            raise Refused("invalid_record")
        for it in live_instances(app):
            for owner, loser in self._foreign_owners(app, it):
                if loser["generation"] >= it["generation"] and not gives_address_up(successors.get(owner["app_id"]),
                                                                                    it["address"]):
                    raise Refused("claim_conflict")

    def _has_gone_back(self, app):
        before = self.apps.get(app["app_id"], {"instances": []})
        known = {it["instance_id"]: it["generation"] for it in before["instances"]}
        return any(known.get(it["instance_id"], 0) > it["generation"] for it in app["instances"])

    def _foreign_owners(self, app, instance):
        return [(owner, it) for owner, it in self.owners(instance["address"]) if owner["app_id"] != app["app_id"]]

    def put(self, app, revision=None, successors={}):
        """`successors`: what other apps are to become, by id; what such a one has not any more is in nobody's way."""
        self._check(app, successors)
        revision = revision or self.revision + 1
        self._take_names(app, revision)
        for it in live_instances(app):
            for owner, loser in self._foreign_owners(app, it):
                instances = [{**one, "state": "stopped"} if one is loser else one for one in owner["instances"]]
                self.apps[owner["app_id"]] = {**owner, "instances": instances, "revision": revision}
        self.apps[app["app_id"]] = {**app, "revision": revision}
        self.tombstones.pop(app["app_id"], None)
        self.revision = max(self.revision, revision)

    def _take_names(self, app, revision):
        """From other apps, which give them up."""
        ids = {app["app_id"], *(it["instance_id"] for it in app["instances"])}
        domains = {it["name"] for it in app["domains"]}
        for owner in [it for it in self.apps.values() if it["app_id"] != app["app_id"]]:
            left = {"instances": [it for it in owner["instances"] if it["instance_id"] not in ids],
                    "domains": [it for it in owner["domains"] if it["name"] not in domains]}
            if any(left[name] != owner[name] for name in left):
                self.apps[owner["app_id"]] = {**owner, **left, "revision": revision}

    def delete(self, app_id, revision=None):
        if app_id not in self.apps:
            raise Refused("app_unknown")
        del self.apps[app_id]
        self.revision = revision or self.revision + 1
        self.tombstones[app_id] = self.revision

    # ---- calls: each returns the table after it, and the answer ----

    def apply(self, push, compared=None):
        """`compared` is what the snapshot's first step returned."""
        after = self.copy()
        try:
            answer = getattr(after, "_apply_" + push["kind"])(push, compared)
        except Refused as refusal:
            return self, {"code": str(refusal)}
        return after, answer

    def _expect(self, push, revision):
        if push.get("if_match") not in (None, revision):
            raise Refused("revision_conflict")

    def _expect_app(self, push):
        self._expect(push, self.apps.get(push["app_id"], {}).get("revision"))

    def _apply_put(self, push, _):
        self._expect_app(push)
        created = push["app_id"] not in self.apps
        self.put(push["app"])
        return {"code": OK, "created": created, "revision": self.revision}

    def _apply_patch(self, push, _):
        self._expect_app(push)
        app = self.apps.get(push["app_id"])
        if not app:
            raise Refused("app_unknown")
        if push["instance_id"] not in [it["instance_id"] for it in app["instances"]]:
            raise Refused("not_found")
        self.put({**app, "instances": [{**it, **push["members"]} if it["instance_id"] == push["instance_id"] else it
                                       for it in app["instances"]]})
        return {"code": OK, "created": False, "revision": self.revision}

    def _apply_delete(self, push, _):
        self._expect_app(push)
        self.delete(push["app_id"])
        return {"code": OK}

    def _apply_changes(self, push, _):
        self._expect(push, self.revision)
        results = [self._apply_line(line) for line in push["lines"]]
        gap = any(result[2] == "revision_gap" for result in results)
        return {"code": "revision_gap" if gap else OK, "results": results}

    def _apply_line(self, line):
        """(outcome, revision, code)"""
        given, following = line.get("revision", 0), self.revision + 1
        app_id = line["app"]["app_id"] if line["op"] == "put" else line["app_id"]
        if given > following:
            return ("refused", given, "revision_gap")
        if given and given < following:
            latest = self.apps.get(app_id, {}).get("revision") or self.tombstones.get(app_id, 0)
            if line["op"] == "delete" and not latest:
                return ("ignored", given, "app_unknown")
            return ("ignored" if latest >= given else "refused", given, "revision_taken")
        try:
            if line["op"] == "put":
                self.put(line["app"], following)
            else:
                self.delete(app_id, following)
            return ("applied", following, None)
        except Refused as refusal:
            if given:
                self.revision = following
            return ("ignored" if str(refusal) == "app_unknown" else "refused", given, str(refusal))

    def compare(self, push):
        """
        A snapshot's first step: (apps by id, None for those that the table has already; how many lines are bad; those
        of the table that bad lines are of).
        """
        entries, bad, left_alone = {}, 0, set()
        for app in push["apps"]:
            try:
                check_record(app)
            except Refused:
                bad += 1
                left_alone |= {app["app_id"]} & self.apps.keys()
                continue
            if app["app_id"] in entries:
                bad += 1
            else:
                same = content(self.apps.get(app["app_id"], {})) == content(app)
                entries[app["app_id"]] = None if same else app
        return entries, bad, left_alone

    def _apply_snapshot(self, push, compared):
        entries, bad, left_alone = compared
        if bad and (push["strict"] or not entries):
            raise Refused("invalid_record")
        self._expect(push, self.revision)
        before, revision = self.copy(), push["revision"] or self.revision + 1
        for app_id in [app_id for app_id in self.apps if app_id not in entries and app_id not in left_alone]:
            self.delete(app_id, revision)
        refused = self._put_passes([app for app in entries.values() if app], revision, False)
        refused = self._put_passes([app for app, _ in refused], revision, True)
        changed = before.apps != self.apps or before.revision != self.revision
        if push["revision"] and (push["revision"] < before.revision or
                                 (push["revision"] == before.revision and changed)):
            raise Refused("revision_taken")
        self.revision = push["revision"] or self.revision
        if push["strict"] and refused:
            raise Refused(refused[0][1])
        return {"code": OK, "revision": self.revision, "apps": len(entries) - len(refused),
                "refused": bad + len(refused)}

    def _put_passes(self, apps, revision, is_giving_up):
        """As long as that helps; returns what was refused, with the reasons."""
        while True:
            refused = self._put_some(apps, revision, is_giving_up)
            if not refused or len(refused) == len(apps):
                return refused
            apps = [app for app, _ in refused]

    def _put_some(self, apps, revision, is_giving_up):
        """One pass. What apps that are left give up is in nobody's way if `is_giving_up`."""
        refused, left = [], {app["app_id"]: app for app in apps}
        for app in apps:
            if content(self.apps.get(app["app_id"], {})) == content(app):
                del left[app["app_id"]]
                continue
            successors = {name: it for name, it in left.items() if is_giving_up and not self._has_gone_back(it)}
            try:
                self.put(app, revision, successors)
                del left[app["app_id"]]
            except Refused as refusal:
                refused.append((app, str(refusal)))
        return refused


def gives_name_up(successor, name, domain):
    if not successor:
        return False
    return name not in ([it["name"] for it in successor["domains"]] if domain else [
        successor["app_id"], *(it["instance_id"] for it in successor["instances"])])


def gives_address_up(successor, address):
    return bool(successor) and address not in [it["address"] for it in live_instances(successor)]


def check_record(app):
    live = [it["address"] for it in live_instances(app)]
    ids = [it["instance_id"] for it in app["instances"]]
    domains = [it["name"] for it in app["domains"]]
    if len(set(live)) < len(live) or len(set(ids)) < len(ids) or len(set(domains)) < len(domains):
        raise Refused("invalid_record")
    if any(not it["address"].startswith("127.") for it in app["instances"]):
        raise Refused("invalid_record")


# ---- the digest of /v1/watch ----

def fold(a, b):
    product = a * b
    return (product ^ product >> 64) & MASK


def load(data):
    return int.from_bytes(data, "little")


def digest_of(app_id, revision):
    """changes_digest_of, which name_hash.h describes."""
    a, b, name = 0x243f6a8885a308d3, 0x13198a2e03707344, app_id.encode()
    state = a ^ fold(len(name) ^ 0x9e3779b97f4a7c15, b)
    while len(name) >= 16:
        state = fold(load(name[:8]) ^ b, load(name[8:16]) ^ state)
        name = name[16:]
    if len(name) >= 8:
        state = fold(load(name[:8]) ^ b, state ^ 0xd6e8feb86659fd93)
        name = name[8:]
    if name:
        state = fold(load(name) ^ b, state ^ 0xa0761d6478bd642f)
    state = fold(state ^ a, 0xe7037ed1a0b428db ^ b)
    return fold(state ^ revision, 0xa4093822299f31d1)


# ---- what happened, when several called at once or the gateway died ----

def is_answer(expected, actual):
    """Whether the model's answer is the gateway's."""
    return {**actual, **expected} == actual


def explain(table, sequences, is_final):
    """
    All orders of the calls of `sequences` (lists of (push, answer); answer None: it never came) that give each answer
    and end in a table for which is_final holds. Returns (final tables, all tables on the way of such orders).
    """
    finals, passed = {}, {}

    def key(now):
        return json.dumps([now.apps, now.revision, now.tombstones], sort_keys=True)

    def search(now, positions, compared, path):
        done = all(at == len(sequences[i]) or sequences[i][at][1] is None for i, at in enumerate(positions))
        if done and is_final(now):
            finals[key(now)] = now
            passed.update({key(one): one for one in path})
        for i, at in enumerate(positions):
            if at == len(sequences[i]):
                continue
            push, answer = sequences[i][at]
            if push["kind"] == "snapshot" and i not in compared:
                search(now, positions, {**compared, i: now.compare(push)}, path)
                continue
            after, expected = now.apply(push, compared.get(i))
            if answer is not None and not is_answer(expected, answer):
                continue
            rest = {other: value for other, value in compared.items() if other != i}
            search(after, [*positions[:i], at + 1, *positions[i + 1:]], rest, [*path, after])

    search(table, [0] * len(sequences), {}, [])
    return list(finals.values()), list(passed.values())


def why_unexplained(table, sequences):
    """For the report of a failure: what the model would answer to each call, in the order given."""
    lines = []
    for sequence in sequences:
        for push, answer in sequence:
            compared = table.compare(push) if push["kind"] == "snapshot" else None
            table, expected = table.apply(push, compared)
            lines.append(f"  {describe(push)}\n    model:   {expected}\n    gateway: {answer}")
    return "\n".join(lines)


def describe(push):
    """On one line, without what is the same in all apps."""
    kind, condition = push["kind"], f" if-match {push['if_match']}" if "if_match" in push else ""
    if kind == "put":
        return f"put {describe_app(push['app'])}{condition}"
    if kind == "patch":
        return f"patch {push['app_id']} {push['instance_id']} {push['members']}{condition}"
    if kind == "delete":
        return f"delete {push['app_id']}{condition}"
    if kind == "changes":
        lines = [f"{line.get('revision', '-')} " + (describe_app(line["app"]) if line["op"] == "put" else
                                                    f"delete {line['app_id']}") for line in push["lines"]]
        return f"changes{condition}: " + " ; ".join(lines)
    return (f"snapshot revision {push['revision']} strict {push['strict']}{condition}: " +
            " ; ".join(map(describe_app, push["apps"])))


def describe_app(app):
    instances = [f"{it['instance_id']}@{it['address']} g{it['generation']} {it['state']} w{it['weight']}"
                 for it in app["instances"]]
    more = [it["name"] for it in app["domains"]] + ["restricted"] * app["restrict_ports"]
    more += [f"max {app['limits']['max_connections']}"] if app["limits"]["max_connections"] else []
    return f"{app['app_id']}[{', '.join(instances)}]{more}{app.get('revision', '')}"


def describe_table(table):
    return f"revision {table.revision}: " + " ; ".join(describe_app(table.apps[name]) for name in sorted(table.apps))

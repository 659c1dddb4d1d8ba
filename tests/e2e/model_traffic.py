"""Judges what clients and instances saw by who owned which address when.

All times are of one clock. A change was made some time between its begin (before the call was sent) and its end (when
the answer was there): whatever may have been true in between is allowed, and nothing else is.
"""
import functools
import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

from gateway import DOMAIN
from model_routes import is_taking, live_instances
from wire import wait_until

FOREVER = float("inf")
MEMORY = 150        # seconds; nothing is told later than this after it happened


instances_of = functools.lru_cache(json.loads)


class Program:
    """A helper with its lines; it ends with its standard input."""

    def __init__(self, name, **options):
        command = [sys.executable, str(Path(__file__).parent / name), json.dumps(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def taken(self):
        """What it has said since the last time."""
        lines = []
        while not self.lines.empty():
            lines.append(self.lines.get())
        return lines

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.stdin.close()
        status = self.process.wait(60)
        self.thread.join(60)
        assert status == 0, f"{self.process.args[1]} ended with {status}"


class Span:
    """A time in which something held: begun in [begin, sure], ended in [last, end]. In each of the times `breaks` it may
    have ceased to hold for a moment."""

    def __init__(self, begin, sure):
        self.begin, self.sure, self.last, self.end, self.breaks = begin, sure, FOREVER, FOREVER, []

    @property
    def is_open(self):
        return self.end == FOREVER


    def is_whole(self, begin, end):
        """Whether it surely held all the time from begin to end."""
        return self.sure <= begin and self.last >= end and not any(
            first <= end and last >= begin for first, last in self.breaks)

    def may_have_ended(self, at):
        return self.last <= at or any(first <= at for first, _ in self.breaks)


class Timeline:
    """The spans of each of many facts."""

    def __init__(self):
        self.spans, self.now = {}, set()

    def change(self, facts, begin, end, passed=()):
        """From a change in [begin, end] on, `facts` hold; each of the sets `passed` may have held on the way."""
        for fact in self.now - facts:
            self.spans[fact][-1].last, self.spans[fact][-1].end = begin, end
        for fact in facts - self.now:
            self.spans.setdefault(fact, []).append(Span(begin, end))
        for fact in set().union(*passed) - facts - self.now:
            span = Span(begin, end)
            span.last, span.end = begin, end
            self.spans.setdefault(fact, []).append(span)
        for fact in facts & self.now:
            if any(fact not in one for one in passed):
                self.spans[fact][-1].breaks.append((begin, end))
        self.now = facts

    def forget(self, before):
        """What ended before this time."""
        self.spans = {fact: left for fact, spans in self.spans.items()
                      if (left := [span for span in spans if span.end >= before])}

    def held(self, fact, begin, end):
        """The spans that may have had any of the time from begin to end."""
        return [span for span in reversed(self.spans.get(fact, [])) if span.begin <= end and span.end >= begin]


class Traffic:
    """
    Facts are: ("claim", name, address, generation, instance, app), where the first name is that of the app or of the
    instance, as hosts have it; ("takes", …) the same for an instance that gets new requests; ("app", app, its instances
    as JSON).
    """

    def __init__(self, gateway, seed, addresses, names):
        self.back = Program("model_back.py", addresses=addresses)
        self.ports = self.back.lines.get(timeout=60)
        self.timeline, self.outages, self.tunnels, self.counts = Timeline(), [], {}, {}
        self.clients = Program("model_clients.py", port=gateway.port, ca=str(gateway.authority.ca), seed=seed,
                               names=names, ports=self.ports, domain=DOMAIN)

    def stop(self):
        self.clients.stop()
        self.back.stop()

    def kill(self):
        self.clients.kill()
        self.back.kill()

    # ---- what holds ----

    @staticmethod
    def facts(table):
        facts = set()
        for app in table.apps.values():
            facts.add(("app", app["app_id"], json.dumps(app["instances"])))
            for it in live_instances(app):
                for name in {app["app_id"], it["instance_id"]}:
                    claim = (name, it["address"], it["generation"], it["instance_id"], app["app_id"])
                    facts.add(("claim", *claim))
                    if is_taking(it):
                        facts.add(("takes", *claim))
        return facts

    def change(self, table, begin, end, passed=()):
        self.timeline.forget(begin - MEMORY)
        self.timeline.change(self.facts(table), begin, end, [self.facts(one) for one in passed])

    def outage(self, begin, end):
        """The gateway was not there, or about to go; connections may have been lost."""
        self.outages.append((begin, end))

    def is_outage(self, begin, end):
        return any(down <= end and up >= begin for down, up in self.outages)

    def claims_on(self, what, name, address):
        return [fact for fact in self.timeline.spans if fact[0] == what and fact[1] == name and fact[2] == address]

    # ---- judging ----

    def judge(self):
        """All that was seen since the last time, which must be when no change is in progress."""
        for line in self.back.taken():
            assert "crash" not in line, line["crash"]
            self.judge_arrival(line)
        for line in self.clients.taken():
            getattr(self, "judge_" + line["type"])(line)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def judge_crash(self, line):
        raise AssertionError(line["error"])

    def judge_arrival(self, line):
        """
        A request, or a piece of a tunnel's bytes, at an instance: its app owned the address when it was sent, and since
        the connection began.
        """
        self.count("pieces" if line["is_tunnel"] else "arrived")
        name = line["host"].partition(".")[0].rpartition("-")[0]
        self.judge_owner(line, name, line["sent"], "bytes came to an address that their app did not own")
        if line["is_tunnel"]:
            return
        taken = [span for fact in self.claims_on("takes", name, line["address"])
                 for span in self.timeline.held(fact, line["sent"], line["arrived"])]
        assert taken, f"a request came to an instance that takes none: {line}; {self.history(name, line['address'])}"

    def judge_owner(self, line, name, since, what):
        spans = [span for fact in self.claims_on("claim", name, line["address"])
                 for span in self.timeline.held(fact, since, FOREVER) if span.begin <= line["accepted"]]
        assert spans, f"{what}: {line}; {self.history(name, line['address'])}"
        return spans

    def history(self, name, address):
        spans = {fact: [(span.begin, span.end) for span in spans] for fact, spans in self.timeline.spans.items()
                 if fact[0] != "app" and address in fact}
        return f"{name} at {address}: {spans}; outages: {self.outages[-3:]}"

    def judge_refused(self, line):
        assert self.is_outage(line["sent"], line["received"]), f"no connection to the gateway: {line}"

    def judge_call(self, line):
        name = line["host"].partition(".")[0].rpartition("-")[0]
        self.count("calls")
        if line.get("status") == 200:
            self.count("answered")
            body = line["body"]
            assert body["host"] == line["host"] and body["sent"] == line["sent"], f"somebody else's answer: {line}"
            self.judge_owner(body, name, body["answered"], "an answer came from an address that its app did not own")
            return
        if self.is_outage(line["opened"] if "error" in line else line["sent"], line["received"]):
            self.count("lost in an outage")
            return
        expected = self.expected(name, line["sent"], line["received"])
        self.count(line.get("code") or "cut")
        if expected is not None:
            assert line.get("status") == expected, f"{expected} would be right: {line}; {self.states(name, line)}"

    def possible(self, name, begin, end):
        """The instances of each app state that the name may have had in this time: lists; None: no app has it."""
        lists, always = [], False
        for fact in [fact for fact in self.timeline.spans if fact[0] == "app"]:
            instances = instances_of(fact[2])
            if fact[1] != name:
                instances = [it for it in instances if it["instance_id"] == name]
            if fact[1] != name and not instances:
                continue
            for span in self.timeline.held(fact, begin, end):
                lists.append(instances)
                always = always or span.is_whole(begin, end)
        return lists if always else [*lists, None]

    def expected(self, name, begin, end):
        """The status of a request that was in progress in this time; None: things have changed meanwhile."""
        possible = self.possible(name, begin, end)
        if len(possible) != 1:
            return None
        if possible[0] is None:
            return 404
        return 200 if any(is_taking(it) for it in possible[0]) else 503

    def states(self, name, line):
        return f"states: {self.possible(name, line['sent'], line['received'])}"

    # ---- tunnels ----

    def judge_open(self, line):
        self.count("tunnels")
        name = line["host"].partition(".")[0].rpartition("-")[0]
        line["spans"] = self.judge_owner(line, name, line["sent"], "a tunnel leads to an address of somebody else")
        self.tunnels[line["id"]] = line

    def judge_failed(self, line):
        if self.is_outage(line["sent"], line["received"]):
            return
        name = line["host"].partition(".")[0].rpartition("-")[0]
        expected = self.expected(name, line["sent"], line["received"])
        assert expected != 200, f"the tunnel should have opened: {line}; {self.states(name, line)}"
        assert None in (expected, line["status"]) or line["status"] in (expected, 101), f"not {expected}: {line}"

    def judge_leaving(self, line):
        del self.tunnels[line["id"]]

    def judge_closed(self, line):
        tunnel = self.tunnels.pop(line["id"], None)
        if line["by"] == "client":
            return
        assert line["by"] == "gateway", f"{line}: {tunnel}"
        if not self.is_outage(tunnel["sent"], line["at"]):
            assert any(span.may_have_ended(line["at"]) for span in tunnel["spans"]), (
                f"the gateway closed a tunnel whose address is still its app's: {tunnel}, {line}")

    def await_calls(self):
        """Some traffic over the present state."""
        goal = self.counts.get("calls", 0) + 30

        def is_done():
            self.judge()
            return self.counts.get("calls", 0) >= goal
        wait_until(is_done, "calls to be answered")

    def await_closed(self):
        """Tunnels over addresses that have another owner now, or none, are closed."""
        def is_done():
            self.judge()
            return not [it for it in self.tunnels.values() if not any(span.is_open for span in it["spans"])]
        try:
            wait_until(is_done, "tunnels over revoked addresses to be closed")
        except AssertionError as error:
            left = [{**it, "spans": [vars(span) for span in it["spans"]]} for it in self.tunnels.values()
                    if not any(span.is_open for span in it["spans"])]
            raise AssertionError(f"{error}: {left}") from error

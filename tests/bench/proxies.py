"""The gateway beside other proxies: whole requests over real connections, the CPU time of the proxy for each.

Targets take turns within each round, each newly started on one CPU, with the load generator (load.c) and the backend
(backend.c) on another. Both check every byte; anything that is wrong ends the run.
"""
import contextlib
import json
import ssl
import socket
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from certificates import Authority      # this and the next are of tests/e2e
from gateway import free_port
from peers import PEERS, START_SECONDS, Gateway, Job, Relay
from processes import CallCounter, Failure, Program, adopt_orphans, busy_seconds, choose_cpus, raise_limits

HOSTS = 1000
BODY = 64 << 20
IDLE_CONNECTIONS = 8000
SETTLE_SECONDS = 1          # until a proxy with idle connections has given back what it gives back
WARM_UP_SECONDS, CALLS_SECONDS = 0.3, 0.5       # or --seconds, if that is less
LOG_SECONDS = 10
DISTURBED = 0.1             # share of the target's CPU that other programs may use before a sample is taken again
PAUSE_SECONDS = 2


@dataclass(frozen=True)
class Case:
    name: str
    about: str
    needs: str                  # features of a target, see peers.py
    options: str                # of the load generator
    unit: str = "request"       # what the CPU time is divided by: some kind of answer, "GiB"; "connection": memory
    is_logged: bool = True      # a line in the access log for each answer

    @property
    def behind(self):
        """What the backend speaks, see peers.Job."""
        return {"passthrough": "tls", "grpc": "grpc"}.get(self.needs.split()[0], "h1")

    @property
    def is_idle(self):
        return "--idle" in self.options

    @property
    def figure(self):
        if self.is_idle:
            return "KiB a connection"
        return "CPU ms a GiB" if self.unit == "GiB" else f"CPU us a {self.unit}"


CASES = {case.name: case for case in [
    Case("handshake", "a new connection, a full handshake and one request, 16 at a time", "h1",
         "--protocol h1 --connections 16 --new-connections", "handshake"),
    Case("handshake-resumed", "a new connection, a resumed handshake and one request, 16 at a time", "h1 resume",
         "--protocol h1 --connections 16 --resume", "handshake"),
    Case("h1-small", "HTTP/1.1, answers of 128 bytes, 64 connections", "h1", "--protocol h1 --connections 64"),
    Case("h1-hosts", "the same over 512 connections, each to another host", "h1", "--protocol h1 --connections 512"),
    Case("h2-small", "HTTP/2, answers of 128 bytes, 8 connections of 32 streams, HTTP/1.1 behind", "h2",
         "--protocol h2 --connections 8 --streams 32"),
    Case("h2-single", "HTTP/2, one stream at a time on 64 connections", "h2", "--protocol h2 --connections 64"),
    Case("grpc", "gRPC calls, 64 bytes up and 128 down, 8 connections of 32 streams, h2c behind", "grpc",
         "--protocol grpc --connections 8 --streams 32", "call"),
    Case("h1-download", "HTTP/1.1, answers of 64 MiB, 4 connections", "h1",
         f"--protocol h1 --connections 4 --answer {BODY}", "GiB"),
    Case("h2-download", "HTTP/2, answers of 64 MiB, 4 connections", "h2",
         f"--protocol h2 --connections 4 --answer {BODY}", "GiB"),
    Case("h1-upload", "HTTP/1.1, uploads of 64 MiB, 4 connections", "h1",
         f"--protocol h1 --connections 4 --upload {BODY}", "GiB"),
    Case("h2-upload", "HTTP/2, uploads of 64 MiB, 4 connections", "h2",
         f"--protocol h2 --connections 4 --upload {BODY}", "GiB"),
    Case("websocket", "WebSocket, messages of 64 bytes echoed, 64 connections", "h1 upgrade",
         "--protocol websocket --connections 64", "message", is_logged=False),
    Case("passthrough", "TLS passed through: a new connection and one request, 16 at a time", "passthrough",
         "--protocol h1 --connections 16 --new-connections", "connection"),
    Case("passthrough-download", "TLS passed through: answers of 64 MiB, 4 connections", "passthrough bulk",
         f"--protocol h1 --connections 4 --answer {BODY}", "GiB", is_logged=False),
    Case("idle-h1", "idle HTTP/1.1 connections, after a request each", "h1", "--protocol h1 --idle"),
    Case("idle-h2", "idle HTTP/2 connections, after a request each", "h2", "--protocol h2 --idle"),
]}


class Bench:
    """What all samples have in common. `tools`: the folder of bench_load and bench_backend."""

    def __init__(self, tools, folder, seconds, tries):
        self.tools, self.folder, self.seconds, self.tries = Path(tools), Path(folder), seconds, tries
        self.cpu, self.other_cpu = choose_cpus()
        self.idle_connections = min(IDLE_CONNECTIONS, raise_limits() // 2)
        authority = Authority(self.folder)
        self.front = authority.issue("proxy", "DNS:*.cluster.example")      # certificate and key
        self.back = authority.issue("backend", "DNS:*.cluster.example")

    def backend(self, case, job, target, folder):
        speaks = {"h1": [] if target.adds_fields else ["--bare"], "grpc": ["--grpc"],
                  "tls": ["--tls", *self.back]}[case.behind]
        command = [self.tools / "bench_backend", "--port", job.backend_port, "--hosts", job.hosts, *speaks]
        return Program(command, self.other_cpu, folder, "backend", talks=True)

    @contextlib.contextmanager
    def running(self, case, target):
        """(job, the target's Program), once the target takes connections."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{target.name}-", dir=self.folder))
            port = free_port("0.0.0.0")
            hosts = target.max_hosts or HOSTS
            if target.is_proxy:
                job = Job(Path(folder), port, free_port("0.0.0.0"), hosts, *self.front, case.behind)
                stack.enter_context(self.backend(case, job, target, folder)).read_word("ready")
            else:
                job = Job(Path(folder), port, port, hosts, *self.front, is_direct=True)
            command = target.command(job)
            program = stack.enter_context(Program(command, self.cpu, folder, target.name, talks=not target.is_proxy))
            try:
                target.set_routes(job, program)
                self.wait_for_handshake(case, job, program)
                yield job, program
            except Failure as failure:
                raise Failure(self.explain(case, target, failure, job)) from failure

    @staticmethod
    def explain(case, target, failure, job):
        """With what the target and the backend say about it."""
        text = f"{case.name}, {target.name}: {failure}"
        for name in ("backend.stderr", f"{target.name}.stderr", "error.log"):
            path = job.folder / name
            if path.exists() and (said := path.read_text(errors="replace")[-1500:].strip()):
                text += f"\n--- {name}\n{said}"
        return text

    def wait_for_handshake(self, case, job, program):
        """Until a handshake succeeds, for the last host."""
        context = ssl.create_default_context(cafile=self.certificate(case))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with (socket.create_connection((job.listens_on, job.port), timeout=5) as sock,
                      context.wrap_socket(sock, server_hostname=job.host(job.hosts - 1))):
                    return
            except OSError as error:
                if program.has_ended():
                    raise Failure("it has ended") from error
                if time.monotonic() > deadline:
                    raise Failure(f"no handshake within {START_SECONDS} s: {error}") from error
                time.sleep(0.01)

    def certificate(self, case):
        """That a client must be shown, this one and no other."""
        return (self.back if case.behind == "tls" else self.front)[0]

    def load(self, case, job, program, *options):
        """The load generator. It ends when its input does."""
        many = ["--connections", self.idle_connections, "--hosts", 1] if case.is_idle else ["--hosts", job.hosts]
        many += ["--direct"] if job.is_direct else []
        command = [self.tools / "bench_load", "--port", job.port, "--backend-port", job.backend_port,
                   "--certificate", self.certificate(case), "--clocks", ",".join(map(str, program.pids())), *many,
                   "--warm-up", min(WARM_UP_SECONDS, self.seconds), *case.options.split(), *options]
        return Program(command, self.other_cpu, job.folder, "load", talks=True)

    # ---- samples ----

    def sample(self, case, target):
        """(the figure, what of it was done in a second, the share of the CPU that others used): the best of some tries
        if others use much of it."""
        samples = []
        while len(samples) < self.tries and (not samples or samples[-1][2] > DISTURBED):
            time.sleep(PAUSE_SECONDS if samples else 0)
            with self.running(case, target) as (job, program):
                samples.append(self.sample_idle(case, job, program) if case.is_idle else
                               self.sample_load(case, target, job, program))
        return min(samples, key=lambda sample: sample[2])

    def sample_load(self, case, target, job, program):
        with self.load(case, job, program, "--seconds", self.seconds) as load:
            load.read_word("begin")
            busy = busy_seconds(self.cpu)
            load.read_word("end")
            busy = busy_seconds(self.cpu) - busy
            result = finish(load)
        if case.is_logged and target.log:
            check_log(job, target, result["all_answered"])
        done = result["bytes"] / (1 << 30) if case.unit == "GiB" else result["answered"]
        cpu, seconds = result["cpu_seconds"], result["seconds"]
        return cpu * (1e3 if case.unit == "GiB" else 1e6) / done, done / seconds, max(0, busy - cpu) / seconds

    def sample_idle(self, case, job, program):
        before = program.memory_bytes()
        with self.load(case, job, program) as load:
            load.read_word("begin")
            time.sleep(SETTLE_SECONDS)
            after = program.memory_bytes()
            load.process.stdin.close()
            finish(load)
        return (after - before) / 1024 / self.idle_connections, None, 0

    def count_calls(self, case, target):
        """System calls of the target for each answer."""
        with self.running(case, target) as (job, program), CallCounter(program, self.other_cpu, job.folder) as counter:
            with self.load(case, job, program, "--seconds", min(CALLS_SECONDS, self.seconds)) as load:
                load.read_word("begin")
                counter.start()
                load.read_word("end")
                calls = counter.finish()
                result = finish(load)
        return calls / result["answered"]


def finish(load):
    """Waits for the load generator's end; returns what it reports."""
    output = load.process.stdout.read().split("\n")
    if load.process.wait(30) != 0:
        raise Failure(load.errors() or "the load generator failed")
    return json.loads(output[-2])


def check_log(job, target, answers):
    deadline = time.monotonic() + LOG_SECONDS
    while (lines := (job.folder / target.log).read_bytes().count(b"\n")) < answers:
        if time.monotonic() > deadline:
            raise Failure(f"{lines} lines in the access log for {answers} answers")
        time.sleep(0.02)


# ---- rounds ----

def measure_case(bench, case, targets, rounds, counts_calls, progress):
    """A row for each target."""
    rows = [{"program": "proxies", "case": case.name, "target": target.name, "is_floor": target.is_floor,
             "figure": case.figure, "values": [], "rates": [], "others": []} for target in targets]
    places = list(zip(targets, rows))
    for number in range(rounds):
        for target, row in places[number % len(places):] + places[:number % len(places)]:
            progress(f"{case.name}: round {number + 1} of {rounds}, {target.name}")
            for name, figure in zip(("values", "rates", "others"), bench.sample(case, target)):
                row[name].append(figure)
    for target, row in places:
        row["value"] = statistics.median(row["values"])
        row["rate"] = None if case.is_idle else statistics.median(row["rates"])
        if counts_calls and not case.is_idle and case.unit != "GiB":
            progress(f"{case.name}: system calls of {target.name}")
            row["calls"] = bench.count_calls(case, target)
    compare(rows)
    return rows


def compare(rows):
    """Adds each row's ratio to the best peer: of the same round, then the median of these, and the range."""
    peers = [row for row in rows if row["target"] != "gateway" and not row["is_floor"]]
    if not peers:
        return
    best = min(peers, key=lambda row: row["value"])
    for row in rows:
        ratios = [value / other for value, other in zip(row["values"], best["values"])]
        row |= {"best_peer": best["target"], "ratio": statistics.median(ratios), "ratio_low": min(ratios),
                "ratio_high": max(ratios)}


# ---- the table ----

def rounded(value):
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def print_case(case, rows):
    rate = "" if case.is_idle else f"{case.unit if case.unit == 'GiB' else case.unit + 's'}/s"
    ratio = f"to {rows[0]['best_peer']}" if "best_peer" in rows[0] else "ratio"
    print(f"\n{case.name}: {case.about}")
    print(f"  {'':<11} {case.figure:>19} {ratio:>13} {'range':>12} {rate:>14} {'system calls':>13}")
    for row in rows:
        ratios = ("-", "-")
        if "ratio" in row:
            several = f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}" if len(row["values"]) > 1 else "-"
            ratios = f"{row['ratio']:.2f}", several
        done = rounded(row["rate"]) if row["rate"] else "-"
        calls = f"{row['calls']:.2f}" if "calls" in row else "-"
        value = rounded(row["value"])
        print(f"  {row['target']:<11} {value:>19} {ratios[0]:>13} {ratios[1]:>12} {done:>14} {calls:>13}")
    if (most := max(share for row in rows for share in row["others"])) > DISTURBED:
        print(f"  Other programs used up to {most:.0%} of the CPU meanwhile, which makes figures higher.")
    sys.stdout.flush()


def print_head(bench, targets):
    where = f"CPU {bench.cpu}, load and backend on CPU {bench.other_cpu}"
    print(f"\nCPU time of each proxy, one worker on {where}; {HOSTS:,} hosts, TLS 1.3, access log on.\n"
          f"Idle connections: {bench.idle_connections:,}.")
    print("Measured: " + ", ".join(target.version() for target in targets))
    if not any(peer.path() for peer in PEERS):
        print("No peer is installed: `conf/install-packages peers` brings nginx-light, libnginx-mod-stream, haproxy,\n"
              "nghttp2-proxy, h2o and hitch, without starting their services as `sudo apt-get install` does.")
    if bench.cpu == bench.other_cpu:
        print("There is only one CPU: the load takes time of what is measured away, and the caches.")


class Progress:
    """The last line of a terminal says what is being done."""

    def __init__(self):
        self.shown = sys.stderr.isatty()

    def __call__(self, text=""):
        if self.shown:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def choose_targets(tools, gateway, names):
    """The gateway, the peers that are installed, and the floor of passthrough, or those that are named."""
    known = {target.name: target for target in [Gateway(gateway), *PEERS, Relay(tools)]}
    if unknown := set(names or []) - set(known):
        raise Failure(f"no target {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if missing := [name for name in names or ["gateway"] if not known[name].path()]:
        raise Failure(f"not installed: {', '.join(missing)}")
    return [target for name, target in known.items() if target.path() and (not names or name in names)]


@contextlib.contextmanager
def opened(tools, targets, options):
    """A Bench, of which the head of its tables is printed."""
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="phala-bench-") as folder:
        bench = Bench(tools, folder, options.seconds, options.tries)
        print_head(bench, targets)
        yield bench


def measure(tools, gateway, cases, options):
    """Measures and prints, as the options of tests/bench/run say; returns the rows."""
    targets = choose_targets(tools, gateway, options.targets)
    rows, progress = [], Progress()
    counts_calls = not options.no_system_calls and CallCounter.works()
    with opened(tools, targets, options) as bench:
        for case in cases:
            able = [target for target in targets if set(case.needs.split()) <= target.features]
            if able:
                measured = measure_case(bench, case, able, options.rounds, counts_calls, progress)
                progress()
                print_case(case, measured)
                rows += measured
    return rows

"""tests/bench/run proxies, with times too short for figures that mean something: it runs, its table is whole, and its
load generator takes no wrong answer."""
import http.server
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time

import pytest

from gateway import BUILD, ENVIRONMENT, ROOT
from origin import respond

sys.path.append(str(ROOT / "tests" / "bench"))
import peers                                                                            # noqa: E402
import processes                                                                        # noqa: E402

RUN = ROOT / "tests" / "bench" / "run"
SHORT = ["--gateway", BUILD / "phala-gateway", "--rounds", "1", "--tries", "1", "--seconds", "0.1",
         "--no-system-calls"]
PEERS = {"nginx", "nginx-map", "haproxy", "nghttpx", "h2o"}


def run(*arguments, seconds=600):
    with subprocess.Popen([RUN, *SHORT, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        finally:
            process.terminate()     # it ends what it has started
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def test_table_and_json(tmp_path):
    result = run("h1-small", "h2-small", "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())
    for case in ("h1-small", "h2-small"):
        of_case = {row["target"]: row for row in rows if row["case"] == case}
        peers = set(of_case) - {"gateway"}
        assert "gateway" in of_case and peers <= PEERS
        for row in of_case.values():
            assert row["value"] > 0 and row["rate"] > 0 and row["figure"] == "CPU us a request"
            assert ("ratio" in row) == bool(peers)
        table = result.stdout.split(f"\n{case}: ")[1].split("\n\n")[0].splitlines()
        names = [line.split()[0] for line in table[2:2 + len(of_case)]]     # a remark may follow
        assert names == list(of_case), result.stdout


def test_growth(tmp_path):
    result = run("growth", "--targets", "gateway", "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())
    floors = ["hitch", "no-proxy"] if peers.Hitch().path() else ["no-proxy"]
    assert [(row["program"], row["target"]) for row in rows] == [("growth", name) for name in ["gateway", *floors]]
    table = result.stdout.split("\ngrowth: ")[1].splitlines()
    for row, line in zip(rows, table[2:]):
        [few], [many] = row["few"], row["many"]
        assert few > 0 and row["factor"] == many / few and row["more"] == many - few
        assert line.split()[0] == row["target"] and f"{row['factor']:.2f}" in line


def test_a_floor_is_no_peer(tmp_path):
    result = run("passthrough", "--targets", "gateway,relay", "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    gateway, relay = json.loads((tmp_path / "figures.json").read_text())
    assert (gateway["target"], relay["target"], relay["is_floor"]) == ("gateway", "relay", True)
    assert gateway["value"] > 0 and relay["value"] > 0 and "ratio" not in gateway and "ratio" not in relay


def test_a_target_that_is_not_there():
    result = run("h1-small", "--targets", "gateway,caddy")
    assert result.returncode == 1 and "no target caddy; there are gateway, nginx" in result.stderr


@pytest.mark.parametrize("options", [["h3-small"], ["--rounds", "0"], ["--seconds", "0"]])
def test_arguments_that_are_wrong(options):
    result = run(*options)
    assert result.returncode == 2 and "usage: " in result.stderr


class Routes(http.server.BaseHTTPRequestHandler):
    """The control API, as far as the benchmark needs it."""

    def do_PUT(self):
        self.server.lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class Running:
    """A program that goes on."""

    @staticmethod
    def has_ended():
        return False

    @staticmethod
    def errors():
        return ""


def test_a_control_socket_that_does_not_listen_yet(tmp_path):
    with socketserver.UnixStreamServer(str(tmp_path / "control.sock"), Routes, bind_and_activate=False) as server:
        server.server_bind()
        timer = threading.Timer(0.2, server.server_activate)
        timer.start()
        serving = threading.Thread(target=lambda: (timer.join(), server.handle_request()))
        serving.start()
        job = peers.Job(tmp_path, 1, 2, 3, None, None)
        peers.Gateway("phala-gateway").set_routes(job, Running)
        serving.join()
        assert len(server.lines) == 3


def test_a_cpu_that_the_system_does_not_show():
    """Some containers number those in /proc/stat anew."""
    assert processes.busy_seconds(1_000_000) == 0


# ---- the load generator, before an app whose answers are made here ----

RIGHT = b"0000000\n" + bytes(range(8, 128))
WRONG = {
    "status": (respond(RIGHT, "503 Service Unavailable"), "503"),
    "host": (respond(b"0000001" + RIGHT[7:]), "another host's"),
    "byte": (respond(RIGHT[:100] + b"x" + RIGHT[101:]), "wrong bytes in the body"),
    "short": (respond(RIGHT[:-1]), "127"),
    "long": (respond(RIGHT + b"x"), "(129, not 128|more than 128)"),
}


@pytest.fixture(scope="module")
def load_program():
    release = ROOT / "build" / "release"
    if not (release / "build.ninja").exists():
        subprocess.run(["cmake", "--preset", "release"], cwd=ROOT, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", release, "--target", "bench_load"], check=True, capture_output=True)
    return release / "bench_load"


@pytest.fixture
def load(make_gateway, authority, origin, load_program):
    """load(answer, protocol): the generator's end, when the only app answers so."""
    certificate, key = authority.issue("bench", "DNS:*.cluster.example")
    gateway = make_gateway(base_domains=[{"name": "cluster.example", "certificate": str(certificate),
                                          "private_key": str(key)}])

    def run_load(answer, protocol):
        server = origin(answer)
        gateway.app(server, app_id="app0")
        command = [load_program, "--protocol", protocol, "--port", str(gateway.port), "--backend-port",
                   str(server.port), "--certificate", authority.ca, "--connections", "4", "--seconds", "0.2"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True) as process:
            status = process.wait(60)       # and its input stays open until then
            return status, process.stdout.read(), process.stderr.read()
    return run_load


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_right_answers(load, protocol):
    status, output, errors = load(respond(RIGHT), protocol)
    assert status == 0 and not errors, errors
    begin, end, report, _ = output.split("\n")
    assert (begin, end) == ("begin", "end")
    report = json.loads(report)
    assert 0 < report["answered"] <= report["all_answered"] and report["bytes"] == 128 * report["answered"]
    assert report["connections"] == 4 and report["seconds"] >= 0.2


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_slow_answers(load, protocol):
    """The measurement lasts until there is something to divide by, however slow the machine."""
    def answer(_connection, _request):
        time.sleep(1)       # more than warm-up and measurement take
        return respond(RIGHT)
    status, output, errors = load(answer, protocol)
    assert status == 0 and not errors, errors
    report = json.loads(output.split("\n")[2])
    assert report["answered"] > 0 and report["cpu_seconds"] == 0 and report["seconds"] > 0.2


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("what", WRONG)
def test_wrong_answers(load, protocol, what):
    answer, complaint = WRONG[what]
    status, output, errors = load(answer, protocol)
    assert status == 1 and not output
    assert re.search(f"^{protocol}, app0-[0-9]+.cluster.example: .*{complaint}", errors), errors

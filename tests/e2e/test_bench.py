"""tests/bench/run proxies, with times too short for figures that mean something: it runs, its table is whole, and its
load generator takes no wrong answer."""
import json
import os
import re
import subprocess

import pytest

from gateway import BUILD, ENVIRONMENT, ROOT
from origin import respond

RUN = ROOT / "tests" / "bench" / "run"
SHORT = ["--gateway", BUILD / "phala-gateway", "--rounds", "1", "--tries", "1", "--seconds", "0.1",
         "--no-system-calls"]
PEERS = {"nginx", "nginx-map", "haproxy", "nghttpx", "h2o"}


def run(*arguments):
    return subprocess.run([RUN, *SHORT, *arguments], capture_output=True, text=True, timeout=120, check=False,
                          stdin=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})


def test_table_and_json(tmp_path):
    result = run("h1-small", "h2-small", "--json", tmp_path / "figures.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())
    for case in ("h1-small", "h2-small"):
        of_case = {row["target"]: row for row in rows if row["case"] == case}
        peers = set(of_case) - {"gateway"}
        assert "gateway" in of_case and peers <= PEERS
        for row in of_case.values():
            assert 1 < row["value"] < 10_000 and row["rate"] > 100 and row["figure"] == "CPU us a request"
            assert ("ratio" in row) == bool(peers)
        table = result.stdout.split(f"\n{case}: ")[1].split("\n\n")[0].splitlines()
        names = [line.split()[0] for line in table[2:2 + len(of_case)]]     # a remark may follow
        assert names == list(of_case), result.stdout


def test_a_target_that_is_not_there():
    result = run("h1-small", "--targets", "gateway,caddy")
    assert result.returncode == 1 and "no target caddy; there are gateway, nginx" in result.stderr


@pytest.mark.parametrize("options", [["h3-small"], ["--rounds", "0"], ["--seconds", "0"]])
def test_arguments_that_are_wrong(options):
    result = run(*options)
    assert result.returncode == 2 and "usage: " in result.stderr


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
    assert report["connections"] == 4 and 0.2 <= report["seconds"] < 10


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("what", WRONG)
def test_wrong_answers(load, protocol, what):
    answer, complaint = WRONG[what]
    status, output, errors = load(answer, protocol)
    assert status == 1 and not output
    assert re.search(f"^{protocol}, app0-[0-9]+.cluster.example: .*{complaint}", errors), errors

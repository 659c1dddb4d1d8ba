"""Command line clients and load: curl, nghttp and h2load, before nginx (h1) and nghttpd (h2c)."""
import hashlib
import os
import re
import subprocess

import pytest

from service import Service, start_nginx
from wire import wait_until

PAIRS = ["h1-h1", "h1-h2c", "h2-h1", "h2-h2c"]
REQUESTS = 2000

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What both servers publish."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "files").mkdir()
    (folder / "files" / "small").write_bytes(b"small\n")
    (folder / "files" / "big").write_bytes(os.urandom(5_000_000))
    return folder


def nghttpd_command(folder):
    return lambda address, port: ["nghttpd", "--no-tls", "-a", address, "-d", str(folder / "files"), str(port)]


@pytest.fixture(scope="module")
def apps(gateway, files):
    """By the HTTP version that they speak."""
    servers = {"h1": start_nginx(files, "listen {address}:{port}; root {folder}/files;"),
               "h2c": Service(files, nghttpd_command(files))}
    yield {"h1": servers["h1"].app(gateway, "http"), "h2c": servers["h2c"].app(gateway, "h2c")}
    for server in servers.values():
        server.close()


@pytest.fixture(params=PAIRS)
def pair(request, apps):
    """(version in front, app)"""
    front, back = request.param.split("-")
    return front, apps[back]


def curl_option(front):
    return {"h1": "--http1.1", "h2": "--http2"}[front]


def test_h2load(gateway, pair):
    """Every request succeeds, and each has a line in the access log."""
    front, app = pair
    path = f"/small?{front}"
    command = ["h2load", "-n", str(REQUESTS), "-c", "10", "-m", "10" if front == "h2" else "1",
               *(["--h1"] if front == "h1" else []), f"--connect-to=127.0.0.1:{gateway.port}",
               f"https://{app.host()}{path}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False,
                            stdin=subprocess.DEVNULL)
    assert f"{REQUESTS} succeeded, 0 failed, 0 errored" in result.stdout, result.stdout + result.stderr
    assert f"{REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx" in result.stdout

    def lines():
        return [line for line in gateway.log_lines() if line.get("app_id") == app.id and line["path"] == path]
    wait_until(lambda: len(lines()) == REQUESTS, "a line for each request")
    assert {(line["status"], line["bytes_out"]) for line in lines()} == {(200, 6)}
    assert len({line["request_id"] for line in lines()}) == REQUESTS


def test_curl_download(gateway, pair, files):
    front, app = pair
    result = gateway.curl(f"https://{app.host()}/big", curl_option(front),
                          "-w", "%{stderr}%{http_version} %{http_code}")
    assert result.stderr == {"h1": b"1.1 200", "h2": b"2 200"}[front]
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256((files / "files" / "big").read_bytes()).digest()


def test_curl_many_at_once(gateway, pair):
    front, app = pair
    result = gateway.curl(f"https://{app.host()}/small?[1-60]", curl_option(front), "-Z", "--parallel-max", "30",
                          "-w", "%{http_code}\\n")
    assert result.returncode == 0 and result.stdout.count(b"small\n") == 60, result.stderr
    assert len(re.findall(rb"^200$", result.stdout, re.M)) == 60


def test_curl_head_and_a_missing_file(gateway, pair):
    front, app = pair
    result = gateway.curl(f"https://{app.host()}/big", curl_option(front), "-I")
    assert b"content-length: 5000000" in result.stdout.lower()
    result = gateway.curl(f"https://{app.host()}/none", curl_option(front), "-o", "/dev/null", "-w", "%{http_code}")
    assert result.stdout == b"404"


def test_curl_range(gateway, apps, files):
    """Of nginx; nghttpd knows no ranges."""
    for front in ("h1", "h2"):
        result = gateway.curl(f"https://{apps['h1'].host()}/big", curl_option(front), "-r", "1000000-1999999")
        assert result.stdout == (files / "files" / "big").read_bytes()[1_000_000:2_000_000]


@pytest.mark.parametrize("options, version, tls", [
    (["--no-alpn"], "http/1.1", "TLSv1.3"),
    (["--http1.0"], "http/1.0", "TLSv1.3"),
    (["--http2", "--tls-max", "1.2"], "h2", "TLSv1.2"),
    (["--http2-prior-knowledge"], "h2", "TLSv1.3"),
])
def test_curl_versions(gateway, apps, options, version, tls):
    app = apps["h1"]
    result = gateway.curl(f"https://{app.host()}/small?{version}{tls}", *options)
    assert result.returncode == 0 and result.stdout == b"small\n", result.stderr
    line = gateway.log_line(app_id=app.id, path=f"/small?{version}{tls}")
    assert line["protocol"] == version and line["tls_version"] == tls


def test_curl_prior_knowledge_without_tls(gateway, apps):
    """The plain port redirects HTTP/1.1 and speaks nothing else."""
    host = apps["h1"].host()
    result = subprocess.run(["curl", "-sS", "--max-time", "20", "--noproxy", "*", "--http2-prior-knowledge",
                             "--connect-to", f"::127.0.0.1:{gateway.http_port}", f"http://{host}/"],
                            capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert result.returncode != 0 and not result.stdout, (result.stdout, result.stderr)


def test_nghttp(gateway, apps):
    """Many streams of different sizes on one connection, with windows of its own."""
    for app in apps.values():
        command = ["nghttp", "-ns", "--no-verify-peer", "-w", "18", "-W", "20", "-m", "5",
                   *(["-H", f":authority: {app.host()}"]),
                   *(f"https://127.0.0.1:{gateway.port}/{name}" for name in ("small", "big"))]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                                stdin=subprocess.DEVNULL)
        codes = re.findall(r"^\s*\d+ +\S+ +\S+ +\S+ +(\d+) ", result.stdout, re.M)
        assert codes == ["200"] * 10, result.stdout + result.stderr

"""TLS that ends in the app: nginx with a certificate of its own, curl, h2load, socat and Chromium as clients."""
import hashlib
import os
import ssl
import subprocess

import pytest

from certificates import Authority
from chromium import Browser
from gateway import DOMAIN, OTHER_DOMAIN, Gateway, new_id
from origin import respond
from service import Service, start_nginx
from wire import wait_until

SERVER = """
listen {address}:{port} ssl http2;
ssl_certificate %s; ssl_certificate_key %s;
root {folder};
location = / {{ default_type text/html; return 200 "<title>nginx</title>$ssl_server_name $server_protocol"; }}
"""


@pytest.fixture(scope="module")
def tenant(tmp_path_factory):
    """The tenant's own authority: the gateway has nothing of it."""
    return Authority(tmp_path_factory.mktemp("tenant"))


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, tenant):
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "big").write_bytes(os.urandom(5_000_000))
    server = start_nginx(folder, SERVER % tenant.issue_domain(DOMAIN))
    yield server
    server.close()


@pytest.fixture(params=["s name", "passthrough port"])
def host(request, gateway, nginx):
    if request.param == "s name":
        app = nginx.app(gateway)
        return app.host().replace(f"-{nginx.port}.", f"-{nginx.port}s.")
    return nginx.app(gateway, "passthrough").host()


def curl(gateway, tenant, host, path, *arguments):
    """Names are resolved to the gateway; only the tenant's authority is trusted."""
    command = ["curl", "-sS", "--max-time", "60", "--noproxy", "*", "--cacert", str(tenant.ca),
               "--resolve", f"{host}:{gateway.port}:127.0.0.1", *arguments, f"https://{host}:{gateway.port}{path}"]
    return subprocess.run(command, capture_output=True, timeout=90, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("option, protocol", [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")])
def test_curl_sees_the_apps_certificate(gateway, tenant, nginx, host, option, protocol):
    result = curl(gateway, tenant, host, "/", option)
    assert result.stdout.decode() == f"<title>nginx</title>{host} {protocol}", result.stderr
    result = curl(gateway, tenant, host, "/big", option)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256((nginx.folder / "big").read_bytes()).digest()
    line = wait_until(lambda: next((line for line in gateway.log_lines()
                                    if line["host"] == host and line["bytes_out"] > 5_000_000), None), "the line")
    assert line["protocol"] == "passthrough" and "error" not in line


def test_the_gateways_authority_is_of_no_use(gateway, host):
    result = gateway.curl(f"https://{host}/")
    assert result.returncode == 60, result.stderr       # the certificate is not of this authority


def test_h2load(gateway, host):
    result = subprocess.run(["h2load", "-n", "1000", "-c", "10", "-m", "10",
                             f"--connect-to=127.0.0.1:{gateway.port}", f"https://{host}/"],
                            capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert "1000 succeeded, 0 failed, 0 errored" in result.stdout, result.stdout + result.stderr


def test_curl_to_a_gateway_behind_the_gateway(gateway, origin, tenant, tmp_path):
    """The inner one has the certificate, and routes by the name that the outer one found in the hello."""
    for domain in (DOMAIN, OTHER_DOMAIN):
        tenant.issue_domain(domain)
    inner = Gateway(tmp_path, tenant).start()
    try:
        server = origin(lambda _, request: respond(request.body or request.target.encode()), port=inner.port)
        outer_app = gateway.app(ports=[{"port": inner.port, "protocol": "passthrough"}], instances=[
            {"instance_id": new_id(), "address": "127.0.0.1", "generation": 1, "state": "running"}])
        inner.app(server, app_id=outer_app.id)
        body = os.urandom(3_000_000)
        (tmp_path / "body").write_bytes(body)
        for option, protocol in (("--http1.1", "http/1.1"), ("--http2", "h2")):
            result = curl(gateway, tenant, outer_app.host(), f"/{protocol}", option)
            assert result.stdout == f"/{protocol}".encode(), result.stderr
            assert inner.log_line(path=f"/{protocol}")["protocol"] == protocol
            result = curl(gateway, tenant, outer_app.host(), "/", option, "--data-binary", f"@{tmp_path / 'body'}")
            assert result.stdout == body, result.stderr
        assert gateway.control("DELETE", f"/v1/apps/{outer_app.id}").status in (200, 204)
    finally:
        inner.stop()


def test_half_close(gateway, tenant, tmp_path):
    """socat at both ends: the app answers to the end of what the client sends."""
    certificate, key = tenant.issue("socat", f"DNS:*.{DOMAIN}")
    server = Service(tmp_path, lambda address, port: [
        "socat", "-t", "20", f"OPENSSL-LISTEN:{port},bind={address},cert={certificate},key={key},verify=0,fork,"
        "reuseaddr", "SYSTEM:sha256sum"])
    try:
        host = server.app(gateway, "passthrough").host()
        data = os.urandom(2_000_000)
        result = subprocess.run(["socat", "-t", "20", "-", f"OPENSSL:127.0.0.1:{gateway.port},snihost={host},"
                                 f"commonname={host},cafile={tenant.ca}"], input=data, capture_output=True, timeout=60,
                                check=False)
        assert result.stdout.split() == [hashlib.sha256(data).hexdigest().encode(), b"-"], result.stderr
    finally:
        server.close()


def test_resumption_with_the_app(gateway, tenant, host):
    """Session tickets are the app's; the gateway routes the second hello as the first."""
    context = ssl.create_default_context(cafile=tenant.ca)
    context.set_alpn_protocols(["http/1.1"])
    with gateway.connect(host, context) as connection:
        assert connection.request("GET", "/", host).status == 200
        session = connection.sock.session
    with gateway.connect(host, context, session) as connection:
        assert connection.request("GET", "/", host).status == 200
        assert connection.sock.session_reused


def test_chromium_takes_421_as_a_reason_for_another_connection(gateway, origin, authority, tmp_path):
    """A browser that has an h2 connection asks there for a passthrough name too, since the certificate covers it. It is
    told that this is the wrong place, and comes again on a connection that ends in the app."""
    app = gateway.app(origin(respond(b"<title>one</title>", "200 OK", "Content-Type: text/html")))
    folder, profile = tmp_path / "nginx", tmp_path / "chromium"
    folder.mkdir()
    profile.mkdir()
    server = start_nginx(folder, SERVER % authority.issue_domain(DOMAIN, name="tenant"))
    browser = Browser(profile, gateway)
    try:
        host = server.app(gateway, "passthrough").host()
        browser.open(f"https://{app.host()}/")
        browser.open(f"https://{host}/")
        assert browser.evaluate("document.title") == "nginx"
        assert browser.evaluate("document.body.innerText") == f"{host} HTTP/2.0"
    finally:
        browser.close()
        server.close()
    refused = gateway.log_line(host=host, status=421)
    assert refused["client_port"] == gateway.log_line(app_id=app.id)["client_port"]
    assert gateway.log_line(host=host, protocol="passthrough")["bytes_out"] > 0

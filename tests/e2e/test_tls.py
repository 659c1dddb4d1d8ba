"""TLS on the public side: versions, names, certificates, resumption, what is refused."""
import re
import socket
import ssl
import subprocess
import time

import pytest

from gateway import DOMAIN, OTHER_DOMAIN
from origin import respond
from wire import wait_until


@pytest.fixture(scope="module")
def app(gateway, request):
    from origin import Origin       # of the module's life, unlike the fixture
    server = Origin()
    request.addfinalizer(server.close)
    return gateway.app(server)


def s_client(gateway, *arguments, host=None, text="", timeout=30):
    """What `openssl s_client` says."""
    name = ["-servername", host] if host else ["-noservername"]
    result = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-CAfile",
                             str(gateway.authority.ca), *name, *arguments], input=text.encode(), capture_output=True,
                            timeout=timeout, check=False)
    return (result.stdout + result.stderr).decode(errors="replace")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("domain", [DOMAIN, OTHER_DOMAIN])
def test_versions_and_keys(gateway, app, version, domain):
    """ECDSA certificate for the first domain, RSA for the second."""
    host = app.host(domain=domain)
    with gateway.connect(host, gateway.tls_context(version=version)) as connection:
        assert connection.sock.version() == version.name.replace("_", ".")
        names = {value for kind, value in connection.sock.getpeercert()["subjectAltName"] if kind == "DNS"}
        assert names == {f"*.{domain}", domain}
        assert connection.request("GET", "/", host).status == 200


@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(gateway, option):
    text = s_client(gateway, option, "-cipher", "ALL:@SECLEVEL=0", host=f"a.{DOMAIN}")
    assert "Cipher is (NONE)" in text or "no protocols available" in text, text


@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256",
                                    "DHE-RSA-AES128-GCM-SHA256"])
def test_old_ciphers_are_refused(gateway, cipher):
    text = s_client(gateway, "-tls1_2", "-cipher", cipher + ":@SECLEVEL=0", host=f"a.{OTHER_DOMAIN}")
    assert "Cipher is (NONE)" in text, text


@pytest.mark.parametrize("group", ["X25519", "P-256"])
def test_groups(gateway, group):
    text = s_client(gateway, "-tls1_3", "-groups", group, host=f"a.{DOMAIN}")
    assert "Verify return code: 0 (ok)" in text, text


def test_server_preference(gateway):
    text = s_client(gateway, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
                    host=f"a.{DOMAIN}")
    reverse = s_client(gateway, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
                       host=f"a.{DOMAIN}")
    chosen = [re.search(r"Cipher is (\S+)", output)[1] for output in (text, reverse)]
    assert chosen[0] == chosen[1] != "(NONE)"


@pytest.mark.parametrize("host", ["www.elsewhere.test", "gw.example.evil.test", f"a.b.{DOMAIN}"])
def test_unknown_name_gets_an_alert(gateway, host):
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        gateway.connect(host)
    assert "127.0.0.1" in wait_until(
        lambda: [line for line in gateway.stderr().splitlines() if host in line], "a line about the handshake")[-1]


def test_letter_case_of_names(gateway, app):
    host = app.host().upper()
    with gateway.connect(app.host().upper()) as connection:
        assert connection.request("GET", "/", host).status == 200


def test_no_name_gets_the_default_certificate(gateway, app):
    context = gateway.tls_context()
    context.check_hostname = False
    with gateway.connect(None, context) as connection:
        assert ("DNS", f"*.{DOMAIN}") in connection.sock.getpeercert()["subjectAltName"]
        assert connection.request("GET", "/", app.host()).status == 200


@pytest.mark.parametrize("offer, chosen", [(("http/1.1",), "http/1.1"), (("spdy/1", "http/1.1"), "http/1.1"),
                                           ((), None)])
def test_alpn(gateway, app, offer, chosen):
    with gateway.connect(app.host(), gateway.tls_context(alpn=offer)) as connection:
        assert connection.sock.selected_alpn_protocol() == chosen
        assert connection.request("GET", "/", app.host()).status == 200


def test_alpn_without_a_common_protocol(gateway, app):
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        gateway.connect(app.host(), gateway.tls_context(alpn=("spdy/1",)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption_on_any_worker(gateway, app, version):
    """One ticket is good on all workers: of many connections, which the kernel spreads, each one resumes."""
    context = gateway.tls_context(version=version)
    with gateway.connect(app.host(), context) as connection:
        assert not connection.sock.session_reused
        connection.request("GET", "/", app.host())      # a TLS 1.3 ticket comes after the handshake
        session = connection.sock.session
    assert session.has_ticket
    for _ in range(16):
        with gateway.connect(app.host(), context, session) as connection:
            assert connection.sock.session_reused
            assert connection.request("GET", "/", app.host()).status == 200


def test_no_resumption_under_another_identity(gateway, app):
    context = gateway.tls_context(version=ssl.TLSVersion.TLSv1_3)
    with gateway.connect(app.host(), context) as connection:
        connection.request("GET", "/", app.host())
        session = connection.sock.session
    with gateway.connect(app.host(domain=OTHER_DOMAIN), context, session) as connection:
        assert not connection.sock.session_reused


def test_renegotiation_is_refused(gateway, app):
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-servername", app.host(), "-tls1_2",
         "-CAfile", str(gateway.authority.ca)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    time.sleep(1)
    output, _ = process.communicate(b"R\n", timeout=30)
    text = output.decode(errors="replace")
    assert "RENEGOTIATING" in text
    assert "no renegotiation" in text.lower(), text


def test_handshake_deadline(make_gateway):
    gateway = make_gateway(timeouts={"handshake": "1s"})
    with gateway.dial() as silent, gateway.dial() as partial:
        partial.sendall(b"\x16\x03\x01\x02\x00\x01")
        for sock in (silent, partial):
            sock.settimeout(20)
            assert sock.recv(100)[:1] in (b"", b"\x15")     # closed, or an alert first


def test_plain_http_on_the_tls_port(gateway):
    with gateway.dial() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        data = b""
        try:
            while more := sock.recv(1000):
                data += more
        except ConnectionError:
            pass
        assert b"200" not in data[:15]


def test_garbage_on_the_tls_port(gateway, app):
    for data in (b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 1000, b"\x15\x03\x01\x00\x02\x02\x28", b"SSH-2.0-x\r\n"):
        with gateway.dial() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(20)
            try:
                while sock.recv(1000):
                    pass
            except ConnectionError:
                pass
    assert gateway.fetch("GET", "/", app.host()).status == 200


def test_close_notify_is_sent(gateway, app):
    """A truncation attack must be visible: the gateway ends a TLS stream in order."""
    context = gateway.tls_context()
    with gateway.dial() as sock:
        tls = context.wrap_socket(sock, server_hostname=app.host(), suppress_ragged_eofs=False)
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: close\r\n\r\n".encode())
        while tls.recv(1000):       # raises SSLEOFError if the stream is cut
            pass
        tls.close()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("length", [512, 1024, 2048, 4096])
def test_a_client_with_small_records(gateway, origin, version, length):
    """RFC 6066 section 4: more comes than fits into a first record."""
    size = 100_000
    app = gateway.app(origin(respond(b"x" * size)))
    host = app.host()
    text = s_client(gateway, version, "-maxfraglen", str(length), "-quiet", host=host,
                    text=f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert text.count("x" * 1000) == size // 1000, text[-300:]

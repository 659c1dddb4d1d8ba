"""Uploaded certificates for custom domains: what is accepted, what is served, and what a change does to connections."""
import contextlib
import datetime
import socket
import sqlite3
import ssl
import threading

import pytest

from custom_certificates import Issuer, openssl
from gateway import DOMAIN
from origin import Origin, respond

NAME = "shop.example.com"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def pair(issuer):
    """For NAME."""
    return issuer.issue(NAME)


def put(gateway, name, pair):
    answer = gateway.control("PUT", f"/v1/certificates/{name}", pair.document)
    assert answer.status in (200, 201), answer
    return answer


def trust(issuer, alpn=("http/1.1",), version=None):
    context = ssl.create_default_context(cafile=issuer.ca)
    context.set_alpn_protocols(list(alpn))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def serial(connection):
    return connection.sock.getpeercert()["serialNumber"]


@pytest.fixture
def app_for(gateway, origin):
    """app_for(name, …): an app of one origin with these domains."""
    def make(*names, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", gateway=gateway):
        server = origin(answer)
        return gateway.app(server, domains=[{"name": name, "port": server.port} for name in names])
    return make


def refused(gateway, document, code, field, text, name=NAME):
    answer = gateway.control("PUT", f"/v1/certificates/{name}", document)
    assert answer.code == code, answer
    assert answer.json.get("field") == field, answer
    assert text in answer.json["detail"], answer
    assert gateway.control("GET", f"/v1/certificates/{name}").status == 404
    return answer


# ---- the calls ----

def test_life_of_a_certificate(gateway, issuer):
    name = "life.example.com"
    pair = issuer.issue(name, "www." + name)
    path = f"/v1/certificates/{name}"
    answer = gateway.control("PUT", path, pair.document)
    assert answer.status == 201 and answer.fields["Location"] == path, answer
    assert answer.json["names"] == [name, "www." + name]
    assert answer.json["source"] == "uploaded" and answer.json["key"] == "ECDSA P-256"
    assert answer.json["days_left"] in (1, 2) and answer.json["issuer"] == "CN=custom-intermediate"
    assert len(answer.json["fingerprint"]) == 64
    assert gateway.control("PUT", path, issuer.issue(name, key="RSA2048").document).status == 200
    got = gateway.control("GET", "/v1/certificates/LIFE.example.com").json
    assert got["key"] == "RSA 2048" and got["names"] == [name]
    assert got["certificate"].count("BEGIN CERTIFICATE") == 2 and "PRIVATE" not in str(got)
    listed = {item["name"]: item for item in gateway.control("GET", "/v1/certificates").json["certificates"]}
    assert listed[name]["fingerprint"] == got["fingerprint"] and listed[DOMAIN]["source"] == "base_domains"
    assert gateway.metric("certificates") >= 1
    assert gateway.metric("certificate_first_not_after_seconds") > datetime.datetime.now().timestamp()
    assert gateway.control("GET", "/v1/status").json["certificates"]["first_ends_in_days"] in (1, 2)
    assert gateway.control("DELETE", path).status == 204
    assert gateway.control("DELETE", path).code == "certificate_unknown"
    assert gateway.control("GET", path).code == "certificate_unknown"
    assert "BEGIN" not in gateway.stderr()


def test_gatewayctl(gateway, issuer, tmp_path):
    name = "*.ctl.example.com"
    chain, key = issuer.issue(name).files(tmp_path, "ctl")
    done = gateway.gatewayctl("cert", "put", name, chain, key)
    assert done.returncode == 0 and f"certificate of {name} created" in done.stdout, done
    listed = gateway.gatewayctl("cert", "ls")
    assert name in listed.stdout and "uploaded" in listed.stdout and DOMAIN in listed.stdout
    assert "BEGIN CERTIFICATE" in gateway.gatewayctl("cert", "get", name).stdout
    assert gateway.gatewayctl("cert", "rm", name).returncode == 0
    done = gateway.gatewayctl("cert", "rm", name)
    assert done.returncode == 1 and "certificate_unknown" in done.stderr
    assert gateway.gatewayctl("cert", "put", name, chain).returncode == 2


def test_refusals(gateway, issuer, pair):
    other = issuer.issue(NAME)
    leaf, intermediate = pair.chain.split("-----END CERTIFICATE-----\n")[:2]
    leaf += "-----END CERTIFICATE-----\n"
    intermediate += "-----END CERTIFICATE-----\n"

    def check(code, field, text, chain=pair.chain, key=pair.key, name=NAME):
        refused(gateway, {"certificate": chain, "private_key": key}, code, field, text, name)
    check("certificate_key_mismatch", "private_key", "does not belong", key=other.key)
    check("certificate_chain_broken", "certificate", "leaf first", chain=intermediate + leaf)
    check("certificate_chain_broken", "certificate", "did not sign", chain=leaf + issuer.root)
    check("certificate_chain_broken", "certificate", "did not sign", chain=leaf + leaf)
    check("certificate_malformed", "certificate", "no certificate found", chain="hello")
    check("certificate_malformed", "certificate", "malformed", chain=leaf[:300] + leaf[310:])
    check("certificate_malformed", "private_key", "no private key found", key=leaf)
    check("certificate_name_mismatch", "certificate", f"its names: {NAME}", name="www.example.com")
    check("certificate_name_mismatch", "certificate", "does not cover", name="*.example.com")
    weak = issuer.issue(NAME, key="RSA1024")
    check("certificate_key_unsuitable", "private_key", "1024", chain=weak.chain, key=weak.key)
    curve = issuer.issue(NAME, key="secp521r1")
    check("certificate_key_unsuitable", "private_key", "secp521r1", chain=curve.chain, key=curve.key)
    client = issuer.issue(NAME, usage="clientAuth")
    check("certificate_name_mismatch", "certificate", "serverAuth", chain=client.chain, key=client.key)
    now = datetime.datetime.utcnow()
    for end, code, text in [(now - datetime.timedelta(hours=1), "certificate_expired", "renew"),
                            (now + datetime.timedelta(days=3), "certificate_not_yet_valid", "not valid before")]:
        dated = issuer.issue(NAME, end=end)
        check(code, "certificate", text, chain=dated.chain, key=dated.key)
    lone = issuer.issue(NAME, extra="authorityInfoAccess=caIssuers;URI:http://ca.example/i.der\n")
    check("certificate_chain_broken", "certificate", "intermediate", chain=lone.chain.split("-----END")[0] +
          "-----END CERTIFICATE-----\n", key=lone.key)


@pytest.mark.parametrize("name, code", [(f"a.{DOMAIN}", "certificate_name_reserved"),
                                        (DOMAIN, "certificate_name_reserved"),
                                        (f"*.{DOMAIN}", "certificate_name_reserved"),
                                        ("*.com", "invalid_record"), ("*", "invalid_record"),
                                        ("a..b", "invalid_record"), ("1.2.3.4", "invalid_record")])
def test_names_that_cannot_be(gateway, pair, name, code):
    refused(gateway, pair.document, code, "name", "", name)


@pytest.mark.parametrize("document, code, field", [
    ("[]", "invalid_json", None), ("{", "invalid_json", None), ("{}", "invalid_record", "certificate"),
    ('{"certificate": "x"}', "invalid_record", "private_key"), ('{"certificate": 1}', "invalid_record", "certificate"),
    ('{"certificate": "x", "private_key": "x", "more": 1}', "invalid_record", "more")])
def test_documents_that_cannot_be(gateway, document, code, field):
    answer = gateway.control("PUT", f"/v1/certificates/{NAME}", document, Content_Type="application/json")
    assert (answer.code, answer.json.get("field")) == (code, field), answer


def test_encrypted_key(gateway, pair, tmp_path):
    (tmp_path / "key").write_text(pair.key)
    openssl("pkey", "-in", tmp_path / "key", "-aes128", "-passout", "pass:secret", "-out", tmp_path / "locked")
    refused(gateway, {"certificate": pair.chain, "private_key": (tmp_path / "locked").read_text()},
            "certificate_malformed", "private_key", "encrypted")


def test_the_root_may_come_along(gateway, issuer):
    pair = issuer.issue("root.example.com")
    pair.chain += issuer.root
    put(gateway, "root.example.com", pair)


# ---- what is served ----

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("key", ["P-256", "secp384r1", "RSA2048"])
def test_a_custom_domain_is_served(gateway, issuer, app_for, version, key):
    name = f"{key.lower()}-{version.name[-1]}.served.example.com"
    app = app_for(name)
    put(gateway, name, issuer.issue(name, key=key))
    with gateway.connect(name.upper(), trust(issuer, version=version)) as connection:
        assert connection.request("GET", "/", name).body == b"ok"
        assert connection.request("GET", "/", f"{name}.").body == b"ok"
        for other in (app.host(), f"health.{DOMAIN}", "elsewhere.example.com"):
            assert connection.request("GET", "/", other).status == 421
    with gateway.connect(app.host()) as connection:
        assert connection.request("GET", "/", name).status == 421
        assert connection.request("GET", "/", app.host()).body == b"ok"
    assert gateway.log_line(host=name, status=200)["app_id"] == app.id


def test_one_certificate_for_several_names(gateway, issuer, app_for):
    """Every name that it covers is served on a connection that presents it; what it does not cover gets 421."""
    names = ["a.several.example.com", "b.several.example.com", "one.wild.several.example.com"]
    app_for(*names, "c.several.example.com")
    put(gateway, names[0], issuer.issue(names[0], names[1], "*.wild.several.example.com"))
    for sni in names:
        with gateway.connect(sni, trust(issuer)) as connection:
            for name in names:
                assert connection.request("GET", "/", name).status == 200
            assert connection.request("GET", "/", "c.several.example.com").status == 421
            assert connection.request("GET", "/", "unknown.wild.several.example.com").error == "host_unknown"
            assert connection.request("GET", "/", "x.one.wild.several.example.com").status == 421


def test_exact_name_before_wildcard(gateway, issuer, app_for):
    exact, other = "exact.pick.example.com", "other.pick.example.com"
    app_for(exact, other)
    put(gateway, "*.pick.example.com", issuer.issue("*.pick.example.com"))
    put(gateway, exact, issuer.issue(exact))
    for name, wanted in [(exact, exact), (other, "*.pick.example.com")]:
        with gateway.connect(name, trust(issuer)) as connection:
            assert connection.sock.getpeercert()["subjectAltName"] == (("DNS", wanted),)
            assert connection.request("GET", "/", name).status == 200


def test_http2(gateway, issuer, app_for):
    name = "h2.served.example.com"
    app_for(name)
    put(gateway, name, issuer.issue(name))
    result = gateway.curl(f"https://{name}/", "--http2", "-w", "%{http_version}", "--cacert", issuer.ca)
    assert result.stdout == b"ok2", result


def test_redirect_of_a_custom_name(gateway):
    with socket.create_connection(("127.0.0.1", gateway.http_port), 20) as sock:
        sock.sendall(f"GET /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        head = sock.recv(4096).decode()
    assert " 308 " in head and f"https://{NAME}:{gateway.port}/x" in head


# ---- changes ----

def test_replaced_while_connections_and_a_download_run(gateway, issuer, app_for):
    name = "replace.example.com"
    release = threading.Event()

    def answer(connection, request):
        if request.target != "/download":
            return respond(b"ok")
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"a" * 1000000)
        release.wait(60)
        return b"b" * 1000000
    app_for(name, answer=answer)
    put(gateway, name, issuer.issue(name))
    with gateway.connect(name, trust(issuer)) as old, gateway.connect(name, trust(issuer)) as download:
        before = serial(old)
        download.send(f"GET /download HTTP/1.1\r\nHost: {name}\r\n\r\n")
        download.read_until(b"\r\n\r\n")
        assert download.read(1000) == b"a" * 1000
        put(gateway, name, issuer.issue(name, key="RSA2048"))
        with gateway.connect(name, trust(issuer)) as new:
            assert serial(new) != before
            assert new.request("GET", "/", name).body == b"ok"
        assert old.request("GET", "/", name).body == b"ok"
        release.set()
        assert download.read(1999000) == b"a" * 999000 + b"b" * 1000000
        assert gateway.control("DELETE", f"/v1/certificates/{name}").status == 204
        assert old.request("GET", "/", name).body == b"ok"


def resume(gateway, name, context, version, wanted=None):
    """Two connections, the second with the session of the first; `wanted` runs between. Returns the second."""
    with gateway.connect(name, context) as first:
        assert first.request("GET", "/", name).status == 200
        session = first.sock.session
    if wanted:
        wanted()
    return gateway.connect(name, context, session=session)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumption_ends_with_the_certificate(gateway, issuer, app_for, version):
    name = f"resume{version.name[-1]}.example.com"
    app_for(name)
    put(gateway, name, issuer.issue(name))
    context = trust(issuer, version=version)
    with resume(gateway, name, context, version) as second:
        assert second.sock.session_reused
        assert second.request("GET", "/", name).status == 200
    with resume(gateway, name, context, version, lambda: put(gateway, name, issuer.issue(name))) as second:
        assert not second.sock.session_reused
        assert second.request("GET", "/", name).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_does_not_pass_for_another_name(gateway, issuer, app_for, version):
    """Neither for another certificate's name nor for a base domain's, and none of those for it."""
    names = [f"mine{version.name[-1]}.example.com", f"yours{version.name[-1]}.example.com"]
    app = app_for(*names)
    context = trust(issuer, version=version)
    context.load_verify_locations(gateway.authority.ca)
    context.check_hostname = False
    for name in names:
        put(gateway, name, issuer.issue(name))
    for first, second in [names, (names[0], app.host()), (app.host(), names[0])]:
        with gateway.connect(first, context) as connection:
            assert connection.request("GET", "/", first).status == 200
            session = connection.sock.session
        with gateway.connect(second, context, session=session) as connection:
            assert not connection.sock.session_reused
            assert connection.request("GET", "/", first).status == 421
            assert connection.request("GET", "/", second).status == 200


def test_kept_over_reload_and_kill(make_gateway, issuer, app_for):
    gateway = make_gateway()
    name, expiring = "durable.example.com", "broken.example.com"
    app_for(name, gateway=gateway)
    put(gateway, name, issuer.issue(name))
    put(gateway, expiring, issuer.issue(expiring))
    with gateway.connect(name, trust(issuer)) as connection:
        before = serial(connection)
        assert gateway.control("POST", "/v1/reload").status == 200
        assert connection.request("GET", "/", name).status == 200
    for _ in range(4):
        with gateway.connect(name, trust(issuer)) as connection:
            assert serial(connection) == before
    gateway.kill()
    database = gateway.folder / "state" / "routes.db"
    assert database.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE certificates SET chain='damaged' WHERE name=?", (expiring,))
    gateway.start()
    assert f"the stored one of {expiring} is left out" in gateway.stderr()
    with gateway.connect(name, trust(issuer)) as connection:
        assert serial(connection) == before
        assert connection.request("GET", "/", name).status == 200
    assert gateway.control("GET", f"/v1/certificates/{expiring}").status == 404


def test_what_is_stored_and_damaged_can_be_deleted(make_gateway, issuer):
    gateway = make_gateway()
    names = ["gone.example.com", "again.example.com"]
    for name in names:
        put(gateway, name, issuer.issue(name))
    gateway.kill()
    database = gateway.folder / "state" / "routes.db"

    def stored(change=None):
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            if change:
                connection.execute(change)
            return [name for name, in connection.execute("SELECT name FROM certificates")]
    assert sorted(stored("UPDATE certificates SET chain='damaged'")) == sorted(names)
    gateway.start()
    for name in names:
        assert f"the stored one of {name} is left out" in gateway.stderr()
    assert gateway.control("GET", f"/v1/certificates/{names[0]}").status == 404
    assert gateway.control("DELETE", f"/v1/certificates/{names[0]}").status == 204
    assert gateway.control("DELETE", f"/v1/certificates/{names[0]}").code == "certificate_unknown"
    put(gateway, names[1], issuer.issue(names[1]))
    gateway.kill()
    gateway.start()
    assert gateway.control("GET", f"/v1/certificates/{names[1]}").status == 200
    assert gateway.control("DELETE", f"/v1/certificates/{names[0]}").code == "certificate_unknown"
    gateway.kill()
    assert stored() == names[1:]


def test_an_expired_one_serves_on_after_a_restart(make_gateway, issuer, app_for):
    """As those of base domains do: what its clients say to it is theirs to decide."""
    gateway = make_gateway()
    name = "expired.example.com"
    app_for(name, gateway=gateway)
    put(gateway, name, issuer.issue(name))
    gateway.kill()
    expired = issuer.issue(name, end=datetime.datetime.utcnow() - datetime.timedelta(hours=1))
    with contextlib.closing(sqlite3.connect(gateway.folder / "state" / "routes.db")) as connection, connection:
        connection.execute("UPDATE certificates SET chain=?, private_key=?", (expired.chain, expired.key))
    gateway.start()
    assert f"that of {name} is used all the same" in gateway.stderr()
    context = trust(issuer)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with gateway.connect(name, context) as connection:
        assert connection.request("GET", "/", name).status == 200
        served = ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True))
        assert served in expired.chain
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        gateway.connect(name, trust(issuer))
    assert gateway.control("GET", f"/v1/certificates/{name}").json["days_left"] <= 0


def test_many_certificates(make_gateway, issuer):
    """One pair under two hundred names that it covers: each is there at once after its call."""
    gateway = make_gateway()
    pair = issuer.issue("*.many.example.com")
    server = Origin()
    try:
        gateway.app(server, domains=[{"name": "n77.many.example.com", "port": server.port}])
        for number in range(200):
            put(gateway, f"n{number}.many.example.com", pair)
        with gateway.connect("n77.many.example.com", trust(issuer)) as connection:
            assert connection.request("GET", "/", "n77.many.example.com").status == 200
        assert len(gateway.control("GET", "/v1/certificates").json["certificates"]) == 202
    finally:
        server.close()

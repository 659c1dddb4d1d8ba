"""Custom domains by route record and by DNS TXT record: passed through to the CVM, or ended here with a certificate."""
import concurrent.futures
import contextlib
import itertools
import os
import socket
import ssl
import threading

import pytest
from dnslib import RCODE

from custom_certificates import Issuer
from dns_server import DnsServer, Zone
from gateway import DOMAIN, Gateway, new_id
from origin import Origin, respond
from wire import Connection, wait_until

_numbers = itertools.count()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def dns():
    server = DnsServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, authority, dns):
    running = Gateway(tmp_path_factory.mktemp("gateway"), authority, workers=1,
                      dns={"servers": [dns.address], "timeout": "20s"}).start()
    yield running
    running.stop()


@pytest.fixture
def name():
    """A custom domain that no other test has."""
    return f"n{next(_numbers)}.shop.example.com"


def trust(issuer, alpn=("http/1.1",)):
    context = ssl.create_default_context(cafile=issuer.ca)
    context.set_alpn_protocols(list(alpn))
    return context


@pytest.fixture
def secure(issuer, origin, tmp_path):
    """secure(name): an origin that ends TLS for this name itself, and says so."""
    def make(name, body=b"from the CVM"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issuer.issue(name).files(tmp_path, f"{name}-{next(_numbers)}"))

        def script(connection):
            with context.wrap_socket(connection.sock, server_side=True) as sock:
                inner = Connection(sock)
                while True:
                    inner.read_request()
                    inner.send(respond(body))
        return origin(script=script)
    return make


def ask(gateway, issuer, name, context=None):
    """The body that the name's root has, on a new connection."""
    with gateway.connect(name, context or trust(issuer)) as connection:
        answer = connection.request("GET", "/", name)
        return answer.body if answer.status == 200 else answer.status


def publish(dns, name, target, **options):
    dns.zones[f"_dstack-app-address.{name}"] = Zone(target, **options)


def assert_refused(gateway, issuer, name, words="(?i)unrecognized.name"):
    with pytest.raises(ssl.SSLError, match=words):
        ask(gateway, issuer, name)


def put_certificate(gateway, issuer, *names):
    answer = gateway.control("PUT", f"/v1/certificates/{names[0]}", issuer.issue(*names).document)
    assert answer.status in (200, 201), answer


# ---- by route record ----

def test_passed_through_without_a_certificate(gateway, issuer, secure, name, dns):
    server = secure(name)
    gateway.app(server, domains=[{"name": name, "port": server.port}])
    assert ask(gateway, issuer, name) == b"from the CVM"
    assert ask(gateway, issuer, name.upper()) == b"from the CVM"
    assert not [asked for asked in dns.asked if name in asked]
    assert gateway.log_line(host=name)["protocol"] == "passthrough"


def test_a_certificate_changes_what_new_connections_get(gateway, issuer, secure, origin, name):
    server = secure(name)
    app = gateway.app(server, domains=[{"name": name, "port": server.port}])
    with gateway.connect(name, trust(issuer)) as old:
        assert old.request("GET", "/", name).body == b"from the CVM"
        put_certificate(gateway, issuer, name)
        plain = origin(respond(b"ended here"), address=server.address)
        app.put(ports=[{"port": server.port}, {"port": plain.port}], domains=[{"name": name, "port": plain.port}])
        assert ask(gateway, issuer, name) == b"ended here"
        assert old.request("GET", "/", name).body == b"from the CVM"
    assert gateway.control("DELETE", f"/v1/certificates/{name}").status == 204
    app.put(domains=[{"name": name, "port": server.port}])
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_a_passthrough_port_is_passed_through_despite_a_certificate(gateway, issuer, secure, name):
    server = secure(name)
    gateway.app(server, ports=[{"port": server.port, "protocol": "passthrough"}],
                domains=[{"name": name, "port": server.port}])
    put_certificate(gateway, issuer, name)
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_a_record_is_not_overridden_by_dns(gateway, issuer, secure, name, dns):
    right, wrong = secure(name, b"right"), secure(name, b"wrong")
    gateway.app(right, domains=[{"name": name, "port": right.port}])
    publish(dns, name, f"{gateway.app(wrong).id}:{wrong.port}")
    assert ask(gateway, issuer, name) == b"right"
    assert dns.count(f"_dstack-app-address.{name}") == 0


def test_a_tcp_port_with_a_certificate(gateway, issuer, origin, name):
    def echo(connection):
        while True:
            connection.send(connection.read_some())
    server = origin(script=echo)
    gateway.app(server, ports=[{"port": server.port, "protocol": "tcp"}], domains=[{"name": name, "port": server.port}])
    put_certificate(gateway, issuer, name)
    with gateway.connect(name.upper(), trust(issuer, alpn=("postgresql",))) as connection:
        assert connection.sock.selected_alpn_protocol() == "postgresql"
        assert connection.send("ping").read(4) == b"ping"


# ---- by DNS ----

@pytest.mark.parametrize("record, text", [
    ("_dstack-app-address.{name}", "{id}:{port}"), ("_tapp-address.{name}", "{id}:{port}"),
    ("_dstack-app-address-wildcard.{parent}", "{id}:{port}"), ("_dstack-app-address.{name}", " {upper}:{port}\t")])
def test_the_records_of_a_name(gateway, issuer, secure, dns, record, text):
    parent = f"p{next(_numbers)}.example.com"
    name = f"www.{parent}"
    server = secure(name)
    app = gateway.app(server)
    dns.zones[record.format(name=name, parent=parent)] = \
        Zone(text.format(id=app.id, upper=app.id.upper(), port=server.port))
    assert ask(gateway, issuer, name) == b"from the CVM"
    line = gateway.log_line(host=name)
    assert (line["app_id"], line["protocol"]) == (app.id, "passthrough")


def test_an_instance_id(gateway, issuer, secure, name, dns):
    server = secure(name)
    app = gateway.app(server)
    publish(dns, name, f"{app.document['instances'][0]['instance_id']}:{server.port}")
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_ended_here_with_a_certificate(gateway, issuer, origin, name, dns):
    """The first request on the first connection finds the name looked up."""
    server = origin(respond(b"plain"))
    app = gateway.app(server)
    publish(dns, name, f"{app.id}:{server.port}")
    put_certificate(gateway, issuer, name)
    assert ask(gateway, issuer, name) == b"plain"
    result = gateway.curl(f"https://{name}/", "--http2", "-w", "%{http_version}", "--cacert", issuer.ca)
    assert result.stdout == b"plain2", result
    assert gateway.log_line(host=name, status=200)["app_id"] == app.id


def test_another_name_of_the_certificate(gateway, issuer, origin, dns):
    """421 while it is not looked up yet: a new connection waits for that."""
    parent = f"p{next(_numbers)}.example.com"
    names = [f"{label}.{parent}" for label in "ab"]
    put_certificate(gateway, issuer, f"*.{parent}")
    for name in names:
        server = origin(respond(name.encode()))
        publish(dns, name, f"{gateway.app(server).id}:{server.port}")
    with gateway.connect(names[0], trust(issuer)) as connection:
        assert connection.request("GET", "/", names[0]).body == names[0].encode()
        assert connection.request("GET", "/", names[1]).status == 421
        assert ask(gateway, issuer, names[1]) == names[1].encode()
        assert connection.request("GET", "/", names[1]).body == names[1].encode()


def test_nobody_knows_it(gateway, issuer, name, dns):
    """The three records are asked for once; for a while the answer is known."""
    for _ in range(3):
        assert_refused(gateway, issuer, name)
    parent = name.partition(".")[2]
    assert [dns.count(f"_dstack-app-address.{name}"), dns.count(f"_tapp-address.{name}")] == [1, 1]
    assert dns.count(f"_dstack-app-address-wildcard.{parent}") >= 1
    assert gateway.metric("dns_cache_hits_total") >= 2


@pytest.mark.parametrize("text", [
    "127.0.0.1:{port}", "{address}:{port}", "[::1]:{port}", "localhost:{port}", "{id}:0", "{id}:65536", "{id}:{port}s",
    "{id}", "{id}:{port}/../x", "x" * 200 + ":80", "", "{id}:80:{port}", "\0{id}:{port}", "{other}:{port}"])
def test_hostile_records(gateway, issuer, secure, name, dns, text):
    server = secure(name)
    app = gateway.app(server)
    publish(dns, name, text.format(id=app.id, port=server.port, address=server.address, other=new_id()))
    with pytest.raises((ssl.SSLError, OSError)):
        ask(gateway, issuer, name)
    assert not server.connections


def test_rules_of_the_app_hold(gateway, issuer, secure, name, dns):
    server = secure(name)
    app = gateway.app(server, ports=[{"port": 1}])
    publish(dns, name, f"{app.id}:{server.port}")
    with pytest.raises((ssl.SSLError, OSError)):
        ask(gateway, issuer, name)
    assert not server.connections
    app.put(ports=[{"port": server.port}])
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_several_records(gateway, issuer, secure, name, dns):
    server = secure(name)
    target = f"{gateway.app(server).id}:{server.port}"
    dns.zones[f"_dstack-app-address.{name}"] = Zone("v=spf1 -all", target, "x" * 150)
    assert ask(gateway, issuer, name) == b"from the CVM"
    other = f"two-{name}"
    dns.zones[f"_dstack-app-address.{other}"] = Zone(target, f"{new_id()}:80")
    assert_refused(gateway, issuer, other)


@pytest.mark.parametrize("options", [{"alias": "elsewhere.example.net"}, {"truncated": True}])
def test_ways_of_an_answer(gateway, issuer, secure, name, dns, options):
    """Over a CNAME; by TCP after a truncated answer; in several strings."""
    server = secure(name)
    target = f"{gateway.app(server).id}:{server.port}"
    dns.zones[f"_dstack-app-address.{name}"] = Zone([target[:7], target[7:]], **options)
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_broken_answers(gateway, issuer, secure, name, dns):
    failures = gateway.metric("dns_failures_total")
    server = secure(name)
    good = Zone(f"{gateway.app(server).id}:{server.port}")

    def cut(question):
        return good.reply(question, False)[:-5]
    dns.zones[f"_dstack-app-address.{name}"] = Zone(raw=cut)
    assert_refused(gateway, issuer, name)
    assert gateway.metric("dns_failures_total") > failures


def test_many_connections_make_one_look_up(gateway, issuer, secure, name, dns):
    server, answer = secure(name), threading.Event()
    publish(dns, name, f"{gateway.app(server).id}:{server.port}", delay=answer)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        bodies = [pool.submit(ask, gateway, issuer, name) for _ in range(10)]
        wait_until(lambda: gateway.metric("gateway_connections") >= 10, "all to wait")
        answer.set()
        assert {body.result(60) for body in bodies} == {b"from the CVM"}
    assert dns.count(f"_dstack-app-address.{name}") == 1


def hello_for(issuer, name):
    """The bytes of a ClientHello."""
    outgoing = ssl.MemoryBIO()
    client = trust(issuer).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_reload_while_clients_say_hello(gateway, issuer, origin, name, dns):
    """One has sent half of its hello, another waits for its look-up: both go on with what is in force afterwards."""
    server, answer = origin(), threading.Event()
    publish(dns, name, f"{gateway.app(server).id}:{server.port}", delay=answer)
    put_certificate(gateway, issuer, name)
    hello = hello_for(issuer, name)
    with gateway.dial() as waits, gateway.dial() as half:
        waits.sendall(hello)
        half.sendall(hello[:100])
        wait_until(lambda: dns.count(f"_dstack-app-address.{name}") == 1, "the look-up")
        for _ in range(2):
            assert gateway.control("POST", "/v1/reload").status == 200
        answer.set()
        half.sendall(hello[100:])
        for sock in (waits, half):
            assert sock.recv(5)[0] == 22, "a handshake record comes"


def test_a_client_that_leaves_while_it_waits(gateway, issuer, secure, name, dns):
    """The look-up goes on, and what it found is kept; others' traffic goes on meanwhile."""
    server, answer = secure(name), threading.Event()
    publish(dns, name, f"{gateway.app(server).id}:{server.port}", delay=answer)
    hello = hello_for(issuer, name)
    open_before = gateway.metric("gateway_connections")
    with gateway.dial() as sock:
        sock.sendall(hello)
        wait_until(lambda: dns.count(f"_dstack-app-address.{name}") == 1, "the look-up")
        sock.sendall(b"more bytes that come too early")
        assert gateway.fetch("GET", "/", f"health.{DOMAIN}").status == 200
    wait_until(lambda: gateway.metric("gateway_connections") <= open_before, "the gateway to notice")
    answer.set()
    assert ask(gateway, issuer, name) == b"from the CVM"
    assert dns.count(f"_dstack-app-address.{name}") == 1


@pytest.mark.parametrize("size", [100, 60_000, 400_000])
def test_much_behind_a_hello_that_waits(gateway, issuer, origin, name, dns, size):
    """What a client sends during the look-up reaches the CVM, however much it is."""
    hello, answer, got = hello_for(issuer, name), threading.Event(), bytearray()

    def script(connection):
        while len(got) < len(hello) + size:
            got.extend(connection.read_some())
        connection.send(b"all of it")
    server = origin(script=script)
    publish(dns, name, f"{gateway.app(server).id}:{server.port}", delay=answer)
    behind = os.urandom(size)
    with gateway.dial() as sock:
        sender = threading.Thread(target=sock.sendall, args=(hello + behind,))
        sender.start()
        wait_until(lambda: dns.count(f"_dstack-app-address.{name}") == 1, "the look-up")
        sender.join(1)                  # as much as the connection holds
        answer.set()
        assert sock.recv(100) == b"all of it"
        sender.join()
    assert got == hello + behind


def test_a_changed_record_after_its_ttl(gateway, issuer, secure, name, dns):
    first, second = secure(name, b"first"), secure(name, b"second")
    publish(dns, name, f"{gateway.app(first).id}:{first.port}", ttl=1)
    assert ask(gateway, issuer, name) == b"first"
    publish(dns, name, f"{gateway.app(second).id}:{second.port}", ttl=600)
    wait_until(lambda: ask(gateway, issuer, name) == b"second", "the new record")
    questions = dns.count(f"_dstack-app-address.{name}")
    assert ask(gateway, issuer, name) == b"second"
    assert dns.count(f"_dstack-app-address.{name}") == questions


def test_the_last_answer_serves_on_when_the_dns_fails(gateway, issuer, secure, name, dns):
    server = secure(name)
    publish(dns, name, f"{gateway.app(server).id}:{server.port}", ttl=1)
    assert ask(gateway, issuer, name) == b"from the CVM"
    dns.zones[f"_dstack-app-address.{name}"] = Zone(rcode=RCODE.SERVFAIL)
    failures = gateway.metric("dns_failures_total")

    def fails():
        assert ask(gateway, issuer, name) == b"from the CVM"
        return gateway.metric("dns_failures_total") > failures
    wait_until(fails, "a look-up that fails")
    assert ask(gateway, issuer, name) == b"from the CVM"


def test_a_dns_server_that_says_nothing(make_gateway, issuer, name, secure):
    """The deadline ends the wait; the record of an app still works."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        gateway = make_gateway(dns={"servers": [f"127.0.0.1:{silent.getsockname()[1]}"], "timeout": "300ms"})
        assert_refused(gateway, issuer, name)
        assert gateway.metric("dns_failures_total") == 1
        server = secure(name)
        gateway.app(server, domains=[{"name": name, "port": server.port}])
        assert ask(gateway, issuer, name) == b"from the CVM"


def told(gateway, name):
    said = gateway.resolve(name)
    return said, {step["step"]: step["result"] for step in said["steps"]}


@pytest.mark.parametrize("is_used", [True, False])
def test_resolve_knows_what_a_txt_record_says(gateway, issuer, secure, name, dns, is_used):
    """Whether clients have come before or not."""
    server = secure(name)
    app = gateway.app(server)
    publish(dns, name, f"{app.id}:{server.port}")
    if is_used:
        assert ask(gateway, issuer, name) == b"from the CVM"
    said, steps = told(gateway, name)
    assert said["routes"] and said["code"] == "ok" and said["app_id"] == app.id and said["port"] == server.port, said
    assert steps["look-up"] == "no app's record has this domain" and steps["TLS"] == "passed through to the CVM"
    assert steps["DNS"] == f"a TXT record says {app.id}:{server.port}" and steps["id"] == "the app"
    assert steps["choice"] and said["instances"][0]["health"]["workers"] == 1
    shown = gateway.gatewayctl("resolve", name)
    assert shown.returncode == 0 and f"{name} routes to app {app.id}, port {server.port}" in shown.stdout, shown
    assert ask(gateway, issuer, name) == b"from the CVM"
    assert dns.count(f"_dstack-app-address.{name}") == 1


def test_resolve_finds_what_is_wrong_with_a_txt_record(gateway, secure, name, dns):
    server = secure(name)
    app = gateway.app(server)
    instance = app.document["instances"][0]["instance_id"]
    publish(dns, name, f"{instance}:1")
    said, steps = told(gateway, name)
    assert (said["code"], steps["id"]) == ("port_not_published", "an instance of the app")
    assert steps["DNS"] == f"a TXT record says {instance}:1"
    nobody = new_id()
    publish(dns, f"a-{name}", f"{nobody}:80")
    said, steps = told(gateway, f"a-{name}")
    assert (said["code"], steps["DNS"]) == ("app_unknown", f"a TXT record says {nobody}:80")
    dns.zones[f"_dstack-app-address.b-{name}"] = Zone(f"{app.id}:80", f"{nobody}:80")
    said, steps = told(gateway, f"b-{name}")
    assert said["code"] == "host_unknown" and f"_dstack-app-address.b-{name}" in steps["DNS"], said
    assert "TLS" not in steps and gateway.gatewayctl("resolve", f"b-{name}").returncode == 1


def test_resolve_waits_for_no_dns(make_gateway, name):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        slow = make_gateway(dns={"servers": [server], "timeout": "30s"})
        said, steps = told(slow, name)
        assert said["code"] == "host_unknown" and "has not answered yet" in steps["DNS"], said
        failing = make_gateway(dns={"servers": [server], "timeout": "100ms"})
        assert "or the DNS failed" in told(failing, name)[1]["DNS"]
    off = make_gateway(dns={"enabled": False})
    said, steps = told(off, name)
    assert said["code"] == "host_unknown" and "is not asked" in steps["DNS"], said


def test_resolve_explains(gateway, name):
    said = gateway.resolve(name)
    assert said["code"] == "host_unknown" and not said["routes"]
    assert any("_dstack-app-address" in step["result"] for step in said["steps"]), said
    server = Origin()
    try:
        gateway.app(server, domains=[{"name": name, "port": server.port}])
        said = gateway.resolve(name)
        assert said["routes"] and said["port"] == server.port
        assert any("passed through" in step["result"] for step in said["steps"]), said
    finally:
        server.close()

"""gatewayctl compose on apps that exist: what it shows, what it keeps, who else changes them, dstack's app-compose.json."""
import contextlib
import hashlib
import http.server
import json
import socketserver
import subprocess
import threading

import pytest

from gateway import BUILD, DOMAIN, new_id
from origin import new_address, respond

COMPOSE = "services:\n  web:\n    image: a\n    ports: [{}]\n"


def app_compose(ports, **members):
    """The text of an app-compose.json, and the id that it makes."""
    content = {"manifest_version": 2, "name": new_id(), "runner": "docker-compose",
               "docker_compose_file": COMPOSE.format(ports), "kms_enabled": True, "gateway_enabled": True,
               "public_logs": False, "public_sysinfo": True, "allowed_envs": ["API_KEY"], "no_instance_id": False,
               **members}
    text = json.dumps(content, indent=2)
    return text, hashlib.sha256(text.encode()).hexdigest()[:40]


@pytest.fixture
def compose(gateway, tmp_path):
    """compose(text, argument…): the result of gatewayctl compose."""
    def run(text, *arguments, **options):
        path = tmp_path / "file"
        path.write_text(text)
        return gateway.gatewayctl("compose", path, *arguments, **options)
    return run


def stored(gateway, app_id):
    answer = gateway.control("GET", f"/v1/apps/{app_id}")
    return answer.json if answer.status == 200 else None


def rich_app(gateway):
    """An app with all that a Compose file does not know."""
    document = {"app_id": new_id(),
                "ports": [{"port": 80, "protocol": "http", "proxy_protocol": "v2", "check": {"type": "tcp"}},
                          {"port": 22, "protocol": "tcp"}],
                "domains": [{"name": f"{new_id()}.example", "port": 80}],
                "limits": {"max_connections": 7, "requests_per_second": 0},
                "instances": [{"instance_id": new_id(), "address": new_address(), "generation": 5, "state": "running",
                               "weight": 3}]}
    assert gateway.put_app(document).status == 201
    return stored(gateway, document["app_id"])


# ---- in place ----

def test_what_the_file_does_not_know_is_kept(gateway, compose):
    before = rich_app(gateway)
    result = compose(COMPOSE.format('"80:8000", "9000:9000"'), "--app", before["app_id"])
    assert result.returncode == 0, result.stderr
    after = stored(gateway, before["app_id"])
    assert [port["port"] for port in after["ports"]] == [80, 9000]
    assert after["ports"][0] == next(port for port in before["ports"] if port["port"] == 80)
    for member in ("domains", "limits", "instances", "restrict_ports"):
        assert after[member] == before[member]
    assert f"revision {before['revision']}: 2 changes" in result.stdout
    assert "  + port 9000: protocol auto, proxy_protocol off\n" in result.stdout
    assert "  - port 22: protocol tcp, proxy_protocol off\n" in result.stdout


def test_nothing_to_do_leaves_the_revision(gateway, compose):
    before = rich_app(gateway)
    result = compose(COMPOSE.format('"80:1", "22:2"'), "--app", before["app_id"])
    assert result.returncode == 0 and "nothing changes" in result.stdout
    assert f"https://{before['app_id']}-80.{DOMAIN}" in result.stdout
    assert stored(gateway, before["app_id"]) == before


def test_an_instance_joins_the_others(gateway, compose):
    before = rich_app(gateway)
    address = new_address()
    result = compose(COMPOSE.format('"80:1", "22:2"'), "--app", before["app_id"], "--address", address)
    assert result.returncode == 0, result.stderr
    instances = stored(gateway, before["app_id"])["instances"]
    assert instances[0] == before["instances"][0]
    assert instances[1] == {"instance_id": f"{before['app_id']}-i1", "address": address, "generation": 1,
                            "state": "running", "weight": 1}
    again = compose(COMPOSE.format('"80:1", "22:2"'), "--app", before["app_id"], "--address", address)
    assert "nothing changes" in again.stdout


@pytest.mark.parametrize("spelled, meant", [("FD00::12", "fd00::12"), ("fd00:0:0::0012", "fd00::12"),
                                            ("::FFFF:10.8.0.12", "10.8.0.12")])
def test_an_address_is_the_same_however_it_is_spelled(make_gateway, tmp_path, spelled, meant):
    gateway = make_gateway(workers=1, upstream={"allow": ["fd00::/8", "10.0.0.0/8"]})
    file, app_id = tmp_path / "file", new_id()
    file.write_text(COMPOSE.format('"80:80"'))
    arguments = ["compose", file, "--app", app_id, "--address", spelled]
    assert gateway.gatewayctl(*arguments).returncode == 0
    before = stored(gateway, app_id)
    assert [instance["address"] for instance in before["instances"]] == [meant]
    again = gateway.gatewayctl(*arguments, "--dry-run", "--exit-code")
    assert again.returncode == 0 and "nothing changes" in again.stdout, again
    # The instance is found by its address, whatever its id.
    instances = [{**before["instances"][0], "instance_id": new_id()}]
    assert gateway.put_app({**before, "instances": instances}).status == 200
    again = gateway.gatewayctl(*arguments, "--dry-run", "--exit-code")
    assert again.returncode == 0 and "nothing changes" in again.stdout, again


def test_what_is_no_address_is_refused_by_the_gateway(gateway, compose):
    result = compose(COMPOSE.format('"80:80"'), "--app", new_id(), "--address", "fd00::12::")
    assert result.returncode == 1 and "instances[0].address" in result.stderr, result


def test_a_stopped_instance_runs_again(gateway, compose):
    before = rich_app(gateway)
    instance = before["instances"][0]
    path = f"/v1/apps/{before['app_id']}/instances/{instance['instance_id']}"
    assert gateway.control("PATCH", path, {"state": "stopped"}).status == 200
    result = compose(COMPOSE.format('"80:1", "22:2"'), "--app", before["app_id"], "--address", instance["address"],
                     "--generation", "6")
    assert "state stopped -> running" in result.stdout and "generation 5 -> 6" in result.stdout
    assert stored(gateway, before["app_id"])["instances"] == [{**instance, "generation": 6}]


def test_a_domain_that_leads_nowhere_is_said(gateway, compose):
    before = rich_app(gateway)
    result = compose(COMPOSE.format('"22:22"'), "--app", before["app_id"], "--dry-run")
    note = f"domain {before['domains'][0]['name']} leads to port 80, which the app does not publish"
    assert note in result.stderr
    result = compose(COMPOSE.format('"22:22"'), "--app", before["app_id"], "--dry-run", "--json")
    assert json.loads(result.stdout)["notes"] == [note] and result.stderr == ""


def test_what_cannot_be_served_is_said_without_a_gateway(gateway, tmp_path):
    (tmp_path / "file").write_text(COMPOSE.format('"53:53/udp"'))
    result = gateway.gatewayctl("compose", tmp_path / "file", "--app", new_id(), "--address", "10.0.0.1", "--dry-run",
                                control_path=tmp_path / "none")
    assert result.returncode == 3 and "53:53/udp: left out" in result.stderr


# ---- before doing it ----

def test_dry_run(gateway, compose):
    before = rich_app(gateway)
    text = COMPOSE.format('"80:1", {target: 2, published: 22, app_protocol: ssh}, "53:53/udp"')
    arguments = ("--app", before["app_id"], "--address", new_address(), "--dry-run")
    result = compose(text, *arguments)
    assert result.returncode == 0 and "1 change\n  + instance" in result.stdout
    assert "53:53/udp: left out: the gateway carries TCP only" in result.stderr
    assert compose(text, *arguments, "--exit-code").returncode == 4
    assert compose(text, *arguments[:2], "--dry-run", "--exit-code").returncode == 0
    assert compose(text, *arguments[:2], "--exit-code").returncode == 2
    assert stored(gateway, before["app_id"]) == before


def test_dry_run_as_data(gateway, compose):
    before = rich_app(gateway)
    text = COMPOSE.format('{target: 2, published: 80, app_protocol: grpc}, "53:53/udp"')
    result = compose(text, "--app", before["app_id"], "--dry-run", "--json")
    answer = json.loads(result.stdout)
    assert result.stderr == ""
    assert [(change["change"], change["what"], change["key"]) for change in answer["changes"]] == [
        ("changed", "port", 80), ("removed", "port", 22)]
    assert answer["changes"][0]["from"]["protocol"] == "http" and answer["changes"][0]["to"]["protocol"] == "h2c"
    assert answer["left_out"] == [{"service": "web", "entry": "53:53/udp",
                                   "reason": "the gateway carries TCP only, not udp"}]
    assert [url["url"] for url in answer["urls"]][0] == f"https://{before['app_id']}-80.{DOMAIN}"
    assert answer["app"]["limits"] == before["limits"] and "revision" not in answer["app"]


def test_a_new_app_needs_an_address(gateway, compose):
    app_id = new_id()
    result = compose(COMPOSE.format('"80:80"'), "--app", app_id)
    assert result.returncode == 2 and "--address" in result.stderr and stored(gateway, app_id) is None
    assert compose(COMPOSE.format('"80:80"')).returncode == 2
    assert compose(COMPOSE.format('"80:80"'), "--app", app_id, "--generation", "1").returncode == 2


def test_an_address_of_another_app_is_explained(gateway, compose):
    before = rich_app(gateway)
    result = compose(COMPOSE.format('"80:80"'), "--app", new_id(), "--address", before["instances"][0]["address"])
    assert result.returncode == 1 and "claim_conflict" in result.stderr and "--replace" in result.stderr


# ---- others change it meanwhile ----

class Relay:
    """A control socket that passes calls on to the gateway, after `before(method, count of the method so far)`."""

    def __init__(self, gateway, path, before):
        counts = {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                counts[self.command] = counts.get(self.command, 0) + 1
                before(self.command, counts[self.command])
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
                fields = {name: self.headers[name] for name in ("If-Match", "If-None-Match", "Content-Type") if name in self.headers}
                answer = gateway.control(self.command, self.path, body, **fields)
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.fields.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
            do_GET = do_PUT = do_DELETE = do_POST = pass_on

            def log_message(self, *_):
                pass

            def address_string(self):
                return "unix"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
        self.path = path
        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def gatewayctl(self, *arguments):
        return subprocess.run([str(BUILD / "gatewayctl"), "--control", f"unix:{self.path}", *map(str, arguments)],
                              capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def relay(gateway, tmp_path):
    with contextlib.ExitStack() as stack:
        def make(before):
            made = Relay(gateway, tmp_path / "relay.sock", before)
            stack.callback(made.close)
            return made
        yield make


def test_a_change_of_others_is_not_lost(gateway, relay, tmp_path):
    """Between the look and the change, somebody sets a limit: it is there afterwards, and so are the new ports."""
    before = rich_app(gateway)
    (tmp_path / "file").write_text(COMPOSE.format('"80:80", "81:81"'))

    def interfere(method, count):
        if method == "PUT" and count == 1:
            assert gateway.put_app({**before, "limits": {"max_connections": 99}}).status == 200
    result = relay(interfere).gatewayctl("compose", tmp_path / "file", "--app", before["app_id"])
    assert result.returncode == 0, result.stderr
    assert "changed by somebody else meanwhile" in result.stderr
    after = stored(gateway, before["app_id"])
    assert after["limits"]["max_connections"] == 99
    assert [port["port"] for port in after["ports"]] == [80, 81]


def test_an_app_that_others_register_meanwhile_is_not_lost(gateway, relay, tmp_path):
    app_id = new_id()
    (tmp_path / "file").write_text(COMPOSE.format('"80:80"'))

    def interfere(method, count):
        if method == "PUT" and count == 1:
            assert gateway.put_app({"app_id": app_id, "limits": {"max_connections": 99}}).status == 201
    result = relay(interfere).gatewayctl("compose", tmp_path / "file", "--app", app_id, "--address", new_address())
    assert result.returncode == 0, result.stderr
    after = stored(gateway, app_id)
    assert after["limits"]["max_connections"] == 99 and after["ports"][0]["port"] == 80


def test_constant_changes_of_others_are_said(gateway, relay, tmp_path):
    before = rich_app(gateway)
    (tmp_path / "file").write_text(COMPOSE.format('"80:80", "81:81"'))

    def interfere(method, count):
        if method == "PUT":
            assert gateway.put_app({**before, "limits": {"max_connections": 100 + count}}).status == 200
    result = relay(interfere).gatewayctl("compose", tmp_path / "file", "--app", before["app_id"])
    assert result.returncode == 1 and "being changed by others; nothing was done" in result.stderr
    assert [port["port"] for port in stored(gateway, before["app_id"])["ports"]] == [22, 80]


# ---- app-compose.json ----

def test_app_compose_serves(gateway, compose, origin):
    server = origin(respond(b"from the CVM"))
    text, app_id = app_compose(f'"{server.port}:80", "53:53/udp"', tproxy_enabled=True)
    result = compose(text, "--address", server.address)
    assert result.returncode == 0, result.stderr
    host = f"{app_id}-{server.port}.{DOMAIN}"
    assert f"https://{host}" in result.stdout and "53:53/udp: left out" in result.stderr
    assert gateway.fetch("GET", "/", host).body == b"from the CVM"


def test_app_compose_from_standard_input(gateway):
    text, app_id = app_compose('"80:80"')
    result = subprocess.run([str(BUILD / "gatewayctl"), "--control", f"unix:{gateway.control_path}", "compose", "-",
                             "--address", new_address()], input=text, capture_output=True, text=True, timeout=60,
                            check=False)
    assert result.returncode == 0 and stored(gateway, app_id)["ports"][0]["port"] == 80


def test_app_compose_with_an_id_of_its_own(gateway, compose):
    """An app that keeps its id over upgrades is updated in place."""
    app_id, address = new_id(), new_address()
    for ports, count in ('"80:80"', 1), ('"80:80", "81:81"', 2):
        text, own_id = app_compose(ports)
        result = compose(text, "--app", app_id, "--address", address)
        assert result.returncode == 0 and own_id in result.stderr
        assert len(stored(gateway, app_id)["ports"]) == count and stored(gateway, own_id) is None


def test_app_compose_policy(gateway, compose):
    text, app_id = app_compose('"80:80", "81:81"', port_policy={"restrict_mode": True,
                                                              "ports": [{"port": 80, "pp": True}, {"port": 8090}]})
    result = compose(text, "--address", new_address())
    assert "81:81: left out: port_policy" in result.stderr
    ports = stored(gateway, app_id)["ports"]
    assert [(port["port"], port["proxy_protocol"]) for port in ports] == [(80, "v2"), (8090, "off")]


@pytest.mark.parametrize("members, said", [
    ({"gateway_enabled": False}, "asks for no public names"), ({"docker_compose_file": "services: 5"}, "services must"),
    ({"docker_compose_file": 5}, "text of a Compose file"), ({"runner": "bash"}, "ports cannot be known"),
])
def test_app_compose_refused(compose, members, said):
    text, _ = app_compose('"80:80"', **members)
    result = compose(text, "--address", new_address())
    assert result.returncode == 2 and said in result.stderr


def test_app_compose_stands_for_itself(compose, tmp_path):
    (tmp_path / "more").write_text(COMPOSE.format('"80:80"'))
    result = compose(app_compose('"80:80"')[0], tmp_path / "more", "--address", new_address())
    assert result.returncode == 2 and "give no other file" in result.stderr


# ---- one app in the place of another ----

def test_replace_moves_all_but_the_id(gateway, compose, origin):
    server = origin(respond(b"same CVM"))
    old_text, old_id = app_compose(f'"{server.port}:80"')
    assert compose(old_text, "--address", server.address).returncode == 0
    domain = f"{new_id()}.example"
    old = stored(gateway, old_id)
    assert gateway.put_app({**old, "domains": [{"name": domain, "port": server.port}],
                            "limits": {"max_connections": 50}}).status == 200
    new_text, app_id = app_compose(f'"{server.port}:80", "81:81"')
    dry = compose(new_text, "--replace", old_id, "--dry-run")
    assert f"~ app: {old_id} -> {app_id}" in dry.stdout and "+ port 81" in dry.stdout
    assert stored(gateway, app_id) is None
    result = compose(new_text, "--replace", old_id)
    assert result.returncode == 0, result.stderr
    assert stored(gateway, old_id) is None
    new = stored(gateway, app_id)
    assert new["domains"] == [{"name": domain, "port": server.port}] and new["limits"]["max_connections"] == 50
    assert new["instances"] == old["instances"]
    assert gateway.fetch("GET", "/", f"{app_id}-{server.port}.{DOMAIN}").body == b"same CVM"
    again = compose(new_text, "--replace", old_id)
    assert again.returncode == 0 and "nothing changes" in again.stdout
    assert f"--replace {old_id}: there is no such app" in again.stderr


def test_replace_of_an_app_that_has_a_successor(gateway, compose):
    """The new CVM is registered already: it keeps its own instance, and gets domains and limits."""
    old, new = rich_app(gateway), new_id()
    address = new_address()
    assert compose(COMPOSE.format('"80:80"'), "--app", new, "--address", address).returncode == 0
    result = compose(COMPOSE.format('"80:80"'), "--app", new, "--replace", old["app_id"])
    assert result.returncode == 0, result.stderr
    assert all(f"- instance {one['instance_id']}" in result.stdout for one in old["instances"])
    assert f"- app {old['app_id']}" in result.stdout and stored(gateway, old["app_id"]) is None
    after = stored(gateway, new)
    assert after["domains"] == old["domains"] and after["limits"] == old["limits"]
    assert [instance["address"] for instance in after["instances"]] == [address]


@pytest.mark.parametrize("busy", [1, 1000])
def test_replace_on_a_table_that_others_change(gateway, relay, tmp_path, busy):
    """Other apps change all the time: it is tried again in one step, and in the end done in two."""
    old, new = rich_app(gateway), new_id()
    (tmp_path / "file").write_text(COMPOSE.format('"80:80"'))

    def interfere(method, count):
        if method == "POST" and count <= busy:
            assert gateway.put_app({"app_id": new_id()}).status == 201
    result = relay(interfere).gatewayctl("compose", tmp_path / "file", "--app", new, "--replace", old["app_id"])
    assert result.returncode == 0, result.stderr
    after = stored(gateway, new)
    assert after["domains"] == old["domains"] and after["instances"] == old["instances"]
    assert stored(gateway, old["app_id"]) is None


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_replace_of_an_app_that_others_change(gateway, relay, tmp_path, method):
    old, new = rich_app(gateway), new_id()
    (tmp_path / "file").write_text(COMPOSE.format('"80:80"'))

    def interfere(called, count):
        if called == "POST" and method == "DELETE":
            assert gateway.put_app({"app_id": new_id()}).status == 201
        if called == method and count == 1:
            assert gateway.put_app({**old, "limits": {"max_connections": 98}}).status == 200
    result = relay(interfere).gatewayctl("compose", tmp_path / "file", "--app", new, "--replace", old["app_id"])
    assert result.returncode == 0, result.stderr
    assert "changed by somebody else meanwhile" in result.stderr
    assert stored(gateway, new)["limits"]["max_connections"] == 98 and stored(gateway, old["app_id"]) is None


def test_replace_that_is_refused_puts_the_old_app_back(gateway, compose):
    old = rich_app(gateway)
    result = compose(COMPOSE.format('"80:80"'), "--app", "Not-An-Id-", "--replace", old["app_id"])
    assert result.returncode == 1, result.stderr
    back = stored(gateway, old["app_id"])
    assert {**back, "revision": 0} == {**old, "revision": 0}


def test_replace_of_an_unknown_app(compose):
    result = compose(COMPOSE.format('"80:80"'), "--app", new_id(), "--replace", new_id())
    assert result.returncode == 1 and "no such app" in result.stderr

"""gatewayctl: Compose files in all their forms, and the other commands."""
import json
import os

import pytest

from gateway import DOMAIN, ROOT, new_id
from origin import new_address


@pytest.fixture
def compose(gateway, tmp_path):
    """compose(text, argument…): runs gatewayctl compose; returns (result, app as stored)."""
    def run(text, *arguments, **environment):
        path = tmp_path / "docker-compose.yml"
        path.write_text(text)
        app_id = new_id()
        result = gateway.gatewayctl("compose", path, "--app", app_id, "--address", new_address(), *arguments,
                                    env={**os.environ, **environment})
        stored = gateway.control("GET", f"/v1/apps/{app_id}")
        return result, stored.json if stored.status == 200 else None
    return run


def services(ports, *more):
    lines = ["services:", "  web:", "    image: a", *(f"    {line}" for line in more), "    ports:"]
    return "\n".join(lines + [f"      - {port}" for port in ports]) + "\n"


@pytest.mark.parametrize("entry, ports", [
    ('"80:8000"', [80]), ('"8000:8000"', [8000]), ('"9090-9092:8080-8082"', [9090, 9091, 9092]),
    ('"127.0.0.1:8001:80"', [8001]), ('"127.0.0.1:5000-5002:5000-5002"', [5000, 5001, 5002]),
    ('"[::1]:8002:80"', [8002]), ('"6060:6060/tcp"', [6060]), ("{target: 80, published: 8080}", [8080]),
    ('{target: 80, published: "8080", protocol: tcp, mode: host}', [8080]),
    ('{name: web, target: 80, published: 8081, host_ip: 127.0.0.1}', [8081]),
])
def test_forms(compose, entry, ports):
    result, app = compose(services([entry]))
    assert result.returncode == 0, result.stderr
    assert [port["port"] for port in app["ports"]] == ports
    for port in ports:
        assert f"https://{app['app_id']}-{port}.{DOMAIN}" in result.stdout
    assert app["instances"][0]["state"] == "running"


@pytest.mark.parametrize("entry", ['"6060:6060/udp"', '"3000"', "3000"])
def test_left_out_with_a_reason(compose, entry):
    """What the gateway can't publish is said, and the rest is registered."""
    result, app = compose(services([entry, '"8000:80"']))
    assert "web" in result.stderr + result.stdout
    assert [port["port"] for port in app["ports"]] == [8000]


@pytest.mark.parametrize("entry", ['"80:8000:90:1"', '"a:b"', '"70000:80"', '"8000-8002:80-81"', '"0:80"', "[]",
                                   '"${UNSET_VARIABLE}:80"', "{published: 80, colour: red}"])
def test_refused(compose, entry):
    result, app = compose(services([entry]))
    assert result.returncode != 0 and app is None
    assert result.stderr.strip()


@pytest.mark.parametrize("entry, port", [('"${PORT}:80"', 8123), ('"$PORT:80"', 8123), ('"${PORT:-9}:80"', 8123),
                                         ('"${NO_PORT:-8124}:80"', 8124), ('"${NO_PORT-8125}:80"', 8125)])
def test_variables(compose, entry, port):
    result, app = compose(services([entry]), PORT="8123")
    assert result.returncode == 0, result.stderr
    assert app["ports"][0]["port"] == port


def test_anchors_and_merge_keys(compose):
    result, app = compose("""
x-base: &base
  image: a
  ports: &ports
    - "8001:80"
services:
  one:
    <<: *base
  two:
    image: b
    ports: ["8002:80"]
  three:
    <<: [{image: c}, {ports: ["8003:80"]}]
""")
    assert result.returncode == 0, result.stderr
    assert [port["port"] for port in app["ports"]] == [8001, 8002, 8003]


def test_app_protocol(compose):
    result, app = compose(services(["{target: 80, published: 8001, app_protocol: grpc}",
                                    "{target: 80, published: 8002, app_protocol: tcp}"]))
    assert result.returncode == 0, result.stderr
    assert [port["protocol"] for port in app["ports"]] == ["h2c", "tcp"]


def test_network_mode_host_is_noted(compose):
    result, _ = compose(services(['"8000:80"'], "network_mode: host"))
    assert "host" in result.stdout + result.stderr


def test_several_files_and_profiles(gateway, tmp_path):
    (tmp_path / "one.yml").write_text(services(['"8000:80"']))
    (tmp_path / "two.yml").write_text(services(['"8001:81"'], "profiles: [debug]"))
    (tmp_path / "three.yml").write_text("services: {web: {profiles: !reset []}, log: {ports: !override ['9:9']}}")
    files = [tmp_path / "one.yml", tmp_path / "two.yml"]
    app_id, address = new_id(), new_address()

    def ports(*arguments, **environment):
        result = gateway.gatewayctl("compose", *arguments, "--app", app_id, "--address", address, "--json",
                                    env={**os.environ, **environment})
        return json.loads(result.stdout)["app"]["ports"] if result.returncode == 0 else result.stderr
    assert "no port can be registered" in ports(*files)
    assert [port["port"] for port in ports(*files, "--profile", "x,debug")] == [8000, 8001]
    assert [port["port"] for port in ports(*files, COMPOSE_PROFILES="debug")] == [8000, 8001]
    assert [port["port"] for port in ports(*files, tmp_path / "three.yml")] == [9, 8000, 8001]


@pytest.fixture
def project(gateway, tmp_path):
    """project(argument…): the ports that gatewayctl would register of the files in the folder, or the result."""
    (tmp_path / "compose.yml").write_text(services(['"${WEB_PORT:-8080}:80"']) + "\n".join([
        "  extra:", "    image: a", "    profiles: [extra]", "    ports: ['9999:80']", ""]))

    def run(*arguments, path=tmp_path / "compose.yml", **options):
        result = gateway.gatewayctl("compose", path, "--app", new_id(), "--address", "10.8.0.1", "--dry-run", "--json",
                                    *arguments, **options)
        return [port["port"] for port in json.loads(result.stdout)["app"]["ports"]] if not result.returncode else result
    run.folder = tmp_path
    return run


def without(*names):
    return {name: value for name, value in os.environ.items() if name not in names}


def test_the_env_file_beside_the_first_file_is_read(project, tmp_path_factory):
    assert project() == [8080]
    (project.folder / ".env").write_text("# the ports\nBASE=90\nexport WEB_PORT=\"${BASE}00\"\n")
    assert project() == [9000]
    assert project(env={**os.environ, "WEB_PORT": "9001"}) == [9001]
    assert project(path="compose.yml", cwd=project.folder) == [9000]
    second = tmp_path_factory.mktemp("second")
    (second / ".env").write_text("WEB_PORT=1")
    (second / "more.yml").write_text("services: {web: {image: b}}")
    assert project(second / "more.yml") == [9000]
    with open(project.folder / ".env", "a", encoding="ascii") as env:
        env.write("COMPOSE_PROFILES=extra\n")
    environment = without("COMPOSE_PROFILES")
    assert project(env=environment) == [9000, 9999]
    assert project("--profile", "none", env=environment) == [9000]
    assert project(env={**environment, "COMPOSE_PROFILES": ""}) == [9000]


def test_an_env_file_that_cannot_be_read_is_refused(project):
    env = project.folder / ".env"
    env.write_text("A=1\nWEB_PORT='9000\n")
    result = project()
    assert result.returncode == 2 and f"{env}: line 2: the quote is not closed" in result.stderr, result
    env.unlink()
    env.mkdir()         # of a Python program, for instance
    assert project() == [8080]
    missing = project("--env-file", project.folder / "none")
    assert missing.returncode == 2 and "none: No such file" in missing.stderr, missing


def test_env_files_are_named(project):
    (project.folder / ".env").write_text("WEB_PORT=1")
    (project.folder / "a").write_text("WEB_PORT=9002\nMORE=3")
    (project.folder / "b").write_text("WEB_PORT=900$MORE")
    first, second = project.folder / "a", project.folder / "b"
    assert project("--env-file", first) == [9002]
    assert project("--env-file", first, "--env-file", second) == project("--env-file", f"{first},{second}") == [9003]
    text = json.dumps({"docker_compose_file": (project.folder / "compose.yml").read_text(), "gateway_enabled": True,
                       "manifest_version": 2, "name": "a", "runner": "docker-compose"})
    (project.folder / "app-compose.json").write_text(text)
    path = project.folder / "app-compose.json"
    assert project(path=path) == [8080]         # it runs elsewhere: what is in this folder is not its own
    assert project("--env-file", first, path=path) == [9002]


def test_ports_bound_to_loopback_are_out_of_reach(gateway, tmp_path):
    path = tmp_path / "compose.yml"
    path.write_text(services(['"127.0.0.1:8001:80"', '"8000:80"']))
    result = gateway.gatewayctl("compose", path, "--app", new_id(), "--address", "10.8.0.1", "--dry-run")
    assert "127.0.0.1:8001:80: left out" in result.stderr
    assert "-8000." in result.stdout and "-8001." not in result.stdout


def test_dry_run_changes_nothing(compose):
    result, app = compose(services(['"8000:80"']), "--dry-run")
    assert result.returncode == 0 and app is None


def test_repeated_registration(gateway, tmp_path):
    (tmp_path / "compose.yml").write_text(services(['"8000:80"']))
    app_id, address = new_id(), new_address()
    for _ in range(3):
        assert gateway.gatewayctl("compose", tmp_path / "compose.yml", "--app", app_id, "--address",
                                  address).returncode == 0


def test_demo_file(gateway):
    result = gateway.gatewayctl("compose", ROOT / "conf/demo/docker-compose.yml", "--app", new_id(), "--address",
                                new_address())
    assert result.returncode == 0 and "-8000." in result.stdout


def test_apps(gateway, tmp_path):
    app_id = new_id()
    document = {"app_id": app_id, "ports": [{"port": 80}]}
    (tmp_path / "app.json").write_text(json.dumps(document))
    assert gateway.gatewayctl("app", "put", tmp_path / "app.json").returncode == 0
    got = gateway.gatewayctl("app", "get", app_id, "--json")
    assert json.loads(got.stdout)["app_id"] == app_id
    assert app_id in gateway.gatewayctl("app", "ls").stdout
    resolved = gateway.gatewayctl("resolve", f"{app_id}.{DOMAIN}")
    assert app_id in resolved.stdout
    assert gateway.gatewayctl("app", "rm", app_id).returncode == 0
    missing = gateway.gatewayctl("app", "get", app_id)
    assert missing.returncode == 1 and "app_unknown" in missing.stderr


def test_refused_document(gateway, tmp_path):
    (tmp_path / "app.json").write_text(json.dumps({"app_id": new_id(), "ports": [{"port": 0}]}))
    result = gateway.gatewayctl("app", "put", tmp_path / "app.json")
    assert result.returncode == 1 and "ports[0].port" in result.stderr


def test_snapshot(make_gateway, tmp_path):
    gateway = make_gateway()
    for _ in range(3):
        gateway.app()
    assert gateway.gatewayctl("snapshot", "save", tmp_path / "all").returncode == 0
    assert len((tmp_path / "all").read_text().splitlines()) == 3 + 1        # the last one is empty
    gateway.app()
    assert gateway.gatewayctl("snapshot", "load", tmp_path / "all").returncode == 0
    assert len(gateway.control("GET", "/v1/snapshot").body.splitlines()) == 3


def test_status_and_reload(gateway):
    assert json.loads(gateway.gatewayctl("status", "--json").stdout)["ready"] is True
    assert gateway.gatewayctl("status").returncode == 0
    assert gateway.gatewayctl("reload").returncode == 0


def test_usage_and_unreachable(gateway, tmp_path):
    assert gateway.gatewayctl("nonsense").returncode == 2
    assert gateway.gatewayctl("app", "get").returncode == 2
    result = gateway.gatewayctl("status", control_path=tmp_path / "none.sock")
    assert result.returncode == 3 and "none.sock" in result.stderr
    result = gateway.gatewayctl("app", "ls", control_path=tmp_path / "none.sock")
    assert result.returncode == 3 and result.stdout == ""

"""Fixtures: a certificate authority per run, a gateway per test file, origins and apps per test."""
import subprocess

import pytest

from certificates import Authority
from gateway import BUILD, DOMAIN, OTHER_DOMAIN, Gateway, free_port
from origin import Origin, new_address
from wire import wait_until


def pytest_collection_modifyitems(items):
    """The order of files is the order of dependence: when the basics fail, their report comes first."""
    first = {"test_lint": 0, "test_config": 1, "test_basic": 2}
    items.sort(key=lambda item: first.get(item.module.__name__, 9))


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("certificates"))
    made.issue_domain(DOMAIN, "ec")
    made.issue_domain(OTHER_DOMAIN, "rsa")
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, authority):
    """With the default configuration; shared by the tests of a file."""
    assert (BUILD / "phala-gateway").exists(), f"build {BUILD} first, as tests/run does"
    running = Gateway(tmp_path_factory.mktemp("gateway"), authority).start()
    yield running
    running.stop()


@pytest.fixture
def make_gateway(tmp_path_factory, authority):
    """make_gateway(section=value, …): started with changed sections of its configuration."""
    made = []

    def make(start=True, **sections):
        gateway = Gateway(tmp_path_factory.mktemp("gateway"), authority, **sections)
        made.append(gateway)
        return gateway.start() if start else gateway
    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture
def origin():
    """origin(answer, …) starts a server (see origin.Origin)."""
    made = []

    def make(*arguments, **options):
        made.append(Origin(*arguments, **options))
        return made[-1]
    yield make
    for server in made:
        server.close()


@pytest.fixture(scope="session")
def httpbin(tmp_path_factory):
    """(address, port) of Debian's httpbin under gunicorn."""
    address = new_address()
    port = free_port(address)
    log = tmp_path_factory.mktemp("httpbin") / "log"
    command = ["/usr/bin/python3", "-m", "gunicorn",
               "--bind", f"{address}:{port}", "--threads", "16", "--keep-alive", "30", "httpbin:app"]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def is_up():
        assert process.poll() is None, log.read_text()
        return b"Listening at" in log.read_bytes() and b"Booting worker" in log.read_bytes()
    wait_until(is_up, "httpbin", 60)
    yield address, port
    process.terminate()
    process.wait(30)

"""Following a member of etcd that says what its test wants: several changes at once, late answers, nonsense."""
import pytest

from custom_certificates import Issuer
from etcd_script import ScriptedEtcd
from test_etcd import app_of, document, idle, is_following, served, state, wait_for
from origin import Origin
from wire import wait_until

TIMEOUT = 60


@pytest.fixture
def script():
    made = ScriptedEtcd()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server():
    made = Origin()
    yield made
    made.close()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("custom"))


@pytest.fixture
def follow(make_gateway, script, tmp_path):
    """follow(…): a gateway with a fleet key, once it follows the script."""
    def make(wait=True, **sections):
        key = tmp_path / "fleet.key"
        key.write_text("6b" * 32 + "\n")
        gateway = make_gateway(workers=1, start=False, **sections,
                               sync={"etcd": {"endpoints": script.urls, "fleet_key_file": str(key)}})
        gateway.start(ready=wait)
        if wait:
            wait_following(gateway)
        return gateway
    return make


def wait_following(gateway):
    wait_until(lambda: is_following(gateway), "the gateway to follow etcd", TIMEOUT)


def put_app(script, app):
    return script.put(f"apps/{app['app_id']}", app)


# ---- several changes at once ----

def test_a_certificate_that_is_deleted_at_once_is_not_served(script, follow, issuer):
    gateway = follow()
    name, marker = "quick.example.com", "marker.example.com"
    path = f"/v1/certificates/{name}"
    assert gateway.control("PUT", path, issuer.issue(name).document).status == 201
    value = script.kvs[f"/phala-gateway/certificates/{name}".encode()][0].decode()
    assert gateway.control("DELETE", path).status == 204
    script.hold()
    script.put(f"certificates/{name}", value)
    script.put(f"certificates/{name}", {"deleted": True})
    script.release()
    # Certificates are applied one after the other: when this one is, both were.
    assert gateway.control("PUT", f"/v1/certificates/{marker}", issuer.issue(marker).document).status == 201
    assert served(gateway, issuer, marker)
    assert gateway.control("GET", path).status == 404
    assert served(gateway, issuer, name) is None

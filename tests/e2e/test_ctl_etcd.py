"""gatewayctl --etcd before values that this version does not understand, or that are no documents at all."""
import json

import pytest

from etcd_server import Etcd, b64
from gateway import new_id
from test_etcd import etcdctl, idle


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    server = Etcd(tmp_path_factory.mktemp("etcd")).start()
    yield server
    server.stop()


class Fleet:
    """One prefix of the shared etcd."""

    def __init__(self, etcd, prefix):
        self.etcd, self.prefix = etcd, prefix

    def put(self, app_id, value):
        text = json.dumps(value) if isinstance(value, dict) else value
        self.etcd.call("kv/put", {"key": b64(f"{self.prefix}apps/{app_id}"), "value": b64(text)})

    def get(self, app_id):
        """(value, mod_revision), or None."""
        return self.etcd.get(f"apps/{app_id}", self.prefix)

    def ctl(self, *arguments, **options):
        return etcdctl(self.etcd, *arguments, prefix=self.prefix, **options)


@pytest.fixture
def fleet(etcd):
    return Fleet(etcd, f"/fleet/{new_id()}/")


def lines_of(path):
    return {app["app_id"]: app for app in map(json.loads, path.read_text().strip().split("\n"))}


def test_apps_of_a_newer_gateway_are_saved_as_they_are(fleet, tmp_path):
    """The file has all of them, and loading it deletes none that this version refuses."""
    plain, newer = idle(), idle(shield={"level": 3, "kinds": ["a\nb", 0.5]}, ports=[{"port": 80}])
    for app in (plain, newer):
        fleet.put(app["app_id"], app)
    saved = fleet.ctl("snapshot", "save", tmp_path / "all")
    assert saved.returncode == 0 and saved.stderr == "", saved
    before = fleet.get(newer["app_id"])
    apps = lines_of(tmp_path / "all")
    assert apps.keys() == {plain["app_id"], newer["app_id"]}
    assert apps[newer["app_id"]] == {**newer, "revision": before[1]}
    loaded = fleet.ctl("snapshot", "load", tmp_path / "all")
    assert loaded.returncode == 1 and "1 apps loaded into etcd, 1 refused" in loaded.stdout, loaded
    assert "shield" in loaded.stderr
    assert fleet.get(newer["app_id"]) == before
    # also if the line cannot be read to its end
    (tmp_path / "all").write_text(json.dumps(plain) + "\n" + json.dumps(newer)[:-1] + "\n")
    loaded = fleet.ctl("snapshot", "load", tmp_path / "all")
    assert loaded.returncode == 1 and "1 apps loaded into etcd, 1 refused" in loaded.stdout, loaded
    assert fleet.get(newer["app_id"]) == before
    (tmp_path / "all").write_text(json.dumps(plain) + "\n")
    assert fleet.ctl("snapshot", "load", tmp_path / "all").returncode == 0
    assert fleet.get(newer["app_id"]) is None


@pytest.mark.parametrize("value, says", [
    ("{", "JSON"), ("[]", "no JSON object"), ("", "JSON"), ('{"app_id": "a", "app_id": "b"}', "duplicate"),
    (json.dumps(idle()), "app_id"), ('{"ports": []}', "app_id"),
])
def test_what_cannot_be_saved_fails_the_save(fleet, tmp_path, value, says):
    good, bad = idle(), new_id()
    fleet.put(good["app_id"], good)
    fleet.put(bad, value)
    saved = fleet.ctl("snapshot", "save", tmp_path / "all")
    assert saved.returncode == 1 and f"app {bad} is left out: " in saved.stderr and says in saved.stderr, saved
    assert f"saved to {tmp_path / 'all'}, without 1 app" in saved.stdout
    assert lines_of(tmp_path / "all").keys() == {good["app_id"]}
    saved = fleet.ctl("snapshot", "save", tmp_path / "all", "--json")
    assert saved.returncode == 1, saved
    assert json.loads(saved.stdout) == {"path": str(tmp_path / "all"), "saved": True, "left_out": 1}
    piped = fleet.ctl("snapshot", "save", "-")
    assert piped.returncode == 1 and json.loads(piped.stdout)["app_id"] == good["app_id"], piped
    assert fleet.ctl("snapshot", "load", "-", input=piped.stdout).returncode == 2      # it is not all
    assert fleet.get(bad)


def test_an_app_that_is_no_object_is_no_success(fleet):
    good, bad = idle(), new_id()
    fleet.put(good["app_id"], good)
    fleet.put(bad, "nonsense")
    shown = fleet.ctl("app", "get", bad)
    assert shown.returncode == 1 and shown.stdout == "", shown
    assert f"app {bad}: what etcd has is no JSON object" in shown.stderr
    shown = fleet.ctl("app", "get", bad, "--json")
    assert shown.returncode == 1 and json.loads(shown.stderr)["code"] == "invalid_json", shown
    for options in ((), ("--json",)):
        listed = fleet.ctl("app", "ls", *options)
        assert listed.returncode == 1 and good["app_id"] in listed.stdout and bad in listed.stderr, listed
    assert fleet.ctl("app", "rm", bad).returncode == 0
    assert fleet.ctl("app", "ls").returncode == 0


def test_ids_are_told_apart_without_their_case(fleet):
    app = idle()
    upper = app["app_id"].upper()
    assert fleet.ctl("app", "put", "-", input=json.dumps({"app_id": upper})).returncode == 0
    shown = fleet.ctl("app", "get", upper)
    assert shown.returncode == 0 and json.loads(shown.stdout)["app_id"] == app["app_id"], shown
    fleet.put(upper, "nonsense")        # no gateway takes it, but it must be possible to look at it, and to delete it
    assert f"app {upper}: what etcd has is no JSON object" in fleet.ctl("app", "get", upper).stderr
    assert fleet.ctl("app", "rm", upper).returncode == 0
    assert fleet.get(upper) is None and fleet.get(app["app_id"])
    assert fleet.ctl("app", "rm", upper).stdout == f"app {app['app_id']} deleted\n"
    assert fleet.get(app["app_id"]) is None


def test_a_snapshot_that_broke_off_in_a_pipe_changes_nothing(fleet):
    apps = [idle() for _ in range(3)]
    for app in apps:
        fleet.put(app["app_id"], app)
    saved = fleet.ctl("snapshot", "save", "-").stdout
    assert saved.endswith("}\n\n")
    lines = saved.splitlines(keepends=True)
    for cut in ("", lines[0], "".join(lines[:3]), saved.rstrip()):
        loaded = fleet.ctl("snapshot", "load", "--empty", "-", input=cut)
        assert loaded.returncode == 2 and "nothing was changed" in loaded.stderr, loaded
        assert "--unmarked" in loaded.stderr
    assert all(fleet.get(app["app_id"]) for app in apps)
    loaded = fleet.ctl("snapshot", "load", "-", input=saved)
    assert loaded.returncode == 0 and "3 apps loaded into etcd, 0 refused" in loaded.stdout, loaded
    assert fleet.ctl("snapshot", "load", "--unmarked", "-", input=lines[0]).returncode == 0
    assert sum(fleet.get(app["app_id"]) is not None for app in apps) == 1

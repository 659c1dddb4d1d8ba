"""The configuration as a person meets it: --check, and starts that must fail with a clear reason."""
import subprocess

import pytest

from gateway import BUILD, DOMAIN, ROOT


def run(*arguments):
    return subprocess.run([BUILD / "phala-gateway", *arguments], capture_output=True, text=True, timeout=60,
                          check=False, stdin=subprocess.DEVNULL)


def test_check_good(make_gateway):
    status, output = make_gateway(start=False).check()
    assert status == 0, output


def test_check_does_not_start(make_gateway):
    gateway = make_gateway(start=False)
    gateway.check()
    assert not gateway.control_path.exists() and not list((gateway.folder / "state").iterdir())


BAD = [
    ("unknown-key", {"colour": "red"}, ["colour"]),
    ("misspelled-key", {"listners": []}, ["listners", "listeners"]),
    ("no-listeners", {"listeners": []}, ["listeners"]),
    ("port-0", {"listeners": [{"address": "127.0.0.1:0"}]}, ["listeners[0].address"]),
    ("bad-address", {"listeners": [{"address": "nowhere"}]}, ["listeners[0].address"]),
    ("proxy-protocol", {"listeners": [{"address": "127.0.0.1:19444", "proxy_protocol": "required"}]},
     ["listeners[0]", "trusted_proxies"]),
    ("no-domains", {"base_domains": []}, ["base_domains"]),
    ("no-control", {"control": []}, ["control"]),
    ("control-without-auth", {"control": [{"address": "127.0.0.1:19443"}]}, ["control[0]"]),
    ("workers", {"workers": -1}, ["workers"]),
    ("workers-type", {"workers": "many"}, ["workers"]),
    ("network", {"upstream": {"allow": ["10.0.0.0/99"]}}, ["upstream.allow[0]"]),
    ("duration", {"timeouts": {"connect": "5 parsecs"}}, ["timeouts.connect"]),
    ("size", {"limits": {"request_head": "-1"}}, ["limits.request_head"]),
    ("format", {"access_log": {"path": "a", "format": "$nonsense"}}, ["access_log.format", "nonsense"]),
]


@pytest.mark.parametrize("sections, words", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_config(make_gateway, sections, words):
    """File, line, key and what would be right; by --check and by a start."""
    gateway = make_gateway(start=False, **sections)
    status, output = gateway.check()
    assert status != 0
    for word in [*words, str(gateway.config_path) + ":"]:
        assert word in output, output
    result = run("--config", gateway.config_path)
    assert result.returncode != 0 and words[0] in result.stderr


def test_missing_file(tmp_path):
    result = run("--config", tmp_path / "none.yaml")
    assert result.returncode != 0 and "none.yaml" in result.stderr


def test_usage():
    result = run("--help")
    assert result.returncode == 0 and "--config" in result.stdout and "--check" in result.stdout
    result = run("--nonsense")
    assert result.returncode != 0 and "--config" in result.stderr


@pytest.mark.parametrize("member, value", [("certificate", "missing.pem"), ("private_key", "missing.key")])
def test_missing_certificate(make_gateway, member, value):
    gateway = make_gateway(start=False)
    gateway.config["base_domains"][0][member] = value
    status, output = gateway.check()
    assert status != 0 and value in output


def test_key_of_another_certificate(make_gateway):
    gateway = make_gateway(start=False)
    gateway.config["base_domains"][0]["private_key"] = gateway.config["base_domains"][1]["private_key"]
    status, output = gateway.check()
    assert status != 0 and f"{DOMAIN}.pem" in output


def test_certificate_for_another_name(make_gateway):
    gateway = make_gateway(start=False)
    gateway.config["base_domains"][0]["name"] = "third.example"
    status, output = gateway.check()
    assert status != 0 and "third.example" in output


def test_example_is_valid():
    """conf/gateway.example.yaml, with paths of this machine."""
    text = (ROOT / "conf" / "gateway.example.yaml").read_text()
    assert "base_domains:" in text and "timeouts:" in text and "limits:" in text
    result = run("--config", ROOT / "conf" / "gateway.example.yaml", "--check")
    # The certificates that it names are not there; all else must be right.
    assert result.returncode == 0 or "prod5.pem" in result.stderr + result.stdout
    assert "unknown" not in result.stderr

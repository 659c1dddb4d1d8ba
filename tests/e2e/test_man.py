"""Manual pages: clean, and nothing in them or missing from them that --help or the example configuration says otherwise."""
import re
import subprocess

import pytest
import yaml

from gateway import BUILD, ROOT


def output(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=True).stdout


PAGES = {
    "gatewayctl.1": lambda: output(BUILD / "gatewayctl", "man"),
    "phala-gateway.8": (ROOT / "conf/man/phala-gateway.8").read_text,
    "phala-gateway.yaml.5": lambda: output("awk", "-f", ROOT / "conf/man/yaml-page.awk",
                                           ROOT / "conf/gateway.example.yaml"),
}


def text_of(name, tmp_path):
    """Without overstrikes (bold, underlined)."""
    (tmp_path / name).write_text(PAGES[name]())
    return re.sub(".\b", "", output("mandoc", "-Tascii", "-Owidth=200", tmp_path / name))


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_clean(name, tmp_path):
    (tmp_path / name).write_text(PAGES[name]())
    result = subprocess.run(["mandoc", "-Tlint", tmp_path / name], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout + result.stderr == "", result
    assert "\\[u" not in text_of(name, tmp_path)


def long_options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def test_gatewayctl_page_says_what_help_says(tmp_path):
    page, told = text_of("gatewayctl.1", tmp_path), output(BUILD / "gatewayctl", "--help")
    assert long_options(page) == long_options(told)
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?)(?= {2}| [A-Z\[])", told.split("Options")[0], re.M)
    assert len(commands) > 10
    for command in commands:
        assert re.search(rf"^ +{command}\b", page, re.M), command
    for status in "0123":
        assert re.search(rf"^ +{status} +\w", page.split("EXIT STATUS")[1], re.M)


def test_phala_gateway_page_says_what_help_says(tmp_path):
    page, told = text_of("phala-gateway.8", tmp_path), output(BUILD / "phala-gateway", "--help")
    assert long_options(page) == long_options(told)
    signals = re.search(r"signals: (.*)", told)[1]
    for name in re.findall(r"\b[A-Z]{2,}[12]?\b", signals):
        assert re.search(rf"\b{name}\b", page.split("SIGNALS")[1]), name


def keys_of(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}" if path else key
            yield from keys_of(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from keys_of(inner, f"{path}[]")


def test_yaml_page_has_every_key(tmp_path):
    page = text_of("phala-gateway.yaml.5", tmp_path)
    told = re.findall(r"^     +([a-z_0-9.\[\]]+)(?: |$)", page.split("KEYS")[1], re.M)
    example = (ROOT / "conf/gateway.example.yaml").read_text()
    keys = set(keys_of(yaml.safe_load(example)))
    # keys in comments: those that exclude others
    example = re.sub(r"(?m)^  # (?=(etcd| +[a-z_]+):( |$))", "  ", example)
    keys |= set(keys_of(yaml.safe_load(example)))
    assert {"sync.etcd.endpoints", "sync.etcd.tls.ca", "sync.etcd.fleet_key_file"} <= keys
    assert keys <= set(told), keys - set(told)


def test_install_puts_everything_in_its_place(tmp_path):
    output("cmake", "--install", ROOT / "build/release", "--prefix", tmp_path)
    installed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"bin/phala-gateway", "bin/gatewayctl", "share/man/man1/gatewayctl.1", "share/man/man5/phala-gateway.yaml.5",
            "share/man/man8/phala-gateway.8", "share/bash-completion/completions/gatewayctl",
            "share/zsh/site-functions/_gatewayctl", "share/fish/vendor_completions.d/gatewayctl.fish",
            "lib/systemd/system/phala-gateway.service",
            "share/doc/phala-gateway/gateway.example.yaml"} <= installed, installed
    for page in (path for path in installed if path.startswith("share/man/")):
        assert (tmp_path / page).read_text().startswith(".TH "), page
    unit = (tmp_path / "lib/systemd/system/phala-gateway.service").read_text()
    assert f"ExecStart={tmp_path}/bin/phala-gateway --config" in unit and "/usr/local" not in unit.split("[Unit]")[1]

"""conf/quickstart, as the README's first command runs it; on its own ports, so one at a time."""
import os
import signal
import socket
import subprocess

import pytest

from gateway import ROOT
from wire import wait_until

QUICKSTART = ROOT / "conf" / "quickstart"
PORTS = (8443, 8080, 8000)


def run(*arguments, **options):
    return subprocess.run([QUICKSTART, *map(str, arguments)], capture_output=True, text=True, timeout=500, check=False,
                          stdin=subprocess.DEVNULL, **options)


def is_free(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_check_twice_from_elsewhere(tmp_path):
    for _ in range(2):
        result = run("--state", tmp_path / "state", "--check", cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        for word in ("https://", "-8000.local.localhost:8443/get", "curl --cacert", "access.log", "Ctrl-C"):
            assert word in result.stdout
        assert not (tmp_path / "state").exists()
        assert all(map(is_free, PORTS))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_end_by_signal(tmp_path, number):
    state = tmp_path / "state"
    with open(tmp_path / "output", "wb") as output:
        process = subprocess.Popen([QUICKSTART, "--state", state], stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=output, start_new_session=True)
    text = wait_until(lambda: "to stop" in (tmp_path / "output").read_text() and (tmp_path / "output").read_text()
                      or process.poll() is not None and (tmp_path / "output").read_text(), "the quickstart", 400)
    assert process.poll() is None, text
    (line,) = [line for line in text.splitlines() if line.strip().startswith("curl ")]
    answer = subprocess.run(line.split() + ["-sS"], capture_output=True, text=True, timeout=60, check=False)
    assert '"Host"' in answer.stdout, answer.stderr
    if number == signal.SIGINT:
        os.killpg(process.pid, number)      # as a terminal does
    else:
        process.send_signal(number)
    assert process.wait(60) == 0
    assert not state.exists() and all(map(is_free, PORTS))


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 8443)):
        result = run("--state", tmp_path / "state", "--check")
    assert result.returncode == 1 and "8443" in result.stderr and "in use" in result.stderr


def test_foreign_state_folder_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("data")
    result = run("--state", tmp_path, "--check")
    assert result.returncode == 1 and (tmp_path / "precious").exists()

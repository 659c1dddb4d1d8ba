"""conf/quickstart, as the README's first command runs it; on its own ports, so one at a time."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

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


@pytest.fixture
def home():
    """A folder with a short name, since the path of a socket has room for 107 bytes."""
    folder = tempfile.mkdtemp(prefix="gw-", dir="/tmp")
    yield pathlib.Path(folder)
    shutil.rmtree(folder)


def take_interrupts():
    """As under a terminal: a job that a script put into the background, or nohup, inherits ignored signals."""
    for number in signal.SIGINT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def quickstart(home):
    """A running quickstart: (process, what it printed). Its state folder is the one of a user who lives in `home`."""
    environment = {name: value for name, value in os.environ.items() if name != "XDG_STATE_HOME"}
    path = home / "output"
    with open(path, "wb") as output:
        process = subprocess.Popen([QUICKSTART], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True, env={**environment, "HOME": str(home)},
                                   preexec_fn=take_interrupts)
    wait_until(lambda: "to stop" in path.read_text() or process.poll() is not None, "the quickstart", 400)
    assert process.poll() is None, path.read_text()
    yield process, path.read_text()
    process.terminate()
    process.wait(60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_end_by_signal(quickstart, home, number):
    process, text = quickstart
    (line,) = [line for line in text.splitlines() if line.strip().startswith("curl ")]
    answer = subprocess.run(line.split() + ["-sS"], capture_output=True, text=True, timeout=60, check=False)
    assert '"Host"' in answer.stdout, answer.stderr
    if number == signal.SIGINT:
        os.killpg(process.pid, number)      # as a terminal does
    else:
        process.send_signal(number)
    assert process.wait(60) == 0
    assert not list((home / ".local" / "state").iterdir()) and all(map(is_free, PORTS))


def test_the_tour_of_the_readme(quickstart, home):
    """Its commands as they stand there, one after the other; each must work."""
    tour = (ROOT / "README.md").read_text().split("## A tour in five minutes")[1].split("\n## ")[0]
    commands = "\n".join(tour.split("```")[1::2])
    server = "python3 -m http.server 9000 --bind 127.0.0.2 &\n"
    assert server in commands
    listening = "until (exec 3<>/dev/tcp/127.0.0.2/9000) 2>/dev/null; do sleep 0.1; done\n"
    script = "trap 'kill $(jobs -p)' EXIT\nset -e\n" + commands.replace(server, server + listening)
    result = subprocess.run(["bash", "-c", script], cwd=ROOT, env={**os.environ, "HOME": str(home)}, timeout=60,
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("routes to app", '"request_id"', "app myapp created", "Directory listing", "https://another-8000."):
        assert word in result.stdout, result.stdout


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 8443)):
        result = run("--state", tmp_path / "state", "--check")
    assert result.returncode == 1 and "8443" in result.stderr and "in use" in result.stderr


def test_foreign_state_folder_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("data")
    result = run("--state", tmp_path, "--check")
    assert result.returncode == 1 and (tmp_path / "precious").exists()

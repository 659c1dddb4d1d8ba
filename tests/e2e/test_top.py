"""What apps do: GET /v1/top, and gatewayctl top on a real terminal."""
import json
import signal
import subprocess
import threading
import time

import pytest

from gateway import BUILD, DOMAIN, new_id
from origin import respond
from terminal import Terminal, plain
from wire import wait_until


def top(gateway, query="interval_ms=300"):
    answer = gateway.control("GET", f"/v1/top?{query}")
    assert answer.status == 200, answer
    return answer.json


class Traffic:
    """Requests to an app, one after the other, until it is told to stop."""

    def __init__(self, gateway, app, path="/", method="GET", body=b""):
        self.arguments = gateway, app, path, method, body
        self.goes_on = True
        self.count = 0
        self.error = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        gateway, app, path, method, body = self.arguments
        try:
            with gateway.connect(app.host()) as connection:
                while self.goes_on:
                    connection.request(method, path, app.host(), body)
                    self.count += 1
                    time.sleep(0.002)
        except Exception as error:              # shown by the thread that waits
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.goes_on = False
        self.thread.join()
        if self.error:
            raise self.error


# ---- the API ----

def test_rates_of_an_app(gateway, origin):
    app = gateway.app(origin())
    with Traffic(gateway, app, body=b"x" * 100, method="POST") as traffic:
        wait_until(lambda: traffic.count > 5, "traffic")
        answer = top(gateway, "interval_ms=1000")
    row = next(row for row in answer["apps"] if row["app_id"] == app.id)
    assert answer["interval_ms"] >= 1000 and answer["workers"] == 2
    assert 0 < row["requests_per_second"] <= 500
    assert 0 < row["p50_ms"] <= row["p99_ms"] and row["responses_5xx_per_second"] == 0
    assert row["bytes_in_per_second"] == pytest.approx(100 * row["requests_per_second"], rel=0.5)
    assert answer["totals"]["requests_per_second"] >= row["requests_per_second"] and answer["totals"]["connections"] >= 1
    assert answer["apps_left_out"] == 0 and answer["others"]["requests_per_second"] == 0
    assert app.id not in json.dumps(wait_until(
        lambda: (answer := top(gateway)) and not answer["apps"] and answer, "the end of traffic"))


def test_errors_and_what_is_in_progress(gateway, origin):
    """An app without an instance; a request without an answer."""
    stopped = gateway.app(ports=[{"port": 8000}])
    waiting = threading.Event()

    def silent(_connection, _request):
        waiting.wait(30)
        return respond(b"at last")
    slow = gateway.app(origin(silent))
    with Traffic(gateway, stopped), gateway.connect(slow.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {slow.host()}\r\n\r\n")

        def find():
            rows = {row["app_id"]: row for row in top(gateway)["apps"]}
            error, open_one = rows.get(stopped.id), rows.get(slow.id)
            return (error and error["responses_5xx_per_second"] > 0 and error["gateway_errors_per_second"] > 0 and
                    open_one and open_one["in_progress"] == 1)
        wait_until(find, "both apps in the report")
        waiting.set()
        assert connection.read_response().status == 200


def test_bytes_of_a_tunnel_are_seen_while_it_is_open(gateway, origin):
    app = gateway.app(origin())
    port = app.document["ports"][0]["port"]
    app.put(ports=[{"port": port, "protocol": "tcp"}])
    with gateway.connect(app.host(), gateway.tls_context(alpn=())) as connection:
        ended = threading.Event()

        def send():
            while not ended.wait(0.05):
                connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        thread = threading.Thread(target=send)
        thread.start()

        def find():
            rows = [row for row in top(gateway)["apps"] if row["app_id"] == app.id]
            return rows and rows[0]["tunnels"] == 1 and rows[0]["in_progress"] == 1 and \
                rows[0]["bytes_in_per_second"] > 0
        try:
            wait_until(find, "the open tunnel")
        finally:
            ended.set()
            thread.join()
    wait_until(lambda: not [row for row in top(gateway)["apps"] if row["app_id"] == app.id], "its end")


def test_the_busiest_first_and_the_rest_is_told(gateway, origin):
    apps = [gateway.app(origin()) for _ in range(3)]
    threads = [Traffic(gateway, app) for app in apps]
    for thread in threads:
        thread.__enter__()
    try:
        def find():
            answer = top(gateway, "interval_ms=500&n=1&sort=app")
            return answer["apps_active"] == 3 and answer
        answer = wait_until(find, "three apps")
        assert answer["apps_left_out"] == 2
        assert [row["app_id"] for row in answer["apps"]] == [min(app.id for app in apps)]
    finally:
        for thread in threads:
            thread.__exit__()


@pytest.mark.parametrize("query, field", [("interval_ms=5", "interval_ms"), ("interval_ms=x", "interval_ms"),
                                          ("n=0", "n"), ("sort=size", "sort"), ("what=1", "what")])
def test_wrong_parameters_are_refused(gateway, query, field):
    answer = gateway.control("GET", f"/v1/top?{query}")
    assert answer.status == 400 and answer.json["field"] == field


def test_so_many_at_a_time_and_those_who_leave_are_forgotten(gateway):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.control("GET", "/v1/top?interval_ms=6000").status))
               for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 8 + [503]
    for _ in range(20):
        connection = subprocess.Popen(["curl", "-s", "--unix-socket", gateway.control_path, "--max-time", "0.05",
                                       "http://localhost/v1/top?interval_ms=60000"], stdout=subprocess.DEVNULL)
        assert connection.wait() == 28
    assert top(gateway)["workers"] == 2


# ---- gatewayctl top ----

def test_ctl_once_and_json(gateway, origin):
    app = gateway.app(origin())
    with Traffic(gateway, app) as traffic:
        wait_until(lambda: traffic.count > 5, "traffic")
        once = gateway.gatewayctl("top", "--once", "--sort", "out")
        piped = gateway.gatewayctl("top", "-n", "1")
        answer = json.loads(gateway.gatewayctl("top", "--json", "--count", "5").stdout)
    assert once.returncode == 0 and app.id in once.stdout and "REQ/S" in once.stdout and "requests/s" in once.stdout
    assert piped.returncode == 0 and app.id in piped.stdout
    assert answer["apps"][0]["app_id"] == app.id
    assert gateway.gatewayctl("top", "--sort", "size").returncode == 2
    assert gateway.gatewayctl("top", "--interval", "0").returncode == 2
    assert gateway.gatewayctl("top", "-n", "x").returncode == 2


ENTER, LEAVE = rb"\x1b\[\?1049h\x1b\[\?25l", rb"\x1b\[\?25h\x1b\[\?1049l"


def frame(output):
    """The lines of the last whole screen."""
    return plain(output.rsplit(b"\x1b[H", 1)[1]).split("\r\n")


def open_top(gateway, columns=100, rows=24):
    return Terminal([str(BUILD / "gatewayctl"), "--control", f"unix:{gateway.control_path}", "top"], columns, rows)


def test_ctl_on_a_terminal(gateway, origin):
    app = gateway.app(origin())
    with Traffic(gateway, app), open_top(gateway) as terminal:
        terminal.wait_for(ENTER)
        terminal.wait_for(app.id[:8].encode())
        lines = frame(terminal.wait_for(rb"\x1b\[H.*?sort by requests.*?\x1b\[J"))
        assert lines[3].split()[:2] == ["APP", "REQ/S"] and lines[4].startswith(app.id[:8]), lines
        terminal.type("o").wait_for(rb"sort by out")
        terminal.type("9").wait_for(rb"sort by p99")
        terminal.type("p").wait_for(rb"\x1b\[Hgatewayctl top  [\d:]+  paused")
        terminal.set_size(60, 10)
        terminal.wait_for(rb"\x1b\[H")
        lines = frame(terminal.wait_for(rb"\x1b\[H.*?\x1b\[J"))
        assert len(lines) <= 10 and all(len(line) <= 60 for line in lines), lines
        terminal.type("q")
        assert terminal.wait() == 0
        assert terminal.output.endswith(b"\x1b[?25h\x1b[?1049l") and terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_ctl_gives_the_terminal_back_after_a_signal(gateway, number):
    with open_top(gateway) as terminal:
        terminal.wait_for(ENTER)
        terminal.wait_for(rb"sort by")
        assert not terminal.is_restored()
        terminal.send_signal(number)
        assert terminal.wait() == -number
        assert terminal.output.endswith(b"\x1b[?25h\x1b[?1049l") and terminal.is_restored()


def test_ctl_by_the_interrupt_key_and_stopped_for_a_while(gateway):
    with open_top(gateway) as terminal:
        terminal.wait_for(ENTER)
        terminal.wait_for(rb"sort by")
        terminal.send_signal(signal.SIGTSTP)
        terminal.wait_for(LEAVE)
        wait_until(terminal.is_restored, "the terminal as it was")
        terminal.send_signal(signal.SIGCONT)
        terminal.wait_for(ENTER)
        terminal.wait_for(rb"sort by")
        terminal.type(b"\x03")
        assert terminal.wait() == -signal.SIGINT and terminal.is_restored()


def test_ctl_while_the_gateway_is_away(make_gateway):
    gateway = make_gateway()
    with open_top(gateway) as terminal:
        terminal.wait_for(rb"sort by")
        gateway.stop()
        terminal.wait_for(rb"GATEWAY UNREACHABLE")
        gateway.start()
        terminal.wait_for(rb"\x1b\[Hgatewayctl top  [\d:]+  unix:")
        terminal.type("q")
        assert terminal.wait() == 0
    assert gateway.gatewayctl("top", "--once").returncode == 0
    gateway.stop()
    assert gateway.gatewayctl("top", "--once").returncode == 3


def test_apps_without_traffic_cost_nothing(gateway):
    """Whatever names clients ask for."""
    for _ in range(50):
        gateway.fetch("GET", "/", f"{new_id()}-80.{DOMAIN}")
    answer = top(gateway)
    assert answer["apps"] == [] and answer["apps_active"] == 0

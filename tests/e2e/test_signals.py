"""What each signal does."""
import concurrent.futures
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import h2.settings
import pytest

from custom_certificates import Issuer
from front import open_front
from gateway import BUILD, DOMAIN, ROOT, free_port, new_id
from h2_origin import H2Origin
from origin import OK, respond
from wire import TIMEOUT, Connection, wait_until


class Holder:
    """An origin's answer that waits until it is told to go on."""

    def __init__(self):
        self.go, self.arrived = threading.Event(), threading.Event()

    def __call__(self, connection, request):
        self.arrived.set()
        self.go.wait(60)
        return OK


@pytest.fixture
def holding(make_gateway, origin):
    """A gateway with an exchange in progress: (gateway, app, holder, connection)."""
    gateway, holder = make_gateway(), Holder()
    app = gateway.app(origin(holder))
    connection = gateway.connect(app.host())
    connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    assert holder.arrived.wait(20)
    yield gateway, app, holder, connection
    holder.go.set()
    connection.close()


def is_refused(gateway):
    try:
        gateway.dial().close()
        return False
    except OSError:
        return True


def test_term_drains(holding):
    gateway, app, holder, connection = holding
    with gateway.connect(app.host()) as idle:
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(gateway), "new connections to be refused")
        assert idle.is_closed()
    assert gateway.process.poll() is None
    holder.go.set()
    answer = connection.read_response()
    assert answer.body == b"ok" and answer.get("Connection") == "close"
    assert connection.is_closed()
    assert gateway.wait() == 0


def test_who_is_in_its_handshake_when_the_drain_begins_may_ask(holding):
    """The first request comes with the end of the handshake."""
    gateway, app, holder, connection = holding
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.tls_context().wrap_bio(incoming, outgoing, server_hostname=app.host())
    with gateway.dial() as sock:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(gateway), "new connections to be refused")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))
        tls.write(f"GET / HTTP/1.1\r\nHost: health.{DOMAIN}\r\n\r\n".encode())
        sock.sendall(outgoing.read())
        answer = b""
        while data := sock.recv(65536):
            incoming.write(data)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while piece := tls.read():
                    answer += piece
    assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"draining\n")
    holder.go.set()
    assert connection.read_response().body == b"ok"
    assert gateway.wait() == 0


def test_term_without_traffic_ends_at_once(make_gateway):
    gateway = make_gateway()
    start = time.monotonic()
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(25) == 0
    assert time.monotonic() - start < 25        # the drain deadline is 30 s


def stop_process(gateway):
    def is_stopped(task):
        return (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    gateway.send_signal(signal.SIGSTOP)
    wait_until(lambda: all(map(is_stopped, Path(f"/proc/{gateway.process.pid}/task").iterdir())), "it to stop")


def test_a_socket_file_of_another_gateway_stays(make_gateway):
    first = make_gateway()
    first.control_path.unlink()
    second = make_gateway(start=False, control=[{"unix_socket": str(first.control_path)}])
    second.control_path = first.control_path
    second.start()
    first.stop()
    assert second.control("GET", "/healthz").status == 200
    second.stop()
    assert not second.control_path.exists()


def test_clients_in_the_kernels_queue_are_answered(make_gateway, origin):
    """They connected before the drain, though the gateway has not heard of them."""
    gateway = make_gateway(workers=1)
    app = gateway.app(origin())

    def ask(sock):
        with Connection(gateway.tls_context().wrap_socket(sock, server_hostname=app.host())) as connection:
            return connection.request("GET", "/", app.host()).status, connection.is_closed()
    stop_process(gateway)
    plain = [Connection(gateway.dial(gateway.http_port)) for _ in range(200)]
    for connection in plain:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    clients = [gateway.dial() for _ in range(40)]
    gateway.send_signal(signal.SIGTERM)
    gateway.send_signal(signal.SIGCONT)
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        assert list(pool.map(ask, clients)) == [(200, True)] * len(clients)
    for connection in plain:
        assert connection.read_response().status == 308 and connection.is_closed()
        connection.close()
    assert gateway.wait() == 0


def test_drain_deadline(make_gateway, origin):
    gateway = make_gateway(timeouts={"drain": "1s"})
    holder = Holder()
    app = gateway.app(origin(holder))
    with gateway.connect(app.host()) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        assert holder.arrived.wait(20)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    holder.go.set()


class Chatter:
    """A client that was told to go, and sends byte after byte all the same; as long as the gateway listens."""

    def __init__(self, gateway):
        self.sock, self.sent, self.stop = gateway.dial(gateway.http_port), 0, False
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        while self.sock.recv(4096):
            pass
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stop:
                self.sent += self.sock.send(b"x")
        except OSError:
            self.stop = True
        self.sock.close()


def test_last_bytes_leave_whatever_others_send(make_gateway, origin):
    """The response is complete for the gateway, but its client has yet to take it."""
    body = b"a" * 131072
    gateway = make_gateway(workers=1)
    app = gateway.app(origin(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    sock = socket.socket()
    sock.settimeout(TIMEOUT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)     # so that the kernel takes little
    sock.connect(("127.0.0.1", gateway.port))
    with Connection(gateway.tls_context().wrap_socket(sock, server_hostname=app.host())) as connection:
        connection.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\nConnection: close\r\n\r\n")
        assert gateway.log_line(app_id=app.id)["bytes_out"] == len(body)
        chatter = Chatter(gateway)
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(gateway), "draining")
        seen = chatter.sent
        wait_until(lambda: chatter.stop or chatter.sent > seen + 3000, "many turns")
        assert connection.read_response().body == body
    chatter.stop = True
    chatter.thread.join(TIMEOUT)
    assert gateway.wait() == 0


@pytest.mark.parametrize("front", ["h1", "h2"])
def test_an_app_that_takes_nothing_holds_up_no_end(make_gateway, front):
    """A tunnel has ended on both sides, but bytes for the app wait for its window, which stays closed."""
    gateway = make_gateway()
    app_settings = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
                    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
    server = H2Origin(lambda peer, request: peer.head(request, 200, end=True), early=True, settings=app_settings)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": "h2c"}])
    with open_front(gateway, front, app.host()) as client:
        call = client.tunnel("/socket")
        assert call.head()[0] in (101, 200)
        call.data(b"nobody reads this", end=True)
        gateway.log_line(app_id=app.id)
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(40) == 0
    server.close()


def test_a_slow_client_gets_the_end_of_its_answer(make_gateway, origin):
    """The exchange is over when the gateway has all of it; the client, which takes bytes all the time, has not."""
    gateway = make_gateway()
    size = 6 << 20
    app = gateway.app(origin(respond(b"y" * size)))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(TIMEOUT)
    sock.connect(("127.0.0.1", gateway.port))
    with Connection(gateway.tls_context().wrap_socket(sock, server_hostname=app.host())) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
        taken, slow_until = 0, None
        while taken < size:
            some = client.sock.recv(8192)
            assert some, f"it ends after {taken} of {size} bytes"
            taken += len(some)
            if slow_until is None and gateway.log_lines():
                gateway.send_signal(signal.SIGTERM)
                slow_until = time.monotonic() + 4
            if slow_until is None and size - taken < 4 << 20:
                time.sleep(0.005)       # what it does not take fills the kernel's buffer, then the gateway's queue
            elif slow_until and time.monotonic() < slow_until:
                time.sleep(0.05)
        assert slow_until is not None
    assert gateway.wait(40) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_fast_end(holding, number):
    gateway, _, _, _ = holding
    gateway.send_signal(number)
    assert gateway.wait(20) == 0


def test_int_while_draining(holding):
    gateway, _, _, _ = holding
    gateway.send_signal(signal.SIGTERM)
    wait_until(lambda: is_refused(gateway), "draining")
    gateway.send_signal(signal.SIGINT)
    assert gateway.wait(20) == 0


def test_second_term_does_not_cut_off(holding):
    gateway, _, holder, connection = holding
    for _ in range(3):
        gateway.send_signal(signal.SIGTERM)
    wait_until(lambda: is_refused(gateway), "draining")
    holder.go.set()
    assert connection.read_response().body == b"ok"
    assert gateway.wait() == 0


def test_drain_by_the_control_api(holding):
    gateway, _, holder, connection = holding
    assert gateway.control("POST", "/v1/drain").status == 202
    wait_until(lambda: is_refused(gateway), "new connections to be refused")
    holder.go.set()
    assert connection.read_response().status == 200
    assert gateway.wait() == 0


# ---- control calls in progress ----

UPLOAD = b"".join(b'{"app_id":"app-%d"}\n' % i for i in range(50))


def call(gateway):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    return Connection(sock)


def begin_upload(gateway):
    return call(gateway).send(
        b"PUT /v1/snapshot HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(UPLOAD) + UPLOAD[:200])


def is_gone(gateway):
    """New calls are refused."""
    try:
        call(gateway).close()
        return False
    except OSError:
        return True


def stored(gateway):
    return {json.loads(line)["app_id"] for line in gateway.control("GET", "/v1/snapshot").body.splitlines()}


def test_term_lets_control_calls_end(make_gateway):
    gateway = make_gateway()
    with begin_upload(gateway) as upload, call(gateway) as idle:
        gateway.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        wait_until(lambda: is_gone(gateway), "new calls to be refused")
        answer = upload.send(UPLOAD[200:]).read_response()
        assert answer.status == 200 and answer.get("Connection") == "close" and upload.is_closed()
    assert gateway.wait() == 0
    gateway.start()
    assert len(stored(gateway)) == 50


def test_what_term_leaves_unanswered_is_not_stored(make_gateway):
    """Each call is answered, or its connection refused."""
    gateway, put, calls = make_gateway(), [], 60
    first = threading.Event()

    def ask(number):
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            answer = gateway.put_app({"app_id": f"app-{number}"})
            assert answer.status == 201, answer
            put.append(f"app-{number}")
        first.set()
    with concurrent.futures.ThreadPoolExecutor(calls) as pool:
        asked = [pool.submit(ask, number) for number in range(calls)]
        assert first.wait(TIMEOUT)
        gateway.send_signal(signal.SIGTERM)
        for each in asked:
            each.result()
    assert gateway.wait() == 0
    gateway.start()
    assert stored(gateway) == set(put)


def test_term_ends_streams_in_order(holding):
    """The last lines come before the end."""
    gateway, _, holder, connection = holding
    with call(gateway) as watch, call(gateway) as logs:
        for stream, path in ((watch, "/v1/watch"), (logs, "/v1/logs?follow=1")):
            stream.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert stream.read_head().status == 200
        gateway.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(gateway), "draining")
        holder.go.set()
        assert connection.read_response().body == b"ok"
        pieces = {watch: b"", logs: b""}
        for stream in pieces:
            while piece := stream.read_chunk():
                pieces[stream] += piece
            assert stream.is_closed()
    end = json.loads(pieces[watch].splitlines()[-1])
    assert (end["op"], end["code"]) == ("end", "shutdown")
    assert [json.loads(line)["status"] for line in pieces[logs].split()] == [200]
    assert gateway.wait() == 0


def test_drain_deadline_of_control_calls(make_gateway):
    gateway = make_gateway(timeouts={"drain": "1s"})
    with begin_upload(gateway) as upload:
        gateway.send_signal(signal.SIGTERM)
        assert upload.is_closed()
    assert gateway.wait() == 0
    assert "some control calls did not end in time" in gateway.stderr()


@pytest.mark.parametrize("query", ["", "&follow=1"])
def test_a_stuck_reader_of_logs_holds_up_no_end(make_gateway, query):
    """More is queued for it than sockets take."""
    gateway = make_gateway(timeouts={"drain": "600s"})
    with gateway.connect() as connection:
        for _ in range(150):
            connection.request("GET", "/" + "x" * 3000, f"a.{DOMAIN}")
    wait_until(lambda: len(gateway.log_lines()) == 150, "the log")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(gateway.control_path))
    with Connection(sock) as reader:
        reader.send(f"GET /v1/logs?lines=1000{query} HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reader.read_head().status == 200
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0


@pytest.mark.parametrize("draining", [False, True])
def test_int_waits_for_no_control_call(make_gateway, draining):
    gateway = make_gateway(timeouts={"drain": "1h"})
    with begin_upload(gateway) as upload:
        if draining:
            gateway.send_signal(signal.SIGTERM)
            wait_until(lambda: is_gone(gateway), "new calls to be refused")
        gateway.send_signal(signal.SIGINT)
        assert upload.is_closed()
    assert gateway.wait() == 0


@pytest.mark.parametrize("how", ["signal", "call"])
def test_systemd_is_told_how_long_a_drain_may_take(make_gateway, monkeypatch, tmp_path, how):
    """Else it kills what takes longer than TimeoutStopSec."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(TIMEOUT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        gateway = make_gateway(timeouts={"drain": "5m"})
        if how == "signal":
            gateway.send_signal(signal.SIGTERM)
        else:
            assert gateway.control("POST", "/v1/drain").status == 202
        assert gateway.wait() == 0
        told = b""
        while b"STOPPING=1" not in told.splitlines():
            told = manager.recv(4096)
    assert dict(line.split(b"=") for line in told.splitlines())[b"EXTEND_TIMEOUT_USEC"] == b"315000000"


def test_the_unit_starts_again_only_what_failed():
    """A drained gateway has ended with 0, and stays away; one that aborted or could not start (1) comes back."""
    unit = (ROOT / "conf/phala-gateway.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith(("Restart", "SuccessExit")))
    assert settings["Restart"] == "on-failure"
    assert not settings.keys() & {"RestartForceExitStatus", "RestartPreventExitStatus", "SuccessExitStatus"}


def reload_as_systemd(gateway):
    """Runs the unit's commands until one fails; true if none did."""
    unit = (ROOT / "conf/phala-gateway.service").read_text()
    for line in unit.splitlines():
        if line.startswith("ExecReload="):
            command = line.removeprefix("ExecReload=").replace("/usr/local/bin", str(BUILD))
            command = command.replace("/etc/phala-gateway/gateway.yaml", str(gateway.config_path))
            command = command.replace("$MAINPID", str(gateway.process.pid)).split()
            if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
                return False
    return True


def test_the_unit_says_that_a_reload_was_refused(make_gateway):
    gateway = make_gateway()
    good = gateway.config_path.read_text()
    gateway.config_path.write_text("colour: red\n")
    assert not reload_as_systemd(gateway)
    gateway.config_path.write_text(good)
    assert reload_as_systemd(gateway)
    wait_until(lambda: "reloaded " in gateway.stderr(), "the reload")
    assert "colour" not in gateway.stderr()


def test_a_reload_while_draining_is_refused(holding):
    gateway, _, _, _ = holding
    assert gateway.control("POST", "/v1/drain").status == 202
    wait_until(lambda: is_refused(gateway), "new connections to be refused")
    answer = gateway.control("POST", "/v1/reload")
    assert answer.status == 422 and answer.code == "reload_failed" and "draining" in answer.json["detail"], answer
    assert f"reload: {answer.json['detail']}" in gateway.stderr()


def count_workers(gateway):
    return sum(path.read_text().startswith("worker-")
               for path in Path(f"/proc/{gateway.process.pid}/task").glob("*/comm"))


def test_calls_to_workers_while_one_has_ended(holding, tmp_path):
    """Calls that ask all workers are answered by those that are left."""
    gateway, app, holder, connection = holding
    name = "draining.example.com"
    path, pair = f"/v1/certificates/{name}", Issuer(tmp_path).issue(name)
    assert count_workers(gateway) == 2
    assert gateway.control("POST", "/v1/drain").status == 202
    wait_until(lambda: count_workers(gateway) == 1, "the idle worker to end")
    for method, document, status in [("PUT", pair.document, 201), ("PUT", pair.document, 200), ("DELETE", None, 204)]:
        assert gateway.control(method, path, document).status == status
    assert gateway.resolve(app.host())["instances"]
    assert gateway.process.poll() is None
    holder.go.set()
    assert connection.read_response().status == 200
    assert gateway.wait() == 0


def served_certificate(gateway):
    with gateway.connect(f"a.{DOMAIN}") as connection:
        return ssl.DER_cert_to_PEM_cert(connection.sock.getpeercert(binary_form=True))


def test_hup_reads_new_certificates(make_gateway, authority, origin):
    """New handshakes get the new certificate; what runs goes on."""
    gateway = make_gateway()
    app = gateway.app(origin())
    first, key = authority.issue_domain(DOMAIN, name="renewed")
    gateway.config["base_domains"][0].update(certificate=str(first), private_key=str(key))
    before = served_certificate(gateway)
    with gateway.connect(app.host()) as old:
        old.request("GET", "/", app.host())
        gateway.write_config()
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: served_certificate(gateway) != before, "the new certificate")
        assert served_certificate(gateway) in first.read_text()
        assert old.request("GET", "/", app.host()).status == 200


def test_hup_reads_settings(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    assert gateway.fetch("GET", "/" + "a" * 1000, app.host()).status == 200
    gateway.config["limits"] = {"request_target": 100}
    gateway.write_config()
    gateway.send_signal(signal.SIGHUP)
    wait_until(lambda: gateway.fetch("GET", "/" + "a" * 1000, app.host()).status == 414, "the new limit")


BAD_CONFIGS = {
    "syntax": lambda gateway: gateway.config_path.write_text("base_domains: ["),
    "unknown-key": lambda gateway: gateway.config_path.write_text("colour: red\n"),
    "missing": lambda gateway: gateway.config_path.unlink(),
    "certificate": lambda gateway: gateway.config_path.write_text(gateway.config_path.read_text().replace(
        f"{DOMAIN}.pem", "missing.pem")),
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_hup_with_a_bad_file_keeps_the_old(make_gateway, origin, kind):
    gateway = make_gateway()
    app = gateway.app(origin())
    BAD_CONFIGS[kind](gateway)
    gateway.send_signal(signal.SIGHUP)
    error = wait_until(lambda: gateway.control("GET", "/v1/status").json["last_reload_error"], "the refusal")
    assert gateway.folder.name in error or "missing.pem" in error, error
    assert error.split(":")[0] in gateway.stderr()
    assert gateway.fetch("GET", "/", app.host()).status == 200
    answer = gateway.control("POST", "/v1/reload")
    assert answer.status == 422 and answer.code == "reload_failed"
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200
    assert gateway.control("GET", "/v1/status").json["last_reload_error"] == ""


@pytest.mark.parametrize("protocol", ["http", "h2c"])
def test_a_reload_that_forbids_a_network(make_gateway, origin, protocol):
    """Neither what is pooled nor a client that was there before leads into it any more."""
    gateway = make_gateway(workers=1)
    server = H2Origin(lambda peer, request: peer.head(request, 200, end=True)) if protocol == "h2c" else origin()
    host = gateway.app(server, ports=[{"port": server.port, "protocol": protocol}]).host()
    with contextlib.closing(server), gateway.connect(host) as client:
        assert client.request("GET", "/", host).status == 200
        gateway.config["upstream"]["allow"] = ["10.0.0.0/8"]
        gateway.write_config()
        assert gateway.control("POST", "/v1/reload").status == 200
        for ask in (client.request, gateway.fetch):
            answer = ask("GET", "/", host)
            assert (answer.status, answer.error) == (502, "address_forbidden")


def test_a_reload_does_not_move_listeners(make_gateway, origin):
    """Said, and routes to where the gateway really listens still lead nowhere."""
    gateway = make_gateway()
    app = gateway.app(origin())
    listener = gateway.config["listeners"][0]
    old, (host, port) = listener["address"], listener["address"].rsplit(":", 1)
    listener["address"] = f"{host}:{free_port()}"
    gateway.write_config()
    result = gateway.gatewayctl("reload")
    assert result.returncode == 0 and "listeners changed, which needs a restart" in result.stderr
    assert gateway.control("GET", "/v1/status").json["needs_restart"] == ["listeners"]
    loop = {"app_id": new_id(), "ports": [{"port": int(port)}], "instances": [
        {"instance_id": new_id(), "address": host, "generation": 1, "state": "running"}]}
    if gateway.put_app(loop).status == 201:
        assert gateway.fetch("GET", "/", f"{loop['app_id']}-{port}.{DOMAIN}").error == "address_forbidden"
    assert gateway.fetch("GET", "/", app.host()).status == 200
    listener["address"] = old
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").json["needs_restart"] == []


def test_a_reload_does_not_change_whether_a_proxy_header_comes(make_gateway):
    gateway = make_gateway()
    gateway.config["trusted_proxies"] = ["127.0.0.0/8"]
    gateway.config["listeners"][0]["proxy_protocol"] = "required"
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").json["needs_restart"] == ["listeners"]


def test_a_reload_does_not_change_dns(make_gateway):
    gateway = make_gateway()
    gateway.config["dns"] = {"servers": ["192.0.2.53"]}
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").json["needs_restart"] == ["dns"]
    assert "dns changed; that needs a restart" in gateway.stderr()


def test_many_reloads_under_traffic(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    with gateway.connect(app.host()) as connection:
        for _ in range(10):
            gateway.send_signal(signal.SIGHUP)
            for _ in range(10):
                assert connection.request("GET", "/", app.host()).status == 200
            assert gateway.fetch("GET", "/", app.host()).status == 200


def test_usr2_does_nothing_and_says_so(make_gateway, origin):
    gateway = make_gateway()
    app = gateway.app(origin())
    gateway.send_signal(signal.SIGUSR2)
    wait_until(lambda: "binary upgrade is not supported; nothing done" in gateway.stderr(), "it to be said")
    assert gateway.fetch("GET", "/", app.host()).status == 200


def test_sigpipe_does_no_harm(make_gateway):
    gateway = make_gateway()
    gateway.send_signal(signal.SIGPIPE)
    assert gateway.control("GET", "/healthz").status == 200

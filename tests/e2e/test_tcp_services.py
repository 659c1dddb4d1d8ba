"""Raw TCP inside TLS with the servers and clients that tenants use: PostgreSQL, Redis, SSH; and socat for half-close."""
import getpass
import glob
import hashlib
import os
import pwd
import re
import shutil
import ssl
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from gateway import free_port
from origin import Origin
from service import Service, as_user
from wire import wait_until

PG_USER, PG_BASE = "tenant", "postgres"


def run(command, data=None, status=0, **options):
    """Output of a command that must end well."""
    result = subprocess.run([str(part) for part in command], input=data, capture_output=True, timeout=90, check=False,
                            **({"stdin": subprocess.DEVNULL} if data is None else {}), **options)
    assert result.returncode == status, (command, result.returncode, result.stdout[-2000:], result.stderr[-2000:])
    return result.stdout


@pytest.fixture
def wrapper(gateway):
    """wrapper(host): a port on 127.0.0.1 whose connections go to the gateway inside TLS, by socat."""
    running = []

    def open_(host):
        port = free_port()
        process = subprocess.Popen(["socat", "-t", "20", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr",
                                    socat_client(gateway, host)], stdin=subprocess.DEVNULL, start_new_session=True)
        running.append(process)
        wait_until(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text(encoding="ascii"),
                   "socat to listen")
        return port
    yield open_
    for process in running:
        process.terminate()
        process.wait(20)


def socat_client(gateway, host):
    return f"OPENSSL:127.0.0.1:{gateway.port},snihost={host},commonname={host},cafile={gateway.authority.ca}"


# ---- PostgreSQL ----

@pytest.fixture(scope="module")
def postgres():
    """As root it refuses to run: then it is the package's own user who does, in a folder that this user can reach."""
    binaries = Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    data = folder / "data"
    run(as_user("postgres", [binaries / "initdb", "-D", data, "-U", PG_USER, "--auth=trust", "--no-sync",
                             "-E", "UTF8", "--locale=C"]), cwd=folder)
    server = Service(folder, lambda address, port: [
        str(binaries / "postgres"), "-D", str(data), "-h", address, "-p", str(port), "-k", "", "-F",
        "-c", "shared_buffers=16MB"], "postgres")
    server.binaries = binaries
    yield server
    server.close()
    shutil.rmtree(folder)


def psql(port, *arguments, data=None):
    return run(["psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", *arguments], data, env={
        **os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": PG_USER, "PGDATABASE": PG_BASE,
        "PGSSLMODE": "disable", "PGCONNECT_TIMEOUT": "60"})


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_psql(gateway, postgres, wrapper, protocol):
    """Through a local TLS wrapper: queries, much data out, much data in."""
    app = postgres.app(gateway, protocol)
    port = wrapper(app.host())
    assert psql(port, "-c", "select 6 * 7") == b"42\n"
    assert psql(port, "-c", "copy (select generate_series(1, 200000)) to stdout") == \
        b"".join(b"%d\n" % number for number in range(1, 200_001))
    rows = b"".join(b"%d\t%s\n" % (number, b"x" * 100) for number in range(20_000))
    table = f"t_{protocol}"
    psql(port, "-c", f"create table {table} (number int, text text)")
    psql(port, "-c", f"copy {table} from stdin", data=rows)
    assert psql(port, "-c", f"select count(*), sum(length(text)), sum(number) from {table}") == \
        b"20000|2000000|%d\n" % sum(range(20_000))
    line = gateway.log_line(app_id=app.id)
    assert line["protocol"] == "tcp" and line["bytes_out"] > 0 and "error" not in line


def test_pgbench(gateway, postgres, wrapper):
    """Several connections at once, each a conversation of small messages."""
    port = wrapper(postgres.app(gateway, "tcp").host())
    pgbench = [postgres.binaries / "pgbench", "-h", "127.0.0.1", "-p", port, "-U", PG_USER]
    options = {"env": {**os.environ, "PGSSLMODE": "disable"}}
    run([*pgbench, "-i", "-q", "-s", "1", PG_BASE], **options)
    output = run([*pgbench, "-n", "-c", "8", "-t", "25", PG_BASE], **options)
    assert b"number of transactions actually processed: 200/200" in output


def test_postgres_inside_direct_tls(gateway, postgres):
    """What clients of PostgreSQL 17 do with sslnegotiation=direct: TLS at once, with the ALPN name postgresql."""
    app = postgres.app(gateway, "tcp")
    with gateway.connect(app.host(), gateway.tls_context(alpn=("postgresql",))) as connection:
        assert connection.sock.selected_alpn_protocol() == "postgresql"
        words = b"user\0%s\0database\0%s\0\0" % (PG_USER.encode(), PG_BASE.encode())
        connection.send(struct.pack(">II", len(words) + 8, 196608) + words)
        messages = []

        def read_until_ready():
            del messages[:]
            while not messages or messages[-1][0] != b"Z":
                kind, size = struct.unpack(">cI", connection.read(5))
                messages.append((kind, connection.read(size - 4)))
        read_until_ready()
        assert messages[0] == (b"R", b"\0\0\0\0")
        query = b"select 'direct'\0"
        connection.send(b"Q" + struct.pack(">I", len(query) + 4) + query)
        read_until_ready()
        assert (b"D", b"\0\1\0\0\0\6direct") in messages
        connection.send(b"X\0\0\0\4")
        assert connection.is_closed()


# ---- Redis ----

@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("redis")
    server = Service(folder, lambda address, port: [
        "redis-server", "--bind", address, "--port", str(port), "--save", "", "--appendonly", "no",
        "--dir", str(folder)])
    yield server
    server.close()


@pytest.fixture(params=["tcp", "auto"])
def redis_app(request, gateway, redis):
    return redis.app(gateway, request.param)


def redis_cli(gateway, app, *arguments):
    return ["redis-cli", "--tls", "--sni", app.host(), "--cacert", gateway.authority.ca, "-h", "127.0.0.1",
            "-p", gateway.port, *arguments]


def test_redis(gateway, redis_app):
    assert run(redis_cli(gateway, redis_app, "PING")) == b"PONG\n"
    value = os.urandom(500_000).hex().encode()
    assert run(redis_cli(gateway, redis_app, "-x", "SET", "key"), value) == b"OK\n"
    assert run(redis_cli(gateway, redis_app, "GET", "key")) == value + b"\n"
    wait_until(lambda: any(line.get("app_id") == redis_app.id and line["protocol"] == "tcp"
                           and line["bytes_out"] > 1_000_000 for line in gateway.log_lines()), "the line of the GET")


def test_redis_pipe(gateway, redis_app):
    """Mass insertion: the client writes far ahead of the answers."""
    commands = b"".join(b"*3\r\n$3\r\nSET\r\n$5\r\n%05d\r\n$100\r\n%s\r\n" % (number, b"v" * 100)
                        for number in range(20_000))
    assert b"errors: 0, replies: 20000" in run(redis_cli(gateway, redis_app, "--pipe"), commands)


def test_redis_messages(gateway, redis_app):
    """A subscriber hears what is published as it is published."""
    command = [str(part) for part in redis_cli(gateway, redis_app, "SUBSCRIBE", "news")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as subscriber:
        try:
            assert [subscriber.stdout.readline() for _ in range(3)] == [b"subscribe\n", b"news\n", b"1\n"]
            for number in range(5):
                assert run(redis_cli(gateway, redis_app, "PUBLISH", "news", f"item {number}")) == b"1\n"
                assert [subscriber.stdout.readline() for _ in range(3)] == \
                    [b"message\n", b"news\n", b"item %d\n" % number]
        finally:
            subscriber.terminate()


# ---- SSH ----

@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """For the user who runs the tests, with keys of its own."""
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)     # where sshd confines itself; its service makes it
    (folder / "config").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\nPidFile {folder}/pid\nStrictModes no\n"
        "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n")
    server = Service(folder, lambda address, port: [
        "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config"), "-o", f"ListenAddress={address}:{port}"])
    (folder / "known").write_text("tenant " + (folder / "host.pub").read_text())
    yield server
    server.close()


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_ssh(gateway, sshd, protocol):
    app = sshd.app(gateway, protocol)
    proxy = f"openssl s_client -quiet -verify_return_error -CAfile {gateway.authority.ca} " \
            f"-connect 127.0.0.1:{gateway.port} -servername {app.host()}"
    ssh = ["ssh", "-F", "none", "-T", "-o", f"ProxyCommand={proxy}", "-o", "BatchMode=yes", "-o", "HostKeyAlias=tenant",
           "-o", f"UserKnownHostsFile={sshd.folder / 'known'}", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
           "-i", sshd.folder / "user", f"{getpass.getuser()}@tenant"]
    assert run([*ssh, "echo $((6 * 7))"]) == b"42\n"
    data = os.urandom(3_000_000)
    assert run([*ssh, "sha256sum"], data).split()[0] == hashlib.sha256(data).hexdigest().encode()
    assert run([*ssh, "cat"], data) == data
    run([*ssh, "exit 7"], status=7)
    assert gateway.log_line(app_id=app.id)["protocol"] == "tcp"


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_an_ssh_server_speaks_first(gateway, sshd, protocol):
    """To a client that waits for it. An auto port waits as long for a request, then it is a tunnel."""
    app = sshd.app(gateway, protocol)
    with gateway.connect(app.host(), gateway.tls_context(alpn=())) as connection:
        assert connection.read(8) == b"SSH-2.0-"


# ---- half-close ----

@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_half_close_by_socat(gateway, origin, protocol):
    """The client's end of input reaches the app, whose answer to all of it comes back."""
    def script(connection):
        data = connection.read_rest()
        connection.send(hashlib.sha256(data).hexdigest().encode())
    server = origin(script=script)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": protocol}])
    data = b"\0" + os.urandom(2_000_000)
    digest = run(["socat", "-t", "20", "-", socat_client(gateway, app.host())], data)
    assert digest == hashlib.sha256(data).hexdigest().encode()


@pytest.mark.parametrize("protocol", ["tcp", "auto"])
def test_half_close_by_the_app(gateway, origin, protocol):
    """What the client sends after the app's end still arrives."""
    got = []

    def script(connection):
        assert connection.read(5) == b"\0ping"
        connection.send(b"pong")
        connection.sock.shutdown(1)
        got.append(connection.read_rest())
    server = origin(script=script)
    app = gateway.app(server, ports=[{"port": server.port, "protocol": protocol}])
    with gateway.connect(app.host(), gateway.tls_context(alpn=())) as connection:
        connection.send(b"\0ping")
        assert connection.read_rest() == b"pong"
        connection.send(b"and more")
        connection.sock.unwrap()
        wait_until(lambda: got, "the app to see the end")
    assert got == [b"and more"]

"""Starts the gateway with a configuration of its own on free ports, talks to it from both sides, and stops it."""
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
from pathlib import Path

from wire import TIMEOUT, Connection, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("GATEWAY_BUILD", "build/dev")
DOMAIN, OTHER_DOMAIN = "gw.example", "other.example"
SANITIZER_MARKS = (b"AddressSanitizer", b"LeakSanitizer", b"ThreadSanitizer", b"runtime error:")
ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1:quarantine_size_mb=16:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


_given_ports = set()


def free_port(address="127.0.0.1"):
    """A port below the range that the kernel picks from for outgoing connections, so that it stays free."""
    while True:
        port = 12000 + secrets.randbelow(18000)
        with socket.socket() as sock:
            try:
                sock.bind((address, port))
            except OSError:
                continue
        if port not in _given_ports:
            _given_ports.add(port)
            return port


class Answer:
    """Of the control API."""

    def __init__(self, response):
        self.status = response.status
        self.fields = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        assert self.fields["Content-Type"] == "application/problem+json", (self.status, self.fields.items(), self.body)
        return self.json["code"]

    def __repr__(self):
        return f"<{self.status} {self.body[:400]!r}>"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class App:
    """A registered app: names of its URLs."""

    def __init__(self, gateway, document):
        self.gateway, self.document, self.id = gateway, document, document["app_id"]

    def host(self, port=None, domain=DOMAIN):
        port = port or (self.document["ports"][0]["port"] if self.document.get("ports") else None)
        return f"{self.id}-{port}.{domain}" if port else f"{self.id}.{domain}"

    def put(self, **changes):
        self.document.update(changes)
        answer = self.gateway.put_app(self.document)
        assert answer.status in (200, 201), answer
        return answer


def new_id():
    return secrets.token_hex(20)


class Gateway:
    def __init__(self, folder, authority, **sections):
        self.folder, self.authority = Path(folder), authority
        self.port, self.http_port = free_port(), free_port()
        self.control_path = self.folder / "control.sock"
        self.access_log = self.folder / "access.log"
        self.stderr_path = self.folder / "stderr.log"
        self.config_path = self.folder / "gateway.yaml"
        self.process = None
        self.config = {
            "workers": 2,
            "state_dir": str(self.folder / "state"),
            "base_domains": [self.base_domain(DOMAIN), self.base_domain(OTHER_DOMAIN)],
            "listeners": [{"address": f"127.0.0.1:{self.port}"},
                          {"address": f"127.0.0.1:{self.http_port}", "redirect_to_https": True}],
            "control": [{"unix_socket": str(self.control_path)}],
            "upstream": {"allow": ["127.0.0.0/8"]},
            "access_log": {"path": str(self.access_log), "format": "json"},
            "dns": {"enabled": False},
        }
        self.config.update(sections)
        (self.folder / "state").mkdir(exist_ok=True)

    def base_domain(self, name):
        folder = self.authority.folder
        return {"name": name, "certificate": str(folder / f"{name}.pem"), "private_key": str(folder / f"{name}.key")}

    # ---- life ----

    def write_config(self):
        self.config_path.write_text(json.dumps(self.config, indent=1))      # JSON is YAML

    def command(self, *more):
        return [str(BUILD / "phala-gateway"), "--config", str(self.config_path), *more]

    def start(self, ready=True):
        """ready=False: it need not take requests yet."""
        self.write_config()
        with open(self.stderr_path, "ab") as stderr:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                                            env={**os.environ, **ENVIRONMENT})
        wait_until(lambda: self.is_ready(ready), "the gateway to be ready", 60)
        return self

    def is_ready(self, ready=True):
        assert self.process.poll() is None, f"the gateway has ended:\n{self.stderr()}"
        try:
            return self.control("GET", "/readyz" if ready else "/healthz").status == 200
        except OSError:
            return False

    def check(self):
        """What --check says about the configuration: (exit status, output)."""
        self.write_config()
        result = subprocess.run(self.command("--check"), capture_output=True, text=True, timeout=60, check=False,
                                stdin=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT})
        return result.returncode, result.stdout + result.stderr

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=60):
        """Its exit status, once it has ended."""
        status = self.process.wait(timeout)
        self.process = None
        return status

    def stop(self, number=signal.SIGINT):
        """Ends it, if it still runs; it must end in order, and no sanitizer may have spoken."""
        status = None
        if self.process:
            self.send_signal(number)
            try:
                status = self.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.wait()
                raise
        self.check_sanitizers()
        assert status in (None, 0), f"exit status {status}:\n{self.stderr()[-4000:]}"

    def kill(self):
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stderr(self):
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def check_sanitizers(self):
        text = self.stderr_path.read_bytes() if self.stderr_path.exists() else b""
        for mark in SANITIZER_MARKS:
            assert mark not in text, text[max(0, text.find(mark) - 200):][:8000].decode(errors="replace")

    def rss(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    # ---- control side ----

    def control(self, method, path, body=None, connection=None, **fields):
        connection = connection or UnixConnection(self.control_path)
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            fields.setdefault("Content_Type", "application/json")
        chunked = body is not None and not isinstance(body, (str, bytes))
        if chunked:
            fields["Transfer_Encoding"] = "chunked"
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        try:
            connection.request(method, path, body, headers, encode_chunked=chunked)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def put_app(self, document, **fields):
        return self.control("PUT", f"/v1/apps/{document['app_id']}", document, **fields)

    def app(self, origin=None, **members):
        """Registers an app with one running instance, the origin."""
        document = {"app_id": new_id()}
        if origin:
            document["ports"] = [{"port": origin.port}]
            document["instances"] = [{"instance_id": new_id(), "address": origin.address, "generation": 1,
                                      "state": "running"}]
        document.update(members)
        app = App(self, document)
        app.put()
        return app

    def resolve(self, host):
        return self.control("GET", f"/v1/resolve?host={host}").json

    def gatewayctl(self, *arguments, control_path=None, **options):
        """control_path: another than this gateway's."""
        control = f"unix:{control_path or self.control_path}"
        command = [str(BUILD / "gatewayctl"), "--control", control, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL, **options)

    # ---- public side ----

    def tls_context(self, alpn=("http/1.1",), version=None):
        context = ssl.create_default_context(cafile=self.authority.ca)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def dial(self, port=None, source=None):
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=TIMEOUT,
                                        source_address=source and (source, 0))

    def connect(self, host=None, context=None, session=None, source=None):
        """A TLS connection with this SNI; without a host, none is sent."""
        context = context or self.tls_context()
        if host is None:
            context.check_hostname = False
        sock = self.dial(source=source)
        try:
            return Connection(context.wrap_socket(sock, server_hostname=host, session=session))
        except BaseException:
            sock.close()
            raise

    def fetch(self, method, path, host, body=b"", **fields):
        """One request on a connection of its own."""
        with self.connect(host) as connection:
            return connection.request(method, path, host, body, **fields)

    def curl(self, url, *arguments):
        """curl's output; names are those of the gateway."""
        command = ["curl", "-sS", "--max-time", "60", "--noproxy", "*", "--cacert", str(self.authority.ca),
                   "--connect-to", f"::127.0.0.1:{self.port}", *map(str, arguments), url]
        return subprocess.run(command, capture_output=True, timeout=90, check=False, stdin=subprocess.DEVNULL)

    # ---- logs ----

    def log_lines(self):
        """All whole lines so far."""
        text = self.access_log.read_bytes() if self.access_log.exists() else b""
        return [json.loads(line) for line in text.split(b"\n")[:-1]]

    def log_line(self, **members):
        """The newest line with these members, once it is there."""
        def find():
            for line in reversed(self.log_lines()):
                if all(line.get(name) == value for name, value in members.items()):
                    return line
            return None
        return wait_until(find, f"a line of the access log with {members}")

    def metric(self, name):
        for line in self.control("GET", "/metrics").body.decode().split("\n"):
            key, _, value = line.rpartition(" ")
            if key.split("{")[0].endswith(name) and not line.startswith("#"):
                return float(value)
        raise AssertionError(f"no metric {name}")



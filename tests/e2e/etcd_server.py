"""Starts etcd members on loopback ports, talks to them, and stops them."""
import base64
import json
import signal
import ssl
import subprocess
import urllib.request

from gateway import free_port
from wire import wait_until

PREFIX = "/phala-gateway/"
TIMEOUT = 60


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


class Member:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.port, self.peer_port = free_port(), free_port()
        self.process = None
        self.arguments = []

    def start(self):
        log = open(self.folder / f"{self.name}.log", "ab")
        with log:
            self.process = subprocess.Popen(["etcd", *self.arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait(TIMEOUT)
        self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Etcd:
    """A cluster. With an authority, clients need certificates of it."""

    def __init__(self, folder, count=1, authority=None):
        self.folder, self.authority = folder, authority
        self.members = [Member(folder, f"m{number}") for number in range(count)]
        self.token = None
        cluster = ",".join(f"{member.name}=http://127.0.0.1:{member.peer_port}" for member in self.members)
        for member in self.members:
            url = self.url(member)
            member.arguments = [
                "--name", member.name, "--data-dir", str(folder / member.name), "--log-level", "error",
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--listen-peer-urls", f"http://127.0.0.1:{member.peer_port}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{member.peer_port}",
                "--initial-cluster", cluster, "--initial-cluster-token", folder.name, *self.tls_arguments()]

    def tls_arguments(self):
        if not self.authority:
            return []
        certificate, key = self.authority.issue("etcd", "DNS:localhost,IP:127.0.0.1", usage="serverAuth,clientAuth")
        return ["--cert-file", str(certificate), "--key-file", str(key), "--client-cert-auth",
                "--trusted-ca-file", str(self.authority.ca)]

    def url(self, member):
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{member.port}"

    @property
    def urls(self):
        return [self.url(member) for member in self.members]

    def start(self):
        for member in self.members:
            member.start()
        self.wait()
        return self

    def wait(self):
        wait_until(self.is_up, "etcd", TIMEOUT)

    def is_up(self):
        try:
            for member in self.members:
                if member.process:
                    assert member.process.poll() is None, (self.folder / f"{member.name}.log").read_text()[-2000:]
                    self.call("kv/range", {"key": b64("x")}, member)
            return True
        except OSError:
            return False

    def stop(self):
        for member in self.members:
            member.kill()

    # ---- calls ----

    def ssl_context(self):
        if not self.authority:
            return None
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(*self.authority.issue("etcd-test", "DNS:test", usage="clientAuth"))
        return context

    def call(self, path, body, member=None):
        member = member or next(member for member in self.members if member.process)
        request = urllib.request.Request(f"{self.url(member)}/v3/{path}", json.dumps(body).encode())
        if self.token:
            request.add_header("Authorization", self.token)
        with urllib.request.urlopen(request, timeout=10, context=self.ssl_context()) as response:
            return json.load(response)

    def put(self, key, value, prefix=PREFIX):
        if isinstance(value, dict):
            value = json.dumps(value)
        return int(self.call("kv/put", {"key": b64(prefix + key), "value": b64(value)})["header"]["revision"])

    def put_many(self, values):
        puts = [{"request_put": {"key": b64(PREFIX + key), "value": b64(json.dumps(value))}}
                for key, value in values.items()]
        return int(self.call("kv/txn", {"success": puts})["header"]["revision"])

    def get(self, key, prefix=PREFIX):
        """(value, mod_revision), or None."""
        kvs = self.call("kv/range", {"key": b64(prefix + key)}).get("kvs")
        return (base64.b64decode(kvs[0].get("value", "")), int(kvs[0]["mod_revision"])) if kvs else None

    def keys(self, prefix=PREFIX):
        answer = self.call("kv/range", {"key": b64(prefix), "range_end": b64(prefix[:-1] + "0"), "keys_only": True})
        return [base64.b64decode(kv["key"]).decode()[len(prefix):] for kv in answer.get("kvs", [])]

    def delete(self, key):
        return self.call("kv/deleterange", {"key": b64(PREFIX + key)})

    def compact(self):
        revision = self.call("kv/range", {"key": b64("x")})["header"]["revision"]
        self.call("kv/compaction", {"revision": revision, "physical": True})

    def enable_auth(self, user, password):
        """User root, and one who may only use the prefix."""
        self.call("auth/user/add", {"name": "root", "password": "root-password"})
        self.call("auth/user/grant", {"user": "root", "role": "root"})
        self.call("auth/role/add", {"name": "fleet"})
        self.call("auth/role/grant", {"name": "fleet", "perm": {
            "permType": "READWRITE", "key": b64(PREFIX), "range_end": b64(PREFIX[:-1] + "0")}})
        self.call("auth/user/add", {"name": user, "password": password})
        self.call("auth/user/grant", {"user": user, "role": "fleet"})
        self.call("auth/enable", {})
        self.token = self.call("auth/authenticate", {"name": "root", "password": "root-password"})["token"]


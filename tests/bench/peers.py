"""The gateway and the proxies that it is compared with: how each is told to do the same job.

The job: listen on 127.0.0.1, end TLS 1.3 with one wildcard certificate (session tickets, HTTP/2 and HTTP/1.1), find the
backend of each of the hosts, keep connections to it, add X-Forwarded-For and X-Forwarded-Proto, write a line to the
access log for each request; one worker, no compression, no cache, nothing of a body on disk, no limit on how many
requests a connection has. For passthrough: find the backend by SNI and leave TLS alone. For gRPC: HTTP/2 behind, too.

A target can do what its `features` say: h1, h2, resume (TLS sessions), upgrade (WebSocket), grpc, passthrough, bulk (of
what is passed through, too). Floors do less than the job: they show what of a figure no proxy can avoid.
"""
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from gateway import UnixConnection      # of tests/e2e
from processes import Failure

ALL = frozenset({"h1", "h2", "resume", "upgrade", "grpc", "passthrough", "bulk"})
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"       # not in every user's PATH
IDLE_SECONDS = 300
START_SECONDS = 30
AS_ROOT = os.geteuid() == 0


@dataclass
class Job:
    folder: Path        # of this run of the target: configuration, logs
    port: int
    backend_port: int
    hosts: int
    certificate: Path
    key: Path
    behind: str = "h1"  # what the backend speaks: h1, grpc, or tls, which is passed through
    is_direct: bool = False     # there is no proxy

    @property
    def listens_on(self):
        return self.address(0) if self.is_direct else "127.0.0.1"

    def host(self, number):
        return f"app{number}-{self.backend_port}.cluster.example"

    @staticmethod
    def address(number):
        return f"127.77.{number >> 8}.{number & 255}"

    def routes(self):
        """(host, backend's address and port)"""
        return [(self.host(number), f"{self.address(number)}:{self.backend_port}") for number in range(self.hosts)]

    def write(self, name, text, **values):
        """A file with each <name> in the text replaced; returns its path."""
        values = {"folder": self.folder, "port": self.port, "certificate": self.certificate, "key": self.key,
                  "idle": IDLE_SECONDS, **values}
        path = self.folder / name
        path.write_text(re.sub(r"<(\w+)>", lambda match: str(values[match[1]]), text))
        return path


class Target:
    name = program = None
    features = ALL
    log = "access.log"         # None: it writes none
    is_proxy = True
    is_floor = False
    max_hosts = None            # that it can tell apart; None: all
    adds_fields = True          # X-Forwarded-For and X-Forwarded-Proto

    def path(self):
        """Of the program, or None if it is not installed."""
        return shutil.which(self.program, path=os.environ.get("PATH", "") + SBIN)

    def version(self):
        if self.version_option is None:
            return self.name
        output = subprocess.run([self.path(), self.version_option], capture_output=True, text=True, timeout=20,
                                check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?", output.stdout + output.stderr)
        return f"{self.name} {found[0] if found else '?'}"
    version_option = "--version"

    def command(self, job):
        """Writes the configuration; returns what to run, in the foreground."""
        raise NotImplementedError

    def set_routes(self, job, running):
        """For a target whose configuration does not hold the routes."""


class Gateway(Target):
    name = "gateway"

    def __init__(self, program):
        self.program = str(Path(program).resolve())

    def command(self, job):
        (job.folder / "state").mkdir()
        config = job.write("gateway.yaml", json.dumps({     # JSON is YAML
            "workers": 1, "state_dir": "<folder>/state",
            "base_domains": [{"name": "cluster.example", "certificate": "<certificate>", "private_key": "<key>"}],
            "listeners": [{"address": "127.0.0.1:<port>"}],
            "control": [{"unix_socket": "<folder>/control.sock"}],
            "upstream": {"allow": ["127.77.0.0/16"]},
            "access_log": {"path": "<folder>/access.log", "format": "json"},
            "dns": {"enabled": False}}, indent=1))
        return [self.path(), "--config", config]

    @staticmethod
    def connect(path, running):
        """To the control API, once it listens."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = UnixConnection(path)
            try:
                connection.connect()
                return connection
            except OSError as error:
                connection.close()
                if running.has_ended() or time.monotonic() > deadline:
                    raise Failure(f"the control API: {error}\n{running.errors()}") from error
                time.sleep(0.005)

    def set_routes(self, job, running):
        protocol = {"h1": "http", "grpc": "h2c", "tls": "passthrough"}[job.behind]
        lines = "".join(json.dumps({
            "app_id": f"app{number}", "ports": [{"port": job.backend_port, "protocol": protocol}],
            "instances": [{"instance_id": f"cvm{number}", "address": job.address(number), "generation": 1,
                           "state": "running"}]}) + "\n" for number in range(job.hosts))
        connection = self.connect(job.folder / "control.sock", running)
        try:
            connection.request("PUT", "/v1/snapshot?strict=1", lines, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            if answer.status // 100 != 2:
                raise Failure(f"PUT /v1/snapshot: {answer.status} {answer.read()[:500]}")
        except OSError as error:
            raise Failure(f"the control API: {error}\n{running.errors()}") from error
        finally:
            connection.close()


NGINX = """
daemon off; pid <folder>/nginx.pid; error_log <folder>/error.log error; worker_processes 1; <user> <modules>
events { worker_connections 20000; }
"""
NGINX_HTTP = NGINX + """
http {
    log_format requests '$time_iso8601 $remote_addr $host "$request" $status $body_bytes_sent $request_time '
                        '$upstream_addr';
    access_log <folder>/access.log requests buffer=64k flush=200ms;
    ssl_certificate <certificate>;
    ssl_certificate_key <key>;
    ssl_protocols TLSv1.3;
    ssl_session_tickets on;
    keepalive_timeout <idle>s;
    keepalive_requests 1000000000;
    server_names_hash_max_size 65536;
    server_names_hash_bucket_size 128;
    map_hash_max_size 65536;
    map_hash_bucket_size 128;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    client_body_temp_path <folder>/client_body;
    fastcgi_temp_path <folder>/fastcgi; uwsgi_temp_path <folder>/uwsgi; scgi_temp_path <folder>/scgi;
    proxy_temp_path <folder>/proxy;
    proxy_max_temp_file_size 0;
    proxy_request_buffering off;
    proxy_buffers 16 32k;
    proxy_busy_buffers_size 64k;
    proxy_http_version 1.1;
    proxy_read_timeout <idle>s;
    map $http_upgrade $hop_connection { default upgrade; '' ''; }
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $hop_connection;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    grpc_read_timeout <idle>s;
    grpc_set_header Host $host;
    grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    grpc_set_header X-Forwarded-Proto $scheme;
    server {
        listen 127.0.0.1:<port> ssl http2 default_server backlog=4096;
        <default>
    }
    include <folder>/routes.conf;
}
"""
NGINX_STREAM = NGINX + """
stream {
    log_format connections '$time_iso8601 $remote_addr $ssl_preread_server_name $status $bytes_sent $session_time';
    access_log <folder>/access.log connections buffer=64k flush=200ms;
    map_hash_max_size 65536;
    map_hash_bucket_size 128;
    map $ssl_preread_server_name $destination { include <folder>/routes.conf; }
    server {
        listen 127.0.0.1:<port> backlog=4096;
        ssl_preread on;
        proxy_timeout <idle>s;
        proxy_pass $destination;
    }
}
"""


class Nginx(Target):
    """A server block for each host: the cheaper one for requests."""
    name = program = "nginx"
    version_option = "-v"
    stream_module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

    @property
    def features(self):
        return ALL if self.stream_module.exists() else ALL - {"passthrough"}

    @staticmethod
    def pool(name, address):
        return (f"upstream {name} {{ server {address}; keepalive 256; keepalive_timeout {IDLE_SECONDS}s; "
                "keepalive_requests 1000000000; }\n")

    @staticmethod
    def pass_to(job, pool):
        return f"location / {{ {'grpc_pass grpc' if job.behind == 'grpc' else 'proxy_pass http'}://{pool}; }}"

    def http_routes(self, job):
        """(the content of routes.conf, what the default server does)"""
        blocks = (self.pool(f"pool{number}", address) +
                  f"server {{ listen 127.0.0.1:{job.port} ssl http2; server_name {host}; "
                  f"{self.pass_to(job, f'pool{number}')} }}\n"
                  for number, (host, address) in enumerate(job.routes()))
        return "".join(blocks), "return 404;"

    def command(self, job):
        user = "user root;" if AS_ROOT else ""
        if job.behind == "tls":
            job.write("routes.conf", "".join(f"{host} {address};\n" for host, address in job.routes()))
            config = job.write("nginx.conf", NGINX_STREAM, user=user, modules=f"load_module {self.stream_module};")
        else:
            routes, default = self.http_routes(job)
            job.write("routes.conf", routes)
            config = job.write("nginx.conf", NGINX_HTTP, user=user, modules="", default=default)
        return [self.path(), "-e", job.folder / "error.log", "-c", config]


class NginxMap(Nginx):
    """One server block for all, with a map from host to pool: the cheaper one for handshakes."""
    name = "nginx-map"
    features = ALL - {"passthrough"}

    def http_routes(self, job):
        pools = [(host, f"pool{number}", address) for number, (host, address) in enumerate(job.routes())]
        entries = "".join(f"{host} {pool};\n" for host, pool, _ in pools)
        return ("".join(self.pool(pool, address) for _, pool, address in pools) +
                f"map $host $pool {{ {entries} }}\n",
                "if ($pool = '') { return 404; } " + self.pass_to(job, "$pool"))


HAPROXY = """
global
    nbthread 1
    maxconn 15000
    no strict-limits
    log stdout format raw local0 info
    ssl-default-bind-options ssl-min-ver TLSv1.3
    <buffers>
defaults
    mode <mode>
    log global
    option <log>
    timeout connect 5s
    timeout client <idle>s
    timeout server <idle>s
    timeout tunnel <idle>s
"""
HAPROXY_HTTP = HAPROXY + """
    timeout http-keep-alive <idle>s
    http-reuse always
frontend hosts
    bind 127.0.0.1:<port> backlog 4096 ssl crt <folder>/certificate.pem alpn h2,http/1.1
    http-request set-var(txn.place) req.hdr(host),field(1,:),lower,map_str(<folder>/routes.map)
    http-request return status 404 unless { var(txn.place) -m found }
    option forwardfor
    http-request set-header X-Forwarded-Proto https
    default_backend apps
backend apps
    http-request set-dst var(txn.place),field(1,:)
    http-request set-dst-port var(txn.place),field(2,:)
    server app 0.0.0.0:0 pool-low-conn 10000 pool-purge-delay <idle>s <proto>
"""
HAPROXY_TCP = HAPROXY + """
frontend hosts
    bind 127.0.0.1:<port> backlog 4096
    tcp-request inspect-delay 5s
    tcp-request content set-var(sess.place) req.ssl_sni,lower,map_str(<folder>/routes.map) if { req.ssl_hello_type 1 }
    tcp-request content accept if { var(sess.place) -m found }
    tcp-request content reject if WAIT_END
    default_backend apps
backend apps
    tcp-request content set-dst var(sess.place),field(1,:)
    tcp-request content set-dst-port var(sess.place),field(2,:)
    server app 0.0.0.0:0
"""


class Haproxy(Target):
    name = program = "haproxy"
    version_option = "-v"
    log = "haproxy.stdout"

    def command(self, job):
        job.write("routes.map", "".join(f"{host} {address}\n" for host, address in job.routes()))
        job.write("certificate.pem", job.certificate.read_text() + job.key.read_text())
        if job.behind == "tls":
            config = job.write("haproxy.cfg", HAPROXY_TCP, mode="tcp", log="tcplog", buffers="tune.bufsize 65536")
        else:
            config = job.write("haproxy.cfg", HAPROXY_HTTP, mode="http", log="httplog", buffers="",
                               proto="proto h2" if job.behind == "grpc" else "")
        return [self.path(), "-db", "-f", config]


NGHTTPX = """
frontend=127.0.0.1,<port>
single-thread=yes
workers=1
backlog=4096
no-ocsp=yes
certificate-file=<certificate>
private-key-file=<key>
tls-min-proto-version=TLSv1.3
accesslog-file=<folder>/access.log
errorlog-file=<folder>/error.log
add-x-forwarded-for=yes
frontend-http2-max-concurrent-streams=256
frontend-keep-alive-timeout=<idle>
frontend-read-timeout=<idle>
frontend-write-timeout=<idle>
frontend-http2-read-timeout=<idle>
backend-keep-alive-timeout=<idle>
backend-read-timeout=<idle>
backend=127.0.0.1,1
include=<folder>/routes.conf
"""


class Nghttpx(Target):
    name = program = "nghttpx"
    features = ALL - {"passthrough"}

    def command(self, job):
        proto = "h2" if job.behind == "grpc" else "http/1.1"
        job.write("routes.conf", "".join(f"backend={address.replace(':', ',')};{host}/;proto={proto}\n"
                                         for host, address in job.routes()))
        return [self.path(), f"--conf={job.write('nghttpx.conf', NGHTTPX)}"]


H2O = """
listen:
  host: 127.0.0.1
  port: <port>
  ssl: {certificate-file: <certificate>, key-file: <key>, ocsp-update-interval: 0}
<user>
num-threads: 1
max-connections: 15000
pid-file: <folder>/h2o.pid
access-log: <folder>/access.log
error-log: <folder>/error.log
http1-request-timeout: <idle>
http2-idle-timeout: <idle>
limit-request-body: 4294967296
proxy.preserve-host: ON
proxy.timeout.keepalive: <idle>000
proxy.timeout.io: <idle>000
proxy.websocket: ON
proxy.websocket.timeout: <idle>000
hosts:
<hosts>
"""


class H2o(Target):
    name = program = "h2o"
    features = ALL - {"resume", "grpc", "passthrough"}

    def command(self, job):
        hosts = "".join(f'  "{host}": {{paths: {{"/": {{proxy.reverse.url: "http://{address}/"}}}}}}\n'
                        for host, address in job.routes())
        config = job.write("h2o.yaml", H2O, hosts=hosts, user="user: root" if AS_ROOT else "")
        return [self.path(), "-m", "worker", "-c", config]


# ---- floors ----

class NoProxy(Target):
    """The backend, asked itself: what remains of a figure when nothing is in between."""
    name = "no-proxy"
    features = frozenset({"h1"})
    log = None
    version_option = None       # it is part of this benchmark
    is_proxy = False
    is_floor = True
    max_hosts = 1

    def __init__(self, tools):
        self.program = str(Path(tools).resolve() / "bench_backend")

    def command(self, job):
        return [self.program, "--port", job.port, "--hosts", job.hosts, "--tls", job.certificate, job.key]


HITCH = """
frontend = "[127.0.0.1]:<port>"
backend = "[<backend>]:<backend_port>"
pem-file = "<folder>/certificate.pem"
alpn-protos = "http/1.1"
tls-protos = TLSv1.3
workers = 1
backlog = 4096
daemon = off
<user>
keepalive = <idle>
log-level = 0
"""


class Hitch(Target):
    """TLS for one backend, without HTTP, routes, and log: two sockets and two AES passes, as in any proxy."""
    name = program = "hitch"
    features = frozenset({"h1"})
    log = None
    is_floor = True
    max_hosts = 1
    adds_fields = False

    def command(self, job):
        job.write("certificate.pem", job.certificate.read_text() + job.key.read_text())
        config = job.write("hitch.conf", HITCH, backend=job.address(0), backend_port=job.backend_port,
                           user='user = "nobody"' if AS_ROOT else "")
        return [self.path(), f"--config={config}"]


class Relay(Target):
    """The least that passes TLS through, by SNI and with half-closed connections (relay.c)."""
    name = "relay"
    features = frozenset({"passthrough"})
    version_option = None
    is_floor = True

    def __init__(self, tools):
        self.program = str(Path(tools).resolve() / "bench_relay")

    def command(self, job):
        return [self.program, "--port", job.port, "--backend-port", job.backend_port, "--log", job.folder / self.log]


PEERS = [Nginx(), NginxMap(), Haproxy(), Nghttpx(), H2o()]

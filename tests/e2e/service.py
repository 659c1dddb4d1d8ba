"""Servers from Debian's packages that play tenants' apps: started by a test, on a loopback address of their own, with
their data in a folder of the test; they end with it."""
import os
import socket
import subprocess

from gateway import free_port, new_id
from origin import new_address
from wire import wait_until


NGINX = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
    access_log off; client_max_body_size 0; keepalive_requests 100000;
    {temporary}
    server {{ %s }}
}}
"""


class Service:
    """`command(address, port)` is what to run in the foreground. Where the tests run as root and the server refuses
    to, `user` names who runs it."""

    def __init__(self, folder, command, user=None, address=None):
        self.folder, self.registered = folder, None
        self.address = address or new_address()
        self.port = free_port(self.address)
        self.log_path = folder / "service.log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(as_user(user, command(self.address, self.port)), cwd=folder,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(self.is_up, f"{self.process.args[0]} to listen", 60)
        except BaseException:
            self.close()
            raise

    def is_up(self):
        assert self.process.poll() is None, f"{self.process.args} has ended:\n{self.log()}"
        try:
            socket.create_connection((self.address, self.port), 5).close()
            return True
        except OSError:
            return False

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def app(self, gateway, protocol="auto"):
        """A new app with this server as its instance; the one before gives the address up."""
        if self.registered:
            assert gateway.control("DELETE", f"/v1/apps/{self.registered.id}").status in (200, 204)
        self.registered = gateway.app(ports=[{"port": self.port, "protocol": protocol}], instances=[
            {"instance_id": new_id(), "address": self.address, "generation": 1, "state": "running"}])
        return self.registered

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(20)


def as_user(user, command):
    """The command, run by this user if the tests run as root."""
    if user is None or os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]


def start_nginx(folder, server):
    """With this content of its server block, in which {address}, {port} and {folder} are filled in."""
    def command(address, port):
        temporary = " ".join(f"{name}_temp_path {folder}/{name};"
                             for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text((NGINX % server).format(
            folder=folder, address=address, port=port, temporary=temporary,
            user="user root;" if os.geteuid() == 0 else ""))
        return ["/usr/sbin/nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    return Service(folder, command)

"""An address moves to another app while traffic runs: nothing of the new owner may reach the old one's clients."""
import json
import threading

from gateway import App, new_id
from origin import Origin, new_address
from wire import wait_until

SECRET = b"secret-of-the-new-owner"


class Machine(Origin):
    """What answers at the address, before and after it was given to another app."""

    def __init__(self):
        self.moved = threading.Event()
        self.new_requests = []
        super().__init__(script=self.play)

    def play(self, connection):
        """Paths say what to do; from the move on, every byte that it sends is the new owner's."""
        while True:
            request = connection.read_request()
            if self.moved.is_set():
                self.new_requests.append((connection, request))
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(SECRET), SECRET))
            elif request.target == "/quick":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
            elif request.target == "/tunnel":
                connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nold")
                self.moved.wait(60)
                connection.send(SECRET)
                connection.read_rest()
            else:
                if request.target == "/started":
                    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n")
                else:
                    assert request.target == "/waiting"
                self.moved.wait(60)
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(SECRET), SECRET))


def owner(machine, generation, state="running"):
    return {"app_id": new_id(), "ports": [{"port": machine.port}], "instances": [
        {"instance_id": new_id(), "address": machine.address, "generation": generation, "state": state}]}


def start_traffic(gateway, app, machine):
    """One exchange that waits for its head, one in the middle of its body, one tunnel, and pooled connections."""
    for _ in range(8):
        assert gateway.fetch("GET", "/quick", app.host()).body == b"old"
    waiting, started, tunnel = (gateway.connect(app.host()) for _ in range(3))
    waiting.send(f"GET /waiting HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    started.send(f"GET /started HTTP/1.1\r\nHost: {app.host()}\r\n\r\n")
    tunnel.send(f"GET /tunnel HTTP/1.1\r\nHost: {app.host()}\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
    assert started.read_head().status == 200 and started.read_chunk() == b"old"
    assert tunnel.read_response().status == 101 and tunnel.read(3) == b"old"
    wait_until(lambda: b"/waiting" in machine.seen, "the request to arrive")
    return waiting, started, tunnel


def assert_nothing_leaks(machine, traffic):
    """Every old client is cut off; what it received has nothing of the new owner in it."""
    waiting, started, tunnel = traffic
    old = list(machine.connections)
    machine.moved.set()
    answer = waiting.read_response()
    assert answer.status in (502, 503) and answer.error
    started.read_rest()
    tunnel.read_rest()
    for connection in traffic:
        assert SECRET not in connection.received
        connection.close()
    wait_until(lambda: all(connection.sock.fileno() == -1 for connection in old), "the old connections to be closed")
    return old


def test_address_moves_to_another_app(gateway):
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    traffic = start_traffic(gateway, app, machine)
    successor = gateway.app(**owner(machine, 2))
    old = assert_nothing_leaks(machine, traffic)
    assert gateway.fetch("GET", "/quick", app.host()).status == 503
    for _ in range(8):
        assert gateway.fetch("GET", "/quick", successor.host()).body == SECRET
    assert machine.new_requests
    for connection, request in machine.new_requests:
        assert connection not in old and request.get("Host") == successor.host()
    machine.close()


def test_app_is_deleted(gateway):
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    traffic = start_traffic(gateway, app, machine)
    assert gateway.control("DELETE", f"/v1/apps/{app.id}").status == 204
    assert_nothing_leaks(machine, traffic)
    assert gateway.fetch("GET", "/quick", app.host()).status == 404
    machine.close()


def test_instance_stops(gateway):
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    traffic = start_traffic(gateway, app, machine)
    instance = app.document["instances"][0]
    gateway.control("PATCH", f"/v1/apps/{app.id}/instances/{instance['instance_id']}", {"state": "stopped"})
    assert_nothing_leaks(machine, traffic)
    machine.close()


def test_instance_boots_again(gateway):
    """A newer generation of the same instance is another machine: its connections are new ones."""
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    traffic = start_traffic(gateway, app, machine)
    instance = app.document["instances"][0]
    app.put(instances=[{**instance, "generation": 2}])
    old = assert_nothing_leaks(machine, traffic)
    assert gateway.fetch("GET", "/quick", app.host()).body == SECRET
    assert all(connection not in old for connection, _ in machine.new_requests)
    machine.close()


def test_instance_comes_to_another_app(gateway):
    """In one batch, with the same generation and address: what the old app's clients have open ends all the same."""
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    traffic = start_traffic(gateway, app, machine)
    successor = {**app.document, "app_id": new_id()}
    lines = [{"op": "delete", "app_id": app.id}, {"op": "put", "app": successor}]
    answer = gateway.control("POST", "/v1/changes", "".join(json.dumps(line) + "\n" for line in lines))
    assert answer.json["applied"] == 2
    old = assert_nothing_leaks(machine, traffic)
    assert gateway.fetch("GET", "/quick", App(gateway, successor).host()).body == SECRET
    assert all(connection not in old for connection, _ in machine.new_requests)
    machine.close()


def test_unrelated_change_disturbs_nobody(gateway):
    """A change touches only the traffic of its own app; an equal claim goes on."""
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    waiting, started, tunnel = start_traffic(gateway, app, machine)
    before = len(machine.connections)
    for _ in range(5):
        gateway.app(**{**owner(machine, 1), "instances": [
            {"instance_id": new_id(), "address": new_address(), "generation": 1, "state": "running"}]})
    app.put(ports=[{"port": machine.port}, {"port": machine.port % 60000 + 1}])
    for connection in (waiting, started, tunnel):
        assert connection.is_silent(0.3)
    assert gateway.fetch("GET", "/quick", app.host()).body == b"old"
    assert len(machine.connections) <= before + 1       # a worker may open its first one
    machine.moved.set()
    assert waiting.read_response().body == SECRET
    for connection in (waiting, started, tunnel):
        connection.close()
    machine.close()


def test_draining_finishes_what_it_has(gateway):
    machine = Machine()
    app = gateway.app(**owner(machine, 1))
    waiting, started, tunnel = start_traffic(gateway, app, machine)
    instance = app.document["instances"][0]
    app.put(instances=[{**instance, "state": "draining"}])
    assert gateway.fetch("GET", "/quick", app.host()).status == 503
    machine.moved.set()
    assert waiting.read_response().body == SECRET
    assert tunnel.read(len(SECRET)) == SECRET
    for connection in (waiting, started, tunnel):
        connection.close()
    machine.close()

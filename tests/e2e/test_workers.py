"""Several workers: all of them serve, and load is spread."""
import os
import threading

import pytest

from origin import OK


@pytest.fixture(scope="module")
def four(tmp_path_factory, authority):
    from gateway import Gateway
    gateway = Gateway(tmp_path_factory.mktemp("four"), authority, workers=4).start()
    yield gateway
    gateway.stop()


def listening_sockets(gateway):
    """How many sockets of the process listen on its public port."""
    inodes = set()
    for link in os.scandir(f"/proc/{gateway.process.pid}/fd"):
        try:
            target = os.readlink(link.path)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    with open(f"/proc/{gateway.process.pid}/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return len([row for row in rows if row[3] == "0A" and row[9] in inodes
                and int(row[1].split(":")[1], 16) == gateway.port])


def test_one_listener_a_worker(four):
    assert listening_sockets(four) == 4
    assert four.control("GET", "/v1/status").json["workers"] == 4


def test_connections_are_spread(four, origin):
    """Each worker has its own pool: requests one after the other use one upstream connection a worker."""
    server = origin()
    app = four.app(server)
    context = four.tls_context()
    for _ in range(120):
        with four.connect(app.host(), context) as connection:
            assert connection.request("GET", "/", app.host()).status == 200
    assert len(server.connections) == 4
    shares = [bytes(connection.received).count(b"GET / HTTP/1.1") for connection in server.connections]
    assert sum(shares) == 120 and min(shares) >= 8, shares


def test_parallel_clients(four, origin):
    """Many connections at once, each answer to its own question."""
    server = origin(lambda connection, request: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
        len(request.target), request.target.encode()))
    app = four.app(server)
    context = four.tls_context()
    failures = []

    def run(number):
        try:
            with four.connect(app.host(), context) as connection:
                for turn in range(20):
                    path = f"/{number}/{turn}"
                    assert connection.request("GET", path, app.host()).body == path.encode()
        except Exception as error:      # pylint: disable=broad-except
            failures.append(error)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and len(server.requests) == 800


def test_changes_reach_all_workers_before_the_answer(four, origin):
    """An acknowledged change is visible: no worker may still serve the old state."""
    server = origin(OK)
    app = four.app(server)
    connections = [four.connect(app.host()) for _ in range(24)]
    record = app.document["instances"][0]
    for state, status in [("stopped", 503), ("running", 200)] * 5:
        app.put(instances=[{**record, "state": state}])
        for connection in connections:
            assert connection.request("GET", "/", app.host()).status == status
    for connection in connections:
        connection.close()

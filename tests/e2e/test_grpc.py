"""gRPC with its own client and server (python3-grpcio): every kind of call through every kind of name."""
import os
import queue
import threading
from concurrent import futures

import grpc
import pytest

from certificates import Authority
from gateway import DOMAIN, free_port, new_id
from h2_client import H2Client
from origin import new_address
from wire import wait_until

BIG = 16 << 20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
WAIT = 30


class Service(grpc.GenericRpcHandler):
    """Messages are plain bytes: no generated code. What calls of it saw is kept by the value of their `call` field."""

    def __init__(self):
        self.seen = {}

    def see(self, call, what, value=True):
        name = dict(call.invocation_metadata()).get("call", "")
        self.seen.setdefault(name, {})[what] = value

    def watch_end(self, call):
        ended = threading.Event()
        call.add_callback(ended.set)
        self.see(call, "ended", ended)
        return ended

    def service(self, details):
        kinds = {"echo": (grpc.unary_unary_rpc_method_handler, self.echo),
                 "count": (grpc.unary_stream_rpc_method_handler, self.count),
                 "sum": (grpc.stream_unary_rpc_method_handler, self.sum),
                 "talk": (grpc.stream_stream_rpc_method_handler, self.talk),
                 "fail": (grpc.unary_unary_rpc_method_handler, self.fail),
                 "fail_late": (grpc.unary_stream_rpc_method_handler, self.fail_late),
                 "wait": (grpc.unary_unary_rpc_method_handler, self.wait)}
        package, _, method = details.method.rpartition("/")
        if package != "/test.Service" or method not in kinds:
            return None
        wrap, function = kinds[method]
        return wrap(function)

    def echo(self, message, call):
        fields = dict(call.invocation_metadata())
        self.see(call, "fields", fields)
        call.send_initial_metadata((("first", "one"), ("data-bin", bytes(range(256)))))
        call.set_trailing_metadata((("last", "two"), ("last-bin", b"\0\xff")))
        return message

    def count(self, message, call):
        """Numbers up to the one asked for; each waits for `go`, if there is one."""
        go = self.seen.get(dict(call.invocation_metadata()).get("call", ""), {}).get("go")
        self.watch_end(call)
        for number in range(int(message)):
            if go:
                go.get(timeout=WAIT)
            yield b"%d" % number

    def sum(self, messages, _):
        return b"%d" % sum(len(message) for message in messages)

    def talk(self, messages, call):
        self.watch_end(call)
        for message in messages:
            yield message.upper()

    def fail(self, _, call):
        call.set_trailing_metadata((("why", "asked to"),))
        call.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer: 100% wrong")

    def fail_late(self, _, call):
        yield b"part"
        call.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")

    def wait(self, _, call):
        self.see(call, "remaining", call.time_remaining())
        self.watch_end(call).wait(WAIT)
        return b"late"


@pytest.fixture(scope="module")
def service():
    made = Service()
    made.address = new_address()
    made.port = free_port(made.address)
    server = grpc.server(futures.ThreadPoolExecutor(32), handlers=(made,),
                         options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
    assert server.add_insecure_port(f"{made.address}:{made.port}") == made.port
    server.start()
    yield made
    server.stop(None).wait(WAIT)


@pytest.fixture(scope="module")
def hosts(gateway, service):
    """One app, and the ways to tell that it speaks gRPC. Its address has one owner: ports of one app."""
    instance = [{"instance_id": new_id(), "address": service.address, "generation": 1, "state": "running"}]
    app = gateway.app(ports=[{"port": service.port}], instances=instance)
    yield {"auto": app.host(), "g": f"{app.id}-{service.port}g.{DOMAIN}", "app": app}


@pytest.fixture(params=["h2c", "g", "auto"])
def kind(request):
    return request.param


@pytest.fixture
def host(kind, hosts, service):
    """The name under which the service is reached; the port's protocol is what `kind` says."""
    hosts["app"].put(ports=[{"port": service.port, "protocol": "h2c" if kind == "h2c" else "auto"}])
    return hosts["g" if kind == "g" else "auto"]


def open_channel(gateway, host, authority=None):
    credentials = grpc.ssl_channel_credentials((authority or gateway.authority).ca.read_bytes())
    return grpc.secure_channel(f"127.0.0.1:{gateway.port}", credentials, options=[
        *UNLIMITED, ("grpc.ssl_target_name_override", host), ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1)])


@pytest.fixture
def channel(gateway, host):
    with open_channel(gateway, host) as opened:
        yield opened


def ask(channel, method, message, **options):
    return channel.unary_unary(f"/test.Service/{method}")(message, timeout=WAIT, **options)


def failure(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value


def test_unary_with_metadata(gateway, service, channel, host):
    call = new_id()
    answer, done = channel.unary_unary("/test.Service/echo").with_call(
        b"hello", timeout=WAIT, metadata=(("call", call), ("own", "value"), ("own-bin", b"\0\1\xff")))
    assert answer == b"hello" and done.code() == grpc.StatusCode.OK
    assert dict(done.initial_metadata())["first"] == "one"
    assert dict(done.initial_metadata())["data-bin"] == bytes(range(256))
    assert {"last": "two", "last-bin": b"\0\xff"}.items() <= dict(done.trailing_metadata()).items()
    fields = service.seen[call]["fields"]
    assert fields["own"] == "value" and fields["own-bin"] == b"\0\1\xff" and fields["x-forwarded-for"] == "127.0.0.1"
    line = gateway.log_line(host=host, path="/test.Service/echo")
    assert line["status"] == 200 and line["protocol"] == "h2" and line["back_protocol"] == "h2c"


@pytest.mark.parametrize("size", [0, 1, 16379, 16384, 65535, BIG])
def test_messages_of_all_sizes(channel, size):
    message = os.urandom(size)
    assert ask(channel, "echo", message) == message


def test_many_calls_at_once(channel):
    echo = channel.unary_unary("/test.Service/echo")
    calls = [echo.future(b"%d" % number * 1000, timeout=WAIT) for number in range(100)]
    for number, call in enumerate(calls):
        assert call.result() == b"%d" % number * 1000


def test_server_streaming(channel, service):
    """Each message is there before the next one is sent."""
    call, go = new_id(), queue.Queue()
    service.seen[call] = {"go": go}
    answers = channel.unary_stream("/test.Service/count")(b"20", timeout=WAIT, metadata=(("call", call),))
    for number in range(20):
        go.put(True)
        assert next(answers) == b"%d" % number
    assert not list(answers) and answers.code() == grpc.StatusCode.OK


def test_server_streaming_of_much(channel):
    answers = channel.unary_stream("/test.Service/count")(b"2000", timeout=WAIT)
    assert list(answers) == [b"%d" % number for number in range(2000)]


def test_client_streaming(channel):
    total = channel.stream_unary("/test.Service/sum")((bytes(50_000) for _ in range(100)), timeout=WAIT)
    assert total == b"5000000"


def test_both_streaming(channel):
    """A conversation: every message has its answer before the next one is said."""
    said = queue.Queue()
    answers = channel.stream_stream("/test.Service/talk")(iter(said.get, None), timeout=WAIT)
    for number in range(50):
        said.put(b"word %d" % number)
        assert next(answers) == b"WORD %d" % number
    said.put(None)
    assert not list(answers) and answers.code() == grpc.StatusCode.OK


def test_cancel_reaches_the_server(gateway, service, channel, host):
    call, said = new_id(), queue.Queue()
    answers = channel.stream_stream("/test.Service/talk")(iter(said.get, None), metadata=(("call", call),))
    said.put(b"one")
    assert next(answers) == b"ONE"
    answers.cancel()
    said.put(None)
    assert service.seen[call]["ended"].wait(WAIT)
    wait_until(lambda: any(line.get("error") == "client_cancelled" and line["host"] == host
                           for line in gateway.log_lines()), "the line of the access log")


def test_deadline(service, channel):
    call = new_id()
    error = failure(channel.unary_unary("/test.Service/wait"), b"", timeout=0.98, metadata=(("call", call),))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED    # which gRPC rounds up, by 10 ms at most, when it writes it
    assert service.seen[call]["remaining"] <= 1 and service.seen[call]["ended"].wait(WAIT)


def test_status_without_a_message(channel):
    error = failure(ask, channel, "fail", b"")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "größer: 100% wrong"
    assert dict(error.trailing_metadata())["why"] == "asked to"


def test_status_behind_a_message(channel):
    answers = channel.unary_stream("/test.Service/fail_late")(b"", timeout=WAIT)
    assert next(answers) == b"part"
    error = failure(next, answers)
    assert error.code() == grpc.StatusCode.DATA_LOSS and error.details() == "lost the rest"


def test_trailers_only(gateway, host):
    """What the server sends for an unknown method: one head with the status in it, which also ends the stream."""
    with H2Client(gateway, host) as client:
        number = client.send("POST", "/test.Service/none", ("content-type", "application/grpc"), ("te", "trailers"),
                             end=False)
        client.data(number, bytes(5), end=True)
        answer = client.response(number)
    assert answer.status == 200 and answer.fields["grpc-status"] == "12" and answer.ended
    assert not answer.body and not answer.trailers


def test_tls_that_ends_in_the_server(gateway, tmp_path):
    """An s name: the server has a certificate of its own, and the gateway sees nothing of the calls."""
    tenant = Authority(tmp_path)
    certificate, key = tenant.issue_domain(DOMAIN)
    address = new_address()
    port = free_port(address)
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Service(),), options=UNLIMITED)
    server.add_secure_port(f"{address}:{port}", grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())]))
    server.start()
    app = gateway.app(ports=[{"port": port}], instances=[
        {"instance_id": new_id(), "address": address, "generation": 1, "state": "running"}])
    host = f"{app.id}-{port}s.{DOMAIN}"
    try:
        with open_channel(gateway, host, tenant) as channel:
            message = os.urandom(1 << 20)
            assert ask(channel, "echo", message) == message
            answers = channel.unary_stream("/test.Service/count")(b"20", timeout=WAIT)
            assert list(answers) == [b"%d" % number for number in range(20)]
    finally:
        server.stop(None).wait(WAIT)
    assert gateway.log_line(host=host)["protocol"] == "passthrough"


# ---- errors of the gateway's own ----

def test_unknown_app(gateway):
    with open_channel(gateway, f"{new_id()}-50051.{DOMAIN}") as channel:
        error = failure(ask, channel, "echo", b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    assert dict(error.trailing_metadata())["x-gateway-error"] == "app_unknown" and error.details()


@pytest.mark.parametrize("protocol", ["h2c", "auto"])
def test_refused_connection(gateway, protocol):
    address = new_address()
    port = free_port(address)
    app = gateway.app(ports=[{"port": port, "protocol": protocol}], instances=[
        {"instance_id": new_id(), "address": address, "generation": 1, "state": "running"}])
    with open_channel(gateway, app.host()) as channel:
        error = failure(ask, channel, "echo", b"")
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())["x-gateway-error"] == "connect_refused"
    assert gateway.log_line(app_id=app.id)["error"] == "connect_refused"


def test_stopped_app(gateway):
    app = gateway.app(ports=[{"port": 50051, "protocol": "h2c"}], instances=[
        {"instance_id": new_id(), "address": new_address(), "generation": 1, "state": "stopped"}])
    with open_channel(gateway, app.host()) as channel:
        assert failure(ask, channel, "echo", b"").code() == grpc.StatusCode.UNAVAILABLE

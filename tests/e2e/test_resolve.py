"""Each step of a decision, told: /v1/resolve and gatewayctl resolve."""
from gateway import DOMAIN, new_id
from origin import Origin, new_address, respond
from wire import wait_until


def steps(gateway, host):
    answer = gateway.resolve(host)
    return answer, {step["step"]: step["result"] for step in answer["steps"]}


def instance(address, **members):
    return {"instance_id": new_id(), "address": address, "generation": 1, "state": "running", **members}


def test_every_step_of_a_name_that_routes(gateway, origin):
    app = gateway.app(origin(), limits={"max_connections": 20, "requests_per_second": 5})
    answer, told = steps(gateway, app.host())
    port = app.document["ports"][0]["port"]
    assert list(told) == ["name", "base domain", "id", "port", "mode", "look-up", "published port", "protocol", "limits",
                          "instances", "health", "choice"]
    assert told["base domain"] == DOMAIN and told["port"] == f"{port} (given by the name)"
    assert told["published port"] == "yes, it is listed" and told["look-up"] == "the app"
    assert told["limits"] == "at most 20 in progress, 5 a second"
    one = answer["instances"][0]
    assert one["share_percent"] == 100 and one["takes_requests"] is True
    assert one["health"] == {"workers": 2, "ejected": 0, "down": 0, "failures": 0}
    app.put(ports=[], restrict_ports=False, limits={})
    assert steps(gateway, app.host(port))[1]["published port"] == "yes: the app does not restrict its ports"


def test_where_it_stops(gateway, origin):
    app = gateway.app(origin(), domains=[{"name": "steps.example.net", "port": 1}])
    answer, told = steps(gateway, app.host(port=9))
    assert answer["code"] == "port_not_published" and list(told)[-2:] == ["published port", "health"]
    assert list(steps(gateway, f"{new_id()}.{DOMAIN}")[1])[-1] == "look-up"
    assert steps(gateway, "steps.example.net")[1]["look-up"] == "the app whose record has this domain"
    assert steps(gateway, f"health.{DOMAIN}")[0]["routes"] is True


def test_shares_and_states(gateway):
    port = 8000
    app = gateway.app(ports=[{"port": port}], instances=[
        instance(new_address(), weight=3), instance(new_address(), weight=1), instance(new_address(), weight=0),
        instance(new_address(), state="draining")])
    answer, _ = steps(gateway, app.host())
    assert [one["share_percent"] for one in answer["instances"]] == [75, 25, 0, 0]
    assert [one.get("why_not") for one in answer["instances"]] == [None, None, "its weight is 0", "it is draining"]
    only = app.document["instances"][1]["instance_id"]
    answer, told = steps(gateway, f"{only}-{port}.{DOMAIN}")
    assert told["look-up"] == "an instance of the app" and [one["instance_id"] for one in answer["instances"]] == [only]


def test_what_workers_hold_against_an_instance(make_gateway, origin):
    """Nobody listens at the second address; the third one's check fails."""
    gateway = make_gateway(upstream={"allow": ["127.0.0.0/8"], "ejection": {"failures": 2, "pause": "60s"}})
    good = origin()
    dead = new_address()
    app = gateway.app(ports=[{"port": good.port}], instances=[instance(good.address), instance(dead)])

    def is_out():
        gateway.fetch("GET", "/", app.host())
        answer, told = steps(gateway, app.host())
        health = answer["instances"][1]["health"]
        return health["ejected"] > 0 and health["failures"] >= 2 and told["health"]
    assert wait_until(is_out, "an ejected instance").startswith("1 of 2 left out by some worker")
    shown = gateway.gatewayctl("resolve", app.host())
    assert shown.returncode == 0
    assert any(dead in line and "left out by" in line and "50 %" in line for line in shown.stdout.splitlines()), shown
    assert any(good.address in line and line.endswith("well") for line in shown.stdout.splitlines()), shown
    assert "choice" in shown.stdout


def test_a_check_that_fails_is_told(gateway):
    def answer(_, request):
        return respond(b"", "503 Service Unavailable" if request.target == "/healthz" else "200 OK")
    bad = Origin(answer)
    good = Origin(address=new_address(), port=bad.port)
    try:
        app = gateway.app(ports=[{"port": bad.port, "check": {
            "type": "http", "path": "/healthz", "interval_ms": 1000, "timeout_ms": 500, "rise": 1, "fall": 1}}],
            instances=[instance(good.address), instance(bad.address)])

        def is_down():
            gateway.fetch("GET", "/", app.host())
            return steps(gateway, app.host())[0]["instances"][1]["health"]["down"] > 0
        wait_until(is_down, "the check's verdict")
        assert "check fails at" in gateway.gatewayctl("resolve", app.host()).stdout
    finally:
        bad.close()
        good.close()


def test_an_address_that_is_forbidden_by_now(make_gateway, origin):
    """What a new connection is told, and so what the next request may be told, whatever a pooled one still takes."""
    gateway = make_gateway(workers=1)
    app = gateway.app(origin())
    only = app.document["instances"][0]
    gateway.config["upstream"]["allow"] = ["10.0.0.0/8"]
    gateway.write_config()
    assert gateway.control("POST", "/v1/reload").status == 200
    answer, told = steps(gateway, app.host())
    assert answer["routes"] is False and answer["code"] == "address_forbidden"
    assert "upstream.allow" in answer["advice"] and told["instances"] == answer["detail"]
    one = answer["instances"][0]
    assert one["takes_requests"] is False and one["share_percent"] == 0
    assert one["why_not"].startswith(f"{only['address']} is a loopback address and no network of upstream.allow")
    shown = gateway.gatewayctl("resolve", app.host())
    assert shown.returncode != 0 and "does not route" in shown.stdout and "(address_forbidden)" in shown.stdout
    assert f"no: {one['why_not']}" in shown.stdout
    assert gateway.fetch("GET", "/", app.host()).error == answer["code"]


def test_the_gateways_own_listener_takes_no_requests(make_gateway, origin):
    """Of an app that restricts no ports, at one port of one instance; the other instance gets all."""
    gateway = make_gateway()
    other = origin(port=gateway.port)
    app = gateway.app(ports=[], instances=[instance("127.0.0.1"), instance(other.address)])
    own, well = app.document["instances"]
    answer, told = steps(gateway, app.host(gateway.port))
    assert answer["routes"] is True and told["instances"] == "at least one takes requests"
    assert [one["share_percent"] for one in answer["instances"]] == [0, 100]
    assert f"127.0.0.1:{gateway.port} is a listener of the gateway itself" in answer["instances"][0]["why_not"]
    host = f"{own['instance_id']}-{gateway.port}.{DOMAIN}"
    assert gateway.resolve(host)["code"] == gateway.fetch("GET", "/", host).error == "address_forbidden"
    assert gateway.resolve(f"{well['instance_id']}-{gateway.port}.{DOMAIN}")["routes"] is True
    assert gateway.resolve(f"{own['instance_id']}-{gateway.port - 1}.{DOMAIN}")["routes"] is True

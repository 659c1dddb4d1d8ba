"""gatewayctl as a program: usage, exit statuses, JSON, tables that fit a terminal, progress bars."""
import json
import os
import re
import subprocess

import pytest

from gateway import BUILD, DOMAIN, new_id
from terminal import Terminal, plain
from wire import wait_until

CTL = str(BUILD / "gatewayctl")


def run(*arguments, **options):
    return subprocess.run([CTL, *arguments], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL, **options)


def on_terminal(gateway, *arguments, columns=80, **options):
    return Terminal([CTL, "--control", f"unix:{gateway.control_path}", *map(str, arguments)], columns, **options)


def documents(count):
    for number in range(count):
        yield {"app_id": f"{number:040x}", "ports": [{"port": 8000}], "restrict_ports": True, "instances": [
            {"instance_id": f"{number:040x}i", "address": f"127.{1 + number // 65536}.{number // 256 % 256}."
                                                          f"{number % 256}",
             "generation": 1, "state": "running", "weight": 1}]}


# ---- usage ----

def test_help_of_all_and_of_each_command():
    everything = run("--help")
    assert everything.returncode == 0 and everything.stderr == ""
    commands = re.findall(r"^  ([a-z]+(?: [a-z]+)?)(?: [A-Z\[][^ ]*(?: [A-Z]+)*)? {2,}", everything.stdout, re.M)
    assert {"app put", "app ls", "cert put", "resolve", "status", "snapshot load"} <= set(commands)
    for command in commands:
        one = run(*command.split(), "--help")
        assert one.returncode == 0 and one.stdout.startswith(f"Usage: gatewayctl [OPTION…] {command}"), command
        assert "Exit status:" in one.stdout
    assert all(len(line) <= 100 for line in everything.stdout.split("\n"))


@pytest.mark.parametrize("arguments, says", [
    ((), "say what to do: app, compose, cert"),
    (("nonsense",), "there is no command nonsense"),
    (("app",), "app: say which of put, get, rm, ls"),
    (("app", "make"), "app: there is no make; use put, get, rm, ls"),
    (("app", "get"), "app get takes ID"),
    (("status", "all"), "status takes no argument"),
    (("status", "--strict"), "status does not take --strict; it is for: snapshot load"),
    (("--nonsense",), "nonsense"),
    (("app", "get", "x", "--if-match"), "requires an argument"),
    (("--control", "ftp://x", "status"), "give unix:PATH or https://HOST:PORT"),
    (("app", "put", "does/not/exist.json"), "No such file"),
    (("completion", "tcsh"), "say bash, zsh or fish"),
    (("app", "ls", "--etcd-prefix", "/fleet"), "--etcd; give it too"),
    (("app", "ls", "--etcd", "http://192.0.2.1:2379", "--etcd-user", "me", "--etcd-password-file", "/dev/null"),
     "password of --etcd-user in the clear"),
    (("compose", "x", "--app", "a", "--app=b"), "--app is given twice, as a and as b; give it once"),
    (("status", "--control", "unix:/a", "--control", "unix:/b"), "--control is given twice"),
    (("top", "-n", "5", "--count", "6"), "--count is given twice, as 5 and as 6"),
    (("logs", "--method", "GET", "--method", "PUT"), "--method is given twice"),
    (("compose", "x", *["--profile=a"] * 65), "there are more than 64 options; a list may be given at once"),
])
def test_wrong_usage_is_2(arguments, says):
    result = run(*arguments)
    assert result.returncode == 2 and says in result.stderr, result
    assert result.stdout == ""


def test_lists_may_be_given_in_parts(gateway, tmp_path):
    (tmp_path / "compose.yml").write_text("services:\n" + "".join(
        f"  {name}: {{image: a, profiles: [{name}], ports: ['{port}:80']}}\n"
        for name, port in (("web", 8001), ("admin", 8002), ("debug", 8003))))
    result = gateway.gatewayctl("compose", tmp_path / "compose.yml", "--app", new_id(), "--address", "10.8.0.1",
                                "--dry-run", "--json", "--profile", "web", "--profile=admin")
    assert [port["port"] for port in json.loads(result.stdout)["app"]["ports"]] == [8001, 8002], result
    members = run("app", "ls", "--etcd", "http://127.0.0.1:1", "--etcd", "nonsense")
    assert members.returncode == 2 and "--etcd nonsense: give" in members.stderr, members
    app = gateway.app()
    for _ in range(3):
        gateway.fetch("GET", "/lists", app.host(80))
    gateway.fetch("GET", "/lists", f"{new_id()}-80.{DOMAIN}")
    wait_until(lambda: {404, 503} <= {line["status"] for line in gateway.log_lines() if line["path"] == "/lists"},
               "both kinds of lines")
    logs = gateway.gatewayctl("logs", "--path", "/lists", "--status", "503", "--status", "404", "--json")
    assert {json.loads(line)["status"] for line in logs.stdout.splitlines()} == {404, 503}, logs
    assert gateway.gatewayctl("status", "--json", "--json").returncode == 0     # a switch is on or not


def test_exit_statuses(gateway, tmp_path):
    assert gateway.gatewayctl("status").returncode == 0
    assert gateway.gatewayctl("app", "get", new_id()).returncode == 1
    assert gateway.gatewayctl("resolve", "nothing.example.net").returncode == 1
    assert run("--control", f"unix:{tmp_path}/none", "status").returncode == 3
    gateway.put_app({"app_id": new_id()})
    gateway.fetch("GET", "/", f"{new_id()}-80.{DOMAIN}")
    wait_until(lambda: gateway.gatewayctl("logs", "-n", "1").stdout, "the line")
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([CTL, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
        assert result.returncode == 2 and b"cannot write" in result.stderr
        for arguments in (("logs",), ("snapshot", "save", "-")):
            command = [CTL, "--control", f"unix:{gateway.control_path}", *arguments]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
            assert result.returncode == 2 and b"cannot write" in result.stderr, result
    unread = gateway.gatewayctl("snapshot", "load", tmp_path)
    assert unread.returncode == 2 and "Is a directory" in unread.stderr
    told = re.findall(r"^  (\d+) ", run("--help").stdout.split("Exit status:")[1], re.M)
    assert told == ["0", "1", "2", "3", "4"]


def test_json_of_every_command(gateway, tmp_path):
    def ask(*arguments):
        result = gateway.gatewayctl(*arguments, "--json")
        assert result.returncode == 0, result
        return [json.loads(line) for line in result.stdout.splitlines()]
    app = next(documents(1))
    (tmp_path / "app.json").write_text(json.dumps(app))
    assert ask("app", "put", tmp_path / "app.json")[0]["app_id"] == app["app_id"]
    assert app["app_id"] in [item["app_id"] for item in ask("app", "ls")]
    assert ask("app", "get", app["app_id"])[0]["ports"][0]["port"] == 8000
    assert ask("resolve", f"{app['app_id']}-8000.gw.example")[0]["routes"] is True
    assert ask("snapshot", "save", tmp_path / "all") == [{"path": str(tmp_path / "all"), "saved": True}]
    assert ask("snapshot", "load", tmp_path / "all")[0]["refused"] == 0
    assert ask("app", "rm", app["app_id"]) == [{"app_id": app["app_id"], "deleted": True}]
    assert ask("status")[0]["ready"] is True
    assert ask("cert", "ls")
    assert "needs_restart" in ask("reload")[0]
    refused = gateway.gatewayctl("app", "rm", app["app_id"], "--json")
    assert refused.returncode == 1 and json.loads(refused.stderr)["code"] == "app_unknown"


def test_ids_are_told_apart_without_their_case(gateway, tmp_path):
    app_id, instance = new_id(), f"{new_id()[:8]}abc"
    upper = app_id.upper()
    (tmp_path / "compose.yml").write_text("services: {web: {image: a, ports: ['8000:80']}}")

    def compose(*arguments):
        return gateway.gatewayctl("compose", tmp_path / "compose.yml", *arguments)
    first = compose("--app", upper, "--address", "127.77.0.1", "--instance", instance.upper())
    assert first.returncode == 0 and f"https://{app_id}-8000." in first.stdout, first
    again = compose("--app", upper, "--address", "127.77.0.1", "--instance", instance.upper())
    assert "nothing changes" in again.stdout, again
    stored = json.loads(gateway.gatewayctl("app", "get", upper).stdout)
    assert [one["instance_id"] for one in stored["instances"]] == [instance]
    moved = compose("--app", new_id().upper(), "--replace", upper)
    assert moved.returncode == 0 and f"in the place of {app_id}" in moved.stdout, moved
    itself = json.loads(compose("--app", new_id(), "--address", "127.77.0.2", "--json").stdout)["app"]["app_id"]
    again = compose("--app", itself, "--replace", itself.upper())
    assert again.returncode == 0 and "nothing changes" in again.stdout and again.stderr == "", again
    assert gateway.gatewayctl("app", "rm", itself.upper()).stdout == f"app {itself} deleted\n"


# ---- tables ----

def test_tables_fit_the_terminal(gateway):
    app = gateway.app(ports=[{"port": port} for port in range(8000, 8040)],
                      domains=[{"name": f"{name}.shop.example.net", "port": 8000} for name in ("one", "two", "three")])
    for columns in (60, 100):
        with on_terminal(gateway, "app", "ls", "--q", app.id, columns=columns) as terminal:
            assert terminal.wait() == 0
            lines = plain(terminal.output).split("\r\n")[:-1]
        assert len(lines) == 2 and all(len(line) <= columns for line in lines), lines
        assert "…" in lines[1] and lines[0].split() == ["APP", "RUNNING", "PORTS", "DOMAINS", "REVISION"]
    piped = gateway.gatewayctl("app", "ls", "--q", app.id).stdout
    assert "…" not in piped and app.id in piped and "8039" in piped and "three.shop.example.net" in piped


def test_wide_terminals_cut_nothing(gateway):
    app = gateway.app(ports=[{"port": 8000}])
    with on_terminal(gateway, "app", "ls", "--q", app.id, columns=200) as terminal:
        assert terminal.wait() == 0
        assert app.id in plain(terminal.output) and "…" not in plain(terminal.output)


def test_what_others_wrote_moves_no_terminal(gateway, tmp_path):
    """The gateway quotes names that it refuses."""
    (tmp_path / "app.json").write_text(json.dumps({"app_id": "a\u009b2Jb", "instances": [], "\x1b[31mx": 1}))
    for arguments in (["app", "put", tmp_path / "app.json"], ["resolve", "\u202e\u009b.example"], ["app", "get", "\x1b[2J"]):
        with on_terminal(gateway, *arguments) as terminal:
            assert terminal.wait() in (1, 2)
            assert b"\x1b" not in terminal.output and b"\xc2\x9b" not in terminal.output, terminal.output
            assert b"\xe2\x80\xae" not in terminal.output, terminal.output


# ---- progress ----

def test_progress_of_a_load_and_a_save(make_gateway, tmp_path):
    gateway = make_gateway(upstream={"allow": ["127.0.0.0/8"]})
    lines = [json.dumps(document) + "\n" for document in documents(3000)]
    (tmp_path / "all").write_text("".join(lines))
    with on_terminal(gateway, "snapshot", "load", tmp_path / "all", stdout=subprocess.PIPE) as terminal:
        seen = terminal.wait_for(rb"loading[^\r]* 3000 lines") + terminal.output
        assert terminal.wait(60) == 0
        assert b"3000 apps loaded, 0 refused" in terminal.process.stdout.read()
        seen += terminal.output
    assert re.search(rb"loading \[#+\.*\] +\d+%  [\d.]+ [KM]iB  \d+ lines  [\d.]+ [A-Z]i?B/s|loading sent", seen), seen
    assert seen.endswith(b"\r\x1b[K")
    with on_terminal(gateway, "snapshot", "save", tmp_path / "saved", stdout=subprocess.PIPE) as terminal:
        seen = terminal.wait_for(rb"saving \[#{24}\] 100%  [\d.]+ [KM]iB  3000 lines")
        assert terminal.wait() == 0
    assert len((tmp_path / "saved").read_text().splitlines()) == 3000 + 1       # the last one is empty


def test_no_progress_elsewhere(gateway, tmp_path):
    result = gateway.gatewayctl("snapshot", "save", tmp_path / "all")
    assert result.returncode == 0 and result.stderr == ""
    result = gateway.gatewayctl("snapshot", "load", tmp_path / "all")
    assert result.returncode == 0 and result.stderr == ""


def test_a_gateway_that_refuses_leaves_no_bar(gateway, tmp_path):
    (tmp_path / "bad").write_text("{}\n")
    with on_terminal(gateway, "snapshot", "load", "--strict", tmp_path / "bad") as terminal:
        assert terminal.wait() == 1
        assert b"refused" in terminal.output.split(b"\x1b[K")[-1]


def test_apps_refused_for_others_are_named(gateway, tmp_path):
    apps = list(documents(3))
    for app in apps:
        app["instances"][0]["address"] = apps[0]["instances"][0]["address"]
    (tmp_path / "all").write_text("nonsense\n" + "".join(json.dumps(app) + "\n" for app in apps))
    loaded = gateway.gatewayctl("snapshot", "load", tmp_path / "all")
    assert loaded.returncode == 1 and "1 apps loaded, 3 refused" in loaded.stdout, loaded
    assert "  line 1: " in loaded.stderr and "line 0" not in loaded.stderr
    for app in apps[1:]:
        assert f"  app {app['app_id']}: instances[0].address: " in loaded.stderr, loaded.stderr
    (tmp_path / "all").write_text("".join(json.dumps(app) + "\n" for app in apps))
    strict = gateway.gatewayctl("snapshot", "load", "--strict", tmp_path / "all")
    assert strict.returncode == 1 and "line 0" not in strict.stderr
    assert strict.stderr.count("  app ") == 2, strict.stderr


def test_snapshot_is_saved_where_the_name_leads(gateway, tmp_path):
    """A link stays a link, and what is no file (a pipe, a device) is written to instead of replaced."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    (tmp_path / "folder" / "file").write_text("old")
    assert gateway.gatewayctl("snapshot", "save", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "file").read_text() != "old"
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        try:
            assert gateway.gatewayctl("snapshot", "save", tmp_path / "pipe").returncode == 0
            assert (tmp_path / "pipe").is_fifo()
            saved = reader.communicate(timeout=60)[0]
        finally:
            reader.kill()
    assert saved == (tmp_path / "folder" / "file").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]


# ---- the end of a snapshot ----

def revisions(gateway):
    return {app["app_id"]: app["revision"]
            for app in map(json.loads, gateway.control("GET", "/v1/snapshot").body.splitlines())}


def load_through_a_pipe(gateway, text, *arguments):
    command = [CTL, "--control", f"unix:{gateway.control_path}", "snapshot", "load", *arguments, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def test_a_snapshot_that_broke_off_in_a_pipe_changes_nothing(make_gateway, tmp_path):
    gateway = make_gateway()
    for _ in range(3):
        gateway.app(ports=[{"port": 8000}])
    saved = gateway.gatewayctl("snapshot", "save", "-").stdout
    assert saved.endswith("}\n\n") and len(saved.split()) == 3
    assert gateway.gatewayctl("snapshot", "save", tmp_path / "all").returncode == 0
    assert (tmp_path / "all").read_text() == saved
    before = revisions(gateway)
    lines = saved.splitlines(keepends=True)
    for cut in ("", lines[0], "".join(lines[:2]), "".join(lines[:3]), saved.rstrip(), "\n" + lines[0]):
        for arguments in ((), ("--empty",)):
            loaded = load_through_a_pipe(gateway, cut, *arguments)
            assert loaded.returncode == 2 and loaded.stdout == "", loaded
            assert "-: it ends without the empty line" in loaded.stderr and "--unmarked" in loaded.stderr
            assert "nothing was changed" in loaded.stderr
    assert revisions(gateway) == before
    for whole in (saved, saved.replace("\n", "\r\n"), saved + "\n"):
        loaded = load_through_a_pipe(gateway, whole, "--strict")
        assert loaded.returncode == 0 and "3 apps loaded, 0 refused" in loaded.stdout, loaded
    loaded = load_through_a_pipe(gateway, "".join(lines[:2]), "--unmarked")
    assert loaded.returncode == 0 and len(revisions(gateway)) == 2, loaded
    (tmp_path / "old").write_text(lines[0])
    with open(tmp_path / "old", encoding="ascii") as old:
        for arguments, options in (((tmp_path / "old",), {}), (("-",), {"stdin": old})):
            command = [CTL, "--control", f"unix:{gateway.control_path}", "snapshot", "load", *arguments]
            assert subprocess.run(command, check=False, timeout=60, **options).returncode == 0
            assert len(revisions(gateway)) == 1
    answer = gateway.control("PUT", "/v1/snapshot?strict=1", saved)      # without gatewayctl it does not matter
    assert answer.status == 200 and answer.json["apps"] == 3 and revisions(gateway).keys() == before.keys()


def test_an_empty_table_is_saved_as_such(make_gateway):
    gateway = make_gateway()
    assert gateway.gatewayctl("snapshot", "save", "-").stdout == "\n"
    gateway.app()
    loaded = load_through_a_pipe(gateway, "\n", "--empty")
    assert loaded.returncode == 0 and revisions(gateway) == {}, loaded


def test_a_snapshot_that_cannot_be_saved_has_no_end(gateway, tmp_path):
    saved = gateway.gatewayctl("snapshot", "save", "-", control_path=tmp_path / "none")
    assert saved.returncode == 3 and saved.stdout == ""

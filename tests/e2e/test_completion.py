"""Completion of gatewayctl's command line, by real shells that ask the real program and gateway."""
import os
import re
import subprocess

import pytest

from gateway import BUILD, DOMAIN, new_id
from terminal import Terminal, plain

PROMPT = "prompt> "


@pytest.fixture(scope="module")
def environment(gateway):
    return {"PATH": f"{BUILD}:{os.environ['PATH']}", "GATEWAY_CONTROL": f"unix:{gateway.control_path}", "PS1": PROMPT,
            "HISTFILE": "", "ASAN_OPTIONS": "detect_leaks=1"}


class Shell(Terminal):
    def __init__(self, command, environment, folder, setup):
        super().__init__(command, columns=200, env=environment, cwd=folder)
        for line in setup:
            self.type(line + "\n")
        self.type("echo rea''dy\n").wait_for(rb"\nready[^\n]*\n.*prompt> ")

    def complete(self, line, wanted):
        """Types the line and a tab; waits for the wanted line on the screen; drops the line."""
        self.type(line + "\t")
        shown = plain(self.wait_for(wanted, 40))
        self.type("\x15\n").wait_for(rb"prompt> ")
        return shown

    def candidates(self, line, wanted):
        """Types the line and two tabs; what the shell lists must match."""
        return self.complete(line + "\t", wanted)


@pytest.fixture
def bash(environment, tmp_path):
    (tmp_path / "routes.ndjson").write_text("")
    setup = ["bind 'set enable-bracketed-paste off'", "bind 'set bell-style none'", f"PS1='{PROMPT}'",
             "source <(gatewayctl completion bash)"]
    with Shell(["bash", "--norc", "--noprofile", "-i"], environment, tmp_path, setup) as shell:
        yield shell


def test_bash_completes_commands_and_options(bash):
    bash.complete("gatewayctl snaps", r"snapshot ")
    bash.complete("gatewayctl snapshot lo", r"snapshot load ")
    bash.candidates("gatewayctl app ", r"get +ls +put +rm")
    bash.complete("gatewayctl snapshot load --str", r"--strict ")
    bash.complete("gatewayctl status --tok", r"--token-file ")
    bash.complete("gatewayctl completion f", r"completion fish ")


def test_bash_completes_files(bash):
    bash.complete("gatewayctl snapshot load rou", r"load routes\.ndjson ")
    bash.complete("gatewayctl status --token-file rou", r"--token-file routes\.ndjson ")


def test_bash_completes_what_the_gateway_knows(bash, gateway):
    app = gateway.app(ports=[{"port": 8123}], domains=[{"name": "unusual.example.net", "port": 8123}])
    bash.complete(f"gatewayctl app get {app.id[:12]}", rf"app get {app.id} ")
    bash.complete(f"gatewayctl resolve {app.id[:12]}", rf"resolve {app.id}-8123\.")
    bash.complete(f"gatewayctl resolve {app.id}-81", rf"resolve {app.id}-8123\.")
    bash.complete(f"gatewayctl resolve {app.id}-8123.{DOMAIN[:2]}", rf"resolve {app.id}-8123\.{re.escape(DOMAIN)} ")
    bash.complete("gatewayctl resolve unus", r"resolve unusual\.example\.net ")
    bash.complete(f"gatewayctl compose --app={app.id[:12]}", rf"--app={app.id} ")


def test_bash_asks_the_gateway_that_the_line_names(bash, gateway, tmp_path):
    app = gateway.app()
    bash.type("unset GATEWAY_CONTROL\n").wait_for(rb"prompt> ")
    path = os.path.relpath(gateway.control_path, tmp_path)
    bash.complete(f"gatewayctl --control unix:{path} app get {app.id[:12]}", rf"app get {app.id} ")


def test_a_gateway_that_is_away_completes_nothing(environment):
    result = subprocess.run(["gatewayctl", "complete", "--", "app", "get", ""], capture_output=True, text=True,
                            check=False, env={**os.environ, **environment, "GATEWAY_CONTROL": "unix:/none"})
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_ids_are_found_by_their_beginning(gateway, environment):
    """Among many, and also those that are a beginning of others."""
    def ids(prefix):
        result = subprocess.run(["gatewayctl", "complete", "--", "app", "rm", prefix], capture_output=True, text=True,
                                check=True, env={**os.environ, **environment})
        return result.stdout.splitlines()
    names = ["qa", "qa-0", "qa0", "qaz", "qb", "q", "q0", "qzz", "r"]
    for name in names:
        gateway.app(app_id=name)
    assert ids("qa") == ["qa", "qa-0", "qa0", "qaz"]
    assert ids("qa-") == ["qa-0"] and ids("q0") == ["q0"] and ids("qzz") == ["qzz"]
    assert set(ids("q")) == {name for name in names if name != "r"}
    assert ids("Q!") == [] and ids("q" * 64) == []


def test_fish(gateway, environment, tmp_path):
    app = gateway.app(app_id=new_id())
    script = tmp_path / "gatewayctl.fish"
    script.write_text(subprocess.run([BUILD / "gatewayctl", "completion", "fish"], capture_output=True, text=True,
                                     check=True).stdout)
    (tmp_path / "routes.ndjson").write_text("")

    def complete(line):
        result = subprocess.run(["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"],
                                capture_output=True, text=True, check=True, cwd=tmp_path,
                                env={**os.environ, **environment, "HOME": str(tmp_path)})
        return [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert complete("gatewayctl app ") == ["get", "ls", "put", "rm"]
    assert complete(f"gatewayctl app get {app.id[:12]}") == [app.id]
    assert complete("gatewayctl snapshot load --str") == ["--strict"]
    assert complete("gatewayctl snapshot load rou") == ["routes.ndjson"]


def test_zsh(gateway, environment, tmp_path):
    app = gateway.app(app_id=new_id())
    (tmp_path / "routes.ndjson").write_text("")
    setup = ["unsetopt zle_bracketed_paste prompt_sp; zle_highlight=(none)", f"PROMPT='{PROMPT}'",
             "autoload -U compinit; compinit -u -D", "source <(gatewayctl completion zsh)"]
    environment = {**environment, "ZDOTDIR": str(tmp_path)}
    with Shell(["zsh", "-f", "-i", "+o", "prompt_sp"], environment, tmp_path, setup) as shell:
        shell.complete("gatewayctl snaps", r"snapshot ")
        shell.complete(f"gatewayctl app get {app.id[:12]}", rf"{app.id[12:]}")
        shell.complete("gatewayctl snapshot load --str", r"ict")
        shell.complete("gatewayctl snapshot load rou", r"tes\.ndjson")

"""What tenants publish, as they would: a model server that streams, a metrics exporter, a web terminal."""
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from chromium import Browser
from gateway import new_id
from service import Service
from wire import wait_until

TOKENS = 40


@pytest.fixture(scope="module")
def model(gateway, tmp_path_factory):
    program = Path(__file__).with_name("llm_server.py")
    server = Service(tmp_path_factory.mktemp("model"),
                     lambda address, port: [sys.executable, str(program), address, str(port)])
    server.host = server.app(gateway).host()
    yield server
    server.close()


def sent(model, conversation):
    """Tokens that have left the model's server, by its own word."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{model.address}:{model.port}/sent?id={conversation}", timeout=20) as answer:
        return int(answer.read())


class Chat:
    """curl -N, as agents use it."""

    def __init__(self, gateway, model, option):
        self.id, self.model = new_id(), model
        question = json.dumps({"stream": True, "id": self.id, "messages": [{"role": "user", "content": "?"}]})
        self.process = subprocess.Popen(
            ["curl", "-sS", "-N", "--max-time", "60", "--noproxy", "*", option, "--cacert", str(gateway.authority.ca),
             "--connect-to", f"::127.0.0.1:{gateway.port}", "-H", "Content-Type: application/json", "-d", question,
             f"https://{model.host}/v1/chat/completions"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def event(self):
        line = self.process.stdout.readline()
        assert line.startswith(b"data: ") and self.process.stdout.readline() == b"\n", line
        return line[6:].strip()

    def token(self):
        return json.loads(self.event())["choices"][0]["delta"]["content"]

    def close(self):
        self.process.stdout.close()
        self.process.kill()
        self.process.wait(20)


def test_a_model_streams_its_tokens(gateway, model):
    """Four conversations, two of them on HTTP/2: each token is seen long before the last one is sent."""
    chats = [Chat(gateway, model, option) for option in ("--http1.1", "--http2") * 2]
    try:
        for chat in chats:
            assert chat.token() == "token0 "
            assert sent(model, chat.id) < TOKENS / 2
        for chat in chats:
            for number in range(1, TOKENS):
                assert chat.token() == f"token{number} "
        for chat in chats:
            assert chat.event() == b"[DONE]" and not chat.process.stdout.read()
            assert chat.process.wait(20) == 0
    finally:
        for chat in chats:
            chat.close()


def test_a_user_who_has_read_enough(gateway, model):
    """The model's server is told by its connection when the client leaves in the middle."""
    chat = Chat(gateway, model, "--http2")
    try:
        for number in range(3):
            assert chat.token() == f"token{number} "
    finally:
        chat.close()
    line = wait_until(lambda: next((line for line in gateway.log_lines() if line.get("error") == "client_cancelled"),
                                   None), "the line of the access log")
    assert line["host"] == model.host and line["status"] == 200
    assert sent(model, chat.id) < TOKENS


def test_a_metrics_exporter(gateway, tmp_path):
    server = Service(tmp_path, lambda address, port: [
        "prometheus-node-exporter", f"--web.listen-address={address}:{port}", "--log.level=error"])
    try:
        host = server.app(gateway).host()
        for option in ("--http1.1", "--http2"):
            result = gateway.curl(f"https://{host}/metrics", option, "--compressed")
            assert b"node_exporter_build_info" in result.stdout and b"process_cpu_seconds_total" in result.stdout
            assert b"Node Exporter" in gateway.curl(f"https://{host}/", option).stdout
    finally:
        server.close()


def test_a_web_terminal(gateway, tmp_path):
    """Shell in a box: a page that polls. What is typed into the browser runs, and the page shows its output."""
    folder, profile = tmp_path / "terminal", tmp_path / "chromium"
    folder.mkdir()
    profile.mkdir()
    shell = f"/:{os.getuid()}:{os.getgid()}:{folder}:/bin/sh"
    server = Service(folder, lambda address, port: ["shellinaboxd", "--disable-ssl", f"--port={port}", "--no-beep",
                                                    "--localhost-only", f"--service={shell}"], address="127.0.0.1")
    browser = Browser(profile, gateway)
    try:
        browser.open(f"https://{server.app(gateway).host()}/")

        def screen():
            return browser.evaluate("document.getElementById('vt100') && document.getElementById('vt100').innerText")
        wait_until(lambda: "$" in (screen() or "") or "#" in (screen() or ""), "the prompt of the shell", 60)
        browser.type("echo the answer is $((6*7))\r")
        wait_until(lambda: "the answer is 42" in screen(), "the output of the shell", 60)
    finally:
        browser.close()
        server.close()

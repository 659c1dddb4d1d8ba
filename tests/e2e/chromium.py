"""Debian's Chromium without a window, driven by the DevTools protocol over a pair of pipes."""
import base64
import fcntl
import itertools
import json
import os
import select
import subprocess
import time

from gateway import DOMAIN

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
         "--disable-default-apps", "--mute-audio", "--no-proxy-server",
         "--disable-features=Translate,OptimizationHints")
CUSTOM_DOMAIN = "shop.example.net"
DEADLINE = 60       # seconds; starting under load takes some


def high_pipe():
    """(read end, write end), neither of which is in the way of the descriptors 3 and 4 that the browser wants."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low]
    for end in low:
        os.close(end)
    return high


class Browser:
    """A browser with one tab. Every name of the gateway's domain, and of tenants' domains under CUSTOM_DOMAIN, leads to
    `gateway`, whose authority it trusts."""

    def __init__(self, folder, gateway, *more):
        self.folder = folder
        self.trust(gateway.authority.ca)
        to_browser, self.commands = high_pipe()
        self.answers, from_browser = high_pipe()
        rules = [f"MAP *.{name} 127.0.0.1:{gateway.port}" for name in (DOMAIN, CUSTOM_DOMAIN)]
        command = ["chromium", *QUIET, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}",
                   f"--host-resolver-rules={','.join([*rules, 'MAP * ~NOTFOUND'])}", *more, "about:blank"]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(to_browser, from_browser),
                env={**os.environ, "HOME": str(folder)})
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.numbers, self.events = b"", itertools.count(1), []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def trust(self, ca):
        store = self.folder / ".pki" / "nssdb"
        store.mkdir(parents=True)
        for arguments in (["-N", "--empty-password"], ["-A", "-n", "test CA", "-t", "C,,", "-i", str(ca)]):
            subprocess.run(["certutil", "-d", f"sql:{store}", *arguments], check=True, capture_output=True, timeout=60)

    def read(self, end):
        """The next message of the browser."""
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0, end - time.monotonic()))
            assert ready, f"Chromium says nothing:\n{self.log()}"
            data = os.read(self.answers, 1 << 16)
            assert data, f"Chromium has ended:\n{self.log()}"
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def command(self, method, session=None, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + DEADLINE
        while True:
            answer = self.read(end)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def tab(self, method, **parameters):
        return self.command(method, self.session, **parameters)

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page; a promise is waited for."""
        answer = self.tab("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def open(self, url):
        """Goes to the page and waits until all of it is loaded."""
        answer = self.tab("Page.navigate", url=url)
        assert "errorText" not in answer, (url, answer["errorText"])
        self.evaluate("new Promise(done => document.readyState == 'complete' ? done() : "
                      "addEventListener('load', () => done()))")
        assert self.evaluate("location.href") == url

    def choose_file(self, selector, path):
        """What a user does in the dialog of an <input type=file>."""
        found = self.tab("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.tab("DOM.setFileInputFiles", files=[str(path)], objectId=found["result"]["objectId"])

    def type(self, text):
        """Key by key."""
        for letter in text:
            key = {"\r": {"key": "Enter", "windowsVirtualKeyCode": 13}}.get(letter, {"key": letter})
            self.tab("Input.dispatchKeyEvent", type="keyDown", text=letter, **key)
            self.tab("Input.dispatchKeyEvent", type="keyUp", **key)

    def screenshot(self):
        """A PNG picture of the page, for who looks into a failure."""
        return base64.b64decode(self.tab("Page.captureScreenshot")["data"])

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def close(self):
        try:
            self.command("Browser.close")
            self.process.wait(20)
        finally:
            os.close(self.commands)
            os.close(self.answers)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(20)

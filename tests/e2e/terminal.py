"""A real terminal (a pty) with a program on it: types, reads, resizes, and looks at the terminal's state."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from wire import TIMEOUT

ESCAPE_SEQUENCE = re.compile(rb"\x1b(\[[0-9;?]*[A-Za-z]|[()][0-9A-Z]|[=>78])")


class Terminal:
    """terminal = Terminal(command): both outputs and the input of the program are the terminal.

    With stdout= or stderr= of subprocess, that one goes elsewhere.
    """

    def __init__(self, command, columns=80, rows=24, **options):
        self.master, slave = pty.openpty()
        self.output = b""
        self.attributes_before = termios.tcgetattr(slave)
        self.set_size(columns, rows)
        environment = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **options.pop("env", {})}
        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **options}

        def take_terminal():
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):   # who runs the tests may ignore them
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        self.slave = slave
        self.process = subprocess.Popen(command, env=environment, preexec_fn=take_terminal, close_fds=True, **streams)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        os.close(self.master)
        os.close(self.slave)

    def set_size(self, columns, rows):
        """The kernel tells the program by SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text if isinstance(text, bytes) else text.encode())
        return self

    def read_some(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.output += os.read(self.master, 65536)
        return bool(ready)

    def wait_for(self, wanted, timeout=TIMEOUT):
        """Until the output since the last time matches the regular expression; returns what was read up to its end."""
        wanted = re.compile(wanted if isinstance(wanted, bytes) else wanted.encode(), re.S)
        end = time.monotonic() + timeout
        while not (match := wanted.search(self.output)):
            assert time.monotonic() < end, f"no {wanted.pattern!r} in {self.output[-3000:]!r}"
            self.read_some(0.1)
        read, self.output = self.output[:match.end()], self.output[match.end():]
        return read

    def wait(self, timeout=TIMEOUT):
        """Its exit status, after it has ended; reads what it writes meanwhile."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.output[-3000:]!r}"
            self.read_some(0.05)
        while self.read_some(0):
            pass
        return self.process.returncode

    def is_restored(self):
        return termios.tcgetattr(self.slave) == self.attributes_before

    def send_signal(self, number=signal.SIGINT):
        self.process.send_signal(number)


def plain(output):
    """The text without escape sequences."""
    return ESCAPE_SEQUENCE.sub(b"", output).decode()

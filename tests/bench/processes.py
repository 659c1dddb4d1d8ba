"""Programs on chosen CPUs: started, watched, weighed, and ended with all that they have started."""
import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path


class Failure(Exception):
    """What was to be measured did not work as it should."""


def choose_cpus():
    """(for what is measured, for what surrounds it); the same one where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[0], cpus[min(1, len(cpus) - 1)]


def raise_limits():
    """Of open files, to what the user may have; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def busy_seconds(cpu):
    """How long this CPU has worked, for whomever, a virtual machine's host included. 0 where a container hides it."""
    found = re.search(rf"^cpu{cpu} (.*)", Path("/proc/stat").read_text(), re.M)
    if not found:
        return 0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, found[1].split()[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """Processes whose parent has ended become children of this one, which waits for them: not every container's first
    process does."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


class Program:
    """In a session of its own, pinned to one CPU. Its standard error goes to a file in `folder`, and so does its
    standard output unless `talks`: then both that and its input are pipes. Use it in a `with` statement."""

    def __init__(self, command, cpu, folder, name, talks=False, **options):
        self.name, self.error_path = name, Path(folder) / f"{name}.stderr"
        pipe = subprocess.PIPE if talks else None
        with open(Path(folder) / f"{name}.stdout", "wb") as output, open(self.error_path, "wb") as errors:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=folder, start_new_session=True, text=True, stderr=errors,
                stdin=pipe or subprocess.DEVNULL, stdout=pipe or output,
                preexec_fn=lambda: os.sched_setaffinity(0, {cpu}), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self, ended=False):
        """Of all its processes: those that have not ended, or those that have and are waited for."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:     # it has gone meanwhile
                continue
            if int(fields[3]) == self.process.pid and (fields[0] in "ZX") == ended:
                yield int(entry)

    def has_ended(self):
        return self.process.poll() is not None

    def errors(self):
        return self.error_path.read_text(errors="replace")[-2000:].strip()

    def read_word(self, expected):
        """Reads the next line of its output."""
        line = self.process.stdout.readline().strip()
        if line != expected:
            self.process.wait(5)
            raise Failure(self.errors() or f"{self.name} said {line!r}, not {expected!r}")

    def stop(self):
        """Ends all of it, at once."""
        deadline = time.monotonic() + 10
        while pids := list(self.pids()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} does not end: processes {pids}")
            time.sleep(0.005)
        for pid in set(self.pids(ended=True)) - {self.process.pid}:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def memory_bytes(self):
        """Of all its processes: pages that they share count once. Of a process that hides its memory, as the one that
        keeps h2o's keys, others than root see the resident set, which differs by what is shared."""
        total = 0
        for pid in self.pids():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
            except PermissionError:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        return total


class CallCounter:
    """Counts system calls of a program, between start() and finish(), by perf."""
    EVENT = "raw_syscalls:sys_enter"

    def __init__(self, program, cpu, folder):
        control, self.control = os.pipe()
        self.answers, answers = os.pipe()
        command = ["perf", "stat", "-x", ",", "-o", "perf.csv", "-e", self.EVENT, "-D", "-1",
                   "--control", f"fd:{control},{answers}", "-p", ",".join(map(str, program.pids()))]
        self.report = Path(folder) / "perf.csv"
        try:
            self.perf = Program(command, cpu, folder, "perf", pass_fds=(control, answers))
        finally:
            os.close(control)
            os.close(answers)

    @classmethod
    def works(cls):
        command = ["perf", "stat", "-x", ",", "-e", cls.EVENT, "true"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except OSError:
            return False
        return result.returncode == 0 and result.stderr.strip()[:1].isdigit()

    def __enter__(self):
        try:
            self.tell("disable")    # answered once perf is attached
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.perf.stop()
        os.close(self.control)
        os.close(self.answers)

    def tell(self, word):
        try:
            os.write(self.control, f"{word}\n".encode())
            answer = os.read(self.answers, 16)
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise Failure(f"perf has ended: {self.perf.errors()}")

    def start(self):
        self.tell("enable")

    def finish(self):
        self.tell("disable")
        self.perf.process.send_signal(signal.SIGINT)
        self.perf.process.wait(20)
        return int(re.search(rf"^(\d+),.*{self.EVENT}", self.report.read_text(), re.M)[1])

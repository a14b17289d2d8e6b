"""What the benchmarks of many loops have in common: servers, and what processes cost."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROLES = {  # what is in the command line of a process of Ray's -> what it is
    "ImplicitFunc": "trial",
    "gcs_server": "gcs",
    "raylet/raylet": "raylet",
    "ray::": "worker",
    "ray/dashboard": "dashboard",
    "default_worker": "worker",
}
SERVER = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
AWS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
MB = 1 << 20


@dataclass
class Seen:
    """What is known of one process."""

    role: str
    cpu: float = 0.0  # seconds so far
    peak: float = 0.0  # MB resident, at most
    shared_out: float = 0.0  # MB resident at most, with shared pages split between those that share them


class Watch(threading.Thread):
    """Looks at a process and all that come from it until it is stopped; those that are gone are remembered."""

    def __init__(self, pid: int, role: str, every: float = 0.5, *, shares: bool = False) -> None:
        super().__init__(daemon=True)
        self.root, self.role, self.every, self.shares = pid, role, every, shares
        self.seen: dict[int, Seen] = {}
        self.done = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.join()

    def run(self) -> None:
        """Look now and then."""
        while True:
            with contextlib.suppress(psutil.Error):
                self.look()
            if self.done.wait(self.every):
                return

    def look(self) -> None:
        """Update what is known."""
        root = psutil.Process(self.root)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError, StopIteration):
                self._update(process)

    def _update(self, process: psutil.Process) -> None:
        command = " ".join(process.cmdline())
        role = self.role if process.pid == self.root else role_of(command)
        seen = self.seen.setdefault(process.pid, Seen(role))
        if seen.role == "worker":  # a trial is a worker until its actor is made
            seen.role = role
        times = process.cpu_times()
        seen.cpu = times.user + times.system
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        peak = next(line for line in status if line.startswith("VmHWM"))
        seen.peak = int(peak.split()[1]) / 1024
        if self.shares:
            seen.shared_out = max(seen.shared_out, process.memory_full_info().pss / MB)

    def cpu(self, *roles: str) -> float:
        """CPU seconds of all processes in these roles; of all for none."""
        return sum(seen.cpu for seen in self.seen.values() if not roles or seen.role in roles)

    def peak(self, role: str) -> float:
        """MB resident of the largest process in a role, at its peak."""
        return max((seen.peak for seen in self.seen.values() if seen.role == role), default=0.0)

    def count(self, role: str) -> int:
        """Processes that have been in a role."""
        return sum(seen.role == role for seen in self.seen.values())


def role_of(command: str) -> str:
    """What a process is, by its command line."""
    return next((role for part, role in ROLES.items() if part in command), "other")


def cpu_by_role(pid: int) -> dict[str, float]:
    """CPU seconds so far, by role, of the processes that come from `pid` and live."""
    watch = Watch(pid, "driver")
    watch.look()
    spent: dict[str, float] = defaultdict(float)
    for seen in watch.seen.values():
        spent[seen.role] += seen.cpu
    return spent


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, health: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers, until the block ends."""
    with log.open("ab") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, start_new_session=True, env=os.environ | SERVER | AWS
        )
    try:
        limit = time.monotonic() + 120
        while not _answers(port, health):
            if server.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"no server on port {port}:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextlib.contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """A port that leads to another one, whose answers come so much later."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=relay, args=(client,), daemon=True).start()

    def relay(client: socket.socket) -> None:
        asked = False
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
            while True:
                for end in select.select([client, server], [], [])[0]:
                    if not (data := end.recv(1 << 20)):
                        return
                    if end is server and asked:  # an answer may come in several parts
                        time.sleep(seconds)
                    asked = end is client
                    (server if end is client else client).sendall(data)

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield int(listener.getsockname()[1])


@contextlib.contextmanager
def mlflow_server(folder: Path, workers: int = 1) -> Iterator[tuple[str, int]]:
    """The URI and the process number of `mlflow server` with a SQLite database and artifacts in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    with serving(command, port, "/health", folder / "mlflow.log") as server:
        yield f"http://127.0.0.1:{port}", server.pid


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[tuple[int, Path]]:
    """The port of an S3 server, and its log, which has a line for each request."""
    port, log = free_port(), folder / "s3.log"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, port, "/moto-api/", log):
        yield port, log


def s3_uri(port: int) -> str:
    """The URI of a store in an S3 server; the environment has `AWS`."""
    query = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    return f"s3://bucket/store?{query}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int, health: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=2):
            return True
    except OSError:
        return False


def machine() -> str:
    """What this is measured on, in a few words."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    return f"{os.cpu_count()} cores, {model[1] if model else 'unknown processor'}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [list(map(str, head)), ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float) -> str:
    """A number in three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

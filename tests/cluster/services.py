"""Real services on one machine: a Ray cluster of several nodes, servers, and doors to them that can be shut."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "RAY_AUTH_MODE": "disabled",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    """What `condition` gives as soon as it is true."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Service:
    """A server process of its own."""

    def __init__(self, command: list[str], port: int, health: str, log: Path) -> None:
        self.command, self.port, self.health, self.log = command, port, health, log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=2):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Door:
    """A TCP relay that can be shut: connections through it then break, and new ones are refused at once."""

    def __init__(self, target: int) -> None:
        self.port, self.target, self.is_open = free_port(), target, True
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            if self.is_open:
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()
            else:
                client.close()

    def _relay(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            while self.is_open:
                readable, _, _ = select.select([client, server], [], [], 0.2)
                for end in readable:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    (server if end is client else client).sendall(data)


class Nodes:
    """A Ray cluster: a head without CPUs and workers of one CPU, each a set of processes of its own."""

    def __init__(self, num_workers: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.add() for _ in range(num_workers)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def kill(self, worker: Any) -> None:
        """SIGKILL to every process of a node."""
        self.workers.remove(worker)
        self.cluster.remove_node(worker, allow_graceful=False)


class Driver:
    """`autophagy sweep` in a process of its own, on a cluster."""

    def __init__(self, recipe: Path, store: str, tracking: str, address: str | None) -> None:
        self.command = [sys.executable, "-m", "autophagy", "sweep", str(recipe), "--store", store]
        self.command += ["--tracking-uri", tracking]
        self.environment = dict(os.environ) | ({"RAY_ADDRESS": address} if address else {})
        self.log = recipe.with_suffix(".log")
        self.process: subprocess.Popen | None = None

    def start(self) -> Driver:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        return self

    def wait(self, seconds: float = 600.0) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

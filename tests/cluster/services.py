"""Real services on one machine: a Ray cluster of several nodes, servers, and doors to them that can be shut."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

# Everything asks for a secret; the secrets are of this test session.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
    "AWS_EC2_METADATA_DISABLED": "true",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "MLFLOW_TRACKING_USERNAME": "admin",
    "MLFLOW_TRACKING_PASSWORD": secrets.token_hex(16),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


def wait_for(condition: Callable[[], Any], seconds: float = 300.0) -> Any:
    """What `condition` gives as soon as it is true."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)
    return found


def kill_all(*processes: subprocess.Popen) -> None:
    """SIGKILL to processes and all that they have started."""
    victims = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid)
            victims += [started, *started.children(recursive=True)]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
    for process in processes:
        process.wait()


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
            kill_all(self.process)
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
    """A Ray cluster on this machine: a head that computes nothing, and workers of one CPU.

    Each node is a `ray start` with all that it starts, as on a machine of its own.
    """

    def __init__(
        self, num_workers: int, *, head: Sequence[str] = ("--num-cpus=0",), python: str = sys.executable, **env: str
    ) -> None:
        self.python, self.environment = python, {**os.environ, **env}
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets are in it
        port, dashboard = free_port(), free_port()
        self.address, self.dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self.processes: list[subprocess.Popen] = []
        arguments = ["--head", *head, f"--port={port}"]
        arguments += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        self.head = self._start(*arguments, *self.head_arguments(port))
        self.workers = [self.add() for _ in range(num_workers)]

    def head_arguments(self, port: int) -> list[str]:
        """What more the head is told."""
        return []

    def _start(self, *arguments: str) -> subprocess.Popen:
        command = [self.python, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        command += ["--dashboard-agent-listen-port=0", "--object-store-memory=200000000", *arguments]
        # A folder each, as on machines of their own: files that came with a job must not be shared.
        own = self.folder / str(len(self.processes))
        command += [f"--temp-dir={own}"]
        log = self.folder / f"{own.name}.txt"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=self.environment, start_new_session=True)
        self.processes.append(process)
        try:
            # One after the other: nodes of one machine that start at once get into each other's way.
            wait_for(lambda: process.poll() is not None or b"Ray runtime started" in log.read_bytes())
            assert process.poll() is None, log.read_text()
        except AssertionError:
            self.shutdown()
            raise
        return process

    def add(self) -> subprocess.Popen:
        """One more worker."""
        return self._start(f"--address={self.address}", "--num-cpus=1")

    def kill(self, node: subprocess.Popen) -> None:
        """SIGKILL to every process of a node."""
        kill_all(node)
        if node in self.workers:
            self.workers.remove(node)

    def runs(self, node: subprocess.Popen, name: str) -> bool:
        """Whether a node has a process of Ray's of this name."""
        children = psutil.Process(node.pid).children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(f"ray::{name}" in " ".join(child.cmdline()) for child in children)
        return False

    def num_alive(self) -> int | None:
        """Nodes that live, as the dashboard says; None while it does not answer."""
        token = self.environment["RAY_AUTH_TOKEN"]
        request = urllib.request.Request(
            f"{self.dashboard}/api/v0/nodes?limit=1000", headers={"Authorization": f"Bearer {token}"}
        )
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["result"]["result"]
            return sum(node["state"] == "ALIVE" for node in nodes)
        return None

    def shutdown(self) -> None:
        """The whole cluster is gone, all at once."""
        kill_all(*self.processes)
        shutil.rmtree(self.folder, ignore_errors=True)


class Autoscaled(Nodes):
    """A head alone, whose autoscaler starts and ends workers of one CPU on this machine, as it would in a cloud."""

    def __init__(self, max_workers: int, idle_seconds: float) -> None:
        from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

        self.max_workers, self.idle_seconds, self.head_id = max_workers, idle_seconds, FAKE_HEAD_NODE_ID
        settings = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1"}
        ids = {"RAY_CLOUD_INSTANCE_ID": self.head_id, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": self.head_id}
        super().__init__(0, **settings, **ids)

    def head_arguments(self, port: int) -> list[str]:
        """The autoscaler's configuration."""
        lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
        resources = {"CPU": 1, "object_store_memory": 200_000_000}
        config = {
            "cluster_name": "autoscaled",
            "max_workers": self.max_workers,
            "upscaling_speed": 8.0,
            "idle_timeout_minutes": self.idle_seconds / 60,
            "provider": {
                "type": "external",
                "module": provider,
                "gcs_address": f"127.0.0.1:{port}",
                "head_node_id": self.head_id,
                "launch_multiple": True,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
                "worker": {
                    "resources": resources,
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": self.max_workers,
                },
            },
            **{f"{name}_commands": [] for name in lists},
            **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
            **{name: {} for name in ("auth", "docker", "file_mounts")},
        }
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return [f"--autoscaling-config={path}"]


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
        """Its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to it and what it started."""
        assert self.process is not None
        kill_all(self.process)

    def said(self) -> str:
        """The last of what it wrote."""
        return self.log.read_text()[-4000:]

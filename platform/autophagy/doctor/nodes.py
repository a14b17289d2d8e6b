"""Ray and its nodes."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autophagy.doctor.findings import (
    Finding,
    NodeReport,
    clock_finding,
    cluster_finding,
    node_findings,
    tracking_finding,
    version_finding,
)
from autophagy.doctor.machine import exercise, reachable, reason, version_of
from autophagy.engine.cluster import start_ray
from autophagy.store.storage import TEMPORARY, Storage

ANSWER_SECONDS = 180.0  # for a node to start a process, and to write and read the store
LOOK_AT_GPUS = (
    "import json, torch; n = torch.cuda.device_count(); "
    "[torch.ones(8, device=f'cuda:{i}').sum().item() for i in range(n)]; "
    "print(json.dumps([torch.cuda.get_device_name(i) for i in range(n)]))"
)


def check_ray() -> Finding:
    """Join the cluster of RAY_ADDRESS, or the one of this machine, or start one."""
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if ":" in address and not reachable(f"ray://{address.rpartition('//')[2]}"):
        remedy = "start it with `ray start --head`, mend the address, or unset it to start Ray here"
        return Finding("problem", "ray", f"nothing answers at RAY_ADDRESS = {address}", remedy)
    try:
        start_ray()
    except Exception as error:  # Ray has no common class for what can go wrong here
        remedy = "have the cluster's version of Ray here, RAY_AUTH_MODE=token, and its token in ~/.ray/auth_token"
        return Finding("problem", "ray", reason(error), remedy)
    where = f"{ray.__version__} at {ray.get_runtime_context().gcs_address}"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        remedy = "set RAY_AUTH_MODE=token on every node, with one ~/.ray/auth_token"
        return Finding("note", "ray", f"{where}: whoever reaches it can run code", remedy)
    return Finding("ok", "ray", f"{where}, with token authentication")


def check_nodes(storage: Storage | None, tracking: str | None, packages: Sequence[str]) -> Iterator[Finding]:
    """What all nodes together amount to, and what each of them says."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    yield cluster_finding([node["Resources"] for node in nodes])
    heard = []
    for node, found in zip(nodes, ask_nodes(nodes, storage, tracking, packages), strict=True):
        if isinstance(found, Finding):
            yield found
        else:
            heard.append((node, found))
            yield from node_findings(node["Resources"], found, shared=len(nodes) > 1)
    if len(nodes) > 1:
        reports = [found for _, found in heard]
        yield tracking_finding(tracking, reports)
        yield version_finding(reports)
        yield clock_finding([(found.host, clock_difference(node)) for node, found in heard])


def ask_nodes(
    nodes: Sequence[Mapping[str, Any]], storage: Storage | None, tracking: str | None, packages: Sequence[str]
) -> list[NodeReport | Finding]:
    """What every node says, asked by a task of its own; a problem where one says nothing."""
    import ray

    beacon = storage.at(TEMPORARY, f"doctor-{uuid.uuid4().hex}") if storage else ""
    if storage:
        storage.put(beacon, b"from the driver")
    try:
        ask = ray.remote(num_cpus=0, max_retries=0)(report)
        asked = [
            ask.options(**there(node)).remote(storage, beacon, tracking, packages, int(node["Resources"].get("GPU", 0)))
            for node in nodes
        ]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_SECONDS)
        return [answer(node, task if task in ready else None) for node, task in zip(nodes, asked, strict=True)]
    finally:
        if storage:
            storage.discard(beacon)


def there(node: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task that runs on a node or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


def answer(node: Mapping[str, Any], task: Any | None) -> NodeReport | Finding:
    """What a node has said, or the problem with it; a task of None has not come back."""
    import ray

    name = node["NodeManagerHostname"]
    if task is None:
        remedy = "look at its load and memory (`ray status`, the dashboard), or take it out"
        return Finding("problem", "nodes", f"{name} has not answered for {ANSWER_SECONDS:.0f} s", remedy)
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        remedy = "give all nodes one image, and run this as a job, with which the package travels"
        return Finding("problem", "nodes", f"{name}: {reason(error)}", remedy)


def report(
    storage: Storage | None, beacon: str, tracking: str | None, packages: Sequence[str], gpus: int
) -> NodeReport:
    """What the node says on which this runs."""
    speeds: tuple[float, float] | str | None = None
    seen = False
    if storage:
        try:
            seen = storage.read(beacon) is not None
            speeds = exercise(storage)
        except (OSError, RuntimeError, ValueError) as error:
            speeds = str(error)
    memory = Path("/dev/shm")
    return NodeReport(
        host=socket.gethostname(),
        versions={"python": platform.python_version()} | {p: v for p in packages if (v := version_of(p))},
        shared_memory=shutil.disk_usage(memory).total if memory.is_dir() else None,
        gpus=usable_gpus() if gpus or Path("/proc/driver/nvidia").exists() else None,
        storage=speeds,
        sees_the_store=seen,
        reaches_tracking=reachable(tracking),
    )


def usable_gpus() -> list[str] | str:
    """Names of the GPUs of this machine that torch can compute on; why it can on none."""
    # A process of its own: Ray hides the GPUs from a task that asks for none.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", LOOK_AT_GPUS]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    except subprocess.CalledProcessError as error:
        return (error.stderr.strip().splitlines() or ["torch fails"])[-1]
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return json.loads(done.stdout.splitlines()[-1])


def clock_difference(node: Mapping[str, Any]) -> float:
    """Seconds that the clock of a node is at least from the one here; the process that answers is there already."""
    import ray

    start = time.time()
    now = ray.get(ray.remote(num_cpus=0)(clock).options(**there(node)).remote())
    return max(start - now, now - time.time(), 0.0)


def clock() -> float:
    """Seconds since 1970."""
    return time.time()

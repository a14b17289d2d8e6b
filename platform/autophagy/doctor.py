"""Whether loops can run here: packages, the store, the tracking server, Ray and its nodes; what to mend if not."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from autophagy.cluster import start_ray
from autophagy.findings import (
    Finding,
    NodeReport,
    clock_finding,
    cluster_finding,
    node_findings,
    package_findings,
    storage_finding,
    tracking_finding,
    version_finding,
)
from autophagy.records import RunInfo, UserError, digest
from autophagy.rights import guard_token, readers, token_file
from autophagy.storage import TEMPORARY, Storage
from autophagy.tracking import MLFLOW_ENVIRONMENT, MLflowTracker, check_tracking_uri, mlflow_environment, tracking_for

PROBE_BYTES = 16 << 20
LEAST_FREE = 1 << 30  # bytes on the disk of a store
ANSWER_SECONDS = 180.0  # for a node to start a process, and to write and read the store
CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
LOOK_AT_GPUS = (
    "import json, torch; n = torch.cuda.device_count(); "
    "[torch.ones(8, device=f'cuda:{i}').sum().item() for i in range(n)]; "
    "print(json.dumps([torch.cuda.get_device_name(i) for i in range(n)]))"
)


def examine(store: str, tracking_uri: str | None) -> Iterator[Finding]:
    """Check everything; what takes longest comes last.

    Args:
        store: URI of a store; it is made if it is missing, and nothing is left in it.
        tracking_uri: As of a run: None for the default, "none" for none.
    """
    python, packages = needs()
    yield from package_findings(python, packages, version_of)
    storage = Storage(store)
    stored = check_storage(storage)
    yield stored
    usable = storage if stored.level != "problem" else None
    tracking = tracking_for(tracking_uri, usable.root if usable and usable.local else None)
    yield check_tracking(tracking)
    yield from check_rights(usable, tracking)
    yield from check_token()
    joined = check_ray()
    yield joined
    if joined.level != "problem":
        yield from check_nodes(usable, tracking, [Requirement(package).name for package in packages])


# This machine


def needs() -> tuple[str, list[str]]:
    """The Python and the packages that are needed, as requirements: of the checkout, else of the installed package."""
    checkout = Path(__file__).parents[2] / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text())["project"]
        return project["requires-python"], project["dependencies"]
    about = metadata.metadata("autophagy")
    return about["Requires-Python"], [r for r in about.get_all("Requires-Dist", []) if "extra ==" not in r]


def version_of(package: str) -> str | None:
    """The installed version; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_storage(storage: Storage) -> Finding:
    """Write, publish, read and list as stages do, from here."""
    try:
        storage.check()
        speeds = exercise(storage)
    except UserError as error:
        return Finding("problem", "storage", str(error))
    except (OSError, RuntimeError) as error:
        return Finding(
            "problem", "storage", f"{storage.uri}: {error}", "see that files may be written and deleted there"
        )
    if storage.local and (free := shutil.disk_usage(storage.root).free) < LEAST_FREE:
        remedy = (
            "free room outside the store, or enlarge the disk; `autophagy store gc` finds what no run needs, and "
            "with --delete removes it a day later"
        )
        return Finding("problem", "storage", f"{storage.uri}: {free / 1e9:.1f} GB free", remedy)
    return storage_finding(storage.uri, speeds)


def exercise(storage: Storage) -> tuple[float, float]:
    """Write 16 MB and read them back; publish a file, and try to publish another in its place. Nothing is left.

    Returns:
        MB/s written and read.

    Raises:
        OSError: The storage refuses.
        RuntimeError: It does something else than it was told.
    """
    folder, data = storage.at(TEMPORARY, f"doctor-{uuid.uuid4().hex}"), os.urandom(PROBE_BYTES)
    payload, manifest = f"{folder}/payload", f"{folder}/manifest"
    try:
        start = time.perf_counter()
        storage.put(payload, data)
        written = time.perf_counter()
        back = storage.read(payload)
        read = time.perf_counter()
        if back != data:
            raise RuntimeError("what was read is not what was written")
        published = storage.create(manifest, b"first"), storage.create(manifest, b"second"), storage.read(manifest)
        if published != (True, False, b"first"):
            raise RuntimeError("a file that was published was published again")
        if [info.base_name for info in storage.entries(folder)] != ["manifest", "payload"]:
            raise RuntimeError("a list of files does not show what was just written")
    finally:
        storage.discard(folder)
    return PROBE_BYTES / 1e6 / (written - start), PROBE_BYTES / 1e6 / (read - written)


# Who may read what


def check_rights(storage: Storage | None, tracking: str | None) -> Iterator[Finding]:
    """A note for each of the store and the database of runs that other users of this machine may read."""
    if storage and storage.local and (who := readers(storage.root)):
        remedy = f"`chmod 700 {storage.root}`, unless it is theirs too"
        yield Finding("note", "storage", f"{storage.uri}: {who} may read it, and so all images", remedy)
    kind, _, database = (tracking or "").partition(":///")
    if kind == "sqlite" and (who := readers(database)):
        yield Finding("note", "tracking", f"{database}: {who} may read it", f"`chmod 600 {database}`")


def check_token() -> Iterator[Finding]:
    """Whether others may read Ray's token, or might until now: where it is ours, they may no more."""
    token = token_file()
    if token is None or not (who := readers(token)):
        return
    guard_token()
    if left := readers(token):
        yield Finding("problem", "token", f"{token}: {left} may read it and so run code as you", f"chmod 600 {token}")
    else:
        remedy = f"if they are strangers, `rm {token}`, `ray get-auth-token --generate`, and start Ray again"
        yield Finding("note", "token", f"{token}: {who} might read it until now; it is closed to them", remedy)


# The tracking server


class TrackingProbe(MLflowTracker):
    """A run that is written as those of loops are, and deleted again."""

    def __init__(self, tracking_uri: str) -> None:
        super().__init__(tracking_uri, experiment="autophagy-doctor")
        name = uuid.uuid4().hex
        self._info = RunInfo(name, digest(name), {"check": True}, {}, {"source": "doctor", "digest": name})

    def write(self) -> None:
        """Write params, a metric and a file, read the metric, delete the run. Raises whatever MLflow raises."""
        # A loop would rather go on than wait; here a server that has just started gets its time.
        with mlflow_environment(MLFLOW_ENVIRONMENT | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}):
            client, run = self._open()
            try:
                client.log_metric(run.info.run_id, "check", 1.0)
                client.log_text(run.info.run_id, "written\n", "check.txt")
                if client.get_run(run.info.run_id).data.metrics != {"check": 1.0}:
                    raise RuntimeError("a metric that was logged is not there")
            finally:
                client.delete_run(run.info.run_id)


def check_tracking(uri: str | None) -> Finding:
    """Reach the tracking server or database, and write to it."""
    if uri is None:
        return Finding("note", "tracking", "none: numbers go to run folders alone")
    try:
        check_tracking_uri(uri)
    except UserError as error:
        return Finding("problem", "tracking", str(error))
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return Finding("ok", "tracking", f"{uri}: the first run makes it")
    if not reachable(uri):
        return Finding(
            "problem", "tracking", f"{uri}: nothing answers", "start `mlflow server` there, or mend the address"
        )
    try:
        TrackingProbe(uri).write()
    except Exception as error:  # whatever a server, a proxy or an artifact store raises
        remedy = (
            "see that MLflow runs there, may write its artifacts, and lets you in (MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or ~/.mlflow/credentials)"
        )
        return Finding("problem", "tracking", f"{uri}: {reason(error)}", remedy)
    return Finding("ok", "tracking", f"{uri}: a run was written, read and deleted")


def reachable(uri: str | None) -> bool:
    """Whether something listens at the host of a URI; True where there is none to ask."""
    parts = urlsplit(uri or "")
    port = parts.port or PORTS.get(parts.scheme.partition("+")[0])
    if not parts.hostname or not port:
        return True
    with suppress(OSError), socket.create_connection((parts.hostname, port), CONNECT_SECONDS):
        return True
    return False


def reason(error: Exception) -> str:
    """An error in one line: the last of its message, where Ray and MLflow put the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


# Ray and its nodes


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

"""What the doctor concludes from what it has seen. Nothing here looks at anything."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from autophagy.common.errors import without_secrets
from autophagy.tracking.connection import sqlite_file

SLOW = 5.0  # MB/s: 10,000 images of 64x64 pixels take 25 s
CLOCKS_AGREE = 5.0  # seconds


@dataclass(frozen=True)
class Finding:
    """What a check has found."""

    level: Literal["ok", "note", "problem"]
    check: str
    text: str
    remedy: str = ""  # what to do

    def __str__(self) -> str:
        words = f"{self.check}: {self.text}" + (f"; {self.remedy}" if self.remedy else "")
        return f"{self.level:<8}{without_secrets(' '.join(words.split()))}"


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself."""

    host: str
    versions: Mapping[str, str]  # of Python and the packages needed; those that are missing are not here
    shared_memory: int | None  # bytes of /dev/shm, None where there is none
    gpus: list[str] | str | None  # names of those torch can use; why it can use none; None: not looked at
    storage: tuple[float, float] | str | None  # MB/s written and read; what went wrong; None: not looked at
    sees_the_store: bool  # whether a file is there that the driver wrote
    reaches_tracking: bool


def package_findings(python: str, packages: Sequence[str], installed: Callable[[str], str | None]) -> Iterator[Finding]:
    """Compare what is installed with what is needed.

    Args:
        python: Versions of Python, such as `>=3.11`.
        packages: Requirements, such as `torch>=2.6`.
        installed: The version of a package; None if it is missing.
    """
    version = platform.python_version()
    if version in SpecifierSet(python):
        yield Finding("ok", "python", f"{version}, {sys.executable}")
    else:
        yield Finding("problem", "python", f"{version}, needed is {python}", "make the environment with such a Python")
    good = []
    for requirement in map(Requirement, packages):
        found = installed(requirement.name)
        if found and requirement.specifier.contains(found, prereleases=True):
            good.append(f"{requirement.name} {found}")
        else:
            text = f"{requirement.name} {found or 'is missing'}, needed is {requirement}"
            yield Finding("problem", "packages", text, f"pip install -c constraints.txt '{requirement}'")
    if len(good) == len(packages):
        yield Finding("ok", "packages", ", ".join(good))


def storage_finding(where: str, speeds: tuple[float, float]) -> Finding:
    """The finding on MB/s written and read."""
    text = f"{where}: {speeds[0]:.0f} MB/s written, {speeds[1]:.0f} MB/s read"
    if min(speeds) < SLOW:
        return Finding("note", "storage", text, "slow: take a store near the machines")
    return Finding("ok", "storage", text)


def cluster_finding(nodes: Sequence[Mapping[str, float]]) -> Finding:
    """The resources of all nodes together, as Ray counts them."""
    cpus, gpus, memory, objects = (
        sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU", "memory", "object_store_memory")
    )
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    text = (
        f"{count}, {cpus:.0f} CPUs, {gpus:.0f} GPUs, {memory / 1e9:.0f} GB of memory, {objects / 1e9:.1f} GB of "
        "object store"
    )
    if cpus < 1:
        return Finding("note", "cluster", text, "one that scales adds nodes once there is work; any other needs CPUs")
    return Finding("ok", "cluster", text)


def node_findings(resources: Mapping[str, float], found: NodeReport, *, shared: bool) -> Iterator[Finding]:
    """What a node by itself shows: memory, GPUs, and where nodes share a store its way to that.

    Args:
        resources: The node's, as Ray counts them.
        found: What it says.
        shared: Whether there are other nodes.
    """
    wanted = resources.get("object_store_memory", 0.0)
    if found.shared_memory is not None and found.shared_memory < wanted:
        text = f"{found.host}: {found.shared_memory / 1e9:.2f} GB of /dev/shm for {wanted / 1e9:.2f} GB of object store"
        yield Finding("note", "memory", text, "objects go to disk: start the container with a larger --shm-size")
    yield from gpu_findings(found.host, int(resources.get("GPU", 0)), found.gpus)
    if not shared or found.storage is None:
        return
    if isinstance(found.storage, str):
        remedy = "give this node the credentials and the network of the others"
        yield Finding("problem", "storage", f"{found.host}: {found.storage}", remedy)
    elif not found.sees_the_store:
        remedy = "give a store that all nodes share: s3://bucket/prefix, or a folder mounted on all"
        yield Finding("problem", "storage", f"{found.host} does not see what another node has written", remedy)
    else:
        yield storage_finding(found.host, found.storage)


def gpu_findings(host: str, counted: int, usable: list[str] | str | None) -> Iterator[Finding]:
    """Compare the GPUs that Ray counts with those that torch can use."""
    if isinstance(usable, str):
        level: Literal["note", "problem"] = "problem" if counted else "note"
        yield Finding(level, "gpu", f"{host}: {usable}", "mend the driver, or install torch's CUDA build")
    elif usable is not None and len(usable) < counted:
        remedy = "mend the driver, install torch's CUDA build, or start Ray with the right --num-gpus"
        yield Finding("problem", "gpu", f"{host}: Ray counts {counted}, torch can use {len(usable)}", remedy)
    elif usable and len(usable) > counted:
        remedy = "start Ray with --num-gpus if loops are to use them"
        yield Finding("note", "gpu", f"{host}: torch can use {len(usable)}, Ray counts {counted}", remedy)
    elif usable:
        yield Finding("ok", "gpu", f"{host}: {', '.join(usable)}")


def tracking_finding(tracking: str | None, reports: Sequence[NodeReport]) -> Finding:
    """Whether all nodes can log."""
    away = [found.host for found in reports if not found.reaches_tracking]
    if tracking is None:
        return Finding("note", "tracking", "none on any node")
    if sqlite_file(tracking):
        remedy = "start `mlflow server` where all reach it, and give its http://HOST:PORT"
        return Finding("problem", "tracking", f"{tracking}: a file on one of several nodes", remedy)
    if away:
        remedy = "open the port between the nodes, and give an address that means the same on all"
        return Finding("problem", "tracking", f"{tracking}: not reached from {', '.join(away)}", remedy)
    return Finding("ok", "tracking", f"reached from all {len(reports)} nodes")


def version_finding(reports: Sequence[NodeReport]) -> Finding:
    """Whether all nodes have the same versions."""
    differing = []
    for name in sorted({name for found in reports for name in found.versions}):
        hosts: dict[str, list[str]] = {}
        for found in reports:
            hosts.setdefault(found.versions.get(name, "missing"), []).append(found.host)
        if len(hosts) > 1:
            differing.append(f"{name} " + ", ".join(f"{v} on {' and '.join(h)}" for v, h in sorted(hosts.items())))
    if differing:
        return Finding("problem", "versions", "; ".join(differing), "give all nodes one image")
    return Finding("ok", "versions", f"the same on all {len(reports)} nodes")


def clock_finding(seconds: Sequence[tuple[str, float]]) -> Finding:
    """Whether clocks agree.

    Args:
        seconds: Host, and how far its clock is at least from the driver's.
    """
    host, worst = max(seconds, key=lambda found: found[1], default=("", 0.0))
    if worst < CLOCKS_AGREE:
        return Finding("ok", "clock", f"agrees on {len(seconds)} nodes")
    remedy = "keep time by NTP: nothing depends on it but the times in manifests and MLflow, and when garbage is old"
    return Finding("note", "clock", f"{host} is {worst:.0f} s off", remedy)

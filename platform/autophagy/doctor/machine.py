"""This machine: packages, store, rights, ports."""

from __future__ import annotations

import os
import shutil
import socket
import time
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from autophagy.common.errors import UserError
from autophagy.common.rights import guard_token, readers, token_file
from autophagy.doctor.findings import Finding, storage_finding
from autophagy.store.storage import TEMPORARY, Storage
from autophagy.tracking.connection import sqlite_file

PROBE_BYTES = 16 << 20
LEAST_FREE = 1 << 30  # bytes on the disk of a store
CONNECT_SECONDS = 5.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def needs() -> tuple[str, list[str]]:
    """The Python and the packages that are needed, as requirements: of the checkout, else of the installed package."""
    checkout = Path(__file__).parents[3] / "pyproject.toml"
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
    database = sqlite_file(tracking)
    if database and (who := readers(database)):
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

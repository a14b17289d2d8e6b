"""Leases: who builds what, so that one process builds and the others wait; a dead owner's is taken over.

A lease is a small JSON file, created only if there is none and written again and again by a thread of its owner.
It saves work and guards nothing: where it fails (two writers on S3, an owner that slept), a stage is built twice and
published once. No clock is compared with another: an owner on this machine is asked for by its process number, one
elsewhere is dead when its lease has not changed for a minute of whoever waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal

from autophagy.store.storage import Storage

HEARTBEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0  # a lease that has not changed for so long has no owner any more
STUCK_SECONDS = 600.0  # nor has it for so long, though its process is there: nobody waits for ever
_POLL_SECONDS = (0.2, 2.0)  # first and longest pause of a waiter

logger = logging.getLogger(__name__)

Owner = Literal["alive", "dead", "unknown"]


def lease_path(storage: Storage, stage: str, key: str) -> str:
    """The lease file of a stage."""
    return storage.at("leases", stage, f"{key}.json")


def decode(data: bytes | None) -> dict[str, Any] | None:
    """What a lease file says; None where it cannot be read."""
    try:
        lease = json.loads(data or b"")
        return lease if isinstance(lease["host"], str) and isinstance(lease["inputs"], list) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def owner(data: bytes | None) -> Owner:
    """What can be said of the owner of a lease by one look at its content.

    dead: there is no such process on this machine, or the lease says nothing. unknown: it is elsewhere, or stopped
    (as by Ctrl-Z): whether the lease goes on changing will tell.
    """
    lease = decode(data)
    try:
        if lease is None:
            return "dead"
        return _process_owner(lease["pid"], lease["started"]) if lease["host"] == _host() else "unknown"
    except (KeyError, TypeError):
        return "dead"


@contextmanager
def hold(
    storage: Storage,
    stage: str,
    key: str,
    inputs: Sequence[str],
    done: Callable[[], bool],
    wait: Callable[[str], None] | None = None,
) -> Iterator[bool]:
    """Hold the lease of a stage within the block, after waiting for an owner that lives.

    Args:
        storage: Where leases are kept.
        stage: Kind of stage.
        key: Its key.
        inputs: Keys it is made from: garbage collection leaves them alone while the lease lives.
        done: Whether somebody else has published the stage: then the block runs without the lease.
        wait: Told once, in one line, that the stage is waited for and for whom; by default it is logged.

    Yields:
        True with the lease, False without because the stage is done.
    """
    path = lease_path(storage, stage, key)
    lease = None
    pause, seen, since, told = 0.0, None, 0.0, False
    while not done():
        found = storage.read(path)
        if found != seen:
            seen, since = found, time.monotonic()
        patience = {"dead": 0.0, "unknown": DEAD_SECONDS, "alive": STUCK_SECONDS}[owner(found)]
        if time.monotonic() - since >= patience:
            lease = _acquire(storage, path, {"stage": stage, "key": key, "inputs": list(inputs)}, found)
            if lease is not None:
                break
        elif not told:
            (wait or logger.info)(f"waiting for {stage} {key}: {_who(found)} builds it")
            told = True
        pause = min(max(_POLL_SECONDS[0], 1.5 * pause), _POLL_SECONDS[1])
        time.sleep(pause)
    try:
        yield lease is not None
    finally:
        if lease is not None:
            lease.release()


class _Lease:
    """A lease we own, written anew by a daemon thread until `release`."""

    def __init__(self, storage: Storage, path: str, content: dict[str, Any]) -> None:
        self.storage, self.path, self.content = storage, path, content
        self.released = threading.Event()
        self.thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self.thread.start()

    def _keep(self) -> None:
        while not self.released.wait(HEARTBEAT_SECONDS):
            with suppress(Exception):  # a disk or network that is away for a while: the next beat tries again
                self._beat()
        # A lease that stays would make others wait for as long as this process lives.
        while True:
            with suppress(Exception):
                data, found = self._read()
                if found.get("owner") == self.content["owner"] and data is not None:
                    self.storage.remove_if(self.path, data)
                return
            time.sleep(HEARTBEAT_SECONDS)

    def _beat(self) -> None:
        """Change the lease; one that is gone is written again, one that is somebody else's by now is left to them."""
        _, found = self._read()
        if found.get("owner", self.content["owner"]) == self.content["owner"]:
            self.content["heartbeat"] = time.time()
            self.storage.put(self.path, _encode(self.content))

    def _read(self) -> tuple[bytes | None, dict[str, Any]]:
        """The lease file, and what it says."""
        data = self.storage.read(self.path)
        return data, decode(data) or {}

    def release(self) -> None:
        """Remove the lease; where that cannot be done now, the thread goes on trying."""
        self.released.set()
        self.thread.join(2 * HEARTBEAT_SECONDS)


def _acquire(storage: Storage, path: str, about: Mapping[str, Any], found: bytes | None) -> _Lease | None:
    """Put a lease of ours in the place of `found`, that of a dead owner or none; None if somebody else was first."""
    if found is not None:
        storage.remove_if(path, found)
    content = {
        **about,
        "owner": uuid.uuid4().hex,
        "host": _host(),
        "pid": os.getpid(),
        "started": _process(os.getpid())[1],
        "heartbeat": time.time(),  # changes with every beat; nobody compares it with another clock
    }
    try:
        if not storage.claim(path, _encode(content)):
            return None
    except BaseException:
        with suppress(OSError):  # what was refused may have been carried out: nobody is to wait for us
            storage.remove_if(path, _encode(content))
        raise
    return _Lease(storage, path, content)


def _process_owner(pid: int, started: int) -> Owner:
    """The owner of a lease that is, or was, a process of this machine."""
    state, start = _process(pid)
    if state:
        if state in "ZX" or start != started:
            return "dead"
        return "unknown" if state in "Tt" else "alive"
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except PermissionError:
        pass
    return "alive"


def _who(data: bytes | None) -> str:
    """The owner of a lease, for people."""
    lease = decode(data) or {}
    host = str(lease.get("host", "")).split(" ")[0]
    return f"process {lease.get('pid')} on {host}" if host else "another process"


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


@cache
def _host() -> str:
    """Names this boot of this machine and its process numbers (containers have their own)."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _process(pid: int) -> tuple[str, int]:
    """State letter and start time (ticks since boot) of a process; ("", 0) where /proc does not show it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[19])

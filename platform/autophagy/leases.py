"""Leases: who builds what, so that one process builds and the others wait; a dead owner's is taken over.

A lease is a small JSON file, created only if there is none and refreshed by a thread of its owner. It saves
work and guards nothing: where it fails (a clock far off, two writers on S3), a stage is built twice and
published once.
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
from typing import Any

from autophagy.storage import Storage

HEARTBEAT_SECONDS = 5.0
DEAD_SECONDS = 60.0  # a lease not refreshed for so long has no owner any more
_SETTLE_SECONDS = 0.2  # on S3 the last of several writers wins: time for the others to have written
_POLL_SECONDS = (0.2, 2.0)  # first and longest pause of a waiter

logger = logging.getLogger(__name__)


def lease_path(storage: Storage, stage: str, key: str) -> str:
    """The lease file of a stage."""
    return storage.at("leases", stage, f"{key}.json")


def read_live(storage: Storage, path: str) -> dict[str, Any] | None:
    """The lease at `path` if its owner lives, else None."""
    return _live(storage.read(path))


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
        wait: Told once, in one line, that the stage is waited for; by default it is logged.

    Yields:
        True with the lease, False without because the stage is done.
    """
    path = lease_path(storage, stage, key)
    about = {"stage": stage, "key": key, "inputs": list(inputs)}
    lease = None
    pause = 0.0
    while not done():
        lease = _acquire(storage, path, about)
        if lease is not None:
            break
        if not pause:
            (wait or logger.info)(f"waiting for {stage} {key}: another process builds it")
        pause = min(max(_POLL_SECONDS[0], 1.5 * pause), _POLL_SECONDS[1])
        time.sleep(pause)
    try:
        yield lease is not None
    finally:
        if lease is not None:
            lease.release()


class _Lease:
    """A lease we own, refreshed by a daemon thread until `release`."""

    def __init__(self, storage: Storage, path: str, content: dict[str, Any]) -> None:
        self.storage, self.path, self.content = storage, path, content
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._refresh, daemon=True, name="lease")
        self.thread.start()

    def _refresh(self) -> None:
        while not self.stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a disk or network that is away for a moment: the next beat tries again
                if self._read_ours() is None:
                    return
                self.content["heartbeat"] = time.time()
                self.storage.put(self.path, _encode(self.content))

    def _read_ours(self) -> bytes | None:
        """The lease file, None if it is gone or somebody else's by now."""
        data = self.storage.read(self.path)
        found = _decode(data)
        return data if found is not None and found.get("owner") == self.content["owner"] else None

    def release(self) -> None:
        self.stop.set()
        self.thread.join()
        with suppress(OSError):  # as good as released: the owner will be seen to be gone
            if (data := self._read_ours()) is not None:
                self.storage.remove_if(self.path, data)


def _acquire(storage: Storage, path: str, about: Mapping[str, Any]) -> _Lease | None:
    found = storage.read(path)
    if found is not None:
        if _live(found):
            return None
        storage.remove_if(path, found)
    content = {
        **about,
        "owner": uuid.uuid4().hex,
        "host": _host(),
        "pid": os.getpid(),
        "started": _process(os.getpid())[1],
        "heartbeat": time.time(),
    }
    if not storage.create(path, _encode(content)):
        return None
    if not storage.local:
        time.sleep(_SETTLE_SECONDS)
        if storage.read(path) != _encode(content):
            return None
    return _Lease(storage, path, content)


def _live(data: bytes | None) -> dict[str, Any] | None:
    lease = _decode(data)
    try:
        if lease is None or time.time() - lease["heartbeat"] > DEAD_SECONDS:
            return None
        return None if lease["host"] == _host() and not _lives(lease["pid"], lease["started"]) else lease
    except (KeyError, TypeError):
        return None


def _encode(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _decode(data: bytes | None) -> dict[str, Any] | None:
    try:
        lease = json.loads(data or b"")
    except ValueError:
        return None
    return lease if isinstance(lease, dict) else None


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


def _lives(pid: int, started: int) -> bool:
    state, start = _process(pid)
    if state:
        return state not in "ZX" and start == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

"""Looking after a store: what is in it, whether it is whole, and what of it nobody needs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autophagy.store.garbage import Collector
from autophagy.store.manifests import condemn, damage, decode_manifest, finished, manifest_path, read_manifest
from autophagy.store.names import is_name
from autophagy.store.storage import Storage
from autophagy.store.store import StageStore

MARKS = "garbage.json"  # path below the root -> when a collector first found it as it is now
GRACE_SECONDS = 24 * 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageInfo:
    """One finished stage, as its manifest tells it."""

    stage: str
    key: str
    size: int = 0  # bytes of payload
    created: str = ""  # ISO 8601, UTC
    seconds: float = 0.0  # wall seconds of its builder
    files: int = 0

    @classmethod
    def of(cls, stage: str, key: str, manifest: Mapping[str, Any] | None) -> StageInfo:
        """What a manifest tells; None stands for one that cannot be read."""
        if manifest is None:
            return cls(stage, key)
        files = manifest["files"]
        size = sum(file["size"] for file in files.values())
        return cls(stage, key, size, manifest["created"], manifest["seconds"], len(files))


@dataclass(frozen=True)
class GarbageItem:
    """Something in the store that nobody needs."""

    path: str  # file or folder within the filesystem
    size: int  # bytes
    why: str
    age: float  # seconds since a collector first found it as it is now
    deleted: bool = False


def ls(store: StageStore) -> list[StageInfo]:
    """All finished stages, by kind and key."""
    stages = [(kind, key) for kind in _kinds(store.storage) for key, _ in finished(store.storage, kind)]
    manifests = [read_manifest(store.storage, *stage) for stage in stages]
    return [StageInfo.of(*stage, found) for stage, found in zip(stages, manifests, strict=True) if found]


def verify(store: StageStore, stage: str | None = None) -> Iterator[tuple[StageInfo, list[str]]]:
    """Read every finished stage (of one kind) again, comparing checksums.

    Yields:
        Each stage with what is wrong with it; a damaged one loses its manifest, so that it is built anew.
    """
    storage = store.storage
    for kind in _kinds(storage) if stage is None else [stage]:
        for key, _ in finished(storage, kind):
            path = manifest_path(storage, kind, key)
            data = storage.read(path)
            if data is None:  # collected or rebuilt since it was listed
                continue
            manifest = decode_manifest(data, kind, key)
            problems = damage(storage, manifest, checksums=True)
            if problems:
                condemn(storage, path, data, problems)
            yield StageInfo.of(kind, key, manifest), problems


def gc(
    store: StageStore, used: Callable[[], Iterable[str]], *, delete: bool = False, older_than: float = GRACE_SECONDS
) -> list[GarbageItem]:
    """Note what no run and no living process needs; with `delete`, remove what was found so before.

    A stage is needed if it is in use, if a stage being built takes it as input, or if one that is needed was made
    from it. Runs, builders and other collectors may go on meanwhile.

    Args:
        store: Where to look.
        used: Keys of the stages in use at the moment of the call: it is asked again before each deletion. What it
            raises ends the collection.
        delete: Remove, rather than only note, what is old enough.
        older_than: Seconds that something must have lain there unchanged since a first look found it.

    Returns:
        Stages nobody needs, attempts no manifest names, scratch and leases nobody holds.
    """
    storage = store.storage
    collector = Collector(storage, used, _read_marks(storage), time.time())
    items = []
    for found in collector.find():
        age = collector.age(found.path, found.state)
        deleted = delete and age >= older_than and found.remove()
        items.append(GarbageItem(found.path, found.size, found.why, age, deleted))
    gone = {item.path for item in items if item.deleted}
    marks = {path: mark for path, mark in collector.marks.items() if path not in gone}
    try:
        if marks or storage.exists(storage.at(MARKS)):
            storage.put(storage.at(MARKS), json.dumps(marks).encode())
    except OSError as error:  # a full disk, perhaps: what was found is shown all the same
        logger.warning("cannot note what was found, so that its grace period begins: %s", error)
    return items


def _read_marks(storage: Storage) -> dict[str, tuple[float, str]]:
    try:
        found = json.loads(storage.read(storage.at(MARKS)) or b"{}")
        return {str(path): (float(since), str(state)) for path, (since, state) in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}  # everything is found for the first time


def _kinds(storage: Storage) -> list[str]:
    """Kinds of stages there are, sorted."""
    return [info.base_name for info in storage.entries(storage.at("stages")) if is_name(info.base_name)]

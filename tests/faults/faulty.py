"""A storage whose n-th call goes wrong: disks, networks and kills as a process sees them, and others beside it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from autophagy.runs.claims import StagesInUse
from autophagy.store import Artifact, Attempt, StageStore
from autophagy.store.artifacts import file_sizes
from autophagy.store.manifests import MANIFEST, decode_manifest, payload_path
from autophagy.store.storage import Storage
from autophagy.store.upkeep import GarbageItem, gc, ls

FAULTS = ("refuse", "lose", "stop", "stop after", "repeat", "late", "meanwhile")
LOOKS = ("checksum", "entries", "exists", "obstructed", "read")
CHANGES = (
    "create",
    "make_folder",
    "make_folder_with",
    "put",
    "remove",
    "remove_empty",
    "remove_if",
    "sync",
    "sync_name",
)
PAYLOAD = {f"part-{i}": b"%d" % i * 9 for i in range(3)}


class Stopped(SystemExit):
    """The process is gone: what it would have done from here on is not done."""


class FaultyStorage(Storage):
    """Storage that counts its calls, nested ones too, and does one of them wrong.

    refuse: an error, and nothing was done. lose: it was done, and an error all the same. stop, stop after: the process
    is gone before or after it. repeat: a change is made twice. late: it is made once more when all is over, as requests
    that were repeated may be. meanwhile: somebody else does something first.
    """

    def __init__(self, uri: str, fault: str, nth: int, meanwhile: Callable[[], object], times: int) -> None:
        super().__init__(uri)
        self.fault, self.nth, self.meanwhile, self.times = fault, nth, meanwhile, times
        self.count, self.gone = 0, False
        self.late: Callable[[], object] = lambda: None

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        self.count += 1
        due, fault = self.nth <= self.count < self.nth + self.times, self.fault
        if self.gone or (due and fault == "stop"):
            self.gone = True
            raise Stopped
        if due and fault == "refuse":
            raise OSError(errno.EIO, "refused")
        if due and fault == "meanwhile":
            self.meanwhile()
        act = partial(getattr(Storage, name), self, *arguments, **keywords)
        answer = act()
        if due and name in CHANGES:
            self.late = act if fault == "late" else self.late
            if fault == "repeat":
                act()
        if due and fault == "lose":
            raise OSError(errno.EIO, "the answer was lost")
        if due and fault == "stop after":
            self.gone = True
            raise Stopped
        return answer


def _faulty(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **keywords: self.call(name, *arguments, **keywords)


for _name in (*LOOKS, *CHANGES):
    setattr(FaultyStorage, _name, _faulty(_name))


def faulty_store(
    store: StageStore, fault: str = "", nth: int = 0, meanwhile: Callable[[], object] = lambda: None, times: int = 1
) -> StageStore:
    """The same store as a process sees it to whom this happens at its n-th call, and the next ones."""
    faulty = StageStore(store.uri)
    faulty.storage = FaultyStorage(store.uri, fault, nth, meanwhile, times)
    return faulty


def build(store: StageStore, key: str = "k1", inputs: dict[str, str] | None = None) -> Artifact:
    """Build or open a stage of three files."""

    def builder(attempt: Attempt) -> None:
        for name, data in PAYLOAD.items():
            attempt.write_bytes(name, data)

    return store.build("train", key, {"inputs": inputs or {}}, builder)


def collect(store: StageStore, **options: Any) -> list[GarbageItem]:
    """Look for garbage as `autophagy store gc` does: what no run folder names is in use by nobody."""
    return gc(store, StagesInUse(store), **options)


def read(artifact: Artifact) -> dict[str, bytes]:
    """All files of a stage."""
    return {name: artifact.read_bytes(name) for name in artifact.files()}


def check(store: StageStore, settled: bool = True) -> None:
    """A manifest implies every file that its builder wrote, whole.

    While a collector and a builder that looks dead are at it, files may be gone for a moment that the manifest names:
    then nobody opens it.
    """
    storage = store.storage
    for info in storage.entries(storage.at("stages"), recursive=True):
        if info.base_name != MANIFEST:
            continue
        stage, key = info.path.split("/")[-3:-1]
        manifest = decode_manifest(storage.read(info.path) or b"", stage, key)
        assert manifest is not None, "a manifest was seen in part"
        sizes = {name: len(data) for name, data in PAYLOAD.items()}
        assert {name: file["size"] for name, file in manifest["files"].items()} == sizes
        folder = payload_path(storage, manifest)
        if settled or file_sizes(storage, folder) == sizes:
            assert {name: storage.read(f"{folder}/{name}") for name in PAYLOAD} == PAYLOAD


def leftovers(store: StageStore) -> set[str]:
    """Files of a local store that belong to no finished stage and no run."""
    files = {str(path.relative_to(store.root)) for path in Path(store.root).rglob("*") if path.is_file()}
    kept = set()
    for info in ls(store):
        artifact = store.open(info.stage, info.key)
        if artifact is not None:
            folder = artifact.path.removeprefix(f"{store.root}/")
            kept |= {f"{folder}/{name}" for name in [*artifact.files(), ".building"]}
            kept.add(f"{folder.rpartition('/')[0]}/{MANIFEST}")
    return {name for name in files - kept if not name.startswith("runs/") and name != "garbage.json"}

"""What nobody needs in a store. Everything found was checked against leases and manifests just before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pyarrow.fs import FileInfo

from autophagy import leases
from autophagy.artifacts import MANIFEST, read_manifest
from autophagy.records import UserError
from autophagy.storage import TEMPORARY, Storage, is_name


@dataclass(frozen=True)
class GarbageItem:
    """Something in the store that nobody needs."""

    path: str  # file or folder within the filesystem
    size: int  # bytes
    why: str


def find_garbage(storage: Storage) -> Iterator[GarbageItem]:
    """Stages no run reaches, attempts no manifest names, scratch, leases, temporary files of dead processes.

    Yields:
        Items one by one, each found just before: act on it before asking for the next.

    Raises:
        UserError: A run folder cannot be read: what it uses is not known.
    """
    yield from _stages(storage)
    for (stage, key), entries in _tree(storage, "scratch").items():
        if not _building(storage, stage, key):
            why = "a build could resume from it, but nobody is building"
            yield GarbageItem(storage.at("scratch", stage, key), sum(entries.values()), why)
    for info in _lease_files(storage):
        if not leases.read_live(storage, info.path):
            yield GarbageItem(info.path, info.size, "lease of a process that is gone")
    old = datetime.now(UTC) - timedelta(seconds=leases.DEAD_SECONDS)
    for info in storage.entries(storage.at(TEMPORARY)):
        if info.is_file and info.mtime < old:
            yield GarbageItem(info.path, info.size, "left by a process that is gone")


def _stages(storage: Storage) -> Iterator[GarbageItem]:
    # Folders are listed before leases and manifests are read: an attempt that is listed, and then neither
    # under a live lease nor in a manifest, was left behind and not just begun.
    folders = _tree(storage, "stages")
    used = _used_keys(storage)
    manifests = {folder: read_manifest(storage, *folder) for folder in folders}
    inputs = {m["key"]: set(m["spec"].get("inputs", {}).values()) for m in manifests.values() if m}
    reached = _closure(used, inputs)
    for (stage, key), entries in folders.items():
        done = MANIFEST in entries and manifests[stage, key] is not None
        if done and key not in reached:
            yield GarbageItem(storage.at("stages", stage, key), sum(entries.values()), "no run reaches it")
        elif not done or len(entries) > 2:
            yield from _leftovers(storage, stage, key, entries)


def _leftovers(storage: Storage, stage: str, key: str, entries: Mapping[str, int]) -> Iterator[GarbageItem]:
    """What the manifest of a stage, if there is one, does not name."""
    if _building(storage, stage, key):
        return
    manifest = read_manifest(storage, stage, key)
    named = {MANIFEST, manifest["attempt"]} if manifest else set()
    for name in sorted(entries.keys() - named):
        path = storage.at("stages", stage, key, name)
        yield GarbageItem(path, entries[name], "left by a build that did not finish")


def _building(storage: Storage, stage: str, key: str) -> bool:
    return leases.read_live(storage, leases.lease_path(storage, stage, key)) is not None


def _lease_files(storage: Storage) -> list[FileInfo]:
    return [info for info in storage.entries(storage.at("leases"), recursive=True) if info.is_file]


def _used_keys(storage: Storage) -> set[str]:
    """Keys that run folders name and keys that living builders take as input."""
    used = set()
    for run in storage.entries(storage.at("runs")):
        records = storage.read(f"{run.path}/records.jsonl") or b""
        stages = storage.read(f"{run.path}/stages.json") or b"[]"
        try:
            for line in records.splitlines():
                used.update(json.loads(line)["stages"].values())
            used.update(key for _, key in json.loads(stages))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"store: cannot read which stages {run.path} uses ({error}); "
                "mend its records.jsonl and stages.json, or remove the folder"
            ) from error
    for info in _lease_files(storage):
        lease = leases.read_live(storage, info.path)
        used.update(lease["inputs"] if lease else [])
    return used


def _closure(keys: set[str], inputs: Mapping[str, set[str]]) -> set[str]:
    """The keys and all that they were made from."""
    reached: set[str] = set()
    todo = list(keys)
    while todo:
        key = todo.pop()
        if key not in reached:
            reached.add(key)
            todo.extend(inputs.get(key, ()))
    return reached


def _tree(storage: Storage, top: str) -> dict[tuple[str, str], dict[str, int]]:
    """Below `<root>/<top>`: for each stage and key the entries of its folder with their sizes in bytes."""
    base = storage.at(top)
    tree: dict[tuple[str, str], dict[str, int]] = {}
    for info in storage.entries(base, recursive=True):
        parts = info.path[len(base) + 1 :].split("/")
        if len(parts) >= 2 and all(map(is_name, parts[:2])):
            entries = tree.setdefault((parts[0], parts[1]), {})
            if len(parts) >= 3:
                entries[parts[2]] = entries.get(parts[2], 0) + (info.size or 0)
    return tree

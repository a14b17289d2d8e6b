"""What nobody needs in a store, and how it is taken away beside whatever else goes on there.

Two looks, a grace period apart: what a first one finds is noted with the time, and deleted by a later one that finds
it unchanged. Before each deletion the claims are read again, and in such an order that of a collector and of a process
that needs the thing at least one sees the other:
    a stage: the manifest goes, then claims are read (and it is put back), then files go; a run claims, then opens
    an attempt: its marker goes, then the manifest is read, then files go; a builder publishes, then reads its marker
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyarrow.fs import FileInfo

from autophagy.store import leases
from autophagy.store.artifacts import MARKER
from autophagy.store.manifests import MANIFEST, manifest_path, read_manifest
from autophagy.store.names import is_name
from autophagy.store.storage import TEMPORARY, Storage


@dataclass(frozen=True)
class Found:
    """Something that nobody needs at this moment; `remove` looks again, and says whether it was removed."""

    path: str
    size: int
    why: str
    state: str  # changes with the thing
    remove: Callable[[], bool]


class Collector:
    """One look at a store."""

    def __init__(
        self, storage: Storage, used: Callable[[], Iterable[str]], before: Mapping[str, tuple[float, str]], now: float
    ) -> None:
        """Look at nothing yet.

        Args:
            storage: Of the store.
            used: Keys of the stages in use at the moment of the call.
            before: By path, since when the thing there was found, and in which state.
            now: Seconds since 1970.
        """
        self.storage, self.used, self.before, self.now = storage, used, before, now
        self.marks: dict[str, tuple[float, str]] = {}  # of all that was asked about in this look
        self.inputs: dict[str, list[str]] = {}  # key of a finished stage -> keys it was made from

    def age(self, path: str, state: str) -> float:
        """Seconds since a collector first found this as it is now; a clock that went back makes nothing older."""
        since, known = self.before.get(path, (self.now, state))
        since = since if known == state else self.now
        self.marks[path] = (since, state)
        return max(0.0, self.now - since)

    def find(self) -> Iterator[Found]:
        """Stages no run reaches, attempts no manifest names, scratch, leases, temporary files of dead processes.

        One by one, each found just before: act on it before asking for the next.
        """
        storage = self.storage
        yield from self._stages()
        for (stage, key), parts in _tree(storage, "scratch").items():
            if not self._resumes(stage, key):
                path, size, state = storage.at("scratch", stage, key), *_sum(parts)
                why = "for a build to resume from, which nobody needs"
                yield Found(path, size, why, state, partial(self._remove_scratch, stage, key))
        for info in _files(storage, "leases"):
            if self._lease(info.path) is None and (data := storage.read(info.path)) is not None:
                remove = partial(self._remove_lease, info.path, data)
                yield Found(info.path, info.size, "lease of a process that is gone", _digest(data), remove)
        for info in storage.entries(storage.at(TEMPORARY)):
            if self.now - info.mtime.timestamp() > leases.DEAD_SECONDS:
                why = "left by a process that is gone"
                yield Found(info.path, info.size or 0, why, _state(info), partial(self._remove, info.path))

    def _stages(self) -> Iterator[Found]:
        # Folders are listed before leases and manifests are read: an attempt that is listed, and then neither
        # under a live lease nor in a manifest, was left behind and not just begun.
        folders = _tree(self.storage, "stages")
        manifests = {folder: read_manifest(self.storage, *folder) for folder in folders}
        self.inputs = {m["key"]: list(m["spec"].get("inputs", {}).values()) for m in manifests.values() if m}
        needed = self._needed()
        for (stage, key), parts in folders.items():
            done = MANIFEST in parts and manifests[stage, key] is not None
            if done and key not in needed:
                path, size, state = self.storage.at("stages", stage, key), *_sum(parts)
                yield Found(path, size, "no run reaches it", state, partial(self._remove_stage, stage, key, parts))
            elif not done or len(parts) > 2:
                yield from self._leftovers(stage, key, parts)

    def _leftovers(self, stage: str, key: str, parts: Mapping[str, list[FileInfo]]) -> Iterator[Found]:
        """What the manifest of a stage, if there is one, does not name."""
        if self._building(stage, key):
            return
        manifest = read_manifest(self.storage, stage, key)
        named = {MANIFEST, manifest["attempt"]} if manifest else set()
        for name in sorted(parts.keys() - named):
            path, size, state = self.storage.at("stages", stage, key, name), *_sum({name: parts[name]})
            remove = partial(self._remove_leftover, stage, key, name)
            yield Found(path, size, "left by a build that did not finish", state, remove)

    # What is removed, and in which order

    def _remove_stage(self, stage: str, key: str, parts: Mapping[str, list[FileInfo]]) -> bool:
        path = manifest_path(self.storage, stage, key)
        data = self.storage.read(path)
        if data is None:
            return False
        self.storage.remove_if(path, data)  # nobody finds it from now on
        claimed = True
        try:
            claimed = key in self._needed()
        finally:
            if claimed:
                self.storage.create(path, data)
        if claimed:
            return False
        for name in parts.keys() - {MANIFEST}:
            self.storage.remove(self.storage.at("stages", stage, key, name))
        self.storage.remove_empty(self.storage.at("stages", stage, key))
        return True

    def _remove_leftover(self, stage: str, key: str, name: str) -> bool:
        path = self.storage.at("stages", stage, key, name)
        if self._building(stage, key):
            return False
        self.storage.remove(f"{path}/{MARKER}")  # whoever builds there cannot publish it from now on
        manifest = read_manifest(self.storage, stage, key)
        if manifest and name in (MANIFEST, manifest["attempt"]):
            return False
        self.storage.remove(path)
        self.storage.remove_empty(self.storage.at("stages", stage, key))
        return True

    def _remove_scratch(self, stage: str, key: str) -> bool:
        return not self._resumes(stage, key) and self._remove(self.storage.at("scratch", stage, key))

    def _remove_lease(self, path: str, data: bytes) -> bool:
        self.storage.remove_if(path, data)
        return True

    def _remove(self, path: str) -> bool:
        self.storage.remove(path)
        return True

    # Who needs what

    def _building(self, stage: str, key: str) -> bool:
        return self._lease(leases.lease_path(self.storage, stage, key)) is not None

    def _resumes(self, stage: str, key: str) -> bool:
        """Whether somebody builds from the scratch of a stage, or will: a run that was killed is given again."""
        done = self.storage.exists(manifest_path(self.storage, stage, key))
        return self._building(stage, key) or (not done and key in self._needed())

    def _lease(self, path: str) -> dict[str, Any] | None:
        """The lease at `path` as it is now, unless its owner is dead.

        Of an owner elsewhere that is so if it has not changed since an earlier look.
        """
        data = self.storage.read(path)
        known = leases.owner(data)
        if data is None or known == "dead":
            return None
        if known == "unknown" and self.age(path, _digest(data)) > leases.DEAD_SECONDS:
            return None
        return leases.decode(data)

    def _needed(self) -> set[str]:
        """Keys that are in use now, that living builders take as input, and all that these were made from."""
        held = filter(None, (self._lease(info.path) for info in _files(self.storage, "leases")))
        todo = [*self.used(), *(key for lease in held for key in lease["inputs"])]
        needed: set[str] = set()
        while todo:
            key = todo.pop()
            if key not in needed:
                needed.add(key)
                todo.extend(self.inputs.get(key, ()))
        return needed


def _files(storage: Storage, top: str) -> list[FileInfo]:
    return [info for info in storage.entries(storage.at(top), recursive=True) if info.is_file]


def _tree(storage: Storage, top: str) -> dict[tuple[str, str], dict[str, list[FileInfo]]]:
    """Below `<root>/<top>`: for each stage and key the entries of its folder, with the files below each."""
    base = storage.at(top)
    tree: dict[tuple[str, str], dict[str, list[FileInfo]]] = {}
    for info in storage.entries(base, recursive=True):
        parts = info.path[len(base) + 1 :].split("/")
        if len(parts) >= 2 and all(map(is_name, parts[:2])):
            entries = tree.setdefault((parts[0], parts[1]), {})
            if len(parts) >= 3:
                entries.setdefault(parts[2], []).append(info)
    return tree


def _sum(parts: Mapping[str, list[FileInfo]]) -> tuple[int, str]:
    """Size in bytes of some entries, and what changes with them."""
    infos = [info for below in parts.values() for info in below if info.is_file]
    return sum(info.size for info in infos), _digest(repr([_state(info) for info in infos]).encode())


def _state(info: FileInfo) -> str:
    return f"{info.size} {info.mtime_ns}"


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()

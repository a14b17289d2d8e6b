"""A content-addressed store of finished stages, on a local disk or in S3: each is built once, ever.

    <root>/stages/<stage>/<key>/manifest.json   written last, and only if there is none: the stage is done
    <root>/stages/<stage>/<key>/<attempt>/...   payload of one builder; the manifest names the one that counts
    <root>/scratch/<stage>/<key>/               what a builder can resume from; removed once published
    <root>/leases/<stage>/<key>.json            who builds it now
    <root>/runs/<name>/                         run folders: plain files for people
    <root>/garbage.json                         what a collector found, and when

The invariant: a manifest implies every file that its builder wrote, whole and durable. Nothing but a manifest is ever
copied, so the same few steps hold on a disk and on S3, and a process that is killed, suspended or cut off at any point
leaves either a finished stage or garbage that nobody reads.
"""

from __future__ import annotations

import json
import logging
import platform
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow.fs import FileInfo, FileSystem

from autophagy.common.errors import UserError
from autophagy.common.versions import installed
from autophagy.store import leases
from autophagy.store.artifacts import (
    Artifact,
    Attempt,
    decode_manifest,
    encode_manifest,
    file_sizes,
    manifest_path,
    payload_path,
    read_manifest,
)
from autophagy.store.garbage import GRACE_SECONDS, GarbageItem, collect
from autophagy.store.storage import Storage, check_key, is_name

_HISTORY = 20
_BEGINNINGS = 3  # of one build, before something is wrong with the storage
_PACKAGES = ("autophagy", "torch", "ray")

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


class StageStore:
    """Builds every stage once, ever; finds it again, damaged or not; forgets what no run uses. Picklable."""

    def __init__(self, uri: str | Path) -> None:
        """Open a store, creating its root.

        Args:
            uri: A folder, `file://...`, or `s3://bucket/prefix?endpoint_override=...&scheme=...&region=...`
                (with `allow_bucket_creation=true` the bucket is created).

        Raises:
            UserError: Nothing can be written there.
        """
        self.storage = Storage(uri)
        self.storage.check()

    @property
    def uri(self) -> str:
        """The URI, or the absolute path of a local folder."""
        return self.storage.uri

    @property
    def fs(self) -> FileSystem:
        """The pyarrow filesystem."""
        return self.storage.fs

    @property
    def root(self) -> str:
        """The root within `fs`."""
        return self.storage.root

    # Stages

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the stage is published: one look-up, nothing is checked."""
        return self.storage.exists(manifest_path(self.storage, stage, key))

    def open(self, stage: str, key: str) -> Artifact | None:
        """Open a finished stage, checking that every file is there with its size.

        A damaged one is reported as a warning and loses its manifest, so that it is built anew.

        Returns:
            The artifact; None if the stage is not done or was damaged.
        """
        path = manifest_path(self.storage, stage, key)
        data = self.storage.read(path)
        if data is None:
            if self.storage.obstructed(path):
                logger.warning("damaged, will be built anew: %s (it is no file)", path)
                self.storage.remove(path)
            return None
        manifest = decode_manifest(data, stage, key)
        problems = self._problems(manifest)
        if manifest is None or problems:
            self._condemn(path, data, problems)
            return None
        return Artifact(stage, key, payload_path(self.storage, manifest), manifest, self.storage)

    def build(
        self,
        stage: str,
        key: str,
        spec: Mapping[str, Any],
        builder: Callable[[Attempt], None],
        wait: Callable[[str], None] | None = None,
    ) -> Artifact:
        """Open a stage, or build and publish it while other processes that need it wait.

        Args:
            stage: Kind of stage.
            key: Hash of all that its result depends on.
            spec: JSON, what was hashed, for people and garbage collection; `spec["inputs"]` maps role to key.
            builder: Writes the payload. Whatever it raises is raised here, and nothing is published.
            wait: Told once, in one line, if another process is building this stage.

        Returns:
            The artifact, whoever built it.
        """
        inputs = [check_key(value) for value in spec.get("inputs", {}).values()]
        json.dumps(spec)  # fails now rather than after the work
        done = partial(self.is_done, stage, key)
        artifact, begun = self.open(stage, key), 0
        while artifact is None:
            if begun == _BEGINNINGS:
                raise RuntimeError(f"stage {stage} {key} was built {begun} times and is not in {self.storage!r}")
            with leases.hold(self.storage, stage, key, inputs, done, wait) as held:
                artifact = self.open(stage, key)
                if artifact is None and held:
                    artifact = self._run(stage, key, spec, builder)
                    begun += 1
        return artifact

    def _run(
        self, stage: str, key: str, spec: Mapping[str, Any], builder: Callable[[Attempt], None]
    ) -> Artifact | None:
        """Run the builder in an attempt of its own and publish that, unless somebody else was first.

        Returns:
            The stage, whoever published it; None if what was built was collected meanwhile.
        """
        name = uuid.uuid4().hex
        scratch = self.storage.at("scratch", stage, key)
        attempt = Attempt(self.storage.at("stages", stage, key, name), scratch, self.storage)
        path = manifest_path(self.storage, stage, key)
        try:
            attempt.begin()
            start = time.perf_counter()
            builder(attempt)
            seconds = time.perf_counter() - start
            manifest = {
                "stage": stage,
                "key": key,
                "attempt": name,
                "spec": spec,
                "info": attempt.info,
                "seconds": round(seconds, 3),
                "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "host": socket.gethostname(),
                "versions": {"python": platform.python_version()} | installed(_PACKAGES),
                "files": attempt.seal(),
            }
            data = encode_manifest(manifest)
            # A collector takes the marker first. Here before: no file was missing from the list above. Here after: a
            # collector that takes it from now on sees the manifest.
            if attempt.stands():
                self.storage.create(path, data)
                self.storage.sync_name(path)
            if not attempt.stands():
                self.storage.remove_if(path, data)
        except BaseException:
            self._abandon(attempt)
            raise
        artifact = self.open(stage, key)
        if artifact is None:
            logger.warning("begun anew: %s %s was collected while it was built, or its files are gone", stage, key)
        else:
            self.storage.discard(scratch)
        if artifact is None or artifact.path != attempt.path:  # somebody else was first
            self.storage.discard(attempt.path)
        return artifact

    def _abandon(self, attempt: Attempt) -> None:
        """Discard an attempt that failed, unless it was published before it did."""
        stage, key, name = attempt.path.split("/")[-3:]
        with suppress(OSError):  # else it is garbage
            manifest = read_manifest(self.storage, stage, key)
            if manifest is None or manifest["attempt"] != name:
                self.storage.remove(attempt.path)

    # Looking around

    def siblings(self, stage: str, prefix: str) -> list[str]:
        """Keys of the finished stages of this kind that start with `prefix`, sorted."""
        return [key for key, _ in self._finished(stage, prefix)]

    def history(self, stage: str) -> list[Mapping[str, Any]]:
        """Manifests of the latest finished stages of this kind, newest first, at most 20."""
        newest = sorted(self._finished(stage), key=lambda found: found[1].mtime, reverse=True)[:_HISTORY]
        manifests = [read_manifest(self.storage, stage, key) for key, _ in newest]
        return [manifest for manifest in manifests if manifest]

    def ls(self) -> list[StageInfo]:
        """All finished stages, by kind and key."""
        stages = [(stage, key) for stage in self._stages() for key, _ in self._finished(stage)]
        manifests = [read_manifest(self.storage, *stage) for stage in stages]
        return [_stage_info(*stage, found) for stage, found in zip(stages, manifests, strict=True) if found]

    def verify(self, stage: str | None = None) -> Iterator[tuple[StageInfo, list[str]]]:
        """Read every finished stage (of one kind) again, comparing checksums.

        Yields:
            Each stage with what is wrong with it; a damaged one loses its manifest, so that it is built anew.
        """
        for kind in self._stages() if stage is None else [stage]:
            for key, _ in self._finished(kind):
                path = manifest_path(self.storage, kind, key)
                data = self.storage.read(path)
                if data is None:  # collected or rebuilt since it was listed
                    continue
                manifest = decode_manifest(data, kind, key)
                problems = self._problems(manifest, checksums=True)
                if problems:
                    self._condemn(path, data, problems)
                yield _stage_info(kind, key, manifest), problems

    def gc(self, delete: bool = False, older_than: float = GRACE_SECONDS) -> list[GarbageItem]:
        """Find what no run and no living process needs; with `delete`, remove what was found so before.

        A stage is needed if a run folder names it, in `records.jsonl` or in `stages.json` (a list of
        [stage, key] pairs in use), if a stage being built takes it as input, or if one that is needed was
        made from it. Runs, builders and other collectors may go on meanwhile.

        Args:
            delete: Remove, rather than only note, what is old enough.
            older_than: Seconds that something must have lain there unchanged since a first look found it.

        Returns:
            Stages no run reaches, attempts no manifest names, scratch and leases nobody holds.

        Raises:
            UserError: A run folder cannot be read: what it uses is not known.
        """
        return collect(self.storage, delete, older_than)

    # Run folders

    def run_names(self) -> list[str]:
        """Names of the run folders, sorted."""
        return sorted(info.base_name for info in self.storage.entries(self.storage.at("runs")) if not info.is_file)

    def run_path(self, name: str) -> str:
        """The folder of a run, within `fs`.

        Raises:
            UserError: The name is not one plain file name.
        """
        return self.storage.at("runs", _check_run_name(name))

    def read_run_file(self, name: str, file: str) -> bytes | None:
        """The content of a file in a run folder, None if there is none."""
        return self.storage.read(f"{self.run_path(name)}/{_check_run_name(file)}")

    def create_run_file(self, name: str, file: str, data: bytes) -> bool:
        """Write a file in a run folder if there is none, and say whether it holds `data` now."""
        return self.storage.claim(f"{self.run_path(name)}/{_check_run_name(file)}", data)

    def remove_run_files(self, name: str, files: Iterable[str]) -> None:
        """Remove files of a run folder, and the folder if nothing else is in it."""
        for file in files:
            self.storage.remove(f"{self.run_path(name)}/{_check_run_name(file)}")
        self.storage.remove_empty(self.run_path(name))

    def write_run_file(self, name: str, file: str, data: bytes) -> None:
        """Write or replace a file in a run folder, atomically."""
        self.storage.put(f"{self.run_path(name)}/{_check_run_name(file)}", data)

    # Parts

    def _problems(self, manifest: Mapping[str, Any] | None, checksums: bool = False) -> list[str]:
        """What is wrong with a stage's payload, in words."""
        if manifest is None:
            return ["unreadable manifest"]
        problems = []
        folder = payload_path(self.storage, manifest)
        sizes = file_sizes(self.storage, folder)
        for name, expected in manifest["files"].items():
            if name not in sizes:
                problems.append(f"{name}: missing")
            elif sizes[name] != expected["size"]:
                problems.append(f"{name}: {sizes[name]} bytes instead of {expected['size']}")
            elif checksums and self.storage.checksum(f"{folder}/{name}") != expected["blake2b"]:
                problems.append(f"{name}: wrong checksum")
        return problems

    def _condemn(self, path: str, data: bytes, problems: list[str]) -> None:
        logger.warning("damaged, will be built anew: %s (%s)", path, "; ".join(problems))
        self.storage.remove_if(path, data)

    def _stages(self) -> list[str]:
        """Kinds of stages there are, sorted."""
        names = [info.base_name for info in self.storage.entries(self.storage.at("stages"))]
        return [name for name in names if is_name(name)]

    def _finished(self, stage: str, prefix: str = "") -> list[tuple[str, FileInfo]]:
        """Keys of finished stages of one kind, sorted, with the file info of their manifests."""
        folder = self.storage.at("stages", check_key(stage))
        names = [info.base_name for info in self.storage.entries(folder)]
        keys = [name for name in names if is_name(name) and name.startswith(prefix)]
        infos = self.fs.get_file_info([manifest_path(self.storage, stage, key) for key in keys])
        return [(key, info) for key, info in zip(keys, infos, strict=True) if info.is_file]


def _check_run_name(name: str) -> str:
    if not is_name(name):
        raise UserError(f"name: {name!r} cannot be a file name; use letters, digits, '.', '_', '-', no dot in front")
    return name


def _stage_info(stage: str, key: str, manifest: Mapping[str, Any] | None) -> StageInfo:
    if manifest is None:
        return StageInfo(stage, key)
    files = manifest["files"]
    size = sum(file["size"] for file in files.values())
    return StageInfo(stage, key, size, manifest["created"], manifest["seconds"], len(files))

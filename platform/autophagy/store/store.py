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
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem

from autophagy.common.versions import installed
from autophagy.store import leases
from autophagy.store.artifacts import Artifact, Attempt
from autophagy.store.manifests import (
    condemn,
    damage,
    decode_manifest,
    encode_manifest,
    finished,
    manifest_path,
    payload_path,
    read_manifest,
)
from autophagy.store.names import check_key
from autophagy.store.storage import Storage

_HISTORY = 20
_BEGINNINGS = 3  # of one build, before something is wrong with the storage
_PACKAGES = ("autophagy", "torch", "ray")

logger = logging.getLogger(__name__)


class StageStore:
    """Builds every stage once, ever, and finds it again, damaged or not. Picklable."""

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
        problems = damage(self.storage, manifest)
        if manifest is None or problems:
            condemn(self.storage, path, data, problems)
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
        return [key for key, _ in finished(self.storage, stage, prefix)]

    def history(self, stage: str) -> list[Mapping[str, Any]]:
        """Manifests of the latest finished stages of this kind, newest first, at most 20."""
        newest = sorted(finished(self.storage, stage), key=lambda found: found[1].mtime, reverse=True)[:_HISTORY]
        manifests = [read_manifest(self.storage, stage, key) for key, _ in newest]
        return [manifest for manifest in manifests if manifest]
